//! Histograms of durations, of a fixed size, that one thread adds to and others read without locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of a nanosecond that bounds are whole numbers of.
const UNITS_PER_NS: u64 = 64;
/// Units of the narrowest bucket behind the first: a sixteenth of the first octave, such that 10 ms are the bound of a bucket.
const NARROWEST: u64 = 78_125;
/// Buckets of one octave, and the logarithm of their number.
const PER_OCTAVE: usize = 1 << PER_OCTAVE_LOG;
const PER_OCTAVE_LOG: u32 = 4;
/// Octaves from 19.5 us to 2.56 s.
const OCTAVES: usize = 17;
/// The first bucket is for what is shorter, the last for what is longer.
const BUCKETS: usize = 1 + PER_OCTAVE * OCTAVES + 1;

/// Durations, counted in buckets that are at most a sixteenth wider than their lower bound.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DurationHistogram {
    counts: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

impl std::fmt::Debug for DurationHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let quantiles = [0.5, 0.99].map(|share| self.quantile(share));
        write!(f, "{} durations, p50 and p99 {quantiles:?}", self.count())
    }
}

/// The bucket whose bounds a duration lies between, the upper one included.
fn bucket_of(duration_ns: u64) -> usize {
    let narrow = duration_ns.saturating_mul(UNITS_PER_NS).saturating_sub(1) / NARROWEST;
    let Some(octave) = narrow.checked_ilog2().and_then(|log| log.checked_sub(PER_OCTAVE_LOG)) else { return 0 };
    let within = (narrow >> octave) as usize % PER_OCTAVE;
    (1 + PER_OCTAVE * octave as usize + within).min(BUCKETS - 1)
}

/// The longest duration in a bucket, in whole nanoseconds; of the last one there is none.
fn bound(bucket: usize) -> Option<Duration> {
    let units = match bucket {
        0 => NARROWEST << PER_OCTAVE_LOG,
        _ if bucket < BUCKETS - 1 => {
            let (octave, within) = ((bucket - 1) / PER_OCTAVE, (bucket - 1) % PER_OCTAVE);
            (NARROWEST * (PER_OCTAVE + 1 + within) as u64) << octave
        }
        _ => return None,
    };
    Some(Duration::from_nanos(units / UNITS_PER_NS))
}

impl DurationHistogram {
    /// Buckets of one octave: every so many buckets the bounds double, from the first on.
    pub const BUCKETS_PER_OCTAVE: usize = PER_OCTAVE;

    /// Each bucket's upper bound, none for the last, and how many durations lie in it, from the shortest on.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.counts.iter().enumerate().map(|(bucket, &count)| (bound(bucket), count))
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The duration that this share of them (0 to 1) does not exceed: the upper bound of its bucket, and of the last bucket the
    /// lower one. None if there are no durations.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        bound(bucket).or_else(|| bound(BUCKETS - 2))
    }

    /// These and those of another.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut sum = Self { counts: self.counts, sum_ns: self.sum_ns.wrapping_add(other.sum_ns) };
        for (count, more) in sum.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        sum
    }

    /// What has been counted since an earlier snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = Self { counts: self.counts, sum_ns: self.sum_ns.wrapping_sub(earlier.sum_ns) };
        for (count, less) in rest.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(less);
        }
        rest
    }
}

/// A histogram that one thread adds to and others read.
#[derive(Debug)]
pub(crate) struct HistogramCell {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for HistogramCell {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

impl HistogramCell {
    pub(crate) fn record(&self, duration: Duration) {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(duration_ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(duration_ns, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> DurationHistogram {
        let sum_ns = self.sum_ns.load(Ordering::Relaxed);
        DurationHistogram { counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)), sum_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_belongs_to_its_bucket_and_what_is_longer_to_the_next() {
        for bucket in 0..BUCKETS - 1 {
            let upper = bound(bucket).unwrap();
            let upper_ns = upper.as_nanos() as u64;
            assert_eq!((bucket_of(upper_ns), bucket_of(upper_ns + 1)), (bucket, bucket + 1), "{upper:?}");
            assert!(bucket == 0 || upper <= bound(bucket - 1).unwrap().mul_f64(1.0626), "{upper:?}");
        }
        for exact_us in [312.5, 1_250.0, 10_000.0, 2_560_000.0] {
            let exact = Duration::from_secs_f64(exact_us / 1e6);
            assert!((0..BUCKETS).any(|bucket| bound(bucket) == Some(exact)), "{exact:?} is the bound of a bucket");
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_and_snapshots_can_be_subtracted() {
        let cell = HistogramCell::default();
        for _ in 0..99 {
            cell.record(Duration::from_micros(9_900));
        }
        let earlier = cell.read();
        cell.record(Duration::from_secs(100));
        let later = cell.read();
        assert_eq!(later.quantile(0.99), Some(Duration::from_millis(10)));
        assert_eq!(later.quantile(1.0), Some(Duration::from_millis(2_560)));
        assert_eq!((later.since(&earlier).count(), later.since(&earlier).sum()), (1, Duration::from_secs(100)));
        assert_eq!(earlier.with(&later).count(), 199);
        assert_eq!(DurationHistogram::default().quantile(0.5), None);
    }
}
