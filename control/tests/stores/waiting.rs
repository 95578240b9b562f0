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
