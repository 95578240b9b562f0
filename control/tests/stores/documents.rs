//! Documents, their lists and who listens to them, on every store.

use std::collections::HashSet;

use proto::statesync as pb;
use proto::statesync::apply_operations_response::Outcome;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::common::*;

crate::on_every_document_store! {
    an_update_changes_the_description_under_the_version_and_tells_subscribers,
    a_stale_update_is_refused_and_changes_nothing,
    an_update_can_replace_the_content_of_a_text,
    a_deleted_document_takes_no_writes_until_it_is_active_again,
    an_archived_document_takes_no_writes_until_it_is_active_again,
    a_list_is_filtered_ordered_and_paged_without_gaps,
    a_list_for_a_user_has_what_that_user_may_read,
    statistics_count_documents_operations_subscribers_and_locks,
    a_subscriber_ends_its_own_stream_and_nobody_elses,
    a_user_is_present_until_the_last_of_its_streams_ends,
    a_resumed_stream_gets_the_whole_document_after_a_change_of_description,
    operations_history_and_retries_work,
    operations_of_a_stream_are_answered_in_their_order_and_a_refused_one_ends_nothing,
    bad_requests_name_their_field_and_the_remedy,
}

pub(crate) async fn update(client: &mut Documents, document: pb::Document) -> Result<(), Status> {
    let response = client.update_document(pb::UpdateDocumentRequest { document: Some(document) }).await?.into_inner();
    assert!(response.success && response.error.is_empty());
    Ok(())
}

pub(crate) async fn delete(client: &mut Documents, doc_id: &str, user_id: &str) -> Result<(), Status> {
    let request = pb::DeleteDocumentRequest { doc_id: doc_id.into(), user_id: user_id.into() };
    assert!(client.delete_document(request).await?.into_inner().success);
    Ok(())
}

async fn list(client: &mut Documents, request: pb::ListDocumentsRequest) -> pb::ListDocumentsResponse {
    client.list_documents(request).await.unwrap().into_inner()
}

pub(crate) async fn ids(client: &mut Documents, request: pb::ListDocumentsRequest) -> Vec<String> {
    list(client, request).await.documents.into_iter().map(|document| document.id).collect()
}

async fn an_update_changes_the_description_under_the_version_and_tells_subscribers(mut world: World) {
    let doc_id = create_text(&mut world.documents, "text").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    next(&mut events).await;
    next(&mut events).await;
    let mut document = get(&mut world.documents, &doc_id).await;
    document.name = "another name".into();
    document.state = "archived".into();
    document.updated_by = "carol".into();
    let metadata = document.metadata.as_mut().unwrap();
    metadata.tags = vec!["draft".into()];
    metadata.permissions = None;
    update(&mut world.documents, document.clone()).await.unwrap();
    let event = next(&mut events).await;
    assert_eq!((event.r#type.as_str(), event.version, event.user_id.as_str()), ("document_updated", 2, "carol"));
    let shown = event.document.unwrap();
    let read = get(&mut world.documents, &doc_id).await;
    assert_eq!((shown.name.as_str(), shown.content.as_ref()), ("another name", &b"text"[..]));
    assert_eq!((read.name.as_str(), read.state.as_str(), read.version), ("another name", "archived", 2));
    assert_eq!((read.updated_by.as_str(), read.created_by.as_str()), ("carol", "ada"));
    let metadata = read.metadata.unwrap();
    assert_eq!(metadata.tags, ["draft"]);
    assert_eq!(metadata.permissions.unwrap().owner, "ada", "permissions that are left out stay");
}

async fn a_stale_update_is_refused_and_changes_nothing(mut world: World) {
    let doc_id = create_text(&mut world.documents, "text").await;
    let old = get(&mut world.documents, &doc_id).await;
    apply(&mut world.documents, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")).await.unwrap();
    let stale = pb::Document { name: "stale".into(), ..old.clone() };
    let status = update(&mut world.documents, stale).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "VERSION_CONFLICT"));
    let ahead = pb::Document { version: 9, ..old.clone() };
    assert_eq!(update(&mut world.documents, ahead).await.unwrap_err().code(), Code::FailedPrecondition);
    let unread = pb::Document { version: 0, ..old.clone() };
    expect_invalid(&update(&mut world.documents, unread).await.unwrap_err(), "document.version");
    let thief = pb::Document { version: 2, created_by: "eve".into(), ..old };
    expect_invalid(&update(&mut world.documents, thief).await.unwrap_err(), "document.created_by");
    let read = get(&mut world.documents, &doc_id).await;
    assert_eq!((read.name.as_str(), read.version, read.content.as_ref()), ("a document", 2, &b"xtext"[..]));
}

async fn an_update_can_replace_the_content_of_a_text(mut world: World) {
    let doc_id = create_text(&mut world.documents, "hello world").await;
    let mut document = get(&mut world.documents, &doc_id).await;
    document.content = b"hello there".to_vec().into();
    update(&mut world.documents, document).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, "hello there");
    // Who has not seen it still merges.
    apply(&mut world.documents, insertion(&doc_id, Uuid::now_v7(), 1, 0, ">")).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, ">hello there");
}

async fn a_deleted_document_takes_no_writes_until_it_is_active_again(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "text").await;
    delete(client, &doc_id, "ada").await.unwrap();
    delete(client, &doc_id, "ada").await.unwrap();
    assert_eq!(get(client, &doc_id).await.state, "deleted");
    let status = apply(client, insertion(&doc_id, Uuid::now_v7(), 2, 0, "x")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "DOCUMENT_NOT_ACTIVE"));
    assert!(status.message().contains("UpdateDocument"), "{status:?}");
    assert!(ids(client, pb::ListDocumentsRequest::default()).await.is_empty());
    let deleted = pb::ListDocumentsRequest { state: "deleted".into(), ..Default::default() };
    assert_eq!(ids(client, deleted).await, std::slice::from_ref(&doc_id));
    let again = pb::Document { state: "active".into(), ..get(client, &doc_id).await };
    update(client, again).await.unwrap();
    apply(client, insertion(&doc_id, Uuid::now_v7(), 3, 0, "x")).await.unwrap();
    assert_eq!(text(client, &doc_id).await, "xtext");
    let unknown = delete(client, &Uuid::now_v7().to_string(), "ada").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

async fn an_archived_document_takes_no_writes_until_it_is_active_again(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "text").await;
    let archived = pb::Document { state: "archived".into(), name: "old".into(), ..get(client, &doc_id).await };
    update(client, archived).await.unwrap();
    let archived = get(client, &doc_id).await;
    let written = apply(client, insertion(&doc_id, Uuid::now_v7(), 2, 0, "x")).await.unwrap_err();
    let renamed = pb::Document { name: "new".into(), ..archived.clone() };
    let replaced = pb::Document { state: String::new(), content: b"new".to_vec().into(), ..archived.clone() };
    let deleted = pb::Document { state: "deleted".into(), ..archived.clone() };
    let mut refused = vec![written];
    for document in [renamed, replaced, deleted, archived.clone()] {
        refused.push(update(client, document).await.unwrap_err());
    }
    for status in refused {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "DOCUMENT_NOT_ACTIVE"));
        assert!(status.message().contains("the document is archived"), "{status:?}");
    }
    assert_eq!(get(client, &doc_id).await, archived);
    // With becoming active again it may change.
    let again = pb::Document { state: "active".into(), name: "new".into(), ..archived };
    update(client, again).await.unwrap();
    apply(client, insertion(&doc_id, Uuid::now_v7(), 3, 0, "x")).await.unwrap();
    assert_eq!((get(client, &doc_id).await.name, text(client, &doc_id).await), ("new".into(), "xtext".into()));
    // And an archived one can be deleted.
    let archived = pb::Document { state: "archived".into(), ..get(client, &doc_id).await };
    update(client, archived).await.unwrap();
    delete(client, &doc_id, "ada").await.unwrap();
    assert_eq!(get(client, &doc_id).await.state, "deleted");
}

async fn a_list_is_filtered_ordered_and_paged_without_gaps(mut world: World) {
    let client = &mut world.documents;
    let mut all = Vec::new();
    for index in 0..25 {
        let kind = if index % 5 == 0 { "sheet" } else { "text" };
        all.push(create(client, kind, b"").await);
    }
    let mut paged = Vec::new();
    for offset in [0, 10, 20, 30] {
        let request = pb::ListDocumentsRequest { offset, limit: 10, ..Default::default() };
        let page = list(client, request).await;
        assert_eq!(page.total, 25);
        paged.extend(page.documents.into_iter().map(|document| document.id));
    }
    assert_eq!(paged, all);
    let sheets = pb::ListDocumentsRequest { r#type: "sheet".into(), offset: 1, limit: 2, ..Default::default() };
    let sheets = list(client, sheets).await;
    assert_eq!((sheets.total, &sheets.documents[0].id), (5, &all[5]));
    let nobody = pb::ListDocumentsRequest { created_by: "' OR 1=1 --".into(), ..Default::default() };
    assert_eq!(list(client, nobody).await.total, 0);
    let most = pb::ListDocumentsRequest { limit: i32::MAX, offset: i32::MAX, ..Default::default() };
    let most = list(client, most).await;
    assert_eq!((most.total, most.documents.len()), (25, 0));
    apply(client, insertion(&all[1], Uuid::now_v7(), 1, 0, "x")).await.unwrap();
    let first = list(client, pb::ListDocumentsRequest::default()).await.documents;
    assert_eq!((first.len(), first[1].version, first[1].updated_by.as_str()), (25, 2, "ada"));
}

async fn a_list_for_a_user_has_what_that_user_may_read(mut world: World) {
    let client = &mut world.documents;
    let permitted = |permissions: pb::Permissions| pb::CreateDocumentRequest {
        name: "a document".into(),
        r#type: "text".into(),
        created_by: "ada".into(),
        metadata: Some(pb::Metadata { permissions: Some(permissions), ..Default::default() }),
        ..Default::default()
    };
    let mut made = Vec::new();
    for permissions in [
        pb::Permissions::default(),
        pb::Permissions { editors: vec!["bob".into()], ..Default::default() },
        pb::Permissions { viewers: vec!["carol".into(), "bob".into()], ..Default::default() },
        pb::Permissions { public: true, ..Default::default() },
        pb::Permissions { owner: "bob".into(), ..Default::default() },
    ] {
        let created = client.create_document(permitted(permissions)).await.unwrap().into_inner();
        made.push(created.document.unwrap().id);
    }
    for (user, readable) in
        [("ada", vec![0, 1, 2, 3, 4]), ("bob", vec![1, 2, 3, 4]), ("carol", vec![2, 3]), ("eve", vec![3])]
    {
        let request = pb::ListDocumentsRequest { user_id: user.into(), ..Default::default() };
        let expected: Vec<_> = readable.into_iter().map(|index: usize| made[index].clone()).collect();
        assert_eq!(ids(client, request).await, expected, "{user}");
    }
    let mut document = get(client, &made[1]).await;
    document.metadata.as_mut().unwrap().permissions.as_mut().unwrap().editors = vec!["eve".into()];
    update(client, document).await.unwrap();
    let of_eve = pb::ListDocumentsRequest { user_id: "eve".into(), ..Default::default() };
    assert_eq!(ids(client, of_eve).await, [made[1].clone(), made[3].clone()]);
}

async fn statistics_count_documents_operations_subscribers_and_locks(mut world: World) {
    let client = &mut world.documents;
    let text = create_text(client, "").await;
    let archived = create(client, "sheet", b"").await;
    let deleted = create(client, "canvas", b"").await;
    apply(client, insertion(&text, Uuid::now_v7(), 1, 0, "x")).await.unwrap();
    let document = pb::Document { state: "archived".into(), ..get(client, &archived).await };
    update(client, document).await.unwrap();
    delete(client, &deleted, "ada").await.unwrap();
    let lock = pb::AcquireLockRequest { doc_id: text.clone(), user_id: "ada".into(), session_id: String::new() };
    client.acquire_lock(lock).await.unwrap();
    let mut events = subscribe(client, subscription(&text, "bob")).await;
    next(&mut events).await;
    let stats = client.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner().stats.unwrap();
    assert_eq!((stats.total_documents, stats.active_documents, stats.archived_documents), (3, 1, 1));
    assert_eq!((stats.total_operations, stats.active_subscribers, stats.active_locks), (3, 1, 1));
    assert_eq!((stats.total_conflicts, stats.resolved_conflicts), (0, 0));
}

async fn a_subscriber_ends_its_own_stream_and_nobody_elses(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut bob = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    let subscriber_id = next(&mut bob).await.id;
    let mut carol = subscribe(&mut world.documents, subscription(&doc_id, "carol")).await;
    next(&mut carol).await;
    let request = |subscriber_id: &str, user: &str| pb::UnsubscribeDocumentRequest {
        subscriber_id: subscriber_id.into(),
        doc_id: doc_id.clone(),
        user_id: user.into(),
    };
    let status = world.documents.unsubscribe_document(request(&subscriber_id, "carol")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = world.documents.unsubscribe_document(request(&Uuid::now_v7().to_string(), "bob")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(world.documents.unsubscribe_document(request(&subscriber_id, "bob")).await.unwrap().into_inner().success);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while bob.message().await.unwrap().is_some() {}
    });
    ended.await.expect("the stream ends");
    loop {
        let event = next(&mut carol).await;
        if event.r#type == "user_left" {
            assert_eq!((event.user_id.as_str(), &event.data["subscriber_id"]), ("bob", &subscriber_id));
            break;
        }
    }
    assert_eq!(get(&mut world.documents, &doc_id).await.active_users, ["carol"]);
}

async fn a_user_is_present_until_the_last_of_its_streams_ends(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut watcher = subscribe(&mut world.documents, subscription(&doc_id, "watcher")).await;
    next(&mut watcher).await;
    next(&mut watcher).await;
    let mut first = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    next(&mut first).await;
    let mut second = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    next(&mut second).await;
    drop(first);
    let left = async || {
        let stats = world.documents.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner().stats.unwrap();
        if stats.active_subscribers == 2 { Ok(()) } else { Err(format!("{stats:?}")) }
    };
    eventually(std::time::Duration::from_secs(10), left).await;
    // What comes after whatever the closed stream caused.
    apply(&mut world.documents, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")).await.unwrap();
    let seen = [next(&mut watcher).await.r#type, next(&mut watcher).await.r#type];
    assert_eq!(seen, ["user_joined", "operation_applied"]);
    assert_eq!(get(&mut world.documents, &doc_id).await.active_users, ["bob", "watcher"]);
    drop(second);
    let left = next(&mut watcher).await;
    assert_eq!((left.r#type.as_str(), left.user_id.as_str()), ("user_left", "bob"));
    assert_eq!(get(&mut world.documents, &doc_id).await.active_users, ["watcher"]);
}

async fn a_resumed_stream_gets_the_whole_document_after_a_change_of_description(mut world: World) {
    let doc_id = create_text(&mut world.documents, "a").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    let epoch = next(&mut events).await.epoch;
    drop(events);
    let document = pb::Document { name: "renamed".into(), ..get(&mut world.documents, &doc_id).await };
    update(&mut world.documents, document).await.unwrap();
    apply(&mut world.documents, insertion(&doc_id, Uuid::now_v7(), 2, 0, "b")).await.unwrap();
    for (version, whole) in [(1, true), (2, false)] {
        let resume = pb::SubscribeDocumentRequest {
            resume_epoch: epoch.clone(),
            resume_version: version,
            ..subscription(&doc_id, "bob")
        };
        let mut events = subscribe(&mut world.documents, resume).await;
        let welcome = next(&mut events).await;
        assert_eq!(welcome.document.as_ref().map(|document| document.name.as_str()), whole.then_some("renamed"));
        if !whole {
            assert_eq!(next_operation(&mut events).await.version, 3);
        }
    }
}

async fn operations_history_and_retries_work(mut world: World) {
    let doc_id = create_text(&mut world.documents, "").await;
    let session = Uuid::now_v7();
    let mut applied = Vec::new();
    for index in 0..5_u64 {
        let operation = pb::Operation {
            id: Uuid::now_v7().to_string(),
            idempotency_key: format!("key-{index}"),
            ..insertion(&doc_id, session, index + 1, index as usize, "x")
        };
        let first = apply(&mut world.documents, operation.clone()).await.unwrap();
        assert_eq!(apply(&mut world.documents, operation.clone()).await.unwrap(), first);
        let by_key = pb::Operation { id: String::new(), ..operation.clone() };
        assert_eq!(apply(&mut world.documents, by_key).await.unwrap(), first);
        let other = pb::Operation { data: b"other".to_vec().into(), ..operation };
        assert_eq!(apply(&mut world.documents, other).await.unwrap_err().code(), Code::AlreadyExists);
        applied.push(first);
    }
    let request = pb::GetOperationHistoryRequest { doc_id: doc_id.clone(), limit: 3 };
    let history = world.documents.get_operation_history(request).await.unwrap().into_inner().operations;
    assert_eq!(history, applied[2..]);
    let ids: HashSet<_> = applied.iter().map(|operation| &operation.id).collect();
    assert_eq!(ids.len(), 5);
}

async fn bad_requests_name_their_field_and_the_remedy(mut world: World) {
    let client = &mut world.documents;
    let doc_id = create_text(client, "text").await;
    let good = get(client, &doc_id).await;
    let none = client.update_document(pb::UpdateDocumentRequest { document: None }).await.unwrap_err();
    expect_invalid(&none, "document");
    let bad = [
        ("document.id", pb::Document { id: "x".repeat(1 << 20), ..good.clone() }),
        ("document.state", pb::Document { state: "burnt".into(), ..good.clone() }),
        ("document.type", pb::Document { r#type: "sheet".into(), ..good.clone() }),
        ("document.name", pb::Document { name: "n".repeat(256), ..good.clone() }),
        ("document.name", pb::Document { name: "a\0b".into(), ..good.clone() }),
        ("document.updated_by", pb::Document { updated_by: String::new(), ..good.clone() }),
        ("document.content", pb::Document { content: vec![0; (1 << 20) + 1].into(), ..good.clone() }),
        ("document.content", pb::Document { content: vec![0xFF].into(), ..good.clone() }),
    ];
    for (field, document) in bad {
        expect_invalid(&update(client, document).await.unwrap_err(), field);
    }
    for (field, request) in [
        ("type", pb::ListDocumentsRequest { r#type: "poem".into(), ..Default::default() }),
        ("state", pb::ListDocumentsRequest { state: "burnt".into(), ..Default::default() }),
        ("offset", pb::ListDocumentsRequest { offset: -1, ..Default::default() }),
        ("limit", pb::ListDocumentsRequest { limit: i32::MIN, ..Default::default() }),
        ("user_id", pb::ListDocumentsRequest { user_id: "u".repeat(300), ..Default::default() }),
    ] {
        let status = client.list_documents(request).await.unwrap_err();
        expect_invalid(&status, field);
    }
    let history = pb::GetOperationHistoryRequest { doc_id: doc_id.clone(), limit: -5 };
    expect_invalid(&client.get_operation_history(history).await.unwrap_err(), "limit");
    let unsubscribe = pb::UnsubscribeDocumentRequest { doc_id: doc_id.clone(), ..Default::default() };
    expect_invalid(&client.unsubscribe_document(unsubscribe).await.unwrap_err(), "subscriber_id");
    let nobody = pb::DeleteDocumentRequest { doc_id: doc_id.clone(), user_id: String::new() };
    expect_invalid(&client.delete_document(nobody).await.unwrap_err(), "user_id");
    assert_eq!(get(client, &doc_id).await, good);
}

async fn operations_of_a_stream_are_answered_in_their_order_and_a_refused_one_ends_nothing(mut world: World) {
    let one = create_text(&mut world.documents, "").await;
    let other = create_text(&mut world.documents, "").await;
    let mut events = subscribe(&mut world.documents, subscription(&one, "bob")).await;
    let session = Uuid::now_v7();
    let named = pb::Operation { id: Uuid::now_v7().to_string(), ..insertion(&one, session, 1, 2, "c") };
    let operations = vec![
        insertion(&one, session, 1, 0, "a"),
        insertion(&other, session, 1, 0, "x"),
        insertion(&one, session, 1, 1, "b"),
        insertion(&Uuid::now_v7().to_string(), session, 1, 0, "nowhere"),
        insertion(&one, session, 99, 0, "ahead"),
        pb::Operation { session_id: "nobody".into(), ..insertion(&one, session, 1, 0, "y") },
        named.clone(),
        named,
        insertion(&other, session, 1, 1, "z"),
    ];
    let requests = operations.into_iter().map(|operation| pb::ApplyOperationsRequest { operation: Some(operation) });
    let empty = [pb::ApplyOperationsRequest { operation: None }];
    let requests = tokio_stream::iter(requests.chain(empty).collect::<Vec<_>>());
    let mut answers = world.documents.apply_operations(requests).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        told.push(match answer.outcome.unwrap() {
            Outcome::Answer(answer) => {
                assert!(answer.success && answer.error.is_empty());
                let applied = answer.applied_operation.unwrap();
                (applied.version as i32, if applied.doc_id == one { "one" } else { "other" }.to_owned())
            }
            Outcome::Refusal(refusal) => {
                assert!(!refusal.message.is_empty());
                (-refusal.code, refusal.reason)
            }
        });
    }
    let refused = |code: Code, reason: &str| (-i32::from(code), reason.to_owned());
    let applied = |version, document: &str| (version, document.to_owned());
    let expected = [
        applied(2, "one"),
        applied(2, "other"),
        applied(3, "one"),
        refused(Code::NotFound, "DOCUMENT_NOT_FOUND"),
        refused(Code::FailedPrecondition, "VERSION_AHEAD"),
        refused(Code::InvalidArgument, ""),
        applied(4, "one"),
        applied(4, "one"),
        applied(3, "other"),
        refused(Code::InvalidArgument, ""),
    ];
    assert_eq!(told, expected);
    for letter in ["a", "b", "c"] {
        let event = next_operation(&mut events).await;
        assert!(String::from_utf8_lossy(&event.operation.unwrap().data).contains(letter));
    }
    assert_eq!([text(&mut world.documents, &one).await, text(&mut world.documents, &other).await], ["abc", "xz"]);
}
