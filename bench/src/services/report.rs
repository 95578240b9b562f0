//! What was measured: the JSON, and the table for people.

use std::fmt::Write;
use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{Scenario, Store};
use crate::compare::model::Machine;

/// Operations that are on disk, on one document and on a hundred.
const OPERATIONS_PER_S_MIN: f64 = 20_000.0;
/// Half of what y-websocket's server takes with 1,000 readers and 20 edits/s.
const FAN_OUT_SUBSCRIBERS: usize = 1000;
const FAN_OUT_RATE: f64 = 20.0;
const FAN_OUT_P50_US_MAX: f64 = 3250.0;
const FAN_OUT_P99_US_MAX: f64 = 6000.0;
/// The heads of the tables.
const CELLS_HEAD: &str = "
measurement        transport     conns  flight       /s   p50 ms   p99 ms  99.9 ms  server us/call
";
const FAN_OUT_HEAD: &str = "
fan-out to         transport    stalled  lagged   events   p50 ms   p99 ms  99.9 ms  server us/event
";
/// What streams that are not read may do to the others.
const STALLED_RATIO_MAX: f64 = 1.05;

/// Everything; its JSON form is the last line of standard output.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) store: &'static str,
    /// The folder that the temporary data folders were in.
    pub(super) data_dir: PathBuf,
    /// Its file system.
    pub(super) file_system: String,
    pub(super) machine: Machine,
    pub(super) cells: Vec<Cell>,
    pub(super) fan_out: Vec<FanOut>,
    pub(super) targets: Vec<Target>,
    /// Measurements in which something failed.
    pub(super) failed: usize,
}

/// Calls of one kind over one transport and so many connections.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) scenario: &'static str,
    pub(super) transport: &'static str,
    pub(super) connections: usize,
    /// On each connection.
    pub(super) in_flight: usize,
    /// Calls that were sent in the measured time and answered.
    pub(super) answered: u64,
    /// Calls that failed, those of the warm-up too.
    pub(super) errors: u64,
    pub(super) seconds: f64,
    pub(super) per_s: f64,
    #[serde(flatten)]
    pub(super) latency: Latency,
    /// Processor time of this process in the measured time.
    pub(super) client_cpu_s: f64,
    /// The same of the service's process.
    pub(super) server_cpu_s: Option<f64>,
    pub(super) server_cpu_us_per_call: Option<f64>,
    /// The service's resident memory in the end.
    pub(super) server_resident_bytes: Option<u64>,
    /// What failed first: a call, or the comparison of what was read back with what was acknowledged.
    pub(super) failure: Option<String>,
}

/// Events of one document to many streams.
#[derive(Debug, Serialize)]
pub(super) struct FanOut {
    pub(super) transport: &'static str,
    pub(super) subscribers: usize,
    pub(super) connections: usize,
    /// Subscribers that never read.
    pub(super) stalled: usize,
    /// Operations per second.
    pub(super) rate: f64,
    pub(super) rounds: usize,
    /// Events of operations that should have come to those who read.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// Times that a stream that is read lagged.
    pub(super) lagged: u64,
    pub(super) errors: u64,
    #[serde(flatten)]
    pub(super) latency: Latency,
    /// Processor time of this process, in which all the clients are.
    pub(super) client_cpu_s: f64,
    /// The same of the service's process.
    pub(super) server_cpu_s: Option<f64>,
    pub(super) server_cpu_us_per_event: Option<f64>,
    pub(super) failure: Option<String>,
}

/// Latencies in microseconds.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields, units last")]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        let quantile = |share| histogram.value_at_quantile(share) as f64 / 1e3;
        let max_us = histogram.max() as f64 / 1e3;
        Self { p50_us: quantile(0.5), p99_us: quantile(0.99), p999_us: quantile(0.999), max_us }
    }
}

/// What was to be reached and what was.
#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) wanted: f64,
    /// None: every measurement of it failed.
    pub(super) measured: Option<f64>,
    pub(super) met: bool,
}

impl Target {
    fn at_least(what: String, unit: &'static str, wanted: f64, measured: Option<f64>) -> Self {
        Self { what, unit, wanted, measured, met: measured.is_some_and(|measured| measured >= wanted) }
    }

    fn at_most(what: String, unit: &'static str, wanted: f64, measured: Option<f64>) -> Self {
        Self { what, unit, wanted, measured, met: measured.is_some_and(|measured| measured <= wanted) }
    }
}

/// Judges what was measured; what was not measured has no target.
pub(super) fn targets(store: Store, cells: &[Cell], fan_out: &[FanOut]) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut transports: Vec<&str> = cells.iter().map(|cell| cell.transport).collect();
    transports.extend(fan_out.iter().map(|measured| measured.transport));
    transports.sort_unstable();
    transports.dedup();
    for transport in transports {
        if store == Store::Sqlite {
            targets.extend(operations(cells, transport));
        }
        let of_transport = fan_out.iter().filter(|measured| measured.transport == transport);
        let (without, with): (Vec<&FanOut>, Vec<&FanOut>) = of_transport.partition(|measured| measured.stalled == 0);
        if let Some(without) = without.first() {
            targets.extend(deliveries(without));
            targets.extend(with.first().map(|with| beside_stalled(without, with)));
        }
    }
    targets
}

/// Operations over a transport, with as many connections as are best for them.
fn operations(cells: &[Cell], transport: &str) -> impl Iterator<Item = Target> {
    [Scenario::ApplyOne, Scenario::ApplyHundred].into_iter().filter_map(move |scenario| {
        let mut of_scenario =
            cells.iter().filter(|cell| cell.scenario == scenario.name() && cell.transport == transport).peekable();
        of_scenario.peek()?;
        let best = of_scenario.filter(|cell| cell.failure.is_none()).map(|cell| cell.per_s).reduce(f64::max);
        let what = format!("{} over {transport}, durable", scenario.name());
        Some(Target::at_least(what, "operations/s", OPERATIONS_PER_S_MIN, best))
    })
}

fn deliveries(measured: &FanOut) -> Vec<Target> {
    let is_measured_so =
        measured.subscribers == FAN_OUT_SUBSCRIBERS && (measured.rate - FAN_OUT_RATE).abs() < f64::EPSILON;
    if !is_measured_so {
        return Vec::new();
    }
    let target = |name: &str, wanted, us: f64| {
        let what = format!("fan-out to {} over {}, {name}", measured.subscribers, measured.transport);
        Target::at_most(what, "us", wanted, measured.failure.is_none().then_some(us))
    };
    vec![
        target("p50", FAN_OUT_P50_US_MAX, measured.latency.p50_us),
        target("p99", FAN_OUT_P99_US_MAX, measured.latency.p99_us),
    ]
}

fn beside_stalled(without: &FanOut, with: &FanOut) -> Target {
    let is_sound = without.failure.is_none() && with.failure.is_none();
    let ratio = is_sound.then(|| with.latency.p99_us / without.latency.p99_us);
    let what = format!("fan-out p99 over {} beside {} stalled of {}", with.transport, with.stalled, with.subscribers);
    Target::at_most(what, "times that without", STALLED_RATIO_MAX, ratio)
}

impl Report {
    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("store {}, data in {} ({})\n", self.store, self.data_dir.display(), self.file_system);
        if !self.cells.is_empty() {
            text += CELLS_HEAD;
        }
        for cell in &self.cells {
            let _ = writeln!(
                text,
                "{:<18} {:<12} {:>6} {:>7} {:>8.0} {} {:>15}{}",
                cell.scenario,
                cell.transport,
                cell.connections,
                cell.in_flight,
                cell.per_s,
                cell.latency.in_ms(),
                micros(cell.server_cpu_us_per_call),
                failed(cell.failure.as_deref())
            );
        }
        if !self.fan_out.is_empty() {
            text += FAN_OUT_HEAD;
        }
        for measured in &self.fan_out {
            let _ = writeln!(
                text,
                "{:<18} {:<12} {:>7} {:>7} {:>8} {} {:>16}{}",
                measured.subscribers,
                measured.transport,
                measured.stalled,
                measured.lagged,
                measured.delivered,
                measured.latency.in_ms(),
                micros(measured.server_cpu_us_per_event),
                failed(measured.failure.as_deref())
            );
        }
        if !self.targets.is_empty() {
            text.push('\n');
        }
        for target in &self.targets {
            let verdict = if target.met { "met" } else { "MISSED" };
            let measured = target.measured.map_or_else(|| "not measured".to_owned(), number);
            let (what, unit) = (&target.what, target.unit);
            let _ = writeln!(text, "{verdict:<6} {what}: {measured} {unit}, target {}", number(target.wanted));
        }
        text
    }
}

impl Latency {
    fn in_ms(&self) -> String {
        let ms = [self.p50_us, self.p99_us, self.p999_us].map(|us| format!("{:>8.2}", us / 1e3));
        ms.join(" ")
    }
}

fn micros(us: Option<f64>) -> String {
    us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"))
}

fn failed(failure: Option<&str>) -> String {
    failure.map_or_else(String::new, |failure| format!("  FAILED: {failure}"))
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::{Cell, FanOut, Latency, targets};
    use crate::services::args::Store;

    fn latency(p99_us: f64) -> Latency {
        Latency { p50_us: p99_us / 2.0, p99_us, p999_us: p99_us, max_us: p99_us }
    }

    fn cell(scenario: &'static str, per_s: f64, failure: Option<&str>) -> Cell {
        Cell {
            scenario,
            transport: "tcp-grpc",
            connections: 1,
            in_flight: 1,
            answered: 1,
            errors: 0,
            seconds: 1.0,
            per_s,
            latency: latency(1.0),
            client_cpu_s: 0.0,
            server_cpu_s: None,
            server_cpu_us_per_call: None,
            server_resident_bytes: None,
            failure: failure.map(str::to_owned),
        }
    }

    fn fan_out(stalled: usize, p99_us: f64) -> FanOut {
        FanOut {
            transport: "tcp-grpc",
            subscribers: 1000,
            connections: 10,
            stalled,
            rate: 20.0,
            rounds: 1,
            expected: 1,
            delivered: 1,
            lagged: 0,
            errors: 0,
            latency: latency(p99_us),
            client_cpu_s: 0.0,
            server_cpu_s: None,
            server_cpu_us_per_event: None,
            failure: None,
        }
    }

    fn judged(store: Store, cells: &[Cell], fan_out: &[FanOut]) -> Vec<(bool, bool)> {
        targets(store, cells, fan_out).iter().map(|target| (target.measured.is_some(), target.met)).collect()
    }

    #[test]
    fn the_best_sound_measurement_of_operations_counts_and_only_if_they_are_durable() {
        let cells =
            [cell("apply-1", 19_000.0, None), cell("apply-1", 21_000.0, None), cell("apply-100", 30_000.0, Some("a"))];
        assert_eq!(judged(Store::Sqlite, &cells, &[]), [(true, true), (false, false)]);
        assert_eq!(judged(Store::Sqlite, &cells[..1], &[]), [(true, false)]);
        assert!(judged(Store::Memory, &cells, &[]).is_empty());
    }

    #[test]
    fn stalled_streams_may_cost_the_others_a_twentieth() {
        let judged = |with: f64| judged(Store::Memory, &[], &[fan_out(0, 6000.0), fan_out(10, with)]);
        assert_eq!(judged(6200.0), [(true, true), (true, true), (true, true)]);
        assert_eq!(judged(6400.0), [(true, true), (true, true), (true, false)]);
    }
}
