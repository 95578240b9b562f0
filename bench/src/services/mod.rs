//! `services`: how many calls and operations the session and the document service take, and how long they take.

mod args;
mod catalogue;
mod cell;
mod closed;
mod dial;
mod documents;
mod fan_out;
mod floor;
mod floor_documents;
mod pipelined;
mod plan;
mod process;
mod progress;
mod report;
mod scenario;
mod server;
mod sessions;
mod soak;
mod storage;
mod store;
mod stores;
mod streams;
mod summary;
mod targets;
mod watch;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::signal::unix::{SignalKind, signal};

pub use args::ServicesArgs;
use dial::Dialer;
use plan::{Plan, Step};
use progress::Progress;
use report::{Cell, Edit, FanOut, Report};
use scenario::Scenario;
use soak::Soak;
use storage::FileSystem;
use store::Store;
use stores::{Space, Stores};
use summary::Files;

use crate::compare::machine;

/// As shells report SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs `services`.
///
/// # Errors
/// If a service does not start or cannot be reached. A call that fails is a result.
pub fn run(args: &ServicesArgs) -> anyhow::Result<ExitCode> {
    if args.inner.serve_floor {
        return floor::serve().map(|()| ExitCode::SUCCESS);
    }
    if let Some(target) = &args.inner.edit_at {
        return streams::edit_at(args, target).map(|()| ExitCode::SUCCESS);
    }
    args.check()?;
    let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let unusable = || format!("cannot keep data in {}", parent.display());
    std::fs::create_dir_all(&parent).with_context(unusable)?;
    let parent = parent.canonicalize().with_context(unusable)?;
    let folder = tempfile::Builder::new().prefix("aetherflow-bench-services").tempdir_in(&parent);
    let data = folder.with_context(unusable)?;
    let file_system = FileSystem::of(data.path())?;
    if args.stores().into_iter().any(Store::is_durable) && !file_system.is_durable() {
        eprintln!("{} is in memory: nothing is durable there; choose a disk with --data-dir", parent.display());
    }
    let bench = Bench { args, data: data.path(), parent: parent.clone(), file_system };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = match args.run.soak {
        Some(duration) => runtime.block_on(unless_interrupted(bench.soak(duration)))?,
        None => runtime.block_on(unless_interrupted(bench.measure()))?,
    };
    // Connections close in the background; nothing of the result depends on them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(code.unwrap_or_else(|| {
        eprintln!("interrupted");
        ExitCode::from(INTERRUPTED)
    }))
}

/// What `work` comes to; nothing if this process is told to end first, and then everything ends that it has started.
async fn unless_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        biased;
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        _ = hangup.recv() => Ok(None),
        done = work => done.map(Some),
    }
}

/// What all measurements have in common.
struct Bench<'a> {
    args: &'a ServicesArgs,
    /// The folder of the services' data.
    data: &'a Path,
    /// The folder around it, where the stores' servers have theirs.
    parent: PathBuf,
    file_system: FileSystem,
}

/// What was measured so far.
#[derive(Default)]
struct Measured {
    cells: Vec<Cell>,
    fan_out: Vec<FanOut>,
    edits: Vec<Edit>,
    /// Measurements that there are none of.
    broken: usize,
}

impl Bench<'_> {
    /// Measures everything that is asked for, one after the other, and reports it.
    async fn measure(&self) -> anyhow::Result<ExitCode> {
        let args = self.args;
        let is_root = rustix::process::geteuid().is_root();
        let wanted: Vec<Store> = Plan::new(args, &args.stores(), is_root).steps.iter().map(|step| step.store).collect();
        let stores = Stores::start(&args.servers, &wanted, &self.parent, args.run.matrix).await?;
        let there: Vec<Store> = args.stores().into_iter().filter(|store| stores.has(*store)).collect();
        let mut plan = Plan::new(args, &there, is_root);
        plan.notes.extend(stores.skipped.iter().map(|reason| format!("SKIPPED: {reason}")));
        ensure!(!plan.steps.is_empty(), "there is nothing to measure. {}", plan.notes.join("; "));
        let mut files = Files::create(args.run.out.as_deref())?;
        let dialers: Vec<Dialer> = args.transport.iter().copied().map(Dialer::new).collect::<anyhow::Result<_>>()?;
        let mut progress = Progress::new(plan.parts(args), args.json);
        for note in &plan.notes {
            progress.note(note);
        }
        let mut measured = Measured::default();
        for step in std::mem::take(&mut plan.steps) {
            let dialer = dialers.iter().find(|dialer| dialer.transport == step.transport);
            let dialer = dialer.expect("steps are planned of transports that have a dialer");
            let done =
                self.step(&stores, dialer, step, &mut progress, &mut measured).await.with_context(|| step.name());
            match done {
                Ok(added) => added.write(&mut files, &measured)?,
                // The others are worth having all the same.
                Err(error) if args.run.matrix => {
                    let failure = format!("FAILED: {error:#}");
                    progress.done(&failure);
                    measured.broken += 1;
                    plan.notes.push(failure);
                }
                Err(error) => return Err(error),
            }
        }
        progress.end();
        self.report(plan.notes, measured, &files)
    }

    /// One measurement in a space of its own.
    async fn step(
        &self,
        stores: &Stores,
        dialer: &Dialer,
        step: Step,
        progress: &mut Progress,
        measured: &mut Measured,
    ) -> anyhow::Result<Added> {
        let space = stores.open(step.store).await?;
        let done = self.step_in(dialer, (step, &space), progress, measured).await;
        let closed = stores.close(&space).await;
        done.and_then(|added| closed.map(|()| added))
    }

    async fn step_in(
        &self,
        dialer: &Dialer,
        (step, space): (Step, &Space),
        progress: &mut Progress,
        measured: &mut Measured,
    ) -> anyhow::Result<Added> {
        let (args, data) = (self.args, self.data);
        match step.scenario {
            Scenario::FanOut => {
                let parts = streams::fan_out(args, data, dialer, (step, space), progress).await?;
                let added = Added::FanOut(parts.len());
                measured.fan_out.extend(parts);
                Ok(added)
            }
            Scenario::EditToSubscriber => {
                progress.begin(&step.name());
                let edit = streams::edit(args, data, step).await?;
                progress.done(&format!("{}: p99 {:.2} ms", step.name(), edit.round.latency.p99_us / 1e3));
                measured.edits.push(edit);
                Ok(Added::Edit)
            }
            _ => {
                progress.begin(&step.name());
                let cell = cell::measure(args, data, dialer, (step, space)).await?;
                let (per_s, p99_us) = (cell.per_s, cell.latency.p99_us);
                progress.done(&format!("{}: {per_s:.0}/s, p99 {:.2} ms", step.name(), p99_us / 1e3));
                measured.cells.push(cell);
                Ok(Added::Cell)
            }
        }
    }

    fn report(&self, notes: Vec<String>, measured: Measured, files: &Files) -> anyhow::Result<ExitCode> {
        let Measured { cells, fan_out, edits, broken } = measured;
        let failures = cells.iter().map(|cell| &cell.failure);
        let failures = failures.chain(fan_out.iter().map(|part| &part.round.failure));
        let failures = failures.chain(edits.iter().map(|edit| &edit.round.failure));
        let report = Report {
            stores: self.args.stores().into_iter().map(Store::name).collect(),
            data_dir: self.parent.clone(),
            file_system: self.file_system.name(),
            machine: machine::machine(),
            failed: broken + failures.flatten().count(),
            targets: targets::judge(&cells, &fan_out, &edits),
            cells,
            fan_out,
            edits,
            notes,
        };
        files.finish(&report)?;
        if !self.args.json {
            eprint!("{}", report.table());
        }
        println!("{}", serde_json::to_string(&report)?);
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    /// Half of the greatest load for so long, on each store over each transport.
    async fn soak(&self, duration: Duration) -> anyhow::Result<ExitCode> {
        let args = self.args;
        let kept = |asked: Store| asked.of(soak::scenario(args, asked).service());
        let wanted: Vec<Store> = args.stores().into_iter().map(kept).collect();
        let stores = Stores::start(&args.servers, &wanted, &self.parent, false).await?;
        let mut files = Files::create(args.run.out.as_deref())?;
        let mut soaks: Vec<Soak> = Vec::new();
        for transport in args.transport.iter().copied() {
            let dialer = Dialer::new(transport)?;
            for asked in args.stores() {
                let scenario = soak::scenario(args, asked);
                let space = stores.open(kept(asked)).await?;
                let done = soak::measure(args, self.data, &dialer, (scenario, &space), duration).await;
                stores.close(&space).await?;
                let soak = done.with_context(|| format!("{} on {}", scenario.name(), space.store.name()))?;
                files.add("soak", &soak)?;
                if !args.json {
                    eprint!("{}", soak.table());
                }
                soaks.push(soak);
            }
        }
        let failed = soaks.iter().filter(|soak| soak.failure.is_some()).count();
        let (file_system, machine) = (self.file_system.name(), machine::machine());
        let line = serde_json::json!({
            "soaks": soaks, "failed": failed, "file_system": file_system, "machine": machine,
        });
        println!("{line}");
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// What a step added to what was measured.
enum Added {
    Cell,
    FanOut(usize),
    Edit,
}

impl Added {
    /// Writes it, so that it is there whatever comes.
    fn write(&self, files: &mut Files, measured: &Measured) -> anyhow::Result<()> {
        match self {
            Self::Cell => measured.cells.last().map_or(Ok(()), |cell| files.add("cell", cell)),
            Self::Edit => measured.edits.last().map_or(Ok(()), |edit| files.add("edit", edit)),
            Self::FanOut(parts) => {
                let from = measured.fan_out.len() - parts;
                measured.fan_out[from..].iter().try_for_each(|part| files.add("fan_out", part))
            }
        }
    }
}
