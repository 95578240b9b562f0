//! `/readyz` while SQLite cannot be written. Redis and PostgreSQL that are away are in `store_servers/`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::common::World;
use crate::common::{http_get, is_ready_within};

/// How soon a service has to be ready again.
const RECOVERY: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_takes_no_writes_is_not_ready_until_it_does_again() {
    let world = World::start().await;
    let running = &world.running;
    for (file, metrics, address) in [
        ("sessions.db", running.session_metrics_addr, running.session_addr),
        ("documents.db", running.statesync_metrics_addr, running.statesync_addr),
    ] {
        is_ready_within(metrics, RECOVERY).await;
        let mut health = health_of(address).await;
        let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(told(&mut watched).await, ServingStatus::Serving);
        // Reads go on beside a writer of another process; writes do not.
        let mut writer = SqliteConnectOptions::new().filename(world.data.path().join(file)).connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
        let started = Instant::now();
        let answer = http_get(metrics, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503") && answer.contains("not ready: "), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
        assert!(http_get(metrics, "/healthz").await.starts_with("HTTP/1.0 200"));
        assert_eq!(told(&mut watched).await, ServingStatus::NotServing);
        let asked = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(asked.status(), ServingStatus::NotServing);
        sqlx::query("ROLLBACK").execute(&mut writer).await.unwrap();
        is_ready_within(metrics, RECOVERY).await;
        assert_eq!(told(&mut watched).await, ServingStatus::Serving);
    }
    world.running.shutdown().await;
}

async fn health_of(service: SocketAddr) -> HealthClient<Channel> {
    HealthClient::new(Channel::from_shared(format!("http://{service}")).unwrap().connect().await.unwrap())
}

/// What whoever watches a service hears next.
async fn told(watched: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    tokio::time::timeout(RECOVERY, watched.message()).await.unwrap().unwrap().unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_knows_its_service_says_so_of_others_and_ends_a_watch_with_the_service() {
    let world = World::start().await;
    let mut health = health_of(world.running.statesync_addr).await;
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let known = health.check(of("aetherflow.statesync.StateSyncService")).await.unwrap().into_inner();
    assert_eq!(known.status(), ServingStatus::Serving);
    let unknown = health.check(of("session.SessionService")).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown:?}");
    let mut of_unknown = health.watch(of("nobody")).await.unwrap().into_inner();
    assert_eq!(told(&mut of_unknown).await, ServingStatus::ServiceUnknown);
    let mut watched = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(told(&mut watched).await, ServingStatus::Serving);
    let ended = tokio::spawn(world.running.shutdown());
    assert_eq!(told(&mut watched).await, ServingStatus::NotServing);
    for mut stream in [watched, of_unknown] {
        let end = tokio::time::timeout(RECOVERY, stream.message()).await.unwrap();
        assert!(matches!(end, Ok(None)), "{end:?}");
    }
    ended.await.unwrap();
}
