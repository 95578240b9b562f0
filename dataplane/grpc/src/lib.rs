//! The tokio end of Quantum: connections, byte streams, messages, and gRPC with one stream per RPC.
//!
//! Shards ([`quantum_shard`]) carry the packets on their own threads; one pump task per shard joins them to tokio. On top
//! lie [`Connection`] and [`QuantumStream`], and on those [`serve`] and [`Channel`] for gRPC (`MAPPING.md`) and
//! [`dial`]/[`listen`] for plain messages.

mod client;
mod connection;
mod datagram;
mod deadline;
mod early;
mod endpoint;
mod fec;
mod identity;
mod mapping;
mod message;
mod monitor;
mod outbound;
mod port;
mod priority;
mod pump;
mod server;
mod stream;
mod tls;

#[cfg(test)]
mod tests;

pub use client::{AnyChannel, AnyConfig, Channel, ResponseBody, Transport};
pub use connection::{Connection, ConnectionError, State};
pub use deadline::{DeadlineFuture, DeadlineLayer, DeadlineService, grpc_timeout, status_trailers};
pub use early::IdempotentMethods;
pub use endpoint::{
    ClientCertificate, ClientConfig, EchoServer, Endpoint, EndpointError, EndpointOptions, Listener, ServerConfig,
    ShardMonitor,
};
pub use fec::{FEC_HEADER, Fec};
pub use identity::{Identity, IdentityError};
pub use message::{Config, MessageConnection, MessageError, MessageListener, dial, listen};
pub use monitor::ConnectionMonitor;
pub use priority::PRIORITY_HEADER;
pub use quantum::{CongestionControl, ConnectionStats, DatagramError, FecMode, Priority};
pub use quantum_shard::{HostKind, IoKind};
pub use server::{ConnectInfo, ServeOptions, serve, serve_with};
pub use stream::{CODE_CANCELLED, CODE_STATUS_BASE, QuantumStream, ReceiveHalf, SendHalf, StreamError};
pub use tls::{TlsError, Verify, crypto_provider};
