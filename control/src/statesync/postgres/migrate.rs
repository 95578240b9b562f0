//! The schema, step by step, up and down.
//!
//! A table says which steps were taken. All that a command changes is one transaction, and one process at a time changes anything.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};

use super::options::PostgresOptions;
use super::rows::Timestamptz;
use crate::clock::UnixMicros;
use crate::store::StoreError;

/// One step of the schema.
struct Migration {
    name: &'static str,
    up: &'static str,
    down: &'static str,
    /// Whether all documents go with it.
    holds_documents: bool,
}

/// In order; the first one is number 1.
const MIGRATIONS: [Migration; 3] = [
    Migration {
        name: "documents",
        up: include_str!("../../../migrations/0001_documents.up.sql"),
        down: include_str!("../../../migrations/0001_documents.down.sql"),
        holds_documents: true,
    },
    Migration {
        name: "waiting since",
        up: include_str!("../../../migrations/0002_waiting_since.up.sql"),
        down: include_str!("../../../migrations/0002_waiting_since.down.sql"),
        holds_documents: false,
    },
    Migration {
        name: "deleted documents",
        up: include_str!("../../../migrations/0003_deleted_documents.up.sql"),
        down: include_str!("../../../migrations/0003_deleted_documents.down.sql"),
        holds_documents: false,
    },
];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS aetherflow_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";
/// The advisory lock of whoever changes the schema: "aether" in ASCII.
const LOCK: i64 = 0x6165_7468_6572;
/// Making an index takes as long as it takes.
const UNLIMITED: Duration = Duration::ZERO;

/// A step of the schema and when it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// From 1.
    pub version: i32,
    /// What it is about.
    pub name: String,
    /// When it was taken; none: it is still to be taken.
    pub applied_at: Option<UnixMicros>,
}

/// What came of looking at the schema or changing it.
enum Outcome {
    Steps(Vec<Step>),
    /// The schema has this version, which this program does not know.
    Newer(i32),
    /// A step stays, for so many documents are in it.
    Holds {
        version: i32,
        documents: i64,
    },
}

/// Takes all steps that are missing; gives those.
///
/// # Errors
/// [`StoreError::Open`], which says what to do, also if the schema is newer than this program.
pub async fn up(options: &PostgresOptions) -> Result<Vec<Step>, StoreError> {
    let mut connection = options.connect(UNLIMITED).await?;
    tell(options, take_missing(&mut connection).await)
}

/// Takes the newest step back, with all data that it holds; gives it, or nothing if there is none.
///
/// # Errors
/// [`StoreError::Open`], which says what to do, also if the schema is newer than this program.
/// [`StoreError::HoldsDocuments`] if documents would go, unless `and_documents`.
pub async fn down(options: &PostgresOptions, and_documents: bool) -> Result<Option<Step>, StoreError> {
    let mut connection = options.connect(UNLIMITED).await?;
    let steps = tell(options, take_back(&mut connection, and_documents).await)?;
    Ok(steps.into_iter().next())
}

/// All steps, those that this program does not know included.
///
/// # Errors
/// [`StoreError::Open`], which says what to do.
pub async fn status(options: &PostgresOptions) -> Result<Vec<Step>, StoreError> {
    let mut connection = options.connect(UNLIMITED).await?;
    tell(options, look(&mut connection).await)
}

async fn take_missing(connection: &mut PgConnection) -> Result<Outcome, sqlx::Error> {
    if newest(&mut *connection).await? == MIGRATIONS.len() as i32 {
        // Who may not change the schema can still use it.
        return Ok(Outcome::Steps(Vec::new()));
    }
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    sqlx::raw_sql(TABLE).execute(&mut *transaction).await?;
    // Somebody else may have been faster.
    let done = newest(&mut transaction).await?;
    let Some(taken) = taken(done) else { return Ok(Outcome::Newer(done)) };
    let mut steps = Vec::new();
    for (migration, version) in MIGRATIONS.iter().zip(1_i32..).skip(taken) {
        sqlx::raw_sql(migration.up).execute(&mut *transaction).await?;
        let insert = sqlx::query("INSERT INTO aetherflow_migrations (version, name) VALUES ($1, $2)");
        insert.bind(version).bind(migration.name).execute(&mut *transaction).await?;
        steps.push(Step { version, name: migration.name.to_owned(), applied_at: Some(crate::clock::now()) });
    }
    transaction.commit().await?;
    Ok(Outcome::Steps(steps))
}

async fn take_back(connection: &mut PgConnection, and_documents: bool) -> Result<Outcome, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    let done = newest(&mut transaction).await?;
    let Some(taken) = taken(done) else { return Ok(Outcome::Newer(done)) };
    let Some(index) = taken.checked_sub(1) else { return Ok(Outcome::Steps(Vec::new())) };
    let migration = &MIGRATIONS[index];
    if migration.holds_documents && !and_documents {
        let documents: i64 = sqlx::query_scalar("SELECT count(*) FROM documents").fetch_one(&mut *transaction).await?;
        if documents > 0 {
            return Ok(Outcome::Holds { version: done, documents });
        }
    }
    sqlx::raw_sql(migration.down).execute(&mut *transaction).await?;
    let delete = sqlx::query("DELETE FROM aetherflow_migrations WHERE version = $1").bind(done);
    delete.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Outcome::Steps(vec![Step { version: done, name: migration.name.to_owned(), applied_at: None }]))
}

async fn look(connection: &mut PgConnection) -> Result<Outcome, sqlx::Error> {
    let mut steps = Vec::new();
    if has_table(&mut *connection).await? {
        let query = sqlx::query("SELECT version, name, applied_at FROM aetherflow_migrations ORDER BY version");
        for row in query.fetch_all(connection).await? {
            let applied_at: Timestamptz = row.try_get("applied_at")?;
            let (version, name) = (row.try_get("version")?, row.try_get("name")?);
            steps.push(Step { version, name, applied_at: Some(applied_at.0) });
        }
    }
    for (migration, version) in MIGRATIONS.iter().zip(1_i32..).skip(steps.len()) {
        steps.push(Step { version, name: migration.name.to_owned(), applied_at: None });
    }
    Ok(Outcome::Steps(steps))
}

/// What came of it, in words where it failed.
fn tell(options: &PostgresOptions, outcome: Result<Outcome, sqlx::Error>) -> Result<Vec<Step>, StoreError> {
    match outcome {
        Ok(Outcome::Steps(steps)) => Ok(steps),
        Ok(Outcome::Newer(version)) => Err(StoreError::Open {
            path: options.name().into(),
            reason: format!(
                "its schema {version} is of a later AetherFlow; this one knows {}. Use that AetherFlow, or take the schema back with \
                 it: aetherflow migrate down -f FILE",
                MIGRATIONS.len()
            ),
        }),
        Ok(Outcome::Holds { version, documents }) => Err(StoreError::HoldsDocuments { version, documents }),
        Err(error) => Err(options.cannot_open(&error)),
    }
}

async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(connection).await.map(drop)
}

async fn has_table(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT to_regclass('aetherflow_migrations') IS NOT NULL").fetch_one(connection).await
}

/// The version of the schema; 0: there is none.
async fn newest(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    if !has_table(&mut *connection).await? {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM aetherflow_migrations").fetch_one(connection).await
}

/// How many steps were taken, if this program knows them all.
fn taken(version: i32) -> Option<usize> {
    usize::try_from(version).ok().filter(|taken| *taken <= MIGRATIONS.len())
}
