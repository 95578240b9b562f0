//! `/readyz` while SQLite cannot be written. Redis and PostgreSQL that are away are in `store_servers/`.

use std::time::{Duration, Instant};

use crate::common::World;
use crate::common::{http_get, is_ready_within};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

/// How soon a service has to be ready again.
const RECOVERY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_not_ready_until_it_does_again() {
    let world = World::start().await;
    for (file, metrics) in
        [("sessions.db", world.running.session_metrics_addr), ("documents.db", world.running.statesync_metrics_addr)]
    {
        is_ready_within(metrics, RECOVERY).await;
        // Reads go on beside a writer of another process; writes do not.
        let mut writer = SqliteConnectOptions::new().filename(world.data.path().join(file)).connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
        let started = Instant::now();
        let answer = http_get(metrics, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503") && answer.contains("not ready: "), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
        assert!(http_get(metrics, "/healthz").await.starts_with("HTTP/1.0 200"));
        sqlx::query("ROLLBACK").execute(&mut writer).await.unwrap();
        is_ready_within(metrics, RECOVERY).await;
    }
    world.running.shutdown().await;
}
