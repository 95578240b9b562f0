//! Connections that read. One that was lost is replaced, and what it was asked is asked again.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres};

use super::failure::Failure;
use super::options::PostgresOptions;
use crate::store::StoreError;

/// A connection that rested for longer is asked whether it still is one before it is used.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
const PING_TIME: Duration = Duration::from_millis(250);
/// Above the number of idle connections that are kept, one is kept for so long: connecting for every burst would be slower.
const EXTRA_TIME: Duration = Duration::from_secs(30);
/// How long a connection lives, and how long one that nobody uses.
const LIFETIME: Duration = Duration::from_mins(5);

/// The pool, as its own callback reaches it. Emptied by the owner's end, because the pool owns the callback.
type OwnPool = Arc<Mutex<Option<PgPool>>>;

/// Connections that read.
pub(super) struct Readers {
    pool: PgPool,
    own_pool: OwnPool,
    connections: u32,
    limit: Duration,
}

impl Readers {
    /// At most `connections`; they are made when they are needed.
    pub(super) fn start(options: &PostgresOptions, connections: u32) -> Self {
        let own_pool = OwnPool::default();
        let (counted, idle_max) = (Arc::clone(&own_pool), options.idle_connections);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(options.connect_timeout)
            .max_lifetime(LIFETIME)
            .idle_timeout(LIFETIME)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for <= TRUSTED {
                        return Ok(true);
                    }
                    let answer = tokio::time::timeout(PING_TIME, connection.ping()).await;
                    answer.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|()| true)
                })
            })
            .after_release(move |_, meta| {
                let idle = lock(&counted).as_ref().map_or(0, PgPool::num_idle);
                let is_kept = idle < idle_max as usize || meta.age < EXTRA_TIME;
                Box::pin(async move { Ok(is_kept) })
            })
            .connect_lazy_with(options.connect_options(options.statement_timeout));
        *lock(&own_pool) = Some(pool.clone());
        Self { pool, own_pool, connections, limit: options.statement_timeout }
    }

    /// A connection for one use.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        match self.pool.acquire().await {
            Ok(connection) => Ok(Lease { connection: Some(connection) }),
            // It was tried for as long as a caller is to wait.
            Err(error) => Err(Failure::Store(StoreError::Failed(format!("PostgreSQL: no connection: {error}")))),
        }
    }

    /// Reads; again if the connection turns out to be lost, which all those of the pool may be after a restart of the server.
    pub(super) async fn retrying<T, F>(&self, read: impl Fn() -> F + Send + Sync) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let reading = async {
            for _ in 0..self.connections {
                match read().await {
                    Err(Failure::Lost(reason)) => tracing::debug!(reason, "a connection to PostgreSQL was lost"),
                    outcome => return outcome,
                }
            }
            read().await
        };
        let outcome = tokio::time::timeout(self.limit, reading).await;
        Ok(outcome.unwrap_or(Err(Failure::Silent(self.limit)))?)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(lock(&self.own_pool).take());
    }
}

fn lock(own_pool: &OwnPool) -> std::sync::MutexGuard<'_, Option<PgPool>> {
    own_pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that goes back to the pool only if it is given back: one that failed or fell silent would keep its place there for
/// as long as the system believes in it.
pub(super) struct Lease {
    connection: Option<PoolConnection<Postgres>>,
}

impl Lease {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is there until it is given back")
    }

    /// It is in good order.
    pub(super) fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
