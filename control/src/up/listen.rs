//! The sockets of both services.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::{Ports, UpError, UpOptions};

/// Ports that the system is asked for until one is free on UDP as well.
const FREE_PORT_TRIES: u32 = 32;

/// The sockets of one service.
pub(super) struct ServiceListeners {
    pub(super) grpc: TcpListener,
    pub(super) metrics: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) metrics_address: SocketAddr,
}

/// The sockets of both services.
pub(super) struct Listeners {
    pub(super) session: ServiceListeners,
    pub(super) statesync: ServiceListeners,
}

impl Listeners {
    pub(super) async fn bind(options: &UpOptions) -> Result<Self, UpError> {
        let port = |offset: u16| match options.ports {
            Ports::Free => Ok(0),
            Ports::Base(base) if base <= u16::MAX - 102 => Ok(base + offset),
            Ports::Base(base) => Err(UpError::PortsOutOfRange(base)),
        };
        let session = (SocketAddr::new(options.bind, port(1)?), SocketAddr::new(options.bind, port(101)?));
        let statesync = (SocketAddr::new(options.bind, port(2)?), SocketAddr::new(options.bind, port(102)?));
        Ok(Self {
            session: ServiceListeners::bind(session, ["session gRPC", "session metrics"], options.quantum).await?,
            statesync: ServiceListeners::bind(statesync, ["statesync gRPC", "statesync metrics"], options.quantum)
                .await?,
        })
    }
}

impl ServiceListeners {
    async fn bind(
        addresses: (SocketAddr, SocketAddr),
        what: [&'static str; 2],
        quantum: bool,
    ) -> Result<Self, UpError> {
        let (grpc, address) = bind_grpc(addresses.0, what[0], quantum).await?;
        let (metrics, metrics_address) = bind(addresses.1, what[1]).await?;
        Ok(Self { grpc, metrics, address, metrics_address })
    }
}

/// Binds a TCP port whose UDP twin is free for Quantum.
async fn bind_grpc(
    address: SocketAddr,
    what: &'static str,
    quantum: bool,
) -> Result<(TcpListener, SocketAddr), UpError> {
    let mut tries = 0;
    loop {
        let (listener, bound) = bind(address, what).await?;
        let Err(error) = (if quantum { std::net::UdpSocket::bind(bound).map(drop) } else { Ok(()) }) else {
            return Ok((listener, bound));
        };
        tries += 1;
        // A port that the system chose may be taken on UDP; another one will not be.
        if address.port() != 0 || tries == FREE_PORT_TRIES {
            return Err(refused(bound, "gRPC over Quantum, UDP", error));
        }
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<(TcpListener, SocketAddr), UpError> {
    let listener = TcpListener::bind(address).await.map_err(|error| refused(address, what, error))?;
    let address = listener.local_addr().map_err(|error| refused(address, what, error))?;
    Ok((listener, address))
}

fn refused(address: SocketAddr, what: &'static str, source: io::Error) -> UpError {
    let fix = match source.kind() {
        io::ErrorKind::AddrInUse => "Another process uses this port: stop it, or choose other ports with --ports BASE",
        io::ErrorKind::AddrNotAvailable => "This machine does not have that address: choose another with --bind IP",
        io::ErrorKind::PermissionDenied => "Ports below 1024 need privileges: choose others with --ports BASE",
        _ => "Choose another address with --bind IP or other ports with --ports BASE",
    };
    UpError::Listen { address, what, source, fix }
}
