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
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::signal::unix::{SignalKind, signal};

pub use args::CompareArgs;
use args::PlanName;
use cell::Bench;
use model::{Cell, Outcome, Results, Standstill};
use plan::{Plan, Task, group_estimate_s};
use progress::{Progress, span};
use stillness::{DISTURBED_PERCENT, Watch};
use store::{Head, Store};

/// As shells report SIGINT.
const INTERRUPTED: u8 = 130;
/// What a standstill of the machine disturbs is measured again, so often at most and while the plan's time lasts.
const REPEATS_MAX: u32 = 2;

/// Runs `compare`.
///
/// # Errors
/// If this may not make links, or the results cannot be written. A peer that fails is a result.
pub fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    ensure!(rustix::process::geteuid().is_root(), "compare makes network namespaces and needs root: run it with sudo");
    let mut plan = plan(args)?;
    let (dir, mut store) = open(args, &plan)?;
    let whole_s = plan.estimate_s();
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
    let interrupted = runtime.block_on(measure(&plan, &mut store))?;
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
    if let Some(text) = &args.only {
        plan.retain(|task| task.path.name.contains(text) || task.peer.contains(text));
        ensure!(plan.tasks().next().is_some(), "--only {text}: no path or peer has that in its name");
    }
    Ok(plan)
}

fn open(args: &CompareArgs, plan: &Plan) -> anyhow::Result<(PathBuf, Store)> {
    let (commit, dirty) = machine::commit();
    let started = machine::now();
    let dir = args.out.clone().unwrap_or_else(|| store::default_dir(&started));
    let tasks = plan.tasks().cloned().collect();
    let head = Head { plan: plan.name.to_owned(), commit, dirty, started, machine: machine::machine(), tasks };
    let store = if args.resume { Store::resume(&dir, &head)? } else { Store::create(&dir, head)? };
    Ok((dir, store))
}

/// Measures what a plan has left; whether it was interrupted.
async fn measure(plan: &Plan, store: &mut Store) -> anyhow::Result<bool> {
    // Caught before there is anything that they would have to clean up.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let bench = Bench::new()?;
    let mut left_s = plan.estimate_s();
    let mut progress = Progress::new(plan.groups.len(), left_s);
    let started = Instant::now();
    for group in &plan.groups {
        left_s -= group_estimate_s(group);
        // Where everything that is left has to be done by.
        let until = started + plan.limit().saturating_sub(Duration::from_secs_f64(left_s.max(0.0)));
        let outcomes = tokio::select! {
            biased;
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
            outcomes = measure_still(&bench, group, until) => Some(outcomes),
            () = progress.during(group) => None,
        };
        let Some((outcomes, standstill)) = outcomes else {
            progress.end();
            return Ok(true);
        };
        progress.done(group, &outcomes);
        for (task, outcome) in group.iter().zip(outcomes) {
            store.add(Cell { standstill: Some(standstill), ..cell(task, outcome) })?;
        }
    }
    progress.end();
    Ok(false)
}

/// Measures a group, and again if the machine stood still meanwhile, where that can be done in time; gives the least disturbed.
async fn measure_still(bench: &Bench, group: &[Task], until: Instant) -> (Vec<Outcome>, Standstill) {
    let takes = Duration::from_secs_f64(group_estimate_s(group));
    let mut best = measure_watched(bench, group).await;
    let mut repeats = 0;
    while best.1.percent > DISTURBED_PERCENT && repeats < REPEATS_MAX && Instant::now() + takes <= until {
        repeats += 1;
        let again = measure_watched(bench, group).await;
        if again.1.percent < best.1.percent {
            best = again;
        }
    }
    best.1.repeats = repeats;
    best
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
    let only = args.only.as_ref().map(|text| format!(" --only {text}")).unwrap_or_default();
    format!("aetherflow-bench compare{plan}{alone}{only} --out {} --resume", dir.display())
}
