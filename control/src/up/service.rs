//! One service: its sockets, its store, its servers, and how they end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::session::session_service_server::SessionServiceServer;
use quantum_grpc::{EndpointOptions, Identity};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::grpc::{self, TlsFiles};
use super::listen::{Fix, ServiceListeners};
use super::readiness::{Readiness, Store};
use super::{UpError, http_api, purge, sweep};
use crate::auth::{AuthError, Authenticator, Sessions};
use crate::config::Auth;
use crate::session::{
    Connections, MeasuredSessions, MemorySessions, OnDisconnect, RedisOptions, RedisSessions, SessionServer,
    SessionStore, SqliteSessions,
};
use crate::statesync::{
    DocumentOptions, DocumentStore, MeasuredDocuments, MemoryDocuments, PostgresDocuments, PostgresOptions,
    SqliteDocuments, StateSyncRoutes, StateSyncServer,
};
use crate::store::{CommitterStats, DataDir, Durability, StoreError, StoreKind};
use crate::telemetry::{TraceOptions, Tracer};

/// How long open calls may take to end after they were told to.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// How long what is queued for the disk may take after that.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The names of the services in messages.
pub(super) const SESSION: [&str; 2] = ["session gRPC", "session metrics"];
pub(super) const STATESYNC: [&str; 2] = ["statesync gRPC", "statesync metrics"];

/// How a service starts.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Where databases, certificate and keys are kept.
    pub data: PathBuf,
    /// Where gRPC is served over TCP and, on the same UDP port, over Quantum.
    pub grpc: SocketAddr,
    /// Where metrics and readiness are served.
    pub metrics: Option<SocketAddr>,
    /// The path of the metrics.
    pub metrics_path: String,
    /// Allow a non-loopback address although nobody has to authenticate.
    pub allow_anonymous: bool,
    /// Who may call; unless it is enabled, everybody.
    pub auth: Auth,
    /// `host:port` of the service that knows the sessions in which documents are edited; empty: they are not checked.
    pub session_service: String,
    /// How gRPC is served over Quantum; none: it is not.
    pub quantum: Option<EndpointOptions>,
    /// TLS on TCP; none: plain text.
    pub tls: Option<TlsFiles>,
    /// Where data is kept.
    pub store: StoreKind,
    /// When a write to SQLite counts as done.
    pub durability: Durability,
    /// The Redis server, if data is kept there.
    pub redis: Option<RedisOptions>,
    /// What becomes of the sessions of a connection that has ended.
    pub on_disconnect: OnDisconnect,
    /// The PostgreSQL database, if data is kept there.
    pub postgres: Option<PostgresOptions>,
    /// How calls are traced; none: they are not.
    pub tracing: Option<TraceOptions>,
}

/// A running service.
pub struct RunningService {
    /// SHA-256 of the server's public key, in hexadecimal: what a client pins.
    pub fingerprint: String,
    /// gRPC.
    pub address: SocketAddr,
    /// Metrics and readiness.
    pub metrics_address: Option<SocketAddr>,
    /// The path of the metrics.
    pub metrics_path: String,
    /// Whether TCP is encrypted.
    pub has_tls: bool,
    /// Whether gRPC is served over Quantum as well.
    pub has_quantum: bool,
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    sessions: Option<Arc<dyn SessionStore>>,
    documents: Option<(Arc<dyn DocumentStore>, StateSyncServer)>,
    authenticator: Option<Arc<Authenticator>>,
    tracer: Option<Tracer>,
    data: Arc<DataDir>,
}

/// Starts the session service; it answers when this returns.
///
/// # Errors
/// [`UpError`], which says what to do.
pub async fn start_session(options: ServiceOptions) -> Result<RunningService, UpError> {
    check(&options, Fix::File)?;
    let data = Arc::new(DataDir::open(&options.data, &["session"])?);
    let listeners = ServiceListeners::bind(&options, SESSION, Fix::File).await?;
    session(options, listeners, data).await
}

/// Starts the document service; it answers when this returns.
///
/// # Errors
/// [`UpError`], which says what to do.
pub async fn start_statesync(options: ServiceOptions, documents: DocumentOptions) -> Result<RunningService, UpError> {
    check(&options, Fix::File)?;
    let data = Arc::new(DataDir::open(&options.data, &["statesync"])?);
    let listeners = ServiceListeners::bind(&options, STATESYNC, Fix::File).await?;
    let sessions = Sessions::at(&options.session_service).map_err(UpError::Server)?;
    statesync(options, documents, listeners, (data, sessions)).await
}

/// Whether a service may listen where it is to.
pub(super) fn check(options: &ServiceOptions, fix: Fix) -> Result<(), UpError> {
    if options.grpc.ip().is_loopback() || options.allow_anonymous || options.auth.enabled {
        return Ok(());
    }
    Err(UpError::PublicWithoutAuthentication { address: options.grpc.ip(), fix: fix.anonymous() })
}

pub(super) async fn session(
    options: ServiceOptions,
    listeners: ServiceListeners,
    data: Arc<DataDir>,
) -> Result<RunningService, UpError> {
    crate::telemetry::metrics_handle();
    let (sessions, committer) = open_sessions(&options, &data).await?;
    let stop = CancellationToken::new();
    let authenticator = authenticator(&options, &data, Sessions::Store(Arc::clone(&sessions)))?;
    let (connections, opened) = Connections::new();
    let server = SessionServer::new(Arc::clone(&sessions), Arc::clone(&connections));
    let (service, tracer) = (SessionServiceServer::new(server), tracer(&options)?);
    let readiness = Readiness::new(Store::Sessions(Arc::clone(&sessions)), stop.clone());
    let routes = grpc::routes(service, authenticator.clone(), tracer.clone(), readiness.clone())?;
    let mut running = serve(&options, listeners, data, routes, readiness)?;
    let watch = crate::session::watch(connections, opened, Arc::clone(&sessions), options.on_disconnect, stop.clone());
    running.servers.extend([tokio::spawn(watch), tokio::spawn(sweep(Arc::clone(&sessions), stop))]);
    Ok(RunningService { committer, sessions: Some(sessions), authenticator, tracer, ..running })
}

pub(super) async fn statesync(
    options: ServiceOptions,
    behaviour: DocumentOptions,
    listeners: ServiceListeners,
    (data, sessions): (Arc<DataDir>, Sessions),
) -> Result<RunningService, UpError> {
    crate::telemetry::metrics_handle();
    let authenticator = authenticator(&options, &data, sessions)?;
    let (documents, committer) = open_documents(&options, &data).await?;
    let stop = CancellationToken::new();
    let server = StateSyncServer::new(Arc::clone(&documents), behaviour, stop.clone());
    let (service, tracer) = (StateSyncRoutes::new(server.clone()), tracer(&options)?);
    let readiness = Readiness::new(Store::Documents(Arc::clone(&documents)), stop.clone());
    let routes = grpc::routes(service, authenticator.clone(), tracer.clone(), readiness.clone())?;
    let mut running = serve(&options, listeners, data, routes, readiness)?;
    running.servers.push(tokio::spawn(purge(server.clone(), stop)));
    Ok(RunningService { committer, documents: Some((documents, server)), authenticator, tracer, ..running })
}

/// What callers prove who they are to, if they have to.
fn authenticator(
    options: &ServiceOptions,
    data: &DataDir,
    sessions: Sessions,
) -> Result<Option<Arc<Authenticator>>, UpError> {
    let address = options.grpc;
    if !options.auth.enabled {
        tracing::info!(%address, "permissions are recorded but not enforced: authentication is off");
        return Ok(None);
    }
    if matches!(sessions, Sessions::Unknown) {
        tracing::warn!(%address, "sessions are not checked: SessionService.Target is empty");
    }
    if options.tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "tokens travel over TCP in plain text: set Server.TLS, or let clients use Quantum");
    }
    Ok(Some(data.alone(|| Authenticator::new(&options.auth, data.path(), sessions))??))
}

/// Serves `routes` on all that `listeners` has.
fn serve(
    options: &ServiceOptions,
    listeners: ServiceListeners,
    data: Arc<DataDir>,
    routes: Routes,
    mut readiness: Readiness,
) -> Result<RunningService, UpError> {
    let stop = readiness.stop();
    let failed = |error: quantum_grpc::IdentityError| UpError::Server(error.to_string());
    let names = [options.grpc.ip().to_string()];
    let identity = data.alone(|| Identity::load_or_create(data.path(), &names))?.map_err(failed)?;
    let mut servers = Vec::new();
    if let Some(endpoint) = &options.quantum {
        let client_ca = options.tls.as_ref().and_then(|tls| tls.client_ca.as_deref());
        drop(listeners.udp);
        let listener = grpc::bind_quantum(listeners.address, &identity, endpoint, client_ca)?;
        crate::telemetry::watch(listener.monitor());
        readiness.add_shards(listener.monitor());
        let server = tokio::spawn(grpc::serve_quantum(listener, routes.clone(), stop.clone()));
        readiness.add_server("gRPC over Quantum", server.abort_handle());
        servers.push(server);
    }
    let tcp = grpc::tcp_server(options.tls.as_ref())?;
    let server = tokio::spawn(grpc::serve_tcp(tcp, listeners.grpc, routes, stop.clone()));
    readiness.add_server("gRPC over TCP", server.abort_handle());
    servers.push(server);
    let mut metrics_address = None;
    if let Some((listener, address)) = listeners.metrics {
        metrics_address = Some(address);
        servers.push(tokio::spawn(http_api::serve(listener, readiness, options.metrics_path.clone())));
    }
    Ok(RunningService {
        fingerprint: identity.fingerprint(),
        address: listeners.address,
        metrics_address,
        metrics_path: options.metrics_path.clone(),
        has_tls: options.tls.is_some(),
        has_quantum: options.quantum.is_some(),
        stop,
        servers,
        committer: None,
        sessions: None,
        documents: None,
        authenticator: None,
        tracer: None,
        data,
    })
}

/// What traces the calls, if they are traced.
fn tracer(options: &ServiceOptions) -> Result<Option<Tracer>, UpError> {
    options.tracing.as_ref().map(Tracer::start).transpose().map_err(|error| UpError::Server(error.to_string()))
}

/// The store of sessions and, if it has one, the task that writes.
async fn open_sessions(
    options: &ServiceOptions,
    data: &DataDir,
) -> Result<(Arc<dyn SessionStore>, Option<JoinHandle<()>>), StoreError> {
    let (sessions, committer): (Arc<dyn SessionStore>, _) = match options.store {
        StoreKind::Memory => (Arc::new(MemorySessions::default()), None),
        StoreKind::Sqlite => {
            let (sessions, committer) = SqliteSessions::open(&data.file("sessions.db"), options.durability).await?;
            (Arc::new(sessions), Some(committer))
        }
        StoreKind::Redis => {
            let redis = options.redis.as_ref();
            let redis = redis.ok_or_else(|| StoreError::Failed("Redis: no server is named".to_owned()))?;
            (Arc::new(RedisSessions::connect(redis).await?), None)
        }
        StoreKind::Postgres => return Err(StoreError::Failed("PostgreSQL keeps documents, no sessions".to_owned())),
    };
    Ok((Arc::new(MeasuredSessions::new(sessions, options.store)), committer))
}

/// The store of documents and, if it has one, the task that writes.
async fn open_documents(
    options: &ServiceOptions,
    data: &DataDir,
) -> Result<(Arc<dyn DocumentStore>, Option<JoinHandle<()>>), StoreError> {
    let (documents, committer): (Arc<dyn DocumentStore>, _) = match options.store {
        StoreKind::Memory => (Arc::new(MemoryDocuments::default()), None),
        StoreKind::Sqlite => {
            let (documents, committer) = SqliteDocuments::open(&data.file("documents.db"), options.durability).await?;
            (Arc::new(documents), Some(committer))
        }
        StoreKind::Redis => return Err(StoreError::Failed("Redis keeps sessions, no documents".to_owned())),
        StoreKind::Postgres => {
            let postgres = options.postgres.as_ref();
            let postgres = postgres.ok_or_else(|| StoreError::Failed("PostgreSQL: no database is named".to_owned()))?;
            let (documents, committer) = PostgresDocuments::open(postgres).await?;
            (Arc::new(documents), Some(committer))
        }
    };
    Ok((Arc::new(MeasuredDocuments::new(documents, options.store)), committer))
}

impl RunningService {
    /// The sessions of this process, if it is their service.
    pub(super) fn known_sessions(&self) -> Sessions {
        self.sessions.as_ref().map_or(Sessions::Unknown, |sessions| Sessions::Store(Arc::clone(sessions)))
    }

    /// The path of a file in the data directory.
    pub fn data_file(&self, name: &str) -> PathBuf {
        self.data.file(name)
    }

    /// Reads the keys of tokens again, if callers have to authenticate.
    ///
    /// # Errors
    /// [`AuthError`]; all stays as it was.
    pub fn reload_auth(&self, auth: &Auth) -> Result<(), AuthError> {
        self.authenticator.as_ref().map_or(Ok(()), |authenticator| authenticator.reload(auth))
    }

    /// What the store of documents committed so far, if it is one of documents.
    pub fn commits(&self) -> Option<&CommitterStats> {
        self.documents.as_ref().map(|(store, _)| store.commits())
    }

    /// What answers the calls, if it is the service of documents.
    pub(super) fn server(&self) -> Option<&StateSyncServer> {
        self.documents.as_ref().map(|(_, server)| server)
    }

    /// Stops: streams end, open calls finish, everything queued reaches the disk. It takes at most five seconds.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let aborts: Vec<_> = self.servers.iter().map(JoinHandle::abort_handle).collect();
        let drained = tokio::time::timeout(DRAIN_TIME, futures_util::future::join_all(self.servers)).await;
        if drained.is_err() {
            tracing::warn!("some connections did not end in time and were cut");
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        if let Some((_, server)) = &self.documents {
            server.close();
        }
        drop((self.documents, self.sessions, self.authenticator));
        let flushed = tokio::time::timeout(FLUSH_TIME, futures_util::future::join_all(self.committer)).await;
        if flushed.is_err() {
            tracing::warn!("the store was still in use; nothing acknowledged is lost");
        }
        if let Some(tracer) = self.tracer {
            tracer.shutdown().await;
        }
    }
}
