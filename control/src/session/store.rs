//! Sessions in SQLite.

use std::time::Duration;

use prost::Message;
use proto::session as pb;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::model::Session;
use crate::clock::UnixMicros;
use crate::store::{Committer, Database, GroupWrite, StoreError};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sessions (
    id BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    connection_id BLOB NOT NULL,
    client_ip TEXT NOT NULL,
    client_port INTEGER NOT NULL,
    state INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    last_active_at_us INTEGER NOT NULL,
    expires_at_us INTEGER NOT NULL,
    timeout_us INTEGER NOT NULL,
    details BLOB NOT NULL,
    token_hash BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_expiry ON sessions (expires_at_us);
CREATE INDEX IF NOT EXISTS sessions_by_user ON sessions (user_id);
";

/// A change to the sessions, done when its group is on disk.
enum Change {
    Insert(Box<Session>),
    Heartbeat { id: Uuid, now: UnixMicros },
    DeleteExpired { now: UnixMicros },
}

struct Write {
    change: Change,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl GroupWrite for Write {
    fn bytes(&self) -> usize {
        512
    }

    fn operations(&self) -> u64 {
        1
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        match &self.change {
            Change::Insert(session) => insert(connection, session).await,
            Change::Heartbeat { id, now } => {
                let heartbeat = "UPDATE sessions SET last_active_at_us = ?1, expires_at_us = ?1 + timeout_us, \
                     state = CASE WHEN state IN (1, 3) THEN 2 ELSE state END WHERE id = ?2 AND expires_at_us > ?1";
                sqlx::query(heartbeat).bind(now.0).bind(id.as_bytes().as_slice()).execute(connection).await.map(drop)
            }
            Change::DeleteExpired { now } => sqlx::query("DELETE FROM sessions WHERE expires_at_us <= ?1")
                .bind(now.0)
                .execute(connection)
                .await
                .map(drop),
        }
    }

    fn done(self, result: Result<(), StoreError>) {
        // Whoever asked may have gone; the change stands.
        let _ = self.done.send(result);
    }
}

async fn insert(connection: &mut SqliteConnection, session: &Session) -> Result<(), sqlx::Error> {
    let details = pb::Session { metadata: session.metadata.clone(), stats: Some(session.stats), ..Default::default() };
    sqlx::query("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(session.id.as_bytes().as_slice())
        .bind(&session.user_id)
        .bind(session.connection_id.as_bytes().as_slice())
        .bind(&session.client_ip)
        .bind(i64::from(session.client_port))
        .bind(i64::from(i32::from(session.state)))
        .bind(session.created_at.0)
        .bind(session.last_active_at.0)
        .bind(session.expires_at().0)
        .bind(session.timeout.as_micros() as i64)
        .bind(details.encode_to_vec())
        .bind(session.token_hash.as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// The sessions on disk.
#[derive(Clone)]
pub struct SessionStore {
    database: Database,
    committer: Committer<Write>,
}

impl SessionStore {
    /// Opens the database at `path`. The returned task ends when all clones of the store are gone.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &std::path::Path) -> Result<(Self, JoinHandle<()>), StoreError> {
        let database = Database::open(path, SCHEMA).await?;
        let (committer, task) = Committer::start(&database).await?;
        Ok((Self { database, committer }, task))
    }

    /// Stores a new session; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, session: Session) -> Result<(), StoreError> {
        self.change(Change::Insert(Box::new(session))).await
    }

    /// The session with this id, expired or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, id: Uuid) -> Result<Option<Session>, StoreError> {
        let query = sqlx::query("SELECT * FROM sessions WHERE id = ?").bind(id.as_bytes().as_slice());
        query.fetch_optional(&self.database.readers).await?.map(|row| session_of_row(&row)).transpose()
    }

    /// Records that a session that has not expired was heard of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn heartbeat(&self, id: Uuid, now: UnixMicros) -> Result<(), StoreError> {
        self.change(Change::Heartbeat { id, now }).await
    }

    /// Removes what has expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_expired(&self, now: UnixMicros) -> Result<(), StoreError> {
        self.change(Change::DeleteExpired { now }).await
    }

    /// How many sessions have not expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_live(&self, now: UnixMicros) -> Result<u64, StoreError> {
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sessions WHERE expires_at_us > ?").bind(now.0);
        Ok(query.fetch_one(&self.database.readers).await? as u64)
    }

    /// Whether the store can read and its writer runs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn check(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT id FROM sessions LIMIT 1").fetch_optional(&self.database.readers).await?;
        if self.committer.is_running() { Ok(()) } else { Err(StoreError::Closed) }
    }

    async fn change(&self, change: Change) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.committer.submit(Write { change, done }).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}

fn session_of_row(row: &SqliteRow) -> Result<Session, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt(format!("session: {what}"));
    let uuid = |column: &str| Uuid::from_slice(row.try_get(column)?).map_err(|_| corrupt(column));
    let details: &[u8] = row.try_get("details")?;
    let details = pb::Session::decode(details).map_err(|_| corrupt("details"))?;
    let token_hash: &[u8] = row.try_get("token_hash")?;
    Ok(Session {
        id: uuid("id")?,
        user_id: row.try_get("user_id")?,
        connection_id: uuid("connection_id")?,
        client_ip: row.try_get("client_ip")?,
        client_port: row.try_get("client_port")?,
        state: pb::SessionState::try_from(row.try_get::<i32, _>("state")?).map_err(|_| corrupt("state"))?,
        created_at: UnixMicros(row.try_get("created_at_us")?),
        last_active_at: UnixMicros(row.try_get("last_active_at_us")?),
        timeout: Duration::from_micros(row.try_get::<i64, _>("timeout_us")? as u64),
        metadata: details.metadata,
        stats: details.stats.unwrap_or_default(),
        token_hash: token_hash.try_into().map_err(|_| corrupt("token_hash"))?,
    })
}
