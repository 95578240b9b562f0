//! Typed operations on all four types of document, on every store.

use proto::statesync as pb;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::common::*;

crate::on_every_store! {
    every_type_of_operation_works_on_elements,
    every_type_of_operation_works_on_sheets,
    every_type_of_operation_works_on_texts,
    a_blank_board_becomes_typed_and_an_opaque_one_says_how,
    typed_content_is_taken_at_creation_and_by_replacement,
    disjoint_stale_changes_merge_without_a_conflict,
    typed_operations_that_are_wrong_change_nothing_and_say_why,
    subscribers_and_history_have_the_typed_form,
}

pub(crate) async fn act(
    client: &mut Documents,
    doc_id: &str,
    by: (Uuid, u64),
    op: (&str, &str),
) -> Result<pb::ApplyOperationResponse, Status> {
    let operation = pb::Operation { r#type: op.0.into(), ..operation(doc_id, by.0, by.1, op.1) };
    Ok(client.apply_operation(pb::ApplyOperationRequest { operation: Some(operation) }).await?.into_inner())
}

async fn play(client: &mut Documents, doc_id: &str, operations: &[(&str, &str)]) {
    let session = Uuid::now_v7();
    for operation in operations {
        let base = get(client, doc_id).await.version;
        let applied = act(client, doc_id, (session, base), *operation).await.unwrap();
        assert!(applied.success);
        assert_eq!(applied.applied_operation.unwrap().version, base + 1);
    }
}

async fn every_type_of_operation_works_on_elements(mut world: World) {
    for kind in ["whiteboard", "canvas"] {
        let doc_id = create(&mut world.documents, kind, b"").await;
        let operations = [
            ("create", r#"[{"id": "e", "set": {"kind": "box"}, "pos": [1, 2]}, {"id": "gone"}]"#),
            ("update", r#"{"id": "e", "set": {"color": "red"}}"#),
            ("move", r#"{"id": "e", "pos": [3, 4], "z": "a1"}"#),
            ("resize", r#"{"id": "e", "size": [10, 20]}"#),
            ("style", r#"{"id": "e", "style": {"bold": true}}"#),
            ("text", r#"{"id": "e", "text": {"ins": "label"}}"#),
            ("insert", r#"{"id": "e", "text": {"pos": 5, "ins": "!"}}"#),
            ("delete", r#"{"id": "gone"}"#),
        ];
        play(&mut world.documents, &doc_id, &operations).await;
        let expected = r#"{"elements":{"e":{"color":"red","kind":"box","pos":[3,4],"size":[10,20],"style":{"bold":true},"text":"label!","z":"a1"}}}"#;
        assert_eq!(text(&mut world.documents, &doc_id).await, expected);
    }
}

async fn every_type_of_operation_works_on_sheets(mut world: World) {
    let doc_id = create(&mut world.documents, "sheet", b"{}").await;
    let operations = [
        ("create", r#"[{"row": "r", "index": "a0"}, {"col": "c", "index": "a0"}, {"cell": "r:c", "set": {"v": 1}}]"#),
        ("update", r#"{"cell": "r:c", "set": {"v": 7, "f": "=3+4"}}"#),
        ("move", r#"{"row": "r", "index": "b0"}"#),
        ("resize", r#"[{"col": "c", "width": 80}, {"row": "r", "height": 20}]"#),
        ("style", r#"{"cell": "r:c", "style": {"color": "red"}}"#),
        ("text", r#"{"cell": "r:c", "text": {"ins": "seven"}}"#),
        ("create", r#"{"col": "gone", "index": "z"}"#),
        ("delete", r#"{"col": "gone"}"#),
    ];
    play(&mut world.documents, &doc_id, &operations).await;
    let expected = r#"{"cells":{"r:c":{"f":"=3+4","style":{"color":"red"},"text":"seven","v":7}},"cols":{"c":{"index":"a0","width":80}},"rows":{"r":{"height":20,"index":"b0"}}}"#;
    assert_eq!(text(&mut world.documents, &doc_id).await, expected);
}

async fn every_type_of_operation_works_on_texts(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let operations = [
        ("create", "hello world"),
        ("text", r#"{"pos": 5, "ins": ","}"#),
        ("insert", r#"{"pos": 12, "ins": "!"}"#),
        ("delete", r#"{"pos": 0, "del": 1}"#),
        ("update", r#"[{"pos": 0, "ins": "j"}]"#),
        ("move", r#"[{"pos": 0, "del": 6}, {"pos": 7, "ins": " jello"}]"#),
        ("style", r#"{"pos": 1, "len": 5, "style": {"bold": true}}"#),
    ];
    play(&mut world.documents, &doc_id, &operations).await;
    assert_eq!(text(&mut world.documents, &doc_id).await, " world! jello");
    let session = Uuid::now_v7();
    let resize = act(&mut world.documents, &doc_id, (session, 8), ("resize", "{}")).await.unwrap_err();
    expect_invalid(&resize, "operation.type");
    // A mark from an older version goes where its characters are.
    act(&mut world.documents, &doc_id, (session, 8), ("text", r#"{"pos": 0, "ins": ">>"}"#)).await.unwrap();
    let mark = ("style", r#"{"pos": 1, "len": 5, "style": {"italic": true, "bold": null}}"#);
    let marked =
        act(&mut world.documents, &doc_id, (Uuid::now_v7(), 8), mark).await.unwrap().applied_operation.unwrap();
    assert!(marked.data.starts_with(br#"{"pos":3,"len":5"#), "{:?}", marked.data);
    for data in [
        r#"{"pos": 1, "len": 500, "style": {"a": 1}}"#,
        r#"{"pos": 1, "style": {"a": 1}}"#,
        r#"{"pos": 0, "len": 1, "style": {}}"#,
        "bold",
    ] {
        let status = act(&mut world.documents, &doc_id, (session, 10), ("style", data)).await.unwrap_err();
        expect_invalid(&status, "operation.data");
    }
}

async fn a_blank_board_becomes_typed_and_an_opaque_one_says_how(mut world: World) {
    let create_e = ("create", r#"{"id": "e"}"#);
    for content in [&b""[..], b"{}", b" [] ", b"null"] {
        let doc_id = create(&mut world.documents, "canvas", content).await;
        act(&mut world.documents, &doc_id, (Uuid::now_v7(), 1), create_e).await.unwrap();
        // Another writer who saw the blank board.
        act(&mut world.documents, &doc_id, (Uuid::now_v7(), 1), ("create", r#"{"id": "f"}"#)).await.unwrap();
        assert_eq!(text(&mut world.documents, &doc_id).await, r#"{"elements":{"e":{},"f":{}}}"#);
    }
    let doc_id = create(&mut world.documents, "canvas", b"opaque").await;
    let session = Uuid::now_v7();
    let status = act(&mut world.documents, &doc_id, (session, 1), create_e).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "OPAQUE_CONTENT"));
    assert!(status.message().contains("elements"), "{status:?}");
    act(&mut world.documents, &doc_id, (session, 1), ("update", r#"{"elements": {"a": {"x": 1}}}"#)).await.unwrap();
    act(&mut world.documents, &doc_id, (session, 2), create_e).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, r#"{"elements":{"a":{"x":1},"e":{}}}"#);
    // And back: what is no typed payload replaces the content.
    act(&mut world.documents, &doc_id, (session, 3), ("update", "opaque again")).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, "opaque again");
}

async fn typed_content_is_taken_at_creation_and_by_replacement(mut world: World) {
    let content = br#"{"elements": {"a": {"x": 1.5, "style": {"bold": true}, "text": "hi"}, "b": {"parent": "a"}}}"#;
    let doc_id = create(&mut world.documents, "whiteboard", content).await;
    let canonical = r#"{"elements":{"a":{"style":{"bold":true},"text":"hi","x":1.5},"b":{"parent":"a"}}}"#;
    assert_eq!(text(&mut world.documents, &doc_id).await, canonical);
    let session = Uuid::now_v7();
    act(&mut world.documents, &doc_id, (session, 1), ("text", r#"{"id": "a", "text": {"pos": 2, "ins": "!"}}"#))
        .await
        .unwrap();
    act(&mut world.documents, &doc_id, (session, 2), ("update", r#"{"elements": {"c": {}}}"#)).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, r#"{"elements":{"c":{}}}"#);
    let circle = br#"{"elements": {"a": {"parent": "b"}, "b": {"parent": "a"}}}"#;
    let request = pb::CreateDocumentRequest {
        name: "a circle".into(),
        r#type: "canvas".into(),
        created_by: "ada".into(),
        content: circle.to_vec().into(),
        metadata: None,
    };
    expect_invalid(&world.documents.create_document(request).await.unwrap_err(), "content");
}

async fn disjoint_stale_changes_merge_without_a_conflict(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create(client, "canvas", br#"{"elements": {"e": {"text": "one two"}}}"#).await;
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    // Both saw version 1; each goes on without waiting for the other.
    for (session, operation) in [
        (ada, ("update", r#"{"id": "e", "set": {"x": 1}}"#)),
        (bob, ("update", r#"{"id": "e", "set": {"y": 2}}"#)),
        (ada, ("update", r#"{"id": "e", "set": {"x": 3}}"#)),
        (ada, ("text", r#"{"id": "e", "text": {"pos": 0, "ins": "A"}}"#)),
        (bob, ("text", r#"{"id": "e", "text": {"pos": 7, "ins": "B"}}"#)),
        (ada, ("text", r#"{"id": "e", "text": {"pos": 1, "ins": "A"}}"#)),
        (bob, ("style", r#"{"id": "e", "style": {"bold": true}}"#)),
        (bob, ("create", r#"{"id": "f", "parent": "e"}"#)),
    ] {
        let applied = act(client, &doc_id, (session, 1), operation).await.unwrap();
        assert_eq!(applied.applied_operation.unwrap().status, "applied");
    }
    let expected = r#"{"elements":{"e":{"style":{"bold":true},"text":"AAone twoB","x":3,"y":2},"f":{"parent":"e"}}}"#;
    assert_eq!(text(client, &doc_id).await, expected);
    let request = pb::ListConflictsRequest { doc_id, ..Default::default() };
    assert_eq!(client.list_conflicts(request).await.unwrap().into_inner().total, 0);
}

async fn typed_operations_that_are_wrong_change_nothing_and_say_why(mut world: World) {
    let client = &mut world.documents;
    let content = r#"{"elements":{"a":{},"b":{"parent":"a"}}}"#;
    let doc_id = create(client, "canvas", content.as_bytes()).await;
    let session = Uuid::now_v7();
    for operation in [
        ("move", r#"{"id": "a", "parent": "b"}"#),
        ("move", r#"{"id": "a", "pos": ["left", 0]}"#),
        ("update", r#"{"id": "a", "sett": {}}"#),
        ("delete", r#"{"id": "a", "set": {"x": 1}}"#),
        ("text", r#"{"id": "a", "text": {"pos": 1, "ins": "x"}}"#),
        ("update", r#"[{"id": "a", "set": {"x": 1}}, {"id": "b", "set": 7}]"#),
    ] {
        let status = act(client, &doc_id, (session, 1), operation).await.unwrap_err();
        expect_invalid(&status, "operation.data");
    }
    let missing = act(client, &doc_id, (session, 1), ("update", r#"{"id": "z", "set": {"x": 1}}"#)).await.unwrap_err();
    assert_eq!((missing.code(), reason(&missing).as_str()), (Code::NotFound, "ITEM_NOT_FOUND"));
    let exists = act(client, &doc_id, (session, 1), ("create", r#"{"id": "a"}"#)).await.unwrap_err();
    assert_eq!((exists.code(), reason(&exists).as_str()), (Code::AlreadyExists, "ITEM_EXISTS"));
    let half = act(client, &doc_id, (session, 1), ("create", r#"[{"id": "c"}, {"id": "a"}]"#)).await.unwrap_err();
    assert_eq!(half.code(), Code::AlreadyExists);
    let ahead = act(client, &doc_id, (session, 9), ("create", r#"{"id": "c"}"#)).await.unwrap_err();
    assert_eq!(ahead.code(), Code::FailedPrecondition);
    assert_eq!(text(client, &doc_id).await, content);
    assert_eq!(get(client, &doc_id).await.version, 1);
}

async fn subscribers_and_history_have_the_typed_form(mut world: World) {
    let doc_id = create(&mut world.documents, "canvas", br#"{"elements": {"e": {"text": "ab"}}}"#).await;
    let wants = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(&doc_id, "yjs") };
    let mut events = subscribe(&mut world.documents, wants).await;
    let welcome = next(&mut events).await;
    let replica = Replica::new();
    replica.receive(&welcome.snapshot);
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let operations = [
        (ada, 1, ("text", r#"{"id": "e", "text": {"pos": 1, "ins": "X"}}"#)),
        (bob, 1, ("text", r#"{"id": "e", "text": {"pos": 2, "ins": "Y"}}"#)),
        (bob, 3, ("update", r#"{"id": "e", "set": {"n": 5}}"#)),
        (bob, 4, ("delete", r#"{"id": "e"}"#)),
        (bob, 5, ("update", r#"{"elements": {"g": {"n": 1}}}"#)),
    ];
    for (session, base, operation) in operations {
        act(&mut world.documents, &doc_id, (session, base), operation).await.unwrap();
        let event = next_operation(&mut events).await;
        assert!(!event.update.is_empty());
        replica.receive(&event.update);
        assert_eq!(replica.content(), text(&mut world.documents, &doc_id).await);
    }
    let request = pb::GetOperationHistoryRequest { doc_id, limit: 0 };
    let history = world.documents.get_operation_history(request).await.unwrap().into_inner().operations;
    // Positions in the log refer to the state just before.
    assert_eq!(history[1].data.as_ref(), br#"{"id":"e","text":{"ins":"Y","pos":3}}"#);
}

/// A Yjs document that follows the updates.
struct Replica {
    doc: yrs::Doc,
    elements: yrs::MapRef,
}

impl Replica {
    fn new() -> Self {
        let doc = yrs::Doc::new();
        let elements = doc.get_or_insert_map("elements");
        Self { doc, elements }
    }

    fn receive(&self, update: &[u8]) {
        use yrs::Transact;
        use yrs::updates::decoder::Decode;
        self.doc.transact_mut().apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
    }

    /// Its elements as the server writes them.
    fn content(&self) -> String {
        use yrs::Transact;
        use yrs::types::ToJson;
        let json = serde_json::to_value(self.elements.to_json(&self.doc.transact())).unwrap();
        serde_json::json!({ "elements": json }).to_string().replace(".0", "")
    }
}
