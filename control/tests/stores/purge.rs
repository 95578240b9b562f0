//! Deleted documents that are removed for good, on every store. What time it is, the tests say.

use std::time::Duration;

use control::clock::{self, UnixMicros};
use control::up::{UpOptions, start};
use proto::statesync as pb;
use sqlx::Connection;
use tonic::Code;
use uuid::Uuid;

use super::compaction::write;
use super::conflicts::create_with;
use super::documents::{delete, ids, update};
use super::typed::act;
use crate::common::*;

crate::on_every_document_store! {
    what_was_deleted_long_ago_is_gone_with_all_that_belonged_to_it,
    what_is_not_deleted_or_was_had_back_stays,
    more_documents_than_a_step_removes_go_all_the_same,
    who_listens_to_a_document_that_is_removed_is_told,
}

/// So many days from today.
fn in_days(days: u64) -> UnixMicros {
    UnixMicros(clock::now().0 + Duration::from_hours(24 * days).as_micros() as i64)
}

async fn stats(client: &mut Documents) -> pb::Stats {
    client.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner().stats.unwrap()
}

/// Whatever is asked of the document: there is none.
async fn is_gone(client: &mut Documents, doc_id: &str) {
    let doc_id = doc_id.to_owned();
    let read = client.get_document(pb::GetDocumentRequest { doc_id: doc_id.clone() }).await.map(drop);
    let history = pb::GetOperationHistoryRequest { doc_id: doc_id.clone(), limit: 0 };
    let history = client.get_operation_history(history).await.map(drop);
    let conflicts = pb::ListConflictsRequest { doc_id: doc_id.clone(), ..Default::default() };
    let conflicts = client.list_conflicts(conflicts).await.map(drop);
    let written = apply(client, insertion(&doc_id, Uuid::now_v7(), 2, 0, "x")).await.map(drop);
    let again = pb::Document {
        id: doc_id.clone(),
        state: "active".into(),
        updated_by: "ada".into(),
        version: 4,
        ..Default::default()
    };
    let had_back = update(client, again).await;
    for answer in [read, history, conflicts, written, had_back] {
        assert_eq!(answer.unwrap_err().code(), Code::NotFound);
    }
}

async fn what_was_deleted_long_ago_is_gone_with_all_that_belonged_to_it(mut world: World) {
    let client = &mut world.documents;
    let kept = create_text(client, "kept").await;
    let doc_id = create_with(client, "canvas", r#"{"elements":{"e":{"x":0}}}"#, "lww").await;
    for x in [1, 2] {
        let data = format!(r#"{{"id": "e", "set": {{"x": {x}}}}}"#);
        act(client, &doc_id, (Uuid::now_v7(), 1), ("update", &data)).await.unwrap();
    }
    delete(client, &doc_id, "ada").await.unwrap();
    assert_eq!(world.running.purge_deleted(in_days(29)).await.unwrap(), 0);
    assert_eq!(get(client, &doc_id).await.state, "deleted");
    let before = stats(client).await;
    assert_eq!((before.total_documents, before.total_operations, before.total_conflicts), (2, 3, 1));
    assert_eq!(world.running.purge_deleted(in_days(31)).await.unwrap(), 1);
    is_gone(client, &doc_id).await;
    let deleted = pb::ListDocumentsRequest { state: "deleted".into(), ..Default::default() };
    assert!(ids(client, deleted).await.is_empty());
    let after = stats(client).await;
    assert_eq!((after.total_documents, after.total_operations, after.total_conflicts), (1, 0, 0));
    assert_eq!(world.running.purge_deleted(in_days(31)).await.unwrap(), 0);
    assert_eq!(text(client, &kept).await, "kept");
}

async fn what_is_not_deleted_or_was_had_back_stays(mut world: World) {
    let client = &mut world.documents;
    let (archived, had_back) = (create_text(client, "a").await, create_text(client, "b").await);
    let document = pb::Document { state: "archived".into(), ..get(client, &archived).await };
    update(client, document).await.unwrap();
    delete(client, &had_back, "ada").await.unwrap();
    let document = pb::Document { state: "active".into(), ..get(client, &had_back).await };
    update(client, document).await.unwrap();
    assert_eq!(world.running.purge_deleted(in_days(400)).await.unwrap(), 0);
    assert_eq!((text(client, &archived).await, text(client, &had_back).await), ("a".into(), "b".into()));
    apply(client, insertion(&had_back, Uuid::now_v7(), 3, 0, ">")).await.unwrap();
}

async fn more_documents_than_a_step_removes_go_all_the_same(mut world: World) {
    const DOCUMENTS: usize = 105;
    let mut making = tokio::task::JoinSet::new();
    for _ in 0..DOCUMENTS {
        let mut client = world.documents.clone();
        making.spawn(async move {
            let doc_id = create_text(&mut client, "").await;
            delete(&mut client, &doc_id, "ada").await.unwrap();
        });
    }
    while let Some(made) = making.join_next().await {
        made.unwrap();
    }
    assert_eq!(stats(&mut world.documents).await.total_documents, DOCUMENTS as i64);
    assert_eq!(world.running.purge_deleted(in_days(31)).await.unwrap(), DOCUMENTS);
    assert_eq!(stats(&mut world.documents).await.total_documents, 0);
}

async fn who_listens_to_a_document_that_is_removed_is_told(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    delete(&mut world.documents, &doc_id, "ada").await.unwrap();
    assert_eq!(world.running.purge_deleted(in_days(31)).await.unwrap(), 1);
    let told = tokio::time::timeout(Duration::from_secs(10), end(&mut events)).await.expect("the stream ends");
    assert_eq!(told.code(), Code::NotFound);
}

/// A deleted document with more operations than one step removes.
async fn a_long_one(world: &mut World) -> String {
    let doc_id = create_text(&mut world.documents, "").await;
    write(&world.documents, &doc_id).await;
    delete(&mut world.documents, &doc_id, "ada").await.unwrap();
    doc_id
}

const ROWS: &str = "SELECT (SELECT count(*) FROM documents) + (SELECT count(*) FROM operations)
    + (SELECT count(*) FROM readers)";

#[tokio::test]
async fn sqlite_keeps_nothing_of_a_long_document_that_is_removed() {
    let mut world = World::start().await;
    let doc_id = a_long_one(&mut world).await;
    assert_eq!(world.running.purge_deleted(in_days(31)).await.unwrap(), 1);
    is_gone(&mut world.documents, &doc_id).await;
    let file = format!("sqlite://{}", world.data.path().join("documents.db").display());
    let mut database = sqlx::SqliteConnection::connect(&file).await.unwrap();
    let left: i64 = sqlx::query_scalar(ROWS).fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn postgres_keeps_nothing_of_a_long_document_that_is_removed() {
    let Some(mut world) = World::on_postgres().await else { return };
    let doc_id = a_long_one(&mut world).await;
    assert_eq!(world.running.purge_deleted(in_days(31)).await.unwrap(), 1);
    is_gone(&mut world.documents, &doc_id).await;
    let mut database = world.postgres.as_ref().unwrap().connect().await;
    let left: i64 = sqlx::query_scalar(ROWS).fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn sqlite_is_purged_by_the_service_itself() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    delete(&mut world.documents, &doc_id, "ada").await.unwrap();
    let other = create_text(&mut world.documents, "").await;
    let World { running, data, .. } = world;
    running.shutdown().await;
    let mut options = UpOptions::new(data.path());
    options.documents.purge_deleted_after = Duration::from_millis(1);
    let running = start(options).await.unwrap();
    let mut client = documents(running.statesync_addr).await;
    // It looks for what is to be removed when it starts.
    eventually(Duration::from_secs(10), async || {
        let found = client.get_document(pb::GetDocumentRequest { doc_id: doc_id.clone() }).await;
        if found.is_ok() { Err("it is there still") } else { Ok(()) }
    })
    .await;
    is_gone(&mut client, &doc_id).await;
    get(&mut client, &other).await;
}

#[tokio::test]
async fn sqlite_keeps_deleted_documents_for_ever_if_it_is_told_to() {
    let mut world = World::start_with(|options| options.documents.purge_deleted_after = Duration::ZERO).await;
    let doc_id = create_text(&mut world.documents, "").await;
    delete(&mut world.documents, &doc_id, "ada").await.unwrap();
    assert_eq!(world.running.purge_deleted(in_days(40_000)).await.unwrap(), 0);
    assert_eq!(get(&mut world.documents, &doc_id).await.state, "deleted");
}
