//! A session and the times in it.

use std::collections::HashMap;
use std::time::Duration;

use proto::session as pb;
use uuid::Uuid;

use crate::clock::{UnixMicros, timestamp};

/// Life without a heartbeat when the client does not say.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_mins(30);
/// The longest life a client can ask for.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// Entries in the metadata of a session.
pub(super) const METADATA_ENTRIES_MAX: usize = 64;

/// One session as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// The transport's connection.
    pub connection_id: Uuid,
    /// Where the client said it is.
    pub client_ip: String,
    /// 0..65535.
    pub client_port: u16,
    /// The state, as in the proto.
    pub state: pb::SessionState,
    /// When it was opened.
    pub created_at: UnixMicros,
    /// When it was last heard of.
    pub last_active_at: UnixMicros,
    /// When it ends if no further heartbeat comes.
    pub expires_at: UnixMicros,
    /// How long it lives after a heartbeat.
    pub timeout: Duration,
    /// What the client attached.
    pub metadata: HashMap<String, String>,
    /// Statistics of the transport: those that its client reported last, or of a Quantum connection that has ended.
    pub stats: pb::SessionStats,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
}

impl Session {
    /// Records a heartbeat: it lives on for its timeout, and is active.
    fn hear_of(&mut self, now: UnixMicros) {
        self.last_active_at = self.last_active_at.max(now);
        self.expires_at = self.expires_at.max(end(now, self.timeout));
        if matches!(self.state, pb::SessionState::Connecting | pb::SessionState::Idle) {
            self.state = pb::SessionState::Active;
        }
    }

    /// Its form on the wire.
    pub fn to_proto(&self) -> pb::Session {
        pb::Session {
            session_id: self.id.to_string(),
            user_id: self.user_id.clone(),
            connection_id: self.connection_id.to_string(),
            client_ip: self.client_ip.clone(),
            client_port: u32::from(self.client_port),
            server_addr: String::new(),
            state: self.state.into(),
            created_at: Some(timestamp(self.created_at)),
            last_active_at: Some(timestamp(self.last_active_at)),
            expires_at: Some(timestamp(self.expires_at)),
            metadata: self.metadata.clone(),
            stats: Some(self.stats),
        }
    }
}

/// The timeout for what a client asked for; 0 means the default.
pub(super) fn timeout(seconds: u32) -> Duration {
    if seconds == 0 { TIMEOUT_DEFAULT } else { Duration::from_secs(u64::from(seconds)).min(TIMEOUT_MAX) }
}

/// When a session that was heard of at `now` ends.
pub(super) fn end(now: UnixMicros, timeout: Duration) -> UnixMicros {
    UnixMicros(now.0 + timeout.as_micros() as i64)
}

/// What can become of a session that lives.
#[derive(Debug, Clone)]
pub enum SessionChange {
    /// Its client changes it.
    Update(SessionUpdate),
    /// It was heard of.
    Heartbeat,
    /// It gets another token, if it still has the one that its client showed. Both are hashes.
    RotateToken {
        /// The one it has.
        from: [u8; 32],
        /// The one it gets.
        to: [u8; 32],
    },
    /// The connection that it came in by has ended.
    Disconnect {
        /// What the connection had done, where that is known.
        stats: Option<pb::SessionStats>,
        /// When it idles: unless it was heard of since. None: it does not.
        idles_at: Option<UnixMicros>,
    },
}

/// Why a session was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would have more metadata than a session may have.
    Full,
    /// It has another token by now.
    WrongToken,
}

/// What a client changes of a session.
#[derive(Debug, Clone, Default)]
pub struct SessionUpdate {
    /// Another state.
    pub state: Option<pb::SessionState>,
    /// Merged key by key.
    pub metadata: HashMap<String, String>,
    /// Replaced as a whole.
    pub stats: Option<pb::SessionStats>,
}

impl SessionChange {
    /// The session after the change.
    ///
    /// # Errors
    /// [`Refused`], and the session stays as it is.
    pub(super) fn apply(&self, session: &Session, now: UnixMicros) -> Result<Session, Refused> {
        let mut changed = session.clone();
        match self {
            Self::Update(update) => update.apply(&mut changed, now)?,
            Self::Heartbeat => changed.hear_of(now),
            Self::RotateToken { from, .. } if *from != session.token_hash => return Err(Refused::WrongToken),
            Self::RotateToken { to, .. } => changed.token_hash = *to,
            Self::Disconnect { stats, idles_at } => {
                changed.stats = stats.unwrap_or(session.stats);
                let lives = matches!(session.state, pb::SessionState::Connecting | pb::SessionState::Active);
                if lives && idles_at.is_some_and(|at| session.last_active_at <= at) {
                    changed.state = pb::SessionState::Idle;
                }
            }
        }
        Ok(changed)
    }
}

impl SessionUpdate {
    /// It does not make a session live longer.
    fn apply(&self, session: &mut Session, now: UnixMicros) -> Result<(), Refused> {
        session.state = self.state.unwrap_or(session.state);
        session.metadata.extend(self.metadata.clone());
        session.stats = self.stats.unwrap_or(session.stats);
        session.last_active_at = session.last_active_at.max(now);
        if session.metadata.len() > METADATA_ENTRIES_MAX { Err(Refused::Full) } else { Ok(()) }
    }
}
