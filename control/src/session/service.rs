//! `session.SessionService` over the store.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use metrics::{counter, gauge};
use proto::session as pb;
use proto::session::session_service_server::SessionService;
use rand::TryRngCore;
use rand::rngs::OsRng;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::connections::Connections;
use super::model::{self, METADATA_ENTRIES_MAX, Refused, Session, SessionChange, SessionUpdate};
use super::store::{Changed, SessionFilter, SessionStore};
use crate::auth::{Asker, SESSION_TOKEN};
use crate::clock::{self, UnixMicros, timestamp};
use crate::status::{self, invalid, not_found, of_store, required, with_info};
use crate::up::Caller;

const USER_ID_BYTES_MAX: usize = 255;
const METADATA_KEY_BYTES_MAX: usize = 128;
const METADATA_VALUE_BYTES_MAX: usize = 4096;
const REASON_BYTES_MAX: usize = 1024;
const PAGE_SIZE_DEFAULT: u32 = 50;
const PAGE_SIZE_MAX: u32 = 1000;
/// Beyond this a list is not read by paging but by mistake.
const PAGE_MAX: u32 = 1_000_000;

/// Answers the session RPCs.
#[derive(Clone)]
pub struct SessionServer {
    store: Arc<dyn SessionStore>,
    connections: Arc<Connections>,
}

impl SessionServer {
    /// A server over `store` that tells `connections` of its sessions.
    pub fn new(store: Arc<dyn SessionStore>, connections: Arc<Connections>) -> Self {
        Self { store, connections }
    }

    /// The session that a request is for, which has to be its caller's. Somebody else's is as good as missing: the caller is told
    /// the same.
    async fn owned<T>(&self, request: &Request<T>, session_id: &str) -> Result<Session, Status> {
        let id = status::uuid("session_id", session_id)?;
        let session = self.store.get(id, clock::now()).await.map_err(|error| of_store(&error))?;
        let session = session.ok_or_else(|| gone(session_id))?;
        let asker = Asker::of(request);
        if let Some(caller) = asker.caller() {
            if !caller.may_act_for(session.id, &session.user_id) {
                caller.denied("ANOTHER_SESSION");
                return Err(gone(session_id));
            }
            // The token that was sent was compared with the session that was named beside it.
            if caller.names_session() {
                return Ok(session);
            }
        }
        check_token(request, &session)?;
        Ok(session)
    }

    /// Changes a live session.
    async fn change(&self, id: Uuid, change: SessionChange, now: UnixMicros) -> Result<Session, Status> {
        match self.store.change(id, change, now).await.map_err(|error| of_store(&error))? {
            Changed::Session(session) => Ok(*session),
            Changed::Missing => Err(gone(&id.to_string())),
            Changed::Refused(Refused::Full) => Err(invalid("metadata", too_many_entries())),
            Changed::Refused(Refused::WrongToken) => Err(wrong_token()),
        }
    }

    /// The form on the wire of sessions, with the statistics of their connections.
    async fn shown(&self, mut sessions: Vec<Session>) -> Vec<pb::Session> {
        self.connections.refresh(&mut sessions).await;
        sessions.iter().map(Session::to_proto).collect()
    }
}

#[tonic::async_trait]
impl SessionService for SessionServer {
    async fn create_session(
        &self,
        request: Request<pb::CreateSessionRequest>,
    ) -> Result<Response<pb::CreateSessionResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        asker.acts_as("user_id", &mut request.user_id)?;
        asker.has_bearer()?;
        let client_port = check_create(&request)?;
        let (token, token_hash) = mint_token()?;
        let now = clock::now();
        let timeout = model::timeout(request.timeout_seconds);
        let session = Session {
            id: Uuid::now_v7(),
            user_id: request.user_id,
            connection_id: connection_id(caller.as_ref()),
            client_ip: request.client_ip,
            client_port,
            state: pb::SessionState::Active,
            created_at: now,
            last_active_at: now,
            expires_at: model::end(now, timeout),
            timeout,
            metadata: request.metadata,
            stats: pb::SessionStats::default(),
            token_hash,
        };
        let (id, answer) = (session.id, session.to_proto());
        self.store.insert(session).await.map_err(|error| of_store(&error))?;
        if let Some(caller) = &caller {
            self.connections.attach(id, caller);
        }
        counter!("session_total").increment(1);
        gauge!("session_active").increment(1);
        Ok(Response::new(pb::CreateSessionResponse { session: Some(answer), token }))
    }

    async fn get_session(
        &self,
        request: Request<pb::GetSessionRequest>,
    ) -> Result<Response<pb::GetSessionResponse>, Status> {
        let session = self.owned(&request, &request.get_ref().session_id).await?;
        Ok(Response::new(pb::GetSessionResponse { session: self.shown(vec![session]).await.pop() }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let session = self.owned(&request, &request.get_ref().session_id).await?;
        // Before it is written: the end of its own connection may come in between.
        self.connections.hear(session.id, Caller::of(request.extensions()).as_ref());
        let now = clock::now();
        let session = self.change(session.id, SessionChange::Heartbeat, now).await?;
        counter!("session_heartbeat_total").increment(1);
        Ok(Response::new(pb::HeartbeatResponse {
            success: true,
            server_timestamp: Some(timestamp(now)),
            remaining_seconds: ((session.expires_at.0 - now.0) / 1_000_000) as u32,
        }))
    }

    async fn update_session(
        &self,
        request: Request<pb::UpdateSessionRequest>,
    ) -> Result<Response<pb::UpdateSessionResponse>, Status> {
        let state = state(request.get_ref().state)?;
        check_metadata(&request.get_ref().metadata)?;
        let session = self.owned(&request, &request.get_ref().session_id).await?;
        let pb::UpdateSessionRequest { metadata, stats, .. } = request.into_inner();
        let update = SessionChange::Update(SessionUpdate { state, metadata, stats });
        let session = self.change(session.id, update, clock::now()).await?;
        Ok(Response::new(pb::UpdateSessionResponse { session: self.shown(vec![session]).await.pop() }))
    }

    async fn rotate_token(
        &self,
        request: Request<pb::RotateTokenRequest>,
    ) -> Result<Response<pb::RotateTokenResponse>, Status> {
        let session = self.owned(&request, &request.get_ref().session_id).await?;
        // Who may not show the token may not learn the next one either, whether or not callers have to authenticate.
        if !request.metadata().contains_key(SESSION_TOKEN) {
            let message = format!("the session's token has to be in the metadata {SESSION_TOKEN}");
            return Err(with_info(Code::Unauthenticated, message, "SESSION_TOKEN_REQUIRED", &[]));
        }
        check_token(&request, &session)?;
        let (token, to) = mint_token()?;
        let rotation = SessionChange::RotateToken { from: session.token_hash, to };
        self.change(session.id, rotation, clock::now()).await?;
        Ok(Response::new(pb::RotateTokenResponse { token }))
    }

    async fn delete_session(
        &self,
        request: Request<pb::DeleteSessionRequest>,
    ) -> Result<Response<pb::DeleteSessionResponse>, Status> {
        status::bounded("reason", &request.get_ref().reason, REASON_BYTES_MAX)?;
        let session = self.owned(&request, &request.get_ref().session_id).await?;
        if !self.store.delete(session.id, clock::now()).await.map_err(|error| of_store(&error))? {
            return Err(gone(&request.get_ref().session_id));
        }
        self.connections.forget(session.id);
        gauge!("session_active").decrement(1);
        tracing::debug!(session = %session.id, "a session was closed");
        Ok(Response::new(pb::DeleteSessionResponse { success: true }))
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let asker = Asker::of(&request);
        let mut request = request.into_inner();
        asker.acts_as("user_id", &mut request.user_id)?;
        status::bounded("user_id", &request.user_id, USER_ID_BYTES_MAX)?;
        if request.page > PAGE_MAX {
            let message =
                format!("is larger than {PAGE_MAX}; pages count from 1, and user_id and state narrow the list");
            return Err(invalid("page", message));
        }
        let page = request.page.max(1);
        let limit = if request.page_size == 0 { PAGE_SIZE_DEFAULT } else { request.page_size.min(PAGE_SIZE_MAX) };
        let offset = u64::from(page - 1) * u64::from(limit);
        let filter = SessionFilter { user_id: request.user_id, state: state(request.state)?, offset, limit };
        let (sessions, total) = self.store.list(&filter, clock::now()).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(pb::ListSessionsResponse {
            sessions: self.shown(sessions).await,
            total: u32::try_from(total).unwrap_or(u32::MAX),
            page,
            page_size: limit,
        }))
    }

    async fn get_stats(&self, _: Request<pb::GetStatsRequest>) -> Result<Response<pb::GetStatsResponse>, Status> {
        let counts = self.store.counts(clock::now()).await.map_err(|error| of_store(&error))?;
        Ok(Response::new(pb::GetStatsResponse { total: counts.total, active: counts.active, idle: counts.idle }))
    }
}

/// Over TCP, whose connections have none, one that nothing else has.
fn connection_id(caller: Option<&Caller>) -> Uuid {
    match caller {
        Some(caller @ Caller::Quantum(_)) => caller.id(),
        Some(Caller::Tcp(_)) | None => Uuid::now_v7(),
    }
}

fn gone(session_id: &str) -> Status {
    not_found("session", session_id)
}

/// The state that a request names; `None` if it leaves it open.
fn state(number: i32) -> Result<Option<pb::SessionState>, Status> {
    match pb::SessionState::try_from(number) {
        Ok(pb::SessionState::Unspecified) => Ok(None),
        Ok(state) => Ok(Some(state)),
        Err(_) => {
            Err(invalid("state", format!("{number} is not a SessionState; they are 1 to 5, and 0 leaves it open")))
        }
    }
}

fn too_many_entries() -> String {
    format!("has more than {METADATA_ENTRIES_MAX} entries; keep what is larger elsewhere and name it here")
}

fn check_metadata(metadata: &HashMap<String, String>) -> Result<(), Status> {
    if metadata.len() > METADATA_ENTRIES_MAX {
        return Err(invalid("metadata", too_many_entries()));
    }
    for (key, value) in metadata {
        required("metadata key", key, METADATA_KEY_BYTES_MAX)?;
        status::bounded("metadata value", value, METADATA_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

/// Checks a request to create a session and returns its port.
fn check_create(request: &pb::CreateSessionRequest) -> Result<u16, Status> {
    required("user_id", &request.user_id, USER_ID_BYTES_MAX)?;
    required("client_ip", &request.client_ip, 64)?;
    if request.client_ip.parse::<IpAddr>().is_err() {
        return Err(invalid("client_ip", "is not an IP address such as 192.0.2.7 or 2001:db8::7"));
    }
    check_metadata(&request.metadata)?;
    u16::try_from(request.client_port).map_err(|_| invalid("client_port", "is larger than 65535, the largest port"))
}

fn mint_token() -> Result<(String, [u8; 32]), Status> {
    let mut secret = [0; 32];
    OsRng.try_fill_bytes(&mut secret).map_err(|_| Status::internal("the system gives no random numbers"))?;
    let token = base64_url(&secret);
    let hash = hash_token(token.as_bytes());
    Ok((token, hash))
}

/// What is kept of a token.
pub(crate) fn hash_token(token: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, token).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// A token that is sent has to be right. It need not be sent: with authentication a bearer token says as much.
fn check_token<T>(request: &Request<T>, session: &Session) -> Result<(), Status> {
    let Some(token) = request.metadata().get(SESSION_TOKEN) else { return Ok(()) };
    let hash = hash_token(token.as_bytes());
    if aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &session.token_hash).is_ok() {
        return Ok(());
    }
    Err(wrong_token())
}

fn wrong_token() -> Status {
    with_info(Code::Unauthenticated, "the token is not this session's", "WRONG_SESSION_TOKEN", &[])
}

/// URL-safe base64 with padding (RFC 4648 section 5).
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64_url;

    #[test]
    fn base64_matches_the_vectors_of_rfc_4648() {
        assert_eq!(base64_url(b""), "");
        assert_eq!(base64_url(b"f"), "Zg==");
        assert_eq!(base64_url(b"fo"), "Zm8=");
        assert_eq!(base64_url(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64_url(&[0xFB, 0xFF]), "-_8=");
        assert_eq!(base64_url(&[7; 32]).len(), 44);
    }
}
