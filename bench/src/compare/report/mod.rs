//! What people read of a comparison: `report.html`, `summary.md` and `chart.svg` from its raw results.
//!
//! A cell that failed or is missing is shown as such, with the reason. Results may come from a file of anybody's making.

mod chart;
mod charts;
mod facts;
mod figure;
mod histogram;
mod merge;
mod page;
mod peer;
mod recoveries;
mod summary;
mod table;
mod tables;
mod targets;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

use self::merge::Campaign;
pub(crate) use self::table::escape;
use super::model::Results;

/// The raw results in a folder.
pub const RESULTS: &str = "results.json";
/// A full campaign takes some megabytes.
const RESULTS_BYTES_MAX: u64 = 64 << 20;
/// A full campaign has some two thousand.
const CELLS_MAX: usize = 20_000;

const EXAMPLES: &str = "Examples:
  aetherflow-bench report results";

/// Arguments of `report`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// The folder with results.json, which gets report.html, summary.md and chart.svg
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the report again from `results.json`.
///
/// # Errors
/// If the results cannot be read, are not what [`Results`] says, or the report cannot be written.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    write(&read(&args.folder)?, &args.folder)?;
    eprintln!("{} is written, with summary.md and chart.svg beside it", args.folder.join("report.html").display());
    Ok(ExitCode::SUCCESS)
}

/// Reads `results.json` of a folder.
///
/// # Errors
/// If there is none, it is too long, or is not what [`Results`] says.
pub fn read(dir: &Path) -> anyhow::Result<Results> {
    let path = dir.join(RESULTS);
    let named = || path.display().to_string();
    let file = File::open(&path).with_context(|| format!("{} cannot be opened", named()))?;
    let mut text = Vec::new();
    file.take(RESULTS_BYTES_MAX + 1).read_to_end(&mut text).with_context(|| format!("{} cannot be read", named()))?;
    ensure!(text.len() as u64 <= RESULTS_BYTES_MAX, "{} is longer than {} MiB", named(), RESULTS_BYTES_MAX >> 20);
    let results: Results =
        serde_json::from_slice(&text).with_context(|| format!("{} does not hold results of a comparison", named()))?;
    ensure!(results.cells.len() <= CELLS_MAX, "{} has more than {CELLS_MAX} cells", named());
    Ok(results)
}

/// Writes `report.html`, `summary.md` and `chart.svg` into a folder.
///
/// # Errors
/// If a file cannot be written.
pub fn write(results: &Results, dir: &Path) -> anyhow::Result<()> {
    let campaign = Campaign::new(results);
    let kinds = targets::evaluate(&campaign);
    let files = [
        ("report.html", page::page(&campaign, &kinds)),
        ("summary.md", summary::markdown(&campaign, &kinds)),
        ("chart.svg", charts::readme(&campaign).file()),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
