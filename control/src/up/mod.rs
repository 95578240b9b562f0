//! Starting and stopping: both services in one process on the embedded store.

mod grpc;
mod http_api;
mod listen;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use proto::session::session_service_server::SessionServiceServer;
use proto::statesync::state_sync_service_server::StateSyncServiceServer;
use quantum_grpc::Identity;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::session::{MemorySessions, SessionServer, SessionStore, SqliteSessions};
use crate::statesync::{DocumentOptions, DocumentStore, MemoryDocuments, SqliteDocuments, StateSyncServer};
use crate::store::{CommitterStats, DataDir, DataDirError, StoreError, StoreKind};

pub use grpc::connection_id;
use listen::Listeners;

/// How long open calls may take to end after they were told to.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// How long what is queued for the disk may take after that.
const FLUSH_TIME: Duration = Duration::from_secs(1);
/// How often expired sessions are removed.
const SWEEP_INTERVAL: Duration = Duration::from_mins(5);

/// Which ports to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// BASE+1 and BASE+2 for gRPC, BASE+101 and BASE+102 for metrics.
    Base(u16),
    /// Whatever is free.
    Free,
}

/// How to start.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Where databases and keys are kept.
    pub data: PathBuf,
    /// The address to listen on.
    pub bind: IpAddr,
    /// Allow a non-loopback address although nobody has to authenticate.
    pub allow_anonymous: bool,
    /// The ports.
    pub ports: Ports,
    /// Where sessions are kept.
    pub session_store: StoreKind,
    /// Where documents are kept.
    pub document_store: StoreKind,
    /// How documents behave.
    pub documents: DocumentOptions,
    /// Also serve over Quantum, on the UDP ports of the same numbers.
    pub quantum: bool,
}

impl UpOptions {
    /// On loopback, on free ports.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            bind: Ipv4Addr::LOCALHOST.into(),
            allow_anonymous: false,
            ports: Ports::Free,
            session_store: StoreKind::default(),
            document_store: StoreKind::default(),
            documents: DocumentOptions::default(),
            quantum: true,
        }
    }
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Anybody could reach the services.
    #[error(
        "listening on {0} would let anybody on the network read and change every document, because authentication is off. \
         Listen on loopback (leave out --bind), or pass --allow-anonymous if that is what you want"
    )]
    PublicWithoutAuthentication(IpAddr),
    /// The base port leaves no room for the others.
    #[error("--ports {0} leaves no room: BASE+102 must be at most 65535, so BASE at most 65433")]
    PortsOutOfRange(u16),
    /// A port cannot be bound.
    #[error("cannot listen on {address} ({what}): {source}. {fix}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        fix: &'static str,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A database cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A server cannot be set up.
    #[error("cannot set up the server: {0}")]
    Server(String),
}

/// The running services.
pub struct Running {
    /// SHA-256 of the server's public key, in hexadecimal: what a client pins.
    pub fingerprint: String,
    /// gRPC of the session service.
    pub session_addr: SocketAddr,
    /// gRPC of the document service.
    pub statesync_addr: SocketAddr,
    /// Metrics and readiness of the session service.
    pub session_metrics_addr: SocketAddr,
    /// Metrics and readiness of the document service.
    pub statesync_metrics_addr: SocketAddr,
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    committers: Vec<JoinHandle<()>>,
    parts: Parts,
    _data: DataDir,
}

struct Parts {
    documents: Arc<dyn DocumentStore>,
    statesync: StateSyncServer,
}

/// Starts everything; the services answer when this returns.
///
/// # Errors
/// [`UpError`], which says what to do.
pub async fn start(options: UpOptions) -> Result<Running, UpError> {
    if !options.bind.is_loopback() && !options.allow_anonymous {
        return Err(UpError::PublicWithoutAuthentication(options.bind));
    }
    let data = DataDir::open(&options.data)?;
    let listeners = Listeners::bind(&options).await?;
    let identity = Identity::load_or_create(data.path(), &[options.bind.to_string()])
        .map_err(|error| UpError::Server(error.to_string()))?;
    crate::telemetry::metrics_handle();
    let (sessions, session_committer) = open_sessions(options.session_store, &data).await?;
    let (documents, document_committer) = open_documents(options.document_store, &data).await?;
    tracing::info!("permissions are recorded but not enforced, because authentication is off");

    let stop = CancellationToken::new();
    let statesync = StateSyncServer::new(Arc::clone(&documents), options.documents, stop.clone());
    let session_routes =
        grpc::routes(SessionServiceServer::new(SessionServer::new(Arc::clone(&sessions))), stop.clone()).await?;
    let statesync_routes = grpc::routes(StateSyncServiceServer::new(statesync.clone()), stop.clone()).await?;
    let mut running = Running {
        fingerprint: identity.fingerprint(),
        session_addr: listeners.session.address,
        statesync_addr: listeners.statesync.address,
        session_metrics_addr: listeners.session.metrics_address,
        statesync_metrics_addr: listeners.statesync.metrics_address,
        stop: stop.clone(),
        servers: vec![tokio::spawn(sweep(Arc::clone(&sessions), stop.clone()))],
        committers: session_committer.into_iter().chain(document_committer).collect(),
        parts: Parts { documents: Arc::clone(&documents), statesync },
        _data: data,
    };
    if options.quantum {
        for (address, routes) in [(running.session_addr, &session_routes), (running.statesync_addr, &statesync_routes)]
        {
            let listener = grpc::bind_quantum(address, &identity)?;
            running.servers.push(tokio::spawn(grpc::serve_quantum(listener, routes.clone(), stop.clone())));
        }
    }
    running.servers.push(tokio::spawn(grpc::serve_tcp(listeners.session.grpc, session_routes, stop.clone())));
    running.servers.push(tokio::spawn(grpc::serve_tcp(listeners.statesync.grpc, statesync_routes, stop.clone())));
    let ready = http_api::Readiness::Sessions(sessions);
    running.servers.push(tokio::spawn(http_api::serve(listeners.session.metrics, ready, stop.clone())));
    let ready = http_api::Readiness::Documents(documents);
    running.servers.push(tokio::spawn(http_api::serve(listeners.statesync.metrics, ready, stop)));
    Ok(running)
}

/// The store of sessions and, if it has one, the task that writes.
async fn open_sessions(
    kind: StoreKind,
    data: &DataDir,
) -> Result<(Arc<dyn SessionStore>, Option<JoinHandle<()>>), StoreError> {
    Ok(match kind {
        StoreKind::Memory => (Arc::new(MemorySessions::default()), None),
        StoreKind::Sqlite => {
            let (sessions, committer) = SqliteSessions::open(&data.file("sessions.db")).await?;
            (Arc::new(sessions), Some(committer))
        }
    })
}

/// The store of documents and, if it has one, the task that writes.
async fn open_documents(
    kind: StoreKind,
    data: &DataDir,
) -> Result<(Arc<dyn DocumentStore>, Option<JoinHandle<()>>), StoreError> {
    Ok(match kind {
        StoreKind::Memory => (Arc::new(MemoryDocuments::default()), None),
        StoreKind::Sqlite => {
            let (documents, committer) = SqliteDocuments::open(&data.file("documents.db")).await?;
            (Arc::new(documents), Some(committer))
        }
    })
}

impl Running {
    /// What the document store committed so far.
    pub fn document_commits(&self) -> &CommitterStats {
        self.parts.documents.commits()
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
        self.parts.statesync.close();
        drop(self.parts);
        let flushed = tokio::time::timeout(FLUSH_TIME, futures_util::future::join_all(self.committers)).await;
        if flushed.is_err() {
            tracing::warn!("the stores were still in use; nothing acknowledged is lost");
        }
    }
}

/// Removes expired sessions from time to time and keeps their gauge right.
async fn sweep(sessions: Arc<dyn SessionStore>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = clock::now();
        let swept = async {
            sessions.delete_expired(now).await?;
            sessions.counts(now).await
        };
        match swept.await {
            Ok(counts) => gauge!("session_active").set(counts.total as f64),
            Err(error) => tracing::warn!(%error, "expired sessions were not removed"),
        }
    }
}
