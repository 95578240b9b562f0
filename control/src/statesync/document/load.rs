//! Bringing a document into memory.

use std::sync::Arc;

use uuid::Uuid;

use super::conflict::Conflicts;
use super::recent::Recent;
use super::{DocumentActor, Line, Unwritten, yjs_client};
use crate::clock::HybridTime;
use crate::statesync::content::Content;
use crate::statesync::model::LogRow;
use crate::statesync::order::Sessions;
use crate::statesync::registry::Shared;
use crate::statesync::subscription::Subscribers;
use crate::store::StoreError;

/// Rows of history read when a document is loaded, for JSON operations with an older base and for repeated ids.
const LOADED_ROWS: u32 = 16_384;
const LOADED_BYTES: u64 = 16 << 20;
/// Event numbers skipped when a document is loaded, more than it had events that are not in the log.
const SEQUENCE_SKIP: u64 = 1 << 20;

impl DocumentActor {
    /// Loads a document; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::statesync) async fn load(shared: Arc<Shared>, id: Uuid) -> Result<Option<Self>, StoreError> {
        let store = &shared.store;
        let Some(record) = store.document(id).await? else { return Ok(None) };
        let oldest = store.newest_rows(id, (LOADED_ROWS, LOADED_BYTES)).await?.unwrap_or(record.version);
        // Version 1 is the creation, which is no row.
        let floor = oldest.min(record.snapshot.version).max(1);
        let mut log = Vec::new();
        while log.last().map_or(floor, |row: &LogRow| row.operation.version) < record.version {
            let page = store.operations_after(id, log.last().map_or(floor, |row| row.operation.version)).await?;
            if page.is_empty() {
                return Err(StoreError::Corrupt(format!("the log of document {id} has gaps")));
            }
            log.extend(page);
        }
        log.retain(|row| row.operation.version <= record.version);
        let mut sessions = Sessions::new();
        let mut recent = Recent::new(floor <= 1);
        for row in &log {
            sessions.accepted(row.session_id, row.operation.session_sequence);
            recent.insert(row);
        }
        let content = Content::restore(&record, yjs_client(id), &log);
        let mut content = content.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let indices: Vec<u32> = log.iter().map(|row| sessions.index(row.session_id)).collect();
        let first = log.first().map_or(0, |row| row.operation.version);
        content.restore_window(floor, &log, |row| indices[(row.operation.version - first) as usize]);
        let newest = log.last();
        Ok(Some(Self {
            unsnapshotted: (record.version - record.snapshot.version, 0),
            time: newest.map_or(HybridTime::default(), |row| row.time),
            sequence: newest.map_or(0, |row| (row.sequence / SEQUENCE_SKIP + 1) * SEQUENCE_SKIP),
            lock_announced: record.lock.as_ref().is_some_and(|lock| lock.expires_at.0 > 0),
            record,
            content,
            sessions,
            recent,
            subscribers: Subscribers::new(Arc::clone(&shared)),
            conflicts: Conflicts::load(shared.store.as_ref(), id).await?,
            line: Line::new(),
            unwritten: Unwritten::default(),
            shared,
            retired: false,
        }))
    }
}
