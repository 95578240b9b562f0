//! Documents in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use proto::statesync as pb;
use uuid::Uuid;

use super::model::{self, ConflictRecord, DocumentRecord, LogRow};
use super::store::{
    Batch, ConflictFilter, DocumentCounts, DocumentFilter, DocumentStore, PURGED_DOCUMENTS_MAX, Purged,
};
use crate::clock::UnixMicros;
use crate::store::{CommitterStats, StoreError};

/// Rows, and bytes in them, that are read at once; a row may exceed the bytes alone.
const PAGE_ROWS: usize = 1000;
const PAGE_BYTES: usize = 3 << 20;

struct Document {
    record: DocumentRecord,
    /// By version.
    log: BTreeMap<u64, Arc<LogRow>>,
    versions: HashMap<Uuid, u64>,
    versions_by_key: HashMap<String, u64>,
    conflicts: BTreeMap<(UnixMicros, Uuid), ConflictRecord>,
}

impl Document {
    fn write(&mut self, batch: &Batch) {
        for row in &batch.rows {
            let version = row.operation.version;
            self.versions.insert(row.op_id, version);
            if !row.idempotency_key.is_empty() {
                self.versions_by_key.insert(row.idempotency_key.clone(), version);
            }
            self.record.version = version;
            self.record.updated_by.clone_from(&row.operation.user_id);
            self.record.updated_at = row.time.wall();
            self.log.insert(version, Arc::clone(row));
        }
        if let Some(described) = &batch.described {
            self.record.name.clone_from(&described.name);
            self.record.state.clone_from(&described.state);
            self.record.metadata.clone_from(&described.metadata);
            self.record.described_version = described.described_version;
        }
        if let Some(lock) = &batch.lock {
            self.record.lock = Some(lock.clone());
        }
        for conflict in &batch.conflicts {
            self.conflicts.insert((conflict.created_at, conflict.id), conflict.clone());
        }
        if let Some(snapshot) = &batch.snapshot {
            self.record.snapshot = snapshot.clone();
        }
        if let Some(newest) = batch.trim {
            self.log = self.log.split_off(&(newest + 1));
            self.versions.retain(|_, version| *version > newest);
            self.versions_by_key.retain(|_, version| *version > newest);
        }
    }
}

/// Documents that are gone when the process ends.
#[derive(Default)]
pub struct MemoryDocuments {
    documents: Mutex<BTreeMap<(UnixMicros, Uuid), Document>>,
    creation: Mutex<HashMap<Uuid, UnixMicros>>,
    stats: CommitterStats,
}

impl MemoryDocuments {
    fn documents(&self) -> MutexGuard<'_, BTreeMap<(UnixMicros, Uuid), Document>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: Uuid, read: impl FnOnce(&mut Document) -> T) -> Option<T> {
        let created_at = *self.creation.lock().unwrap_or_else(PoisonError::into_inner).get(&id)?;
        self.documents().get_mut(&(created_at, id)).map(read)
    }
}

#[tonic::async_trait]
impl DocumentStore for MemoryDocuments {
    async fn create(&self, record: DocumentRecord) -> Result<(), StoreError> {
        let key = (record.created_at, record.id);
        let document = Document {
            record,
            log: BTreeMap::new(),
            versions: HashMap::new(),
            versions_by_key: HashMap::new(),
            conflicts: BTreeMap::new(),
        };
        self.documents().insert(key, document);
        self.creation.lock().unwrap_or_else(PoisonError::into_inner).insert(key.1, key.0);
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.operations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn submit(&self, batch: Batch) -> Result<(), StoreError> {
        if self.with(batch.doc_id, |document| document.write(&batch)).is_none() {
            return Err(StoreError::Failed("a batch of a document that does not exist".into()));
        }
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.operations.fetch_add(batch.rows.len() as u64, Ordering::Relaxed);
        batch.done(Ok(()));
        Ok(())
    }

    async fn document(&self, id: Uuid) -> Result<Option<DocumentRecord>, StoreError> {
        Ok(self.with(id, |document| document.record.clone()))
    }

    async fn list(&self, filter: &DocumentFilter) -> Result<(Vec<DocumentRecord>, u64), StoreError> {
        let fits = |wanted: &String, have: &String| wanted.is_empty() || wanted == have;
        let readable = |record: &DocumentRecord| {
            let (users, public) = model::readers(record);
            public || filter.user_id.is_empty() || users.contains(filter.user_id.as_str())
        };
        let in_state = |record: &DocumentRecord| {
            fits(&filter.state, &record.state) && (record.state != "deleted" || !filter.state.is_empty())
        };
        let documents = self.documents();
        let matching = documents.values().map(|document| &document.record).filter(|record| {
            in_state(record)
                && fits(&filter.kind, &record.kind)
                && fits(&filter.created_by, &record.created_by)
                && readable(record)
        });
        let (mut page, mut total) = (Vec::new(), 0);
        for record in matching {
            if total >= u64::from(filter.offset) && page.len() < filter.limit as usize {
                page.push(record.clone());
            }
            total += 1;
        }
        Ok((page, total))
    }

    async fn operations_after(&self, id: Uuid, after: u64) -> Result<Vec<LogRow>, StoreError> {
        let page = self.with(id, |document| {
            let mut bytes = 0;
            let newer = document.log.range(after + 1..).map(|(_, row)| row).take(PAGE_ROWS);
            let fitting = newer.take_while(|row| {
                let fits = bytes <= PAGE_BYTES;
                bytes += row.operation.data.len() + row.update.len();
                fits
            });
            fitting.map(|row| LogRow::clone(row)).collect()
        });
        Ok(page.unwrap_or_default())
    }

    async fn newest_rows(&self, id: Uuid, limits: (u32, u64)) -> Result<Option<u64>, StoreError> {
        let oldest = self.with(id, |document| {
            let mut bytes = 0;
            let newest = document.log.iter().rev().take(limits.0 as usize);
            let fitting = newest.take_while(|(_, row)| {
                bytes += (row.operation.data.len() + row.update.len()) as u64;
                bytes <= limits.1
            });
            fitting.last().map(|(version, _)| version - 1)
        });
        Ok(oldest.flatten())
    }

    async fn operations_last(&self, id: Uuid, limit: u32) -> Result<Vec<pb::Operation>, StoreError> {
        let operations = self.with(id, |document| {
            let mut bytes = 0;
            let newest = document.log.values().rev().take(limit as usize).take_while(|row| {
                let first = bytes == 0;
                bytes += row.operation.encoded_len();
                first || bytes <= PAGE_BYTES
            });
            let mut operations: Vec<_> = newest.map(|row| row.operation.clone()).collect();
            operations.reverse();
            operations
        });
        Ok(operations.unwrap_or_default())
    }

    async fn operation(&self, id: Uuid, version: u64) -> Result<Option<pb::Operation>, StoreError> {
        Ok(self.with(id, |document| document.log.get(&version).map(|row| row.operation.clone())).flatten())
    }

    async fn find_operation(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<([u8; 32], u64)>, StoreError> {
        let found = self.with(id, |document| {
            let version = document.versions.get(&op_id).or_else(|| document.versions_by_key.get(key))?;
            document.log.get(version).map(|row| (row.digest, *version))
        });
        Ok(found.flatten())
    }

    async fn conflicts(&self, id: Uuid, filter: ConflictFilter) -> Result<(Vec<ConflictRecord>, u64), StoreError> {
        let found = self.with(id, |document| {
            let matching: Vec<_> = document
                .conflicts
                .values()
                .filter(|conflict| !filter.unresolved_only || !conflict.is_resolved())
                .collect();
            let mut bytes = 0;
            let page =
                matching.iter().skip(filter.offset as usize).take(filter.limit as usize).take_while(|conflict| {
                    let first = bytes == 0;
                    bytes += conflict.conflict.encoded_len();
                    first || bytes <= PAGE_BYTES
                });
            (page.map(|conflict| (*conflict).clone()).collect(), matching.len() as u64)
        });
        Ok(found.unwrap_or_default())
    }

    async fn conflict(&self, id: Uuid, conflict_id: Uuid) -> Result<Option<ConflictRecord>, StoreError> {
        let found =
            self.with(id, |document| document.conflicts.values().find(|conflict| conflict.id == conflict_id).cloned());
        Ok(found.flatten())
    }

    async fn find_pending(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<ConflictRecord>, StoreError> {
        let found = self.with(id, |document| {
            let is_it =
                |pending: &model::Pending| pending.op_id == op_id || !key.is_empty() && pending.idempotency_key == key;
            document.conflicts.values().find(|conflict| conflict.pending.as_ref().is_some_and(is_it)).cloned()
        });
        Ok(found.flatten())
    }

    async fn purge(&self, before: UnixMicros) -> Result<Purged, StoreError> {
        let mut all = self.documents();
        let is_due = |record: &DocumentRecord| record.state == "deleted" && record.updated_at <= before;
        let due = all.iter().filter(|(_, document)| is_due(&document.record)).map(|(key, _)| *key);
        let due: Vec<_> = due.take(PURGED_DOCUMENTS_MAX).collect();
        let mut creation = self.creation.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &due {
            all.remove(key);
            creation.remove(&key.1);
        }
        let documents: Vec<Uuid> = due.into_iter().map(|(_, id)| id).collect();
        Ok(Purged { more: documents.len() == PURGED_DOCUMENTS_MAX, documents })
    }

    async fn counts(&self, now: UnixMicros) -> Result<DocumentCounts, StoreError> {
        let mut counts = DocumentCounts::default();
        for document in self.documents().values() {
            counts.documents += 1;
            counts.active += u64::from(document.record.state == "active");
            counts.archived += u64::from(document.record.state == "archived");
            counts.operations += document.record.version - 1;
            counts.conflicts += document.conflicts.len() as u64;
            counts.resolved += document.conflicts.values().filter(|conflict| conflict.is_resolved()).count() as u64;
            counts.locks += u64::from(document.record.lock.as_ref().is_some_and(|lock| lock.holds(now)));
        }
        Ok(counts)
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn commits(&self) -> &CommitterStats {
        &self.stats
    }
}
