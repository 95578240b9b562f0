//! What the stores take without the services before them: reading and creating one record, and operations of which 1, 32 and 128 are
//! under way together, of as many documents or of one. Divided by the count that divan shows, a group's time is that of an operation.
//!
//! Redis and PostgreSQL are started for it where they are installed (`STORES_TOOLS` names a folder of their programs). Data are in the
//! system's folder for temporary files, or in `STORES_DATA`: name one on a disk, or nothing is durable.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use control::clock::{HybridTime, UnixMicros, now};
use control::session::{MemorySessions, RedisOptions, RedisSessions, Session, SessionStore, SqliteSessions};
use control::statesync::{
    Batch, DocumentRecord, DocumentStore, Durability as Written, LogRow, MemoryDocuments, PostgresDocuments,
    PostgresOptions, Snapshot, SqliteDocuments,
};
use control::store::Durability;
use divan::Bencher;
use divan::counter::ItemsCount;
use private_stores::{Postgres, Programs, Redis, StartError};
use proto::{session, statesync as pb};
use sqlx::postgres::PgSslMode;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use uuid::Uuid;

/// Operations that are under way together.
const GROUPS: [usize; 3] = [1, 32, 128];
/// Records that are there before one is read.
const RECORDS: usize = 1000;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static SERVERS: Mutex<Servers> = Mutex::new(Servers { redis: None, postgres: None });

fn main() {
    let _servers = EndOfServers;
    // What stores leave behind ends on it.
    let _context = RUNTIME.enter();
    divan::main();
}

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Sqlite,
    Redis,
    Postgres,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        })
    }
}

/// A store of documents and so many operations together.
#[derive(Debug, Clone, Copy)]
struct Group {
    kind: Kind,
    operations: usize,
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, {} together", self.kind, self.operations)
    }
}

/// The servers that were needed so far.
struct Servers {
    redis: Option<Redis>,
    postgres: Option<Postgres>,
}

/// Ends them with the process.
struct EndOfServers;

impl Drop for EndOfServers {
    fn drop(&mut self) {
        if let Ok(mut servers) = SERVERS.lock() {
            (servers.redis, servers.postgres) = (None, None);
        }
    }
}

fn folder() -> PathBuf {
    std::env::var_os("STORES_DATA").map_or_else(std::env::temp_dir, PathBuf::from)
}

fn programs() -> Programs {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Programs::new(std::env::var_os("STORES_TOOLS").map(PathBuf::from), std::env::split_paths(&path))
}

/// Whether a server is there; if not, it is said.
fn is_there(found: Result<PathBuf, StartError>) -> bool {
    found.inspect_err(|error| eprintln!("SKIPPED: {error}")).is_ok()
}

fn session_kinds() -> Vec<Kind> {
    let redis = is_there(programs().redis_server()).then_some(Kind::Redis);
    [Kind::Memory, Kind::Sqlite].into_iter().chain(redis).collect()
}

fn document_kinds() -> Vec<Kind> {
    let postgres = is_there(programs().postgres_folder()).then_some(Kind::Postgres);
    [Kind::Memory, Kind::Sqlite].into_iter().chain(postgres).collect()
}

fn groups() -> Vec<Group> {
    let of = |kind| GROUPS.map(|operations| Group { kind, operations });
    document_kinds().into_iter().flat_map(of).collect()
}

fn redis() -> RedisOptions {
    let mut servers = SERVERS.lock().unwrap();
    let server = servers.redis.get_or_insert_with(|| {
        let mut server = Redis::start(&programs(), &folder()).unwrap();
        server.wait().unwrap();
        server
    });
    RedisOptions {
        address: server.address().to_string(),
        password: String::new(),
        database: 0,
        key_prefix: format!("{}:", Uuid::new_v4()),
        connections: 2,
        retries: 3,
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(10),
    }
}

fn postgres() -> PostgresOptions {
    let mut servers = SERVERS.lock().unwrap();
    let server = servers.postgres.get_or_insert_with(|| {
        let mut server = Postgres::start(&programs(), &folder()).unwrap();
        server.wait().unwrap();
        server
    });
    PostgresOptions {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        user: "postgres".to_owned(),
        password: String::new(),
        database: "postgres".to_owned(),
        ssl_mode: PgSslMode::Disable,
        ssl_root_cert: None,
        connections: 25,
        idle_connections: 5,
        connect_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_secs(10),
    }
}

/// A store with the folder that it may need, which is to outlive it.
struct Kept<S: ?Sized> {
    store: Arc<S>,
    _data: TempDir,
}

fn sessions(kind: Kind) -> Kept<dyn SessionStore> {
    let data = tempfile::tempdir_in(folder()).unwrap();
    let store = RUNTIME.block_on(async {
        match kind {
            Kind::Sqlite => {
                let opened = SqliteSessions::open(&data.path().join("sessions.db"), Durability::Disk).await;
                Arc::new(opened.unwrap().0) as Arc<dyn SessionStore>
            }
            Kind::Redis => Arc::new(RedisSessions::connect(&redis()).await.unwrap()) as Arc<dyn SessionStore>,
            Kind::Memory | Kind::Postgres => Arc::new(MemorySessions::default()) as Arc<dyn SessionStore>,
        }
    });
    Kept { store, _data: data }
}

fn documents(kind: Kind) -> Kept<dyn DocumentStore> {
    let data = tempfile::tempdir_in(folder()).unwrap();
    let store = RUNTIME.block_on(async {
        match kind {
            Kind::Sqlite => {
                let opened = SqliteDocuments::open(&data.path().join("documents.db"), Durability::Disk).await;
                Arc::new(opened.unwrap().0) as Arc<dyn DocumentStore>
            }
            Kind::Postgres => Arc::new(PostgresDocuments::open(&postgres()).await.unwrap().0) as Arc<dyn DocumentStore>,
            Kind::Memory | Kind::Redis => Arc::new(MemoryDocuments::default()) as Arc<dyn DocumentStore>,
        }
    });
    Kept { store, _data: data }
}

fn a_session() -> Session {
    let begin = now();
    Session {
        id: Uuid::now_v7(),
        user_id: "ada".to_owned(),
        connection_id: Uuid::now_v7(),
        client_ip: "127.0.0.1".to_owned(),
        client_port: 4242,
        state: session::SessionState::Active,
        created_at: begin,
        last_active_at: begin,
        expires_at: UnixMicros(begin.0 + Duration::from_hours(1).as_micros() as i64),
        timeout: Duration::from_hours(1),
        metadata: HashMap::new(),
        stats: session::SessionStats::default(),
        token_hash: [7; 32],
    }
}

fn a_document() -> DocumentRecord {
    let begin = now();
    DocumentRecord {
        id: Uuid::now_v7(),
        name: "a document".to_owned(),
        kind: "text".to_owned(),
        state: "active".to_owned(),
        version: 1,
        epoch: Uuid::new_v4().to_string(),
        created_by: "ada".to_owned(),
        created_at: begin,
        updated_by: "ada".to_owned(),
        updated_at: begin,
        metadata: pb::Metadata::default(),
        described_version: 1,
        lock: None,
        snapshot: Snapshot { version: 1, typed: false, state: Bytes::from_static(&[b'.'; 1000]) },
    }
}

/// The session of this id.
#[divan::bench(args = session_kinds())]
fn session_get(bencher: Bencher<'_, '_>, kind: Kind) {
    let kept = sessions(kind);
    let ids: Vec<Uuid> = RUNTIME.block_on(async {
        let mut ids = Vec::new();
        for _ in 0..RECORDS {
            let session = a_session();
            ids.push(session.id);
            kept.store.insert(session).await.unwrap();
        }
        ids
    });
    let mut next = ids.iter().cycle();
    bencher.bench_local(|| {
        let id = *next.next().unwrap();
        let found = RUNTIME.block_on(kept.store.get(id, now())).unwrap();
        assert_eq!(found.map(|session| session.id), Some(id));
    });
}

#[divan::bench(args = session_kinds())]
fn session_create(bencher: Bencher<'_, '_>, kind: Kind) {
    let kept = sessions(kind);
    bencher.with_inputs(a_session).bench_local_values(|session| {
        RUNTIME.block_on(kept.store.insert(session)).unwrap();
    });
}

/// The session of this connection, which no RPC asks for.
#[divan::bench(args = session_kinds())]
fn session_get_by_connection(bencher: Bencher<'_, '_>, kind: Kind) {
    let kept = sessions(kind);
    let session = a_session();
    let (id, connection) = (session.id, session.connection_id);
    RUNTIME.block_on(kept.store.insert(session)).unwrap();
    bencher.bench_local(|| {
        let found = RUNTIME.block_on(kept.store.get_by_connection(connection, now())).unwrap();
        assert_eq!(found.map(|session| session.id), Some(id));
    });
}

#[divan::bench(args = document_kinds())]
fn document_get(bencher: Bencher<'_, '_>, kind: Kind) {
    let kept = documents(kind);
    let ids: Vec<Uuid> = (0..RECORDS).map(|_| create(&kept)).collect();
    let mut next = ids.iter().cycle();
    bencher.bench_local(|| {
        let id = *next.next().unwrap();
        let found = RUNTIME.block_on(kept.store.document(id)).unwrap();
        assert_eq!(found.map(|document| document.id), Some(id));
    });
}

#[divan::bench(args = document_kinds())]
fn document_create(bencher: Bencher<'_, '_>, kind: Kind) {
    let kept = documents(kind);
    bencher.with_inputs(a_document).bench_local_values(|record| {
        RUNTIME.block_on(kept.store.create(record)).unwrap();
    });
}

/// An operation on each of so many documents, as their actors write them.
#[divan::bench(args = groups())]
fn apply_to_documents(bencher: Bencher<'_, '_>, group: Group) {
    let kept = documents(group.kind);
    let written: Vec<Line> = (0..group.operations).map(|_| Line::new(create(&kept))).collect();
    bencher.counter(ItemsCount::new(group.operations)).bench_local(|| {
        RUNTIME.block_on(async {
            for line in &written {
                kept.store.submit(line.next(1)).await.unwrap();
            }
            for line in &written {
                line.kept().await;
            }
        });
    });
}

/// So many operations on one document, which its actor writes at once.
#[divan::bench(args = groups())]
fn apply_to_one_document(bencher: Bencher<'_, '_>, group: Group) {
    let kept = documents(group.kind);
    let line = Line::new(create(&kept));
    bencher.counter(ItemsCount::new(group.operations)).bench_local(|| {
        RUNTIME.block_on(async {
            kept.store.submit(line.next(group.operations)).await.unwrap();
            line.kept().await;
        });
    });
}

fn create(kept: &Kept<dyn DocumentStore>) -> Uuid {
    let record = a_document();
    let id = record.id;
    RUNTIME.block_on(kept.store.create(record)).unwrap();
    id
}

/// A document's versions.
struct Line {
    document: Uuid,
    session: Uuid,
    version: AtomicU64,
    ticket: AtomicU64,
    durable: watch::Sender<Written>,
}

impl Line {
    fn new(document: Uuid) -> Self {
        let (version, ticket) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { document, session: Uuid::now_v7(), version, ticket, durable: watch::Sender::new(Written::default()) }
    }

    /// The next operations as a batch.
    fn next(&self, operations: usize) -> Batch {
        let rows = (0..operations).map(|_| Arc::new(self.row())).collect();
        Batch {
            doc_id: self.document,
            rows,
            described: None,
            lock: None,
            conflicts: Vec::new(),
            origins: Vec::new(),
            snapshot: None,
            trim: None,
            ticket: self.ticket.fetch_add(1, Ordering::Relaxed) + 1,
            durable: self.durable.clone(),
            timer: None,
        }
    }

    fn row(&self) -> LogRow {
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let id = Uuid::now_v7();
        let operation = pb::Operation {
            id: id.to_string(),
            doc_id: self.document.to_string(),
            user_id: "ada".to_owned(),
            session_id: self.session.to_string(),
            r#type: "text".to_owned(),
            data: Bytes::from_static(b"{\"pos\":100,\"ins\":\"x\"}"),
            version,
            prev_version: version - 1,
            status: "applied".to_owned(),
            ..pb::Operation::default()
        };
        let mut row = LogRow::new(operation, id, self.session, HybridTime(version));
        row.update = Bytes::from_static(&[7; 30]);
        row
    }

    /// Until all that was submitted is kept.
    async fn kept(&self) {
        let ticket = self.ticket.load(Ordering::Relaxed);
        let mut durable = self.durable.subscribe();
        let state = durable.wait_for(|state| state.ticket >= ticket || state.failed.is_some()).await.unwrap();
        assert!(state.failed.is_none(), "{:?}", state.failed);
    }
}
