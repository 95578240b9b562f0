//! Removing documents for good, in steps that are short beside a statement's time.

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::failure::Failure;
use super::rows::Timestamptz;
use crate::clock::UnixMicros;
use crate::statesync::store::{PURGED_DOCUMENTS_MAX, PURGED_ROWS_MAX, Purged};

/// What another service has in its hands is left to it. The first condition is that of the index.
const BEGIN: &str = "UPDATE documents SET state = 'purging' WHERE id IN (
        SELECT id FROM documents
        WHERE state IN ('deleted', 'purging') AND state = 'deleted' AND updated_at <= $1
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
    ) RETURNING id";
const BEGUN: &str = "SELECT id FROM documents WHERE state IN ('deleted', 'purging') AND state = 'purging'
    ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED";
/// By their places, because nobody changes these rows any more.
const REMOVE_ROWS: [&str; 2] = [
    "DELETE FROM operations WHERE ctid = ANY (ARRAY(SELECT ctid FROM operations WHERE doc_id = ANY ($1) LIMIT $2))",
    "DELETE FROM conflicts WHERE ctid = ANY (ARRAY(SELECT ctid FROM conflicts WHERE doc_id = ANY ($1) LIMIT $2))",
];
/// Snapshots, readers and locks go with it.
const REMOVE: &str = "DELETE FROM documents WHERE id = ANY ($1)";

/// Begins to remove what was deleted by `before`, and goes on with what was begun.
pub(super) async fn step(connection: &mut PgConnection, before: UnixMicros) -> Result<Purged, Failure> {
    let mut transaction = connection.begin().await?;
    let begin = sqlx::query_scalar(BEGIN).bind(Timestamptz(before)).bind(PURGED_DOCUMENTS_MAX as i64);
    let documents: Vec<Uuid> = begin.fetch_all(&mut *transaction).await?;
    let begun = sqlx::query_scalar(BEGUN).bind(PURGED_DOCUMENTS_MAX as i64);
    let begun: Vec<Uuid> = begun.fetch_all(&mut *transaction).await?;
    let mut left = PURGED_ROWS_MAX as i64;
    for remove in REMOVE_ROWS {
        if left > 0 && !begun.is_empty() {
            let removed = sqlx::query(remove).bind(&begun).bind(left).execute(&mut *transaction).await?;
            left -= removed.rows_affected() as i64;
        }
    }
    if left > 0 && !begun.is_empty() {
        sqlx::query(REMOVE).bind(&begun).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(Purged { documents, more: left == 0 || begun.len() == PURGED_DOCUMENTS_MAX })
}
