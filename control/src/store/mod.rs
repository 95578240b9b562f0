//! What stores have in common: which there are, how a database file is opened, and how writes share its commits.

mod committer;
mod data_dir;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

pub use committer::{Committer, CommitterStats, GroupWrite};
pub use data_dir::{DataDir, DataDirError};

/// Connections that read; with the write-ahead log they never wait for the writer.
const READERS: u32 = 4;
/// How long a reader waits for a free connection before the store counts as down.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// What the writer keeps of its file in memory; with SQLite's own 2 MiB it reads the file again and again.
const WRITER_CACHE_KIB: u32 = 64 << 10;
/// Pages in the log at which they are copied into the file: 32 MiB. A page that is written often is copied once.
const CHECKPOINT_PAGES: u32 = 8192;
/// Prepared statements that the writer keeps: those of many rows differ by their number.
const WRITER_STATEMENTS: usize = 256;

/// Where a service keeps what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreKind {
    /// In memory: it is gone when the process ends.
    Memory,
    /// In one SQLite file of the data directory.
    #[default]
    Sqlite,
    /// In a Redis server: sessions only.
    Redis,
    /// In a PostgreSQL database: documents only.
    Postgres,
}

impl StoreKind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Sqlite, Self::Redis, Self::Postgres];

    /// As in `Store.Type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// As OpenTelemetry calls it (`db.system.name`).
    pub(crate) fn system(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            other => other.name(),
        }
    }
}

/// When a write to a SQLite file counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On disk: it survives the loss of power.
    #[default]
    Disk,
    /// With the operating system: it survives the death of the process, the last of it not the loss of power.
    System,
}

/// A failure of a store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened or prepared.
    #[error("cannot open the database {path}: {reason}")]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A statement failed.
    #[error("the store failed: {0}")]
    Failed(String),
    /// A row cannot be understood.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The store was shut down.
    #[error("the store is shut down")]
    Closed,
    /// A step of the schema is not taken back.
    #[error(
        "taking step {version} of the schema back deletes its documents for good, of which there are {documents}: add \
         --delete-documents if they are to go"
    )]
    HoldsDocuments {
        /// The step.
        version: i32,
        /// How many are in it.
        documents: i64,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// One database file: a pool that reads and the options with which the one writer connects.
#[derive(Debug, Clone)]
pub struct Database {
    /// Connections for reading.
    pub readers: SqlitePool,
    options: SqliteConnectOptions,
    path: PathBuf,
}

impl Database {
    /// Opens or creates the database at `path` and brings it to the newest of `schemas`, each of which follows from the one
    /// before it. How many have been run is kept in the file (`PRAGMA user_version`).
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &Path, durability: Durability, schemas: &[&str]) -> Result<Self, StoreError> {
        let failed = |error: sqlx::Error| StoreError::Open { path: path.to_owned(), reason: error.to_string() };
        // In WAL mode FULL syncs the log at every commit: a commit that returned survives the loss of power.
        let synchronous = match durability {
            Durability::Disk => SqliteSynchronous::Full,
            Durability::System => SqliteSynchronous::Normal,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(failed)?;
        let done: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?;
        if done as usize > schemas.len() {
            return Err(StoreError::Open {
                path: path.to_owned(),
                reason: format!("schema {done} is of a later AetherFlow; this one knows {}", schemas.len()),
            });
        }
        for (index, schema) in schemas.iter().enumerate().skip(done as usize) {
            let step = format!("BEGIN IMMEDIATE; {schema} PRAGMA user_version = {}; COMMIT;", index + 1);
            sqlx::raw_sql(sqlx::AssertSqlSafe(step)).execute(&mut connection).await.map_err(failed)?;
        }
        connection.close().await.map_err(failed)?;
        let pool = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(ACQUIRE_TIMEOUT);
        let readers = pool.connect_with(options.clone().read_only(true)).await.map_err(failed)?;
        Ok(Self { readers, options, path: path.to_owned() })
    }

    /// A connection for the writer.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn connect_writer(&self) -> Result<SqliteConnection, StoreError> {
        let failed = |error: sqlx::Error| StoreError::Open { path: self.path.clone(), reason: error.to_string() };
        let options = self.options.clone().pragma("cache_size", format!("-{WRITER_CACHE_KIB}"));
        let options = options.pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string());
        options.statement_cache_capacity(WRITER_STATEMENTS).connect().await.map_err(failed)
    }
}
