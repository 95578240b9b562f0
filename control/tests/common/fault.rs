//! Stands between a service and its store and makes the network between them bad.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every piece of a stream is so late.
    Delay(Duration),
    /// What is sent is lost. A connection that lost something says nothing ever after, as one whose other end is gone.
    BlackHole,
    /// Connections that are open are reset. Further ones are accepted, and nothing comes of them, then and later.
    HalfOpen,
    /// Every connection is reset, and each further one as soon as it is there.
    Reset,
}

/// Carries connections to a server. Ends with this.
pub struct FaultProxy {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    met: Arc<AtomicU64>,
    _running: JoinSet<()>,
}

impl FaultProxy {
    /// In front of `server`, with nothing wrong yet.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = watch::Sender::new(Fault::None);
        let met = Arc::new(AtomicU64::new(0));
        let mut running = JoinSet::new();
        running.spawn(accept(listener, server, fault.subscribe(), Arc::clone(&met)));
        Self { address, fault, met, _running: running }
    }

    /// From now on this is wrong.
    pub fn set(&self, fault: Fault) {
        self.met.store(0, Ordering::Relaxed);
        self.fault.send_replace(fault);
    }

    /// How often something met the fault since it was set.
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, fault: watch::Receiver<Fault>, met: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(carry(client, server, fault.clone(), Arc::clone(&met)));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut fault: watch::Receiver<Fault>, met: Arc<AtomicU64>) {
    let at_first = *fault.borrow_and_update();
    if matches!(at_first, Fault::HalfOpen | Fault::Reset) {
        met.fetch_add(1, Ordering::Relaxed);
    }
    match at_first {
        Fault::Reset => return reset(&client),
        Fault::HalfOpen => {
            // Until the client gives it up.
            let mut lost = [0; 4096];
            while matches!(client.read(&mut lost).await, Ok(1..)) {}
            return;
        }
        Fault::None | Fault::Delay(_) | Fault::BlackHole => {}
    }
    // A server that is not there is none of the network's faults: the client is told.
    let Ok(upstream) = TcpStream::connect(server).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), upstream.into_split());
    let network = Network { fault: fault.clone(), met: Arc::clone(&met), has_lost: AtomicBool::new(false) };
    let mut there = Direction { from: from_client, to: to_server, network: &network };
    let mut back = Direction { from: from_server, to: to_client, network: &network };
    let cut = fault.wait_for(|fault| matches!(fault, Fault::Reset | Fault::HalfOpen));
    tokio::select! {
        () = async { tokio::join!(there.carry(), back.carry()); } => {}
        _ = cut => {
            met.fetch_add(1, Ordering::Relaxed);
            for direction in [there, back] {
                reset(direction.to.as_ref());
                // Dropped, it would end the stream in good order.
                direction.to.forget();
            }
        }
    }
}

/// A close that sends RST.
fn reset(stream: &TcpStream) {
    // One that is closed already cannot be reset.
    let _ = stream.set_zero_linger();
}

/// What the two directions of a connection share.
struct Network {
    fault: watch::Receiver<Fault>,
    met: Arc<AtomicU64>,
    has_lost: AtomicBool,
}

/// One direction of a connection.
struct Direction<'a> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    network: &'a Network,
}

impl Direction<'_> {
    async fn carry(&mut self) {
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = self.from.read(&mut piece).await {
            match self.network.meet() {
                Fault::Delay(delay) => tokio::time::sleep(delay).await,
                Fault::BlackHole => self.network.has_lost.store(true, Ordering::Relaxed),
                Fault::None | Fault::HalfOpen | Fault::Reset => {}
            }
            if !self.network.is_dead() && self.to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
        if !self.network.is_dead() && *self.network.fault.borrow() != Fault::BlackHole {
            // The other end may be gone too.
            let _ = self.to.shutdown().await;
        }
    }
}

impl Network {
    fn is_dead(&self) -> bool {
        self.has_lost.load(Ordering::Relaxed)
    }

    fn meet(&self) -> Fault {
        let fault = *self.fault.borrow();
        if fault != Fault::None {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        fault
    }
}
