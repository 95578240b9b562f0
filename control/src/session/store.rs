//! What a store of sessions has to do. Every change is one atomic step, whichever store it is.

use proto::session as pb;
use uuid::Uuid;

use super::model::{Refused, Session, SessionChange};
use crate::clock::UnixMicros;
use crate::store::StoreError;

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Of this user; empty: of every user.
    pub user_id: String,
    /// In this state; `None`: in any.
    pub state: Option<pb::SessionState>,
    /// How many of the matching ones to leave out at the start.
    pub offset: u64,
    /// The most to return.
    pub limit: u32,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// The session as it is now.
    Session(Box<Session>),
    /// There is no such session, or it has expired.
    Missing,
    /// It is as it was.
    Refused(Refused),
}

/// How many sessions have not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionCounts {
    /// In any state.
    pub total: u64,
    /// ACTIVE.
    pub active: u64,
    /// IDLE.
    pub idle: u64,
}

/// The sessions. What a method acknowledged is kept as durably as the store promises: SQLite syncs it to disk, memory does not.
/// `now` decides what has expired; an expired session is as good as removed.
///
/// Every method fails with a [`StoreError`] when the store does not answer.
#[tonic::async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Stores a session whose id nobody has.
    async fn insert(&self, session: Session) -> Result<(), StoreError>;

    /// The session with this id.
    async fn get(&self, id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError>;

    /// The session that came in over this connection.
    async fn get_by_connection(&self, connection_id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError>;

    /// Changes a session.
    async fn change(&self, id: Uuid, change: SessionChange, now: UnixMicros) -> Result<Changed, StoreError>;

    /// Removes a session; false if there was none.
    async fn delete(&self, id: Uuid, now: UnixMicros) -> Result<bool, StoreError>;

    /// Matching sessions by creation time, then id, and how many match before paging.
    async fn list(&self, filter: &SessionFilter, now: UnixMicros) -> Result<(Vec<Session>, u64), StoreError>;

    /// Counts the sessions.
    async fn counts(&self, now: UnixMicros) -> Result<SessionCounts, StoreError>;

    /// Removes what has expired.
    async fn delete_expired(&self, now: UnixMicros) -> Result<(), StoreError>;

    /// Whether it reads and takes writes at this moment, and what an operator should know of it.
    async fn check(&self) -> Result<Option<String>, StoreError>;
}
