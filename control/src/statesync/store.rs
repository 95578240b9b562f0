//! Documents and their logs in SQLite.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use prost::Message;
use proto::statesync as pb;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::model::{DocumentRecord, Durability, LogRow};
use crate::clock::{HybridTime, UnixMicros};
use crate::store::{Committer, CommitterStats, Database, GroupWrite, StoreError};

/// Rows in one INSERT statement.
const INSERT_ROWS_MAX: usize = 64;
/// Rows, and bytes in them, that are read at once; a row may exceed the bytes alone.
const PAGE_ROWS: u32 = 1000;
const PAGE_BYTES: usize = 3 << 20;

const SCHEMA: &str = "
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
";

/// A write to the documents, done when its group is on disk.
pub enum Write {
    /// A document that does not exist yet.
    Create {
        /// The document.
        record: Box<DocumentRecord>,
        /// Is told when it is there.
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Consecutive operations of one document.
    Append {
        /// The document.
        doc_id: Uuid,
        /// At least one, in order.
        rows: Vec<Arc<LogRow>>,
        /// The state after some version in or before `rows`, if it is time to keep one.
        snapshot: Option<(u64, Bytes)>,
        /// Is told the last version.
        durable: watch::Sender<Durability>,
    },
}

impl GroupWrite for Write {
    type Output = ();

    fn bytes(&self) -> usize {
        match self {
            Write::Create { record, .. } => 512 + record.snapshot.len(),
            Write::Append { rows, snapshot, .. } => {
                let snapshot = snapshot.as_ref().map_or(0, |(_, state)| state.len());
                rows.iter().map(|row| 256 + row.operation.data.len() + row.update.len()).sum::<usize>() + snapshot
            }
        }
    }

    fn operations(&self) -> u64 {
        match self {
            Write::Create { .. } => 1,
            Write::Append { rows, .. } => rows.len() as u64,
        }
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        match self {
            Write::Create { record, .. } => create(connection, record).await,
            Write::Append { doc_id, rows, snapshot, .. } => append(connection, *doc_id, rows, snapshot.as_ref()).await,
        }
    }

    fn done(self, result: Result<(), StoreError>) {
        match self {
            // Whoever asked may have gone; the document stays.
            Write::Create { done, .. } => drop(done.send(result)),
            Write::Append { rows, durable, .. } => {
                let last = rows.last().map_or(0, |row| row.operation.version);
                durable.send_modify(|state| match result {
                    Ok(()) => state.version = state.version.max(last),
                    Err(error) => state.failed = Some(error),
                });
            }
        }
    }
}

async fn create(connection: &mut SqliteConnection, record: &DocumentRecord) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(record.id.as_bytes().as_slice())
        .bind(&record.name)
        .bind(&record.kind)
        .bind(&record.state)
        .bind(record.version as i64)
        .bind(&record.epoch)
        .bind(&record.created_by)
        .bind(record.created_at.0)
        .bind(&record.updated_by)
        .bind(record.updated_at.0)
        .bind(record.metadata.encode_to_vec())
        .bind(record.snapshot_version as i64)
        .bind(record.snapshot.as_ref())
        .execute(connection)
        .await
        .map(drop)
}

async fn append(
    connection: &mut SqliteConnection,
    doc_id: Uuid,
    rows: &[Arc<LogRow>],
    snapshot: Option<&(u64, Bytes)>,
) -> Result<(), sqlx::Error> {
    for rows in rows.chunks(INSERT_ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO operations ");
        insert.push_values(rows, |mut columns, row| {
            let key = &row.idempotency_key;
            columns
                .push_bind(doc_id.as_bytes().as_slice())
                .push_bind(row.operation.version as i64)
                .push_bind(row.op_id.as_bytes().as_slice())
                .push_bind(row.session_id.as_bytes().as_slice())
                .push_bind(row.operation.session_sequence as i64)
                .push_bind((!key.is_empty()).then_some(key.as_str()))
                .push_bind(row.digest.as_slice())
                .push_bind(row.time.0 as i64)
                .push_bind(row.sequence as i64)
                .push_bind(row.operation.encode_to_vec())
                .push_bind(row.update.as_ref())
                .push_bind(row.sent.as_ref().map(|(base, _)| *base as i64))
                .push_bind(row.sent.as_ref().map(|(_, data)| data.as_ref()));
        });
        insert.build().execute(&mut *connection).await?;
    }
    let Some(last) = rows.last() else { return Ok(()) };
    sqlx::query("UPDATE documents SET version = ?, updated_by = ?, updated_at_us = ? WHERE id = ?")
        .bind(last.operation.version as i64)
        .bind(&last.operation.user_id)
        .bind(last.time.wall().0)
        .bind(doc_id.as_bytes().as_slice())
        .execute(&mut *connection)
        .await?;
    if let Some((version, state)) = snapshot {
        sqlx::query("UPDATE documents SET snapshot_version = ?, snapshot = ? WHERE id = ?")
            .bind(*version as i64)
            .bind(state.as_ref())
            .bind(doc_id.as_bytes().as_slice())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// The documents on disk.
#[derive(Clone)]
pub struct DocumentStore {
    database: Database,
    committer: Committer<Write>,
}

impl DocumentStore {
    /// Opens the database at `path`. The returned task ends when all clones of the store are gone.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &std::path::Path) -> Result<(Self, JoinHandle<()>), StoreError> {
        let database = Database::open(path, &[SCHEMA]).await?;
        let (committer, task) = Committer::start(&database).await?;
        Ok((Self { database, committer }, task))
    }

    /// Queues a write.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn submit(&self, write: Write) -> Result<(), StoreError> {
        self.committer.submit(write).await
    }

    /// Stores a new document; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(&self, record: DocumentRecord) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.submit(Write::Create { record: Box::new(record), done }).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// The document with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn document(&self, id: Uuid) -> Result<Option<DocumentRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM documents WHERE id = ?").bind(id.as_bytes().as_slice());
        query.fetch_optional(&self.database.readers).await?.map(|row| document_of_row(&row)).transpose()
    }

    /// Operations with versions after `after`, at most a page of them, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn operations_after(&self, id: Uuid, after: u64) -> Result<Vec<LogRow>, StoreError> {
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

    /// The version before the newest rows that fit `limits`, in number and in bytes; `None` if there is not one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn newest_rows(&self, id: Uuid, limits: (u32, u64)) -> Result<Option<u64>, StoreError> {
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

    /// The newest operations, oldest first: at most `limit`, and no more than fit a message.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn operations_last(&self, id: Uuid, limit: u32) -> Result<Vec<pb::Operation>, StoreError> {
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

    /// The operation that made `version`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn operation(&self, id: Uuid, version: u64) -> Result<Option<pb::Operation>, StoreError> {
        let query = sqlx::query("SELECT operation FROM operations WHERE doc_id = ? AND version = ?")
            .bind(id.as_bytes().as_slice())
            .bind(version as i64);
        query.fetch_optional(&self.database.readers).await?.map(|row| operation_of_row(&row)).transpose()
    }

    /// The operation with this id or this idempotency key: its digest and version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_operation(
        &self,
        id: Uuid,
        op_id: Uuid,
        key: &str,
    ) -> Result<Option<([u8; 32], u64)>, StoreError> {
        let query = "SELECT digest, version FROM operations WHERE doc_id = ?1 AND (op_id = ?2 OR idempotency_key = ?3)";
        let row = sqlx::query(query)
            .bind(id.as_bytes().as_slice())
            .bind(op_id.as_bytes().as_slice())
            .bind((!key.is_empty()).then_some(key))
            .fetch_optional(&self.database.readers)
            .await?;
        row.map(|row| Ok((array(&row, "digest")?, row.try_get::<i64, _>("version")? as u64))).transpose()
    }

    /// Whether the store can read and its writer runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT id FROM documents LIMIT 1").fetch_optional(&self.database.readers).await?;
        if self.committer.is_running() { Ok(()) } else { Err(StoreError::Closed) }
    }

    /// What was committed so far.
    pub fn stats(&self) -> &CommitterStats {
        self.committer.stats()
    }
}

fn array<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| StoreError::Corrupt(column.to_owned()))
}

fn operation_of_row(row: &SqliteRow) -> Result<pb::Operation, StoreError> {
    let encoded: &[u8] = row.try_get("operation")?;
    pb::Operation::decode(encoded).map_err(|_| StoreError::Corrupt("operation".into()))
}

fn log_of_row(row: &SqliteRow) -> Result<LogRow, StoreError> {
    let update: Vec<u8> = row.try_get("yjs_update")?;
    let base: Option<i64> = row.try_get("sent_base")?;
    let data: Option<Vec<u8>> = row.try_get("sent_data")?;
    Ok(LogRow {
        operation: operation_of_row(row)?,
        op_id: Uuid::from_bytes(array(row, "op_id")?),
        session_id: Uuid::from_bytes(array(row, "session_id")?),
        idempotency_key: row.try_get::<Option<String>, _>("idempotency_key")?.unwrap_or_default(),
        digest: array(row, "digest")?,
        time: HybridTime(row.try_get::<i64, _>("hybrid_time")? as u64),
        sequence: row.try_get::<i64, _>("sequence")? as u64,
        update: update.into(),
        sent: base.zip(data).map(|(base, data)| (base as u64, data.into())),
    })
}

fn document_of_row(row: &SqliteRow) -> Result<DocumentRecord, StoreError> {
    let metadata: &[u8] = row.try_get("metadata")?;
    let snapshot: Vec<u8> = row.try_get("snapshot")?;
    Ok(DocumentRecord {
        id: Uuid::from_bytes(array(row, "id")?),
        name: row.try_get("name")?,
        kind: row.try_get("type")?,
        state: row.try_get("state")?,
        version: row.try_get::<i64, _>("version")? as u64,
        epoch: row.try_get("epoch")?,
        created_by: row.try_get("created_by")?,
        created_at: UnixMicros(row.try_get("created_at_us")?),
        updated_by: row.try_get("updated_by")?,
        updated_at: UnixMicros(row.try_get("updated_at_us")?),
        metadata: pb::Metadata::decode(metadata).map_err(|_| StoreError::Corrupt("metadata".into()))?,
        snapshot_version: row.try_get::<i64, _>("snapshot_version")? as u64,
        snapshot: snapshot.into(),
    })
}
