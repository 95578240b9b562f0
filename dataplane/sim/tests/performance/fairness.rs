//! Several flows through one bottleneck, whose queue holds one bandwidth-delay product.

use std::time::Duration;

use quantum::EndpointConfig;

use super::transfer::Transfer;
use super::{cubic, path};

/// Jain's index: 1 if all have the same.
pub(super) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

fn flows(count: usize) -> Vec<EndpointConfig> {
    vec![EndpointConfig::default(); count]
}
/// Bits per second.
const MBIT: u64 = 1_000_000;

#[test]
fn two_flows_share_a_path() {
    for (delay_ms, seed) in [(10, 1), (10, 2), (25, 1), (25, 2)] {
        let timeline = Transfer { seed, ..Transfer::new(path(delay_ms, 0.0, Some(20 * MBIT)), &flows(2), 60) }.run();
        let shares = timeline.all_mbit(30.0, 60.0);
        println!("{delay_ms} ms one way, seed {seed}: {shares:.2?}, queue {:.0} B", timeline.queue(30.0, 60.0));
        assert!(jain(&shares) >= 0.95, "{shares:?}");
    }
}

#[test]
fn ten_flows_share_a_path() {
    for (delay_ms, seed) in [(10, 2), (10, 3), (25, 1)] {
        let timeline = Transfer { seed, ..Transfer::new(path(delay_ms, 0.0, Some(100 * MBIT)), &flows(10), 60) }.run();
        let shares = timeline.all_mbit(30.0, 60.0);
        let queue = timeline.queue(30.0, 60.0);
        println!("{delay_ms} ms one way, seed {seed}: {:.3}, {shares:.2?}, queue {queue:.0} B", jain(&shares));
        assert!(jain(&shares) >= 0.95, "{shares:?}");
    }
}

#[test]
fn a_flow_that_comes_late_gets_its_share() {
    for (delay_ms, seed, least) in [(10, 1, 0.95), (10, 2, 0.95), (25, 1, 0.85), (25, 2, 0.85)] {
        let mut transfer = Transfer { seed, ..Transfer::new(path(delay_ms, 0.0, Some(20 * MBIT)), &flows(2), 60) };
        transfer.flows[1].1 = Duration::from_secs(10);
        let timeline = transfer.run();
        let shares = timeline.all_mbit(40.0, 60.0);
        println!("{delay_ms} ms one way, seed {seed}: {shares:.2?}, {:.3}", jain(&shares));
        assert!(jain(&shares) >= least, "{shares:?}");
    }
}

#[test]
fn bbr_and_cubic_leave_room_to_each_other() {
    for delay_ms in [10, 25] {
        for seed in 1..=2 {
            let flows = [EndpointConfig::default(), cubic()];
            let timeline = Transfer { seed, ..Transfer::new(path(delay_ms, 0.0, Some(50 * MBIT)), &flows, 60) }.run();
            let shares = timeline.all_mbit(30.0, 60.0);
            println!(
                "{delay_ms} ms one way, seed {seed}: BBR, CUBIC {shares:.2?} of 50, queue {:.0} B",
                timeline.queue(30.0, 60.0)
            );
            let quarter = shares.iter().sum::<f64>() / 4.0;
            assert!(shares.iter().all(|share| *share >= quarter), "{shares:?}");
        }
    }
}

#[test]
fn a_flow_alone_keeps_its_queue_under_half_a_product() {
    for (delay_ms, mbit) in [(1, 100), (10, 20), (25, 100), (100, 20)] {
        let link = path(delay_ms, 0.0, Some(mbit * MBIT));
        let product = mbit as f64 * 1e6 / 8.0 * 2.0 * delay_ms as f64 / 1e3;
        let timeline = Transfer::new(link, &flows(1), 20).run();
        let (share, queue) = (timeline.mbit(0, 5.0, 20.0) / mbit as f64, timeline.queue(5.0, 20.0) / product);
        println!("{delay_ms} ms one way, {mbit} Mbit/s: {share:.3} of the rate, a queue of {queue:.3} products");
        assert!(queue < 0.5 && share > 0.93, "{queue} {share}");
    }
}
