//! A Redis server of its own, or one of somebody else's in which only keys of a prefix are touched.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use private_stores::{Programs, Redis};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use uuid::Uuid;

use super::url::ServerUrl;
use super::{Space, quoted, up};
use crate::services::store::Store;

const SCHEMES: [&str; 1] = ["redis"];
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// Keys that are looked through at once when those of a prefix are removed.
const SCANNED_TOGETHER: usize = 10_000;

/// A server that sessions are kept in.
pub(super) struct RedisServer {
    private: Option<Redis>,
    url: ServerUrl,
    database: i64,
    client: redis::Client,
}

impl RedisServer {
    /// The server at `url`, or a private one.
    ///
    /// # Errors
    /// If it does not start, or does not answer.
    pub(super) async fn start(url: Option<&str>, programs: &Programs, parent: &Path) -> anyhow::Result<Self> {
        let (private, url) = if let Some(url) = url {
            (None, ServerUrl::parse(url, &SCHEMES).context("--redis-url")?)
        } else {
            let mut server = Redis::start(programs, parent)?;
            up("redis-server", || server.is_up()).await?;
            let url = ServerUrl::parse(&format!("redis://{}", server.address()), &SCHEMES)?;
            (Some(server), url)
        };
        ensure!(url.user.is_empty(), "--redis-url: the services know a password, redis://:PASSWORD@..., and no user");
        let database = match url.path.as_str() {
            "" => 0,
            number => number.parse().context("--redis-url: what follows the port is the number of a database")?,
        };
        let settings = RedisConnectionInfo::default().set_db(database);
        let settings = if url.password.is_empty() { settings } else { settings.set_password(&url.password) };
        let address = ConnectionAddr::Tcp(url.host.trim_matches(['[', ']']).to_owned(), url.port);
        let client = redis::Client::open(address.into_connection_info()?.set_redis_settings(settings))?;
        let server = Self { private, url, database, client };
        server.connect().await?;
        Ok(server)
    }

    async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let connected = self.client.get_multiplexed_async_connection().await;
        connected.with_context(|| format!("Redis at {}:{}", self.url.host, self.url.port))
    }

    /// A prefix that no key has.
    pub(super) fn open(&self) -> Space {
        let name = format!("aetherflow-bench-{}:", Uuid::new_v4().simple());
        let address = format!("{}:{}", self.url.host, self.url.port);
        let section = format!(
            "Store:\n  Type: redis\n  Redis: {{Addr: {}, Password: {}, DB: {}, KeyPrefix: {}}}\n",
            quoted(&address),
            quoted(&self.url.password),
            self.database,
            quoted(&name)
        );
        let server = self.private.as_ref().map(Redis::id);
        Space { store: Store::Redis, section, server, port: Some(self.url.port), name }
    }

    /// Removes the keys of a space; of a private server all, which is faster.
    pub(super) async fn close(&self, space: &Space) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        // Hundreds of thousands of keys go: that takes longer than an answer usually may.
        connection.set_response_timeout(ANSWER_TIME);
        if self.private.is_some() {
            redis::cmd("FLUSHALL").arg("SYNC").query_async::<()>(&mut connection).await?;
            return Ok(());
        }
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", space.name)).arg("COUNT").arg(SCANNED_TOGETHER);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).query_async::<()>(&mut connection).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}
