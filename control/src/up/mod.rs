//! Starting and stopping: one service, or both in one process on the embedded store.

mod caller;
mod grpc;
mod health;
mod http_api;
mod listen;
mod readiness;
mod service;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use quantum_grpc::EndpointOptions;
use tokio_util::sync::CancellationToken;

use crate::auth::AuthError;
use crate::clock;
use crate::config::Auth;
use crate::session::{OnDisconnect, RedisOptions, SessionStore};
use crate::statesync::{DocumentOptions, PostgresOptions, StateSyncServer};
use crate::store::{CommitterStats, DataDir, DataDirError, Durability, StoreError, StoreKind};
use crate::telemetry::TraceOptions;

pub use caller::{Caller, TcpCaller};
pub use grpc::TlsFiles;
use listen::{Fix, ServiceListeners};
pub use service::{RunningService, ServiceOptions, start_session, start_statesync};

/// How often expired sessions are removed.
const SWEEP_INTERVAL: Duration = Duration::from_mins(5);
/// How often documents are removed that were deleted long ago.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

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
    /// Who may call; unless it is enabled, everybody.
    pub auth: Auth,
    /// The ports.
    pub ports: Ports,
    /// Where sessions are kept.
    pub session_store: StoreKind,
    /// The Redis server, if sessions are kept there.
    pub redis: Option<RedisOptions>,
    /// What becomes of the sessions of a connection that has ended.
    pub on_disconnect: OnDisconnect,
    /// Where documents are kept.
    pub document_store: StoreKind,
    /// The PostgreSQL database, if documents are kept there.
    pub postgres: Option<PostgresOptions>,
    /// How documents behave.
    pub documents: DocumentOptions,
    /// How to serve over Quantum, on the UDP ports of the same numbers; none: not at all.
    pub quantum: Option<EndpointOptions>,
    /// How calls are traced, each service under its own name; none: they are not.
    pub tracing: Option<TraceOptions>,
}

impl UpOptions {
    /// On loopback, on free ports.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            bind: Ipv4Addr::LOCALHOST.into(),
            allow_anonymous: false,
            auth: Auth::default(),
            ports: Ports::Free,
            session_store: StoreKind::default(),
            redis: None,
            on_disconnect: OnDisconnect::default(),
            document_store: StoreKind::default(),
            postgres: None,
            documents: DocumentOptions::default(),
            quantum: Some(EndpointOptions::default()),
            tracing: None,
        }
    }
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// Anybody could reach the services.
    #[error(
        "listening on {address} would let anybody on the network read and change everything, because authentication is off. \
         {fix}"
    )]
    PublicWithoutAuthentication {
        /// The address.
        address: IpAddr,
        /// What to do.
        fix: &'static str,
    },
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
        fix: String,
    },
    /// The keys of tokens cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
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
    session: RunningService,
    statesync: RunningService,
}

/// Starts everything; the services answer when this returns.
///
/// # Errors
/// [`UpError`], which says what to do.
pub async fn start(options: UpOptions) -> Result<Running, UpError> {
    let session = options.service("session-service", 1, options.session_store)?;
    let statesync = options.service("statesync-service", 2, options.document_store)?;
    service::check(&session, Fix::Flags)?;
    let data = Arc::new(DataDir::open(&options.data, &["session", "statesync"])?);
    let session_sockets = ServiceListeners::bind(&session, service::SESSION, Fix::Flags).await?;
    let statesync_sockets = ServiceListeners::bind(&statesync, service::STATESYNC, Fix::Flags).await?;
    let session = service::session(session, session_sockets, Arc::clone(&data)).await?;
    let sessions = session.known_sessions();
    let statesync = service::statesync(statesync, options.documents, statesync_sockets, (data, sessions)).await?;
    let metrics = |service: &RunningService| service.metrics_address.expect("it was asked for");
    Ok(Running {
        fingerprint: session.fingerprint.clone(),
        session_addr: session.address,
        statesync_addr: statesync.address,
        session_metrics_addr: metrics(&session),
        statesync_metrics_addr: metrics(&statesync),
        session,
        statesync,
    })
}

impl UpOptions {
    /// The options of the service of this name, whose ports are BASE + `offset` and BASE + 100 + `offset`.
    fn service(&self, name: &str, offset: u16, store: StoreKind) -> Result<ServiceOptions, UpError> {
        let port = |offset: u16| match self.ports {
            Ports::Free => Ok(0),
            Ports::Base(base) if base <= u16::MAX - 102 => Ok(base + offset),
            Ports::Base(base) => Err(UpError::PortsOutOfRange(base)),
        };
        Ok(ServiceOptions {
            data: self.data.clone(),
            grpc: SocketAddr::new(self.bind, port(offset)?),
            metrics: Some(SocketAddr::new(self.bind, port(100 + offset)?)),
            metrics_path: "/metrics".to_owned(),
            allow_anonymous: self.allow_anonymous,
            auth: self.auth.clone(),
            session_service: String::new(),
            quantum: self.quantum.clone(),
            tls: None,
            store,
            durability: Durability::Disk,
            redis: self.redis.clone().filter(|_| store == StoreKind::Redis),
            on_disconnect: self.on_disconnect,
            postgres: self.postgres.clone().filter(|_| store == StoreKind::Postgres),
            tracing: self.tracing.clone().map(|tracing| TraceOptions { service_name: name.to_owned(), ..tracing }),
        })
    }
}

impl Running {
    /// What the document store committed so far.
    pub fn document_commits(&self) -> &CommitterStats {
        self.statesync.commits().expect("it is the service of documents")
    }

    /// Removes the documents for good that by `now` were deleted long ago, as happens every ten minutes; gives how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done the next time.
    pub async fn purge_deleted(&self, now: clock::UnixMicros) -> Result<usize, StoreError> {
        self.statesync.server().expect("it is the service of documents").purge_deleted(now).await
    }

    /// Reads the keys of tokens again.
    ///
    /// # Errors
    /// [`AuthError`]; all stays as it was in the service that has it.
    pub fn reload_auth(&self, auth: &Auth) -> Result<(), AuthError> {
        self.session.reload_auth(auth)?;
        self.statesync.reload_auth(auth)
    }

    /// Stops: streams end, open calls finish, everything queued reaches the disk. It takes at most five seconds.
    pub async fn shutdown(self) {
        tokio::join!(self.session.shutdown(), self.statesync.shutdown());
    }
}

/// Removes for good, from time to time, what was deleted long ago.
async fn purge(documents: StateSyncServer, stop: CancellationToken) {
    let mut interval = tokio::time::interval(PURGE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        match documents.purge_deleted(clock::now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "deleted documents were removed for good"),
            Err(error) => tracing::warn!(%error, "deleted documents were not removed; trying again later"),
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
