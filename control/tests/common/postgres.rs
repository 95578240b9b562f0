//! A real PostgreSQL server: one for all tests of a binary that run at the same time, or one of a test's own; a database for each.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use control::statesync::PostgresOptions;
use private_stores::{Postgres, StartError};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::commands::{programs, skip};
use super::eventually;

/// How long the server may take to start, with what it has to repair after it was killed.
const START_TIME: Duration = Duration::from_secs(30);
/// The server that tests share while any of them uses it.
static SHARED: tokio::sync::Mutex<Weak<Cluster>> = tokio::sync::Mutex::const_new(Weak::new());

/// A database of its own, on a server that ends with the last of its users.
pub struct PostgresServer {
    cluster: Arc<Cluster>,
    database: String,
}

impl PostgresServer {
    /// An empty database on the shared server; none if PostgreSQL is not installed, which is a failure where everything has to be
    /// tested.
    pub async fn start() -> Option<Self> {
        let mut shared = SHARED.lock().await;
        let cluster = if let Some(cluster) = shared.upgrade() {
            cluster
        } else {
            let cluster = Arc::new(Cluster::start().await?);
            *shared = Arc::downgrade(&cluster);
            cluster
        };
        drop(shared);
        Some(Self::create(cluster).await)
    }

    /// An empty database on a server of its own, which may be killed.
    pub async fn alone() -> Option<Self> {
        Some(Self::create(Arc::new(Cluster::start().await?)).await)
    }

    async fn create(cluster: Arc<Cluster>) -> Self {
        let database = format!("test_{}", Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {database}");
        let mut admin = cluster.connect("postgres").await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        Self { cluster, database }
    }

    pub fn options(&self) -> PostgresOptions {
        PostgresOptions {
            host: "127.0.0.1".to_owned(),
            port: self.cluster.port,
            user: "postgres".to_owned(),
            password: String::new(),
            database: self.database.clone(),
            ssl_mode: PgSslMode::Disable,
            ssl_root_cert: None,
            connections: 6,
            idle_connections: 2,
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(3),
        }
    }

    /// The section `Store` of a configuration file.
    pub fn section(&self) -> String {
        format!(
            "Store:\n  Type: postgres\n  Postgres: {{Host: 127.0.0.1, Port: {}, User: postgres, DBName: {}}}\n",
            self.cluster.port, self.database
        )
    }

    /// A connection beside the service's.
    pub async fn connect(&self) -> PgConnection {
        self.cluster.connect(&self.database).await.unwrap()
    }

    /// Ends every process of the server without any warning.
    pub fn kill(&self) {
        self.cluster.server.lock().unwrap().kill();
    }

    /// Stops every process of the server, or lets them go on.
    pub fn signal_all(&self, name: &str) {
        let processes = self.cluster.server.lock().unwrap().processes();
        let mut command = Command::new("kill");
        // One that has just ended is no failure.
        command.arg(name).args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
        command.status().unwrap();
    }

    /// Starts it again with what it had on disk.
    pub async fn restart(&self) {
        let deadline = Instant::now() + START_TIME;
        // Processes of the killed server that are not quite gone keep another one from starting.
        loop {
            self.cluster.server.lock().unwrap().restart().unwrap();
            if self.cluster.answers(deadline).await {
                return;
            }
        }
    }
}

struct Cluster {
    server: Mutex<Postgres>,
    port: u16,
}

impl Cluster {
    async fn start() -> Option<Self> {
        let server = match Postgres::start(&programs(), &std::env::temp_dir()) {
            Err(missing @ StartError::Missing { .. }) => {
                skip(&missing.to_string());
                return None;
            }
            started => started.unwrap(),
        };
        let port = server.port();
        let cluster = Self { server: Mutex::new(server), port };
        assert!(cluster.answers(Instant::now() + START_TIME).await, "PostgreSQL ended at once");
        Some(cluster)
    }

    /// Waits until it takes connections; false if it ended instead.
    async fn answers(&self, deadline: Instant) -> bool {
        let look = async || match self.server.lock().unwrap().is_up() {
            Ok(true) => Ok(true),
            Ok(false) => Err("PostgreSQL does not answer"),
            Err(StartError::Ended { .. }) => Ok(false),
            Err(error) => panic!("{error}"),
        };
        eventually(deadline.saturating_duration_since(Instant::now()), look).await
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port).username("postgres");
        options.database(database).ssl_mode(PgSslMode::Disable).connect().await
    }
}
