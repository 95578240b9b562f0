//! Small messages on paths that lose packets in bursts.

use std::time::Duration;

use quantum_sim::{Burst, LinkConfig, RandomOutage};

use super::messages::{Messages, wire_bytes};
use super::{path, percentile, with_fec, without_fec};

/// Four percent of all packets are lost, in bursts.
fn bursts(delay_ms: u64, burst: Option<Burst>, outage: Option<RandomOutage>) -> [Duration; 2] {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let link = LinkConfig { burst, outage, ..path(delay_ms, 0.0, None) };
    [without_fec(), with_fec()].map(|config| {
        let measured = messages.run(&link, &config, 1);
        println!("{:.0} B per message and direction", wire_bytes(&measured));
        percentile(&measured.times, 0.99)
    })
}

/// Bursts of four packets on average. On paths under 50 ms a quarter of the round trip is too short to leave one behind.
#[test]
fn repair_symbols_survive_bursts_of_packets() {
    let burst = Burst { good_to_bad_percent: 1.0417, bad_to_good_percent: 25.0, loss_percent: 100.0 };
    for delay_ms in [25, 50, 100] {
        let [plain, protected] = bursts(delay_ms, Some(burst), None);
        assert!(protected <= Duration::from_millis(2 * delay_ms).mul_f64(1.3), "{plain:?} {protected:?}");
    }
}

/// Bursts of 20 ms on average. What is sent at the start of one gets through only by what is sent as much later: within 1.3 round
/// trips of 200 ms, not of 50.
#[test]
fn repair_symbols_survive_bursts_in_time() {
    let outage = RandomOutage { good: Duration::from_millis(480), bad: Duration::from_millis(20) };
    let [plain, protected] = bursts(100, None, Some(outage));
    assert!(protected <= Duration::from_millis(260), "{plain:?} {protected:?}");
}
