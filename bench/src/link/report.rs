//! The counters at the end.

use serde_json::{Value, json};

use super::DEVICE;
use super::emulator::Direction;
use super::namespace::{Namespaces, call};

/// What the emulator did: for people to standard error, as JSON to standard output.
pub(super) fn emulated(seed: u64, directions: &[Direction; 2], overflows: [u64; 2]) {
    let [there, back] = directions;
    let [there_overflows, back_overflows] = overflows;
    for (name, direction, overflows) in [("a to b", there, there_overflows), ("b to a", back, back_overflows)] {
        let stats = &direction.stats;
        eprintln!(
            "{name}: {} packets in, {} out; dropped {} by loss, {} by bursts, {} by the queue, {} before the link; \
             {} duplicated, {} corrupted, {} reordered",
            stats.sent,
            stats.delivered,
            stats.dropped_loss,
            stats.dropped_burst,
            stats.dropped_queue,
            overflows,
            stats.duplicated,
            stats.corrupted,
            stats.reordered,
        );
    }
    let report = json!({
        "seed": seed,
        "a_to_b": counters(there, there_overflows),
        "b_to_a": counters(back, back_overflows),
    });
    println!("{report}");
}

fn counters(direction: &Direction, overflows: u64) -> Value {
    let stats = &direction.stats;
    json!({
        "sent": stats.sent,
        "delivered": stats.delivered,
        "dropped_loss": stats.dropped_loss,
        "dropped_burst": stats.dropped_burst,
        "dropped_queue": stats.dropped_queue,
        "dropped_mtu": stats.dropped_mtu,
        "dropped_blackout": stats.dropped_blackout,
        "dropped_before_link": overflows,
        "refused_after_link": direction.refused,
        "duplicated": stats.duplicated,
        "corrupted": stats.corrupted,
        "reordered": stats.reordered,
        "bytes_sent": stats.bytes_sent,
        "bytes_delivered": stats.bytes_delivered,
        "queue_bytes_peak": stats.queue.bytes_peak,
        "queue_byte_s": stats.queue.byte_ns as f64 / 1e9,
        "in_flight": direction.in_flight,
    })
}

/// What the kernel counted.
pub(super) fn netem(namespaces: &Namespaces) -> anyhow::Result<()> {
    let [there, back] = namespaces.names().map(|name| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&call("tc", &["-n", name, "-s", "-j", "qdisc", "show", "dev", DEVICE])?)?)
    });
    println!("{}", json!({ "a_to_b": there?, "b_to_a": back? }));
    Ok(())
}
