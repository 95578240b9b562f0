//! What is written, inside the transaction of its group.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use uuid::Uuid;

use crate::statesync::model::{ConflictRecord, DocumentRecord, LogRow};
use crate::statesync::store::Batch;
use crate::statesync::write::Write;

/// Rows in one statement.
const ROWS_MAX: usize = 64;

/// Does a write inside the transaction that `connection` has open.
pub(super) async fn write(connection: &mut SqliteConnection, write: &Write) -> Result<(), sqlx::Error> {
    match write {
        Write::Create(record, _) => create(connection, record).await,
        // Kept without the one before it, it would leave a gap in the log.
        Write::Batch(batch) if batch.is_void() => {
            Err(sqlx::Error::Protocol("an earlier write of the document failed".to_owned()))
        }
        Write::Batch(batch) => write_batch(connection, batch).await,
    }
}

async fn create(connection: &mut SqliteConnection, record: &DocumentRecord) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO documents (id, name, type, state, version, epoch, created_by, created_at_us, updated_by,
        updated_at_us, metadata, snapshot_version, snapshot, typed, public)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let (users, public) = crate::statesync::model::readers(record);
    sqlx::query(insert)
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
        .bind(record.snapshot.version as i64)
        .bind(record.snapshot.state.as_ref())
        .bind(record.snapshot.typed)
        .bind(public)
        .execute(&mut *connection)
        .await?;
    insert_readers(connection, record.id, users).await
}

async fn write_readers(connection: &mut SqliteConnection, record: &DocumentRecord) -> Result<(), sqlx::Error> {
    let (users, public) = crate::statesync::model::readers(record);
    let id = record.id.as_bytes().as_slice();
    sqlx::query("UPDATE documents SET public = ? WHERE id = ?").bind(public).bind(id).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM readers WHERE doc_id = ?").bind(id).execute(&mut *connection).await?;
    insert_readers(connection, record.id, users).await
}

async fn insert_readers(
    connection: &mut SqliteConnection,
    doc_id: Uuid,
    users: BTreeSet<&str>,
) -> Result<(), sqlx::Error> {
    let users: Vec<&str> = users.into_iter().collect();
    for users in users.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO readers (user_id, doc_id) ");
        insert.push_values(users, |mut columns, user| {
            columns.push_bind(*user).push_bind(doc_id.as_bytes().as_slice());
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn write_batch(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    let id = batch.doc_id.as_bytes().as_slice();
    let mut appended = Appended::default();
    appended.add(batch);
    appended.write(connection).await?;
    if let Some(record) = &batch.described {
        let update = "UPDATE documents SET name = ?, state = ?, metadata = ?, described_version = ? WHERE id = ?";
        sqlx::query(update)
            .bind(&record.name)
            .bind(&record.state)
            .bind(record.metadata.encode_to_vec())
            .bind(record.described_version as i64)
            .bind(id)
            .execute(&mut *connection)
            .await?;
        write_readers(connection, record).await?;
    }
    if let Some(lock) = &batch.lock {
        let update = sqlx::query("UPDATE documents SET lock = ?, lock_until_us = ? WHERE id = ?");
        let encoded = lock.to_proto(batch.doc_id, lock.acquired_at).encode_to_vec();
        update.bind(encoded).bind(lock.expires_at.0).bind(id).execute(&mut *connection).await?;
    }
    for record in &batch.conflicts {
        write_conflict(connection, id, record).await?;
    }
    if let Some(snapshot) = &batch.snapshot {
        sqlx::query("UPDATE documents SET snapshot_version = ?, snapshot = ?, typed = ? WHERE id = ?")
            .bind(snapshot.version as i64)
            .bind(snapshot.state.as_ref())
            .bind(snapshot.typed)
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    if let Some(newest) = batch.trim {
        let delete = sqlx::query("DELETE FROM operations WHERE doc_id = ? AND version <= ?");
        delete.bind(id).bind(newest as i64).execute(connection).await?;
    }
    Ok(())
}

async fn write_conflict(
    connection: &mut SqliteConnection,
    id: &[u8],
    record: &ConflictRecord,
) -> Result<(), sqlx::Error> {
    let pending = record.pending.as_ref();
    sqlx::query("INSERT OR REPLACE INTO conflicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(record.id.as_bytes().as_slice())
        .bind(id)
        .bind(record.created_at.0)
        .bind(record.is_resolved())
        .bind(record.conflict.encode_to_vec())
        .bind(pending.map(|pending| pending.op_id.as_bytes().as_slice()))
        .bind(pending.map(|pending| pending.idempotency_key.as_str()).filter(|key| !key.is_empty()))
        .bind(pending.map(|pending| pending.digest.as_slice()))
        .bind(pending.and_then(|pending| pending.since).map(|since| since as i64))
        .execute(connection)
        .await
        .map(drop)
}

/// Operations of several documents on their way into the log.
#[derive(Default)]
pub(super) struct Appended<'a> {
    rows: Vec<(Uuid, &'a LogRow)>,
    /// The last row of each document.
    last: BTreeMap<Uuid, &'a LogRow>,
}

impl<'a> Appended<'a> {
    /// The operations of a batch come after those that are there.
    pub(super) fn add(&mut self, batch: &'a Batch) {
        self.rows.extend(batch.rows.iter().map(|row| (batch.doc_id, row.as_ref())));
        if let Some(last) = batch.rows.last() {
            self.last.insert(batch.doc_id, last);
        }
    }

    /// Writes them with few statements, each of which is a way to the thread of the connection and back; none are left.
    pub(super) async fn write(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for rows in self.rows.chunks(ROWS_MAX) {
            insert(connection, rows).await?;
        }
        self.rows.clear();
        let last: Vec<(Uuid, &LogRow)> = std::mem::take(&mut self.last).into_iter().collect();
        for last in last.chunks(ROWS_MAX) {
            raise(connection, last).await?;
        }
        Ok(())
    }
}

async fn insert(connection: &mut SqliteConnection, rows: &[(Uuid, &LogRow)]) -> Result<(), sqlx::Error> {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO operations ");
    insert.push_values(rows, |mut columns, (doc_id, row)| {
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
            .push_bind(row.sent.as_ref().map(|(_, data)| data.as_ref()))
            .push_bind(row.quiet);
    });
    insert.build().execute(connection).await.map(drop)
}

/// Raises documents to the versions of these rows, one of each document.
async fn raise(connection: &mut SqliteConnection, last: &[(Uuid, &LogRow)]) -> Result<(), sqlx::Error> {
    let mut update = QueryBuilder::<Sqlite>::new(
        "UPDATE documents SET version = raised.column2, updated_by = raised.column3, updated_at_us = raised.column4 FROM (",
    );
    update.push_values(last, |mut columns, (doc_id, row)| {
        columns
            .push_bind(doc_id.as_bytes().as_slice())
            .push_bind(row.operation.version as i64)
            .push_bind(&row.operation.user_id)
            .push_bind(row.time.wall().0);
    });
    update.push(") AS raised WHERE documents.id = raised.column1 AND documents.state <> 'purging'");
    let raised = update.build().execute(connection).await?.rows_affected();
    if raised == last.len() as u64 {
        return Ok(());
    }
    Err(sqlx::Error::Protocol("the document was removed for good".to_owned()))
}
