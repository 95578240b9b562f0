//! Removing documents for good, by the one who writes.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Sqlite};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::rows::array;
use super::write::{Appended, write};
use crate::clock::UnixMicros;
use crate::statesync::store::{PURGED_DOCUMENTS_MAX, PURGED_ROWS_MAX, Purged};
use crate::statesync::write::Write;
use crate::store::{GroupWrite, StoreError};

/// What the one who writes does.
pub(super) enum Job {
    /// A write to a document.
    Write(Write),
    /// A step of removing what was deleted by then, and who is told what it did.
    Purge(UnixMicros, oneshot::Sender<Result<Purged, StoreError>>),
}

impl GroupWrite for Job {
    /// Of a write: nothing.
    type Output = Purged;

    fn bytes(&self) -> usize {
        match self {
            Job::Write(write) => write.size(),
            Job::Purge(..) => PURGED_ROWS_MAX,
        }
    }

    fn operations(&self) -> u64 {
        match self {
            Job::Write(write) => write.count(),
            Job::Purge(..) => 0,
        }
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<Purged, sqlx::Error> {
        match self {
            Job::Write(one) => write(connection, one).await.map(|()| Purged::default()),
            Job::Purge(before, _) => purge(connection, *before).await,
        }
    }

    async fn write_group(group: &[Self], connection: &mut SqliteConnection) -> Result<Vec<Purged>, sqlx::Error> {
        let mut outputs = Vec::with_capacity(group.len());
        let mut appended = Appended::default();
        for job in group {
            if let Job::Write(Write::Batch(batch)) = job
                && batch.only_appends()
                && !batch.is_void()
            {
                appended.add(batch);
                outputs.push(Purged::default());
                continue;
            }
            // What a document had before.
            appended.write(connection).await?;
            outputs.push(job.write(connection).await?);
        }
        appended.write(connection).await?;
        Ok(outputs)
    }

    fn done(self, result: Result<Purged, StoreError>) {
        match self {
            Job::Write(write) => write.finish(result.map(drop)),
            // Whoever asked may have gone; the next step goes on.
            Job::Purge(_, done) => drop(done.send(result)),
        }
    }
}

async fn purge(connection: &mut SqliteConnection, before: UnixMicros) -> Result<Purged, sqlx::Error> {
    // The first condition is that of the index.
    let due = "SELECT id FROM documents
        WHERE state IN ('deleted', 'purging') AND state = 'deleted' AND updated_at_us <= ? LIMIT ?";
    let due = sqlx::query(due).bind(before.0).bind(PURGED_DOCUMENTS_MAX as i64);
    let documents = ids(&due.fetch_all(&mut *connection).await?)?;
    for id in &documents {
        let begin = sqlx::query("UPDATE documents SET state = 'purging' WHERE id = ?");
        begin.bind(id.as_bytes().as_slice()).execute(&mut *connection).await?;
    }
    let begun = "SELECT id FROM documents WHERE state IN ('deleted', 'purging') AND state = 'purging' LIMIT ?";
    let begun = sqlx::query(begun).bind(PURGED_DOCUMENTS_MAX as i64).fetch_all(&mut *connection).await?;
    let begun = ids(&begun)?;
    let mut left = PURGED_ROWS_MAX;
    for id in &begun {
        left -= remove_rows(connection, *id, left).await?;
        if left == 0 {
            break;
        }
        for table in ["readers WHERE doc_id", "documents WHERE id"] {
            let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM ");
            delete.push(table).push(" = ").push_bind(id.as_bytes().as_slice());
            delete.build().execute(&mut *connection).await?;
        }
    }
    Ok(Purged { documents, more: left == 0 || begun.len() == PURGED_DOCUMENTS_MAX })
}

/// Removes operations and conflicts of a document, at most so many; gives how many.
async fn remove_rows(connection: &mut SqliteConnection, id: Uuid, rows_max: usize) -> Result<usize, sqlx::Error> {
    let mut removed = 0;
    for (table, key) in [("operations", "version"), ("conflicts", "id")] {
        let mut delete = QueryBuilder::<Sqlite>::new("DELETE FROM ");
        delete.push(table).push(" WHERE doc_id = ").push_bind(id.as_bytes().as_slice());
        delete.push(format_args!(" AND {key} IN (SELECT {key} FROM {table} WHERE doc_id = "));
        delete.push_bind(id.as_bytes().as_slice());
        delete.push(" LIMIT ").push_bind((rows_max - removed) as i64).push(")");
        removed += delete.build().execute(&mut *connection).await?.rows_affected() as usize;
    }
    Ok(removed)
}

fn ids(rows: &[SqliteRow]) -> Result<Vec<Uuid>, sqlx::Error> {
    let corrupt = |error: StoreError| sqlx::Error::Protocol(error.to_string());
    rows.iter().map(|row| array(row, "id").map(Uuid::from_bytes).map_err(corrupt)).collect()
}
