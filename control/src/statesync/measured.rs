//! A store of documents whose calls are measured.

use std::sync::Arc;

use proto::statesync as pb;
use uuid::Uuid;

use super::model::{ConflictRecord, DocumentRecord, LogRow};
use super::store::{Batch, ConflictFilter, DocumentCounts, DocumentFilter, DocumentStore, Purged};
use crate::clock::UnixMicros;
use crate::store::{CommitterStats, StoreError, StoreKind};
use crate::telemetry::{StoreCall, StoreTimer};

/// Measures what it passes on.
pub struct MeasuredDocuments {
    store: Arc<dyn DocumentStore>,
    kind: StoreKind,
}

impl MeasuredDocuments {
    /// Around `store`, which is of this kind.
    pub fn new(store: Arc<dyn DocumentStore>, kind: StoreKind) -> Self {
        Self { store, kind }
    }

    fn timer(&self, call: StoreCall) -> StoreTimer {
        StoreTimer::start(self.kind, call)
    }
}

#[tonic::async_trait]
impl DocumentStore for MeasuredDocuments {
    async fn create(&self, record: DocumentRecord) -> Result<(), StoreError> {
        self.timer(StoreCall::Create).end(self.store.create(record).await)
    }

    async fn submit(&self, batch: Batch) -> Result<(), StoreError> {
        let timer = StoreTimer::start_for(self.kind, StoreCall::Commit, &batch.origins);
        self.store.submit(Batch { timer: Some(timer), ..batch }).await
    }

    async fn document(&self, id: Uuid) -> Result<Option<DocumentRecord>, StoreError> {
        self.timer(StoreCall::Load).end(self.store.document(id).await)
    }

    async fn list(&self, filter: &DocumentFilter) -> Result<(Vec<DocumentRecord>, u64), StoreError> {
        self.timer(StoreCall::List).end(self.store.list(filter).await)
    }

    async fn operations_after(&self, id: Uuid, after: u64) -> Result<Vec<LogRow>, StoreError> {
        self.timer(StoreCall::Log).end(self.store.operations_after(id, after).await)
    }

    async fn newest_rows(&self, id: Uuid, limits: (u32, u64)) -> Result<Option<u64>, StoreError> {
        self.timer(StoreCall::Log).end(self.store.newest_rows(id, limits).await)
    }

    async fn operations_last(&self, id: Uuid, limit: u32) -> Result<Vec<pb::Operation>, StoreError> {
        self.timer(StoreCall::Log).end(self.store.operations_last(id, limit).await)
    }

    async fn operation(&self, id: Uuid, version: u64) -> Result<Option<pb::Operation>, StoreError> {
        self.timer(StoreCall::Log).end(self.store.operation(id, version).await)
    }

    async fn find_operation(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<([u8; 32], u64)>, StoreError> {
        self.timer(StoreCall::Find).end(self.store.find_operation(id, op_id, key).await)
    }

    async fn conflicts(&self, id: Uuid, filter: ConflictFilter) -> Result<(Vec<ConflictRecord>, u64), StoreError> {
        self.timer(StoreCall::Conflicts).end(self.store.conflicts(id, filter).await)
    }

    async fn conflict(&self, id: Uuid, conflict_id: Uuid) -> Result<Option<ConflictRecord>, StoreError> {
        self.timer(StoreCall::Conflicts).end(self.store.conflict(id, conflict_id).await)
    }

    async fn find_pending(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<ConflictRecord>, StoreError> {
        self.timer(StoreCall::Find).end(self.store.find_pending(id, op_id, key).await)
    }

    async fn purge(&self, before: UnixMicros) -> Result<Purged, StoreError> {
        self.timer(StoreCall::Sweep).end(self.store.purge(before).await)
    }

    async fn counts(&self, now: UnixMicros) -> Result<DocumentCounts, StoreError> {
        self.timer(StoreCall::Counts).end(self.store.counts(now).await)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.timer(StoreCall::Check).end(self.store.check().await)
    }

    fn commits(&self) -> &CommitterStats {
        self.store.commits()
    }
}
