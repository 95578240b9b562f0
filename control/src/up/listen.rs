//! The sockets of a service.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::UpError;
use super::service::ServiceOptions;

/// Ports that the system is asked for until one is free on UDP as well.
const FREE_PORT_TRIES: u32 = 32;
/// The kernel ends the `io_uring` of a killed process a moment after the process: until then its UDP socket lives.
const FREED_WITHIN: Duration = Duration::from_secs(2);
const FREED_POLL: Duration = Duration::from_millis(10);

/// Where addresses and ports are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fix {
    /// By the flags of `up`.
    Flags,
    /// In a configuration file.
    File,
}

impl Fix {
    /// How to listen where anybody may connect, or not to.
    pub(super) fn anonymous(self) -> &'static str {
        match self {
            Self::Flags => {
                "Turn it on with --auth, listen on loopback (leave out --bind), or pass --allow-anonymous if that is what you want"
            }
            Self::File => {
                "Set Auth.Enabled to true, Server.Host to 127.0.0.1, or Auth.AllowAnonymous to true if that is what you want"
            }
        }
    }

    fn of(self, kind: io::ErrorKind) -> String {
        let (address, ports) = match self {
            Self::Flags => ("--bind IP", "--ports BASE"),
            Self::File => ("Server.Host or Metrics.Host", "Server.Port or Metrics.Port"),
        };
        match kind {
            io::ErrorKind::AddrInUse => {
                format!("Another process uses this port: stop it, or choose other ports with {ports}")
            }
            io::ErrorKind::AddrNotAvailable => {
                format!("This machine does not have that address: choose another with {address}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("Ports below 1024 need privileges: choose others with {ports}")
            }
            _ => format!("Choose another address with {address} or other ports with {ports}"),
        }
    }
}

/// The sockets of one service.
pub(super) struct ServiceListeners {
    pub(super) grpc: TcpListener,
    pub(super) address: SocketAddr,
    /// Keeps the UDP port until Quantum takes it: nobody else is given it while the store opens.
    pub(super) udp: Option<UdpSocket>,
    pub(super) metrics: Option<(TcpListener, SocketAddr)>,
}

impl ServiceListeners {
    /// The sockets that `options` ask for; `what` they are called in messages.
    pub(super) async fn bind(options: &ServiceOptions, what: [&'static str; 2], fix: Fix) -> Result<Self, UpError> {
        let quantum = options.quantum.is_some();
        let refused = |(address, what, source): Refused| {
            let fix = fix.of(source.kind());
            UpError::Listen { address, what, source, fix }
        };
        let (grpc, address, udp) = bind_grpc(options.grpc, what[0], quantum).await.map_err(refused)?;
        let metrics = match options.metrics {
            Some(address) => Some(bind(address, what[1]).await.map_err(refused)?),
            None => None,
        };
        Ok(Self { grpc, address, udp, metrics })
    }
}

/// An address, what it is for, and what the system said.
type Refused = (SocketAddr, &'static str, io::Error);

/// Binds a TCP port whose UDP twin is free for Quantum.
async fn bind_grpc(
    address: SocketAddr,
    what: &'static str,
    quantum: bool,
) -> Result<(TcpListener, SocketAddr, Option<UdpSocket>), Refused> {
    let mut tries = 0;
    loop {
        let (listener, bound) = bind(address, what).await?;
        if !quantum {
            return Ok((listener, bound, None));
        }
        let wait = if address.port() == 0 { Duration::ZERO } else { FREED_WITHIN };
        let error = match bind_udp(bound, wait).await {
            Ok(udp) => return Ok((listener, bound, Some(udp))),
            Err(error) => error,
        };
        tries += 1;
        // A port that the system chose may be taken on UDP; another one will not be.
        if address.port() != 0 || tries == FREE_PORT_TRIES {
            return Err((bound, "gRPC over Quantum, UDP", error));
        }
    }
}

/// Binds an address on UDP, or tries to for `wait` if somebody has it.
async fn bind_udp(address: SocketAddr, wait: Duration) -> io::Result<UdpSocket> {
    let until = Instant::now() + wait;
    loop {
        match UdpSocket::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(FREED_POLL).await;
            }
            outcome => return outcome,
        }
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<(TcpListener, SocketAddr), Refused> {
    let listener = TcpListener::bind(address).await.map_err(|error| (address, what, error))?;
    let address = listener.local_addr().map_err(|error| (address, what, error))?;
    Ok((listener, address))
}
