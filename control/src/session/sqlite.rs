//! Sessions in SQLite.

use std::time::Duration;

use prost::Message;
use proto::session as pb;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::model::{Session, SessionChange};
use super::store::{Changed, SessionCounts, SessionFilter, SessionStore};
use crate::clock::UnixMicros;
use crate::store::{Committer, Database, Durability, GroupWrite, StoreError};

const SCHEMAS: [&str; 2] = [
    "
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
",
    "
DROP INDEX IF EXISTS sessions_by_user;
CREATE INDEX sessions_by_user ON sessions (user_id, created_at_us, id);
CREATE INDEX sessions_by_creation ON sessions (created_at_us, id);
CREATE INDEX sessions_by_connection ON sessions (connection_id);
",
];

/// What is written.
enum Task {
    Insert(Box<Session>),
    Change { id: Uuid, change: SessionChange, now: UnixMicros },
    Delete { id: Uuid, now: UnixMicros },
    DeleteExpired { now: UnixMicros },
}

struct Write {
    task: Task,
    done: oneshot::Sender<Result<Changed, StoreError>>,
}

impl GroupWrite for Write {
    /// What is left of the session: of a deletion, what was there.
    type Output = Changed;

    fn bytes(&self) -> usize {
        512
    }

    fn operations(&self) -> u64 {
        1
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<Changed, sqlx::Error> {
        match &self.task {
            Task::Insert(session) => {
                insert(connection, session).await?;
                Ok(Changed::Missing)
            }
            Task::Change { id, change, now } => {
                let Some(session) = live(connection, *id, *now).await? else { return Ok(Changed::Missing) };
                match change.apply(&session, *now) {
                    Ok(changed) => {
                        replace(connection, &changed).await?;
                        Ok(Changed::Session(Box::new(changed)))
                    }
                    Err(refused) => Ok(Changed::Refused(refused)),
                }
            }
            Task::Delete { id, now } => {
                let session = live(connection, *id, *now).await?;
                sqlx::query("DELETE FROM sessions WHERE id = ?")
                    .bind(id.as_bytes().as_slice())
                    .execute(connection)
                    .await?;
                Ok(session.map_or(Changed::Missing, |session| Changed::Session(Box::new(session))))
            }
            Task::DeleteExpired { now } => {
                sqlx::query("DELETE FROM sessions WHERE expires_at_us <= ?").bind(now.0).execute(connection).await?;
                Ok(Changed::Missing)
            }
        }
    }

    fn done(self, result: Result<Changed, StoreError>) {
        // Whoever asked may have gone; the change stands.
        let _ = self.done.send(result);
    }
}

async fn live(connection: &mut SqliteConnection, id: Uuid, now: UnixMicros) -> Result<Option<Session>, sqlx::Error> {
    let query = sqlx::query("SELECT * FROM sessions WHERE id = ? AND expires_at_us > ?");
    let row = query.bind(id.as_bytes().as_slice()).bind(now.0).fetch_optional(connection).await?;
    row.map(|row| session_of_row(&row)).transpose().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn details(session: &Session) -> Vec<u8> {
    let stats = Some(session.stats);
    pb::Session { metadata: session.metadata.clone(), stats, ..Default::default() }.encode_to_vec()
}

async fn insert(connection: &mut SqliteConnection, session: &Session) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(session.id.as_bytes().as_slice())
        .bind(&session.user_id)
        .bind(session.connection_id.as_bytes().as_slice())
        .bind(&session.client_ip)
        .bind(i64::from(session.client_port))
        .bind(i64::from(i32::from(session.state)))
        .bind(session.created_at.0)
        .bind(session.last_active_at.0)
        .bind(session.expires_at.0)
        .bind(session.timeout.as_micros() as i64)
        .bind(details(session))
        .bind(session.token_hash.as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Writes what can change of a session.
async fn replace(connection: &mut SqliteConnection, session: &Session) -> Result<(), sqlx::Error> {
    let update = "UPDATE sessions SET state = ?, last_active_at_us = ?, expires_at_us = ?, details = ?, token_hash = ?
        WHERE id = ?";
    sqlx::query(update)
        .bind(i64::from(i32::from(session.state)))
        .bind(session.last_active_at.0)
        .bind(session.expires_at.0)
        .bind(details(session))
        .bind(session.token_hash.as_slice())
        .bind(session.id.as_bytes().as_slice())
        .execute(connection)
        .await
        .map(drop)
}

/// Sessions in one SQLite file.
pub struct SqliteSessions {
    database: Database,
    committer: Committer<Write>,
}

impl SqliteSessions {
    /// Opens the database at `path`. The returned task ends when the store is gone.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub async fn open(path: &std::path::Path, durability: Durability) -> Result<(Self, JoinHandle<()>), StoreError> {
        let database = Database::open(path, durability, &SCHEMAS).await?;
        let (committer, task) = Committer::start(&database).await?;
        Ok((Self { database, committer }, task))
    }

    async fn write(&self, task: Task) -> Result<Changed, StoreError> {
        let (done, result) = oneshot::channel();
        self.committer.submit(Write { task, done }).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn find(&self, query: &'static str, id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        let query = sqlx::query(query).bind(id.as_bytes().as_slice()).bind(now.0);
        query.fetch_optional(&self.database.readers).await?.map(|row| session_of_row(&row)).transpose()
    }
}

#[tonic::async_trait]
impl SessionStore for SqliteSessions {
    async fn insert(&self, session: Session) -> Result<(), StoreError> {
        self.write(Task::Insert(Box::new(session))).await.map(drop)
    }

    async fn get(&self, id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        self.find("SELECT * FROM sessions WHERE id = ? AND expires_at_us > ?", id, now).await
    }

    async fn get_by_connection(&self, connection_id: Uuid, now: UnixMicros) -> Result<Option<Session>, StoreError> {
        let query = "SELECT * FROM sessions WHERE connection_id = ? AND expires_at_us > ?
            ORDER BY created_at_us DESC, id DESC LIMIT 1";
        self.find(query, connection_id, now).await
    }

    async fn change(&self, id: Uuid, change: SessionChange, now: UnixMicros) -> Result<Changed, StoreError> {
        self.write(Task::Change { id, change, now }).await
    }

    async fn delete(&self, id: Uuid, now: UnixMicros) -> Result<bool, StoreError> {
        Ok(matches!(self.write(Task::Delete { id, now }).await?, Changed::Session(_)))
    }

    async fn list(&self, filter: &SessionFilter, now: UnixMicros) -> Result<(Vec<Session>, u64), StoreError> {
        let matching = |select: &str| {
            let mut query = QueryBuilder::<Sqlite>::new(select);
            query.push(" FROM sessions WHERE expires_at_us > ").push_bind(now.0);
            if !filter.user_id.is_empty() {
                query.push(" AND user_id = ").push_bind(filter.user_id.clone());
            }
            if let Some(state) = filter.state {
                query.push(" AND state = ").push_bind(i32::from(state));
            }
            query
        };
        let mut page = matching("SELECT *");
        page.push(" ORDER BY created_at_us, id LIMIT ").push_bind(filter.limit);
        page.push(" OFFSET ").push_bind(filter.offset as i64);
        let mut total = matching("SELECT count(*)");
        // One transaction, so that the page and the count are of the same moment.
        let mut snapshot = self.database.readers.begin().await?;
        let total: i64 = total.build_query_scalar().fetch_one(&mut *snapshot).await?;
        let rows = page.build().fetch_all(&mut *snapshot).await?;
        Ok((rows.iter().map(session_of_row).collect::<Result<_, _>>()?, total as u64))
    }

    async fn counts(&self, now: UnixMicros) -> Result<SessionCounts, StoreError> {
        let query = "SELECT count(*), count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3)
            FROM sessions WHERE expires_at_us > ?";
        let (total, active, idle): (i64, i64, i64) =
            sqlx::query_as(query).bind(now.0).fetch_one(&self.database.readers).await?;
        Ok(SessionCounts { total: total as u64, active: active as u64, idle: idle as u64 })
    }

    async fn delete_expired(&self, now: UnixMicros) -> Result<(), StoreError> {
        self.write(Task::DeleteExpired { now }).await.map(drop)
    }

    async fn check(&self) -> Result<Option<String>, StoreError> {
        sqlx::query("SELECT id FROM sessions LIMIT 1").fetch_optional(&self.database.readers).await?;
        self.committer.probe().await.map(|()| None)
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
        expires_at: UnixMicros(row.try_get("expires_at_us")?),
        timeout: Duration::from_micros(row.try_get::<i64, _>("timeout_us")? as u64),
        metadata: details.metadata,
        stats: details.stats.unwrap_or_default(),
        token_hash: token_hash.try_into().map_err(|_| corrupt("token_hash"))?,
    })
}
