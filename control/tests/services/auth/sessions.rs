//! Sessions are their users' alone.

use std::time::Duration;

use proto::session as pb;
use quantum_grpc::Transport;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::*;
use crate::common::eventually;

over_each_transport! {
    another_users_session_looks_like_none_at_all,
    a_sessions_token_speaks_for_its_session_while_that_lives,
}

/// What each RPC for one session says, told apart from nothing else.
async fn every_call(guarded: &mut Guarded, id: &str, with: &impl Credentials) -> Vec<(Code, String)> {
    let client = &mut guarded.sessions;
    let session_id = || id.to_owned();
    let said = |result: Result<(), Status>| {
        let status = result.expect_err("the call is refused");
        (status.code(), format!("{} {}", status.message(), String::from_utf8_lossy(status.details())).replace(id, "ID"))
    };
    let get = client.get_session(with.put(pb::GetSessionRequest { session_id: session_id() })).await.map(drop);
    let beat = pb::HeartbeatRequest { session_id: session_id(), ..Default::default() };
    let beat = client.heartbeat(with.put(beat)).await.map(drop);
    let update = pb::UpdateSessionRequest { session_id: session_id(), state: 3, ..Default::default() };
    let update = client.update_session(with.put(update)).await.map(drop);
    let delete = pb::DeleteSessionRequest { session_id: session_id(), ..Default::default() };
    let delete = client.delete_session(with.put(delete)).await.map(drop);
    [get, beat, update, delete].map(said).to_vec()
}

/// How a request is made somebody's.
trait Credentials {
    fn put<T>(&self, message: T) -> Request<T>;
}

struct User(&'static str);

impl Credentials for User {
    fn put<T>(&self, message: T) -> Request<T> {
        by(self.0, message)
    }
}

struct InSession(String, String);

impl Credentials for InSession {
    fn put<T>(&self, message: T) -> Request<T> {
        in_session(&self.0, &self.1, message)
    }
}

async fn another_users_session_looks_like_none_at_all(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let (session, session_token) = guarded.session("ada", 600).await;
    let foreign = every_call(&mut guarded, &session.session_id, &User("bob")).await;
    let missing = every_call(&mut guarded, &Uuid::now_v7().to_string(), &User("bob")).await;
    assert_eq!(foreign, missing);
    assert!(foreign.iter().all(|(code, said)| *code == Code::NotFound && !said.contains("ada")), "{foreign:?}");

    let listed = |user: &'static str, user_id: &str| {
        by(user, pb::ListSessionsRequest { user_id: user_id.into(), ..Default::default() })
    };
    let all = guarded.sessions.list_sessions(listed("bob", "")).await.unwrap().into_inner();
    assert_eq!((all.sessions.len(), all.total), (0, 0), "bob has none, and sees none");
    let own = guarded.sessions.list_sessions(listed("ada", "ada")).await.unwrap().into_inner();
    assert_eq!(own.sessions.iter().map(|own| &own.session_id).collect::<Vec<_>>(), [&session.session_id]);
    let said = refused(guarded.sessions.list_sessions(listed("bob", "ada")).await, &[&session_token]);
    assert_eq!(said, is(Code::PermissionDenied, "ANOTHER_USER"));
    let as_ada =
        pb::CreateSessionRequest { user_id: "ada".into(), client_ip: "127.0.0.1".into(), ..Default::default() };
    let said = refused(guarded.sessions.create_session(by("bob", as_ada)).await, &[]);
    assert_eq!(said, is(Code::PermissionDenied, "ANOTHER_USER"));
    // A token that is sent has to be right, whoever sends it.
    let (other, _) = guarded.session("ada", 600).await;
    let mut beat = by("ada", pb::HeartbeatRequest { session_id: other.session_id, ..Default::default() });
    beat.metadata_mut().insert("x-session-token", session_token.parse().unwrap());
    let said = refused(guarded.sessions.heartbeat(beat).await, &[&session_token]);
    assert_eq!(said, is(Code::Unauthenticated, "WRONG_SESSION_TOKEN"));
}

async fn a_sessions_token_speaks_for_its_session_while_that_lives(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let (short, short_token) = guarded.session("ada", 2).await;
    let (long, long_token) = guarded.session("ada", 600).await;
    let (_, bobs_token) = guarded.session("bob", 600).await;
    let own = InSession(long.session_id.clone(), long_token.clone());
    let request = pb::GetSessionRequest { session_id: long.session_id.clone() };
    let got = guarded.sessions.get_session(own.put(request)).await.unwrap().into_inner().session.unwrap();
    assert_eq!((got.session_id, got.user_id), (long.session_id.clone(), "ada".to_owned()));
    // Of no other session, be it the same user's; and it opens none.
    let other = every_call(&mut guarded, &short.session_id, &own).await;
    assert!(other.iter().all(|(code, _)| *code == Code::NotFound), "{other:?}");
    let create = pb::CreateSessionRequest { client_ip: "127.0.0.1".into(), ..Default::default() };
    let said = refused(guarded.sessions.create_session(in_session(&long.session_id, &long_token, create)).await, &[]);
    assert_eq!(said, is(Code::PermissionDenied, "BEARER_REQUIRED"));

    let list = pb::ListSessionsRequest::default;
    let unknown = Uuid::now_v7().to_string();
    for (id, token) in [(&long.session_id, &bobs_token), (&long.session_id, &short_token), (&unknown, &long_token)] {
        let said = refused(guarded.sessions.list_sessions(in_session(id, token, list())).await, &[token, "ada"]);
        assert_eq!(said, is(Code::Unauthenticated, "SESSION_TOKEN_INVALID"));
    }
    let ended = eventually(Duration::from_secs(20), async || {
        match guarded.sessions.list_sessions(in_session(&short.session_id, &short_token, list())).await {
            Ok(_) => Err("the session has not ended"),
            refusal @ Err(_) => Ok(refusal),
        }
    });
    assert_eq!(refused(ended.await, &[&short_token, "ada"]), is(Code::Unauthenticated, "SESSION_TOKEN_INVALID"));
    // Each heartbeat lets it live on; a token that was rotated is none any more.
    let beat = pb::HeartbeatRequest { session_id: long.session_id.clone(), ..Default::default() };
    guarded.sessions.heartbeat(in_session(&long.session_id, &long_token, beat)).await.unwrap();
    let rotate = pb::RotateTokenRequest { session_id: long.session_id.clone() };
    let rotated = guarded.sessions.rotate_token(in_session(&long.session_id, &long_token, rotate)).await;
    let rotated = rotated.unwrap().into_inner().token;
    guarded.sessions.list_sessions(in_session(&long.session_id, &rotated, list())).await.unwrap();
    let said = refused(
        guarded.sessions.list_sessions(in_session(&long.session_id, &long_token, list())).await,
        &[&rotated, &long_token],
    );
    assert_eq!(said, is(Code::Unauthenticated, "SESSION_TOKEN_INVALID"));
}
