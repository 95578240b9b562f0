//! CUBIC on a path of its own.

use super::transfer::Transfer;
use super::{cubic, path};

/// Of 20 Mbit/s, 96 % are payload. A queue of one bandwidth-delay product never runs empty when the window falls to 0.7.
#[test]
fn cubic_fills_a_path_without_loss() {
    for delay_ms in [10, 25, 50] {
        let timeline = Transfer::new(path(delay_ms, 0.0, Some(20_000_000)), &[cubic()], 30).run();
        let mbit = timeline.mbit(0, 10.0, 30.0);
        println!("{delay_ms} ms one way: {mbit:.2} Mbit/s, {} lost", timeline.stats[0].packets_lost);
        assert!(mbit >= 20.0 * 0.93, "{mbit}");
        assert!(timeline.stats[0].packets_lost > 0, "it fills the queue");
        assert_eq!(timeline.stats[0].congestion.state, "congestion_avoidance");
    }
}

/// It is what it is: the throughput that RFC 9438 section 5.2 gives for 1 % of loss is about 1 Mbit/s at 50 ms.
#[test]
fn cubic_takes_random_loss_for_congestion() {
    let timeline = Transfer::new(path(25, 1.0, Some(20_000_000)), &[cubic()], 30).run();
    let mbit = timeline.mbit(0, 10.0, 30.0);
    println!("{mbit:.2} Mbit/s at 1 % loss");
    assert!((1.0..8.0).contains(&mbit), "{mbit}");
}

#[test]
fn two_cubic_flows_share_a_path() {
    let timeline = Transfer::new(path(10, 0.0, Some(20_000_000)), &[cubic(), cubic()], 60).run();
    let shares = timeline.all_mbit(30.0, 60.0);
    println!("{shares:?}");
    assert!(super::fairness::jain(&shares) >= 0.9, "{shares:?}");
}
