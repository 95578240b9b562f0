//! Paths that change while a flow is on them.

use std::time::Duration;

use quantum::EndpointConfig;

use super::path;
use super::transfer::{Change, Transfer};

/// A machine that stops looks like a path that holds everything back for a while: at whatever moment it does, bulk is at its rate
/// again soon after.
#[test]
fn a_pause_at_any_moment_of_the_start_costs_little_more_than_the_pause() {
    let normal = Duration::from_millis(25);
    for (begins_ms, lasts_ms) in [(60, 200), (120, 300), (180, 100), (240, 400), (300, 200)] {
        let mut transfer = Transfer::new(path(25, 0.0, Some(100_000_000)), &[EndpointConfig::default()], 4);
        let (begins, lasts) = (Duration::from_millis(begins_ms), Duration::from_millis(lasts_ms));
        // All that is sent in the pause arrives at its end.
        let steps = (0..lasts_ms / 20).map(|step| {
            let passed = Duration::from_millis(step * 20);
            (begins + passed, Change::Delay(normal + lasts.saturating_sub(passed)))
        });
        transfer.changes = steps.chain([(begins + lasts, Change::Delay(normal))]).collect();
        let timeline = transfer.run();
        let mbit = timeline.mbit(0, 1.0, 4.0);
        println!("a pause of {lasts_ms} ms after {begins_ms} ms: {mbit:.1} Mbit/s from the first second on");
        assert!(mbit > 80.0, "{mbit}");
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// From 100 to 10 Mbit/s after ten seconds, and back after ten more.
#[test]
fn a_flow_follows_the_rate_of_its_path() {
    let mut transfer = Transfer::new(path(25, 0.0, Some(100_000_000)), &[EndpointConfig::default()], 40);
    transfer.changes = vec![(seconds(10), Change::Rate(10_000_000)), (seconds(20), Change::Rate(100_000_000))];
    let timeline = transfer.run();
    let by_time: Vec<f64> = (0..40).map(|at| timeline.mbit(0, f64::from(at), f64::from(at + 1))).collect();
    let queues: Vec<f64> = (10..20).map(|at| timeline.queue(f64::from(at), f64::from(at + 1)) / 62_500.0).collect();
    println!("Mbit/s by second: {by_time:.1?}; queue in products of 10 Mbit/s: {queues:.2?}");
    assert!(timeline.mbit(0, 2.0, 10.0) >= 93.0);
    assert!(timeline.mbit(0, 12.0, 20.0) >= 9.3, "the low rate is used");
    assert!(queues[5..].iter().all(|queue| *queue < 1.0), "the queue that the drop has left goes within five seconds");
    assert!(timeline.mbit(0, 30.0, 40.0) >= 90.0, "the rate is found again within ten seconds");
}

/// From 20 to 80 ms after ten seconds, and back after ten more. The window is of the shorter path until the next `PROBE_RTT`, at
/// most six seconds later, and the rate is that of this window until it is probed for again: up to then the longer path is used by
/// a fifth at least.
#[test]
fn a_flow_follows_the_round_trip_time_of_its_path() {
    let mut transfer = Transfer::new(path(10, 0.0, Some(50_000_000)), &[EndpointConfig::default()], 40);
    let delay = |ms| Change::Delay(Duration::from_millis(ms));
    transfer.changes = vec![(seconds(10), delay(40)), (seconds(20), delay(10))];
    let timeline = transfer.run();
    let by_time: Vec<f64> = (0..40).map(|at| timeline.mbit(0, f64::from(at), f64::from(at + 1))).collect();
    println!("Mbit/s by second: {by_time:.1?}");
    assert!(timeline.mbit(0, 2.0, 10.0) >= 46.0);
    assert!(timeline.mbit(0, 10.0, 19.0) >= 10.0);
    assert!(timeline.mbit(0, 19.0, 20.0) >= 45.0, "the longer path is known and used before the shorter time expires");
    assert!(timeline.mbit(0, 22.0, 40.0) >= 45.0);
    assert!(timeline.queue(30.0, 40.0) < 62_500.0, "a shorter path is noticed at once");
}
