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
    /// Transport statistics, as last reported.
    pub stats: pb::SessionStats,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
}

impl Session {
    /// Records a heartbeat: it lives on for its timeout, and is active.
    pub(super) fn hear_of(&mut self, now: UnixMicros) {
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

impl SessionUpdate {
    /// The session after the update; `None` if it would have too much metadata. It does not live longer for it.
    pub(super) fn apply(&self, session: &Session, now: UnixMicros) -> Option<Session> {
        let mut updated = session.clone();
        updated.state = self.state.unwrap_or(session.state);
        updated.metadata.extend(self.metadata.clone());
        updated.stats = self.stats.unwrap_or(session.stats);
        updated.last_active_at = session.last_active_at.max(now);
        (updated.metadata.len() <= METADATA_ENTRIES_MAX).then_some(updated)
    }
}
