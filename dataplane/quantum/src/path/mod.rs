//! The network path of a connection: where the peer is, how large packets may be.

mod config;
mod discovery;
mod ecn;
mod evidence;
mod migration;

use std::net::{IpAddr, SocketAddr};

pub use config::PathConfig;
pub(crate) use discovery::Discovery;
pub use ecn::EcnState;
pub(crate) use ecn::{ECN_CE, ECT0, Ecn, ReceivedMarks};
pub(crate) use evidence::Evidence;
pub(crate) use migration::{Addresses, CHALLENGE_LEN, Challenge, Footprint, Migration};

use crate::connection::{DATAGRAM_SIZE_MAX, SYN_SIZE};
use crate::{MigrationStats, PathStats};

/// What IPv6's header is longer by than IPv4's.
const V6_HEADER_EXTRA: u16 = 20;

/// The network path of a connection.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    /// The peer is known to receive at its address.
    pub(crate) validated: bool,
    /// UDP payload of the largest packet that the peer takes.
    peer_max: u16,
    /// UDP payload of the largest packet.
    pub(crate) discovery: Discovery,
    /// Whether packets are marked.
    pub(crate) ecn: Ecn,
    /// The packets that are being written are.
    pub(crate) is_marking: bool,
    /// One of them has been written.
    pub(crate) is_batch_begun: bool,
    /// Marks of the peer's packets.
    pub(crate) marks: ReceivedMarks,
    /// Where the peer may have gone.
    pub(crate) migration: Migration,
    /// Bytes received before the address was validated, for the amplification limit.
    received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl Path {
    /// A path to the peer at `remote`, of which nothing is known but whether it is there.
    pub(crate) fn new((remote, local): Addresses, validated: bool, seed: u64) -> Self {
        Self {
            remote,
            local,
            validated,
            peer_max: SYN_SIZE,
            discovery: Discovery::new(SYN_SIZE),
            ecn: Ecn::default(),
            is_marking: false,
            is_batch_begun: false,
            marks: ReceivedMarks::new(),
            migration: Migration::new(seed),
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// The handshake is over: packets may have other sizes, up to what the peer takes, and be marked.
    pub(crate) fn start_exploring(&mut self, config: PathConfig, peer_max: u16) {
        self.peer_max = peer_max;
        let size = config.datagram_size.clamp(SYN_SIZE, DATAGRAM_SIZE_MAX).min(peer_max);
        let is_v6 = matches!(self.remote.ip().to_canonical(), IpAddr::V6(_));
        let shorter = if is_v6 { V6_HEADER_EXTRA } else { 0 };
        let ceiling = config.datagram_size_max.min(DATAGRAM_SIZE_MAX).saturating_sub(shorter);
        self.discovery.start(size, ceiling.min(peer_max));
        self.ecn.start(config.ecn);
    }

    /// The peer is in another network, of whose paths nothing is known.
    pub(crate) fn restart_exploring(&mut self, config: PathConfig) {
        self.start_exploring(config, self.peer_max);
    }

    /// Gauges and counters.
    pub(crate) fn stats(&self) -> PathStats {
        PathStats {
            datagram_size: self.discovery.size(),
            black_holes: self.discovery.black_holes(),
            ecn: self.ecn.state(),
            congestion_marks: self.ecn.marked(),
            migration: self.migration.stats(),
        }
    }

    /// Bytes came from `remote`.
    pub(crate) fn on_received(&mut self, remote: SocketAddr, len: u64) {
        if remote == self.remote {
            self.received_bytes += len;
        }
    }

    /// Bytes that may go to an address that is not validated: three for each received (RFC 9000 section 8).
    pub(crate) fn amplification_allowance(&self) -> u64 {
        if self.validated { u64::MAX } else { (self.received_bytes * 3).saturating_sub(self.sent_bytes) }
    }
}
