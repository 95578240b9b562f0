//! Operations that wait for a decision while their author writes on, on every store.

use proto::statesync as pb;
use uuid::Uuid;

use super::conflicts::{conflicts, create_with, resolve};
use super::typed::act;
use crate::common::*;

crate::on_every_document_store! {
    a_text_edit_lands_where_it_was_meant_whatever_its_author_wrote_meanwhile,
    the_text_of_an_item_is_edited_where_it_was_meant,
    an_item_that_its_author_deleted_meanwhile_stays_deleted,
    a_decision_that_comes_again_changes_nothing,
    what_waited_is_told_the_same_however_often_it_comes_again,
}

const REPLACE: (&str, &str) = ("text", r#"{"pos": 4, "del": 3, "ins": "2"}"#);

/// "one two three", in which somebody wrote into "two" what waits to be replaced by `author`, who then wrote before it all.
async fn one_waits(client: &mut Documents, author: Uuid) -> (String, pb::Conflict) {
    let doc_id = create_with(client, "text", "one two three", "manual").await;
    act(client, &doc_id, (Uuid::now_v7(), 1), ("text", r#"{"pos": 5, "ins": "X"}"#)).await.unwrap();
    let waiting = act(client, &doc_id, (author, 1), REPLACE).await.unwrap();
    assert!(!waiting.success, "{waiting:?}");
    act(client, &doc_id, (author, 1), ("text", r#"{"pos": 0, "ins": ">>> "}"#)).await.unwrap();
    assert_eq!(text(client, &doc_id).await, ">>> one tXwo three");
    let conflict = conflicts(client, &doc_id, true).await.remove(0);
    (doc_id, conflict)
}

async fn a_text_edit_lands_where_it_was_meant_whatever_its_author_wrote_meanwhile(mut world: World) {
    let (client, author) = (&mut world.documents, Uuid::now_v7());
    let (doc_id, conflict) = one_waits(client, author).await;
    decide_and_write_on(client, &doc_id, (author, &conflict)).await;
}

/// Decides for what waits; its author, who does not have it yet, writes on from what it has.
async fn decide_and_write_on(client: &mut Documents, doc_id: &str, waiting: (Uuid, &pb::Conflict)) {
    let (author, conflict) = waiting;
    let decided = resolve(client, conflict, &conflict.ops[1].id, None).await.unwrap().applied_operation.unwrap();
    assert_eq!((decided.version, decided.session_id), (4, author.to_string()));
    assert_eq!(text(client, doc_id).await, ">>> one 2 three");
    act(client, doc_id, (author, 1), ("text", r#"{"pos": 17, "ins": "!"}"#)).await.unwrap();
    assert_eq!(text(client, doc_id).await, ">>> one 2 three!");
}

/// The same where the document is loaded afresh before the decision.
async fn it_is_kept_since_when_one_waits(mut world: World) {
    let author = Uuid::now_v7();
    let (doc_id, conflict) = one_waits(&mut world.documents, author).await;
    let mut world = world.restart().await;
    decide_and_write_on(&mut world.documents, &doc_id, (author, &conflict)).await;
    // And what came of it is read again.
    let mut world = world.restart().await;
    act(&mut world.documents, &doc_id, (author, 1), ("text", r#"{"pos": 18, "ins": "!"}"#)).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, ">>> one 2 three!!");
}

#[tokio::test]
async fn sqlite_keeps_since_when_an_operation_waits() {
    Box::pin(it_is_kept_since_when_one_waits(World::start().await)).await;
}

#[tokio::test]
async fn postgres_keeps_since_when_an_operation_waits() {
    let Some(world) = World::on_postgres().await else { return };
    Box::pin(it_is_kept_since_when_one_waits(world)).await;
}

const BOARD: &str = r#"{"elements":{"e":{"x":0,"text":"one two"}}}"#;
const CHANGE: (&str, &str) = ("update", r#"{"id": "e", "set": {"x": 2}, "text": {"pos": 4, "del": 3, "ins": "2"}}"#);

/// An element whose key somebody set that waits to be set by `author`.
async fn one_waits_on_a_board(client: &mut Documents, author: Uuid) -> (String, pb::Conflict) {
    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    act(client, &doc_id, (Uuid::now_v7(), 1), ("update", r#"{"id": "e", "set": {"x": 1}}"#)).await.unwrap();
    assert!(!act(client, &doc_id, (author, 1), CHANGE).await.unwrap().success);
    let conflict = conflicts(client, &doc_id, true).await.remove(0);
    (doc_id, conflict)
}

async fn the_text_of_an_item_is_edited_where_it_was_meant(mut world: World) {
    let (client, author) = (&mut world.documents, Uuid::now_v7());
    let (doc_id, conflict) = one_waits_on_a_board(client, author).await;
    act(client, &doc_id, (author, 1), ("text", r#"{"id": "e", "text": {"pos": 0, "ins": ">>> "}}"#)).await.unwrap();
    resolve(client, &conflict, &conflict.ops[1].id, None).await.unwrap();
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"text":">>> one 2","x":2}}}"#);
    act(client, &doc_id, (author, 1), ("text", r#"{"id": "e", "text": {"pos": 11, "ins": "!"}}"#)).await.unwrap();
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{"e":{"text":">>> one 2!","x":2}}}"#);
}

async fn an_item_that_its_author_deleted_meanwhile_stays_deleted(mut world: World) {
    let (client, author) = (&mut world.documents, Uuid::now_v7());
    let (doc_id, conflict) = one_waits_on_a_board(client, author).await;
    act(client, &doc_id, (author, 2), ("delete", r#"{"id": "e"}"#)).await.unwrap();
    let resolved = resolve(client, &conflict, &conflict.ops[1].id, None).await.unwrap();
    assert_eq!(resolved.applied_operation.unwrap().status, "rejected");
    assert_eq!(text(client, &doc_id).await, r#"{"elements":{}}"#);
    assert!(conflicts(client, &doc_id, true).await.is_empty());
}

async fn a_decision_that_comes_again_changes_nothing(mut world: World) {
    let (client, author) = (&mut world.documents, Uuid::now_v7());
    for winner in [0, 1] {
        let (doc_id, conflict) = one_waits(client, author).await;
        let first = resolve(client, &conflict, &conflict.ops[winner].id, None).await.unwrap();
        assert_eq!(first.applied_operation.is_some(), winner == 1);
        let document = get(client, &doc_id).await;
        assert_eq!(resolve(client, &conflict, &conflict.ops[winner].id, None).await.unwrap(), first);
        assert_eq!(get(client, &doc_id).await, document);
        let status = resolve(client, &conflict, &conflict.ops[1 - winner].id, None).await.unwrap_err();
        assert_eq!(reason(&status), "CONFLICT_RESOLVED");
        assert_eq!(conflicts(client, &doc_id, false).await, [first.conflict.unwrap()]);
    }
}

async fn what_waited_is_told_the_same_however_often_it_comes_again(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_with(client, "canvas", BOARD, "manual").await;
    act(client, &doc_id, (Uuid::now_v7(), 1), ("update", r#"{"id": "e", "set": {"x": 1}}"#)).await.unwrap();
    for (key, winner) in [("for", 1), ("against", 0)] {
        let operation = pb::Operation {
            r#type: "update".into(),
            idempotency_key: key.into(),
            ..operation(&doc_id, Uuid::now_v7(), 1, r#"{"id": "e", "set": {"x": 2}}"#)
        };
        let request = || pb::ApplyOperationRequest { operation: Some(operation.clone()) };
        let waiting = client.apply_operation(request()).await.unwrap().into_inner();
        assert_eq!(client.apply_operation(request()).await.unwrap().into_inner(), waiting);
        let conflict = conflicts(client, &doc_id, true).await.remove(0);
        let decided = resolve(client, &conflict, &conflict.ops[winner].id, None).await.unwrap();
        let told = client.apply_operation(request()).await.unwrap().into_inner();
        assert_eq!((told.success, told.error.is_empty()), (winner == 1, winner == 1), "{told:?}");
        if winner == 1 {
            assert_eq!(told.applied_operation, decided.applied_operation);
        }
        let other = pb::Operation { data: b"{}".to_vec().into(), ..operation.clone() };
        assert_eq!(apply(client, other).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    }
    let request = pb::GetOperationHistoryRequest { doc_id: doc_id.clone(), limit: 10 };
    let history = client.get_operation_history(request).await.unwrap().into_inner().operations;
    assert_eq!(history.iter().map(|operation| operation.version).collect::<Vec<_>>(), [2, 3]);
}
