//! How long things take in the control plane.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use opentelemetry::trace::SpanContext;

use super::exposition::{Distribution, Exemplar};
use crate::clock;

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
    /// The latest of each classic bucket whose trace is kept; empty until there is one.
    exemplars: Vec<Option<Exemplar>>,
}

impl Durations {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Counts one.
    pub(crate) fn record(&self, duration: Duration) {
        self.record_of(duration, None);
    }

    /// Counts one that took as long as this span, which is an example of it if its trace is kept.
    pub(crate) fn record_of(&self, duration: Duration, span: Option<&SpanContext>) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded = recorded.get_or_insert_with(|| {
            let micros = Histogram::new(DIGITS).expect("so many digits are allowed");
            Recorded { micros, sum: Duration::ZERO, exemplars: Vec::new() }
        });
        let duration = duration.min(LONGEST);
        let micros = duration.as_micros() as u64;
        recorded.micros.record(micros).expect("it grows as far as is needed");
        recorded.sum = recorded.sum.saturating_add(duration);
        if let Some(span) = span.filter(|span| span.is_sampled()) {
            // As precise as the count, so that both are in the same bucket.
            let seconds = recorded.micros.lowest_equivalent(micros) as f64 / 1e6;
            let bucket = bounds().position(|bound| seconds <= bound).unwrap_or(BUCKETS as usize);
            recorded.exemplars.resize(BUCKETS as usize + 1, None);
            let (trace_id, span_id) = (span.trace_id(), span.span_id());
            recorded.exemplars[bucket] = Some(Exemplar { trace_id, span_id, seconds, at: clock::now() });
        }
    }

    /// All of them, if there are any.
    pub(crate) fn distribution(&self) -> Option<Distribution> {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Recorded { micros, sum, exemplars } = recorded.as_ref()?;
        let point = |value: u64, count: u64| (micros.lowest_equivalent(value) as f64 / 1e6, count);
        Some(Distribution {
            points: micros
                .iter_recorded()
                .map(|step| point(step.value_iterated_to(), step.count_since_last_iteration()))
                .collect(),
            sum_s: sum.as_secs_f64(),
            bounds: bounds().collect(),
            exemplars: exemplars.clone(),
        })
    }
}

fn bounds() -> impl Iterator<Item = f64> {
    (0..BUCKETS).map(|power| FIRST_BOUND_S * f64::from(1_u32 << power))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

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

    #[test]
    fn the_latest_kept_trace_of_each_bucket_is_an_example_of_it() {
        let durations = Durations::new();
        let span = |id: u128, sampled: bool| {
            let flags = TraceFlags::NOT_SAMPLED.with_sampled(sampled);
            SpanContext::new(id.into(), SpanId::from(9), flags, false, TraceState::NONE)
        };
        durations.record_of(Duration::from_millis(1), Some(&span(1, false)));
        durations.record(Duration::from_millis(1));
        assert!(durations.distribution().unwrap().exemplars.is_empty());
        // 64.1 ms counts as 64 ms, which is a bound.
        for (id, micros) in [(2, 900), (3, 1000), (4, 64_100), (5, 60_000_000)] {
            durations.record_of(Duration::from_micros(micros), Some(&span(id, true)));
        }
        durations.record_of(Duration::from_millis(1), Some(&span(6, false)));
        let exemplars = durations.distribution().unwrap().exemplars;
        let found: Vec<_> = exemplars
            .iter()
            .enumerate()
            .filter_map(|(bucket, one)| Some((bucket, one.as_ref()?)))
            .map(|(bucket, one)| (bucket, one.trace_id, one.seconds))
            .collect();
        // The bounds are 0.25, 0.5, 1 ms and so on; 17 is the bucket without one.
        assert_eq!(exemplars.len(), 18);
        let places: Vec<_> = found.iter().map(|(bucket, id, _)| (*bucket, *id)).collect();
        assert_eq!(places, [(2, TraceId::from(3)), (8, TraceId::from(4)), (17, TraceId::from(5))]);
        assert!(found[1].2 <= 0.064 && found[2].2 > 16.384);
    }
}
