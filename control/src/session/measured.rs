//! A store of sessions whose calls are measured.

use std::sync::Arc;

use uuid::Uuid;

use super::model::{Session, SessionChange};
use super::store::{Changed, SessionCounts, SessionFilter, SessionStore};
use crate::clock::UnixMicros;
use crate::store::{StoreError, StoreKind};
use crate::telemetry::{StoreCall, StoreTimer};

/// Measures what it passes on.
pub struct MeasuredSessions {
    store: Arc<dyn SessionStore>,
    kind: StoreKind,
}

impl MeasuredSessions {
    /// Around `store`, which is of this kind.
    pub fn new(store: Arc<dyn SessionStore>, kind: StoreKind) -> Self {
        Self { store, kind }
    }

    fn timer(&self, call: StoreCall) -> StoreTimer {
        StoreTimer::start(self.kind, call)
    }
}

#[tonic::async_trait]
impl SessionStore for MeasuredSessions {
    async fn insert(&self, session: Session) -> Result<(), StoreError> {
        self.timer(StoreCall::Insert).end(self.store.insert(session).await)
    }

    async fn get(&self, id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        self.timer(StoreCall::Get).end(self.store.get(id, now).await)
    }

    async fn get_by_connection(&self, connection_id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        self.timer(StoreCall::Get).end(self.store.get_by_connection(connection_id, now).await)
    }

    async fn change(&self, id: Uuid, change: SessionChange, now: UnixMicros) -> Result<Changed, StoreError> {
        let call = match change {
            SessionChange::Update(_) => StoreCall::Update,
            SessionChange::Heartbeat => StoreCall::Heartbeat,
            SessionChange::RotateToken { .. } => StoreCall::RotateToken,
            SessionChange::Disconnect { .. } => StoreCall::Disconnect,
        };
        self.timer(call).end(self.store.change(id, change, now).await)
    }

    async fn delete(&self, id: Uuid, now: UnixMicros) -> Result<bool, StoreError> {
        self.timer(StoreCall::Delete).end(self.store.delete(id, now).await)
    }

    async fn list(&self, filter: &SessionFilter, now: UnixMicros) -> Result<(Vec<Session>, u64), StoreError> {
        self.timer(StoreCall::List).end(self.store.list(filter, now).await)
    }

    async fn counts(&self, now: UnixMicros) -> Result<SessionCounts, StoreError> {
        self.timer(StoreCall::Counts).end(self.store.counts(now).await)
    }

    async fn delete_expired(&self, now: UnixMicros) -> Result<(), StoreError> {
        self.timer(StoreCall::Sweep).end(self.store.delete_expired(now).await)
    }

    async fn check(&self) -> Result<Option<String>, StoreError> {
        self.timer(StoreCall::Check).end(self.store.check().await)
    }
}
