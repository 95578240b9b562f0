//! Sessions: opening them, reading them, keeping them alive, changing, closing and listing them.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use proto::session::session_service_client::SessionServiceClient;
use proto::session::{
    CreateSessionRequest, DeleteSessionRequest, GetSessionRequest, GetStatsRequest, HeartbeatRequest,
    ListSessionsRequest, UpdateSessionRequest,
};

use super::closed::{Caller, Workload};
use crate::replay::wire::Wire;

/// Sessions that are read and kept alive.
const KEPT: usize = 1000;
/// So many of them are one user's.
const KEPT_OF_USER: usize = 10;
/// What is attached to them by changing them.
const ATTACHED: &str = "seen";
/// That are opened at once before the measurement.
const OPENED_AT_ONCE: usize = 32;
/// 32 random bytes in padded base64.
const TOKEN_CHARACTERS: usize = 44;

type Client = SessionServiceClient<Wire>;

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionCall {
    /// `CreateSession`
    Create,
    /// `GetSession`
    Get,
    /// `Heartbeat`
    Heartbeat,
    /// `UpdateSession`
    Update,
    /// `DeleteSession`
    Delete,
    /// `ListSessions`
    List,
}

/// Calls of one kind.
pub(super) struct Sessions {
    call: SessionCall,
    /// The ids of those that are there from the beginning.
    kept: Vec<String>,
    /// How many there were in all at the beginning.
    before: u64,
    created: AtomicU64,
    deleted: AtomicU64,
}

impl Sessions {
    /// Opens the sessions that the calls need.
    ///
    /// # Errors
    /// If the service refuses.
    pub(super) async fn prepare(call: SessionCall, wire: &Wire) -> anyhow::Result<Self> {
        let mut client = Client::new(wire.clone());
        let count = if matches!(call, SessionCall::Create | SessionCall::Delete) { 0 } else { KEPT };
        let earlier = total(&mut client).await?;
        let opened = stream::iter(0..count).map(|number| {
            let mut client = client.clone();
            async move { create(&mut client, &user(number)).await }
        });
        let kept = opened.buffer_unordered(OPENED_AT_ONCE).try_collect::<Vec<String>>().await?;
        let before = total(&mut client).await?;
        ensure!(
            before == earlier + count as u64,
            "the service has {before} sessions, {earlier} and {count} were opened"
        );
        Ok(Self { call, kept, before, created: AtomicU64::new(0), deleted: AtomicU64::new(0) })
    }

    async fn update(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let (session_id, value) = (self.kept(caller), format!("{} by {}", caller.calls, caller.number));
        let metadata = [(ATTACHED.to_owned(), value.clone())].into();
        let request = UpdateSessionRequest { session_id: session_id.clone(), metadata, ..Default::default() };
        let answer = client.update_session(request).await?.into_inner();
        let updated = answer.session.context("the answer has no session")?;
        ensure!(updated.session_id == session_id, "session {} came for {session_id}", updated.session_id);
        ensure!(updated.metadata.get(ATTACHED) == Some(&value), "session {session_id} has not what was attached to it");
        Ok(())
    }

    /// One of those that are there from the beginning, another one each time.
    fn kept(&self, caller: &Caller) -> String {
        self.kept[((caller.number * 7919 + caller.calls) % self.kept.len() as u64) as usize].clone()
    }
}

impl Workload for Sessions {
    type Client = Client;

    fn client(&self, wire: Wire) -> Client {
        Client::new(wire)
    }

    async fn arrange(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<String> {
        if self.call != SessionCall::Delete {
            return Ok(String::new());
        }
        let opened = create(client, &format!("user-{}", caller.number)).await?;
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    async fn call(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        match self.call {
            SessionCall::Create => {
                create(client, &format!("user-{}-{}", caller.number, caller.calls)).await?;
                self.created.fetch_add(1, Ordering::Relaxed);
            }
            SessionCall::Get => {
                let session_id = self.kept(caller);
                let answer = client.get_session(GetSessionRequest { session_id: session_id.clone() }).await?;
                let found = answer.into_inner().session.context("the answer has no session")?;
                ensure!(found.session_id == session_id, "session {} came for {session_id}", found.session_id);
            }
            SessionCall::Heartbeat => {
                let request = HeartbeatRequest { session_id: self.kept(caller), client_timestamp: None };
                let answer = client.heartbeat(request).await?.into_inner();
                ensure!(answer.success && answer.remaining_seconds > 0, "a heartbeat did not keep its session alive");
            }
            SessionCall::Update => self.update(client, caller).await?,
            SessionCall::Delete => {
                let request = DeleteSessionRequest { session_id: caller.subject.clone(), ..Default::default() };
                ensure!(client.delete_session(request).await?.into_inner().success, "a session was not closed");
                self.deleted.fetch_add(1, Ordering::Relaxed);
            }
            SessionCall::List => list(client, &user(caller.number as usize + caller.calls as usize)).await?,
        }
        Ok(())
    }

    async fn check(&self, wire: Wire) -> anyhow::Result<()> {
        let expected = self.before + self.created.load(Ordering::Relaxed) - self.deleted.load(Ordering::Relaxed);
        let found = total(&mut Client::new(wire)).await?;
        ensure!(found == expected, "the service has {found} sessions of {expected} that it acknowledged");
        Ok(())
    }
}

/// Opens a session; gives its id.
async fn create(client: &mut Client, user_id: &str) -> anyhow::Result<String> {
    let request = CreateSessionRequest {
        user_id: user_id.to_owned(),
        client_ip: "127.0.0.1".to_owned(),
        ..CreateSessionRequest::default()
    };
    let answer = client.create_session(request).await?.into_inner();
    let session = answer.session.context("the answer has no session")?;
    ensure!(session.user_id == user_id, "a session of {} came for {user_id}", session.user_id);
    ensure!(answer.token.len() == TOKEN_CHARACTERS, "the token has {} characters", answer.token.len());
    Ok(session.session_id)
}

/// Whose a session is that is there from the beginning.
fn user(number: usize) -> String {
    format!("kept-{}", number % (KEPT / KEPT_OF_USER))
}

/// Lists a user's sessions.
async fn list(client: &mut Client, user_id: &str) -> anyhow::Result<()> {
    let request = ListSessionsRequest { user_id: user_id.to_owned(), ..ListSessionsRequest::default() };
    let answer = client.list_sessions(request).await?.into_inner();
    let is_theirs = answer.sessions.iter().all(|session| session.user_id == user_id);
    let count = answer.sessions.len();
    ensure!(is_theirs && count == KEPT_OF_USER, "{count} sessions were listed of {KEPT_OF_USER} of {user_id}");
    ensure!(answer.total as usize == KEPT_OF_USER, "{user_id} has {} sessions of {KEPT_OF_USER}", answer.total);
    Ok(())
}

/// How many sessions there are.
async fn total(client: &mut Client) -> anyhow::Result<u64> {
    Ok(client.get_stats(GetStatsRequest {}).await?.into_inner().total)
}
