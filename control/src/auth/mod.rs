//! Who calls, and what callers may do together: authentication of every RPC, over whichever transport.
//!
//! Reading order: [`layer`] stands around the services and lets only callers in whom [`Authenticator`] knows, by a token that
//! [`keys`] verifies or by a session that [`sessions`] knows, and ends their streams when that is over; [`caller`] is what a
//! handler sees of it; [`limits`] bounds expensive calls; [`audit`] writes down what was denied; [`token`] issues tokens.
//! What a caller may do to a document is `statesync/permission.rs`, to a session `session/service.rs`.

mod audit;
mod caller;
mod keys;
mod layer;
mod limits;
mod sessions;
pub mod token;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};
use uuid::Uuid;

pub(crate) use caller::{Asker, Caller};
pub use keys::AuthError;
pub(crate) use keys::read as read_secret;
pub(crate) use layer::authenticate;
pub(crate) use sessions::Sessions;

use crate::clock::{self, UnixMicros};
use crate::config::Auth;
use crate::status::with_info;
use caller::{Credentials, Facts};
use keys::{Keyring, Refusal};
use limits::Limits;
use sessions::SessionLookup;

/// The metadata that names the session whose token is sent.
pub(crate) const SESSION_ID: &str = "x-session-id";
/// The metadata that has the session's token.
pub(crate) const SESSION_TOKEN: &str = "x-session-token";
/// The file of the secret that is kept in the data directory.
pub const SECRET_FILE: &str = "auth.key";
/// What tokens name the kept secret by.
pub(crate) const KEPT_KEY_ID: &str = "local";
/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// A clock that is set back or forth is noticed so soon.
const CLOCK_CHECK: Duration = Duration::from_mins(1);
/// How often the session behind a stream is looked up.
const SESSION_CHECK: Duration = Duration::from_secs(5);

/// Knows callers by their credentials.
pub struct Authenticator {
    /// The keys and the limits, which a reload replaces.
    rules: RwLock<(Arc<Keyring>, Arc<Limits>)>,
    sessions: Arc<SessionLookup>,
    data: PathBuf,
}

/// Why a call is not let in: what the caller is told, and what the audit says.
#[derive(Debug)]
struct Denial {
    status: Box<Status>,
    reason: &'static str,
}

/// Whether the keys that `auth` names can be used.
///
/// # Errors
/// [`AuthError`].
pub fn check_keys(auth: &Auth) -> Result<(), AuthError> {
    Keyring::load(auth, None).map(drop)
}

impl Authenticator {
    /// By the rules of `auth`; the secret that is kept lies in `data`.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(crate) fn new(auth: &Auth, data: &Path, sessions: Sessions) -> Result<Arc<Self>, AuthError> {
        let rules = RwLock::new((Arc::new(Keyring::load(auth, Some(data))?), Arc::new(Limits::new(auth.rate_limit))));
        Ok(Arc::new(Self { rules, sessions: Arc::new(SessionLookup::new(sessions)), data: data.to_owned() }))
    }

    /// Reads keys and limits again. Streams that a token of a key which is gone had opened end.
    ///
    /// # Errors
    /// [`AuthError`]; all stays as it was.
    pub(crate) fn reload(&self, auth: &Auth) -> Result<(), AuthError> {
        let keyring = Keyring::load(auth, Some(&self.data))?;
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let keyring = keyring.after(&rules.0);
        rules.0 = Arc::new(keyring);
        if *rules.1.rules() != auth.rate_limit {
            rules.1 = Arc::new(Limits::new(auth.rate_limit));
        }
        Ok(())
    }

    fn rules(&self) -> (Arc<Keyring>, Arc<Limits>) {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The caller of `method` by the credentials in `headers`.
    async fn caller(&self, headers: &HeaderMap, method: &str) -> Result<Caller, Denial> {
        let bearer = bearer(headers)?;
        let by_token = match &bearer {
            Some((token, _)) => Some(self.rules().0.verify(token).map_err(token_denial)?),
            None => None,
        };
        let by_session = self.session(headers, by_token.is_some()).await?;
        let subject = match (&by_token, &by_session) {
            (None, None) => return Err(denial("CREDENTIALS_MISSING", MISSING)),
            (Some(token), Some((_, user_id))) if token.subject != **user_id => {
                return Err(denial("SESSION_TOKEN_INVALID", WRONG_SESSION));
            }
            (Some(token), _) => Arc::from(token.subject.as_str()),
            (None, Some((_, user_id))) => Arc::clone(user_id),
        };
        let (valid_until, revoked) = match by_token {
            Some(token) => (Some(token.valid_until), Some(token.revoked)),
            None => (None, None),
        };
        Ok(Caller::new(Facts {
            subject,
            session: by_session.map(|(id, _)| id),
            valid_until,
            revoked,
            method: audit::shortened(method),
            credentials: Credentials::of(bearer.map(|(_, header)| header), headers),
            sessions: Arc::clone(&self.sessions),
        }))
    }

    /// The session whose token is sent, and whose it is.
    async fn session(&self, headers: &HeaderMap, has_token: bool) -> Result<Option<(Uuid, Arc<str>)>, Denial> {
        let (id, token) = (single(headers, SESSION_ID)?, single(headers, SESSION_TOKEN)?);
        let (id, token) = match (id, token) {
            (Some(id), Some(token)) => (id, token),
            // Beside a bearer token either says nothing of who calls: the session service compares the token with the session
            // that its request names.
            _ if has_token => return Ok(None),
            (None, None) => return Ok(None),
            _ => return Err(denial("SESSION_CREDENTIALS_INCOMPLETE", INCOMPLETE)),
        };
        let wrong = || denial("SESSION_TOKEN_INVALID", WRONG_SESSION);
        let id = id.to_str().ok().filter(|text| text.len() <= 64).and_then(|text| Uuid::try_parse(text).ok());
        let id = id.filter(|id| !id.is_nil()).ok_or_else(wrong)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        let failed = |status| Denial { status: Box::new(status), reason: "SESSIONS_UNAVAILABLE" };
        let user_id = self.sessions.by_token(id, token).await.map_err(failed)?.ok_or_else(wrong)?;
        Ok(Some((id, user_id)))
    }

    /// Counts a call against its caller's limit.
    fn limit(&self, caller: &Caller, method: &str) -> Result<(), Denial> {
        let limited = self.rules().1.check(caller.subject(), method);
        limited.map_err(|wait| Denial { status: Box::new(limits::exhausted(wait)), reason: "RATE_LIMITED" })
    }

    /// Waits until what let `caller` in is over; the status that its stream then ends with.
    async fn until_over(self: Arc<Self>, caller: Caller) -> Status {
        tokio::select! {
            () = caller.until_token_ends() => unauthenticated("TOKEN_EXPIRED", EXPIRED),
            () = caller.until_key_goes() => unauthenticated("TOKEN_INVALID", INVALID),
            () = self.until_session_ends(&caller) => unauthenticated("SESSION_TOKEN_INVALID", WRONG_SESSION),
        }
    }

    /// A session lives on with each heartbeat, so only looking tells.
    async fn until_session_ends(&self, caller: &Caller) {
        let Some(id) = caller.session_alone() else { return std::future::pending().await };
        loop {
            let wait = match self.sessions.ends_at(id, caller.credentials()).await {
                Ok(None) => return,
                Ok(Some(end)) => until(end).min(SESSION_CHECK),
                // The store does not answer: the session is given until it does.
                Err(_) => SESSION_CHECK,
            };
            tokio::time::sleep(wait + Duration::from_millis(1)).await;
        }
    }
}

const MISSING: &str = "send a token as metadata: authorization: Bearer TOKEN, or x-session-id and x-session-token";
const INVALID: &str = "the token is not valid here";
const EXPIRED: &str = "the token has expired; send one that has not";
const INCOMPLETE: &str =
    "x-session-id and x-session-token belong together; send both, or a token as authorization: Bearer TOKEN";
const WRONG_SESSION: &str = "the token is no live session's with this id";

fn unauthenticated(reason: &str, message: &str) -> Status {
    with_info(Code::Unauthenticated, message, reason, &[])
}

fn denial(reason: &'static str, message: &str) -> Denial {
    Denial { status: Box::new(unauthenticated(reason, message)), reason }
}

fn token_denial(refusal: Refusal) -> Denial {
    let status = match refusal {
        Refusal::Expired => unauthenticated("TOKEN_EXPIRED", EXPIRED),
        _ => unauthenticated("TOKEN_INVALID", INVALID),
    };
    Denial { status: Box::new(status), reason: refusal.reason() }
}

/// The bearer token, if one is sent, and the header that has it.
fn bearer(headers: &HeaderMap) -> Result<Option<(String, HeaderValue)>, Denial> {
    let Some(header) = single(headers, AUTHORIZATION.as_str())? else { return Ok(None) };
    let malformed = || denial("TOKEN_MALFORMED", INVALID);
    let text = header.to_str().ok().filter(|text| text.len() <= TOKEN_BYTES_MAX).ok_or_else(malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    let mut header = header.clone();
    header.set_sensitive(true);
    Ok(Some((token.trim_start().to_owned(), header)))
}

/// The value of a header that may be there once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Denial> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(denial("CREDENTIALS_AMBIGUOUS", "credentials are sent twice; send each once"));
    }
    Ok(value)
}

/// How long it is until `time`.
fn until(time: UnixMicros) -> Duration {
    Duration::from_micros(u64::try_from(time.0.saturating_sub(clock::now().0)).unwrap_or(0))
}

/// Sleeps until `time` by the wall clock, which may be set meanwhile.
async fn sleep_until(time: UnixMicros) {
    loop {
        let left = until(time);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(CLOCK_CHECK)).await;
    }
}
