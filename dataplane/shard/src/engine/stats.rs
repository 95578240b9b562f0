//! Counters of a shard that other threads may read at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quantum::{EndpointStats, TimingStats, Timings, TrafficStats};

use super::peers::PeerCounters;
use crate::work::PortCounters;

/// What a shard has done: a snapshot, at most some milliseconds old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Datagrams received, merged ones counted once.
    pub receives: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Datagrams received, each of those merged counted.
    pub received_datagrams: u64,
    /// Send operations, segmented ones counted once.
    pub sends: u64,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// Datagrams sent, each segment counted.
    pub sent_datagrams: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
    /// Datagrams that a host refused since nobody listens at the port (ICMP).
    pub unreachable: u64,
    /// Times that datagrams waited for receive buffers.
    pub buffer_shortages: u64,
    /// Times that the thread was woken.
    pub wakes: u64,
    /// Packets that were handed to the shard of their connection.
    pub strays_sent: u64,
    /// Packets of another shard's connections that were dropped, since it was busy.
    pub strays_dropped: u64,
    /// What the endpoint has seen.
    pub endpoint: EndpointStats,
    /// How long things took on its connections: up to this moment.
    pub timings: TimingStats,
}

/// Counters in the order of [`ShardStats`].
const COUNTERS: usize = 32;

/// Where a shard publishes them.
#[derive(Debug, Default)]
pub(crate) struct StatsCell {
    values: [AtomicU64; COUNTERS],
    wakes: AtomicU64,
    /// The endpoint's, once there is one.
    timings: OnceLock<Arc<Timings>>,
}

impl StatsCell {
    /// Publishes what there is.
    pub(crate) fn publish(&self, port: &PortCounters, endpoint: &EndpointStats, peers: PeerCounters) {
        let values = [
            port.receives,
            port.received_bytes,
            port.sends,
            port.sent_bytes,
            port.send_errors,
            port.buffer_shortages,
            peers.sent,
            peers.dropped,
            endpoint.connections,
            endpoint.handshakes,
            endpoint.malformed,
            endpoint.wrong_version,
            endpoint.unauthenticated,
            endpoint.unknown,
            endpoint.duplicates,
            endpoint.cookies_sent,
            endpoint.resets_sent,
            endpoint.refused,
            endpoint.dropped,
            port.unreachable,
            port.received_datagrams,
            port.sent_datagrams,
            endpoint.traffic.packets_sent,
            endpoint.traffic.packets_received,
            endpoint.traffic.packets_lost,
            endpoint.traffic.window_bytes,
            endpoint.traffic.in_flight_bytes,
            endpoint.traffic.protected,
            endpoint.traffic.repairs_sent,
            endpoint.traffic.recovered_by_peer,
            endpoint.traffic.repairs_received,
            endpoint.traffic.repairs_wasted,
        ];
        for (cell, value) in self.values.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// From here on this is where the endpoint counts how long things take.
    pub(crate) fn share(&self, timings: &Arc<Timings>) {
        // A shard has one endpoint in its life.
        let _ = self.timings.set(Arc::clone(timings));
    }

    /// The thread was woken.
    pub(crate) fn woke(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    /// The latest values.
    pub(crate) fn read(&self) -> ShardStats {
        let value = |index: usize| self.values[index].load(Ordering::Relaxed);
        ShardStats {
            receives: value(0),
            received_bytes: value(1),
            received_datagrams: value(20),
            sends: value(2),
            sent_bytes: value(3),
            sent_datagrams: value(21),
            send_errors: value(4),
            unreachable: value(19),
            buffer_shortages: value(5),
            wakes: self.wakes.load(Ordering::Relaxed),
            strays_sent: value(6),
            strays_dropped: value(7),
            endpoint: EndpointStats {
                connections: value(8),
                handshakes: value(9),
                malformed: value(10),
                wrong_version: value(11),
                unauthenticated: value(12),
                unknown: value(13),
                duplicates: value(14),
                cookies_sent: value(15),
                resets_sent: value(16),
                refused: value(17),
                dropped: value(18),
                traffic: TrafficStats {
                    packets_sent: value(22),
                    packets_received: value(23),
                    packets_lost: value(24),
                    window_bytes: value(25),
                    in_flight_bytes: value(26),
                    protected: value(27),
                    repairs_sent: value(28),
                    recovered_by_peer: value(29),
                    repairs_received: value(30),
                    repairs_wasted: value(31),
                },
            },
            timings: self.timings.get().map(|timings| timings.read()).unwrap_or_default(),
        }
    }
}
