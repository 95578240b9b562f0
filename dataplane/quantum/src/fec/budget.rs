//! What repair symbols may cost: a share of the application's bytes, as long as all that is sent stays under a rate that does not
//! matter to the path; beyond it next to nothing.

use std::time::Duration;

use super::{Burst, FecConfig};
use crate::Time;

/// The free rate may be used in bursts of so much time.
const BURST: Duration = Duration::from_millis(50);
/// A path that is filled gets so much of its bytes as repair: the ends of transfers, and little messages beside them.
const FULL_SHARE: f64 = 0.02;
/// Bytes that may be saved up at most, of either share.
const SAVED_MAX: f64 = 65_536.0;
/// The share of the known bandwidth that is free.
const BANDWIDTH_SHARE: u64 = 10;
/// The round-trip time shows a queue that grows when it is half longer than the least, and by more than a timer's tick.
const QUEUE_MIN: Duration = Duration::from_millis(2);

/// What is known of the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathView {
    pub(crate) rtt: Duration,
    pub(crate) rtt_min: Duration,
    /// How long after it was sent a packet is lost once later ones are acknowledged.
    pub(crate) loss_delay: Duration,
    /// Bytes per second that the path is known to carry.
    pub(crate) bandwidth: u64,
    /// The share of packets that are lost.
    pub(crate) loss: f64,
    /// How losses come in a row.
    pub(crate) burst: Burst,
}

impl PathView {
    fn has_queue(&self) -> bool {
        self.rtt > self.rtt_min + self.rtt_min / 2 + QUEUE_MIN
    }
}

/// Bytes that repair symbols may have.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes per second that are free whatever the path.
    free_rate_min: f64,
    /// Bytes of repair for each byte of the application.
    share: f64,
    /// What the free rate leaves; all packets take from it.
    free: f64,
    filled_at: Time,
    /// What the application's bytes allow while the rate is low, and always.
    earned: f64,
    earned_full: f64,
}

impl Budget {
    /// Nothing sent.
    pub(crate) fn new(now: Time, config: &FecConfig) -> Self {
        let free_rate_min = (config.free_bits_per_s / 8) as f64;
        Self {
            free_rate_min,
            share: f64::from(config.overhead_percent_max) / 100.0,
            free: free_rate_min * BURST.as_secs_f64(),
            filled_at: now,
            earned: 0.0,
            earned_full: 0.0,
        }
    }

    /// A packet leaves with so many bytes of the application, and so many in all.
    pub(crate) fn on_sent(&mut self, now: Time, own_bytes: usize, size: usize, path: &PathView) {
        let rate = self.free_rate_min.max((path.bandwidth / BANDWIDTH_SHARE) as f64);
        let most = rate * BURST.as_secs_f64();
        let elapsed = now.saturating_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.free = (self.free + elapsed * rate).min(most);
        self.free = (self.free - size as f64).max(-most);
        self.earned = (self.earned + own_bytes as f64 * self.share).min(SAVED_MAX);
        self.earned_full = (self.earned_full + own_bytes as f64 * FULL_SHARE).min(SAVED_MAX);
    }

    /// Whether the sender fills the path, or too much of it: nothing is gathered then.
    pub(crate) fn is_full(&self, now: Time, path: &PathView) -> bool {
        self.available(now, path) <= 0.0 || path.has_queue()
    }

    /// Whether so many bytes of repair may be sent.
    pub(crate) fn allows(&self, now: Time, bytes: usize, path: &PathView) -> bool {
        let bytes = bytes as f64;
        let is_free = bytes <= self.available(now, path) && !path.has_queue();
        is_free && bytes <= self.earned || bytes <= self.earned_full
    }

    /// Takes them. They count against the free rate when they leave.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.earned = (self.earned - bytes as f64).max(0.0);
        self.earned_full = (self.earned_full - bytes as f64).max(0.0);
    }

    fn available(&self, now: Time, path: &PathView) -> f64 {
        let rate = self.free_rate_min.max((path.bandwidth / BANDWIDTH_SHARE) as f64);
        let elapsed = now.saturating_since(self.filled_at).as_secs_f64();
        (self.free + elapsed * rate).min(rate * BURST.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn path() -> PathView {
        let rtt = Duration::from_millis(50);
        PathView { rtt, rtt_min: rtt, loss_delay: rtt * 9 / 8, bandwidth: 0, loss: 0.05, burst: Burst::default() }
    }

    #[test]
    fn few_messages_may_be_sent_four_times_and_no_more() {
        let mut budget = Budget::new(at(0), &FecConfig::default());
        for nth in 0..200 {
            budget.on_sent(at(nth * 5), 300, 350, &path());
            for _ in 0..3 {
                assert!(budget.allows(at(nth * 5), 300, &path()), "{nth}");
                budget.spend(300);
                budget.on_sent(at(nth * 5), 0, 350, &path());
            }
            assert!(!budget.allows(at(nth * 5), 300, &path()), "{nth}");
        }
    }

    #[test]
    fn a_full_path_gets_two_percent() {
        let mut budget = Budget::new(at(0), &FecConfig::default());
        let (mut sent, mut repaired) = (0, 0);
        for nth in 0..10_000 {
            budget.on_sent(at(nth), 1_300, 1_400, &path());
            sent += 1_300;
            if budget.allows(at(nth), 1_300, &path()) {
                budget.spend(1_300);
                repaired += 1_300;
            }
        }
        assert!(budget.is_full(at(10_000), &path()));
        assert!(!budget.is_full(at(10_200), &path()), "the rate is free again after a pause");
        // The first 50 ms are free.
        assert!((sent / 100..sent / 40).contains(&repaired), "{repaired} of {sent}");
    }

    #[test]
    fn a_queue_ends_generosity_and_a_fast_path_extends_it() {
        let mut budget = Budget::new(at(0), &FecConfig::default());
        let queue = PathView { rtt: Duration::from_millis(100), ..path() };
        budget.on_sent(at(0), 1_000, 1_000, &path());
        assert!(budget.allows(at(0), 1_000, &path()) && !budget.allows(at(0), 1_000, &queue));
        let fast = PathView { bandwidth: 125_000_000, ..path() };
        for (path, full) in [(fast, false), (path(), true)] {
            let mut budget = Budget::new(at(0), &FecConfig::default());
            for nth in 0..1_000 {
                budget.on_sent(at(nth), 2_000, 2_100, &path);
            }
            assert_eq!(budget.is_full(at(1_000), &path), full);
        }
    }
}
