//! How long things take in the control plane.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::exposition::Distribution;

/// Upper bounds of the classic buckets: 0.25 ms doubled up to 16 s.
const BUCKETS: u32 = 17;
const FIRST_BOUND_S: f64 = 0.00025;
/// Durations are kept to so many digits, from a microsecond on.
const DIGITS: u8 = 2;

/// What takes longer counts as this.
const LONGEST: Duration = Duration::from_hours(24);

/// Durations of one kind. Takes memory with the first.
#[derive(Debug, Default)]
pub(crate) struct Durations(Mutex<Option<Recorded>>);

#[derive(Debug)]
struct Recorded {
    micros: Histogram<u64>,
    sum: Duration,
}

impl Durations {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Counts one.
    pub(crate) fn record(&self, duration: Duration) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = recorded.get_or_insert_with(|| {
            let micros = Histogram::new(DIGITS).expect("so many digits are allowed");
            Recorded { micros, sum: Duration::ZERO }
        });
        let duration = duration.min(LONGEST);
        recorded.micros.record(duration.as_micros() as u64).expect("it grows as far as is needed");
        recorded.sum = recorded.sum.saturating_add(duration);
    }

    /// All of them, if there are any.
    pub(crate) fn distribution(&self) -> Option<Distribution> {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Recorded { micros, sum } = recorded.as_ref()?;
        let point = |value: u64, count: u64| (micros.lowest_equivalent(value) as f64 / 1e6, count);
        Some(Distribution {
            points: micros
                .iter_recorded()
                .map(|step| point(step.value_iterated_to(), step.count_since_last_iteration()))
                .collect(),
            sum_s: sum.as_secs_f64(),
            bounds: (0..BUCKETS).map(|power| FIRST_BOUND_S * f64::from(1_u32 << power)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_where_they_belong_whatever_they_are() {
        let durations = Durations::new();
        assert_eq!(durations.distribution(), None);
        for (micros, times) in [(0, 1), (250, 2), (251, 3), (100_000, 4), (3_600_000_000, 5)] {
            for _ in 0..times {
                durations.record(Duration::from_micros(micros));
            }
        }
        durations.record(Duration::MAX);
        let all = durations.distribution().unwrap();
        assert_eq!(all.count(), 16);
        let below: Vec<u64> = all.cumulative().map(|(_, below)| below).collect();
        // 0.25, 0.5, ... 64, 128 ms, ... 16 s.
        assert_eq!((below[0], below[1], below[8], below[9], below[16]), (3, 6, 6, 10, 10));
    }
}
