//! The paths of the plans.

use std::time::Duration;

use quantum_sim::{Burst, LinkConfig, RandomOutage};

use super::model::{BurstLoss, Path};

const RATE_MBIT: f64 = 100.0;
/// Queues of short paths hold 32 packets all the same.
const QUEUE_BYTES_MIN: f64 = 48_000.0;

/// What is lost on the way, and how evenly it travels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Harm {
    pub(super) loss_percent: f64,
    pub(super) jitter_ms: f64,
    pub(super) burst: Option<BurstLoss>,
}

/// 4 % of the packets, in bursts of 4 on average: it leaves the bad state with 25 % per packet, and spends 4 % in it.
pub(super) const BURSTS: BurstLoss =
    BurstLoss::Packets { good_to_bad_percent: 25.0 * 0.04 / 0.96, bad_to_good_percent: 25.0, loss_percent: 100.0 };
/// 4 % of the time, 20 ms on average.
pub(super) const OUTAGES: BurstLoss = BurstLoss::Outages { good_ms: 480.0, bad_ms: 20.0 };

/// Paths with names that say more than their numbers: round trip, loss, jitter.
const PROFILES: [(&str, f64, f64, f64); 9] = [
    ("jitter0", 0.0, 0.0, 0.0),
    ("jitter1", 10.0, 0.1, 1.0),
    ("jitter5", 50.0, 1.0, 5.0),
    ("jitter10", 150.0, 2.0, 10.0),
    ("jitter20", 80.0, 3.0, 20.0),
    ("wifi", 10.0, 0.0, 0.0),
    ("4g", 50.0, 1.0, 0.0),
    ("weak", 100.0, 5.0, 0.0),
    ("overseas", 200.0, 2.0, 0.0),
];

/// A bottleneck of 100 Mbit/s with a queue of one bandwidth-delay product.
pub(super) fn path(name: String, rtt_ms: f64, harm: Harm) -> Path {
    let queue_bytes = (RATE_MBIT * 1e3 / 8.0 * rtt_ms).max(QUEUE_BYTES_MIN);
    Path {
        name,
        rtt_ms,
        loss_percent: harm.loss_percent,
        jitter_ms: harm.jitter_ms,
        rate_mbit: Some(RATE_MBIT),
        queue_bytes: Some(queue_bytes as u64),
        burst: harm.burst,
    }
}

/// Round trips with independent loss.
pub(super) fn grid(rtts_ms: &[u32], losses_percent: &[u32]) -> Vec<Path> {
    let pairs = rtts_ms.iter().flat_map(|rtt| losses_percent.iter().map(move |loss| (*rtt, *loss)));
    let each = |(rtt, loss): (u32, u32)| {
        let harm = Harm { loss_percent: f64::from(loss), ..Harm::default() };
        path(format!("rtt{rtt}-loss{loss}"), f64::from(rtt), harm)
    };
    pairs.map(each).collect()
}

/// Round trips with burst loss of both kinds.
pub(super) fn bursts(rtts_ms: &[u32]) -> Vec<Path> {
    let kinds = [("bursts", BURSTS), ("outages", OUTAGES)];
    let pairs = rtts_ms.iter().flat_map(|rtt| kinds.map(|kind| (*rtt, kind)));
    let each = |(rtt, (name, burst))| {
        path(format!("rtt{rtt}-{name}"), f64::from(rtt), Harm { burst: Some(burst), ..Harm::default() })
    };
    pairs.map(each).collect()
}

/// The named profiles.
pub(super) fn profiles() -> Vec<Path> {
    let each = |(name, rtt_ms, loss_percent, jitter_ms): (&str, f64, f64, f64)| {
        path(name.to_owned(), rtt_ms, Harm { loss_percent, jitter_ms, burst: None })
    };
    PROFILES.map(each).into()
}

/// No bottleneck, no delay, no loss.
pub(super) fn unlimited() -> Path {
    Path { rate_mbit: None, queue_bytes: None, ..path("unlimited".to_owned(), 0.0, Harm::default()) }
}

/// The path as the emulator takes it.
pub(super) fn link(path: &Path) -> LinkConfig {
    let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
    let (mut burst, mut outage) = (None, None);
    match path.burst {
        Some(BurstLoss::Packets { good_to_bad_percent, bad_to_good_percent, loss_percent }) => {
            burst = Some(Burst { good_to_bad_percent, bad_to_good_percent, loss_percent });
        }
        Some(BurstLoss::Outages { good_ms, bad_ms }) => {
            outage = Some(RandomOutage { good: ms(good_ms), bad: ms(bad_ms) });
        }
        None => {}
    }
    LinkConfig {
        delay: ms(path.rtt_ms / 2.0),
        jitter: ms(path.jitter_ms),
        loss_percent: path.loss_percent,
        burst,
        outage,
        rate_bits_per_s: path.rate_mbit.map(|mbit| (mbit * 1e6) as u64),
        queue_bytes: path.queue_bytes,
        ..LinkConfig::default()
    }
}
