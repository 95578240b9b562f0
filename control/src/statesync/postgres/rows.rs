//! Rows as what they stand for, and times as PostgreSQL has them.

use prost::Message;
use proto::statesync as pb;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Row, Type};
use uuid::Uuid;

use super::failure::Failure;
use crate::clock::{HybridTime, UnixMicros};
use crate::statesync::model::{ConflictRecord, DocumentRecord, LockRecord, LogRow, Pending, Snapshot};
use crate::store::StoreError;

/// A `timestamptz`, which goes over the wire as microseconds since 2000 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamptz(pub(super) UnixMicros);

/// 2000-01-01 in microseconds since 1970.
const EPOCH_2000_US: i64 = 946_684_800_000_000;
/// The types `timestamptz` and `timestamptz[]` (`pg_type.dat` of PostgreSQL).
const TIMESTAMPTZ: PgTypeInfo = PgTypeInfo::with_oid(Oid(1184));
const TIMESTAMPTZ_ARRAY: PgTypeInfo = PgTypeInfo::with_oid(Oid(1185));

impl Type<Postgres> for Timestamptz {
    fn type_info() -> PgTypeInfo {
        TIMESTAMPTZ
    }
}

impl PgHasArrayType for Timestamptz {
    fn array_type_info() -> PgTypeInfo {
        TIMESTAMPTZ_ARRAY
    }
}

impl Encode<'_, Postgres> for Timestamptz {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.0.0.saturating_sub(EPOCH_2000_US).to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Timestamptz {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        // Everything is read by prepared statements, whose answers are binary.
        let since_2000 = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(UnixMicros(since_2000.saturating_add(EPOCH_2000_US))))
    }
}

/// The columns of [`document_of_row`], without the content of the snapshot.
pub(super) const DOCUMENT: &str =
    "documents.id, name, type, state, documents.version, epoch, created_by, created_at, updated_by,
    updated_at, metadata, described_version, snapshots.version AS snapshot_version, typed, locks.id AS lock_id,
    locks.user_id AS lock_user, locks.session_id AS lock_session, acquired_at, expires_at, fencing";
/// Where they come from.
pub(super) const DOCUMENT_TABLES: &str = "documents JOIN snapshots ON snapshots.doc_id = documents.id
    LEFT JOIN locks ON locks.doc_id = documents.id";

fn corrupt(what: &str) -> Failure {
    Failure::Store(StoreError::Corrupt(what.to_owned()))
}

fn time(row: &PgRow, column: &str) -> Result<UnixMicros, Failure> {
    Ok(row.try_get::<Timestamptz, _>(column)?.0)
}

/// A count or a version.
pub(super) fn number(row: &PgRow, column: &str) -> Result<u64, Failure> {
    Ok(row.try_get::<i64, _>(column)? as u64)
}

pub(super) fn digest(row: &PgRow, column: &str) -> Result<[u8; 32], Failure> {
    row.try_get::<&[u8], _>(column)?.try_into().map_err(|_| corrupt(column))
}

pub(super) fn operation_of_row(row: &PgRow) -> Result<pb::Operation, Failure> {
    pb::Operation::decode(row.try_get::<&[u8], _>("operation")?).map_err(|_| corrupt("operation"))
}

pub(super) fn log_of_row(row: &PgRow) -> Result<LogRow, Failure> {
    let base: Option<i64> = row.try_get("sent_base")?;
    let data: Option<Vec<u8>> = row.try_get("sent_data")?;
    Ok(LogRow {
        operation: operation_of_row(row)?,
        op_id: row.try_get("op_id")?,
        session_id: row.try_get("session_id")?,
        idempotency_key: row.try_get::<Option<String>, _>("idempotency_key")?.unwrap_or_default(),
        digest: digest(row, "digest")?,
        time: HybridTime(number(row, "hybrid_time")?),
        sequence: number(row, "sequence")?,
        update: row.try_get::<Vec<u8>, _>("yjs_update")?.into(),
        quiet: row.try_get("quiet")?,
        sent: base.zip(data).map(|(base, data)| (base as u64, data.into())),
    })
}

/// A document from the columns [`DOCUMENT`] and the content of its snapshot.
pub(super) fn document_of_row(row: &PgRow) -> Result<DocumentRecord, Failure> {
    Ok(DocumentRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        kind: row.try_get("type")?,
        state: row.try_get("state")?,
        version: number(row, "version")?,
        epoch: row.try_get("epoch")?,
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
        updated_by: row.try_get("updated_by")?,
        updated_at: time(row, "updated_at")?,
        metadata: pb::Metadata::decode(row.try_get::<&[u8], _>("metadata")?).map_err(|_| corrupt("metadata"))?,
        described_version: number(row, "described_version")?,
        lock: lock_of_row(row)?,
        snapshot: Snapshot {
            version: number(row, "snapshot_version")?,
            typed: row.try_get("typed")?,
            state: row.try_get::<Vec<u8>, _>("snapshot")?.into(),
        },
    })
}

fn lock_of_row(row: &PgRow) -> Result<Option<LockRecord>, Failure> {
    let Some(id) = row.try_get::<Option<Uuid>, _>("lock_id")? else { return Ok(None) };
    Ok(Some(LockRecord {
        id,
        user_id: row.try_get("lock_user")?,
        session_id: row.try_get("lock_session")?,
        acquired_at: time(row, "acquired_at")?,
        expires_at: time(row, "expires_at")?,
        fencing: number(row, "fencing")?,
    }))
}

pub(super) fn conflict_of_row(row: &PgRow) -> Result<ConflictRecord, Failure> {
    let pending = match row.try_get::<Option<Uuid>, _>("pending_op")? {
        None => None,
        Some(op_id) => Some(Pending {
            op_id,
            idempotency_key: row.try_get::<Option<String>, _>("pending_key")?.unwrap_or_default(),
            digest: digest(row, "pending_digest")?,
            since: row.try_get::<Option<i64>, _>("pending_since")?.map(|since| since as u64),
        }),
    };
    let conflict = pb::Conflict::decode(row.try_get::<&[u8], _>("conflict")?).map_err(|_| corrupt("conflict"))?;
    Ok(ConflictRecord { id: row.try_get("id")?, created_at: time(row, "created_at")?, conflict, pending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_goes_over_the_wire_as_microseconds_since_2000() {
        let start = std::time::UNIX_EPOCH + std::time::Duration::from_micros(EPOCH_2000_US as u64);
        assert_eq!(humantime::format_rfc3339_seconds(start).to_string(), "2000-01-01T00:00:00Z");
        let mut buffer = PgArgumentBuffer::default();
        let written = Encode::<Postgres>::encode_by_ref(&Timestamptz(UnixMicros(EPOCH_2000_US - 3)), &mut buffer);
        assert!(matches!(written, Ok(IsNull::No)));
        assert_eq!(buffer.as_slice(), (-3_i64).to_be_bytes().as_slice());
    }
}
