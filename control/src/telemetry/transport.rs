//! What the shards of this process measure, read from them without locks when the metrics are asked for.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use quantum::{DurationHistogram, RecoveryStats};
use quantum_grpc::ShardMonitor;

/// Every so many buckets of a histogram one is shown: their bounds double, from 0.3 ms to 2.6 s.
const BUCKETS_TOGETHER: usize = 4;

static MONITORS: Mutex<Vec<ShardMonitor>> = Mutex::new(Vec::new());

/// From here on the metrics hold what these shards do.
pub(crate) fn watch(monitor: ShardMonitor) {
    MONITORS.lock().unwrap_or_else(PoisonError::into_inner).push(monitor);
}

/// The metrics of all shards, in the Prometheus text format.
pub(crate) fn quantum_metrics() -> String {
    let monitors = MONITORS.lock().unwrap_or_else(PoisonError::into_inner);
    let shards = monitors.iter().flat_map(ShardMonitor::stats);
    render(&shards.fold(RecoveryStats::default(), |all, shard| all.with(&shard.recovery)))
}

fn render(recovery: &RecoveryStats) -> String {
    let (restored, resent) = (recovery.restored.count(), recovery.resent.count());
    let mut text = format!(
        "# HELP quantum_fec_recoveries_total Packets of peers that were lost and put together from repair symbols\n\
         # TYPE quantum_fec_recoveries_total counter\n\
         quantum_fec_recoveries_total {restored}\n\
         # HELP quantum_retransmissions_total Lost packets with stream data, sent again since nobody could restore them\n\
         # TYPE quantum_retransmissions_total counter\n\
         quantum_retransmissions_total {resent}\n\
         # HELP quantum_recovery_seconds How long lost packets were missing: by fec, from when it may have been due at the earliest \
         until it was restored here; by retransmission, from its sending until its data was to be sent again\n\
         # TYPE quantum_recovery_seconds histogram\n"
    );
    histogram(&mut text, "fec", &recovery.restored);
    histogram(&mut text, "retransmission", &recovery.resent);
    text
}

fn histogram(text: &mut String, by: &str, histogram: &DurationHistogram) {
    let mut write = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string takes everything");
    };
    let mut below = 0;
    for (nth, (bound, count)) in histogram.buckets().enumerate() {
        below += count;
        if let Some(bound) = bound.filter(|_| nth % BUCKETS_TOGETHER == 0) {
            let bound = bound.as_secs_f64();
            write(format_args!("quantum_recovery_seconds_bucket{{by=\"{by}\",le=\"{bound}\"}} {below}\n"));
        }
    }
    write(format_args!("quantum_recovery_seconds_bucket{{by=\"{by}\",le=\"+Inf\"}} {below}\n"));
    write(format_args!("quantum_recovery_seconds_sum{{by=\"{by}\"}} {}\n", histogram.sum().as_secs_f64()));
    write(format_args!("quantum_recovery_seconds_count{{by=\"{by}\"}} {below}\n"));
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn ten_milliseconds_are_the_bound_of_a_bucket_and_the_last_has_none() {
        let text = render(&quantum::RecoveryStats::default());
        for line in [
            "quantum_recovery_seconds_bucket{by=\"fec\",le=\"0.0003125\"} 0",
            "quantum_recovery_seconds_bucket{by=\"fec\",le=\"0.01\"} 0",
            "quantum_recovery_seconds_bucket{by=\"retransmission\",le=\"2.56\"} 0",
            "quantum_recovery_seconds_bucket{by=\"retransmission\",le=\"+Inf\"} 0",
            "quantum_recovery_seconds_count{by=\"retransmission\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing in\n{text}");
        }
    }
}
