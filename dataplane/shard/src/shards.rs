//! Starting and ending shards.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use quantum::{Endpoint, EndpointConfig};

use crate::engine::{ControlApp, EchoApp, Peers, Shard, ShardStats, StatsCell};
use crate::error::ShardError;
use crate::handoff::{self, ControlEnd, Doorbell, ShardEnd};
use crate::host::{self, HostKind, HostSettings, IoKind};
use crate::qlog::Qlog;
use crate::socket;
use crate::work::Work;

/// Messages of each ring of a hand-off.
const RING_CAPACITY: usize = 4096;
/// Bytes of the largest UDP payload over IPv4.
const UDP_PAYLOAD_MAX: usize = 65_507;
/// No packet of the protocol is larger.
const DATAGRAM_SIZE_MAX: usize = 2048;

/// What a shard does with the streams of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppKind {
    /// Hands them to the control plane.
    #[default]
    Control,
    /// Sends back what comes, without leaving the shard.
    Echo,
}

/// How shards run.
#[derive(Clone, Debug)]
pub struct ShardsConfig {
    /// Where they listen. If `endpoint` has no server, each shard has a port of its own there.
    pub listen: SocketAddr,
    /// How many there are.
    pub shards: usize,
    /// Cores that they are pinned to, in order; none: not pinned.
    pub cores: Vec<usize>,
    /// How long a shard looks for more work before it sleeps, at most ([`AdaptiveSpin`](crate::AdaptiveSpin)).
    pub spin: Duration,
    /// What runs their threads.
    pub host: HostKind,
    /// How bytes move.
    pub io: IoKind,
    /// The protocol's settings.
    pub endpoint: EndpointConfig,
    /// What they do with streams.
    pub app: AppKind,
    /// Logs each connection into this folder ([`Qlog`]).
    pub qlog: Option<PathBuf>,
}

/// Shards that run. They end when they are told to, or when the control plane's ends are gone.
#[derive(Debug)]
pub struct Shards {
    local_addr: SocketAddr,
    threads: Vec<Running>,
    shutdown: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<Result<(), ShardError>>,
    doorbell: Arc<Doorbell>,
    stats: Arc<StatsCell>,
}

/// What a shard's thread is started from.
struct Seat {
    index: usize,
    socket: UdpSocket,
    doorbell: Arc<Doorbell>,
    peers: Peers,
    end: Option<ShardEnd>,
    stats: Arc<StatsCell>,
    observer: Option<Arc<Qlog>>,
}

/// The first random bytes of a process take AWS-LC tens of milliseconds, in which it gathers entropy. No handshake is to wait for
/// that.
fn gather_entropy() {
    // Whoever needs the bytes sees the error.
    let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut [0]);
}

impl Shards {
    /// Whether shards can run on `io_uring` here.
    ///
    /// # Errors
    /// [`ShardError::Uring`] or [`ShardError::LockedMemory`].
    pub fn check() -> Result<(), ShardError> {
        host::check()
    }

    /// Starts the shards and waits until all of them run. Gives the control plane's end of each, in order; none for
    /// [`AppKind::Echo`].
    ///
    /// Where `io_uring` cannot be had, one line of the log says why, and they run on monoio with system calls.
    ///
    /// # Errors
    /// See [`ShardError`]. No shard runs then.
    pub fn start(config: &ShardsConfig) -> Result<(Self, Vec<ControlEnd>), ShardError> {
        host::check_pair(config.host, config.io)?;
        gather_entropy();
        if config.io == IoKind::Mmsg {
            return Self::start_on(config);
        }
        let error = match Self::check().and_then(|()| Self::start_on(config)) {
            Err(error @ (ShardError::Uring(_) | ShardError::LockedMemory { .. })) => error,
            outcome => return outcome,
        };
        tracing::warn!("shards run on monoio with sendmsg and recvmmsg instead of io_uring: {error}");
        Self::start_on(&ShardsConfig { host: HostKind::Monoio, io: IoKind::Mmsg, ..config.clone() })
    }

    fn start_on(config: &ShardsConfig) -> Result<(Self, Vec<ControlEnd>), ShardError> {
        if config.shards == 0 {
            return Err(ShardError::Config("at least one shard is needed".to_owned()));
        }
        if !config.cores.is_empty() && config.cores.len() < config.shards {
            let (cores, shards) = (config.cores.len(), config.shards);
            return Err(ShardError::Config(format!("{shards} shards need as many cores, not {cores}")));
        }
        let secret = rand::random();
        let (sockets, local_addr) = bind(config, secret)?;
        let doorbells = sockets.iter().map(|_| Doorbell::of_shard().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let is_group = config.endpoint.server.is_some();
        let peers = if is_group {
            Peers::group(&doorbells, secret)
        } else {
            doorbells.iter().map(|_| Peers::alone()).collect()
        };
        let observer = open_qlog(config.qlog.as_deref())?;
        let shutdown = Arc::new(AtomicBool::new(false));
        let mut shards = Self { local_addr, threads: Vec::new(), shutdown };
        let mut ends = Vec::new();
        for (index, ((socket, doorbell), peers)) in sockets.into_iter().zip(doorbells).zip(peers).enumerate() {
            let end = match config.app {
                AppKind::Control => {
                    let (control, shard) = handoff::pair(RING_CAPACITY, Arc::clone(&doorbell))?;
                    ends.push(control);
                    Some(shard)
                }
                AppKind::Echo => None,
            };
            let stats = Arc::new(StatsCell::default());
            let observer = observer.clone();
            shards.spawn(config, Seat { index, socket, doorbell, peers, end, stats, observer })?;
        }
        Ok((shards, ends))
    }

    /// Starts a thread and waits until it runs.
    fn spawn(&mut self, config: &ShardsConfig, seat: Seat) -> Result<(), ShardError> {
        let (doorbell, stats) = (Arc::clone(&seat.doorbell), Arc::clone(&seat.stats));
        let (config, shutdown) = (config.clone(), Arc::clone(&self.shutdown));
        let (started, has_started) = mpsc::channel();
        let name = format!("quantum-shard-{}", seat.index);
        let run = move || {
            let mut ready = || {
                // Whoever started the thread waits for this.
                let _ = started.send(());
            };
            run_shard(&config, seat, shutdown, &mut ready)
        };
        let thread =
            std::thread::Builder::new().name(name).spawn(run).map_err(|error| ShardError::Thread(error.to_string()))?;
        if has_started.recv().is_err() {
            self.shutdown();
            return Err(join(thread).err().unwrap_or_else(|| ShardError::Thread("it ended at once".to_owned())));
        }
        self.threads.push(Running { thread, doorbell, stats });
        Ok(())
    }

    /// The address that they listen on, or the first one's.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What each of them has done.
    pub fn stats(&self) -> Vec<ShardStats> {
        self.threads.iter().map(|running| running.stats.read()).collect()
    }

    /// Asks them to close every connection and to end. For shards with a control plane its own end asks.
    pub fn shutdown(&self) {
        self.shutdown.store(true, Ordering::Release);
        for running in &self.threads {
            running.doorbell.ring_anyway();
        }
    }

    /// Waits until they have ended.
    ///
    /// # Errors
    /// The first failure of one of them.
    pub fn join(self) -> Result<(), ShardError> {
        let mut outcome = Ok(());
        for running in self.threads {
            outcome = outcome.and(join(running.thread));
        }
        outcome
    }
}

fn join(thread: JoinHandle<Result<(), ShardError>>) -> Result<(), ShardError> {
    thread.join().unwrap_or_else(|_| Err(ShardError::Thread("it panicked; see the log".to_owned())))
}

fn bind(config: &ShardsConfig, secret: u64) -> Result<(Vec<UdpSocket>, SocketAddr), ShardError> {
    if config.endpoint.server.is_some() {
        return socket::bind_shards(config.listen, config.shards, secret);
    }
    let sockets = (0..config.shards).map(|_| socket::bind_alone(config.listen)).collect::<Result<Vec<_>, _>>()?;
    let local_addr = sockets[0].local_addr()?;
    Ok((sockets, local_addr))
}

fn open_qlog(folder: Option<&Path>) -> Result<Option<Arc<Qlog>>, ShardError> {
    let Some(folder) = folder else { return Ok(None) };
    let qlog = Qlog::new(folder);
    let qlog = qlog.map_err(|error| ShardError::Config(format!("cannot log into {}: {error}", folder.display())))?;
    Ok(Some(Arc::new(qlog)))
}

fn run_shard(
    config: &ShardsConfig,
    seat: Seat,
    shutdown: Arc<AtomicBool>,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    let path = config.endpoint.path;
    let datagram = usize::from(path.datagram_size.max(path.datagram_size_max)).min(DATAGRAM_SIZE_MAX);
    let mut endpoint_config = config.endpoint.clone();
    endpoint_config.segments_max = config.endpoint.segments_max.clamp(1, UDP_PAYLOAD_MAX / datagram.max(1200));
    let settings = HostSettings {
        host: config.host,
        io: config.io,
        core: config.cores.get(seat.index).copied(),
        spin: config.spin,
        transmit_len: endpoint_config.segments_max * datagram.max(1200),
    };
    let Seat { socket, doorbell, peers, end, stats, observer, .. } = seat;
    let event = doorbell.duplicate()?;
    let mut endpoint = Endpoint::new(Arc::new(endpoint_config), rand::random());
    if let Some(observer) = observer {
        endpoint.observe(observer);
    }
    stats.share(endpoint.timings());
    let mut work: Box<dyn Work> = match end {
        Some(end) => Box::new(Shard::new(endpoint, ControlApp::new(end, rand::random()), peers, doorbell, stats)),
        None => Box::new(Shard::new(endpoint, EchoApp::new(shutdown), peers, doorbell, stats)),
    };
    let outcome = host::run(&settings, socket, event, &mut *work, ready);
    if let Err(error) = &outcome {
        tracing::error!(%error, "a shard ended");
    }
    outcome
}
