//! Quantum: a reliable, encrypted, multiplexed datagram protocol, without I/O.
//!
//! The crate never opens a socket, reads a clock or starts a thread. An [`Endpoint`] owns its connections; whoever drives it
//! passes the time and the datagrams in and takes datagrams, deadlines and events out. `PROTOCOL.md` beside this crate is the
//! wire specification.
#![forbid(unsafe_code)]

mod config;
mod congestion;
mod connection;
mod crypto;
mod endpoint;
mod error;
mod event;
pub mod fec;
mod guuid;
mod histogram;
mod id_map;
mod observer;
mod params;
mod path;
mod range_set;
mod recovery;
mod sent_frame;
mod stats;
mod stream_id;
mod streams;
mod time;
mod timings;
pub mod wire;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod security_tests;

pub use config::{Alpn, ConnectOptions, DatagramConfig, EndpointConfig, SecurityConfig};
pub use congestion::CongestionControl;
pub use connection::{DatagramError, connection_part_sizes};
pub use crypto::session;
pub use endpoint::{
    ConnectError, ConnectionHandle, ConnectionRef, Endpoint, OpenError, Read, Received, Transmit, WriteError,
};
pub use error::{CloseReason, TransportError, TransportErrorCode};
pub use event::Event;
pub use fec::{FecConfig, FecMode};
pub use guuid::{Guuid, GuuidGenerator, GuuidParseError};
pub use histogram::DurationHistogram;
pub use id_map::{IdHasher, IdMap, IdSet};
pub use observer::{ConnectionLog, LogEvent, Observer, PacketInfo};
pub use path::{EcnState, PathConfig};
pub use stats::{
    CongestionStats, ConnectionStats, DatagramStats, EndpointStats, FecStats, MigrationStats, PathStats,
    ProtectionStats, StreamsStats, TrafficStats,
};
pub use stream_id::{Side, StreamId};
pub use streams::Priority;
pub use time::Time;
pub use timings::{RecoveryStats, TimingStats, Timings};
