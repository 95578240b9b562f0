//! Typed operations on all four types of document, on every store.

use proto::statesync as pb;
use tonic::{Code, Status};
use uuid::Uuid;
use yrs::{Map, MapPrelim, Out, Text, TextPrelim};

use crate::common::*;

crate::on_every_document_store! {
    every_type_of_operation_works_on_elements,
    every_type_of_operation_works_on_sheets,
    every_type_of_operation_works_on_texts,
    a_blank_board_becomes_typed_and_an_opaque_one_says_how,
    typed_content_is_taken_at_creation_and_by_replacement,
    disjoint_stale_changes_merge_without_a_conflict,
    typed_operations_that_are_wrong_change_nothing_and_say_why,
    subscribers_and_history_have_the_typed_form,
    yjs_updates_of_elements_merge_with_json_and_reach_every_subscriber,
    yjs_updates_of_sheets_and_of_blank_boards_are_taken,
    yjs_updates_that_elements_cannot_have_are_refused,
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

/// What the user of a Yjs document does.
type Act = fn(&yrs::MapRef, &mut yrs::TransactionMut<'_>);

/// Sends a Yjs update; it names no version that the client has seen.
async fn merge(client: &mut Documents, doc_id: &str, session: Uuid, update: Vec<u8>) -> Result<pb::Operation, Status> {
    let merged = pb::Operation {
        r#type: "update".into(),
        data: update.into(),
        encoding: pb::OperationEncoding::YjsUpdateV1.into(),
        ..operation(doc_id, session, 0, "")
    };
    apply(client, merged).await
}

fn json(data: &[u8]) -> serde_json::Value {
    serde_json::from_slice(data).unwrap()
}

async fn yjs_updates_of_elements_merge_with_json_and_reach_every_subscriber(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create(client, "whiteboard", br#"{"elements": {"e": {"text": "middle"}, "gone": {"n": 1}}}"#).await;
    let wants = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(&doc_id, "yjs") };
    let mut events = subscribe(client, wants).await;
    let mut plain = subscribe(client, subscription(&doc_id, "json")).await;
    let (author, other) = (Replica::new(), Replica::new());
    let welcome = next(&mut events).await;
    author.receive(&welcome.snapshot);
    other.receive(&welcome.snapshot);
    next(&mut plain).await;
    // Somebody writes in JSON what the author of the update has not seen.
    let ada = Uuid::now_v7();
    act(client, &doc_id, (ada, 1), ("text", r#"{"id": "e", "text": {"pos": 6, "ins": " end"}}"#)).await.unwrap();
    let in_json = next_operation(&mut events).await;
    assert!(next_operation(&mut plain).await.update.is_empty());
    let update = author.edit(|elements, txn| {
        elements.remove(txn, "gone");
        let made = elements.insert(txn, "new", MapPrelim::default());
        made.insert(txn, "pos", vec![1.0, 2.5]);
        made.insert(txn, "parent", "e");
        let Some(Out::YMap(element)) = elements.get(txn, "e") else { panic!("the element is a map") };
        element.insert(txn, "style", MapPrelim::default()).insert(txn, "bold", true);
        let Some(Out::YText(text)) = element.get(txn, "text") else { panic!("its text is a text") };
        text.insert(txn, 0, "start ");
    });
    let merged = merge(client, &doc_id, Uuid::now_v7(), update.clone()).await.unwrap();
    assert_eq!((merged.version, merged.status.as_str()), (3, "applied"));
    let expected = serde_json::json!([
        {"id": "e", "op": "update", "style": {"bold": true}, "text": {"pos": 0, "ins": "start "}},
        {"id": "gone", "op": "delete"},
        {"id": "new", "op": "create", "pos": [1, 2.5], "parent": "e"},
    ]);
    let told = next_operation(&mut plain).await.operation.unwrap();
    for operation in [&merged, &told] {
        assert_eq!(operation.encoding(), pb::OperationEncoding::Json);
        assert_eq!(json(&operation.data), expected);
    }
    let content = text(client, &doc_id).await;
    let elements = r#"{"e":{"style":{"bold":true},"text":"start middle end"},"new":{"parent":"e","pos":[1,2.5]}}"#;
    assert_eq!(content, format!(r#"{{"elements":{elements}}}"#));
    // The author has its own update already, the other has neither.
    author.receive(&in_json.update);
    let event = next_operation(&mut events).await;
    for update in [&in_json.update, &event.update] {
        other.receive(update);
    }
    assert_eq!((author.content(), other.content()), (content.clone(), content.clone()));
    // Sent again by another session it makes a version in which nothing changes.
    let again = merge(client, &doc_id, Uuid::now_v7(), update).await.unwrap();
    assert_eq!((again.version, again.data.as_ref()), (4, &b"[]"[..]));
    assert_eq!(text(client, &doc_id).await, content);
}

async fn yjs_updates_of_sheets_and_of_blank_boards_are_taken(mut world: World) {
    let client = &mut world.documents;
    for (kind, root, item) in [("sheet", "cells", "cell"), ("sheet", "rows", "row"), ("canvas", "elements", "id")] {
        let doc_id = create(client, kind, b"").await;
        let author = Replica::of(root);
        let update = author.edit(|items, txn| {
            items.insert(txn, "one", MapPrelim::default()).insert(txn, "v", 7.0);
        });
        let merged = merge(client, &doc_id, Uuid::now_v7(), update).await.unwrap();
        assert_eq!(json(&merged.data), serde_json::json!([{item: "one", "op": "create", "set": {"v": 7}}]));
        assert_eq!(json(text(client, &doc_id).await.as_bytes())[root], serde_json::json!({"one": {"v": 7}}));
        let data = format!(r#"{{"{item}": "one", "set": {{"w": 8}}}}"#);
        act(client, &doc_id, (Uuid::now_v7(), 2), ("update", data.as_str())).await.unwrap();
        assert_eq!(json(text(client, &doc_id).await.as_bytes())[root], serde_json::json!({"one": {"v": 7, "w": 8}}));
    }
}

async fn yjs_updates_that_elements_cannot_have_are_refused(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create(client, "canvas", br#"{"elements": {"a": {}}}"#).await;
    let session = Uuid::now_v7();
    let wrong: [Act; 3] = [
        |elements, txn| {
            elements.insert(txn, "x", "no map");
        },
        |elements, txn| {
            elements.insert(txn, "x", MapPrelim::default()).insert(txn, "deep", MapPrelim::default());
        },
        |elements, txn| {
            elements.insert(txn, "x", MapPrelim::default()).insert(txn, "pos", "left");
        },
    ];
    for edit in wrong {
        let status = merge(client, &doc_id, session, Replica::new().edit(edit)).await.unwrap_err();
        expect_invalid(&status, "operation.data");
    }
    expect_invalid(&merge(client, &doc_id, session, vec![1, 2, 3]).await.unwrap_err(), "operation.data");
    let author = Replica::new();
    author.edit(|elements, txn| {
        elements.insert(txn, "first", MapPrelim::default());
    });
    let later = author.edit(|elements, txn| {
        elements.insert(txn, "second", MapPrelim::default());
    });
    let status = merge(client, &doc_id, session, later).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "MISSING_DEPENDENCY"));
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"a":{}}}"#);
    assert_eq!(get(client, &doc_id).await.version, 1);
    let opaque = create(client, "canvas", b"opaque").await;
    let update = Replica::new().edit(|elements, txn| {
        elements.insert(txn, "x", MapPrelim::default());
    });
    let status = merge(client, &opaque, session, update).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "OPAQUE_CONTENT"));
}

#[tokio::test]
async fn what_a_yjs_update_wrote_is_known_after_a_restart() {
    let mut world = World::start().await;
    let doc_id = create(&mut world.documents, "canvas", br#"{"elements": {"e": {}}}"#).await;
    let author = Replica::new();
    let update = author.edit(|elements, txn| {
        let made = elements.insert(txn, "new", MapPrelim::default());
        made.insert(txn, "color", "red");
        made.insert(txn, "text", TextPrelim::new("one two"));
    });
    merge(&mut world.documents, &doc_id, Uuid::now_v7(), update).await.unwrap();
    let content = text(&mut world.documents, &doc_id).await;
    assert_eq!(content, r#"{"elements":{"e":{},"new":{"color":"red","text":"one two"}}}"#);
    let mut world = world.restart().await;
    let client = &mut world.documents;
    assert_eq!(text(client, &doc_id).await, content);
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    // Who has not seen the update: the creation is known, and so is each key that it wrote.
    let stale = ("create", r#"{"id": "new", "set": {"color": "blue"}}"#);
    let applied = act(client, &doc_id, (ada, 1), stale).await.unwrap().applied_operation.unwrap();
    assert_eq!((applied.version, applied.status.as_str()), (3, "resolved"));
    // Who has: another key and the text merge, and the author's replica goes on.
    act(client, &doc_id, (bob, 2), ("text", r#"{"id": "new", "text": {"pos": 7, "ins": "!"}}"#)).await.unwrap();
    let update = author.edit(|elements, txn| {
        let Some(Out::YMap(made)) = elements.get(txn, "new") else { panic!("the element is a map") };
        let Some(Out::YText(text)) = made.get(txn, "text") else { panic!("its text is a text") };
        text.insert(txn, 3, ",");
    });
    merge(client, &doc_id, Uuid::now_v7(), update).await.unwrap();
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{},"new":{"color":"blue","text":"one, two!"}}}"#);
}

/// A Yjs document that follows the updates.
struct Replica {
    doc: yrs::Doc,
    elements: yrs::MapRef,
}

impl Replica {
    fn new() -> Self {
        Self::of("elements")
    }

    fn of(root: &str) -> Self {
        let doc = yrs::Doc::new();
        let elements = doc.get_or_insert_map(root);
        Self { doc, elements }
    }

    /// Does something and gives the update of it.
    fn edit(&self, act: impl FnOnce(&yrs::MapRef, &mut yrs::TransactionMut<'_>)) -> Vec<u8> {
        use yrs::Transact;
        let mut txn = self.doc.transact_mut();
        act(&self.elements, &mut txn);
        txn.encode_update_v1()
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
