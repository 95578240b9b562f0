//! A running server and short ways to call it.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    missing_docs,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]

pub mod collector;
pub mod commands;
pub mod fault;
mod http_get;
pub mod outage;
mod postgres;
pub mod process;
pub mod prometheus;
mod redis;
pub mod service;
mod wait;
pub mod yjs;

use std::net::TcpListener;
use std::time::Duration;

use control::session::RedisOptions;
use control::store::StoreKind;
use control::up::{Running, UpOptions, start};
use proto::session::session_service_client::SessionServiceClient;
use proto::statesync as pb;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

pub use http_get::{http_get, http_get_as, is_ready_within, is_unready_within};
pub use postgres::PostgresServer;
// Not the crate.
pub use self::redis::RedisServer;
pub use wait::eventually;

/// How long a server may take to start.
const START_TIME: Duration = Duration::from_secs(20);

pub type Documents = StateSyncServiceClient<Channel>;
pub type Sessions = SessionServiceClient<Channel>;

pub struct World {
    pub running: Running,
    pub documents: Documents,
    pub sessions: Sessions,
    pub data: TempDir,
    pub redis: Option<RedisServer>,
    pub postgres: Option<PostgresServer>,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Sessions in a Redis of their own; none if there is no `redis-server`.
    pub async fn on_redis() -> Option<Self> {
        let redis = RedisServer::start().await?;
        let options = redis.options();
        Some(Self::on_redis_at(redis, options).await)
    }

    /// Sessions in this Redis, spoken to like this.
    pub async fn on_redis_at(redis: RedisServer, options: RedisOptions) -> Self {
        let change = |up: &mut UpOptions| (up.session_store, up.redis) = (StoreKind::Redis, Some(options));
        Self { redis: Some(redis), ..Self::start_with(change).await }
    }

    /// Documents in a PostgreSQL database of their own; none if there is no server.
    pub async fn on_postgres() -> Option<Self> {
        Self::on_postgres_with(|_| {}).await
    }

    pub async fn on_postgres_with(change: impl FnOnce(&mut UpOptions)) -> Option<Self> {
        Some(Self::on_postgres_at(PostgresServer::start().await?, change).await)
    }

    /// Documents in this database.
    pub async fn on_postgres_at(postgres: PostgresServer, change: impl FnOnce(&mut UpOptions)) -> Self {
        let options = postgres.options();
        let world = Self::start_with(|up| {
            (up.document_store, up.postgres) = (StoreKind::Postgres, Some(options));
            change(up);
        });
        Self { postgres: Some(postgres), ..world.await }
    }

    /// Both services on a store of this kind.
    pub async fn on(store: StoreKind) -> Self {
        Self::start_with(|options| (options.session_store, options.document_store) = (store, store)).await
    }

    pub async fn start_with(change: impl FnOnce(&mut UpOptions)) -> Self {
        control::telemetry::init_logs();
        let data = tempfile::tempdir().unwrap();
        let mut options = UpOptions::new(data.path());
        change(&mut options);
        let running = start(options).await.unwrap();
        let documents = documents(running.statesync_addr).await;
        let sessions = sessions(running.session_addr).await;
        Self { running, documents, sessions, data, redis: None, postgres: None }
    }

    /// The same data under a fresh server.
    pub async fn restart(self) -> Self {
        let Self { running, data, redis, postgres, .. } = self;
        running.shutdown().await;
        let mut options = UpOptions::new(data.path());
        if let Some(redis) = &redis {
            (options.session_store, options.redis) = (StoreKind::Redis, Some(redis.options()));
        }
        if let Some(postgres) = &postgres {
            (options.document_store, options.postgres) = (StoreKind::Postgres, Some(postgres.options()));
        }
        let running = start(options).await.unwrap();
        let documents = documents(running.statesync_addr).await;
        let sessions = sessions(running.session_addr).await;
        Self { running, documents, sessions, data, redis, postgres }
    }
}

/// A base of ports that are free, for `up --ports`.
pub fn free_base() -> u16 {
    (0..500)
        .map(|_| 10_000 + (Uuid::new_v4().as_u128() % 20_000) as u16)
        .find(|base| [1, 2, 101, 102].iter().all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok()))
        .expect("some ports are free")
}

pub async fn documents(address: std::net::SocketAddr) -> Documents {
    eventually(START_TIME, async || StateSyncServiceClient::connect(format!("http://{address}")).await).await
}

pub async fn sessions(address: std::net::SocketAddr) -> Sessions {
    eventually(START_TIME, async || SessionServiceClient::connect(format!("http://{address}")).await).await
}

pub async fn create_text(client: &mut Documents, content: &str) -> String {
    create(client, "text", content.as_bytes()).await
}

pub async fn create(client: &mut Documents, kind: &str, content: &[u8]) -> String {
    let request = pb::CreateDocumentRequest {
        name: "a document".into(),
        r#type: kind.into(),
        created_by: "ada".into(),
        content: content.to_vec().into(),
        metadata: None,
    };
    client.create_document(request).await.unwrap().into_inner().document.unwrap().id
}

pub async fn get(client: &mut Documents, doc_id: &str) -> pb::Document {
    let request = pb::GetDocumentRequest { doc_id: doc_id.into() };
    client.get_document(request).await.unwrap().into_inner().document.unwrap()
}

pub async fn text(client: &mut Documents, doc_id: &str) -> String {
    String::from_utf8(get(client, doc_id).await.content.to_vec()).unwrap()
}

pub fn operation(doc_id: &str, session: Uuid, prev_version: u64, data: &str) -> pb::Operation {
    pb::Operation {
        doc_id: doc_id.into(),
        user_id: "ada".into(),
        session_id: session.to_string(),
        r#type: "text".into(),
        data: data.as_bytes().to_vec().into(),
        prev_version,
        ..Default::default()
    }
}

pub fn insertion(doc_id: &str, session: Uuid, prev_version: u64, pos: usize, ins: &str) -> pb::Operation {
    operation(doc_id, session, prev_version, &serde_json::json!({"pos": pos, "ins": ins}).to_string())
}

pub async fn apply(client: &mut Documents, operation: pb::Operation) -> Result<pb::Operation, Status> {
    let request = pb::ApplyOperationRequest { operation: Some(operation) };
    let response = client.apply_operation(request).await?.into_inner();
    assert!(response.success && response.error.is_empty());
    Ok(response.applied_operation.unwrap())
}

pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

pub fn expect_invalid(status: &Status, field: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_details_bad_request().expect("the status names a field");
    assert_eq!(details.field_violations[0].field, field);
}

pub async fn subscribe(
    client: &mut Documents,
    request: pb::SubscribeDocumentRequest,
) -> tonic::Streaming<pb::OperationEvent> {
    client.subscribe_document(request).await.unwrap().into_inner()
}

pub fn subscription(doc_id: &str, user: &str) -> pb::SubscribeDocumentRequest {
    pb::SubscribeDocumentRequest { doc_id: doc_id.into(), user_id: user.into(), ..Default::default() }
}

/// The next event, within ten seconds.
pub async fn next(events: &mut tonic::Streaming<pb::OperationEvent>) -> pb::OperationEvent {
    let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await.expect("an event comes in time");
    event.unwrap().expect("the stream goes on")
}

/// The next event of an operation.
pub async fn next_operation(events: &mut tonic::Streaming<pb::OperationEvent>) -> pb::OperationEvent {
    loop {
        let event = next(events).await;
        if event.r#type == "operation_applied" {
            return event;
        }
    }
}

/// The status that ends a stream of events.
pub async fn end(events: &mut tonic::Streaming<pb::OperationEvent>) -> Status {
    loop {
        match events.message().await {
            Ok(event) => assert!(event.is_some(), "a stream ended without a status"),
            Err(status) => return status,
        }
    }
}

/// Whether Quantum can run here. Without `io_uring` a test passes by saying so, but not where all has to be tested.
pub fn has_shards() -> bool {
    let Err(error) = quantum_grpc::Endpoint::check() else { return true };
    commands::skip(&error.to_string());
    false
}
