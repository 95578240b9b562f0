//! Storage on disk: how a database is opened, and how writes share its commits.

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
    /// Opens or creates the database at `path` and runs `schema`, which must be repeatable.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &Path, schema: &str) -> Result<Self, StoreError> {
        let failed = |error: sqlx::Error| StoreError::Open { path: path.to_owned(), reason: error.to_string() };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode FULL syncs the log at every commit: a commit that returned survives power loss.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(failed)?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(schema.to_owned())).execute(&mut connection).await.map_err(failed)?;
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
        self.options.connect().await.map_err(failed)
    }
}
