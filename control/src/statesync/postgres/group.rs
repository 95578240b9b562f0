//! Many writes as few statements: what several documents, or one several times, have to say to one table goes there at once.

use std::collections::BTreeMap;

use prost::Message;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::failure::Failure;
use super::rows::Timestamptz;
use crate::clock::of_timestamp;
use crate::statesync::model::{ConflictRecord, DocumentRecord, LockRecord, LogRow, Snapshot, readers};
use crate::statesync::store::Batch;
use crate::statesync::write::Write;

/// Only from the version that the writer knows: whoever was faster keeps the others from writing. What is removed for good takes no
/// more.
const RAISE_VERSIONS: &str = "UPDATE documents
    SET version = raised.version, updated_by = raised.updated_by, updated_at = raised.updated_at
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[])
        AS raised (id, base, version, updated_by, updated_at)
    WHERE documents.id = raised.id AND documents.version = raised.base AND documents.state <> 'purging'";

const APPEND: &str = "INSERT INTO operations (doc_id, version, op_id, session_id, session_sequence, idempotency_key,
        digest, hybrid_time, sequence, operation, yjs_update, sent_base, sent_data, quiet)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[],
        $7::bytea[], $8::bigint[], $9::bigint[], $10::bytea[], $11::bytea[], $12::bigint[], $13::bytea[], $14::boolean[])";

const CREATE: &str = "INSERT INTO documents (id, name, type, state, version, epoch, created_by,
        created_at, updated_by, updated_at, metadata, described_version, public)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
        $8::timestamptz[], $9::text[], $10::timestamptz[], $11::bytea[], $12::bigint[], $13::boolean[])";

const DESCRIBE: &str =
    "UPDATE documents SET name = described.name, state = described.state, metadata = described.metadata,
        described_version = described.described_version, public = described.public
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::boolean[])
        AS described (id, name, state, metadata, described_version, public)
    WHERE documents.id = described.id";

/// An older snapshot does not take the place of a later one.
const PUT_SNAPSHOTS: &str = "INSERT INTO snapshots (doc_id, version, typed, content)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::boolean[], $4::bytea[])
    ON CONFLICT (doc_id) DO UPDATE SET version = excluded.version, typed = excluded.typed, content = excluded.content
    WHERE snapshots.version <= excluded.version";

const TRIM: &str = "DELETE FROM operations USING unnest($1::uuid[], $2::bigint[]) AS trimmed (doc_id, version)
    WHERE operations.doc_id = trimmed.doc_id AND operations.version <= trimmed.version";

/// A lock is changed by itself and replaced by one with a larger number, whoever else believes to give it.
const PUT_LOCKS: &str = "INSERT INTO locks (doc_id, id, user_id, session_id, acquired_at, expires_at, fencing)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
        $7::bigint[])
    ON CONFLICT (doc_id) DO UPDATE SET id = excluded.id, user_id = excluded.user_id, session_id = excluded.session_id,
        acquired_at = excluded.acquired_at, expires_at = excluded.expires_at, fencing = excluded.fencing
    WHERE locks.id = excluded.id OR locks.fencing < excluded.fencing";

const PUT_CONFLICTS: &str = "INSERT INTO conflicts (id, doc_id, created_at, resolved_at, conflict,
        pending_op, pending_key, pending_digest, pending_since)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::bytea[],
        $6::uuid[], $7::text[], $8::bytea[], $9::bigint[])
    ON CONFLICT (id) DO UPDATE SET resolved_at = excluded.resolved_at, conflict = excluded.conflict,
        pending_op = excluded.pending_op, pending_key = excluded.pending_key, pending_digest = excluded.pending_digest,
        pending_since = excluded.pending_since";

/// What a document's version was, and the row that made the one that it becomes.
struct Raised<'a> {
    base: u64,
    last: &'a LogRow,
}

/// The writes of one transaction, by table. Of what has one row, the last word counts.
#[derive(Default)]
pub(super) struct Group<'a> {
    created: Vec<&'a DocumentRecord>,
    raised: BTreeMap<Uuid, Raised<'a>>,
    rows: Vec<(Uuid, &'a LogRow)>,
    described: BTreeMap<Uuid, &'a DocumentRecord>,
    locks: BTreeMap<Uuid, &'a LockRecord>,
    conflicts: BTreeMap<Uuid, (Uuid, &'a ConflictRecord)>,
    snapshots: BTreeMap<Uuid, &'a Snapshot>,
    /// The newest version that goes, by document.
    trims: BTreeMap<Uuid, u64>,
}

impl<'a> Group<'a> {
    /// All of `writes`, those of one document in order.
    pub(super) fn of(writes: &'a [Write]) -> Self {
        let mut group = Self::default();
        for write in writes {
            match write {
                Write::Create(record, _) => {
                    group.created.push(record);
                    group.snapshots.insert(record.id, &record.snapshot);
                }
                Write::Batch(batch) => group.add(batch),
            }
        }
        group
    }

    fn add(&mut self, batch: &'a Batch) {
        let id = batch.doc_id;
        if let (Some(first), Some(last)) = (batch.rows.first(), batch.rows.last()) {
            let (base, last): (u64, &LogRow) = (first.operation.version - 1, last);
            self.raised.entry(id).or_insert(Raised { base, last }).last = last;
            self.rows.extend(batch.rows.iter().map(|row| (id, row.as_ref())));
        }
        if let Some(record) = &batch.described {
            self.described.insert(id, record);
        }
        if let Some(lock) = &batch.lock {
            self.locks.insert(id, lock);
        }
        if let Some(snapshot) = &batch.snapshot {
            self.snapshots.insert(id, snapshot);
        }
        if let Some(newest) = batch.trim {
            self.trims.insert(id, newest);
        }
        self.conflicts.extend(batch.conflicts.iter().map(|record| (record.id, (id, record))));
    }

    /// Writes everything, inside the transaction that `connection` has open.
    pub(super) async fn write(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        self.create(&mut *connection).await?;
        self.raise_versions(&mut *connection).await?;
        self.append(&mut *connection).await?;
        self.describe(&mut *connection).await?;
        self.put_readers(&mut *connection).await?;
        self.put_locks(&mut *connection).await?;
        self.put_conflicts(&mut *connection).await?;
        self.put_snapshots(&mut *connection).await?;
        self.trim(connection).await
    }

    async fn create(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let created = &self.created;
        if created.is_empty() {
            return Ok(());
        }
        sqlx::query(CREATE)
            .bind(column(created, |record| record.id))
            .bind(column(created, |record| record.name.as_str()))
            .bind(column(created, |record| record.kind.as_str()))
            .bind(column(created, |record| record.state.as_str()))
            .bind(column(created, |record| record.version as i64))
            .bind(column(created, |record| record.epoch.as_str()))
            .bind(column(created, |record| record.created_by.as_str()))
            .bind(column(created, |record| Timestamptz(record.created_at)))
            .bind(column(created, |record| record.updated_by.as_str()))
            .bind(column(created, |record| Timestamptz(record.updated_at)))
            .bind(column(created, |record| record.metadata.encode_to_vec()))
            .bind(column(created, |record| record.described_version as i64))
            .bind(column(created, |record| readers(record).1))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn raise_versions(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.raised.is_empty() {
            return Ok(());
        }
        let raised: Vec<(&Uuid, &Raised<'_>)> = self.raised.iter().collect();
        let done = sqlx::query(RAISE_VERSIONS)
            .bind(column(&raised, |(id, _)| **id))
            .bind(column(&raised, |(_, raised)| raised.base as i64))
            .bind(column(&raised, |(_, raised)| raised.last.operation.version as i64))
            .bind(column(&raised, |(_, raised)| raised.last.operation.user_id.as_str()))
            .bind(column(&raised, |(_, raised)| Timestamptz(raised.last.time.wall())))
            .execute(connection)
            .await?;
        if done.rows_affected() == raised.len() as u64 { Ok(()) } else { Err(Failure::Stale) }
    }

    async fn append(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let rows = &self.rows;
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(APPEND)
            .bind(column(rows, |(doc_id, _)| *doc_id))
            .bind(column(rows, |(_, row)| row.operation.version as i64))
            .bind(column(rows, |(_, row)| row.op_id))
            .bind(column(rows, |(_, row)| row.session_id))
            .bind(column(rows, |(_, row)| row.operation.session_sequence as i64))
            .bind(column(rows, |(_, row)| some(&row.idempotency_key)))
            .bind(column(rows, |(_, row)| row.digest.as_slice()))
            .bind(column(rows, |(_, row)| row.time.0 as i64))
            .bind(column(rows, |(_, row)| row.sequence as i64))
            .bind(column(rows, |(_, row)| row.operation.encode_to_vec()))
            .bind(column(rows, |(_, row)| row.update.as_ref()))
            .bind(column(rows, |(_, row)| row.sent.as_ref().map(|(base, _)| *base as i64)))
            .bind(column(rows, |(_, row)| row.sent.as_ref().map(|(_, data)| data.as_ref())))
            .bind(column(rows, |(_, row)| row.quiet))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn describe(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.described.is_empty() {
            return Ok(());
        }
        let described: Vec<&DocumentRecord> = self.described.values().copied().collect();
        sqlx::query(DESCRIBE)
            .bind(column(&described, |record| record.id))
            .bind(column(&described, |record| record.name.as_str()))
            .bind(column(&described, |record| record.state.as_str()))
            .bind(column(&described, |record| record.metadata.encode_to_vec()))
            .bind(column(&described, |record| record.described_version as i64))
            .bind(column(&described, |record| readers(record).1))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn put_readers(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        let described: Vec<Uuid> = self.described.keys().copied().collect();
        if !described.is_empty() {
            let delete = sqlx::query("DELETE FROM readers WHERE doc_id = ANY ($1)").bind(described);
            delete.execute(&mut *connection).await?;
        }
        let records = self.created.iter().chain(self.described.values());
        let named: Vec<(&str, Uuid)> =
            records.flat_map(|record| readers(record).0.into_iter().map(move |user| (user, record.id))).collect();
        if named.is_empty() {
            return Ok(());
        }
        sqlx::query("INSERT INTO readers (user_id, doc_id) SELECT * FROM unnest($1::text[], $2::uuid[])")
            .bind(column(&named, |(user_id, _)| *user_id))
            .bind(column(&named, |(_, doc_id)| *doc_id))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn put_locks(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.locks.is_empty() {
            return Ok(());
        }
        let locks: Vec<(&Uuid, &&LockRecord)> = self.locks.iter().collect();
        let done = sqlx::query(PUT_LOCKS)
            .bind(column(&locks, |(doc_id, _)| **doc_id))
            .bind(column(&locks, |(_, lock)| lock.id))
            .bind(column(&locks, |(_, lock)| lock.user_id.as_str()))
            .bind(column(&locks, |(_, lock)| lock.session_id.as_str()))
            .bind(column(&locks, |(_, lock)| Timestamptz(lock.acquired_at)))
            .bind(column(&locks, |(_, lock)| Timestamptz(lock.expires_at)))
            .bind(column(&locks, |(_, lock)| lock.fencing as i64))
            .execute(connection)
            .await?;
        if done.rows_affected() == locks.len() as u64 { Ok(()) } else { Err(Failure::Stale) }
    }

    async fn put_conflicts(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.conflicts.is_empty() {
            return Ok(());
        }
        let conflicts: Vec<(Uuid, &ConflictRecord)> = self.conflicts.values().copied().collect();
        sqlx::query(PUT_CONFLICTS)
            .bind(column(&conflicts, |(_, record)| record.id))
            .bind(column(&conflicts, |(doc_id, _)| *doc_id))
            .bind(column(&conflicts, |(_, record)| Timestamptz(record.created_at)))
            .bind(column(&conflicts, |(_, record)| {
                record.conflict.resolved_at.map(|time| Timestamptz(of_timestamp(time)))
            }))
            .bind(column(&conflicts, |(_, record)| record.conflict.encode_to_vec()))
            .bind(column(&conflicts, |(_, record)| record.pending.as_ref().map(|pending| pending.op_id)))
            .bind(column(&conflicts, |(_, record)| {
                record.pending.as_ref().and_then(|pending| some(&pending.idempotency_key))
            }))
            .bind(column(&conflicts, |(_, record)| record.pending.as_ref().map(|pending| pending.digest.as_slice())))
            .bind(column(&conflicts, |(_, record)| {
                record.pending.as_ref().and_then(|pending| pending.since).map(|since| since as i64)
            }))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn put_snapshots(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let snapshots: Vec<(Uuid, &Snapshot)> = self.snapshots.iter().map(|(id, snapshot)| (*id, *snapshot)).collect();
        sqlx::query(PUT_SNAPSHOTS)
            .bind(column(&snapshots, |(doc_id, _)| *doc_id))
            .bind(column(&snapshots, |(_, snapshot)| snapshot.version as i64))
            .bind(column(&snapshots, |(_, snapshot)| snapshot.typed))
            .bind(column(&snapshots, |(_, snapshot)| snapshot.state.as_ref()))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn trim(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.trims.is_empty() {
            return Ok(());
        }
        let trims: Vec<(Uuid, u64)> = self.trims.iter().map(|(id, newest)| (*id, *newest)).collect();
        sqlx::query(TRIM)
            .bind(column(&trims, |(doc_id, _)| *doc_id))
            .bind(column(&trims, |(_, newest)| *newest as i64))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// One column of rows, as the array that goes to the server.
fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// An empty text is none.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
