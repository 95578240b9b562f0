//! The results as files: a line of JSON for each measurement as soon as it is made, and a summary in Markdown in the end.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::report::{Cell, Delivery, Report};
use crate::compare::report::escape;

const LINES: &str = "results.jsonl";
const SUMMARY: &str = "summary.md";
/// What others take, measured by their own harness on another day of the same kind of machine: for comparison, not judged.
const PEERS: &str = "
What others take (1 writer at 20 edits/s; p50, p99 in ms):

| | y-websocket server | Hocuspocus 4.7 |
|---|---|---|
| 100 readers of one document | 1.7, 3.9 | 1.9, 4.6 |
| 1,000 readers | 6.5, 12.0 | 7.8, 16.4 |

The targets at 1,000 readers are half of the better one; p50 and p99 beside stalled readers at most 1.05 times those without.
";

/// The folder of a run's results, if one was asked for.
pub(super) struct Files {
    dir: Option<PathBuf>,
    lines: Option<File>,
}

impl Files {
    /// In `dir`, which is made; results that it holds are kept and added to.
    ///
    /// # Errors
    /// If it cannot be written to.
    pub(super) fn create(dir: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = dir else { return Ok(Self { dir: None, lines: None }) };
        let unusable = || format!("cannot write results to {}", dir.display());
        std::fs::create_dir_all(dir).with_context(unusable)?;
        let lines = File::options().create(true).append(true).open(dir.join(LINES)).with_context(unusable)?;
        Ok(Self { dir: Some(dir.to_owned()), lines: Some(lines) })
    }

    /// Adds a measurement.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn add(&mut self, kind: &str, measured: &impl Serialize) -> anyhow::Result<()> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let mut line = serde_json::to_value(measured)?;
        line["kind"] = kind.into();
        writeln!(lines, "{line}").with_context(|| format!("cannot write {LINES}"))
    }

    /// Writes the summary.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(&self, report: &Report) -> anyhow::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join(SUMMARY);
        std::fs::write(&path, markdown(report)).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("summary: {}", path.display());
        Ok(())
    }
}

/// The summary.
fn markdown(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "# Services\n\n{}, {} cores, {}. Stores: {}; data on {}. Client and service share the processors.\n",
        escape(&machine.processor),
        machine.cores,
        escape(&machine.kernel),
        report.stores.join(", "),
        report.file_system
    );
    for note in &report.notes {
        let _ = write!(text, "\n- {note}");
    }
    targets(&mut text, report);
    if !report.cells.is_empty() {
        text += "\n## Calls\n\nLatencies in ms; processor time in seconds for a million calls.\n\n\
                 | call | store | transport | connections | in flight | per s | p50 | p99 | p99.9 | service | store's server |\n\
                 |---|---|---|---|---|---|---|---|---|---|---|\n";
    }
    for cell in &report.cells {
        row(&mut text, cell);
    }
    if !report.fan_out.is_empty() {
        text += "\n## Fan-out\n\n| readers | store | transport | stalled | p50 | p99 | p99.9 | service CPU s per million events |\n\
                 |---|---|---|---|---|---|---|---|\n";
    }
    for part in &report.fan_out {
        let (latency, cost) = (delivered(&part.round), seconds(part.server_cpu_s_per_million));
        let (readers, store, transport, stalled) = (part.subscribers, part.store, part.transport, part.stalled);
        let _ = writeln!(text, "| {readers} | {store} | {transport} | {stalled} | {latency} | {cost} |");
    }
    if !report.fan_out.is_empty() {
        text += PEERS;
    }
    if !report.edits.is_empty() {
        text += "\n## Edit to another subscriber\n\n| round trip | loss | store | transport | p50 | p99 | p99.9 |\n\
                 |---|---|---|---|---|---|---|\n";
    }
    for edit in &report.edits {
        let (rtt_ms, loss, store, transport) = (edit.rtt_ms, edit.loss_percent, edit.store, edit.transport);
        let _ = writeln!(text, "| {rtt_ms} ms | {loss} % | {store} | {transport} | {} |", delivered(&edit.round));
    }
    text
}

fn targets(text: &mut String, report: &Report) {
    if report.targets.is_empty() {
        return;
    }
    let met = report.targets.iter().filter(|target| target.met).count();
    let _ = write!(
        text,
        "\n\n## Targets\n\n{met} of {} are met. The latencies of Redis and PostgreSQL are the seed's tables of store operations, judged by \
         the calls that make them.\n\n| target | wanted | measured | |\n|---|---|---|---|\n",
        report.targets.len()
    );
    for target in &report.targets {
        let verdict = if target.met { "met" } else { "**missed**" };
        let (unit, goal, told) = (target.unit, target.goal(), target.told());
        let _ = writeln!(text, "| {} | {goal} {unit} | {told} | {verdict} |", target.what);
    }
}

fn row(text: &mut String, cell: &Cell) {
    let latency = [cell.latency.p50_us, cell.latency.p99_us, cell.latency.p999_us].map(ms).join(" | ");
    let (service, server) = (seconds(cell.cost.server_cpu_s_per_million), seconds(cell.cost.store_cpu_s_per_million));
    let failure = cell.failure.as_deref().map(|failure| format!(" FAILED: {failure}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "| {}{failure} | {} | {} | {} | {} | {:.0} | {latency} | {service} | {server} |",
        cell.scenario, cell.store, cell.transport, cell.connections, cell.in_flight, cell.per_s
    );
}

fn delivered(delivery: &Delivery) -> String {
    match &delivery.failure {
        Some(failure) => format!("FAILED: {failure} | | "),
        None => [delivery.latency.p50_us, delivery.latency.p99_us, delivery.latency.p999_us].map(ms).join(" | "),
    }
}

fn ms(us: f64) -> String {
    format!("{:.2}", us / 1e3)
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
}
