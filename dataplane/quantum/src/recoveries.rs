//! How long what was lost is missing, as histograms of a fixed size that other threads may read.
//!
//! A packet that is lost is recovered in one of two ways, and each is measured where it is seen best:
//!
//! - **Restored**, by the end that receives: from when the lost packet may have been due at the earliest to the moment at which
//!   its frames were there, put together from repair symbols. It may have been due when the last packet before it came, but no
//!   earlier than 5 ms before the first one beyond it: so long a sender gathers packets for a group at most, and a sender that had
//!   nothing to send is no recovery. Mostly it was sent later than that and took less long.
//! - **Resent**, by the end that sends: from the sending of a packet with stream data to the moment at which that data, since
//!   nobody could restore it, is to be sent again. By so much more than the path's delay it comes late. What is lost twice
//!   counts twice. Losses that turn out to be late packets count too.
//!
//! Both ends of a connection together so hold each lost packet that mattered once. Datagrams are never sent again; those that
//! are restored count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds of the narrowest bucket behind the first: a quarter of the first octave, such that 10 ms are the bound of a bucket.
const QUARTER_NS: u64 = 78_125;
/// Octaves, each of four buckets: from 312.5 us to 2.56 s.
const OCTAVES: usize = 13;
/// The first bucket is for what is shorter, the last for what is longer.
const BUCKETS: usize = 1 + 4 * OCTAVES + 1;

/// Durations, counted in buckets that are at most a quarter wider than their lower bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationHistogram {
    counts: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for DurationHistogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

/// The bucket whose bounds a duration lies between, the upper one included.
fn bucket_of(duration_ns: u64) -> usize {
    let quarters = duration_ns.saturating_sub(1) / QUARTER_NS;
    let Some(octave) = quarters.checked_ilog2().and_then(|log| log.checked_sub(2)) else { return 0 };
    (1 + 4 * octave as usize + (quarters >> octave & 3) as usize).min(BUCKETS - 1)
}

/// The longest duration in a bucket; of the last one there is none.
fn bound(bucket: usize) -> Option<Duration> {
    let (octave, quarter) = (bucket.wrapping_sub(1) / 4, bucket.wrapping_sub(1) % 4);
    match bucket {
        0 => Some(Duration::from_nanos(4 * QUARTER_NS)),
        _ if bucket < BUCKETS - 1 => Some(Duration::from_nanos((QUARTER_NS * (5 + quarter as u64)) << octave)),
        _ => None,
    }
}

impl DurationHistogram {
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

/// How long what was lost was missing, on all connections of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Packets of peers that forward error correction put together here: from when they may have been due until then.
    pub restored: DurationHistogram,
    /// Packets with stream data that were lost and not restored: from their sending until their data was to be sent again.
    pub resent: DurationHistogram,
}

impl RecoveryStats {
    /// These and those of another endpoint.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self { restored: self.restored.with(&other.restored), resent: self.resent.with(&other.resent) }
    }

    /// What has been counted since an earlier snapshot.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self { restored: self.restored.since(&earlier.restored), resent: self.resent.since(&earlier.resent) }
    }
}

/// A histogram that one thread adds to and others read.
#[derive(Debug)]
struct Cell {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Default for Cell {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

impl Cell {
    fn record(&self, duration: Duration) {
        let duration_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(duration_ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(duration_ns, Ordering::Relaxed);
    }

    fn read(&self) -> DurationHistogram {
        let sum_ns = self.sum_ns.load(Ordering::Relaxed);
        DurationHistogram { counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)), sum_ns }
    }
}

/// What an endpoint's connections add to. Any thread may read it at any time.
#[derive(Debug, Default)]
pub struct Recoveries {
    restored: Cell,
    resent: Cell,
}

impl Recoveries {
    /// What has been counted so far.
    pub fn read(&self) -> RecoveryStats {
        RecoveryStats { restored: self.restored.read(), resent: self.resent.read() }
    }

    /// A packet was missing for so long, and was restored.
    pub(crate) fn on_restored(&self, missing: Duration) {
        self.restored.record(missing);
    }

    /// What a packet carried is to be sent again so long after it was sent.
    pub(crate) fn on_resent(&self, after: Duration) {
        self.resent.record(after);
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, DurationHistogram, Recoveries, bound, bucket_of};
    use std::time::Duration;

    #[test]
    fn each_bound_belongs_to_its_bucket_and_what_is_longer_to_the_next() {
        for bucket in 0..BUCKETS - 1 {
            let upper = bound(bucket).unwrap();
            let upper_ns = upper.as_nanos() as u64;
            assert_eq!((bucket_of(upper_ns), bucket_of(upper_ns + 1)), (bucket, bucket + 1), "{upper:?}");
            assert!(bucket == 0 || upper <= bound(bucket - 1).unwrap().mul_f64(1.25));
        }
        assert!((0..BUCKETS).any(|bucket| bound(bucket) == Some(Duration::from_millis(10))));
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_and_snapshots_can_be_subtracted() {
        let recoveries = Recoveries::default();
        for _ in 0..99 {
            recoveries.on_restored(Duration::from_micros(9_900));
        }
        let earlier = recoveries.read();
        recoveries.on_restored(Duration::from_secs(100));
        recoveries.on_resent(Duration::ZERO);
        let stats = recoveries.read();
        assert_eq!(stats.restored.quantile(0.99), Some(Duration::from_millis(10)));
        assert_eq!(stats.restored.quantile(1.0), Some(Duration::from_millis(2_560)));
        assert_eq!((stats.since(&earlier).restored.count(), stats.since(&earlier).resent.count()), (1, 1));
        assert_eq!(stats.since(&earlier).restored.sum(), Duration::from_secs(100));
        assert_eq!(earlier.with(&stats).restored.count(), 199);
        assert_eq!(DurationHistogram::default().quantile(0.5), None);
    }
}
