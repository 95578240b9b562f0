//! Yjs updates of items, from independent Yjs documents.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use yrs::ArrayPrelim;
use yrs::types::Attrs;

use super::*;

/// A client's own replica.
pub(super) struct Client {
    doc: Doc,
    map: MapRef,
}

impl Client {
    pub(super) fn new(id: u64, root: &str) -> Self {
        let mut options = Options::with_client_id(yrs::block::ClientID::new(id));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let map = doc.get_or_insert_map(root);
        Self { doc, map }
    }

    /// Does something and gives the update of it.
    pub(super) fn edit(&self, act: impl FnOnce(&MapRef, &mut TransactionMut<'_>)) -> Bytes {
        let mut txn = self.doc.transact_mut();
        act(&self.map, &mut txn);
        txn.encode_update_v1().into()
    }

    pub(super) fn receive(&self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }

    /// All that it has, as one update.
    pub(super) fn state(&self) -> Bytes {
        self.doc.transact().encode_diff_v1(&StateVector::default()).into()
    }

    pub(super) fn content(&self) -> Value {
        let txn = self.doc.transact();
        json!({ "elements": json_of_items(&self.map, &txn) })
    }
}

/// What a client does.
type Act = fn(&MapRef, &mut TransactionMut<'_>);

pub(super) fn engine() -> ItemsEngine {
    ItemsEngine::restore("canvas", 7, &[], 1).unwrap()
}

pub(super) fn content(engine: &ItemsEngine) -> Value {
    serde_json::from_slice(&engine.content()).unwrap()
}

pub(super) fn author(version: u64, session: u32) -> Author {
    Author { version, session }
}

pub(super) fn element(map: &MapRef, txn: &mut TransactionMut<'_>, id: &str) -> MapRef {
    match map.get(txn, id) {
        Some(Out::YMap(element)) => element,
        _ => map.insert(txn, id, MapPrelim::default()),
    }
}

/// The text of an element that has one.
fn text_of(element: &MapRef, txn: &TransactionMut<'_>) -> TextRef {
    match element.get(txn, "text") {
        Some(Out::YText(text)) => text,
        _ => panic!("the element has a text"),
    }
}

fn changes_of(op_type: &str, data: &str) -> Vec<Change> {
    match parse(op_type, Root::of("canvas"), data.as_bytes()).unwrap() {
        Parsed::Changes(changes) => changes,
        Parsed::Replace => panic!("{data} is typed"),
    }
}

/// The JSON form says the same as the changes, whatever type the operation has.
fn reread(changes: &[Change]) -> Vec<Change> {
    match parse("insert", Root::of("canvas"), &encode_each(changes)).unwrap() {
        Parsed::Changes(changes) => changes,
        Parsed::Replace => {
            assert!(changes.is_empty(), "changes are no replacement");
            Vec::new()
        }
    }
}

#[test]
fn an_update_is_read_as_changes_of_items() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    let update = client.edit(|map, txn| {
        for id in ["a", "b"] {
            let item = element(map, txn, id);
            item.insert(txn, "kind", "box");
            item.insert(txn, "pos", Any::from(vec![Any::from(1.0), Any::from(2.5)]));
        }
        let item = element(map, txn, "a");
        let style = item.insert(txn, "style", MapPrelim::default());
        style.insert(txn, "bold", true);
        item.insert(txn, "text", TextPrelim::new("hi"));
    });
    let (changes, clashes, _) = board.apply_update(&update, 1, author(2, 1)).unwrap();
    assert!(changes.iter().all(|change| change.action == Action::Create) && changes.len() == 2 && clashes.is_empty());
    assert_eq!(reread(&changes), changes);
    assert_eq!(content(&board), client.content());
    let update = client.edit(|map, txn| {
        map.remove(txn, "b");
        let item = element(map, txn, "a");
        item.insert(txn, "pos", Any::from(vec![Any::from(3.0), Any::from(4.0)]));
        item.remove(txn, "kind");
        text_of(&item, txn).insert(txn, 2, "!");
        element(map, txn, "c").insert(txn, "parent", "a");
    });
    let (changes, _, _) = board.apply_update(&update, 2, author(3, 1)).unwrap();
    assert_eq!(reread(&changes), changes);
    let expected = json!([
        {"id": "a", "op": "update", "pos": [3, 4], "set": {"kind": null}, "text": {"pos": 2, "ins": "!"}},
        {"id": "b", "op": "delete"},
        {"id": "c", "op": "create", "parent": "a"},
    ]);
    assert_eq!(serde_json::from_slice::<Value>(&encode_each(&changes)).unwrap(), expected);
    assert_eq!(content(&board), client.content());
    // Again it changes nothing.
    let (changes, _, _) = board.apply_update(&update, 3, author(4, 1)).unwrap();
    assert_eq!((changes.len(), content(&board)), (0, client.content()));
}

#[test]
fn both_encodings_lead_to_the_same_items() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    let update = client.edit(|map, txn| {
        element(map, txn, "a").insert(txn, "text", TextPrelim::new("middle"));
    });
    board.apply_update(&update, 1, author(2, 1)).unwrap();
    // Neither knows of the other: one in JSON from version 2, one in Yjs.
    let json = r#"{"id": "a", "set": {"color": "red"}, "text": {"pos": 6, "ins": " end"}}"#;
    let (_, from_server) = board.apply(changes_of("update", json), Seen::of(2, 2), author(3, 2)).unwrap();
    let update = client.edit(|map, txn| {
        let item = element(map, txn, "a");
        item.insert(txn, "color", "blue");
        text_of(&item, txn).insert(txn, 0, "start ");
    });
    let (changes, clashes, _) = board.apply_update(&update, 2, author(4, 1)).unwrap();
    client.receive(&from_server);
    assert_eq!(content(&board), client.content());
    assert_eq!(content(&board)["elements"]["a"]["text"], "start middle end");
    // If the client's color stands, it won over one that it did not know.
    let stands = changes.iter().any(|change| change.set.contains_key("color"));
    let place = "elements/a/color".to_owned();
    assert_eq!(clashes, if stands { vec![Clash { version: 3, place, deletion: false }] } else { Vec::new() });
    // A JSON edit whose base is older than both still finds its place.
    let json = r#"{"id": "a", "text": {"pos": 3, "ins": "-"}}"#;
    board.apply(changes_of("text", json), Seen::of(2, 3), author(5, 3)).unwrap();
    assert_eq!(content(&board)["elements"]["a"]["text"], "start mid-dle end");
}

#[test]
fn what_items_cannot_have_is_refused_and_changes_nothing() {
    let cases: [(&str, Act); 10] = [
        ("no map", |map, txn| {
            map.insert(txn, "x", 5);
        }),
        ("no map", |map, txn| {
            map.insert(txn, "x", TextPrelim::new("text"));
        }),
        ("maps or texts inside", |map, txn| {
            let style = element(map, txn, "a").insert(txn, "style", MapPrelim::default());
            style.insert(txn, "deeper", MapPrelim::default()).insert(txn, "deepest", MapPrelim::default());
        }),
        ("styles are plain values", |map, txn| {
            let style = element(map, txn, "a").insert(txn, "style", MapPrelim::default());
            style.insert(txn, "font", MapPrelim::default());
        }),
        ("shared types", |map, txn| {
            element(map, txn, "a").insert(txn, "list", MapPrelim::default());
        }),
        ("maps and texts", |map, txn| {
            element(map, txn, "a").insert(txn, "list", ArrayPrelim::default());
        }),
        ("two numbers", |map, txn| {
            element(map, txn, "a").insert(txn, "pos", "here");
        }),
        ("circle", |map, txn| {
            element(map, txn, "a").insert(txn, "parent", "b");
            element(map, txn, "b").insert(txn, "parent", "a");
        }),
        ("JSON does not have", |map, txn| {
            element(map, txn, "a").insert(txn, "bytes", Any::Buffer(vec![1, 2, 3].into()));
        }),
        ("1 to 255 bytes", |map, txn| {
            element(map, txn, "");
        }),
    ];
    for (what, edit) in cases {
        let (mut board, client) = (engine(), Client::new(1, "elements"));
        let first = client.edit(|map, txn| {
            element(map, txn, "a").insert(txn, "kind", "box");
        });
        board.apply_update(&first, 1, author(2, 1)).unwrap();
        let before = content(&board);
        let error = board.apply_update(&client.edit(edit), 2, author(3, 1)).unwrap_err();
        assert!(matches!(error, ItemsError::Invalid(_)), "{what}: {error:?}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(content(&board), before);
        let other = Client::new(2, "elements");
        other.receive(&first);
        let good = other.edit(|map, txn| {
            element(map, txn, "a").insert(txn, "kind", "circle");
        });
        board.apply_update(&good, 2, author(3, 2)).unwrap();
        assert_eq!(content(&board), other.content());
    }
}

#[test]
fn an_update_that_builds_on_another_or_is_of_another_document_is_refused() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    client.edit(|map, txn| {
        element(map, txn, "a");
    });
    let later = client.edit(|map, txn| {
        element(map, txn, "b");
    });
    let error = board.apply_update(&later, 1, author(2, 1)).unwrap_err();
    assert!(matches!(error, ItemsError::MissingDependency(_)), "{error:?}");
    let stranger = Client::new(1, "content");
    let foreign = stranger.edit(|map, txn| {
        element(map, txn, "a");
    });
    assert!(matches!(board.apply_update(&foreign, 1, author(2, 1)), Err(ItemsError::Invalid(_))));
    assert_eq!(content(&board), json!({"elements": {}}));
}

#[test]
fn nulls_and_empty_types_are_read_as_what_is_not_there() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    let update = client.edit(|map, txn| {
        let item = element(map, txn, "a");
        item.insert(txn, "color", "red");
        item.insert(txn, "parent", Any::Null);
        item.insert(txn, "style", MapPrelim::default());
        item.insert(txn, "text", TextPrelim::new(""));
    });
    let (changes, _, _) = board.apply_update(&update, 0, author(2, 1)).unwrap();
    assert_eq!(encode_each(&changes), br#"[{"id":"a","op":"create","set":{"color":"red"}}]"#);
    assert_eq!(board.content(), br#"{"elements":{"a":{"color":"red"}}}"#);
    let update = client.edit(|map, txn| {
        element(map, txn, "a").insert(txn, "color", Any::Null);
    });
    let (changes, _, _) = board.apply_update(&update, 0, author(3, 1)).unwrap();
    assert_eq!(encode_each(&changes), br#"[{"id":"a","op":"update","set":{"color":null}}]"#);
    assert_eq!(board.content(), br#"{"elements":{"a":{}}}"#);
}

#[test]
fn a_key_may_have_the_name_of_a_field() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    let update = client.edit(|map, txn| {
        let item = element(map, txn, "a");
        for key in ["set", "op", "id"] {
            item.insert(txn, key, 5);
        }
    });
    let (changes, _, _) = board.apply_update(&update, 1, author(2, 1)).unwrap();
    assert_eq!(encode_each(&changes), br#"[{"id":"a","op":"create","set":{"id":5,"op":5,"set":5}}]"#);
    assert_eq!(reread(&changes), changes);
}

#[test]
fn edits_at_both_ends_of_a_text_leave_its_middle_alone() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    let update = client.edit(|map, txn| {
        element(map, txn, "a").insert(txn, "text", TextPrelim::new("middle"));
    });
    board.apply_update(&update, 1, author(2, 1)).unwrap();
    let update = client.edit(|map, txn| {
        let text = text_of(&element(map, txn, "a"), txn);
        text.insert(txn, 0, "<");
        text.insert(txn, 7, ">");
        text.format(txn, 1, 6, Attrs::from([("bold".into(), true.into())]));
    });
    let (changes, _, _) = board.apply_update(&update, 2, author(3, 1)).unwrap();
    let ins = |pos, ins: &str| Edit { pos, del: 0, ins: ins.into() };
    assert_eq!(changes[0].text, [ins(0, "<"), ins(7, ">")]);
    // Who saw the middle only still finds a place in it.
    board
        .apply(changes_of("text", r#"{"id": "a", "text": {"pos": 3, "ins": "-"}}"#), Seen::of(2, 2), author(4, 2))
        .unwrap();
    assert_eq!(content(&board)["elements"]["a"]["text"], "<mid-dle>");
}

#[test]
fn forged_blocks_that_the_library_would_take_are_refused() {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    // Client 1: 0 the element, 1 its color, 2 its text, 3 to 4 "ab".
    let update = client.edit(|map, txn| {
        let item = element(map, txn, "a");
        item.insert(txn, "color", "red");
        item.insert(txn, "text", TextPrelim::new("ab"));
    });
    board.apply_update(&update, 1, author(2, 1)).unwrap();
    let before = board.content();
    // One client (2) with one block from clock 0, no deletions.
    let foreign = |block: &[u8]| Bytes::from([&[1, 1, 2, 0][..], block, &[0]].concat());
    let cases: [(&str, &[u8]); 11] = [
        // A string or a tombstone to the right of "a" and to the left of the color.
        ("never next to each other", &[0xC4, 1, 3, 1, 1, 1, b'x']),
        ("never next to each other", &[0xC1, 1, 3, 1, 1, 1]),
        // A tombstone in between the color and what comes after it.
        ("neighbour to the right", &[0x41, 1, 1, 1]),
        // A tombstone in the element without a key; one in the text with a key.
        ("keys of an item", &[0x01, 0, 1, 0, 1]),
        ("keys of an item", &[0x21, 0, 1, 2, 1, b'k', 1]),
        // A value without a key.
        ("text and marks only", &[0x08, 0, 1, 0, 1, 126]),
        // A map and a value after "b".
        ("something else than text", &[0x87, 1, 4, 1]),
        ("something else than text", &[0x88, 1, 4, 1, 126]),
        // A string and a mark instead of the element; the library fails on the latter.
        ("no map", &[0x84, 1, 0, 1, b'x']),
        ("cannot be applied", &[0x86, 1, 0, 1, b'b', 4, b't', b'r', b'u', b'e']),
        // A key with a whole number of 55 bits.
        ("out of range", &[0x28, 0, 1, 0, 1, b'k', 1, 125, 0xBF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
    ];
    for (what, block) in cases {
        let error = board.apply_update(&foreign(block), 2, author(3, 2)).unwrap_err();
        assert!(error.to_string().contains(what), "{block:?}: {error}");
        assert_eq!(board.content(), before);
    }
    // And with both neighbours in the text it is taken.
    board.apply_update(&foreign(&[0xC4, 1, 3, 1, 4, 1, b'x']), 2, author(3, 2)).unwrap();
    assert_eq!(content(&board)["elements"]["a"]["text"], "axb");
}

/// Who reads the JSON form only, and who loads what is stored, have the same as the board.
fn check_followers(board: &mut ItemsEngine, follower: &mut ItemsEngine, changes: &[Change], version: u64) {
    follower.apply(reread(changes), Seen::of(version - 1, 9), author(version, 9)).unwrap();
    assert_eq!(content(follower), content(board), "version {version}");
    let stored = ItemsEngine::restore("canvas", 7, &board.state(), version).unwrap();
    assert_eq!(content(&stored), content(board), "version {version}");
}

#[test]
fn mutated_updates_are_refused_or_leave_what_reads_back_the_same() {
    let mut rng = StdRng::seed_from_u64(5);
    let (mut board, mut follower, honest) = (engine(), engine(), Client::new(1, "elements"));
    let (mut taken, mut refused) = (0, 0);
    for round in 0..150_u32 {
        let version = u64::from(round) + 2;
        let update = honest.edit(|map, txn| {
            let item = element(map, txn, &format!("e{}", round % 7));
            item.insert(txn, "z", format!("a{round}"));
            match item.get(txn, "text") {
                Some(Out::YText(text)) if round.is_multiple_of(5) => text.remove_range(txn, 1, 2),
                Some(Out::YText(text)) => text.insert(txn, 0, "more "),
                _ => drop(item.insert(txn, "text", TextPrelim::new("first"))),
            }
        });
        for _ in 0..5 {
            let mut bad = update.to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bad.len());
                bad[at] = rng.random();
            }
            // On boards of their own, for what is taken takes the numbers of what is honest.
            let mut trial = ItemsEngine::restore("canvas", 7, &board.state(), version - 1).unwrap();
            let mut trial_follower = ItemsEngine::restore("canvas", 8, &follower.state(), version - 1).unwrap();
            match trial.apply_update(&bad.into(), version - 1, author(version, 2)) {
                Ok((changes, _, _)) => {
                    taken += 1;
                    check_followers(&mut trial, &mut trial_follower, &changes, version);
                }
                Err(ItemsError::Broken(what)) => panic!("round {round}: {what}"),
                Err(_) => {
                    refused += 1;
                    assert_eq!(content(&trial), content(&board), "round {round}");
                }
            }
        }
        let (changes, _, _) = board.apply_update(&update, version - 1, author(version, 1)).unwrap();
        check_followers(&mut board, &mut follower, &changes, version);
        assert_eq!(content(&board), honest.content(), "round {round}");
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}
