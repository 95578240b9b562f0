//! Windowed extremes: the greatest bandwidth of two probing cycles, the least round-trip time of ten seconds.

use std::time::Duration;

use crate::Time;

/// Length of the window of the least round-trip time. It is longer than three cycles of `PROBE_BW`, each of which drains the
/// queue once.
const RTT_MIN_WINDOW: Duration = Duration::from_secs(10);
/// Rounds over which the greatest aggregation of acknowledgements is kept.
pub(super) const EXTRA_ACKED_ROUNDS: u64 = 10;

/// The greatest bandwidth sample of this and the last probing cycle, bytes per second.
#[derive(Debug, Default)]
pub(super) struct BandwidthFilter {
    current: u64,
    previous: u64,
}

impl BandwidthFilter {
    /// Takes a sample.
    pub(super) fn update(&mut self, rate: u64) {
        self.current = self.current.max(rate);
    }

    /// A probing cycle has shown what the path gives: the cycle before it is forgotten.
    pub(super) fn advance(&mut self) {
        if self.current != 0 {
            self.previous = std::mem::take(&mut self.current);
        }
    }

    /// The path has become slower: nothing greater holds any more.
    pub(super) fn limit(&mut self, rate: u64) {
        self.current = self.current.min(rate);
        self.previous = self.previous.min(rate);
    }

    /// The greatest sample, 0 before the first.
    pub(super) fn max(&self) -> u64 {
        self.current.max(self.previous)
    }
}

/// The least round-trip time of the last ten seconds. The drained queue of each `PROBE_BW` cycle refreshes it, and `PROBE_RTT`
/// where that does not.
#[derive(Debug, Default)]
pub(super) struct RttMinFilter {
    /// Ascending in time and value, so the first is the least: a sample drops all greater ones before it.
    samples: [Option<(Time, Duration)>; 3],
}

impl RttMinFilter {
    /// The path has become longer: nothing less holds any more.
    pub(super) fn restart(&mut self, now: Time, rtt: Duration) {
        self.samples = [Some((now, rtt)); 3];
    }

    /// Takes a sample.
    pub(super) fn update(&mut self, now: Time, rtt: Duration) {
        let [best, second, third] = self.samples;
        let sample = Some((now, rtt));
        let no_better = |old: Option<(Time, Duration)>| old.is_none_or(|old| rtt <= old.1);
        let expired = |old: Option<(Time, Duration)>| old.is_some_and(|old| now - old.0 > RTT_MIN_WINDOW);
        self.samples = if no_better(best) || expired(third) {
            [sample; 3]
        } else if no_better(second) {
            [best, sample, sample]
        } else if no_better(third) {
            [best, second, sample]
        } else {
            self.samples
        };
        self.shift(now, sample);
    }

    /// Lets expired samples go, and keeps the second and third choice from the later parts of the window.
    fn shift(&mut self, now: Time, sample: Option<(Time, Duration)>) {
        let age = |old: Option<(Time, Duration)>| old.map_or(Duration::ZERO, |old| now - old.0);
        let [best, second, third] = self.samples;
        self.samples = if age(best) > RTT_MIN_WINDOW {
            if age(second) > RTT_MIN_WINDOW { [third, sample, sample] } else { [second, third, sample] }
        } else if second == best && age(best) > RTT_MIN_WINDOW / 4 {
            [best, sample, sample]
        } else if third == second && age(second) > RTT_MIN_WINDOW / 2 {
            [best, second, sample]
        } else {
            self.samples
        };
    }

    /// The least, if there was a sample.
    pub(super) fn min(&self) -> Option<Duration> {
        self.samples[0].map(|sample| sample.1)
    }
}

/// How much more than the bandwidth explains was acknowledged at once (draft-ietf-ccwg-bbr section 5.5.9): a receiver or a
/// link that gathers acknowledgements needs that much more in flight.
#[derive(Debug)]
pub(super) struct ExtraAcked {
    started: Time,
    delivered: u64,
    /// The greatest of this and of the last window, bytes.
    current: u64,
    previous: u64,
    window_start: u64,
}

impl ExtraAcked {
    /// Nothing acknowledged.
    pub(super) fn new(now: Time) -> Self {
        Self { started: now, delivered: 0, current: 0, previous: 0, window_start: 0 }
    }

    /// `acked` bytes came in round `round`, where the model expects `bandwidth`; `window` bounds what counts.
    pub(super) fn update(&mut self, now: Time, acked: u64, round: u64, (bandwidth, window): (u64, u64)) {
        let elapsed = (now - self.started).as_secs_f64();
        let mut expected = (elapsed * bandwidth as f64) as u64;
        if self.delivered <= expected {
            self.delivered = 0;
            self.started = now;
            expected = 0;
        }
        self.delivered += acked;
        if round >= self.window_start + EXTRA_ACKED_ROUNDS {
            self.window_start = round;
            self.previous = std::mem::take(&mut self.current);
        }
        self.current = self.current.max((self.delivered - expected.min(self.delivered)).min(window));
    }

    /// A new interval begins: the sender was idle.
    pub(super) fn restart(&mut self, now: Time) {
        self.started = now;
        self.delivered = 0;
    }

    /// The greatest excess, bytes.
    pub(super) fn max(&self) -> u64 {
        self.current.max(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_greatest_bandwidth_lives_for_two_cycles() {
        let mut filter = BandwidthFilter::default();
        filter.update(10);
        filter.update(7);
        filter.advance();
        filter.update(5);
        assert_eq!(filter.max(), 10);
        filter.advance();
        assert_eq!(filter.max(), 5);
        filter.advance();
        assert_eq!(filter.max(), 5, "a cycle without a sample teaches nothing");
    }

    #[test]
    fn the_least_round_trip_time_expires_after_ten_seconds() {
        let mut filter = RttMinFilter::default();
        filter.update(at(0), Duration::from_millis(20));
        for millis in (100..9_000).step_by(100) {
            filter.update(at(millis), Duration::from_millis(30));
        }
        assert_eq!(filter.min(), Some(Duration::from_millis(20)));
        for millis in (9_000..10_300).step_by(100) {
            filter.update(at(millis), Duration::from_millis(35));
        }
        assert_eq!(filter.min(), Some(Duration::from_millis(30)));
        filter.update(at(11_000), Duration::from_millis(10));
        assert_eq!(filter.min(), Some(Duration::from_millis(10)));
    }

    #[test]
    fn gathered_acknowledgements_show() {
        let mut extra = ExtraAcked::new(at(0));
        // 1,000 B/ms in lumps of 10 ms.
        for lump in 1..20 {
            extra.update(at(lump * 10), 10_000, lump, (1_000_000, 100_000));
        }
        assert!((9_000..=10_000).contains(&extra.max()), "{}", extra.max());
    }
}
