//! What happens to every call while something is down, told of now and then.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines of the log.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one in a second through and counts the others.
#[derive(Debug)]
pub(crate) struct Seldom {
    /// Milliseconds after the first use of any.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Seldom {
    /// Lets the first one through.
    pub(crate) const fn new() -> Self {
        Self { next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether this one is to be told of: then how many were left out since the last that was.
    pub(crate) fn admit(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.admit_at(START.elapsed())
    }

    fn admit_at(&self, now: Duration) -> Option<u64> {
        let now = now.as_millis() as u64;
        let next = self.next.load(Ordering::Relaxed);
        let then = now + INTERVAL.as_millis() as u64;
        // Of many at once one is the first.
        if now < next || self.next.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Seldom;

    #[test]
    fn one_in_a_second_comes_with_the_number_of_those_left_out() {
        let seldom = Seldom::new();
        let at = |ms: u64| seldom.admit_at(Duration::from_millis(ms));
        assert_eq!(
            [at(0), at(0), at(999), at(1000), at(1500), at(5000)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
