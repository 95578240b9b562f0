//! Documents and their logs in PostgreSQL.
//!
//! Reading order: [`options`] is where the server is; [`migrate`] makes the tables; [`readers`] lends connections to what [`read`]
//! asks; [`committer`] writes what [`group`] makes of many writes; [`purge`] removes for good; [`failure`] is what matters of an error, [`rows`] what a row says.

mod committer;
mod failure;
mod group;
pub mod migrate;
mod options;
mod purge;
mod read;
mod readers;
mod rows;

use proto::statesync as pb;
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::model::{ConflictRecord, DocumentRecord, LogRow};
use super::store::{Batch, ConflictFilter, DocumentCounts, DocumentFilter, DocumentStore, Purged};
use super::write::Write;
use crate::clock::UnixMicros;
use crate::store::{CommitterStats, StoreError};
use committer::Committer;
use failure::Failure;
use readers::Readers;

pub use options::PostgresOptions;

/// Connections that write. Groups already share the server's disk; a second writer works while the first one waits for it.
const WRITERS: u32 = 2;

/// Documents in a PostgreSQL database.
pub struct PostgresDocuments {
    readers: Readers,
    committer: Committer,
}

/// Asks a function of [`read`] on a leased connection, again on another one if that is lost.
macro_rules! ask {
    ($store:ident, $question:ident $(, $argument:ident)*) => {
        $store
            .readers
            .retrying(|| async {
                let mut lease = $store.readers.lease().await?;
                let answer = read::$question(lease.connection() $(, $argument)*).await?;
                lease.give_back();
                Ok::<_, Failure>(answer)
            })
            .await
    };
}

impl PostgresDocuments {
    /// Brings the database to the newest schema and starts the writers. The returned task ends when the store is gone.
    ///
    /// # Errors
    /// [`StoreError::Open`], which says what to do.
    pub async fn open(options: &PostgresOptions) -> Result<(Self, JoinHandle<()>), StoreError> {
        for step in migrate::up(options).await? {
            tracing::info!(version = step.version, name = step.name, "the schema of PostgreSQL was brought up");
        }
        let mut connection = options.connect(options.statement_timeout).await?;
        check_settings(&mut connection, options).await?;
        let writers = WRITERS.min(options.connections / 2).max(1);
        let readers = Readers::start(options, options.connections.saturating_sub(writers).max(1));
        let (committer, task) = Committer::start(options, writers as usize);
        Ok((Self { readers, committer }, task))
    }
}

/// Refuses a database that cannot hold every text, and warns of settings by which what was acknowledged can be lost.
async fn check_settings(connection: &mut PgConnection, options: &PostgresOptions) -> Result<(), StoreError> {
    let query =
        "SELECT current_setting('server_encoding'), current_setting('fsync'), current_setting('synchronous_commit')";
    let settings: Result<(String, String, String), _> = sqlx::query_as(query).fetch_one(connection).await;
    let (encoding, fsync, synchronous) = settings.map_err(|error| options.cannot_open(&error))?;
    if encoding != "UTF8" {
        let reason = format!("its encoding is {encoding}. Create it with UTF8: createdb -E UTF8 -T template0 NAME");
        return Err(StoreError::Open { path: options.name().into(), reason });
    }
    if fsync == "off" {
        tracing::warn!(
            "PostgreSQL runs with fsync off: what was acknowledged is lost, or all of it, if its machine stops"
        );
    }
    if synchronous == "off" {
        tracing::warn!(
            "PostgreSQL runs with synchronous_commit off: the last that was acknowledged is lost if it stops"
        );
    }
    Ok(())
}

#[tonic::async_trait]
impl DocumentStore for PostgresDocuments {
    async fn create(&self, record: DocumentRecord) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.committer.submit(Write::Create(Box::new(record), done)).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn submit(&self, batch: Batch) -> Result<(), StoreError> {
        self.committer.submit(Write::Batch(Box::new(batch))).await
    }

    async fn document(&self, id: Uuid) -> Result<Option<DocumentRecord>, StoreError> {
        ask!(self, document, id)
    }

    async fn list(&self, filter: &DocumentFilter) -> Result<(Vec<DocumentRecord>, u64), StoreError> {
        ask!(self, list, filter)
    }

    async fn operations_after(&self, id: Uuid, after: u64) -> Result<Vec<LogRow>, StoreError> {
        ask!(self, operations_after, id, after)
    }

    async fn newest_rows(&self, id: Uuid, limits: (u32, u64)) -> Result<Option<u64>, StoreError> {
        ask!(self, newest_rows, id, limits)
    }

    async fn operations_last(&self, id: Uuid, limit: u32) -> Result<Vec<pb::Operation>, StoreError> {
        ask!(self, operations_last, id, limit)
    }

    async fn operation(&self, id: Uuid, version: u64) -> Result<Option<pb::Operation>, StoreError> {
        ask!(self, operation, id, version)
    }

    async fn find_operation(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<([u8; 32], u64)>, StoreError> {
        ask!(self, find_operation, id, op_id, key)
    }

    async fn conflicts(&self, id: Uuid, filter: ConflictFilter) -> Result<(Vec<ConflictRecord>, u64), StoreError> {
        ask!(self, conflicts, id, filter)
    }

    async fn conflict(&self, id: Uuid, conflict_id: Uuid) -> Result<Option<ConflictRecord>, StoreError> {
        ask!(self, conflict, id, conflict_id)
    }

    async fn find_pending(&self, id: Uuid, op_id: Uuid, key: &str) -> Result<Option<ConflictRecord>, StoreError> {
        ask!(self, find_pending, id, op_id, key)
    }

    async fn purge(&self, before: UnixMicros) -> Result<Purged, StoreError> {
        let step = || async {
            let mut lease = self.readers.lease().await?;
            let purged = purge::step(lease.connection(), before).await?;
            lease.give_back();
            Ok::<_, Failure>(purged)
        };
        self.readers.retrying(step).await
    }

    async fn counts(&self, now: UnixMicros) -> Result<DocumentCounts, StoreError> {
        ask!(self, counts, now)
    }

    async fn check(&self) -> Result<(), StoreError> {
        if !self.committer.is_running() {
            return Err(StoreError::Closed);
        }
        let takes_writes = ask!(self, takes_writes)?;
        if takes_writes { Ok(()) } else { Err(StoreError::Failed("PostgreSQL takes no writes".to_owned())) }
    }

    fn commits(&self) -> &CommitterStats {
        self.committer.stats()
    }
}
