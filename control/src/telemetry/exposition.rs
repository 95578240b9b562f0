//! Metrics as a scrape gets them: text (Prometheus text format 0.0.4) with classic histograms; text of `OpenMetrics` 1.0.0, which
//! has examples of durations as well (the traces that took so long); or protobuf (`io.prometheus.client`, `protobuf.rs`), which has
//! native histograms too.

use std::fmt::Write;

use opentelemetry::trace::{SpanId, TraceId};

use crate::clock::UnixMicros;

/// Metrics of one name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) series: Vec<Series>,
}

/// What metrics of a name are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Untyped,
}

/// One of them, with its labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    Distribution(Distribution),
}

/// Durations, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distribution {
    /// Durations and how many there are of each, from the shortest on.
    pub(crate) points: Vec<(f64, u64)>,
    pub(crate) sum_s: f64,
    /// Upper bounds of the classic buckets, without the infinite one.
    pub(crate) bounds: Vec<f64>,
    /// One of each classic bucket, the infinite one included, that a trace tells more about; empty if there are none.
    pub(crate) exemplars: Vec<Option<Exemplar>>,
}

/// A span that took so long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exemplar {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    pub(crate) seconds: f64,
    pub(crate) at: UnixMicros,
}

impl Exemplar {
    /// Names and values.
    pub(crate) fn labels(&self) -> [(&'static str, String); 2] {
        [("trace_id", self.trace_id.to_string()), ("span_id", self.span_id.to_string())]
    }
}

impl Distribution {
    /// That of a classic bucket.
    pub(crate) fn exemplar(&self, bucket: usize) -> Option<&Exemplar> {
        self.exemplars.get(bucket)?.as_ref()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.points.iter().map(|point| point.1).sum()
    }

    /// Each classic bucket's upper bound, and how many are no longer.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let (mut points, mut below) = (self.points.iter().peekable(), 0);
        self.bounds.iter().map(move |&bound| {
            while let Some((_, count)) = points.next_if(|(seconds, _)| *seconds <= bound) {
                below += count;
            }
            (bound, below)
        })
    }
}

impl Family {
    pub(crate) fn new(name: &str, help: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), help: help.to_owned(), kind, series: Vec::new() }
    }

    /// With one more metric.
    #[must_use]
    pub(crate) fn with(mut self, labels: &[(&str, &str)], value: Value) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.series.push(Series { labels, value });
        self
    }

    /// A metric without labels.
    pub(crate) fn number(name: &str, help: &str, kind: Kind, value: f64) -> Self {
        Self::new(name, help, kind).with(&[], Value::Number(value))
    }
}

/// What a text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Prometheus 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

/// The text of families. Those without any metric are left out.
pub(crate) fn render(families: &[Family], syntax: Syntax) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.series.is_empty()) {
        render_family(family, syntax, &mut text).expect("a string takes everything");
    }
    if syntax == Syntax::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn render_family(family: &Family, syntax: Syntax, text: &mut String) -> std::fmt::Result {
    let name = &family.name;
    let mut help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
    let (described, kind) = match syntax {
        Syntax::Prometheus => (name.as_str(), kind_name(family.kind)),
        Syntax::OpenMetrics => {
            help = help.replace('"', "\\\"");
            open_metrics_name(family)
        }
    };
    writeln!(text, "# HELP {described} {help}")?;
    writeln!(text, "# TYPE {described} {kind}")?;
    for series in &family.series {
        match &series.value {
            Value::Number(value) => writeln!(text, "{name}{} {value}", labels(&series.labels, None))?,
            Value::Distribution(all) => {
                let (plain, count) = (labels(&series.labels, None), all.count());
                let bounded = all.cumulative().map(|(bound, below)| (bound.to_string(), below));
                for (nth, (bound, below)) in bounded.chain([("+Inf".to_owned(), count)]).enumerate() {
                    write!(text, "{name}_bucket{} {below}", labels(&series.labels, Some(&bound)))?;
                    if let Some(exemplar) = all.exemplar(nth).filter(|_| syntax == Syntax::OpenMetrics) {
                        let pairs = exemplar.labels().map(|(name, value)| (name.to_owned(), value));
                        let at_s = exemplar.at.0 as f64 / 1e6;
                        write!(text, " # {} {} {at_s:.3}", labels(&pairs, None), exemplar.seconds)?;
                    }
                    text.push('\n');
                }
                writeln!(text, "{name}_sum{plain} {}", all.sum_s)?;
                writeln!(text, "{name}_count{plain} {count}")?;
            }
        }
    }
    Ok(())
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Untyped => "untyped",
    }
}

/// `OpenMetrics` describes a counter without the `_total` that its samples end in, and knows none that do not.
fn open_metrics_name(family: &Family) -> (&str, &'static str) {
    match (family.kind, family.name.strip_suffix("_total")) {
        (Kind::Counter, Some(stem)) => (stem, "counter"),
        (Kind::Counter, None) | (Kind::Untyped, _) => (&family.name, "unknown"),
        (kind, _) => (&family.name, kind_name(kind)),
    }
}

fn labels(labels: &[(String, String)], bound: Option<&str>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let named = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    let all: Vec<String> = named.chain(bound.map(|bound| format!("le=\"{bound}\""))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

/// The families of a text in which there are no histograms: what the recorder of counters and gauges renders.
pub(crate) fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            family_of(&mut families, name).help = help.replace("\\n", "\n").replace("\\\\", "\\");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            family_of(&mut families, name).kind = match kind {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                _ => Kind::Untyped,
            };
        } else if let Some((name, series)) = parse_sample(line) {
            family_of(&mut families, name).series.push(series);
        }
    }
    families
}

/// The family of that name, which is the last one, or a new one.
fn family_of<'f>(families: &'f mut Vec<Family>, name: &str) -> &'f mut Family {
    if families.last().is_none_or(|last| last.name != name) {
        families.push(Family::new(name, "", Kind::Untyped));
    }
    families.last_mut().expect("there is one now")
}

/// Name, labels and value of a line; nothing of an empty one.
fn parse_sample(line: &str) -> Option<(&str, Series)> {
    let name = &line[..line.find(['{', ' '])?];
    let mut rest = line[name.len()..].trim_start();
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.push((label.trim_start_matches(',').to_owned(), value));
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, Series { labels, value: Value::Number(value) }))
}

/// What stands before the closing quote, and what follows that.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_parsed_again_whatever_labels_hold() {
        let families = [
            Family::new("calls_total", "Calls, by \"code\" \\ or not", Kind::Counter)
                .with(&[("code", "0"), ("path", "a \"b\"\\c\nd{}, e=1")], Value::Number(3.0))
                .with(&[], Value::Number(1e18)),
            Family::number("open", "Those open", Kind::Gauge, -0.5),
        ];
        let text = render(&families, Syntax::Prometheus);
        assert_eq!(parse(&text), families, "{text}");
        assert_eq!(render(&parse(&text), Syntax::Prometheus), text);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_all() {
        let points = vec![(0.001, 2), (0.002, 3), (5.0, 1)];
        let one = |id: u64, seconds| {
            let (trace_id, span_id) = (u128::from(id).into(), id.into());
            Some(Exemplar { trace_id, span_id, seconds, at: UnixMicros(1_500_000_250_000) })
        };
        let exemplars = vec![None, None, one(17, 0.002), None, one(18, 5.0)];
        let all = Distribution { points, sum_s: 5.008, bounds: vec![0.0005, 0.001, 0.01, 1.0], exemplars };
        let family =
            Family::new("took_seconds", "How \"long\"", Kind::Histogram).with(&[("by", "x")], Value::Distribution(all));
        let expected = "# HELP took_seconds How \"long\"\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{by=\"x\",le=\"0.0005\"} 0\n\
            took_seconds_bucket{by=\"x\",le=\"0.001\"} 2\n\
            took_seconds_bucket{by=\"x\",le=\"0.01\"} 5\n\
            took_seconds_bucket{by=\"x\",le=\"1\"} 5\n\
            took_seconds_bucket{by=\"x\",le=\"+Inf\"} 6\n\
            took_seconds_sum{by=\"x\"} 5.008\n\
            took_seconds_count{by=\"x\"} 6\n";
        assert_eq!(render(std::slice::from_ref(&family), Syntax::Prometheus), expected);
        let exemplar =
            |id: u64, seconds| format!(" # {{trace_id=\"{id:032x}\",span_id=\"{id:016x}\"}} {seconds} 1500000.250\n");
        let open = expected
            .replace("How \"long\"", "How \\\"long\\\"")
            .replace("le=\"0.01\"} 5\n", &format!("le=\"0.01\"}} 5{}", exemplar(17, "0.002")))
            .replace("le=\"+Inf\"} 6\n", &format!("le=\"+Inf\"}} 6{}", exemplar(18, "5")));
        assert_eq!(render(&[family], Syntax::OpenMetrics), open + "# EOF\n");
    }

    #[test]
    fn open_metrics_describes_counters_without_their_suffix() {
        let families = [
            Family::number("calls_total", "Calls", Kind::Counter, 3.0),
            Family::number("odd", "No total", Kind::Counter, 4.0),
            Family::number("open", "Those open", Kind::Gauge, 1.0),
            Family::number("what", "Nobody knows", Kind::Untyped, 2.0),
        ];
        let expected = "# HELP calls Calls\n# TYPE calls counter\ncalls_total 3\n\
            # HELP odd No total\n# TYPE odd unknown\nodd 4\n\
            # HELP open Those open\n# TYPE open gauge\nopen 1\n\
            # HELP what Nobody knows\n# TYPE what unknown\nwhat 2\n# EOF\n";
        assert_eq!(render(&families, Syntax::OpenMetrics), expected);
    }

    #[test]
    fn nonsense_is_passed_over() {
        for line in ["", "#", "name", "name{", "name{a}", "name{a=\"b} 1", "name{a=\"b\"} x", "# TYPE", "{} 1 2"] {
            let parsed = parse(line);
            assert!(parsed.iter().all(|family| family.series.len() <= 1), "{line:?} gives {parsed:?}");
        }
    }
}
