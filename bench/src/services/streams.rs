//! Measurements of streams of events: fan-out on this host, and one edit's way to another subscriber over a link.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use quantum_sim::LinkConfig;
use tokio::process::Command;

use super::args::ServicesArgs;
use super::dial::{Dialer, Target};
use super::fan_out::{self, Round, Shape, Site};
use super::plan::Step;
use super::progress::Progress;
use super::report::{Delivery, Edit, FanOut, Latency, per_million};
use super::server::{Server, Setup};
use super::stores::Space;
use super::watch::Watch;
use crate::link::{ADDR_B, Line};
use crate::load::{self, Meters};

/// The link of `edit-to-subscriber`: one way, in each direction.
const DELAY: Duration = Duration::from_millis(10);
const LOSS_PERCENT: f64 = 5.0;
const RATE_BITS_PER_S: u64 = 100_000_000;
/// The same losses in every run.
const SEED: u64 = 20;
/// Of `edit-to-subscriber`. Subscribers on connections of their own: what one connection loses, the others have.
const EDIT_SUBSCRIBERS: usize = 4;
const EDIT_RATE: f64 = 50.0;
/// What a client on the link may take longer than its measurement: connecting, and events that are late.
const CLIENT_GRACE: Duration = Duration::from_mins(1);

/// Fan-out without streams that are never read and, if asked for, with some, in turn on one service.
///
/// # Errors
/// If it cannot begin.
pub(super) async fn fan_out(
    args: &ServicesArgs,
    data: &Path,
    dialer: &Dialer,
    (step, space): (Step, &Space),
    progress: &mut Progress,
) -> anyhow::Result<Vec<FanOut>> {
    let folder = tempfile::tempdir_in(data)?;
    let server = Server::start(&Setup::new(step.scenario.service(), space), folder.path())?;
    let meters = Meters::new(load::Wire::of_interfaces(server.target.address.ip()), Some(server.id()));
    let shape = Shape {
        subscribers: args.fan_out.subscribers,
        connections: args.fan_out.subscriber_connections,
        rate: args.fan_out.rate,
        warmup: args.warmup,
        seconds: args.seconds,
        is_filled: true,
    };
    let site = Site { shape, dialer, target: &server.target, watch: Watch::new(meters, space.server) };
    let mut parts: Vec<(usize, Option<Round>)> = vec![(0, None)];
    if args.fan_out.stalled_streams() > 0 {
        parts.push((args.fan_out.stalled_streams(), None));
    }
    for _ in 0..args.fan_out.rounds {
        for (stalled, sum) in &mut parts {
            let what = format!("{}, stalled: {stalled}", step.name());
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
    Ok(parts.into_iter().filter_map(|(stalled, sum)| Some(fan_out_result(args, step, stalled, sum?))).collect())
}

fn fan_out_result(args: &ServicesArgs, step: Step, stalled: usize, sum: Round) -> FanOut {
    FanOut {
        store: step.store.name(),
        transport: step.transport.name(),
        subscribers: args.fan_out.subscribers,
        connections: args.fan_out.subscriber_connections,
        stalled,
        rate: args.fan_out.rate,
        rounds: args.fan_out.rounds,
        client_cpu_s: sum.client_cpu_s,
        server_cpu_s: sum.server_cpu_s,
        server_cpu_s_per_million: per_million(sum.server_cpu_s, sum.delivered),
        store_cpu_s: sum.store_cpu_s,
        round: Delivery::from(sum),
    }
}

/// Edits over a link of their own, the service at its other end.
///
/// # Errors
/// If there is no link, or the client at its end fails.
pub(super) async fn edit(args: &ServicesArgs, data: &Path, step: Step) -> anyhow::Result<Edit> {
    let folder = tempfile::tempdir_in(data)?;
    let name = format!("aether-services-{}", std::process::id());
    let config = LinkConfig {
        delay: DELAY,
        loss_percent: LOSS_PERCENT,
        rate_bits_per_s: Some(RATE_BITS_PER_S),
        ..LinkConfig::default()
    };
    let line = tokio::task::block_in_place(|| Line::emulated(&name, &config, SEED)).context("no link")?;
    let [here, there] = line.namespaces();
    let address: IpAddr = ADDR_B.parse().context("the address of the link's end")?;
    let space = Space::embedded(step.store);
    let setup = Setup { namespace: Some((there, address)), ..Setup::new(step.scenario.service(), &space) };
    let server = Server::start(&setup, folder.path())?;
    let round = ask(client(args, step, here, &server.target)?, args).await;
    drop(server);
    let round = round?;
    tokio::task::block_in_place(|| line.finish())?;
    Ok(Edit {
        store: step.store.name(),
        transport: step.transport.name(),
        rtt_ms: 2.0 * DELAY.as_secs_f64() * 1e3,
        loss_percent: LOSS_PERCENT,
        subscribers: EDIT_SUBSCRIBERS,
        rate: EDIT_RATE,
        round,
    })
}

/// This program at the other end of the link.
fn client(args: &ServicesArgs, step: Step, namespace: &str, target: &Target) -> anyhow::Result<Command> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(std::env::current_exe()?).args(["services", "--json"]);
    command.args(["--edit-at", &format!("{},{}", target.address, target.fingerprint)]);
    command.args(["--transport", step.transport.name()]);
    command.args(["--seconds", &args.seconds.to_string(), "--warmup", &args.warmup.to_string()]);
    // In a group of its own, so that Ctrl-C reaches only who cleans up.
    command.env_remove("RUST_LOG").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

async fn ask(mut command: Command, args: &ServicesArgs) -> anyhow::Result<Delivery> {
    let client = command.spawn().context("the client does not start")?;
    let limit = args.warmup() + args.measured() + CLIENT_GRACE;
    let output = tokio::time::timeout(limit, client.wait_with_output()).await;
    let output = output.with_context(|| format!("the client did not end in {limit:?}"))??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the client: {}: {}", output.status, said.trim());
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().context("the client printed nothing")?).context("the client's JSON")
}

/// What the client on the link does: prints the round as JSON.
///
/// # Errors
/// If it cannot begin.
pub(super) fn edit_at(args: &ServicesArgs, target: &Target) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let round = runtime.block_on(async {
        let dialer = Dialer::new(*args.transport.first().context("no --transport")?)?;
        let shape = Shape {
            subscribers: EDIT_SUBSCRIBERS,
            connections: EDIT_SUBSCRIBERS,
            rate: EDIT_RATE,
            warmup: args.warmup,
            seconds: args.seconds,
            is_filled: false,
        };
        let meters = Meters::new(load::Wire::of_interfaces(target.address.ip()), None);
        let site = Site { shape, dialer: &dialer, target, watch: Watch::new(meters, None) };
        fan_out::measure(&site, 0).await
    })?;
    println!("{}", serde_json::to_string(&Delivery::from(round))?);
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(())
}
