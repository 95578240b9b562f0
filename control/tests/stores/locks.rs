//! Locks on every store.

use std::time::Duration;

use control::store::StoreKind;
use proto::statesync as pb;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::common::*;

crate::on_every_document_store! {
    the_holder_renews_and_releases_and_others_are_refused_in_band,
    writes_of_others_are_aborted_while_a_lock_is_held,
    every_lock_has_a_larger_fencing_number,
    subscribers_hear_of_locks,
    of_many_who_want_the_lock_at_once_one_has_it,
    bad_requests_name_their_field,
}

fn wanted(doc_id: &str, user: &str) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { doc_id: doc_id.into(), user_id: user.into(), session_id: String::new() }
}

async fn acquire(client: &mut Documents, doc_id: &str, user: &str) -> Result<pb::Lock, String> {
    let answer = client.acquire_lock(wanted(doc_id, user)).await.unwrap().into_inner();
    assert_eq!(answer.lock.is_none(), !answer.error.is_empty());
    answer.lock.ok_or(answer.error)
}

async fn release(client: &mut Documents, doc_id: &str, user: &str) -> Result<(), Status> {
    let request = pb::ReleaseLockRequest { doc_id: doc_id.into(), user_id: user.into() };
    assert!(client.release_lock(request).await?.into_inner().success);
    Ok(())
}

async fn holder(client: &mut Documents, doc_id: &str) -> Option<String> {
    let answer = client.is_locked(pb::IsLockedRequest { doc_id: doc_id.into() }).await.unwrap().into_inner();
    assert_eq!(answer.locked, answer.lock.is_some());
    answer.lock.map(|lock| lock.user_id)
}

async fn the_holder_renews_and_releases_and_others_are_refused_in_band(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "").await;
    assert_eq!(holder(client, &doc_id).await, None);
    let lock = acquire(client, &doc_id, "ada").await.unwrap();
    assert!(lock.active);
    let life = lock.expires_at.unwrap().seconds - lock.acquired_at.unwrap().seconds;
    assert_eq!(life, 30);
    let renewed = acquire(client, &doc_id, "ada").await.unwrap();
    assert_eq!((&renewed.id, renewed.fencing), (&lock.id, lock.fencing));
    let refused = acquire(client, &doc_id, "bob").await.unwrap_err();
    assert!(refused.contains("ada"), "{refused}");
    let status = release(client, &doc_id, "bob").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(holder(client, &doc_id).await.as_deref(), Some("ada"));
    release(client, &doc_id, "ada").await.unwrap();
    assert_eq!(holder(client, &doc_id).await, None);
    assert_eq!(release(client, &doc_id, "ada").await.unwrap_err().code(), Code::NotFound);
    acquire(client, &doc_id, "bob").await.unwrap();
}

async fn writes_of_others_are_aborted_while_a_lock_is_held(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "").await;
    acquire(client, &doc_id, "bob").await.unwrap();
    let status = apply(client, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "DOCUMENT_LOCKED"));
    let document = pb::Document { name: "mine".into(), ..get(client, &doc_id).await };
    let status = client.update_document(pb::UpdateDocumentRequest { document: Some(document) }).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    let delete = pb::DeleteDocumentRequest { doc_id: doc_id.clone(), user_id: "ada".into() };
    assert_eq!(client.delete_document(delete).await.unwrap_err().code(), Code::Aborted);
    let of_holder = pb::Operation { user_id: "bob".into(), ..insertion(&doc_id, Uuid::now_v7(), 1, 0, "b") };
    apply(client, of_holder).await.unwrap();
    release(client, &doc_id, "bob").await.unwrap();
    apply(client, insertion(&doc_id, Uuid::now_v7(), 2, 0, "a")).await.unwrap();
    assert_eq!(text(client, &doc_id).await, "ab");
}

async fn every_lock_has_a_larger_fencing_number(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "").await;
    let mut last = 0;
    for user in ["ada", "bob", "ada", "ada"] {
        let lock = acquire(client, &doc_id, user).await.unwrap();
        assert!(lock.fencing > last);
        last = lock.fencing;
        release(client, &doc_id, user).await.unwrap();
    }
}

async fn subscribers_hear_of_locks(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    next(&mut events).await;
    next(&mut events).await;
    let lock = acquire(&mut world.documents, &doc_id, "ada").await.unwrap();
    let event = next(&mut events).await;
    assert_eq!((event.r#type.as_str(), event.user_id.as_str()), ("lock_acquired", "ada"));
    assert_eq!((&event.data["lock_id"], event.data["fencing"].as_str()), (&lock.id, "1"));
    release(&mut world.documents, &doc_id, "ada").await.unwrap();
    let released = next(&mut events).await;
    assert_eq!((released.r#type.as_str(), &released.data["lock_id"]), ("lock_released", &lock.id));
    assert!(released.sequence > event.sequence);
}

async fn of_many_who_want_the_lock_at_once_one_has_it(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut calls = tokio::task::JoinSet::new();
    for index in 0..50 {
        let (mut client, doc_id) = (world.documents.clone(), doc_id.clone());
        calls.spawn(async move { acquire(&mut client, &doc_id, &format!("user-{index}")).await.is_ok() });
    }
    let mut holders = 0;
    while let Some(has_it) = calls.join_next().await {
        holders += u32::from(has_it.unwrap());
    }
    assert_eq!(holders, 1);
}

async fn bad_requests_name_their_field(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "").await;
    expect_invalid(&client.acquire_lock(wanted("", "ada")).await.unwrap_err(), "doc_id");
    expect_invalid(&client.acquire_lock(wanted(&doc_id, "")).await.unwrap_err(), "user_id");
    let session = pb::AcquireLockRequest { session_id: "session-456".into(), ..wanted(&doc_id, "ada") };
    expect_invalid(&client.acquire_lock(session).await.unwrap_err(), "session_id");
    let unknown = wanted(&Uuid::now_v7().to_string(), "ada");
    assert_eq!(client.acquire_lock(unknown).await.unwrap_err().code(), Code::NotFound);
    let nobody = pb::ReleaseLockRequest { doc_id, user_id: "u".repeat(300) };
    expect_invalid(&client.release_lock(nobody).await.unwrap_err(), "user_id");
}

async fn with_brief_locks(store: StoreKind) -> World {
    let change = |options: &mut control::up::UpOptions| {
        (options.session_store, options.document_store) = (store, store);
        options.documents.lock_timeout = Duration::from_millis(300);
    };
    World::start_with(change).await
}

async fn an_expired_lock_frees_itself_at_once_and_is_announced(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "watcher")).await;
    next(&mut events).await;
    next(&mut events).await;
    let lock = acquire(&mut world.documents, &doc_id, "bob").await.unwrap();
    assert_eq!(next(&mut events).await.r#type, "lock_acquired");
    let written = async || apply(&mut world.documents, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")).await;
    eventually(Duration::from_secs(10), written).await;
    let expired = acquire(&mut world.documents, &doc_id, "ada").await.unwrap();
    assert!(expired.fencing > lock.fencing);
    loop {
        let event = next(&mut events).await;
        if event.r#type == "lock_released" {
            break;
        }
    }
}

mod brief {
    use super::*;

    #[tokio::test]
    async fn memory_an_expired_lock_frees_itself_at_once_and_is_announced() {
        an_expired_lock_frees_itself_at_once_and_is_announced(with_brief_locks(StoreKind::Memory).await).await;
    }

    #[tokio::test]
    async fn postgres_an_expired_lock_frees_itself_at_once_and_is_announced() {
        let brief = |options: &mut control::up::UpOptions| options.documents.lock_timeout = Duration::from_millis(300);
        if let Some(world) = World::on_postgres_with(brief).await {
            an_expired_lock_frees_itself_at_once_and_is_announced(world).await;
        }
    }

    #[tokio::test]
    async fn sqlite_an_expired_lock_frees_itself_at_once_and_is_announced() {
        an_expired_lock_frees_itself_at_once_and_is_announced(with_brief_locks(StoreKind::Sqlite).await).await;
    }
}
