//! Documents and their logs in SQLite.

mod purge;
mod rows;
mod write;

use futures_util::TryStreamExt;
use prost::Message;
use proto::statesync as pb;
use sqlx::{QueryBuilder, Row, Sqlite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::model::{ConflictRecord, DocumentRecord, LogRow};
use super::store::{Batch, ConflictFilter, DocumentCounts, DocumentFilter, DocumentStore, Purged};
use super::write::Write;
use crate::clock::UnixMicros;
use crate::store::{Committer, CommitterStats, Database, Durability, StoreError};
use purge::Job;
use rows::{array, conflict_of_row, document_of_row, log_of_row, operation_of_row};

/// Rows, and bytes in them, that are read at once; a row may exceed the bytes alone.
const PAGE_ROWS: u32 = 1000;
const PAGE_BYTES: usize = 3 << 20;

const SCHEMAS: [&str; 4] = [
    "
CREATE TABLE IF NOT EXISTS documents (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    epoch TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    updated_at_us INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    snapshot_version INTEGER NOT NULL,
    snapshot BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS operations (
    doc_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    op_id BLOB NOT NULL,
    session_id BLOB NOT NULL,
    session_sequence INTEGER NOT NULL,
    idempotency_key TEXT,
    digest BLOB NOT NULL,
    hybrid_time INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    operation BLOB NOT NULL,
    yjs_update BLOB NOT NULL,
    sent_base INTEGER,
    sent_data BLOB,
    PRIMARY KEY (doc_id, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS operations_by_id ON operations (doc_id, op_id);
CREATE UNIQUE INDEX IF NOT EXISTS operations_by_key ON operations (doc_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
",
    "
ALTER TABLE documents ADD COLUMN described_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE documents ADD COLUMN typed INTEGER NOT NULL DEFAULT 0;
UPDATE documents SET typed = 1 WHERE type = 'text';
ALTER TABLE documents ADD COLUMN public INTEGER NOT NULL DEFAULT 0;
ALTER TABLE documents ADD COLUMN lock BLOB;
ALTER TABLE documents ADD COLUMN lock_until_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE operations ADD COLUMN quiet INTEGER NOT NULL DEFAULT 0;
CREATE INDEX documents_by_creation ON documents (created_at_us, id);
CREATE TABLE readers (
    user_id TEXT NOT NULL,
    doc_id BLOB NOT NULL,
    PRIMARY KEY (doc_id, user_id)
) WITHOUT ROWID;
INSERT INTO readers SELECT created_by, id FROM documents;
CREATE TABLE conflicts (
    id BLOB PRIMARY KEY,
    doc_id BLOB NOT NULL,
    created_at_us INTEGER NOT NULL,
    resolved INTEGER NOT NULL,
    conflict BLOB NOT NULL,
    pending_op BLOB,
    pending_key TEXT,
    pending_digest BLOB
) WITHOUT ROWID;
CREATE INDEX conflicts_by_document ON conflicts (doc_id, created_at_us, id);
CREATE INDEX conflicts_by_operation ON conflicts (doc_id, pending_op) WHERE pending_op IS NOT NULL;
",
    "
ALTER TABLE conflicts ADD COLUMN pending_since INTEGER;
",
    "
CREATE INDEX documents_deleted ON documents (updated_at_us) WHERE state IN ('deleted', 'purging');
",
];

/// Documents in one SQLite file.
pub struct SqliteDocuments {
    database: Database,
    committer: Committer<Job>,
}

impl SqliteDocuments {
    /// Opens the database at `path`. The returned task ends when the store is gone.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &std::path::Path, durability: Durability) -> Result<(Self, JoinHandle<()>), StoreError> {
        let database = Database::open(path, durability, &SCHEMAS).await?;
        let (committer, task) = Committer::start(&database).await?;
        Ok((Self { database, committer }, task))
    }
}

#[tonic::async_trait]
impl DocumentStore for SqliteDocuments {
    async fn create(&self, record: DocumentRecord) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.committer.submit(Job::Write(Write::Create(Box::new(record), done))).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn submit(&self, batch: Batch) -> Result<(), StoreError> {
        self.committer.submit(Job::Write(Write::Batch(Box::new(batch)))).await
    }

    async fn document(&self, id: Uuid) -> Result<Option<DocumentRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM documents WHERE id = ? AND state <> 'purging'");
        let query = query.bind(id.as_bytes().as_slice());
        query.fetch_optional(&self.database.readers).await?.map(|row| document_of_row(&row)).transpose()
    }

    async fn list(&self, filter: &DocumentFilter) -> Result<(Vec<DocumentRecord>, u64), StoreError> {
        let mut page = matching(
            "SELECT id, name, type, state, version, epoch, created_by, created_at_us, updated_by, updated_at_us, metadata,
            described_version, snapshot_version, x'' AS snapshot, typed, lock",
            filter,
        );
        page.push(" ORDER BY created_at_us, id LIMIT ").push_bind(filter.limit);
        page.push(" OFFSET ").push_bind(filter.offset);
        // One transaction, so that the page and the count are of the same moment.
        let mut snapshot = self.database.readers.begin().await?;
        let total: i64 = matching("SELECT count(*)", filter).build_query_scalar().fetch_one(&mut *snapshot).await?;
        let rows = page.build().fetch_all(&mut *snapshot).await?;
        Ok((rows.iter().map(document_of_row).collect::<Result<_, _>>()?, total as u64))
    }

    async fn operations_after(&self, id: Uuid, after: u64) -> Result<Vec<LogRow>, StoreError> {
        let mut rows =
            sqlx::query("SELECT * FROM operations WHERE doc_id = ? AND version > ? ORDER BY version LIMIT ?")
                .bind(id.as_bytes().as_slice())
                .bind(after as i64)
                .bind(PAGE_ROWS)
                .fetch(&self.database.readers);
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let row = log_of_row(&row)?;
            bytes += row.operation.data.len() + row.update.len();
            page.push(row);
            if bytes > PAGE_BYTES {
                break;
            }
        }
        Ok(page)
    }

    async fn newest_rows(&self, id: Uuid, limits: (u32, u64)) -> Result<Option<u64>, StoreError> {
        let query = "SELECT min(version) FROM (
                SELECT version, sum(length(operation) + length(yjs_update)) OVER (ORDER BY version DESC) AS total
                FROM (SELECT * FROM operations WHERE doc_id = ? ORDER BY version DESC LIMIT ?)
            ) WHERE total <= ?";
        let oldest: Option<i64> = sqlx::query_scalar(query)
            .bind(id.as_bytes().as_slice())
            .bind(limits.0)
            .bind(limits.1 as i64)
            .fetch_one(&self.database.readers)
            .await?;
        Ok(oldest.map(|version| version as u64 - 1))
    }

    async fn operations_last(&self, id: Uuid, limit: u32) -> Result<Vec<pb::Operation>, StoreError> {
        let query = "SELECT operation FROM operations WHERE doc_id = ? ORDER BY version DESC LIMIT ?";
        let mut rows = sqlx::query(query).bind(id.as_bytes().as_slice()).bind(limit).fetch(&self.database.readers);
        let (mut operations, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let operation = operation_of_row(&row)?;
            bytes += operation.encoded_len();
            if bytes > PAGE_BYTES && !operations.is_empty() {
                break;
            }
            operations.push(operation);
        }
        operations.reverse();
        Ok(operations)
    }

    async fn operation(&self, id: Uuid, version: u64) -> Result<Option<pb::Operation>, StoreError> {
        let query = sqlx::query("SELECT operation FROM operations WHERE doc_id = ? AND version = ?")
            .bind(id.as_bytes().as_slice())
            .bind(version as i64);
        query.fetch_optional(&self.database.readers).await?.map(|row| operation_of_row(&row)).transpose()
    }

    async fn find_operation(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<([u8; 32], u64)>, StoreError> {
        let query = "SELECT digest, version FROM operations WHERE doc_id = ?1 AND (op_id = ?2 OR idempotency_key = ?3)";
        let row = sqlx::query(query)
            .bind(id.as_bytes().as_slice())
            .bind(op_id.as_bytes().as_slice())
            .bind((!key.is_empty()).then_some(key))
            .fetch_optional(&self.database.readers)
            .await?;
        row.map(|row| Ok((array(&row, "digest")?, row.try_get::<i64, _>("version")? as u64))).transpose()
    }

    async fn conflicts(&self, id: Uuid, filter: ConflictFilter) -> Result<(Vec<ConflictRecord>, u64), StoreError> {
        let which = "FROM conflicts WHERE doc_id = ?1 AND resolved <= ?2";
        let resolved_max = i64::from(!filter.unresolved_only);
        let mut snapshot = self.database.readers.begin().await?;
        let total: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) {which}")))
            .bind(id.as_bytes().as_slice())
            .bind(resolved_max)
            .fetch_one(&mut *snapshot)
            .await?;
        let page = format!("SELECT * {which} ORDER BY created_at_us, id LIMIT ?3 OFFSET ?4");
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(page))
            .bind(id.as_bytes().as_slice())
            .bind(resolved_max)
            .bind(filter.limit)
            .bind(filter.offset)
            .fetch(&mut *snapshot);
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let record = conflict_of_row(&row)?;
            bytes += record.conflict.encoded_len();
            if bytes > PAGE_BYTES && !page.is_empty() {
                break;
            }
            page.push(record);
        }
        Ok((page, total as u64))
    }

    async fn conflict(&self, id: Uuid, conflict_id: Uuid) -> Result<Option<ConflictRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM conflicts WHERE id = ? AND doc_id = ?");
        let query = query.bind(conflict_id.as_bytes().as_slice()).bind(id.as_bytes().as_slice());
        query.fetch_optional(&self.database.readers).await?.map(|row| conflict_of_row(&row)).transpose()
    }

    async fn find_pending(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<ConflictRecord>, StoreError> {
        let query = "SELECT * FROM conflicts
            WHERE doc_id = ?1 AND pending_op IS NOT NULL AND (pending_op = ?2 OR pending_key = ?3) LIMIT 1";
        let row = sqlx::query(query)
            .bind(id.as_bytes().as_slice())
            .bind(op_id.as_bytes().as_slice())
            .bind((!key.is_empty()).then_some(key))
            .fetch_optional(&self.database.readers)
            .await?;
        row.map(|row| conflict_of_row(&row)).transpose()
    }

    async fn purge(&self, before: UnixMicros) -> Result<Purged, StoreError> {
        // The one who writes is not asked for nothing. The first condition is that of the index.
        let query = "SELECT EXISTS (SELECT 1 FROM documents
            WHERE state IN ('deleted', 'purging') AND (state = 'purging' OR updated_at_us <= ?))";
        if !sqlx::query_scalar::<_, bool>(query).bind(before.0).fetch_one(&self.database.readers).await? {
            return Ok(Purged::default());
        }
        let (done, result) = oneshot::channel();
        self.committer.submit(Job::Purge(before, done)).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn counts(&self, now: UnixMicros) -> Result<DocumentCounts, StoreError> {
        let query =
            "SELECT count(*), count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state = 'archived'),
                coalesce(sum(version - 1), 0), count(*) FILTER (WHERE lock_until_us > ?),
                (SELECT count(*) FROM conflicts), (SELECT count(*) FROM conflicts WHERE resolved = 1)
            FROM documents WHERE state <> 'purging'";
        let row = sqlx::query(query).bind(now.0).fetch_one(&self.database.readers).await?;
        let count = |index: usize| row.try_get::<i64, _>(index).map(|count| count as u64);
        Ok(DocumentCounts {
            documents: count(0)?,
            active: count(1)?,
            archived: count(2)?,
            operations: count(3)?,
            locks: count(4)?,
            conflicts: count(5)?,
            resolved: count(6)?,
        })
    }

    async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT id FROM documents LIMIT 1").fetch_optional(&self.database.readers).await?;
        self.committer.probe().await
    }

    fn commits(&self) -> &CommitterStats {
        self.committer.stats()
    }
}

fn matching(select: &str, filter: &DocumentFilter) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(select);
    query.push(" FROM documents WHERE ");
    if filter.state.is_empty() {
        query.push("state NOT IN ('deleted', 'purging')");
    } else {
        query.push("state = ").push_bind(filter.state.clone());
    }
    for (column, value) in [("type", &filter.kind), ("created_by", &filter.created_by)] {
        if !value.is_empty() {
            query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
        }
    }
    if !filter.user_id.is_empty() {
        query.push(" AND (public = 1 OR EXISTS (SELECT 1 FROM readers WHERE doc_id = documents.id AND user_id = ");
        query.push_bind(filter.user_id.clone()).push("))");
    }
    query
}
