//! Endpoints: the shards of this process and the connections that they carry.

mod echo;
mod options;
mod start;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quantum::Side;
use quantum_shard::handoff::{ConnectTarget, ConnectionKey};
use quantum_shard::{AppKind, ShardStats, Shards};
use tokio::runtime;
use tokio::sync::{mpsc, watch};

pub use echo::EchoServer;
pub use options::{ClientCertificate, ClientConfig, EndpointOptions, ServerConfig};

use crate::connection::{Connection, ConnectionError, ConnectionShared};
use crate::port::ControlPort;
use crate::pump::{PumpSeat, PumpSender};
use crate::tls;

/// Connections that wait to be accepted at most; a client beyond them is refused.
const BACKLOG: usize = 1024;

/// Why an endpoint could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot start the shards: {0}")]
pub struct EndpointError(pub(crate) String);

/// One shard as its endpoint sees it.
#[derive(Debug)]
struct ShardSeat {
    pump: PumpSender,
    /// Dialled connections have odd numbers.
    next_key: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct EndpointShared {
    /// The shards' threads, which end once the pumps have; none in tests that have a wire in their place.
    threads: Option<Shards>,
    shards: Vec<ShardSeat>,
    next_shard: AtomicUsize,
    local_addr: SocketAddr,
    /// Closed once every pump has ended.
    running: watch::Receiver<()>,
}

impl EndpointShared {
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn of_shards(started: start::Started, accepted: Option<&mpsc::Sender<Connection>>) -> Arc<Self> {
        let local_addr = started.shards.local_addr();
        Self::start_pumps(started.ports, Some(started.shards), local_addr, accepted)
    }

    /// Starts the pumps of `ports`, which have no shards.
    #[cfg(test)]
    pub(crate) fn start(
        ports: Vec<ControlPort>,
        local_addr: SocketAddr,
        accepted: Option<&mpsc::Sender<Connection>>,
    ) -> Arc<Self> {
        Self::start_pumps(ports, None, local_addr, accepted)
    }

    fn start_pumps(
        ports: Vec<ControlPort>,
        threads: Option<Shards>,
        local_addr: SocketAddr,
        accepted: Option<&mpsc::Sender<Connection>>,
    ) -> Arc<Self> {
        let (senders, seats): (Vec<_>, Vec<_>) = ports.into_iter().map(PumpSeat::new).unzip();
        let seat = |pump| ShardSeat { pump, next_key: AtomicU64::new(1) };
        let shards = senders.into_iter().map(seat).collect();
        let (pumps_running, running) = watch::channel(());
        let shared = Arc::new(Self { threads, shards, next_shard: AtomicUsize::new(0), local_addr, running });
        for seat in seats {
            seat.start(&shared, accepted.cloned(), pumps_running.clone());
        }
        shared
    }

    fn stats(&self) -> Vec<ShardStats> {
        self.threads.as_ref().map(Shards::stats).unwrap_or_default()
    }

    fn is_alive(&self) -> bool {
        self.shards.iter().all(|shard| shard.pump.is_alive())
    }
}

/// The client's end: makes connections. Clones are the same endpoint; with the last one and the last connection its shards
/// end.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shared: Arc<EndpointShared>,
}

impl Endpoint {
    /// Starts an endpoint that only dials. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointError`] if a shard cannot start.
    pub fn client(options: &EndpointOptions) -> Result<Self, EndpointError> {
        let started = start::start(options, None, None, AppKind::Control)?;
        Ok(Self { shared: EndpointShared::of_shards(started, None) })
    }

    /// Whether shards can run on `io_uring` on this host; where they cannot, they run on system calls.
    ///
    /// # Errors
    /// [`EndpointError`] with what prevents it and the remedy.
    pub fn check() -> Result<(), EndpointError> {
        Shards::check().map_err(|error| EndpointError(error.to_string()))
    }

    /// The tokio runtime's client endpoint with default options, started when first asked for and kept while it is used. To
    /// be called within a tokio runtime, with which it ends.
    ///
    /// # Errors
    /// As [`client`](Self::client).
    pub fn shared() -> Result<Self, EndpointError> {
        static SHARED: Mutex<Vec<(runtime::Id, Weak<EndpointShared>)>> = Mutex::new(Vec::new());
        let current = runtime::Handle::current().id();
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(_, endpoint)| endpoint.upgrade().is_some_and(|endpoint| endpoint.is_alive()));
        let of_runtime = shared.iter().find(|(runtime, _)| *runtime == current);
        if let Some(shared) = of_runtime.and_then(|(_, endpoint)| endpoint.upgrade()) {
            return Ok(Self { shared });
        }
        let endpoint = Self::client(&EndpointOptions::default())?;
        shared.push((current, Arc::downgrade(&endpoint.shared)));
        Ok(endpoint)
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn connect(&self, remote: SocketAddr, config: &ClientConfig) -> Result<Connection, ConnectionError> {
        let connection = self.dial(remote, config, tls::client_config(config, remote)?)?;
        connection.connected().await?;
        Ok(connection)
    }

    /// Makes a connection that may have early data, if the endpoint's options allow it and `tls` remembers a session.
    pub(crate) async fn connect_early(
        &self,
        remote: SocketAddr,
        config: &ClientConfig,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Connection, ConnectionError> {
        let connection = self.dial(remote, config, tls)?;
        connection.usable().await?;
        Ok(connection)
    }

    fn dial(
        &self,
        remote: SocketAddr,
        config: &ClientConfig,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Connection, ConnectionError> {
        let target = ConnectTarget {
            remote,
            server_name: config.server_name.clone().unwrap_or_else(|| remote.ip().to_string()),
            alpn: config.alpn,
            tls,
        };
        let at = self.shared.next_shard.fetch_add(1, Ordering::Relaxed) % self.shared.shards.len();
        let shard = &self.shared.shards[at];
        let key = ConnectionKey(shard.next_key.fetch_add(2, Ordering::Relaxed));
        let shared = Arc::new(ConnectionShared::new(key, Side::Client));
        let connection = Connection::new(shared.clone(), shard.pump.clone(), self.shared.clone());
        if !shard.pump.connect(shared, target) {
            return Err(ConnectionError::EndpointGone);
        }
        Ok(connection)
    }

    /// Lets go of the endpoint and waits until its shards have ended, which they do once its connections are gone too.
    pub async fn ended(self) {
        ended(self.shared).await;
    }

    /// The address that the first shard's socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// What each shard has done, some milliseconds ago.
    pub fn shard_stats(&self) -> Vec<ShardStats> {
        self.shared.stats()
    }

    #[cfg(test)]
    pub(crate) fn over(shared: Arc<EndpointShared>) -> Self {
        Self { shared }
    }
}

/// The server's end: gives out the connections that clients make.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Connection>,
    shared: Arc<EndpointShared>,
}

impl Listener {
    /// Listens on a UDP address. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointError`] if a shard cannot start or the address cannot be bound.
    pub fn bind(address: SocketAddr, config: &ServerConfig) -> Result<Self, EndpointError> {
        let started = start::start(&config.options, Some(address), Some(config), AppKind::Control)?;
        let (sender, accepted) = mpsc::channel(BACKLOG);
        Ok(Self { accepted, shared: EndpointShared::of_shards(started, Some(&sender)) })
    }

    #[cfg(test)]
    pub(crate) fn over(ports: Vec<ControlPort>, local_addr: SocketAddr) -> Self {
        let (sender, accepted) = mpsc::channel(BACKLOG);
        Self { accepted, shared: EndpointShared::start(ports, local_addr, Some(&sender)) }
    }

    /// The next connection, its handshake complete or, with early data, [nearly so](Connection::is_early); `None` once the shards have ended.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.accepted.recv().await
    }

    /// Accepts nothing further: connections that wait are closed, later ones refused. Those that were accepted go on.
    pub fn close(&mut self) {
        self.accepted.close();
        while self.accepted.try_recv().is_ok() {}
    }

    /// Lets go of the endpoint and waits until its shards have ended, which they do once its connections are gone too.
    pub async fn ended(self) {
        drop(self.accepted);
        ended(self.shared).await;
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// What looks at the shards while the listener is served.
    pub fn monitor(&self) -> ShardMonitor {
        ShardMonitor { shared: Arc::downgrade(&self.shared) }
    }

    /// What each shard has done, some milliseconds ago.
    pub fn shard_stats(&self) -> Vec<ShardStats> {
        self.shared.stats()
    }
}

/// Looks at an endpoint's shards without keeping the endpoint.
#[derive(Clone, Debug)]
pub struct ShardMonitor {
    shared: Weak<EndpointShared>,
}

impl ShardMonitor {
    /// What each shard has done, some milliseconds ago; nothing once the endpoint is gone.
    pub fn stats(&self) -> Vec<ShardStats> {
        self.shared.upgrade().map(|shared| shared.stats()).unwrap_or_default()
    }

    /// Whether all shards run.
    pub fn is_alive(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.is_alive())
    }
}

async fn ended(shared: Arc<EndpointShared>) {
    let mut running = shared.running.clone();
    drop(shared);
    // Nothing is ever sent: it changes by being closed.
    let _ = running.changed().await;
}

/// The first address of `host:port`.
pub(crate) async fn resolve(address: &str) -> Result<SocketAddr, ConnectionError> {
    let failed = |reason: String| ConnectionError::Address(address.to_owned(), reason);
    let mut found = tokio::net::lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("the name has no address".to_owned()))
}
