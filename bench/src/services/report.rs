//! What was measured: the JSON, and the table for people.

use std::fmt::Write;
use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::fan_out::Round;
use super::targets::Target;
use super::watch::Spent;
use crate::compare::model::Machine;

/// The heads of the tables.
const CELLS_HEAD: &str = "
measurement        store       transport     conns  flight       /s   p50 ms   p99 ms  99.9 ms  service  store (CPU s per million)
";
const FAN_OUT_HEAD: &str = "
fan-out to         store       transport    stalled  lagged   events   p50 ms   p99 ms  99.9 ms  service (CPU s per million events)
";

/// Everything; its JSON form is the last line of standard output.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) stores: Vec<&'static str>,
    /// The folder that the temporary data folders were in.
    pub(super) data_dir: PathBuf,
    /// Its file system.
    pub(super) file_system: String,
    pub(super) machine: Machine,
    pub(super) cells: Vec<Cell>,
    pub(super) fan_out: Vec<FanOut>,
    pub(super) edits: Vec<Edit>,
    pub(super) targets: Vec<Target>,
    /// What was not measured, or not as it was asked for.
    pub(super) notes: Vec<String>,
    /// Measurements in which something failed.
    pub(super) failed: usize,
}

/// Calls of one kind over one transport and so many connections.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub(super) scenario: &'static str,
    /// What kept the data.
    pub(super) store: &'static str,
    pub(super) transport: &'static str,
    pub(super) connections: usize,
    /// On each connection.
    pub(super) in_flight: usize,
    /// Calls that were due in a second; none: a closed loop.
    pub(super) rate: Option<f64>,
    /// Calls that were sent in the measured time and answered.
    pub(super) answered: u64,
    /// Calls that failed, those of the warm-up too.
    pub(super) errors: u64,
    pub(super) seconds: f64,
    pub(super) per_s: f64,
    #[serde(flatten)]
    pub(super) latency: Latency,
    #[serde(flatten)]
    pub(super) cost: Cost,
    /// What failed first: a call, or the comparison of what was read back with what was acknowledged.
    pub(super) failure: Option<String>,
}

/// Processor time in the measured time, and memory in the end.
#[derive(Debug, Default, Serialize)]
pub(super) struct Cost {
    /// Of this process, in which all the clients are.
    pub(super) client_cpu_s: f64,
    /// Of the service's process.
    pub(super) server_cpu_s: Option<f64>,
    pub(super) server_cpu_s_per_million: Option<f64>,
    /// Of the processes of the store's server, if this program started it.
    pub(super) store_cpu_s: Option<f64>,
    pub(super) store_cpu_s_per_million: Option<f64>,
    /// The service's resident memory.
    pub(super) server_resident_bytes: Option<u64>,
}

impl Cost {
    /// Of so many calls.
    pub(super) fn new(spent: &Spent, calls: u64) -> Self {
        Self {
            client_cpu_s: spent.meter.cpu_s,
            server_cpu_s: spent.meter.server_cpu_s,
            server_cpu_s_per_million: per_million(spent.meter.server_cpu_s, calls),
            store_cpu_s: spent.store_cpu_s,
            store_cpu_s_per_million: per_million(spent.store_cpu_s, calls),
            server_resident_bytes: None,
        }
    }
}

/// Events of one document to many streams.
#[derive(Debug, Serialize)]
pub(super) struct FanOut {
    pub(super) store: &'static str,
    pub(super) transport: &'static str,
    pub(super) subscribers: usize,
    pub(super) connections: usize,
    /// Subscribers that never read.
    pub(super) stalled: usize,
    /// Operations per second.
    pub(super) rate: f64,
    pub(super) rounds: usize,
    /// Processor time of this process, in which all the clients are.
    pub(super) client_cpu_s: f64,
    /// The same of the service's process.
    pub(super) server_cpu_s: Option<f64>,
    /// For each million events.
    pub(super) server_cpu_s_per_million: Option<f64>,
    /// The same of the processes of the store's server.
    pub(super) store_cpu_s: Option<f64>,
    #[serde(flatten)]
    pub(super) round: Delivery,
}

/// Edits over a link, and their events over it to others.
#[derive(Debug, Serialize)]
pub(super) struct Edit {
    pub(super) store: &'static str,
    pub(super) transport: &'static str,
    pub(super) rtt_ms: f64,
    /// In each direction.
    pub(super) loss_percent: f64,
    pub(super) subscribers: usize,
    /// Operations per second.
    pub(super) rate: f64,
    #[serde(flatten)]
    pub(super) round: Delivery,
}

/// What became of events.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Delivery {
    /// Events of operations that should have come to those who read.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// Times that a stream that is read lagged.
    pub(super) lagged: u64,
    pub(super) errors: u64,
    #[serde(flatten)]
    pub(super) latency: Latency,
    pub(super) failure: Option<String>,
}

impl From<Round> for Delivery {
    fn from(round: Round) -> Self {
        let missing = round.expected - round.delivered.min(round.expected);
        let missing = (missing > 0).then(|| format!("{missing} events are missing"));
        Self {
            expected: round.expected,
            delivered: round.delivered,
            lagged: round.lagged,
            errors: round.errors,
            latency: Latency::from(&round.latencies),
            failure: round.first_error.or(missing),
        }
    }
}

/// Seconds for a million, of what so many took.
pub(super) fn per_million(seconds: Option<f64>, count: u64) -> Option<f64> {
    seconds.filter(|_| count > 0).map(|seconds| seconds * 1e6 / count as f64)
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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

impl Report {
    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut text = format!("data in {} ({})\n", self.data_dir.display(), self.file_system);
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        if !self.cells.is_empty() {
            text += CELLS_HEAD;
        }
        for cell in &self.cells {
            let _ = writeln!(
                text,
                "{:<18} {:<11} {:<12} {:>6} {:>7} {:>8.0} {} {:>8} {:>6}{}",
                cell.scenario,
                cell.store,
                cell.transport,
                cell.connections,
                cell.in_flight,
                cell.per_s,
                cell.latency.in_ms(),
                seconds(cell.cost.server_cpu_s_per_million),
                seconds(cell.cost.store_cpu_s_per_million),
                failed(cell.failure.as_deref())
            );
        }
        self.streams(&mut text);
        if !self.targets.is_empty() {
            text.push('\n');
        }
        for target in &self.targets {
            let _ = writeln!(text, "{target}");
        }
        text
    }

    fn streams(&self, text: &mut String) {
        if !self.fan_out.is_empty() {
            *text += FAN_OUT_HEAD;
        }
        for measured in &self.fan_out {
            let _ = writeln!(
                text,
                "{:<18} {:<11} {:<12} {:>7} {:>7} {:>8} {} {:>8}{}",
                measured.subscribers,
                measured.store,
                measured.transport,
                measured.stalled,
                measured.round.lagged,
                measured.round.delivered,
                measured.round.latency.in_ms(),
                seconds(measured.server_cpu_s_per_million),
                failed(measured.round.failure.as_deref())
            );
        }
        for edit in &self.edits {
            let _ = writeln!(
                text,
                "\nedit to subscriber over {}, {}, {} ms and {} %: p50, p99, p99.9 ms: {}{}",
                edit.transport,
                edit.store,
                edit.rtt_ms,
                edit.loss_percent,
                edit.round.latency.in_ms(),
                failed(edit.round.failure.as_deref())
            );
        }
    }
}

impl Latency {
    /// The three percentiles.
    pub(super) fn in_ms(&self) -> String {
        let ms = [self.p50_us, self.p99_us, self.p999_us].map(|us| format!("{:>8.2}", us / 1e3));
        ms.join(" ")
    }
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
}

fn failed(failure: Option<&str>) -> String {
    failure.map_or_else(String::new, |failure| format!("  FAILED: {failure}"))
}
