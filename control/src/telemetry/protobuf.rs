//! The protobuf format of a scrape: messages of `io.prometheus.client` (`metrics.proto` of Prometheus' `client_model`), each with
//! its length before it. A histogram has its classic buckets and native ones: exponential, eight to each doubling.

use std::collections::BTreeMap;

use prost::Message;

use super::exposition::{Distribution, Exemplar, Family, Kind, Series, Value};
use crate::clock;

/// The content type of such a scrape.
pub(crate) const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Bounds of native buckets are powers of 2^(2^-SCHEMA).
const SCHEMA: i32 = 3;
/// What is shorter is in the zero bucket, which a native histogram has to have.
const ZERO_THRESHOLD_S: f64 = 1e-9;
/// Empty buckets that are cheaper than a new span.
const GAP_MAX: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    /// A `MetricType`: on the wire an enumeration is a number.
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Number>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Number>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// `Gauge`, `Counter` and `Untyped` are alike as far as they are used.
#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<ExemplarMessage>,
}

/// `Exemplar`.
#[derive(Clone, PartialEq, Message)]
struct ExemplarMessage {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<prost_types::Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

/// The families as protobuf. Those without any metric are left out.
pub(crate) fn render(families: &[Family]) -> Vec<u8> {
    let families = families.iter().filter(|family| !family.series.is_empty());
    families.flat_map(|family| message(family).encode_length_delimited_to_vec()).collect()
}

fn message(family: &Family) -> MetricFamily {
    let kind = match family.kind {
        Kind::Counter => 0,
        Kind::Gauge => 1,
        Kind::Untyped => 3,
        Kind::Histogram => 4,
    };
    MetricFamily {
        name: Some(family.name.clone()),
        help: Some(family.help.clone()),
        kind: Some(kind),
        metric: family.series.iter().map(|series| metric(family.kind, series)).collect(),
    }
}

fn metric(kind: Kind, series: &Series) -> Metric {
    let pair = |(name, value): &(String, String)| LabelPair { name: Some(name.clone()), value: Some(value.clone()) };
    let mut metric = Metric { label: series.labels.iter().map(pair).collect(), ..Metric::default() };
    match &series.value {
        Value::Distribution(all) => metric.histogram = Some(histogram(all)),
        Value::Number(value) => {
            let number = Some(Number { value: Some(*value) });
            match kind {
                Kind::Counter => metric.counter = number,
                Kind::Gauge => metric.gauge = number,
                Kind::Histogram | Kind::Untyped => metric.untyped = number,
            }
        }
    }
    metric
}

fn histogram(all: &Distribution) -> Histogram {
    let count = all.count();
    let bucket = |(nth, (bound, below))| Bucket {
        cumulative_count: Some(below),
        upper_bound: Some(bound),
        exemplar: all.exemplar(nth).map(exemplar),
    };
    let mut native: BTreeMap<i32, u64> = BTreeMap::new();
    let mut zero_count = 0;
    for &(seconds, count) in all.points.iter().filter(|point| point.1 > 0) {
        if seconds <= ZERO_THRESHOLD_S {
            zero_count += count;
        } else {
            *native.entry(native_bucket(seconds)).or_default() += count;
        }
    }
    let (mut positive_span, positive_delta) = spans(&native);
    if positive_span.is_empty() {
        // Without any bucket it would be taken for a classic one.
        positive_span.push(BucketSpan { offset: Some(0), length: Some(0) });
    }
    Histogram {
        sample_count: Some(count),
        sample_sum: Some(all.sum_s),
        bucket: all.cumulative().chain([(f64::INFINITY, count)]).enumerate().map(bucket).collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO_THRESHOLD_S),
        zero_count: Some(zero_count),
        positive_span,
        positive_delta,
    }
}

fn exemplar(exemplar: &Exemplar) -> ExemplarMessage {
    let pair = |(name, value): (&str, String)| LabelPair { name: Some(name.to_owned()), value: Some(value) };
    ExemplarMessage {
        label: exemplar.labels().map(pair).into(),
        value: Some(exemplar.seconds),
        timestamp: Some(clock::timestamp(exemplar.at)),
    }
}

/// The bucket that a duration is in: `n` reaches from 2^((n - 1) / 8) to 2^(n / 8), that bound included.
fn native_bucket(seconds: f64) -> i32 {
    (seconds.log2() * f64::from(1 << SCHEMA)).ceil() as i32
}

/// Runs of buckets, each by how many empty ones lie before it and how many it has, and how the count of each bucket differs from
/// that of the one before.
fn spans(buckets: &BTreeMap<i32, u64>) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<BucketSpan>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for (&bucket, &count) in buckets {
        let gap = bucket - next;
        match spans.last_mut() {
            Some(span) if gap <= GAP_MAX => {
                for _ in 0..gap {
                    deltas.push(-before);
                    before = 0;
                }
                span.length = span.length.map(|length| length + gap as u32 + 1);
            }
            _ => spans.push(BucketSpan { offset: Some(gap), length: Some(1) }),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        (before, next) = (count, bucket + 1);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The buckets that spans and deltas stand for.
    fn expand(histogram: &Histogram) -> BTreeMap<i32, u64> {
        let (mut at, mut count, mut deltas) = (0, 0, histogram.positive_delta.iter());
        let mut buckets = BTreeMap::new();
        for span in &histogram.positive_span {
            at += span.offset.unwrap();
            for _ in 0..span.length.unwrap() {
                count += deltas.next().unwrap();
                buckets.insert(at, count as u64);
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        buckets.retain(|_, count| *count > 0);
        buckets
    }

    fn distribution(points: &[(f64, u64)]) -> Distribution {
        let sum_s = points.iter().map(|(seconds, count)| seconds * *count as f64).sum();
        Distribution { points: points.to_vec(), sum_s, bounds: vec![0.001, 0.01], exemplars: Vec::new() }
    }

    #[test]
    fn native_buckets_are_those_of_the_durations_and_the_classic_ones_are_there_too() {
        let all = histogram(&distribution(&[(0.0, 7), (0.0005, 1), (0.001, 4), (0.0011, 2), (1.0, 3), (1.001, 5)]));
        // 2^-10.9 and so on: the logarithm to the base 2^(1/8), rounded up.
        let expected = BTreeMap::from([(-87, 1), (-79, 4), (-78, 2), (0, 3), (1, 5)]);
        assert_eq!(expand(&all), expected);
        assert_eq!((all.zero_count, all.sample_count), (Some(7), Some(22)));
        let classic: Vec<_> = all.bucket.iter().map(|bucket| bucket.cumulative_count.unwrap()).collect();
        assert_eq!(classic, [12, 14, 22]);
    }

    #[test]
    fn small_gaps_stay_in_a_span_and_large_ones_begin_another() {
        let buckets = BTreeMap::from([(-3, 5), (0, 1), (4, 2), (5, 2)]);
        let (spans, deltas) = spans(&buckets);
        let shape: Vec<_> = spans.iter().map(|span| (span.offset.unwrap(), span.length.unwrap())).collect();
        assert_eq!(shape, [(-3, 4), (3, 2)]);
        assert_eq!(deltas, [5, -5, 0, 1, 1, 0]);
    }

    #[test]
    fn each_family_is_a_message_of_its_own_with_its_length() {
        let families = [
            Family::number("open", "Those open", Kind::Gauge, 2.5),
            Family::new("none", "", Kind::Counter),
            Family::new("took_seconds", "How long", Kind::Histogram)
                .with(&[("by", "x")], Value::Distribution(distribution(&[]))),
        ];
        let bytes = render(&families);
        let mut rest = &bytes[..];
        let first = MetricFamily::decode_length_delimited(&mut rest).unwrap();
        let second = MetricFamily::decode_length_delimited(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!((first.name.as_deref(), first.metric[0].gauge.as_ref().unwrap().value), (Some("open"), Some(2.5)));
        let histogram = second.metric[0].histogram.as_ref().unwrap();
        assert_eq!((second.kind, histogram.schema), (Some(4), Some(3)));
        assert_eq!(histogram.positive_span.len(), 1, "an empty native histogram is one all the same");
        assert_eq!(second.metric[0].label[0].name.as_deref(), Some("by"));
    }

    #[test]
    fn an_example_stands_in_its_bucket() {
        let (trace_id, span_id) = (10_u128.into(), 11_u64.into());
        let one = Exemplar { trace_id, span_id, seconds: 0.002, at: clock::UnixMicros(1_500_000) };
        let exemplars = vec![None, Some(one), None];
        let all = histogram(&Distribution { exemplars, ..distribution(&[(0.002, 1)]) });
        let found: Vec<_> = all.bucket.iter().map(|bucket| bucket.exemplar.clone()).collect();
        let expected = found[1].as_ref().unwrap();
        assert!(found[0].is_none() && found[2].is_none());
        assert_eq!(expected.label[0].value, Some(format!("{:032x}", 10)));
        assert_eq!(expected.label[1].value, Some(format!("{:016x}", 11)));
        assert_eq!((expected.value, expected.timestamp.unwrap().nanos), (Some(0.002), 500_000_000));
    }
}
