//! Who calls, as handlers see it.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::sessions::SessionLookup;
use super::{SESSION_ID, SESSION_TOKEN, audit, sleep_until};
use crate::clock::UnixMicros;
use crate::status::{self, not_found, with_info};

/// Somebody who proved who they are; among the extensions of every request that authentication let in.
#[derive(Clone)]
pub(crate) struct Caller(Arc<Facts>);

/// What is known of a caller.
pub(super) struct Facts {
    /// The user.
    pub(super) subject: Arc<str>,
    /// The session whose token was sent.
    pub(super) session: Option<Uuid>,
    /// Until when the bearer token, if one was sent, is valid.
    pub(super) valid_until: Option<UnixMicros>,
    /// Cancelled when its key is gone.
    pub(super) revoked: Option<CancellationToken>,
    /// What is called.
    pub(super) method: String,
    pub(super) credentials: Credentials,
    pub(super) sessions: Arc<SessionLookup>,
}

/// What was sent, for the service that knows the sessions.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    /// The header `authorization`.
    pub(super) bearer: Option<HeaderValue>,
    /// A session's id and token.
    pub(super) session: Option<(HeaderValue, HeaderValue)>,
}

impl Credentials {
    pub(super) fn of(bearer: Option<HeaderValue>, headers: &HeaderMap) -> Self {
        let session = headers.get(SESSION_ID).zip(headers.get(SESSION_TOKEN));
        Self { bearer, session: session.map(|(id, token)| (id.clone(), token.clone())) }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Caller").field(&self.0.subject).finish()
    }
}

impl Caller {
    pub(super) fn new(facts: Facts) -> Self {
        Self(Arc::new(facts))
    }

    /// The user who calls.
    pub(crate) fn subject(&self) -> &str {
        &self.0.subject
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    /// The session, if its token is all that was sent.
    pub(super) fn session_alone(&self) -> Option<Uuid> {
        self.0.session.filter(|_| self.0.valid_until.is_none())
    }

    /// Whether the token of this session was sent, and was right.
    pub(crate) fn has_session(&self, id: Uuid) -> bool {
        self.0.session == Some(id)
    }

    /// Whether a session's id and token were sent, which were compared.
    pub(crate) fn names_session(&self) -> bool {
        self.0.session.is_some()
    }

    /// Whether it may act for a session of `user_id`: a session's token alone speaks for no other session.
    pub(crate) fn may_act_for(&self, id: Uuid, user_id: &str) -> bool {
        self.subject() == user_id && self.session_alone().is_none_or(|session| session == id)
    }

    /// Writes down that something was denied.
    pub(crate) fn denied(&self, reason: &str) {
        audit::denied(self.subject(), &self.0.method, reason);
    }

    pub(super) async fn until_token_ends(&self) {
        match self.0.valid_until {
            Some(time) => sleep_until(time).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn until_key_goes(&self) {
        match &self.0.revoked {
            Some(revoked) => revoked.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Who asks for something: a caller, or with authentication off nobody in particular, who may do all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker(Option<Caller>);

impl Asker {
    /// Who sent a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        Self(request.extensions().get::<Caller>().cloned())
    }

    /// The caller, with authentication on.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.0.as_ref()
    }

    /// Whether it is whom the field of a request names; with authentication on a field that names nobody is filled in.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(crate) fn acts_as(&self, field: &str, user_id: &mut String) -> Result<(), Status> {
        let Some(caller) = &self.0 else { return Ok(()) };
        if user_id.is_empty() {
            caller.subject().clone_into(user_id);
        }
        if user_id == caller.subject() {
            return Ok(());
        }
        caller.denied("ANOTHER_USER");
        let message = format!("{field}: is not the caller; leave it empty, or name the user whose token is sent");
        Err(with_info(Code::PermissionDenied, message, "ANOTHER_USER", &[("field", field.to_owned())]))
    }

    /// Whether it may open sessions, which a session's token alone may not: sessions would beget sessions for ever.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub(crate) fn has_bearer(&self) -> Result<(), Status> {
        let Some(caller) = self.0.as_ref().filter(|caller| caller.session_alone().is_some()) else { return Ok(()) };
        caller.denied("BEARER_REQUIRED");
        let message = "a session's token opens no further session; send authorization: Bearer TOKEN";
        Err(with_info(Code::PermissionDenied, message, "BEARER_REQUIRED", &[]))
    }

    /// Checks that a session that a request names is a UUID and, with authentication on, a live one of the caller.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `NOT_FOUND`, or `UNAVAILABLE` if nobody can tell.
    pub(crate) async fn acts_in(&self, field: &str, session_id: &str) -> Result<(), Status> {
        let id = status::uuid(field, session_id)?;
        let Some(caller) = &self.0 else { return Ok(()) };
        if !caller.0.sessions.checks() || caller.has_session(id) {
            return Ok(());
        }
        let owner = caller.0.sessions.owner(id, caller.credentials()).await?;
        if owner.is_some_and(|owner| caller.may_act_for(id, &owner)) {
            return Ok(());
        }
        caller.denied("ANOTHER_SESSION");
        Err(not_found("session", &id.to_string()))
    }
}
