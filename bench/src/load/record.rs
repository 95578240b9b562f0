//! Latencies of requests, with those that never came back counted for what they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const UNANSWERED: u64 = 0;

/// One slot a request: when it was answered, counted from when it should have been sent.
#[derive(Debug)]
pub struct Latencies {
    start: Instant,
    interval: Duration,
    /// Nanoseconds from the intended sending to the answer; 0 while there is none.
    slots: Vec<AtomicU64>,
}

/// What the slots say.
#[derive(Debug)]
pub struct Recorded {
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
    /// Requests with an answer.
    pub received: u64,
    /// Requests without: in the histogram with their age.
    pub errors: u64,
}

impl Latencies {
    /// Slots for `count` requests, `interval` apart from `start` on.
    pub fn new(start: Instant, interval: Duration, count: usize) -> Self {
        Self { start, interval, slots: (0..count).map(|_| AtomicU64::new(UNANSWERED)).collect() }
    }

    /// When a request should be sent.
    pub fn intended(&self, index: usize) -> Instant {
        self.start + Duration::from_nanos((self.interval.as_nanos() * index as u128) as u64)
    }

    /// How many requests there are.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// The answer of a request is here. An index from outside that does not exist is ignored.
    pub fn answered(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            let latency = self.intended(index).elapsed().as_nanos().max(1) as u64;
            let _ = slot.compare_exchange(UNANSWERED, latency, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether all requests from `first` on have their answer.
    pub fn complete_from(&self, first: usize) -> bool {
        self.slots[first..].iter().all(|slot| slot.load(Ordering::Relaxed) != UNANSWERED)
    }

    /// The least latency so far, or nothing.
    pub fn least(&self) -> Option<Duration> {
        let answered =
            self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|latency| *latency != UNANSWERED);
        answered.min().map(Duration::from_nanos)
    }

    /// What the slots from `first` on say at `end`.
    pub fn recorded(&self, first: usize, end: Instant) -> Recorded {
        let mut recorded = Recorded { histogram: histogram(), received: 0, errors: 0 };
        for (index, slot) in self.slots.iter().enumerate().skip(first) {
            match slot.load(Ordering::Relaxed) {
                UNANSWERED => {
                    let age = end.saturating_duration_since(self.intended(index));
                    recorded.histogram.saturating_record(age.as_nanos() as u64);
                    recorded.errors += 1;
                }
                latency => {
                    recorded.histogram.saturating_record(latency);
                    recorded.received += 1;
                }
            }
        }
        recorded
    }
}

/// A histogram of nanoseconds up to an hour with three significant digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are constant and valid")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Latencies;

    #[test]
    fn a_request_without_an_answer_is_an_error_and_counts_with_its_age() {
        let start = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        let latencies = Latencies::new(start, Duration::from_secs(1), 4);
        latencies.answered(3);
        latencies.answered(99);
        assert!(!latencies.complete_from(0) && latencies.complete_from(3));
        let recorded = latencies.recorded(1, start + Duration::from_secs(12));
        assert_eq!((recorded.received, recorded.errors), (1, 2));
        assert_eq!(recorded.histogram.max() / 100_000_000, 110, "the oldest waited from second 1 to second 12");
    }
}
