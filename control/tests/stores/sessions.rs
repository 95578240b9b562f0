//! Sessions on every store.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proto::session as pb;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::common::*;

crate::on_every_session_store! {
    a_session_is_created_read_changed_and_deleted,
    an_update_merges_metadata_replaces_statistics_and_does_not_extend,
    updates_at_once_lose_none_of_their_keys,
    a_list_is_filtered_ordered_and_paged_without_gaps,
    an_expired_session_is_gone_from_every_call,
    statistics_count_what_is_live_by_state,
    a_token_of_another_session_changes_nothing,
    a_rotated_token_takes_the_place_of_the_old_one_at_once,
    of_rotations_at_once_with_one_token_one_succeeds,
    a_session_whose_connection_ends_is_idle_until_it_is_heard_of,
    bad_requests_name_their_field_and_the_remedy,
    a_deleted_session_does_not_come_back_by_a_heartbeat_or_an_update,
}

fn create(user_id: &str, timeout_seconds: u32) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest {
        user_id: user_id.into(),
        client_ip: "192.0.2.7".into(),
        client_port: 4242,
        metadata: [("device".to_owned(), "laptop".to_owned())].into(),
        timeout_seconds,
    }
}

async fn open(sessions: &mut Sessions, user_id: &str) -> pb::Session {
    sessions.create_session(create(user_id, 0)).await.unwrap().into_inner().session.unwrap()
}

async fn read(sessions: &mut Sessions, id: &str) -> Result<pb::Session, Status> {
    let request = pb::GetSessionRequest { session_id: id.into() };
    Ok(sessions.get_session(request).await?.into_inner().session.unwrap())
}

async fn update(sessions: &mut Sessions, request: pb::UpdateSessionRequest) -> Result<pb::Session, Status> {
    Ok(sessions.update_session(request).await?.into_inner().session.unwrap())
}

async fn delete(sessions: &mut Sessions, id: &str) -> Result<bool, Status> {
    let request = pb::DeleteSessionRequest { session_id: id.into(), reason: "logout".into() };
    Ok(sessions.delete_session(request).await?.into_inner().success)
}

async fn list(sessions: &mut Sessions, request: pb::ListSessionsRequest) -> pb::ListSessionsResponse {
    sessions.list_sessions(request).await.unwrap().into_inner()
}

async fn a_session_is_created_read_changed_and_deleted(mut world: World) {
    let created = open(&mut world.sessions, "ada").await;
    assert_eq!(read(&mut world.sessions, &created.session_id).await.unwrap(), created);
    let request = pb::UpdateSessionRequest {
        session_id: created.session_id.clone(),
        state: pb::SessionState::Idle.into(),
        ..Default::default()
    };
    let idle = update(&mut world.sessions, request).await.unwrap();
    assert_eq!(idle.state(), pb::SessionState::Idle);
    let beat = pb::HeartbeatRequest { session_id: created.session_id.clone(), client_timestamp: None };
    assert_eq!(world.sessions.heartbeat(beat).await.unwrap().into_inner().remaining_seconds, 1800);
    let active = read(&mut world.sessions, &created.session_id).await.unwrap();
    assert_eq!(active.state(), pb::SessionState::Active, "a heartbeat wakes an idle session");
    assert!(delete(&mut world.sessions, &created.session_id).await.unwrap());
    let status = read(&mut world.sessions, &created.session_id).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "SESSION_NOT_FOUND"));
    assert_eq!(delete(&mut world.sessions, &created.session_id).await.unwrap_err().code(), Code::NotFound);
}

async fn an_update_merges_metadata_replaces_statistics_and_does_not_extend(mut world: World) {
    let created = open(&mut world.sessions, "ada").await;
    let stats = pb::SessionStats { packets_sent: 7, current_rtt_ms: 30, ..Default::default() };
    let request = pb::UpdateSessionRequest {
        session_id: created.session_id.clone(),
        metadata: [("device".to_owned(), "phone".to_owned()), ("app".to_owned(), "editor".to_owned())].into(),
        stats: Some(stats),
        ..Default::default()
    };
    update(&mut world.sessions, request).await.unwrap();
    let stats = pb::SessionStats { bytes_sent: 9, ..Default::default() };
    let request = pb::UpdateSessionRequest {
        session_id: created.session_id.clone(),
        metadata: [("room".to_owned(), "1".to_owned())].into(),
        stats: Some(stats),
        ..Default::default()
    };
    let updated = update(&mut world.sessions, request).await.unwrap();
    let expected: HashMap<String, String> =
        [("device", "phone"), ("app", "editor"), ("room", "1")].map(|(key, value)| (key.into(), value.into())).into();
    assert_eq!(updated.metadata, expected);
    assert_eq!(updated.stats, Some(stats));
    assert_eq!(updated.state(), pb::SessionState::Active);
    assert_eq!(updated.expires_at, created.expires_at);
    assert_eq!(read(&mut world.sessions, &created.session_id).await.unwrap(), updated);
}

async fn updates_at_once_lose_none_of_their_keys(mut world: World) {
    let created = open(&mut world.sessions, "ada").await;
    let mut calls = tokio::task::JoinSet::new();
    for index in 0..40 {
        let mut sessions = world.sessions.clone();
        let session_id = created.session_id.clone();
        calls.spawn(async move {
            let metadata = [(format!("key-{index}"), "value".to_owned())].into();
            let beat = pb::HeartbeatRequest { session_id: session_id.clone(), client_timestamp: None };
            sessions.heartbeat(beat).await.unwrap();
            update(&mut sessions, pb::UpdateSessionRequest { session_id, metadata, ..Default::default() })
                .await
                .unwrap();
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(read(&mut world.sessions, &created.session_id).await.unwrap().metadata.len(), 41);
}

async fn a_list_is_filtered_ordered_and_paged_without_gaps(mut world: World) {
    let mut ids = Vec::new();
    for index in 0..25 {
        ids.push(open(&mut world.sessions, if index % 5 == 0 { "bob" } else { "ada" }).await.session_id);
    }
    let everything = list(&mut world.sessions, pb::ListSessionsRequest::default()).await;
    assert_eq!((everything.total, everything.page, everything.page_size), (25, 1, 50));
    assert_eq!(
        everything.sessions.iter().map(|session| &session.session_id).collect::<Vec<_>>(),
        ids.iter().collect::<Vec<_>>()
    );
    let mut paged = Vec::new();
    for page in 1..=4 {
        let request = pb::ListSessionsRequest { page, page_size: 10, ..Default::default() };
        let answer = list(&mut world.sessions, request).await;
        assert_eq!((answer.total, answer.page, answer.page_size), (25, page, 10));
        paged.extend(answer.sessions.into_iter().map(|session| session.session_id));
    }
    assert_eq!(paged, ids);
    let of_bob = pb::ListSessionsRequest { user_id: "bob".into(), page: 2, page_size: 2, ..Default::default() };
    let of_bob = list(&mut world.sessions, of_bob).await;
    assert_eq!((of_bob.total, of_bob.sessions[0].session_id.as_str()), (5, ids[10].as_str()));
    let idle = pb::SessionState::Idle;
    let request = pb::UpdateSessionRequest { session_id: ids[3].clone(), state: idle.into(), ..Default::default() };
    update(&mut world.sessions, request).await.unwrap();
    let request = pb::ListSessionsRequest { user_id: "ada".into(), state: idle.into(), ..Default::default() };
    let found = list(&mut world.sessions, request).await.sessions;
    assert_eq!(found.iter().map(|session| session.session_id.as_str()).collect::<Vec<_>>(), [ids[3].as_str()]);
    let nobody = pb::ListSessionsRequest { user_id: "' OR 1=1 --".into(), ..Default::default() };
    assert_eq!(list(&mut world.sessions, nobody).await.total, 0);
    let most = pb::ListSessionsRequest { page_size: u32::MAX, ..Default::default() };
    assert_eq!(list(&mut world.sessions, most).await.page_size, 1000);
}

async fn an_expired_session_is_gone_from_every_call(mut world: World) {
    let brief = world.sessions.create_session(create("ada", 1)).await.unwrap().into_inner().session.unwrap();
    let lasting = open(&mut world.sessions, "ada").await;
    let expired = async || read(&mut world.sessions, &brief.session_id).await.err().ok_or("it never expired");
    eventually(Duration::from_secs(10), expired).await;
    let beat = pb::HeartbeatRequest { session_id: brief.session_id.clone(), client_timestamp: None };
    assert_eq!(world.sessions.heartbeat(beat).await.unwrap_err().code(), Code::NotFound);
    let request = pb::UpdateSessionRequest { session_id: brief.session_id.clone(), ..Default::default() };
    assert_eq!(update(&mut world.sessions, request).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(delete(&mut world.sessions, &brief.session_id).await.unwrap_err().code(), Code::NotFound);
    let listed = list(&mut world.sessions, pb::ListSessionsRequest::default()).await;
    assert_eq!((listed.total, listed.sessions[0].session_id.as_str()), (1, lasting.session_id.as_str()));
    assert_eq!(world.sessions.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner().total, 1);
}

async fn statistics_count_what_is_live_by_state(mut world: World) {
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(open(&mut world.sessions, "ada").await.session_id);
    }
    for (id, state) in [(0, pb::SessionState::Idle), (1, pb::SessionState::Idle), (2, pb::SessionState::Closed)] {
        let request =
            pb::UpdateSessionRequest { session_id: ids[id].clone(), state: state.into(), ..Default::default() };
        update(&mut world.sessions, request).await.unwrap();
    }
    delete(&mut world.sessions, &ids[5]).await.unwrap();
    let stats = world.sessions.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.total, stats.active, stats.idle), (5, 2, 2));
}

async fn a_token_of_another_session_changes_nothing(mut world: World) {
    let created = open(&mut world.sessions, "ada").await;
    let other = world.sessions.create_session(create("eve", 0)).await.unwrap().into_inner();
    let id = created.session_id.clone();
    let mut forged = Request::new(pb::DeleteSessionRequest { session_id: id.clone(), reason: String::new() });
    forged.metadata_mut().insert("x-session-token", other.token.parse().unwrap());
    assert_eq!(world.sessions.delete_session(forged).await.unwrap_err().code(), Code::Unauthenticated);
    let state = pb::SessionState::Closed.into();
    let mut forged = Request::new(pb::UpdateSessionRequest { session_id: id.clone(), state, ..Default::default() });
    forged.metadata_mut().insert("x-session-token", other.token.parse().unwrap());
    assert_eq!(world.sessions.update_session(forged).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(read(&mut world.sessions, &id).await.unwrap(), created);
}

/// A heartbeat that shows this token.
async fn beat_with(sessions: &mut Sessions, id: &str, token: &str) -> Result<bool, Status> {
    let mut request = Request::new(pb::HeartbeatRequest { session_id: id.into(), client_timestamp: None });
    request.metadata_mut().insert("x-session-token", token.parse().unwrap());
    Ok(sessions.heartbeat(request).await?.into_inner().success)
}

async fn rotate(sessions: &mut Sessions, id: &str, token: &str) -> Result<String, Status> {
    let mut request = Request::new(pb::RotateTokenRequest { session_id: id.into() });
    request.metadata_mut().insert("x-session-token", token.parse().unwrap());
    Ok(sessions.rotate_token(request).await?.into_inner().token)
}

async fn a_rotated_token_takes_the_place_of_the_old_one_at_once(mut world: World) {
    let created = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner();
    let (session, mut old) = (created.session.unwrap(), created.token);
    let (id, sessions) = (session.session_id.clone(), &mut world.sessions);
    for _ in 0..3 {
        let token = rotate(sessions, &id, &old).await.unwrap();
        assert!(token.len() == 44 && token != old);
        let status = beat_with(sessions, &id, &old).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "WRONG_SESSION_TOKEN"));
        assert_eq!(rotate(sessions, &id, &old).await.unwrap_err().code(), Code::Unauthenticated);
        assert!(beat_with(sessions, &id, &token).await.unwrap());
        old = token;
    }
    let found = read(sessions, &id).await.unwrap();
    let times = (session.last_active_at, session.expires_at);
    let unchanged = pb::Session { last_active_at: times.0, expires_at: times.1, ..found };
    assert_eq!(unchanged, session, "nothing else has changed");
    let unshown = sessions.rotate_token(pb::RotateTokenRequest { session_id: id }).await.unwrap_err();
    assert_eq!((unshown.code(), reason(&unshown).as_str()), (Code::Unauthenticated, "SESSION_TOKEN_REQUIRED"));
    assert!(unshown.message().contains("x-session-token"), "{unshown:?}");
    let missing = rotate(sessions, &Uuid::now_v7().to_string(), &old).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    expect_invalid(&rotate(sessions, "x", &old).await.unwrap_err(), "session_id");
}

async fn of_rotations_at_once_with_one_token_one_succeeds(mut world: World) {
    let created = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner();
    let (id, token) = (created.session.unwrap().session_id, created.token);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (mut sessions, id, token) = (world.sessions.clone(), id.clone(), token.clone());
        calls.spawn(async move { rotate(&mut sessions, &id, &token).await });
    }
    let mut given = Vec::new();
    while let Some(rotated) = calls.join_next().await {
        match rotated.unwrap() {
            Ok(token) => given.push(token),
            Err(status) => assert_eq!(status.code(), Code::Unauthenticated, "{status:?}"),
        }
    }
    assert_eq!(given.len(), 1);
    assert!(beat_with(&mut world.sessions, &id, &given[0]).await.unwrap());
}

async fn a_session_whose_connection_ends_is_idle_until_it_is_heard_of(mut world: World) {
    let mut ids = Vec::new();
    let address = format!("http://{}", world.running.session_addr);
    let mut client = Sessions::connect(address).await.unwrap();
    for _ in 0..5 {
        ids.push(open(&mut client, "ada").await.session_id);
    }
    assert!(delete(&mut client, &ids[4]).await.unwrap());
    drop(client);
    let idle = pb::ListSessionsRequest { state: pb::SessionState::Idle.into(), ..Default::default() };
    eventually(Duration::from_secs(10), async || {
        let idle = list(&mut world.sessions, idle.clone()).await.total;
        if idle < 4 { Err(format!("{idle} idle")) } else { Ok(()) }
    })
    .await;
    let beat = pb::HeartbeatRequest { session_id: ids[0].clone(), client_timestamp: None };
    world.sessions.heartbeat(beat).await.unwrap();
    let stats = world.sessions.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.total, stats.active, stats.idle), (4, 1, 3), "a deleted one does not come back");
}

async fn bad_requests_name_their_field_and_the_remedy(mut world: World) {
    let sessions = &mut world.sessions;
    let id = open(sessions, "ada").await.session_id;
    let good = pb::UpdateSessionRequest { session_id: id.clone(), ..Default::default() };
    let entries = |count: usize| (0..count).map(|index| (index.to_string(), String::new())).collect::<HashMap<_, _>>();
    let bad = [
        ("session_id", pb::UpdateSessionRequest { session_id: String::new(), ..good.clone() }),
        ("session_id", pb::UpdateSessionRequest { session_id: "x".repeat(100_000), ..good.clone() }),
        ("session_id", pb::UpdateSessionRequest { session_id: Uuid::nil().to_string(), ..good.clone() }),
        ("state", pb::UpdateSessionRequest { state: 6, ..good.clone() }),
        ("state", pb::UpdateSessionRequest { state: -1, ..good.clone() }),
        ("metadata", pb::UpdateSessionRequest { metadata: entries(65), ..good.clone() }),
        // One key is there already.
        ("metadata", pb::UpdateSessionRequest { metadata: entries(64), ..good.clone() }),
        ("metadata key", pb::UpdateSessionRequest { metadata: [(String::new(), "x".into())].into(), ..good.clone() }),
        (
            "metadata value",
            pb::UpdateSessionRequest { metadata: [("x".into(), "x".repeat(5000))].into(), ..good.clone() },
        ),
    ];
    for (field, request) in bad {
        expect_invalid(&sessions.update_session(request).await.unwrap_err(), field);
    }
    let unknown = pb::UpdateSessionRequest { session_id: Uuid::now_v7().to_string(), ..Default::default() };
    assert_eq!(sessions.update_session(unknown).await.unwrap_err().code(), Code::NotFound);
    let page = pb::ListSessionsRequest { page: u32::MAX, page_size: u32::MAX, ..Default::default() };
    expect_invalid(&sessions.list_sessions(page).await.unwrap_err(), "page");
    let state = pb::ListSessionsRequest { state: 99, ..Default::default() };
    let status = sessions.list_sessions(state).await.unwrap_err();
    expect_invalid(&status, "state");
    assert!(status.message().contains("1 to 5"), "{status:?}");
    let user = pb::ListSessionsRequest { user_id: "u".repeat(256), ..Default::default() };
    expect_invalid(&sessions.list_sessions(user).await.unwrap_err(), "user_id");
    let reason = pb::DeleteSessionRequest { session_id: id, reason: "r".repeat(2000) };
    expect_invalid(&sessions.delete_session(reason).await.unwrap_err(), "reason");
}

async fn a_deleted_session_does_not_come_back_by_a_heartbeat_or_an_update(mut world: World) {
    let mut calls = tokio::task::JoinSet::new();
    let mut ids = HashSet::new();
    for _ in 0..20 {
        let session_id = open(&mut world.sessions, "ada").await.session_id;
        ids.insert(session_id.clone());
        for action in 0..3 {
            let (mut sessions, session_id) = (world.sessions.clone(), session_id.clone());
            calls.spawn(async move {
                match action {
                    0 => drop(delete(&mut sessions, &session_id).await.unwrap()),
                    1 => {
                        // Whether it comes before the deletion or after is left to chance.
                        let beat = pb::HeartbeatRequest { session_id, client_timestamp: None };
                        drop(sessions.heartbeat(beat).await);
                    }
                    _ => {
                        drop(
                            update(&mut sessions, pb::UpdateSessionRequest { session_id, ..Default::default() }).await,
                        );
                    }
                }
            });
        }
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    for id in ids {
        assert_eq!(read(&mut world.sessions, &id).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(list(&mut world.sessions, pb::ListSessionsRequest::default()).await.total, 0);
}
