//! The connection that a call came in by: its id, what it has done, and its end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use proto::session::SessionStats;
use quantum_grpc::{ConnectInfo, ConnectionMonitor, ConnectionStats};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::{Connected, TlsConnectInfo};
use uuid::Uuid;

/// A connection of a client.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Over Quantum.
    Quantum(ConnectionMonitor),
    /// Over TCP.
    Tcp(TcpCaller),
}

impl Caller {
    /// The connection of a call, unless it came from within the process.
    pub fn of(extensions: &tonic::Extensions) -> Option<Self> {
        if let Some(info) = extensions.get::<ConnectInfo>() {
            return Some(Self::Quantum(info.connection.clone()));
        }
        let encrypted = || extensions.get::<TlsConnectInfo<TcpCaller>>().map(TlsConnectInfo::get_ref);
        extensions.get::<TcpCaller>().or_else(encrypted).cloned().map(Self::Tcp)
    }

    /// What no other connection has: the transport's own id over Quantum.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Quantum(connection) => Uuid::from_bytes(connection.guuid().0),
            Self::Tcp(connection) => connection.id,
        }
    }

    /// What it has done, in the end by its end; none over TCP, where the system counts for itself.
    pub async fn statistics(&self) -> Option<SessionStats> {
        match self {
            Self::Quantum(connection) => connection.statistics().await.as_ref().map(session_stats),
            Self::Tcp(_) => None,
        }
    }

    /// Waits until it is over.
    pub async fn closed(&self) {
        match self {
            Self::Quantum(connection) => drop(connection.closed().await),
            Self::Tcp(connection) => connection.ended.cancelled().await,
        }
    }
}

fn session_stats(stats: &ConnectionStats) -> SessionStats {
    // Rounded up: a time that was measured is not shown as none.
    let rtt_ms = stats.rtt_smoothed.as_micros().div_ceil(1000);
    SessionStats {
        packets_sent: stats.packets_sent,
        packets_received: stats.packets_received,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        retransmissions: stats.retransmissions,
        current_rtt_ms: u32::try_from(rtt_ms).unwrap_or(u32::MAX),
    }
}

/// A TCP connection of a client; among the extensions of its calls.
#[derive(Debug, Clone)]
pub struct TcpCaller {
    id: Uuid,
    ended: CancellationToken,
}

/// The server's end of a TCP connection, which tells of its end by being dropped.
#[derive(Debug)]
pub(super) struct TcpConnection {
    stream: TcpStream,
    caller: TcpCaller,
    _ended: DropGuard,
}

impl TcpConnection {
    pub(super) fn new(stream: TcpStream) -> Self {
        let ended = CancellationToken::new();
        Self { stream, caller: TcpCaller { id: Uuid::now_v7(), ended: ended.clone() }, _ended: ended.drop_guard() }
    }
}

impl Connected for TcpConnection {
    type ConnectInfo = TcpCaller;

    fn connect_info(&self) -> TcpCaller {
        self.caller.clone()
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
