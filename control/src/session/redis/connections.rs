//! Connections to Redis, which calls take in turn and which heal.
//!
//! A [`ConnectionManager`] connects again when its connection is closed. It does not where Redis falls silent without closing it
//! (a machine that is gone), became the replica of another, or refused the first commands (too many clients, a password that
//! was changed). So whatever fails here gets another manager.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult};

use super::RedisOptions;
use crate::store::StoreError;

/// How long a connection is used at least, so that errors that are no fault of it do not make one after the other.
const RENEW_INTERVAL: Duration = Duration::from_millis(200);
/// The least and the greatest time between attempts to connect again: a small part of the time that recovery may take.
const RETRY_INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The connections; each carries any number of calls at once.
pub(super) struct Connections {
    pool: Arc<Pool>,
    next: AtomicUsize,
}

struct Pool {
    client: Client,
    config: ConnectionManagerConfig,
    /// How long a call may take, with connecting if it comes to that.
    limit: Duration,
    slots: Vec<Mutex<Slot>>,
}

struct Slot {
    connection: ConnectionManager,
    made_at: Instant,
    /// Whether another one is being made.
    heals: bool,
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self::Failed(format!("Redis: {error}"))
    }
}

impl Connections {
    /// Connects.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if Redis does not answer.
    pub(super) async fn open(options: &RedisOptions) -> Result<Self, StoreError> {
        let (host, port) = options.address.rsplit_once(':').unwrap_or((options.address.as_str(), "6379"));
        let port = port.parse::<u16>().map_err(|_| StoreError::Failed(format!("Redis: {port:?} is no port")))?;
        let redis = RedisConnectionInfo::default().set_db(options.database);
        let redis = if options.password.is_empty() { redis } else { redis.set_password(&options.password) };
        let address = ConnectionAddr::Tcp(host.trim_matches(['[', ']']).to_owned(), port);
        let client = Client::open(address.into_connection_info()?.set_redis_settings(redis))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(options.retries)
            .set_max_delay(RETRY_INTERVALS.1)
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let mut slots = Vec::new();
        for _ in 0..options.connections.max(1) {
            let connection =
                ConnectionManager::new_with_config(client.clone(), config.clone()).await.map_err(|error| {
                    let remedy = "is Store.Redis.Addr right, and does Redis run?";
                    StoreError::Failed(format!("Redis at {}: {error}: {remedy}", options.address))
                })?;
            slots.push(Mutex::new(Slot::of(connection)));
        }
        let pool = Arc::new(Pool { client, config, limit: options.response_timeout, slots });
        Ok(Self { pool, next: AtomicUsize::new(0) })
    }

    /// What `query` gets from Redis over the next connection.
    ///
    /// # Errors
    /// [`StoreError::Failed`], no later than the limit.
    pub(super) async fn run<T, F>(&self, query: impl FnOnce(ConnectionManager) -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.pool.slots.len();
        let (connection, made_at) = {
            let slot = lock(&self.pool.slots[place]);
            (slot.connection.clone(), slot.made_at)
        };
        let limit = self.pool.limit;
        let error = match tokio::time::timeout(limit, query(connection)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.into(),
            Err(_) => StoreError::Failed(format!("Redis: no answer within {limit:?}")),
        };
        self.renew(place, made_at);
        Err(error)
    }

    /// Has another connection made in place of the one of `made_at`. Until it is there calls go on over the old one, which
    /// fails them soon.
    fn renew(&self, place: usize, made_at: Instant) {
        let mut slot = lock(&self.pool.slots[place]);
        if slot.heals || slot.made_at != made_at || made_at.elapsed() < RENEW_INTERVAL {
            return;
        }
        slot.heals = true;
        tokio::spawn(heal(Arc::downgrade(&self.pool), place));
    }
}

impl Slot {
    fn of(connection: ConnectionManager) -> Self {
        Self { connection, made_at: Instant::now(), heals: false }
    }
}

impl Pool {
    /// Another connection, over which Redis has answered.
    async fn connect(&self) -> RedisResult<ConnectionManager> {
        let mut connection = ConnectionManager::new_with_config(self.client.clone(), self.config.clone()).await?;
        let _: String = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    }
}

/// Tries until there is a connection, or nobody wants one.
async fn heal(pool: Weak<Pool>, place: usize) {
    let (mut wait, longest) = RETRY_INTERVALS;
    while let Some(pool) = pool.upgrade() {
        if let Ok(Ok(connection)) = tokio::time::timeout(pool.limit, pool.connect()).await {
            *lock(&pool.slots[place]) = Slot::of(connection);
            return;
        }
        drop(pool);
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(longest);
    }
}

fn lock(slot: &Mutex<Slot>) -> std::sync::MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
