//! What a store of documents has to do. All that belongs to one moment of one document is one [`Batch`], kept whole or not at all.

use std::sync::Arc;

use proto::statesync as pb;
use tokio::sync::watch;
use uuid::Uuid;

use super::model::{ConflictRecord, DocumentRecord, LockRecord, LogRow, Snapshot};
use crate::clock::UnixMicros;
use crate::store::{CommitterStats, StoreError};
use crate::telemetry::{Origin, StoreTimer};

/// How far what a document wrote is kept.
#[derive(Debug, Clone, Default)]
pub struct Durability {
    /// Up to the batch with this ticket.
    pub ticket: u64,
    /// A write failed; nothing after `ticket` will be kept.
    pub failed: Option<StoreError>,
}

/// What one document writes at once.
#[derive(Debug)]
pub struct Batch {
    /// The document.
    pub doc_id: Uuid,
    /// Consecutive operations, in order.
    pub rows: Vec<Arc<LogRow>>,
    /// Name, state and metadata as they are after `rows`, if they changed.
    pub described: Option<Box<DocumentRecord>>,
    /// The lock, if it changed.
    pub lock: Option<LockRecord>,
    /// Conflicts found or decided.
    pub conflicts: Vec<ConflictRecord>,
    /// The content after some version in or before `rows`, if it is time to keep it.
    pub snapshot: Option<Snapshot>,
    /// Operations up to this version go: the snapshot stands for them.
    pub trim: Option<u64>,
    /// Increases from batch to batch of a document.
    pub ticket: u64,
    /// Is told the ticket once the batch is kept.
    pub durable: watch::Sender<Durability>,
    /// Those of traced calls who wait for it.
    pub origins: Vec<Origin>,
    /// Measures how long that takes.
    pub timer: Option<StoreTimer>,
}

impl Batch {
    /// Tells the document what became of the batch.
    pub fn done(self, result: Result<(), StoreError>) {
        let result = match self.timer {
            Some(timer) => timer.end(result),
            None => result,
        };
        self.durable.send_modify(|state| match result {
            // A later ticket would stand for what failed too.
            Ok(()) if state.failed.is_some() => {}
            Ok(()) => state.ticket = state.ticket.max(self.ticket),
            Err(error) => state.failed = Some(error),
        });
    }

    /// Whether there is nothing in it but operations.
    pub(super) fn only_appends(&self) -> bool {
        let Self { described, lock, conflicts, snapshot, trim, .. } = self;
        described.is_none() && lock.is_none() && conflicts.is_empty() && snapshot.is_none() && trim.is_none()
    }

    /// Whether an earlier batch of the document failed, so that this one may not be kept either.
    pub fn is_void(&self) -> bool {
        self.durable.borrow().failed.is_some()
    }
}

/// Which documents to list; an empty text stands for any.
#[derive(Debug, Clone, Default)]
pub struct DocumentFilter {
    /// Of this type.
    pub kind: String,
    /// In this state; empty: in any but "deleted".
    pub state: String,
    /// Made by this user.
    pub created_by: String,
    /// That this user may read.
    pub user_id: String,
    /// How many of the matching ones to leave out at the start.
    pub offset: u32,
    /// The most to return.
    pub limit: u32,
}

/// Which conflicts of a document to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConflictFilter {
    /// Only those that wait for a decision.
    pub unresolved_only: bool,
    /// How many of the matching ones to leave out at the start.
    pub offset: u32,
    /// The most to return.
    pub limit: u32,
}

/// How much the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DocumentCounts {
    /// Documents, deleted ones included.
    pub documents: u64,
    /// Those in state "active".
    pub active: u64,
    /// Those in state "archived".
    pub archived: u64,
    /// Accepted operations.
    pub operations: u64,
    /// Conflicts.
    pub conflicts: u64,
    /// Those that were decided.
    pub resolved: u64,
    /// Locks that hold.
    pub locks: u64,
}

/// The most documents that one step of a purge begins to remove, and the most operations and conflicts that it removes.
pub(super) const PURGED_DOCUMENTS_MAX: usize = 100;
pub(super) const PURGED_ROWS_MAX: usize = 1000;

/// What one step of a purge did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purged {
    /// The documents that nobody finds any more.
    pub documents: Vec<Uuid>,
    /// Whether there is something left for another step.
    pub more: bool,
}

/// The documents. What a batch's `durable` was told is kept as durably as the store promises: SQLite and PostgreSQL sync it to disk, memory
/// does not. One document is written by one actor at a time; a reader of its own writes waits for `durable` first.
///
/// Every method fails with a [`StoreError`] when the store does not answer.
#[tonic::async_trait]
pub trait DocumentStore: Send + Sync + 'static {
    /// Stores a document whose id nobody has; it is kept when this returns.
    async fn create(&self, record: DocumentRecord) -> Result<(), StoreError>;

    /// Queues a batch. Batches of one document are kept in the order of their submission.
    async fn submit(&self, batch: Batch) -> Result<(), StoreError>;

    /// The document with this id.
    async fn document(&self, id: Uuid) -> Result<Option<DocumentRecord>, StoreError>;

    /// Matching documents by creation time, then id, with an empty snapshot, and how many match before paging.
    async fn list(&self, filter: &DocumentFilter) -> Result<(Vec<DocumentRecord>, u64), StoreError>;

    /// Operations with versions after `after`, at most a page of them, oldest first.
    async fn operations_after(&self, id: Uuid, after: u64) -> Result<Vec<LogRow>, StoreError>;

    /// The version before the newest rows that fit `limits`, in number and in bytes; `None` if there is not one.
    async fn newest_rows(&self, id: Uuid, limits: (u32, u64)) -> Result<Option<u64>, StoreError>;

    /// The newest operations, oldest first: at most `limit`, and no more than fit a message.
    async fn operations_last(&self, id: Uuid, limit: u32) -> Result<Vec<pb::Operation>, StoreError>;

    /// The operation that made `version`.
    async fn operation(&self, id: Uuid, version: u64) -> Result<Option<pb::Operation>, StoreError>;

    /// The operation with this id or this idempotency key, if it is not empty: its digest and version.
    async fn find_operation(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<([u8; 32], u64)>, StoreError>;

    /// Conflicts of a document, oldest first, no more than fit a message, and how many match before paging.
    async fn conflicts(&self, id: Uuid, filter: ConflictFilter) -> Result<(Vec<ConflictRecord>, u64), StoreError>;

    /// One conflict of a document.
    async fn conflict(&self, id: Uuid, conflict_id: Uuid) -> Result<Option<ConflictRecord>, StoreError>;

    /// The conflict in which the operation with this id or this idempotency key, if it is not empty, waits or waited.
    async fn find_pending(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<ConflictRecord>, StoreError>;

    /// Begins to remove for good what is in state "deleted" and was changed at `before` or earlier, and goes on with what was begun:
    /// one step of bounded size. From the step on that names it, a document is not there and a batch of it fails.
    async fn purge(&self, before: UnixMicros) -> Result<Purged, StoreError>;

    /// Counts what there is.
    async fn counts(&self, now: UnixMicros) -> Result<DocumentCounts, StoreError>;

    /// Whether it reads and takes writes at this moment.
    async fn check(&self) -> Result<(), StoreError>;

    /// What was committed so far.
    fn commits(&self) -> &CommitterStats;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_kept_does_not_stand_for_an_earlier_one_that_failed() {
        let durable = watch::Sender::new(Durability::default());
        let batch = |ticket| Batch {
            doc_id: Uuid::now_v7(),
            rows: Vec::new(),
            described: None,
            lock: None,
            conflicts: Vec::new(),
            snapshot: None,
            trim: None,
            ticket,
            durable: durable.clone(),
            origins: Vec::new(),
            timer: None,
        };
        let (first, second, third) = (batch(1), batch(2), batch(3));
        first.done(Ok(()));
        assert!(!second.is_void());
        second.done(Err(StoreError::Closed));
        assert!(third.is_void());
        third.done(Ok(()));
        assert_eq!(durable.borrow().ticket, 1);
        assert!(durable.borrow().failed.is_some());
    }
}
