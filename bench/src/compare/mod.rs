//! `compare`: Quantum beside its peers on the same paths, in one run.

pub mod args;
mod cell;
pub(crate) mod machine;
pub mod model;
mod paths;
mod peer;
mod plan;
mod progress;
pub mod report;
mod stillness;
mod store;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use args::CompareArgs;
use args::PlanName;
use cell::Bench;
use model::{Cell, Outcome, Results, Standstill};
use plan::{Plan, Task, group_estimate_s};
use progress::{Progress, span};
use stillness::Watch;
use store::{Head, Store};

/// As shells report SIGINT.
const INTERRUPTED: u8 = 130;
/// What a standstill of the machine disturbs is measured again, so often at most in a sitting.
const REPEATS_MAX: u32 = 2;

/// Runs `compare`.
///
/// # Errors
/// If this may not make links, or the results cannot be written. A peer that fails is a result.
pub fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    ensure!(rustix::process::geteuid().is_root(), "compare makes network namespaces and needs root: run it with sudo");
    let mut plan = plan(args)?;
    let (dir, mut store) = open(args, &plan)?;
    let (whole, whole_s) = (plan.clone(), plan.estimate_s());
    store.remaining(&mut plan);
    eprintln!(
        "{} of {} measurements in {} rounds, about {} (of {}); results in {}",
        plan.tasks().count(),
        store.head.tasks.len(),
        plan.rounds,
        span(plan.estimate_s()),
        span(whole_s),
        dir.display()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let interrupted = runtime.block_on(measure(&plan, &whole, &mut store))?.is_none();
    let results = results(&store, plan.rounds);
    write(&results, &dir, interrupted)?;
    if interrupted {
        eprintln!("interrupted: {} goes on", again(args, &dir));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(args: &CompareArgs) -> anyhow::Result<Plan> {
    let mut plan = Plan::new(args.plan_name());
    if args.alone {
        plan = plan.alone();
    }
    if !args.only.is_empty() {
        let has = |name: &str| args.only.iter().any(|text| name.contains(text));
        plan.retain(|task| has(&task.path.name) || has(&task.peer));
        let all = args.only.join(",");
        ensure!(plan.tasks().next().is_some(), "--only {all}: no path or peer has one of these in its name");
    }
    Ok(plan)
}

fn open(args: &CompareArgs, plan: &Plan) -> anyhow::Result<(PathBuf, Store)> {
    let (commit, dirty) = machine::commit();
    let started = machine::now();
    let dir = args.out.clone().unwrap_or_else(|| store::default_dir(&started));
    let tasks = plan.tasks().cloned().collect();
    let head = Head { plan: args.plan_text(), commit, dirty, started, machine: machine::machine(), tasks };
    let store = if args.resume { Store::resume(&dir, &head)? } else { Store::create(&dir, head)? };
    Ok((dir, store))
}

/// Measures what is left of a plan, and then again what the machine disturbed, while the plan's time lasts; nothing if interrupted.
async fn measure(left: &Plan, whole: &Plan, store: &mut Store) -> anyhow::Result<Option<()>> {
    let mut sitting = Sitting::new()?;
    let until = Instant::now() + whole.limit();
    if sitting.measure(&left.groups, store).await?.is_none() {
        return Ok(None);
    }
    for _ in 0..REPEATS_MAX {
        let fits = until.saturating_duration_since(Instant::now());
        let again = store.disturbed(&whole.groups, fits);
        if again.is_empty() {
            break;
        }
        eprintln!(
            "measuring {} of {} groups again, as the machine stood still meanwhile",
            again.len(),
            whole.groups.len()
        );
        if sitting.measure(&again, store).await?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// What measures until somebody ends it.
struct Sitting {
    bench: Bench,
    interrupts: [Signal; 3],
}

impl Sitting {
    fn new() -> anyhow::Result<Self> {
        // Caught before there is anything that they would have to clean up.
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self { bench: Bench::new()?, interrupts: [interrupt?, terminate?, hangup?] })
    }

    /// Measures groups, one after the other; nothing if interrupted.
    async fn measure(&mut self, groups: &[Vec<Task>], store: &mut Store) -> anyhow::Result<Option<()>> {
        let mut progress = Progress::new(groups.len(), groups.iter().map(|group| group_estimate_s(group)).sum());
        let [interrupt, terminate, hangup] = &mut self.interrupts;
        for group in groups {
            let measured = tokio::select! {
                biased;
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
                _ = hangup.recv() => None,
                measured = measure_watched(&self.bench, group) => Some(measured),
                () = progress.during(group) => None,
            };
            let Some((outcomes, standstill)) = measured else {
                progress.end();
                return Ok(None);
            };
            progress.done(group, &outcomes);
            for (task, outcome) in group.iter().zip(outcomes) {
                store.add(Cell { standstill: Some(standstill), ..cell(task, outcome) })?;
            }
        }
        progress.end();
        Ok(Some(()))
    }
}

async fn measure_watched(bench: &Bench, group: &[Task]) -> (Vec<Outcome>, Standstill) {
    let watch = Watch::start();
    let outcomes = bench.measure(group).await;
    (outcomes, watch.end())
}

fn cell(task: &Task, outcome: Outcome) -> Cell {
    Cell {
        workload: task.workload,
        path: task.path.clone(),
        peer: task.peer.clone(),
        round: task.round,
        seed: task.seed,
        seconds: task.seconds,
        outcome,
        standstill: None,
    }
}

fn results(store: &Store, rounds: u32) -> Results {
    let missing = |round: &u32| {
        let of_round = |number: u32| number == *round;
        let planned = store.head.tasks.iter().filter(|task| of_round(task.round)).count();
        store.cells.iter().filter(|cell| of_round(cell.round)).count() < planned
    };
    Results {
        machine: store.head.machine.clone(),
        commit: store.head.commit.clone(),
        dirty: store.head.dirty,
        started: store.head.started.clone(),
        ended: machine::now(),
        plan: store.head.plan.clone(),
        rounds: (1..=rounds).filter(|round| !missing(round)).count() as u32,
        cipher: machine::cipher(),
        cells: store.cells.clone(),
    }
}

/// Writes the results and says where they are: the table to standard error, the files as JSON to standard output.
fn write(results: &Results, dir: &Path, interrupted: bool) -> anyhow::Result<()> {
    let json = dir.join(report::RESULTS);
    // Beside it first: whoever kills this does not leave half of it.
    let staging = dir.join("results.json.part");
    std::fs::write(&staging, serde_json::to_vec(results)?)
        .and_then(|()| std::fs::rename(&staging, &json))
        .with_context(|| format!("cannot write {}", json.display()))?;
    report::write(results, dir)?;
    eprint!("{}", table::table(&results.cells));
    eprintln!("\nreport: {}", dir.join("report.html").display());
    let failed = results.cells.iter().filter(|cell| matches!(cell.outcome, Outcome::Failed(_))).count();
    let line = serde_json::json!({
        "out": dir,
        "results": json,
        "report": dir.join("report.html"),
        "summary": dir.join("summary.md"),
        "chart": dir.join("chart.svg"),
        "cells": results.cells.len(),
        "failed": failed,
        "rounds": results.rounds,
        "interrupted": interrupted,
    });
    println!("{line}");
    Ok(())
}

/// The command that goes on.
fn again(args: &CompareArgs, dir: &Path) -> String {
    let plan = match args.plan_name() {
        PlanName::Quick => " --quick",
        PlanName::Tiny => " --plan tiny",
        PlanName::Full => "",
    };
    let alone = if args.alone { " --alone" } else { "" };
    let only = if args.only.is_empty() { String::new() } else { format!(" --only {}", args.only.join(",")) };
    format!("aetherflow-bench compare{plan}{alone}{only} --out {} --resume", dir.display())
}
