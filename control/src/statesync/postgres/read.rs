//! What is read, one function per question.

use futures_util::TryStreamExt;
use proto::statesync as pb;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::failure::Failure;
use super::rows::{
    DOCUMENT, DOCUMENT_TABLES, Timestamptz, conflict_of_row, digest, document_of_row, log_of_row, number,
    operation_of_row,
};
use crate::clock::UnixMicros;
use crate::statesync::model::{ConflictRecord, DocumentRecord, LogRow};
use crate::statesync::store::{ConflictFilter, DocumentCounts, DocumentFilter};

/// Rows, and bytes in them, that are read at once; a row may exceed the bytes alone.
const PAGE_ROWS: i64 = 1000;
const PAGE_BYTES: i64 = 3 << 20;

/// What is counted and paged is of the same moment.
const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub(super) async fn document(connection: &mut PgConnection, id: Uuid) -> Result<Option<DocumentRecord>, Failure> {
    let mut query = QueryBuilder::<Postgres>::new("SELECT ");
    query.push(DOCUMENT).push(", content AS snapshot FROM ").push(DOCUMENT_TABLES);
    query.push(" WHERE state <> 'purging' AND documents.id = ").push_bind(id);
    query.build().fetch_optional(connection).await?.map(|row| document_of_row(&row)).transpose()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    filter: &DocumentFilter,
) -> Result<(Vec<DocumentRecord>, u64), Failure> {
    let mut count = QueryBuilder::<Postgres>::new("SELECT count(*) FROM documents");
    push_filter(&mut count, filter);
    let mut page = QueryBuilder::<Postgres>::new("SELECT ");
    page.push(DOCUMENT).push(", ''::bytea AS snapshot FROM ").push(DOCUMENT_TABLES);
    push_filter(&mut page, filter);
    page.push(" ORDER BY created_at, documents.id LIMIT ").push_bind(i64::from(filter.limit));
    page.push(" OFFSET ").push_bind(i64::from(filter.offset));
    let mut moment = connection.begin_with(ONE_MOMENT).await?;
    let total: i64 = count.build_query_scalar().fetch_one(&mut *moment).await?;
    let rows = page.build().fetch_all(&mut *moment).await?;
    moment.commit().await?;
    Ok((rows.iter().map(document_of_row).collect::<Result<_, _>>()?, total as u64))
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &DocumentFilter) {
    if filter.state.is_empty() {
        query.push(" WHERE state NOT IN ('deleted', 'purging')");
    } else {
        query.push(" WHERE state = ").push_bind(filter.state.clone());
    }
    for (column, value) in [("type", &filter.kind), ("created_by", &filter.created_by)] {
        if !value.is_empty() {
            query.push(format_args!(" AND {column} = ")).push_bind(value.clone());
        }
    }
    if !filter.user_id.is_empty() {
        query.push(" AND (public OR documents.id IN (SELECT doc_id FROM readers WHERE readers.user_id = ");
        query.push_bind(filter.user_id.clone()).push("))");
    }
}

/// A page ends with the first row that exceeds its bytes.
pub(super) async fn operations_after(
    connection: &mut PgConnection,
    id: Uuid,
    after: u64,
) -> Result<Vec<LogRow>, Failure> {
    let query = "SELECT * FROM (
            SELECT version, op_id, session_id, idempotency_key, digest, hybrid_time, sequence, operation, yjs_update, sent_base,
                sent_data, quiet, length(operation) + length(yjs_update) AS bytes,
                sum(length(operation) + length(yjs_update)) OVER (ORDER BY version) AS total
            FROM operations WHERE doc_id = $1 AND version > $2 ORDER BY version LIMIT $3
        ) AS page WHERE total - bytes <= $4 ORDER BY version";
    let mut rows = sqlx::query(query).bind(id).bind(after as i64).bind(PAGE_ROWS).bind(PAGE_BYTES).fetch(connection);
    let mut page = Vec::new();
    while let Some(row) = rows.try_next().await? {
        page.push(log_of_row(&row)?);
    }
    Ok(page)
}

pub(super) async fn newest_rows(
    connection: &mut PgConnection,
    id: Uuid,
    limits: (u32, u64),
) -> Result<Option<u64>, Failure> {
    let query = "SELECT min(version) FROM (
            SELECT version, sum(length(operation) + length(yjs_update)) OVER (ORDER BY version DESC) AS total
            FROM operations WHERE doc_id = $1 ORDER BY version DESC LIMIT $2
        ) AS newest WHERE total <= $3";
    let oldest: Option<i64> = sqlx::query_scalar(query)
        .bind(id)
        .bind(i64::from(limits.0))
        .bind(limits.1 as i64)
        .fetch_one(connection)
        .await?;
    Ok(oldest.map(|version| version as u64 - 1))
}

pub(super) async fn operations_last(
    connection: &mut PgConnection,
    id: Uuid,
    limit: u32,
) -> Result<Vec<pb::Operation>, Failure> {
    let query = "SELECT operation FROM (
            SELECT version, operation, sum(length(operation)) OVER (ORDER BY version DESC) AS total
            FROM operations WHERE doc_id = $1 ORDER BY version DESC LIMIT $2
        ) AS newest WHERE total <= $3 OR total = length(operation) ORDER BY version";
    let query = sqlx::query(query).bind(id).bind(i64::from(limit)).bind(PAGE_BYTES);
    query.fetch_all(connection).await?.iter().map(operation_of_row).collect()
}

pub(super) async fn operation(
    connection: &mut PgConnection,
    id: Uuid,
    version: u64,
) -> Result<Option<pb::Operation>, Failure> {
    let query = sqlx::query("SELECT operation FROM operations WHERE doc_id = $1 AND version = $2");
    let row = query.bind(id).bind(version as i64).fetch_optional(connection).await?;
    row.map(|row| operation_of_row(&row)).transpose()
}

/// By id or by key, each with the index that keeps it unique: an OR could be answered by neither.
pub(super) async fn find_operation(
    connection: &mut PgConnection,
    id: Uuid,
    op_id: Uuid,
    key: &str,
) -> Result<Option<([u8; 32], u64)>, Failure> {
    let query = "(SELECT digest, version FROM operations WHERE doc_id = $1 AND op_id = $2)
        UNION ALL (SELECT digest, version FROM operations WHERE doc_id = $1 AND idempotency_key = $3) LIMIT 1";
    let query = sqlx::query(query).bind(id).bind(op_id).bind((!key.is_empty()).then_some(key));
    let row = query.fetch_optional(connection).await?;
    row.map(|row| Ok((digest(&row, "digest")?, number(&row, "version")?))).transpose()
}

/// The id of the operation that made `version`.
pub(super) async fn operation_id(
    connection: &mut PgConnection,
    id: Uuid,
    version: u64,
) -> Result<Option<Uuid>, Failure> {
    let query = sqlx::query_scalar("SELECT op_id FROM operations WHERE doc_id = $1 AND version = $2");
    Ok(query.bind(id).bind(version as i64).fetch_optional(connection).await?)
}

pub(super) async fn exists(connection: &mut PgConnection, id: Uuid) -> Result<bool, Failure> {
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM documents WHERE id = $1)");
    Ok(query.bind(id).fetch_one(connection).await?)
}

pub(super) async fn conflicts(
    connection: &mut PgConnection,
    id: Uuid,
    filter: ConflictFilter,
) -> Result<(Vec<ConflictRecord>, u64), Failure> {
    let (count, page) = if filter.unresolved_only {
        (
            "SELECT count(*) FROM conflicts WHERE doc_id = $1 AND resolved_at IS NULL",
            "SELECT * FROM (
                SELECT id, created_at, conflict, pending_op, pending_key, pending_digest, pending_since,
                    sum(length(conflict)) OVER (ORDER BY created_at, id) AS total
                FROM (
                    SELECT * FROM conflicts WHERE doc_id = $1 AND resolved_at IS NULL
                    ORDER BY created_at, id LIMIT $2 OFFSET $3
                ) AS matching
            ) AS page WHERE total <= $4 OR total = length(conflict) ORDER BY created_at, id",
        )
    } else {
        (
            "SELECT count(*) FROM conflicts WHERE doc_id = $1",
            "SELECT * FROM (
                SELECT id, created_at, conflict, pending_op, pending_key, pending_digest, pending_since,
                    sum(length(conflict)) OVER (ORDER BY created_at, id) AS total
                FROM (
                    SELECT * FROM conflicts WHERE doc_id = $1 ORDER BY created_at, id LIMIT $2 OFFSET $3
                ) AS matching
            ) AS page WHERE total <= $4 OR total = length(conflict) ORDER BY created_at, id",
        )
    };
    let mut moment = connection.begin_with(ONE_MOMENT).await?;
    let total: i64 = sqlx::query_scalar(count).bind(id).fetch_one(&mut *moment).await?;
    let rows = sqlx::query(page)
        .bind(id)
        .bind(i64::from(filter.limit))
        .bind(i64::from(filter.offset))
        .bind(PAGE_BYTES)
        .fetch_all(&mut *moment)
        .await?;
    moment.commit().await?;
    Ok((rows.iter().map(conflict_of_row).collect::<Result<_, _>>()?, total as u64))
}

pub(super) async fn conflict(
    connection: &mut PgConnection,
    id: Uuid,
    conflict_id: Uuid,
) -> Result<Option<ConflictRecord>, Failure> {
    let query = "SELECT id, created_at, conflict, pending_op, pending_key, pending_digest, pending_since FROM conflicts
        WHERE id = $1 AND doc_id = $2";
    let row = sqlx::query(query).bind(conflict_id).bind(id).fetch_optional(connection).await?;
    row.map(|row| conflict_of_row(&row)).transpose()
}

pub(super) async fn find_pending(
    connection: &mut PgConnection,
    id: Uuid,
    op_id: Uuid,
    key: &str,
) -> Result<Option<ConflictRecord>, Failure> {
    let query = "(SELECT id, created_at, conflict, pending_op, pending_key, pending_digest, pending_since FROM conflicts
            WHERE doc_id = $1 AND pending_op = $2)
        UNION ALL (SELECT id, created_at, conflict, pending_op, pending_key, pending_digest, pending_since FROM conflicts
            WHERE doc_id = $1 AND pending_key = $3) LIMIT 1";
    let query = sqlx::query(query).bind(id).bind(op_id).bind((!key.is_empty()).then_some(key));
    query.fetch_optional(connection).await?.map(|row| conflict_of_row(&row)).transpose()
}

pub(super) async fn counts(connection: &mut PgConnection, now: UnixMicros) -> Result<DocumentCounts, Failure> {
    let query = "SELECT count(*) AS documents, count(*) FILTER (WHERE state = 'active') AS active,
            count(*) FILTER (WHERE state = 'archived') AS archived, coalesce(sum(version - 1), 0)::bigint AS operations,
            (SELECT count(*) FROM conflicts) AS conflicts,
            (SELECT count(*) FROM conflicts WHERE resolved_at IS NOT NULL) AS resolved,
            (SELECT count(*) FROM locks WHERE expires_at > $1) AS locks
        FROM documents WHERE state <> 'purging'";
    let row = sqlx::query(query).bind(Timestamptz(now)).fetch_one(connection).await?;
    Ok(DocumentCounts {
        documents: number(&row, "documents")?,
        active: number(&row, "active")?,
        archived: number(&row, "archived")?,
        operations: number(&row, "operations")?,
        locks: number(&row, "locks")?,
        conflicts: number(&row, "conflicts")?,
        resolved: number(&row, "resolved")?,
    })
}

/// Whether the server takes writes; a standby does not.
pub(super) async fn takes_writes(connection: &mut PgConnection) -> Result<bool, Failure> {
    let query = "SELECT id, current_setting('transaction_read_only') = 'on' AS read_only
        FROM (SELECT 1) AS one LEFT JOIN (SELECT id FROM documents LIMIT 1) AS any_document ON true";
    let row = sqlx::query(query).fetch_one(connection).await?;
    Ok(!row.try_get::<bool, _>("read_only")?)
}
