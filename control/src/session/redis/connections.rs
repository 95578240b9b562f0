//! Connections to Redis, which calls take in turn and which heal.
//!
//! A [`ConnectionManager`] connects again when its connection is closed. It does not where Redis falls silent without closing it
//! (a machine that is gone), became the replica of another, or refused the first commands (too many clients, a password that
//! was changed). So whatever fails here gets another manager.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult};

use super::RedisOptions;
use crate::store::StoreError;

/// How long a connection is used at least, so that errors that are no fault of it do not make one after the other.
const RENEW_INTERVAL: Duration = Duration::from_millis(200);
/// How long a connection waits at most before it tries again: of the time that recovery may take, a small part.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The connections; each carries any number of calls at once.
pub(super) struct Connections {
    client: Client,
    config: ConnectionManagerConfig,
    /// How long a call may take, with connecting if it comes to that.
    limit: Duration,
    slots: Vec<Mutex<Slot>>,
    next: AtomicUsize,
}

struct Slot {
    connection: ConnectionManager,
    made_at: Instant,
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
            .set_max_delay(RETRY_INTERVAL_MAX)
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let mut slots = Vec::new();
        for _ in 0..options.connections.max(1) {
            let connection =
                ConnectionManager::new_with_config(client.clone(), config.clone()).await.map_err(|error| {
                    let remedy = "is Store.Redis.Addr right, and does Redis run?";
                    StoreError::Failed(format!("Redis at {}: {error}: {remedy}", options.address))
                })?;
            slots.push(Mutex::new(Slot { connection, made_at: Instant::now() }));
        }
        Ok(Self { client, config, limit: options.response_timeout, slots, next: AtomicUsize::new(0) })
    }

    /// What `query` gets from Redis over the next connection.
    ///
    /// # Errors
    /// [`StoreError::Failed`], no later than the limit.
    pub(super) async fn run<T, F>(&self, query: impl FnOnce(ConnectionManager) -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        let (connection, made_at) = {
            let slot = lock(slot);
            (slot.connection.clone(), slot.made_at)
        };
        let error = match tokio::time::timeout(self.limit, query(connection)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.into(),
            Err(_) => StoreError::Failed(format!("Redis: no answer within {:?}", self.limit)),
        };
        self.renew(slot, made_at);
        Err(error)
    }

    /// Takes another connection in place of the one made at `made_at`. It connects with its first call.
    fn renew(&self, slot: &Mutex<Slot>, made_at: Instant) {
        let mut slot = lock(slot);
        if slot.made_at != made_at || made_at.elapsed() < RENEW_INTERVAL {
            return;
        }
        if let Ok(connection) = ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            *slot = Slot { connection, made_at: Instant::now() };
        }
    }
}

fn lock(slot: &Mutex<Slot>) -> std::sync::MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
