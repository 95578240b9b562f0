//! Rows as what they stand for.

use prost::Message;
use proto::statesync as pb;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::clock::{HybridTime, UnixMicros};
use crate::statesync::model::{ConflictRecord, DocumentRecord, LockRecord, LogRow, Pending, Snapshot};
use crate::store::StoreError;

pub(super) fn array<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| StoreError::Corrupt(column.to_owned()))
}

pub(super) fn operation_of_row(row: &SqliteRow) -> Result<pb::Operation, StoreError> {
    let encoded: &[u8] = row.try_get("operation")?;
    pb::Operation::decode(encoded).map_err(|_| StoreError::Corrupt("operation".into()))
}

pub(super) fn log_of_row(row: &SqliteRow) -> Result<LogRow, StoreError> {
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
        quiet: row.try_get("quiet")?,
        sent: base.zip(data).map(|(base, data)| (base as u64, data.into())),
    })
}

pub(super) fn document_of_row(row: &SqliteRow) -> Result<DocumentRecord, StoreError> {
    let metadata: &[u8] = row.try_get("metadata")?;
    let snapshot: Vec<u8> = row.try_get("snapshot")?;
    let lock: Option<&[u8]> = row.try_get("lock")?;
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
        described_version: row.try_get::<i64, _>("described_version")? as u64,
        lock: lock.map(lock_of_bytes).transpose()?,
        snapshot: Snapshot {
            version: row.try_get::<i64, _>("snapshot_version")? as u64,
            typed: row.try_get("typed")?,
            state: snapshot.into(),
        },
    })
}

fn lock_of_bytes(encoded: &[u8]) -> Result<LockRecord, StoreError> {
    let corrupt = || StoreError::Corrupt("lock".into());
    let lock = pb::Lock::decode(encoded).map_err(|_| corrupt())?;
    let time = |time: Option<prost_types::Timestamp>| time.map(crate::clock::of_timestamp).ok_or_else(corrupt);
    Ok(LockRecord {
        id: lock.id.parse().map_err(|_| corrupt())?,
        user_id: lock.user_id,
        session_id: lock.session_id,
        acquired_at: time(lock.acquired_at)?,
        expires_at: time(lock.expires_at)?,
        fencing: lock.fencing,
    })
}

pub(super) fn conflict_of_row(row: &SqliteRow) -> Result<ConflictRecord, StoreError> {
    let conflict: &[u8] = row.try_get("conflict")?;
    let pending = match row.try_get::<Option<&[u8]>, _>("pending_op")? {
        None => None,
        Some(_) => Some(Pending {
            op_id: Uuid::from_bytes(array(row, "pending_op")?),
            idempotency_key: row.try_get::<Option<String>, _>("pending_key")?.unwrap_or_default(),
            digest: array(row, "pending_digest")?,
            since: row.try_get::<Option<i64>, _>("pending_since")?.map(|since| since as u64),
        }),
    };
    Ok(ConflictRecord {
        id: Uuid::from_bytes(array(row, "id")?),
        created_at: UnixMicros(row.try_get("created_at_us")?),
        conflict: pb::Conflict::decode(conflict).map_err(|_| StoreError::Corrupt("conflict".into()))?,
        pending,
    })
}
