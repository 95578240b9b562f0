//! A PostgreSQL server of its own, or one of somebody else's in which only databases of this program are touched.

use std::path::Path;

use anyhow::{Context, ensure};
use private_stores::{Postgres, Programs};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;

use super::url::ServerUrl;
use super::{Space, quoted, up};
use crate::services::store::Store;

const SCHEMES: [&str; 2] = ["postgres", "postgresql"];
/// The database that is connected to, to make others.
const MAINTENANCE: &str = "postgres";

/// A server that documents are kept in.
pub(super) struct PostgresServer {
    private: Option<Postgres>,
    url: ServerUrl,
}

impl PostgresServer {
    /// The server at `url`, or a private one.
    ///
    /// # Errors
    /// If it does not start, or does not answer.
    pub(super) async fn start(url: Option<&str>, programs: &Programs, parent: &Path) -> anyhow::Result<Self> {
        let (private, url) = if let Some(url) = url {
            (None, ServerUrl::parse(url, &SCHEMES).context("--postgres-url")?)
        } else {
            // It makes its data, which takes a second or two.
            let mut server = tokio::task::block_in_place(|| Postgres::start(programs, parent))?;
            up("PostgreSQL", || server.is_up()).await?;
            let url = format!("postgres://postgres@127.0.0.1:{}", server.port());
            (Some(server), ServerUrl::parse(&url, &SCHEMES)?)
        };
        ensure!(!url.user.is_empty(), "--postgres-url has to name a user who may create databases");
        let server = Self { private, url };
        server.connect().await?.close().await?;
        Ok(server)
    }

    async fn connect(&self) -> anyhow::Result<PgConnection> {
        let url = &self.url;
        let options = PgConnectOptions::new_without_pgpass().host(&url.host).port(url.port).username(&url.user);
        let options = if url.password.is_empty() { options } else { options.password(&url.password) };
        let database = if url.path.is_empty() { MAINTENANCE } else { &url.path };
        let connected = options.database(database).ssl_mode(PgSslMode::Prefer).connect().await;
        connected.with_context(|| format!("PostgreSQL at {}:{}", url.host, url.port))
    }

    async fn run(&self, statement: String) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// A database of its own.
    pub(super) async fn open(&self) -> anyhow::Result<Space> {
        let name = format!("aetherflow_bench_{}", Uuid::new_v4().simple());
        let created = self.run(format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await;
        created.context("cannot create a database")?;
        let section = format!(
            "Store:\n  Type: postgres\n  Postgres: {{Host: {}, Port: {}, User: {}, Password: {}, DBName: {name}}}\n",
            quoted(&self.url.host),
            self.url.port,
            quoted(&self.url.user),
            quoted(&self.url.password)
        );
        let server = self.private.as_ref().map(Postgres::id);
        Ok(Space { store: Store::Postgres, section, server, port: Some(self.url.port), name })
    }

    /// Removes a space's database, whoever is still connected to it.
    pub(super) async fn close(&self, space: &Space) -> anyhow::Result<()> {
        self.run(format!("DROP DATABASE {} WITH (FORCE)", space.name)).await.context("cannot drop a database")
    }
}
