//! What an endpoint and a connection can be told.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{CongestionControl, FecConfig, Guuid, PathConfig};

/// The application protocol of a connection (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// One stream per RPC: `quantum-grpc/1`.
    Grpc,
    /// Plain byte streams: `quantum-stream/1`.
    Stream,
}

impl Alpn {
    /// The name on the wire.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"quantum-grpc/1",
            Self::Stream => b"quantum-stream/1",
        }
    }

    /// The protocol of that name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Grpc, Self::Stream].into_iter().find(|alpn| alpn.name() == name)
    }
}

/// Limits and settings of an endpoint. All of its connections share them.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Accepts connections with this TLS configuration; none: a client only. Its ALPN list is set by the endpoint.
    pub server: Option<Arc<rustls::ServerConfig>>,
    /// Key of stateless reset tokens and cookies: the node's own secret. It survives restarts and is shared by all shards
    /// of a node, never between nodes.
    pub node_key: [u8; 32],
    /// Bytes that the peer may send on a stream beyond what the application has read.
    pub stream_window: u64,
    /// Bytes that the peer may send on all streams beyond what has been received. By as many in all the windows of streams
    /// grow that are too small for the path, and so do their send buffers.
    pub connection_window: u64,
    /// Streams that the peer may have open at once.
    pub streams_max: u64,
    /// Bytes that a stream keeps at first for sending and resending; a write beyond it is refused until some are acknowledged.
    /// Where a path holds more than that, it grows, up to 16 times.
    pub send_buffer_max: usize,
    /// Ends a connection from which nothing has come for so long. Both sides use the smaller one of theirs.
    pub idle_timeout: Duration,
    /// Sends a PING after so long without anything sent, while a connection is kept.
    pub keepalive: Option<Duration>,
    /// Connections at most; a client beyond it is refused.
    pub connections_max: usize,
    /// The network path: how large packets may be.
    pub path: PathConfig,
    /// Segments of one [`Transmit`](crate::Transmit) at most (generic segmentation offload).
    pub segments_max: usize,
    /// How much may be in flight, and how fast it leaves.
    pub congestion: CongestionControl,
    /// Forward error correction.
    pub fec: FecConfig,
    /// Handshakes and keys.
    pub security: SecurityConfig,
    /// Unreliable datagrams.
    pub datagrams: DatagramConfig,
}

/// Settings of unreliable datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramConfig {
    /// Bytes of the longest DATAGRAM frame that is taken; 0: none is, and the peer is told so.
    pub frame_bytes_max: u16,
    /// Bytes of datagrams that wait to be sent at most, with 64 bytes more for each; beyond them the oldest is dropped.
    pub send_bytes_max: usize,
    /// Bytes of datagrams that wait for the application at most, with 64 bytes more for each; beyond them the oldest is dropped.
    pub receive_bytes_max: usize,
    /// Forward error correction protects them like streams, if the connection has it.
    pub protected: bool,
}

impl Default for DatagramConfig {
    fn default() -> Self {
        Self { frame_bytes_max: 2048, send_bytes_max: 64 << 10, receive_bytes_max: 64 << 10, protected: true }
    }
}

/// Settings of handshakes and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Ends a handshake that takes longer.
    pub handshake_timeout: Duration,
    /// Half-open handshakes up to which no cookie is asked for.
    pub handshakes_without_cookie: usize,
    /// Packets that a key seals before the connection changes to the next one; half of the AEAD's confidentiality limit if that is
    /// less (2^27 packets with AES-GCM).
    pub key_update_packets: u64,
    /// Early data (0-RTT). A client asks for session tickets and, where it has one, may send streams with its first packets; a
    /// server takes them, from each ticket once. **Who copied these packets can send them again**, to a server that has
    /// forgotten the ticket's use (one that shares its key but not its sessions): only requests that may happen twice belong there.
    pub early_data: bool,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_without_cookie: 256,
            key_update_packets: 1 << 23,
            early_data: false,
        }
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            server: None,
            node_key: [0; 32],
            stream_window: 256 << 10,
            connection_window: 24 << 20,
            streams_max: 1024,
            send_buffer_max: 1 << 20,
            idle_timeout: Duration::from_mins(1),
            keepalive: Some(Duration::from_secs(10)),
            connections_max: 100_000,
            path: PathConfig::default(),
            // As many packets of 1200 bytes as a UDP payload holds.
            segments_max: 54,
            congestion: CongestionControl::default(),
            fec: FecConfig::default(),
            security: SecurityConfig::default(),
            datagrams: DatagramConfig::default(),
        }
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig").field("server", &self.server.is_some()).finish_non_exhaustive()
    }
}

/// Where a connection goes and what it speaks there.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The connection's id: fresh, from a [`GuuidGenerator`](crate::GuuidGenerator).
    pub guuid: Guuid,
    /// The server's address.
    pub remote: SocketAddr,
    /// The name that the server's certificate has to prove.
    pub server_name: String,
    /// The application protocol.
    pub alpn: Alpn,
    /// How the server is verified. Its ALPN list is set by the endpoint.
    pub tls: Arc<rustls::ClientConfig>,
}
