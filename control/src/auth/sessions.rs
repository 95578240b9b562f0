//! The sessions that callers act for: in the store of this process, or at the session service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use proto::session as pb;
use proto::session::session_service_client::SessionServiceClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::caller::Credentials;
use super::{SESSION_ID, SESSION_TOKEN};
use crate::clock::{self, UnixMicros, of_timestamp};
use crate::session::{SessionStore, hash_token};
use crate::status::{of_store, with_info};

/// How long what was learnt of a session is believed: a session that was closed, or a token that was rotated, is let in no longer
/// than this.
const BELIEVED: Duration = Duration::from_secs(1);
/// Sessions remembered; beyond them each is looked up each time.
const REMEMBERED_MAX: usize = 10_000;
/// How long connecting to the session service may take, and then its answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Where sessions are known.
#[derive(Clone)]
pub(crate) enum Sessions {
    /// In this process.
    Store(Arc<dyn SessionStore>),
    /// At the session service, which is asked with the caller's own credentials.
    Service(SessionServiceClient<Channel>),
    /// Nowhere.
    Unknown,
}

impl Sessions {
    /// At the service at `host:port`, which is connected to with the first question; nowhere if that is empty.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub(crate) fn at(target: &str) -> Result<Self, String> {
        if target.is_empty() {
            return Ok(Self::Unknown);
        }
        let endpoint = Endpoint::from_shared(format!("http://{target}")).map_err(|error| error.to_string())?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).tcp_nodelay(true);
        Ok(Self::Service(SessionServiceClient::new(endpoint.connect_lazy())))
    }
}

/// A live session.
#[derive(Clone)]
struct Known {
    user_id: Arc<str>,
    /// If its token was ever seen here.
    token_hash: Option<[u8; 32]>,
    expires_at: UnixMicros,
    learnt: Instant,
}

/// Looks sessions up, and remembers them for a moment.
pub(crate) struct SessionLookup {
    sessions: Sessions,
    known: Mutex<HashMap<Uuid, Known>>,
}

impl SessionLookup {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions, known: Mutex::default() }
    }

    /// Whether sessions can be looked up at all.
    pub(super) fn checks(&self) -> bool {
        !matches!(self.sessions, Sessions::Unknown)
    }

    /// Whose the session with this id and this token is, if it lives.
    pub(super) async fn by_token(&self, id: Uuid, token: &HeaderValue) -> Result<Option<Arc<str>>, Status> {
        let hash = hash_token(token.as_bytes());
        let id_text = HeaderValue::from_str(&id.to_string()).expect("a UUID is plain text");
        let credentials = Credentials { bearer: None, session: Some((id_text, token.clone())) };
        let right = |known: &Known| {
            let equal = |right: [u8; 32]| aws_lc_rs::constant_time::verify_slices_are_equal(&right, &hash).is_ok();
            known.token_hash.is_some_and(equal)
        };
        // A token that is not the one remembered may be what a rotation made of it.
        let known = match self.remembered(id).filter(right) {
            Some(known) => Some(known),
            None => self.ask(id, &credentials).await?.filter(right),
        };
        Ok(known.map(|known| known.user_id))
    }

    /// Whose a session is, if it lives and those with these credentials may know.
    pub(super) async fn owner(&self, id: Uuid, credentials: &Credentials) -> Result<Option<Arc<str>>, Status> {
        let known = match self.remembered(id) {
            Some(known) => Some(known),
            None => self.ask(id, credentials).await?,
        };
        Ok(known.map(|known| known.user_id))
    }

    /// When a session ends unless it is heard of before, if it lives and its token is still the one in `credentials`.
    pub(super) async fn ends_at(&self, id: Uuid, credentials: &Credentials) -> Result<Option<UnixMicros>, Status> {
        let hash = credentials.session.as_ref().map(|(_, token)| hash_token(token.as_bytes()));
        let known = self.ask(id, credentials).await?.filter(|known| known.token_hash == hash);
        Ok(known.map(|known| known.expires_at))
    }

    async fn ask(&self, id: Uuid, credentials: &Credentials) -> Result<Option<Known>, Status> {
        let learnt = Instant::now();
        let known = match &self.sessions {
            Sessions::Unknown => None,
            Sessions::Store(store) => {
                let session = store.get(id, clock::now()).await.map_err(|error| of_store(&error))?;
                session.map(|session| Known {
                    user_id: session.user_id.into(),
                    token_hash: Some(session.token_hash),
                    expires_at: session.expires_at,
                    learnt,
                })
            }
            Sessions::Service(client) => ask_service(client.clone(), id, credentials, learnt).await?,
        };
        let mut remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &known {
            None => drop(remembered.remove(&id)),
            Some(known) => {
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.retain(|_, known| known.learnt.elapsed() < BELIEVED);
                }
                if remembered.len() < REMEMBERED_MAX {
                    remembered.insert(id, known.clone());
                }
            }
        }
        Ok(known)
    }

    fn remembered(&self, id: Uuid) -> Option<Known> {
        let remembered = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered.get(&id)?;
        (known.learnt.elapsed() < BELIEVED && known.expires_at > clock::now()).then(|| known.clone())
    }
}

/// Asks the session service. What it refuses, to whomever these credentials are, is no session of theirs.
async fn ask_service(
    mut client: SessionServiceClient<Channel>,
    id: Uuid,
    credentials: &Credentials,
    learnt: Instant,
) -> Result<Option<Known>, Status> {
    let mut request = Request::new(pb::GetSessionRequest { session_id: id.to_string() });
    let metadata = request.metadata_mut();
    let ascii = |value: &HeaderValue| AsciiMetadataValue::try_from(value.as_bytes()).ok();
    if let Some(bearer) = credentials.bearer.as_ref().and_then(ascii) {
        metadata.insert("authorization", bearer);
    }
    let mut token_hash = None;
    if let Some((named, token)) = &credentials.session
        && let Some((named, ascii_token)) = ascii(named).zip(ascii(token))
    {
        // The service compares a token with the session that is asked for, whether it authenticates or not.
        let is_this = named.to_str().ok().and_then(|text| Uuid::try_parse(text).ok()) == Some(id);
        token_hash = is_this.then(|| hash_token(token.as_bytes()));
        metadata.insert(SESSION_ID, named);
        metadata.insert(SESSION_TOKEN, ascii_token);
    }
    let session = match client.get_session(request).await {
        Ok(answer) => answer.into_inner().session,
        Err(status) => match status.code() {
            Code::NotFound | Code::Unauthenticated | Code::PermissionDenied => None,
            _ => {
                tracing::warn!(code = ?status.code(), "the session service does not tell whose a session is");
                let message = "the session service does not answer; try again";
                return Err(with_info(Code::Unavailable, message, "SESSIONS_UNAVAILABLE", &[]));
            }
        },
    };
    let of_caller = session.filter(|session| session.session_id == id.to_string());
    Ok(of_caller.map(|session| Known {
        user_id: session.user_id.into(),
        token_hash,
        expires_at: session.expires_at.map_or(UnixMicros(0), of_timestamp),
        learnt,
    }))
}
