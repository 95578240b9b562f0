//! Counters and gauges that a connection and an endpoint keep.

use std::time::Duration;

use crate::EcnState;

/// What a connection has done and how its path looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionStats {
    /// Packets sent, handshake and acknowledgements included.
    pub packets_sent: u64,
    /// Packets received and authenticated.
    pub packets_received: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received in authenticated packets.
    pub bytes_received: u64,
    /// Sent packets declared lost.
    pub packets_lost: u64,
    /// Packets that carried frames again that had been sent before.
    pub retransmissions: u64,
    /// Probe timeouts that fired.
    pub probe_timeouts: u64,
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt_smoothed: Duration,
    /// Least round-trip time of the path.
    pub rtt_min: Duration,
    /// What its streams hold.
    pub streams: StreamsStats,
    /// The congestion controller's view.
    pub congestion: CongestionStats,
    /// The network path.
    pub path: PathStats,
    /// What forward error correction did.
    pub fec: FecStats,
    /// What the keys of 1-RTT did.
    pub protection: ProtectionStats,
    /// What became of datagrams.
    pub datagrams: DatagramStats,
}

/// What became of the datagrams of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramStats {
    /// Sent.
    pub sent: u64,
    /// Sent and acknowledged, or restored by the peer.
    pub delivered: u64,
    /// Never sent: others took their room, or they do not fit any more.
    pub send_dropped: u64,
    /// Received, those dropped included.
    pub received: u64,
    /// Received and dropped, since the application took none for too long.
    pub receive_dropped: u64,
}

/// What the keys of 1-RTT did on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtectionStats {
    /// Key phases begun by this side.
    pub updates: u64,
    /// Key phases begun by the peer.
    pub updates_by_peer: u64,
    /// Packets that failed authentication.
    pub not_opened: u64,
    /// The server accepted early data.
    pub early_data_accepted: bool,
    /// Packets of early data sent, or opened.
    pub early_packets: u64,
}

/// What a connection knows of its network path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// UDP payload bytes of a full packet.
    pub datagram_size: u16,
    /// Times that packets of a size which had arrived did not any more (RFC 8899 section 4.3).
    pub black_holes: u64,
    /// Whether packets carry ECN marks.
    pub ecn: EcnState,
    /// Packets sent that met congestion, as the peer counted.
    pub congestion_marks: u64,
    /// Other addresses of the peer.
    pub migration: MigrationStats,
}

/// What became of packets from another address than the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrationStats {
    /// Times that the peer was followed to another address.
    pub migrations: u64,
    /// Challenges sent to addresses that were to be proved.
    pub challenges: u64,
    /// Addresses that were not followed: no answer came from there, or the peer's packets came from elsewhere again.
    pub given_up: u64,
}

/// What forward error correction did on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FecStats {
    /// Packets sent that have got repair symbols.
    pub protected: u64,
    /// Repair symbols sent.
    pub repairs_sent: u64,
    /// Bytes of them.
    pub repair_bytes_sent: u64,
    /// Packets sent that were lost and that the peer restored.
    pub recovered_by_peer: u64,
    /// Packets of the peer that were lost and restored here.
    pub recovered: u64,
    /// Repair symbols received.
    pub repairs_received: u64,
    /// Repair symbols received that restored nothing: nothing they could restore was missing, or too much.
    pub wasted: u64,
    /// Bytes kept to restore packets.
    pub kept_bytes: usize,
    /// The share of packets sent that are lost, as forward error correction takes it to be.
    pub loss: f64,
    /// How long bursts of losses last, on average; zero if losses are independent.
    pub burst: Duration,
}

/// What the streams of a connection hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamsStats {
    /// Streams of either side that are not over in both directions.
    pub live: usize,
    /// Bytes written and not yet acknowledged.
    pub send_buffered_bytes: usize,
    /// Bytes received and not yet read.
    pub receive_buffered_bytes: usize,
    /// Stream bytes that have been sent again.
    pub resent_bytes: u64,
}

/// What the congestion controller knows and allows (contract 1.7, `BBRStats`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CongestionStats {
    /// The latest round-trip time sample; zero before the first.
    pub rtt_latest: Duration,
    /// Packets declared lost that arrived after all.
    pub spurious_losses: u64,
    /// Times that everything sent over three probe timeouts was lost (RFC 9002 section 7.6).
    pub persistent_congestions: u64,
    /// BBR: `startup`, `drain`, `probe_bw_down`, `probe_bw_cruise`, `probe_bw_refill`, `probe_bw_up`, `probe_rtt`. CUBIC:
    /// `slow_start`, `conservative_slow_start`, `congestion_avoidance`.
    pub state: &'static str,
    /// Estimated bottleneck bandwidth, bytes per second.
    pub bandwidth: u64,
    /// Pacing rate, bytes per second.
    pub pacing_rate: u64,
    /// Congestion window in bytes.
    pub window_bytes: u64,
    /// Bytes sent and neither acknowledged nor lost.
    pub in_flight_bytes: u64,
    /// The factor between bandwidth and pacing rate.
    pub pacing_gain: f64,
    /// The factor between the bandwidth-delay product and the window.
    pub window_gain: f64,
}

/// What the connections of an endpoint have sent and received, those included that are over, and what is on its way now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Packets sent, handshake and acknowledgements included.
    pub packets_sent: u64,
    /// Packets received and authenticated.
    pub packets_received: u64,
    /// Sent packets declared lost.
    pub packets_lost: u64,
    /// Congestion windows of the connections that there are, added up.
    pub window_bytes: u64,
    /// Bytes sent and neither acknowledged nor lost.
    pub in_flight_bytes: u64,
    /// Packets sent that have got repair symbols.
    pub protected: u64,
    /// Repair symbols sent.
    pub repairs_sent: u64,
    /// Packets sent that were lost and that the peer restored.
    pub recovered_by_peer: u64,
    /// Repair symbols received.
    pub repairs_received: u64,
    /// Repair symbols received that restored nothing: nothing they could restore was missing, or too much.
    pub repairs_wasted: u64,
}

impl TrafficStats {
    /// One of those that make up these was `before` and is `now`.
    pub(crate) fn replace(&mut self, before: &Self, now: &Self) {
        let replace = |total: &mut u64, before: u64, now: u64| *total = total.wrapping_sub(before).wrapping_add(now);
        replace(&mut self.packets_sent, before.packets_sent, now.packets_sent);
        replace(&mut self.packets_received, before.packets_received, now.packets_received);
        replace(&mut self.packets_lost, before.packets_lost, now.packets_lost);
        replace(&mut self.window_bytes, before.window_bytes, now.window_bytes);
        replace(&mut self.in_flight_bytes, before.in_flight_bytes, now.in_flight_bytes);
        replace(&mut self.protected, before.protected, now.protected);
        replace(&mut self.repairs_sent, before.repairs_sent, now.repairs_sent);
        replace(&mut self.recovered_by_peer, before.recovered_by_peer, now.recovered_by_peer);
        replace(&mut self.repairs_received, before.repairs_received, now.repairs_received);
        replace(&mut self.repairs_wasted, before.repairs_wasted, now.repairs_wasted);
    }

    /// These and those of another endpoint.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut sum = *self;
        sum.replace(&Self::default(), other);
        sum
    }
}

/// What an endpoint has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Connections that exist, half-open ones included.
    pub connections: u64,
    /// Half-open handshakes of clients.
    pub handshakes: u64,
    /// Segments that were no packet: short, wrong magic, bad lengths.
    pub malformed: u64,
    /// Packets of another version of the protocol.
    pub wrong_version: u64,
    /// Packets that failed authentication.
    pub unauthenticated: u64,
    /// Packets of connections that this endpoint does not know.
    pub unknown: u64,
    /// Packets whose number had been received before.
    pub duplicates: u64,
    /// Packets of connections that could not be opened: their keys are gone or not there yet, or the connection is over.
    pub dropped: u64,
    /// Cookies asked for.
    pub cookies_sent: u64,
    /// Stateless resets sent.
    pub resets_sent: u64,
    /// Handshakes turned away because a limit was reached.
    pub refused: u64,
    /// What its connections have sent and received.
    pub traffic: TrafficStats,
}
