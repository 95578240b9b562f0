//! The RPCs of both services over TCP, with the generated clients.

use proto::session as session_pb;
use proto::statesync as pb;
use tonic::{Code, Request};
use uuid::Uuid;

use crate::common::*;

fn new_session(user_id: &str, timeout_seconds: u32) -> session_pb::CreateSessionRequest {
    session_pb::CreateSessionRequest {
        user_id: user_id.into(),
        client_ip: "127.0.0.1".into(),
        client_port: 4242,
        metadata: [("device".to_owned(), "laptop".to_owned())].into(),
        timeout_seconds,
    }
}

#[tokio::test]
async fn a_session_is_active_at_once_and_survives_a_restart() {
    let mut world = World::start().await;
    let created = world.sessions.create_session(new_session("ada", 0)).await.unwrap().into_inner();
    let session = created.session.unwrap();
    assert_eq!(session.state(), session_pb::SessionState::Active);
    assert_eq!(created.token.len(), 44);
    let life = session.expires_at.unwrap().seconds - session.created_at.unwrap().seconds;
    assert_eq!(life, 1800);
    let mut world = world.restart().await;
    let request = session_pb::GetSessionRequest { session_id: session.session_id.clone() };
    assert_eq!(world.sessions.get_session(request).await.unwrap().into_inner().session.unwrap(), session);
}

#[tokio::test]
async fn a_heartbeat_extends_a_session_and_a_wrong_token_is_refused() {
    let mut world = World::start().await;
    let created = world.sessions.create_session(new_session("ada", 120)).await.unwrap().into_inner();
    let session_id = created.session.unwrap().session_id;
    let heartbeat = |token: Option<&str>| {
        let mut request =
            Request::new(session_pb::HeartbeatRequest { session_id: session_id.clone(), client_timestamp: None });
        if let Some(token) = token {
            request.metadata_mut().insert("x-session-token", token.parse().unwrap());
        }
        request
    };
    for token in [None, Some(created.token.as_str())] {
        let answer = world.sessions.heartbeat(heartbeat(token)).await.unwrap().into_inner();
        assert!(answer.success);
        assert_eq!(answer.remaining_seconds, 120);
    }
    let status = world.sessions.heartbeat(heartbeat(Some("forged"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_expired_session_is_not_found_and_a_long_timeout_is_capped() {
    let mut world = World::start().await;
    let created = world.sessions.create_session(new_session("ada", 1)).await.unwrap().into_inner();
    let session_id = created.session.unwrap().session_id;
    let expired = async || {
        let request = session_pb::GetSessionRequest { session_id: session_id.clone() };
        world.sessions.get_session(request).await.err().ok_or("the session never expired")
    };
    let status = eventually(std::time::Duration::from_secs(10), expired).await;
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(reason(&status), "SESSION_NOT_FOUND");
    let long = world.sessions.create_session(new_session("ada", u32::MAX)).await.unwrap().into_inner().session.unwrap();
    assert_eq!(long.expires_at.unwrap().seconds - long.created_at.unwrap().seconds, 24 * 3600);
}

#[tokio::test]
async fn bad_session_requests_name_the_field() {
    let mut world = World::start().await;
    expect_invalid(&world.sessions.create_session(new_session("", 0)).await.unwrap_err(), "user_id");
    let bad_ip = session_pb::CreateSessionRequest { client_ip: "home".into(), ..new_session("ada", 0) };
    expect_invalid(&world.sessions.create_session(bad_ip).await.unwrap_err(), "client_ip");
    let bad_port = session_pb::CreateSessionRequest { client_port: 70_000, ..new_session("ada", 0) };
    expect_invalid(&world.sessions.create_session(bad_port).await.unwrap_err(), "client_port");
    let request = session_pb::GetSessionRequest { session_id: "nonsense".into() };
    expect_invalid(&world.sessions.get_session(request).await.unwrap_err(), "session_id");
}

#[tokio::test]
async fn bad_document_requests_name_the_field_and_nothing_panics() {
    let mut world = World::start().await;
    let client = &mut world.documents;
    let doc_id = create_text(client, "hello").await;
    let session = Uuid::now_v7();
    let empty = client.apply_operation(pb::ApplyOperationRequest { operation: None }).await.unwrap_err();
    expect_invalid(&empty, "operation");
    let good = insertion(&doc_id, session, 1, 0, "x");
    let bad = [
        ("operation.doc_id", pb::Operation { doc_id: String::new(), ..good.clone() }),
        ("operation.session_id", pb::Operation { session_id: "me".into(), ..good.clone() }),
        ("operation.type", pb::Operation { r#type: "explode".into(), ..good.clone() }),
        ("operation.encoding", pb::Operation { encoding: 7, ..good.clone() }),
        ("operation.id", pb::Operation { id: "one".into(), ..good.clone() }),
        ("operation.user_id", pb::Operation { user_id: "u".repeat(300), ..good.clone() }),
        ("operation.data", pb::Operation { data: vec![b'x'; (1 << 20) + 1].into(), ..good.clone() }),
        ("operation.data", operation(&doc_id, session, 1, r#"{"pos": 6, "ins": "x"}"#)),
        ("operation.data", operation(&doc_id, session, 1, r#"{"pos": 3, "del": 3}"#)),
        ("operation.data", operation(&doc_id, session, 1, r#"{"pos": -1, "ins": "x"}"#)),
        ("operation.data", operation(&doc_id, session, 1, r#"{"pos": 1, "ins": "x", "extra": 1}"#)),
        ("operation.data", operation(&doc_id, session, 1, r#"{"pos": 1, "ins": "#)),
    ];
    for (field, operation) in bad {
        expect_invalid(&apply(client, operation).await.unwrap_err(), field);
    }
    let unknown = insertion(&Uuid::now_v7().to_string(), session, 1, 0, "x");
    assert_eq!(apply(client, unknown).await.unwrap_err().code(), Code::NotFound);
    let nil = pb::GetDocumentRequest { doc_id: Uuid::nil().to_string() };
    expect_invalid(&client.get_document(nil).await.unwrap_err(), "doc_id");
    let create = pb::CreateDocumentRequest {
        name: "x".into(),
        r#type: "poem".into(),
        created_by: "a".into(),
        ..Default::default()
    };
    expect_invalid(&client.create_document(create).await.unwrap_err(), "type");
    let locked = client.is_locked(pb::IsLockedRequest::default()).await.unwrap_err();
    expect_invalid(&locked, "doc_id");
    assert_eq!(text(client, &doc_id).await, "hello");
}

#[tokio::test]
async fn operations_apply_and_the_history_has_them_oldest_first() {
    let mut world = World::start().await;
    let client = &mut world.documents;
    let doc_id = create_text(client, "").await;
    let session = Uuid::now_v7();
    for (index, letter) in ["a", "b", "c"].iter().enumerate() {
        let applied = apply(client, insertion(&doc_id, session, 1 + index as u64, index, letter)).await.unwrap();
        assert_eq!((applied.version, applied.status.as_str()), (2 + index as u64, "applied"));
    }
    let document = get(client, &doc_id).await;
    assert_eq!((document.version, document.content.as_ref()), (4, &b"abc"[..]));
    assert_eq!(document.metadata.unwrap().permissions.unwrap().owner, "ada");
    let request = pb::GetOperationHistoryRequest { doc_id, limit: 2 };
    let history = client.get_operation_history(request).await.unwrap().into_inner().operations;
    assert_eq!(history.iter().map(|operation| operation.version).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(history[1].data.as_ref(), br#"{"pos":2,"ins":"c"}"#);
}

#[tokio::test]
async fn writers_who_have_not_seen_each_other_merge_and_can_type_ahead() {
    let mut world = World::start().await;
    let client = &mut world.documents;
    let doc_id = create_text(client, "one two").await;
    let (left, right) = (Uuid::now_v7(), Uuid::now_v7());
    // Both start from version 1; each counts only its own operations.
    apply(client, insertion(&doc_id, left, 1, 0, "A")).await.unwrap();
    apply(client, insertion(&doc_id, right, 1, 7, "Z")).await.unwrap();
    apply(client, insertion(&doc_id, left, 1, 1, "B")).await.unwrap();
    let last = apply(client, insertion(&doc_id, right, 1, 8, "Y")).await.unwrap();
    assert_eq!(text(client, &doc_id).await, "ABone twoZY");
    assert_eq!(last.data.as_ref(), br#"{"pos":10,"ins":"Y"}"#);
}

#[tokio::test]
async fn a_version_ahead_and_a_stale_replacement_are_refused_with_the_current_version() {
    let mut world = World::start().await;
    let client = &mut world.documents;
    let doc_id = create_text(client, "text").await;
    let session = Uuid::now_v7();
    let ahead = apply(client, insertion(&doc_id, session, 9, 0, "x")).await.unwrap_err();
    assert_eq!((ahead.code(), reason(&ahead).as_str()), (Code::FailedPrecondition, "VERSION_AHEAD"));
    apply(client, operation(&doc_id, session, 1, "whole new text")).await.unwrap();
    let stale = apply(client, operation(&doc_id, session, 1, "lost update")).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "VERSION_CONFLICT"));
    let info = tonic_types::StatusExt::get_details_error_info(&stale).unwrap();
    assert_eq!(info.metadata["current_version"], "2");
    assert_eq!(text(client, &doc_id).await, "whole new text");
}

#[tokio::test]
async fn opaque_documents_keep_what_they_are_given() {
    let mut world = World::start().await;
    let doc_id = create(&mut world.documents, "whiteboard", b"\xFF\x00raw").await;
    assert_eq!(get(&mut world.documents, &doc_id).await.content.as_ref(), b"\xFF\x00raw");
    let session = Uuid::now_v7();
    let replaced = pb::Operation { r#type: "update".into(), ..operation(&doc_id, session, 1, "[1,2]") };
    apply(&mut world.documents, replaced.clone()).await.unwrap();
    let stale = apply(&mut world.documents, replaced).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let typed = operation(&doc_id, session, 2, r#"{"id": "e1", "set": {"x": 1}}"#);
    let typed = pb::Operation { r#type: "update".into(), ..typed };
    assert_eq!(apply(&mut world.documents, typed).await.unwrap_err().code(), Code::FailedPrecondition);
    let mut world = world.restart().await;
    assert_eq!(get(&mut world.documents, &doc_id).await.content.as_ref(), b"[1,2]");
}

#[tokio::test]
async fn a_retried_operation_applies_once_even_after_a_restart() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let session = Uuid::now_v7();
    let by_id = pb::Operation { id: Uuid::now_v7().to_string(), ..insertion(&doc_id, session, 1, 0, "a") };
    let by_key = pb::Operation { idempotency_key: "key".into(), ..insertion(&doc_id, session, 1, 1, "b") };
    let first = [
        apply(&mut world.documents, by_id.clone()).await.unwrap(),
        apply(&mut world.documents, by_key.clone()).await.unwrap(),
    ];
    for _ in 0..2 {
        assert_eq!(apply(&mut world.documents, by_id.clone()).await.unwrap(), first[0]);
        assert_eq!(apply(&mut world.documents, by_key.clone()).await.unwrap(), first[1]);
        let changed = pb::Operation { data: b"{\"ins\":\"other\"}".to_vec().into(), ..by_id.clone() };
        assert_eq!(apply(&mut world.documents, changed).await.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(text(&mut world.documents, &doc_id).await, "ab");
        world = world.restart().await;
    }
}

#[tokio::test]
async fn operations_in_flight_together_apply_in_the_order_of_their_session() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let session = Uuid::now_v7();
    let mut calls = tokio::task::JoinSet::new();
    for sequence in (1..=100_u64).rev() {
        let letter = char::from(b'a' + (sequence % 26) as u8).to_string();
        let operation = insertion(&doc_id, session, 1, sequence as usize - 1, &letter);
        let operation = pb::Operation { session_sequence: sequence, ..operation };
        let mut client = world.documents.clone();
        calls.spawn(async move { apply(&mut client, operation).await });
    }
    while let Some(applied) = calls.join_next().await {
        applied.unwrap().unwrap();
    }
    let expected: String = (1..=100_u64).map(|sequence| char::from(b'a' + (sequence % 26) as u8)).collect();
    assert_eq!(text(&mut world.documents, &doc_id).await, expected);
}

#[tokio::test]
async fn commits_are_shared_by_operations_of_many_documents() {
    let mut world = World::start().await;
    let before = world.running.document_commits().commits.load(std::sync::atomic::Ordering::Relaxed);
    let mut doc_ids = Vec::new();
    for _ in 0..8 {
        doc_ids.push(create_text(&mut world.documents, "").await);
    }
    let created = world.running.document_commits().commits.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(created - before, 8, "waiting callers get a commit each");
    let mut calls = tokio::task::JoinSet::new();
    for index in 0..400 {
        let operation = insertion(&doc_ids[index % 8], Uuid::now_v7(), 1, 0, "x");
        let mut client = world.documents.clone();
        calls.spawn(async move { apply(&mut client, operation).await });
    }
    while let Some(applied) = calls.join_next().await {
        applied.unwrap().unwrap();
    }
    let stats = world.running.document_commits();
    let commits = stats.commits.load(std::sync::atomic::Ordering::Relaxed) - created;
    println!("400 concurrent operations on 8 documents took {commits} commits");
    assert!(commits < 200, "{commits} commits for 400 concurrent operations");
    assert_eq!(stats.operations.load(std::sync::atomic::Ordering::Relaxed), 408);
}
