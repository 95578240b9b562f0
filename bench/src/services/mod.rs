//! `services`: how many calls and operations the session and the document service take, and how long they take.

mod args;
mod closed;
mod dial;
mod documents;
mod fan_out;
mod progress;
mod report;
mod server;
mod sessions;
mod storage;

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

pub use args::ServicesArgs;
use args::{Scenario, Store};
use closed::{Pace, Workload};
use dial::Dialer;
use documents::{Creations, Operations};
use fan_out::{Round, Site};
use progress::Progress;
use report::{Cell, FanOut, Latency, Report};
use server::Server;
use sessions::{SessionCall, Sessions};
use storage::FileSystem;

use crate::compare::machine;
use crate::load::{Meters, Wire};

/// As shells report SIGINT.
const INTERRUPTED: u8 = 130;
/// The documents of `apply-100`.
const HUNDRED: usize = 100;

/// Runs `services`.
///
/// # Errors
/// If a service does not start or cannot be reached. A call that fails is a result.
pub fn run(args: &ServicesArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let unusable = || format!("cannot keep data in {}", parent.display());
    std::fs::create_dir_all(&parent).with_context(unusable)?;
    let parent = parent.canonicalize().with_context(unusable)?;
    let folder = tempfile::Builder::new().prefix("aetherflow-bench-services").tempdir_in(&parent);
    let data = folder.with_context(unusable)?;
    let file_system = FileSystem::of(data.path())?;
    if args.store == Store::Sqlite && !file_system.is_durable() {
        eprintln!("{} is in memory: nothing is durable there; choose a disk with --data-dir", parent.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(unless_interrupted(measure(args, data.path())))?;
    // Connections close in the background; nothing of the result depends on them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    let Some((cells, fan_out)) = measured else {
        eprintln!("interrupted");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let failures = cells.iter().map(|cell| &cell.failure).chain(fan_out.iter().map(|measured| &measured.failure));
    let report = Report {
        store: args.store.name(),
        data_dir: parent,
        file_system: file_system.name(),
        machine: machine::machine(),
        failed: failures.flatten().count(),
        targets: report::targets(args.store, &cells, &fan_out),
        cells,
        fan_out,
    };
    if !args.json {
        eprint!("{}", report.table());
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What `work` comes to; nothing if this process is told to end first, and then the services end that it has started.
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

/// Measures everything that is asked for, one after the other.
async fn measure(args: &ServicesArgs, data: &Path) -> anyhow::Result<(Vec<Cell>, Vec<FanOut>)> {
    let (mut cells, mut fan_outs) = (Vec::new(), Vec::new());
    let mut progress = Progress::new(args);
    for transport in &args.transport {
        let dialer = Dialer::new(*transport)?;
        for scenario in args.scenarios() {
            if scenario == Scenario::FanOut {
                fan_outs.extend(fan_out(args, data, &dialer, &mut progress).await?);
                continue;
            }
            for connections in args.connections.iter().copied() {
                let what = format!("{} over {}, connections: {connections}", scenario.name(), transport.name());
                progress.begin(&what);
                let cell = cell(args, data, &dialer, (scenario, connections)).await.with_context(|| what.clone())?;
                progress.done(&format!("{what}: {:.0}/s, p99 {:.2} ms", cell.per_s, cell.latency.p99_us / 1e3));
                cells.push(cell);
            }
        }
    }
    progress.end();
    Ok((cells, fan_outs))
}

/// Calls of one kind over so many connections to a service of their own.
async fn cell(
    args: &ServicesArgs,
    data: &Path,
    dialer: &Dialer,
    (scenario, connections): (Scenario, usize),
) -> anyhow::Result<Cell> {
    let folder = tempfile::tempdir_in(data)?;
    let server = Server::start(scenario.service(), args.store, folder.path())?;
    let wires = dialer.wires(&server, connections).await?;
    let pace = Pace { in_flight: args.in_flight(scenario), warmup: args.warmup(), measured: args.measured() };
    let site = CallSite { scenario, dialer, server: &server, wires: &wires, pace };
    let wire = &wires[0];
    Ok(match scenario {
        Scenario::SessionCreate => site.measure(Sessions::prepare(SessionCall::Create, wire).await?).await,
        Scenario::SessionGet => site.measure(Sessions::prepare(SessionCall::Get, wire).await?).await,
        Scenario::SessionHeartbeat => site.measure(Sessions::prepare(SessionCall::Heartbeat, wire).await?).await,
        Scenario::DocumentCreate => site.measure(Creations::new()).await,
        Scenario::ApplyOne => site.measure(Operations::prepare(1, args.spread, pace, wire).await?).await,
        Scenario::ApplyHundred => site.measure(Operations::prepare(HUNDRED, args.spread, pace, wire).await?).await,
        Scenario::FanOut => unreachable!("streams are no calls: they are measured on their own"),
    })
}

/// Where calls are made.
struct CallSite<'a> {
    scenario: Scenario,
    dialer: &'a Dialer,
    server: &'a Server,
    wires: &'a [crate::replay::wire::Wire],
    pace: Pace,
}

impl CallSite<'_> {
    /// Makes the calls and compares what the service holds with what it acknowledged.
    async fn measure(&self, workload: impl Workload) -> Cell {
        let workload = Arc::new(workload);
        let meters = Meters::new(Wire::of_interfaces(self.server.address.ip()), Some(self.server.id()));
        let measured = closed::run(&workload, self.wires, &self.pace, meters).await;
        let resident_bytes = self.server.resident_bytes();
        let checked = workload.check(self.wires[0].clone()).await;
        let answered = measured.histogram.len();
        let seconds = self.pace.measured.as_secs_f64();
        let server_cpu_s = measured.spent.server_cpu_s;
        Cell {
            scenario: self.scenario.name(),
            transport: self.dialer.transport.name(),
            connections: self.wires.len(),
            in_flight: self.pace.in_flight,
            answered,
            errors: measured.errors,
            seconds,
            per_s: answered as f64 / seconds,
            latency: Latency::from(&measured.histogram),
            client_cpu_s: measured.spent.cpu_s,
            server_cpu_s,
            server_cpu_us_per_call: micros_each(server_cpu_s, answered),
            server_resident_bytes: resident_bytes,
            failure: measured.first_error.or_else(|| Some(format!("{:#}", checked.err()?))),
        }
    }
}

/// Fan-out without streams that are never read and, if asked for, with some, in turn on one service.
async fn fan_out(
    args: &ServicesArgs,
    data: &Path,
    dialer: &Dialer,
    progress: &mut Progress,
) -> anyhow::Result<Vec<FanOut>> {
    let folder = tempfile::tempdir_in(data)?;
    let server = Server::start(Scenario::FanOut.service(), args.store, folder.path())?;
    let site = Site { args, dialer, server: &server };
    let mut parts: Vec<(usize, Option<Round>)> = vec![(0, None)];
    if args.fan_out.stalled_streams() > 0 {
        parts.push((args.fan_out.stalled_streams(), None));
    }
    for _ in 0..args.fan_out.rounds {
        for (stalled, sum) in &mut parts {
            let what = format!("fan-out over {}, stalled: {stalled}", dialer.transport.name());
            progress.begin(&what);
            let round = fan_out::measure(&site, *stalled).await.with_context(|| what.clone())?;
            progress.done(&format!("{what}: p99 {:.2} ms", Latency::from(&round.latencies).p99_us / 1e3));
            *sum = Some(match sum.take() {
                Some(earlier) => earlier.with(round),
                None => round,
            });
        }
        // Whatever gets slower by and by does so to both parts.
        parts.reverse();
    }
    parts.sort_by_key(|(stalled, _)| *stalled);
    Ok(parts.into_iter().filter_map(|(stalled, sum)| Some(fan_out_result(args, dialer, stalled, sum?))).collect())
}

fn fan_out_result(args: &ServicesArgs, dialer: &Dialer, stalled: usize, sum: Round) -> FanOut {
    let missing = sum.expected - sum.delivered.min(sum.expected);
    let missing = (missing > 0).then(|| format!("{missing} events are missing"));
    FanOut {
        transport: dialer.transport.name(),
        subscribers: args.fan_out.subscribers,
        connections: args.fan_out.subscriber_connections,
        stalled,
        rate: args.fan_out.rate,
        rounds: args.fan_out.rounds,
        expected: sum.expected,
        delivered: sum.delivered,
        lagged: sum.lagged,
        errors: sum.errors,
        latency: Latency::from(&sum.latencies),
        client_cpu_s: sum.client_cpu_s,
        server_cpu_s: sum.server_cpu_s,
        server_cpu_us_per_event: micros_each(sum.server_cpu_s, sum.delivered),
        failure: sum.first_error.or(missing),
    }
}

/// Microseconds for each of so many.
fn micros_each(seconds: Option<f64>, count: u64) -> Option<f64> {
    seconds.filter(|_| count > 0).map(|seconds| seconds * 1e6 / count as f64)
}
