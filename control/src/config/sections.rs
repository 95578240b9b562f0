//! The sections of the configuration files and their defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use quantum::CongestionControl;
use serde::{Deserialize, Serialize};

use super::{Auth, Config, Fec, Postgres, Redis, Refused, SessionManager, Tracing, duration};
use crate::statesync::PURGE_DELETED_AFTER;

/// Fewer operations than these would refuse writers who were away for a moment.
const RETAINED_OPERATIONS_MIN: u64 = 100;
/// What is removed for good sooner was hardly meant to be.
const PURGE_DELETED_AFTER_MIN: Duration = Duration::from_mins(1);

/// `session.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the section of its name")]
pub struct SessionConfig {
    pub server: Server<9001>,
    pub quantum: Quantum,
    pub store: SessionStore,
    pub manager: SessionManager,
    pub auth: Auth,
    pub log: Log,
    pub metrics: Metrics<9101>,
    pub tracing: Tracing,
}

/// `statesync.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the section of its name")]
pub struct StateSyncConfig {
    pub server: Server<9002>,
    pub quantum: Quantum,
    pub store: StateSyncStore,
    pub manager: Manager,
    pub auth: Auth,
    pub session_service: SessionService,
    pub log: Log,
    pub metrics: Metrics<9102>,
    pub tracing: Tracing,
}

/// Where gRPC is served, over TCP and, on the UDP port of the same number, over Quantum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Server<const PORT: u16> {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port; 0: one that is free.
    pub port: u16,
    /// Where databases, certificate and keys are kept.
    pub data: PathBuf,
    /// TLS on TCP.
    #[serde(rename = "TLS")]
    pub tls: Tls,
}

/// TLS on TCP; without a certificate TCP is in plain text. Quantum is always encrypted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tls {
    /// PEM file of the certificate and those it follows from; empty: no TLS.
    pub cert: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities whose certificates clients have to show, over Quantum as well; empty: clients show none.
    #[serde(rename = "ClientCA")]
    pub client_ca: PathBuf,
}

/// gRPC over Quantum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Quantum {
    /// Whether it is served.
    pub enable: bool,
    /// Threads, each with a socket of its own.
    pub shards: usize,
    /// Cores that the shards are pinned to; none: not pinned.
    pub cores: Vec<usize>,
    /// Microseconds that a busy shard, and the task that it hands over to, look for more work before they sleep; 0: they sleep at
    /// once.
    pub spin_us: u64,
    /// What runs the shards' threads.
    pub host: QuantumHost,
    /// How their bytes move.
    pub io: QuantumIo,
    /// Whether RPCs without side effects are answered when they come as early data (0-RTT), which can be replayed.
    pub early_data: bool,
    /// How much of what is sent may be on its way, and how fast it leaves.
    pub congestion: Congestion,
    /// What a lost packet carried comes back from repair symbols.
    #[serde(rename = "FEC")]
    pub fec: Fec,
    /// The folder into which each connection is logged, in qlog's format; empty: none is.
    pub qlog: PathBuf,
}

/// What runs the shards' threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum QuantumHost {
    /// A glommio executor
    #[default]
    Glommio,
    /// A monoio runtime
    Monoio,
    /// Nothing: the thread waits by itself
    Bare,
}

/// How the shards' bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum QuantumIo {
    /// `io_uring`
    #[default]
    Uring,
    /// sendmsg and recvmmsg, on monoio or bare
    Mmsg,
}

/// How much of what is sent may be on its way, and how fast it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// BBR version 3, which holds its rate on paths that lose packets by themselves
    #[default]
    Bbr,
    /// CUBIC, which backs off at every loss
    Cubic,
}

impl Congestion {
    /// The controller of that name.
    pub(crate) fn control(self) -> CongestionControl {
        match self {
            Self::Bbr => CongestionControl::Bbr,
            Self::Cubic => CongestionControl::Cubic,
        }
    }
}

/// Where a service keeps what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreType {
    /// In memory: it is gone when the process ends.
    Memory,
    /// In a file of the data directory.
    #[default]
    Sqlite,
    /// In Redis.
    Redis,
    /// In PostgreSQL.
    Postgres,
}

/// When the embedded store's writes count as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// On disk: what was acknowledged survives the loss of power.
    #[default]
    Full,
    /// With the operating system: it survives the death of the process, the last of it not the loss of power.
    Normal,
}

/// The store of sessions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the key of its name")]
pub struct SessionStore {
    pub r#type: StoreType,
    pub sync: SyncMode,
    pub redis: Redis,
}

/// The store of documents.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "each field is the key of its name")]
pub struct StateSyncStore {
    pub r#type: StoreType,
    pub sync: SyncMode,
    pub postgres: Postgres,
}

/// How documents behave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Manager {
    /// How long a lock holds unless it is renewed.
    #[serde(with = "duration")]
    pub lock_timeout: Duration,
    /// How long a document that nobody uses stays in memory.
    #[serde(with = "duration")]
    pub cleanup_interval: Duration,
    /// False: a write that touches what its writer had not seen waits until somebody decides.
    pub auto_resolve_conflicts: bool,
    /// How many of its newest operations a document keeps at least; 0: all.
    pub retained_operations: u64,
    /// How long a deleted document can be had back before it is removed for good; zero: for ever.
    #[serde(with = "duration")]
    pub purge_deleted_after: Duration,
}

/// The session service, which knows the sessions that documents are edited in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionService {
    /// Its `host:port`, over TCP in plain text; empty: sessions are not checked and session tokens not accepted.
    pub target: String,
}

/// Logs, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,quantum_shard=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Pretty,
}

/// Metrics, `/healthz` and `/readyz` over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Metrics<const PORT: u16> {
    /// Whether they are served.
    pub enable: bool,
    /// The address to listen on.
    pub host: IpAddr,
    /// The port; 0: one that is free.
    pub port: u16,
    /// The path of the metrics.
    pub path: String,
}

impl<const PORT: u16> Server<PORT> {
    /// The address of gRPC.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}

impl<const PORT: u16> Metrics<PORT> {
    /// The address of the metrics, if they are served.
    pub fn address(&self) -> Option<SocketAddr> {
        self.enable.then(|| SocketAddr::new(self.host, self.port))
    }

    fn check(&self) -> Result<(), Refused> {
        let taken = ["/healthz", "/readyz"].contains(&self.path.as_str());
        // A brace would begin a parameter of the route.
        if !self.path.starts_with('/') || taken || self.path.contains(['{', '}', '*', '?', '#']) {
            return Err(("Metrics.Path", format!("{:?} is no path such as /metrics", self.path)));
        }
        Ok(())
    }
}

impl Tls {
    fn check(&self) -> Result<(), Refused> {
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        match (is_set(&self.cert), is_set(&self.key), is_set(&self.client_ca)) {
            (true, false, _) => Err(("Server.TLS.Key", "Server.TLS.Cert needs its private key".into())),
            (false, true, _) => Err(("Server.TLS.Cert", "Server.TLS.Key needs its certificate".into())),
            (false, false, true) => Err(("Server.TLS.Cert", "Server.TLS.ClientCA needs Cert and Key too".into())),
            _ => Ok(()),
        }
    }

    /// Whether TLS is on.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

impl Quantum {
    fn check(&self) -> Result<(), Refused> {
        if self.shards == 0 || self.shards > 256 {
            return Err(("Quantum.Shards", format!("{} is not between 1 and 256", self.shards)));
        }
        if !self.cores.is_empty() && self.cores.len() != self.shards {
            let reason = format!("{} cores for {} shards: name one core for each", self.cores.len(), self.shards);
            return Err(("Quantum.Cores", reason));
        }
        if (self.host, self.io) == (QuantumHost::Glommio, QuantumIo::Mmsg) {
            return Err(("Quantum.Io", "mmsg needs Quantum.Host monoio or bare".to_owned()));
        }
        self.fec.check()?;
        if self.qlog.exists() && !self.qlog.is_dir() {
            return Err(("Quantum.Qlog", format!("{} is no folder", self.qlog.display())));
        }
        Ok(())
    }
}

impl Log {
    fn check(&self) -> Result<(), Refused> {
        let filter = self.level.parse::<tracing_subscriber::EnvFilter>();
        filter
            .map(drop)
            .map_err(|error| ("Log.Level", format!("{:?}: {error}; use error, warn, info, debug or trace", self.level)))
    }
}

fn no_store(kind: StoreType, kept: &str) -> Refused {
    let name = if kind == StoreType::Redis { "redis" } else { "postgres" };
    ("Store.Type", format!("this version cannot keep {kept} in {name}: use sqlite (durable, embedded) or memory"))
}

impl Config for SessionConfig {
    const DEFAULT_FILE: &'static str = "configs/session.yaml";

    fn log(&self) -> &Log {
        &self.log
    }

    fn auth(&self) -> &Auth {
        &self.auth
    }

    fn check(&self) -> Result<(), Refused> {
        if self.store.r#type == StoreType::Postgres {
            return Err(no_store(self.store.r#type, "sessions"));
        }
        self.store.redis.check()?;
        self.auth.check()?;
        self.server.tls.check()?;
        self.quantum.check()?;
        self.log.check()?;
        self.metrics.check()?;
        self.tracing.check()
    }
}

impl Config for StateSyncConfig {
    const DEFAULT_FILE: &'static str = "configs/statesync.yaml";

    fn log(&self) -> &Log {
        &self.log
    }

    fn auth(&self) -> &Auth {
        &self.auth
    }

    fn check(&self) -> Result<(), Refused> {
        if self.store.r#type == StoreType::Redis {
            let reason = "redis keeps sessions, no documents: use postgres, sqlite (durable, embedded) or memory";
            return Err(("Store.Type", reason.into()));
        }
        self.store.postgres.check()?;
        if self.manager.lock_timeout.is_zero() {
            return Err(("Manager.LockTimeout", "a lock has to hold for some time, such as 30s".into()));
        }
        if self.manager.cleanup_interval < Duration::from_secs(1) {
            return Err(("Manager.CleanupInterval", "at least 1s".into()));
        }
        if (1..RETAINED_OPERATIONS_MIN).contains(&self.manager.retained_operations) {
            let reason = format!(
                "at least {RETAINED_OPERATIONS_MIN}, or 0 for all: whoever writes from an older version, or resumes from one, needs them"
            );
            return Err(("Manager.RetainedOperations", reason));
        }
        let purge_after = self.manager.purge_deleted_after;
        if !purge_after.is_zero() && purge_after < PURGE_DELETED_AFTER_MIN {
            let reason = "at least 1m, such as 30d, or 0s for never: until then a deleted document can be had back";
            return Err(("Manager.PurgeDeletedAfter", reason.into()));
        }
        self.auth.check()?;
        self.session_service.check()?;
        self.server.tls.check()?;
        self.quantum.check()?;
        self.log.check()?;
        self.metrics.check()?;
        self.tracing.check()
    }
}

impl<const PORT: u16> Default for Server<PORT> {
    fn default() -> Self {
        Self { host: Ipv4Addr::LOCALHOST.into(), port: PORT, data: "data".into(), tls: Tls::default() }
    }
}

impl<const PORT: u16> Default for Metrics<PORT> {
    fn default() -> Self {
        Self { enable: true, host: Ipv4Addr::LOCALHOST.into(), port: PORT, path: "/metrics".into() }
    }
}

impl Default for Quantum {
    fn default() -> Self {
        Self {
            enable: true,
            shards: 1,
            cores: Vec::new(),
            spin_us: 50,
            host: QuantumHost::default(),
            io: QuantumIo::default(),
            early_data: false,
            congestion: Congestion::default(),
            fec: Fec::default(),
            qlog: PathBuf::new(),
        }
    }
}

impl SessionService {
    fn check(&self) -> Result<(), Refused> {
        let port =
            self.target.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if self.target.is_empty() || matches!(port, Some(Ok(1..))) {
            return Ok(());
        }
        Err(("SessionService.Target", format!("{:?} is not host:port such as localhost:9001", self.target)))
    }
}

impl Default for SessionService {
    fn default() -> Self {
        Self { target: "localhost:9001".into() }
    }
}

impl Default for Manager {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(30),
            cleanup_interval: Duration::from_mins(5),
            auto_resolve_conflicts: true,
            retained_operations: 0,
            purge_deleted_after: PURGE_DELETED_AFTER,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::default() }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            server: Server::default(),
            quantum: Quantum::default(),
            store: SessionStore::default(),
            manager: SessionManager::default(),
            auth: Auth::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            tracing: Tracing::of("session-service"),
        }
    }
}

impl Default for StateSyncConfig {
    fn default() -> Self {
        Self {
            server: Server::default(),
            quantum: Quantum::default(),
            store: StateSyncStore::default(),
            manager: Manager::default(),
            auth: Auth::default(),
            session_service: SessionService::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            tracing: Tracing::of("statesync-service"),
        }
    }
}
