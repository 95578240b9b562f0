//! The engine alone.

use super::*;

fn engine(kind: &str) -> ItemsEngine {
    ItemsEngine::restore(kind, 7, &[], 1).unwrap()
}

fn changes(kind: &str, op_type: &str, data: &str) -> Result<Vec<Change>, ItemsError> {
    match parse(op_type, Root::of(kind), data.as_bytes())? {
        Parsed::Changes(changes) => Ok(changes),
        Parsed::Replace => panic!("{data} is typed"),
    }
}

fn apply(engine: &mut ItemsEngine, op: (&str, &str), base: u64, by: (u64, u32)) -> Result<Vec<Change>, ItemsError> {
    let kind = if engine.roots.len() > 1 { "sheet" } else { "canvas" };
    let author = Author { version: by.0, session: by.1 };
    engine.apply(changes(kind, op.0, op.1)?, Seen::of(base, by.1), author).map(|(changes, _)| changes)
}

fn content(engine: &ItemsEngine) -> String {
    String::from_utf8(engine.content()).unwrap()
}

#[test]
fn each_type_of_operation_does_what_it_says() {
    let mut board = engine("whiteboard");
    let operations = [
        ("create", r#"{"id": "e", "set": {"kind": "box"}, "pos": [1, 2], "text": "hi"}"#),
        ("update", r#"{"id": "e", "set": {"color": "red", "kind": null}}"#),
        ("move", r#"{"id": "e", "pos": [3, 4.5], "z": "a1"}"#),
        ("resize", r#"{"id": "e", "size": [10, 20]}"#),
        ("style", r#"{"id": "e", "style": {"bold": true}}"#),
        ("text", r#"{"id": "e", "text": {"pos": 2, "ins": "!"}}"#),
        ("create", r#"[{"id": "gone"}, {"id": "child", "parent": "e"}]"#),
        ("delete", r#"{"id": "gone"}"#),
    ];
    for (index, operation) in operations.into_iter().enumerate() {
        let base = 1 + index as u64;
        apply(&mut board, operation, base, (base + 1, 1)).unwrap();
    }
    let expected = r#"{"elements":{"child":{"parent":"e"},"e":{"color":"red","pos":[3,4.5],"size":[10,20],"style":{"bold":true},"text":"hi!","z":"a1"}}}"#;
    assert_eq!(content(&board), expected);
    let state = board.state();
    assert_eq!(content(&ItemsEngine::restore("whiteboard", 7, &state, 9).unwrap()), expected);
}

#[test]
fn a_sheet_has_cells_rows_and_columns() {
    let mut sheet = engine("sheet");
    let operations = [
        ("create", r#"[{"row": "r1", "index": "a0"}, {"col": "c1", "index": "a0"}]"#),
        ("create", r#"{"cell": "r1:c1", "set": {"v": 7, "f": "=1+6"}}"#),
        ("resize", r#"[{"row": "r1", "height": 30}, {"col": "c1", "width": 80}]"#),
        ("move", r#"{"row": "r1", "index": "a5"}"#),
        ("style", r#"{"cell": "r1:c1", "style": {"bold": true}}"#),
    ];
    for (index, operation) in operations.into_iter().enumerate() {
        let base = 1 + index as u64;
        apply(&mut sheet, operation, base, (base + 1, 1)).unwrap();
    }
    let expected = r#"{"cells":{"r1:c1":{"f":"=1+6","style":{"bold":true},"v":7}},"cols":{"c1":{"index":"a0","width":80}},"rows":{"r1":{"height":30,"index":"a5"}}}"#;
    assert_eq!(content(&sheet), expected);
}

#[test]
fn a_circle_of_parents_is_refused_and_changes_nothing() {
    let mut board = engine("canvas");
    apply(
        &mut board,
        ("create", r#"[{"id": "a"}, {"id": "b", "parent": "a"}, {"id": "c", "parent": "b"}]"#),
        1,
        (2, 1),
    )
    .unwrap();
    let before = content(&board);
    for data in [r#"{"id": "a", "parent": "c"}"#, r#"{"id": "a", "parent": "a"}"#] {
        let error = apply(&mut board, ("move", data), 2, (3, 1)).unwrap_err();
        assert!(error.to_string().contains("tree"), "{error}");
    }
    let both = r#"[{"id": "b", "parent": null}, {"id": "a", "parent": "b"}]"#;
    assert_eq!(content(&board), before);
    apply(&mut board, ("move", both), 2, (3, 1)).unwrap();
}

#[test]
fn writes_that_did_not_know_each_other_clash_only_where_they_touch() {
    let mut board = engine("canvas");
    apply(&mut board, ("create", r#"[{"id": "a"}, {"id": "b"}]"#), 1, (2, 1)).unwrap();
    apply(&mut board, ("update", r#"{"id": "a", "set": {"x": 1}}"#), 2, (3, 1)).unwrap();
    apply(&mut board, ("delete", r#"{"id": "b"}"#), 3, (4, 1)).unwrap();
    let clashes = |op: (&str, &str), base, session| {
        board.clashes(&changes("canvas", op.0, op.1).unwrap(), Seen::of(base, session))
    };
    let same_key = ("update", r#"{"id": "a", "set": {"x": 2}}"#);
    let found = clashes(same_key, 2, 2).unwrap();
    assert_eq!(found, [Clash { version: 3, place: "elements/a/x".into(), deletion: false }]);
    assert_eq!(clashes(same_key, 3, 2).unwrap(), []);
    assert_eq!(clashes(same_key, 2, 1).unwrap(), [], "a writer knows its own");
    assert_eq!(clashes(("update", r#"{"id": "a", "set": {"y": 2}}"#), 2, 2).unwrap(), []);
    let of_deleted = clashes(("move", r#"{"id": "b", "pos": [0, 0]}"#), 2, 2).unwrap();
    assert_eq!((of_deleted[0].version, of_deleted[0].deletion), (4, true));
    let unknown = clashes(("move", r#"{"id": "b", "pos": [0, 0]}"#), 4, 2).unwrap_err();
    assert_eq!(unknown, ItemsError::Missing("elements/b".into()));
    let deletion = clashes(("delete", r#"{"id": "a"}"#), 2, 2).unwrap();
    assert_eq!((deletion[0].version, deletion[0].deletion), (3, false));
    assert_eq!(clashes(("create", r#"{"id": "a"}"#), 4, 2).unwrap_err(), ItemsError::Exists("elements/a".into()));
}

#[test]
fn writers_of_one_nested_text_merge() {
    let mut board = engine("canvas");
    apply(&mut board, ("create", r#"{"id": "a", "text": "one two"}"#), 1, (2, 1)).unwrap();
    apply(&mut board, ("text", r#"{"id": "a", "text": {"pos": 0, "ins": "> "}}"#), 2, (3, 1)).unwrap();
    let placed = apply(&mut board, ("text", r#"{"id": "a", "text": {"pos": 7, "ins": "!"}}"#), 2, (4, 2)).unwrap();
    assert_eq!(placed[0].text[0].pos, 9);
    assert!(content(&board).contains("> one two!"), "{}", content(&board));
    let outside =
        apply(&mut board, ("text", r#"{"id": "a", "text": {"pos": 99, "ins": "!"}}"#), 4, (5, 2)).unwrap_err();
    assert!(matches!(outside, ItemsError::Invalid(_)), "{outside:?}");
}

#[test]
fn data_that_names_an_item_and_breaks_a_rule_never_replaces_the_content() {
    let roots = Root::of("canvas");
    for (op_type, data) in [
        ("update", r#"{"id": "a"}"#),
        ("update", r#"{"id": ""}"#),
        ("update", r#"{"id": "a", "sets": {}}"#),
        ("update", r#"{"id": "a", "set": []}"#),
        ("update", r#"{"id": "a", "set": {"text": "x"}}"#),
        ("move", r#"{"id": "a", "pos": [1]}"#),
        ("move", r#"{"id": "a", "size": [1, 2]}"#),
        ("delete", r#"{"id": "a", "set": {"x": 1}}"#),
        ("text", r#"{"id": "a", "text": 7}"#),
        ("style", r#"{"id": "a", "style": 7}"#),
        ("update", r#"[{"id": "a", "set": {"x": 1}}, 7]"#),
    ] {
        assert!(matches!(parse(op_type, roots, data.as_bytes()), Err(ItemsError::Invalid(_))), "{op_type} {data}");
    }
    for data in ["", "[1,2]", "{}", "\u{0}", r#"{"name": "x"}"#, r#"{"id": 7}"#] {
        assert_eq!(parse("update", roots, data.as_bytes()), Ok(Parsed::Replace), "{data}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse("update", roots, deep.as_bytes()), Ok(Parsed::Replace));
}

#[test]
fn who_makes_a_text_goes_on_from_a_base_at_which_it_was_not_there() {
    let mut board = engine("canvas");
    apply(&mut board, ("create", r#"{"id": "a", "text": "one"}"#), 1, (2, 1)).unwrap();
    apply(&mut board, ("text", r#"{"id": "a", "text": {"pos": 3, "ins": " two"}}"#), 1, (3, 1)).unwrap();
    assert_eq!(content(&board), r#"{"elements":{"a":{"text":"one two"}}}"#);
}
