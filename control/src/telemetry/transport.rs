//! What the shards of this process measure, read from them without locks when the metrics are asked for.

use std::sync::{Mutex, PoisonError};

use quantum::{DurationHistogram, EndpointStats, TimingStats, TrafficStats};
use quantum_grpc::ShardMonitor;

use super::exposition::{Distribution, Family, Kind, Value};

/// What is longer than the longest bound is said to have taken so much of it.
const BEYOND: f64 = 1.05;

static MONITORS: Mutex<Vec<ShardMonitor>> = Mutex::new(Vec::new());

/// What shards have counted, all together.
#[derive(Debug, Default)]
struct Totals {
    traffic: TrafficStats,
    timings: TimingStats,
    connections: u64,
    sent_bytes: u64,
    received_bytes: u64,
    send_errors: u64,
    buffer_shortages: u64,
    /// Packets that were not taken, by why.
    rejected: [(&'static str, u64); 7],
}

/// From here on the metrics hold what these shards do.
pub(crate) fn watch(monitor: ShardMonitor) {
    MONITORS.lock().unwrap_or_else(PoisonError::into_inner).push(monitor);
}

/// The metrics of all shards.
pub(super) fn families() -> Vec<Family> {
    let monitors = MONITORS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut totals = Totals { rejected: rejected(&EndpointStats::default()), ..Totals::default() };
    for shard in monitors.iter().flat_map(ShardMonitor::stats) {
        totals.traffic = totals.traffic.with(&shard.endpoint.traffic);
        totals.timings = totals.timings.with(&shard.timings);
        totals.connections += shard.endpoint.connections;
        totals.sent_bytes += shard.sent_bytes;
        totals.received_bytes += shard.received_bytes;
        totals.send_errors += shard.send_errors;
        totals.buffer_shortages += shard.buffer_shortages;
        for (total, more) in totals.rejected.iter_mut().zip(rejected(&shard.endpoint)) {
            total.1 += more.1;
        }
    }
    describe(&totals)
}

fn rejected(seen: &EndpointStats) -> [(&'static str, u64); 7] {
    [
        ("malformed", seen.malformed),
        ("wrong_version", seen.wrong_version),
        ("not_authentic", seen.unauthenticated),
        ("unknown_connection", seen.unknown),
        ("duplicate", seen.duplicates),
        ("no_keys", seen.dropped),
        ("limit", seen.refused),
    ]
}

fn describe(totals: &Totals) -> Vec<Family> {
    let Totals { traffic, timings, .. } = totals;
    let counter = |name: &str, help: &str, value: u64| Family::number(name, help, Kind::Counter, value as f64);
    let gauge = |name: &str, help: &str, value: u64| Family::number(name, help, Kind::Gauge, value as f64);
    let (restored, resent) = (&timings.recovery.restored, &timings.recovery.resent);
    let mut rejections =
        Family::new("quantum_packets_rejected_total", "Packets that were not taken, by why", Kind::Counter);
    for (reason, count) in totals.rejected {
        rejections = rejections.with(&[("reason", reason)], Value::Number(count as f64));
    }
    let recovery = Family::new(
        "quantum_recovery_seconds",
        "How long lost packets were missing: by fec, from when it may have been due at the earliest until it was restored here; \
         by retransmission, from its sending until its data was to be sent again",
        Kind::Histogram,
    );
    let mut families = vec![
        counter("quantum_packets_sent_total", "Packets sent, acknowledgements included", traffic.packets_sent),
        counter("quantum_packets_received_total", "Packets received and authenticated", traffic.packets_received),
        counter("quantum_packets_lost_total", "Packets sent that were declared lost", traffic.packets_lost),
        counter("quantum_sent_bytes_total", "UDP payload bytes sent", totals.sent_bytes),
        counter("quantum_received_bytes_total", "UDP payload bytes received", totals.received_bytes),
        counter("quantum_send_errors_total", "Sends that the kernel refused", totals.send_errors),
        counter("quantum_buffer_shortages_total", "Times that datagrams waited for buffers", totals.buffer_shortages),
        rejections,
        gauge("quantum_connections", "Connections, those in their handshake included", totals.connections),
        gauge("quantum_cwnd_bytes", "Congestion windows of all connections, added up", traffic.window_bytes),
        gauge("quantum_inflight_bytes", "Bytes sent and neither acknowledged nor lost", traffic.in_flight_bytes),
        counter(
            "quantum_fec_recoveries_total",
            "Packets of peers that were lost and put together from repair symbols",
            restored.count(),
        ),
        counter(
            "quantum_retransmissions_total",
            "Lost packets with stream data, sent again since nobody could restore them",
            resent.count(),
        ),
        recovery
            .with(&[("by", "fec")], Value::Distribution(distribution(restored)))
            .with(&[("by", "retransmission")], Value::Distribution(distribution(resent))),
        histogram("quantum_rtt_seconds", "Round trips, the peer's delay included", &timings.rtt),
        histogram(
            "quantum_handshake_seconds",
            "Handshakes, from the first packet until the connection can be used",
            &timings.handshake,
        ),
    ];
    families.extend(repairs(traffic));
    families
}

/// What forward error correction sent and took.
fn repairs(traffic: &TrafficStats) -> impl Iterator<Item = Family> {
    let counters = [
        ("protected", "Packets sent that have got repair symbols", traffic.protected),
        ("repairs_sent", "Repair symbols sent", traffic.repairs_sent),
        (
            "recoveries_by_peers",
            "Packets sent that were lost and that peers put together from repair symbols",
            traffic.recovered_by_peer,
        ),
        ("repairs_received", "Repair symbols received", traffic.repairs_received),
        (
            "repairs_wasted",
            "Repair symbols received that restored nothing: nothing that they could restore was missing, or too much",
            traffic.repairs_wasted,
        ),
    ];
    counters.into_iter().map(|(name, help, value)| {
        Family::number(&format!("quantum_fec_{name}_total"), help, Kind::Counter, value as f64)
    })
}

fn histogram(name: &str, help: &str, durations: &DurationHistogram) -> Family {
    Family::new(name, help, Kind::Histogram).with(&[], Value::Distribution(distribution(durations)))
}

/// With classic buckets whose bounds double, from 19.5 us to 2.56 s.
fn distribution(durations: &DurationHistogram) -> Distribution {
    let mut points = Vec::new();
    let mut bounds = Vec::new();
    let mut longest_s = 0.0;
    for (nth, (bound, count)) in durations.buckets().enumerate() {
        let seconds = bound.map_or(longest_s * BEYOND, |bound| bound.as_secs_f64());
        if bound.is_some() && nth.is_multiple_of(DurationHistogram::BUCKETS_PER_OCTAVE) {
            bounds.push(seconds);
        }
        points.push((seconds, count));
        longest_s = seconds;
    }
    Distribution { points, sum_s: durations.sum().as_secs_f64(), bounds, exemplars: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::{Syntax, render};

    #[test]
    fn ten_milliseconds_are_the_bound_of_a_bucket_and_the_last_has_none() {
        let totals = Totals { rejected: rejected(&EndpointStats::default()), ..Totals::default() };
        let text = render(&describe(&totals), Syntax::Prometheus);
        for line in [
            "quantum_recovery_seconds_bucket{by=\"fec\",le=\"0.0003125\"} 0",
            "quantum_recovery_seconds_bucket{by=\"fec\",le=\"0.01\"} 0",
            "quantum_recovery_seconds_bucket{by=\"retransmission\",le=\"2.56\"} 0",
            "quantum_recovery_seconds_bucket{by=\"retransmission\",le=\"+Inf\"} 0",
            "quantum_recovery_seconds_count{by=\"retransmission\"} 0",
            "quantum_rtt_seconds_count 0",
            "quantum_packets_rejected_total{reason=\"malformed\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn each_counter_of_forward_error_correction_has_its_own_name() {
        let traffic = TrafficStats {
            protected: 1,
            repairs_sent: 2,
            recovered_by_peer: 3,
            repairs_received: 4,
            repairs_wasted: 5,
            ..TrafficStats::default()
        };
        let text = render(&repairs(&traffic).collect::<Vec<_>>(), Syntax::Prometheus);
        for line in [
            "# TYPE quantum_fec_protected_total counter",
            "quantum_fec_protected_total 1",
            "quantum_fec_repairs_sent_total 2",
            "quantum_fec_recoveries_by_peers_total 3",
            "quantum_fec_repairs_received_total 4",
            "quantum_fec_repairs_wasted_total 5",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing in\n{text}");
        }
    }
}
