//! Half of the greatest load for a long time: does the service's process grow?

use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use super::args::ServicesArgs;
use super::cell::CallSite;
use super::closed::Pace;
use super::dial::Dialer;
use super::plan::Step;
use super::process::Holdings;
use super::report::Cell;
use super::scenario::Scenario;
use super::server::{Server, Setup};
use super::store::Store;
use super::stores::Space;

/// Times that the process is looked at.
const SAMPLES: u32 = 60;
const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Caches, pools and the documents of the first generation fill in this part, which no growth is judged by.
const WARM_SHARE: f64 = 1.0 / 3.0;
/// What the rest may grow by, along a straight line: a share of what is held in the middle of it, and at least so much.
const GROWTH_SHARE_MAX: f64 = 0.1;
const RESIDENT_GROWTH_BYTES_MIN: f64 = 32.0 * 1024.0 * 1024.0;
const COUNT_GROWTH_MIN: f64 = 4.0;
/// A document that nobody uses goes early, or all of a soak's would be in memory together.
const SECTIONS: &str = "Manager:\n  CleanupInterval: 10s\n";
/// Unless the command line says otherwise: enough for commits that are shared.
const CONNECTIONS: usize = 50;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Soak {
    pub(super) seconds: f64,
    /// What the service took as fast as it could.
    pub(super) greatest: Cell,
    /// Half of it for all the time.
    pub(super) load: Cell,
    pub(super) samples: Vec<Sample>,
    pub(super) growth: Vec<Growth>,
    /// A call that failed, or what grew.
    pub(super) failure: Option<String>,
}

/// The process at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Since the load began.
    pub(super) at_s: f64,
    #[serde(flatten)]
    pub(super) held: Holdings,
}

/// How one of its holdings changed once it was warm.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON")]
pub(super) struct Growth {
    pub(super) what: &'static str,
    /// Of the straight line through the samples.
    pub(super) slope_per_minute: f64,
    /// Along that line, from the first of them to the last.
    pub(super) growth: f64,
    pub(super) growth_max: f64,
}

/// What of a store's services is soaked if nothing is named.
pub(super) fn scenario(args: &ServicesArgs, store: Store) -> Scenario {
    let of_store = if store == Store::Redis { Scenario::SessionHeartbeat } else { Scenario::ApplyHundred };
    args.only.first().copied().unwrap_or(of_store)
}

/// Measures the greatest load, then sends half of it for `duration`.
///
/// # Errors
/// If the service does not start or does not take what is prepared.
pub(super) async fn measure(
    args: &ServicesArgs,
    data: &Path,
    dialer: &Dialer,
    (scenario, space): (Scenario, &Space),
    duration: Duration,
) -> anyhow::Result<Soak> {
    let folder = tempfile::tempdir_in(data)?;
    let setup = Setup { sections: sections(scenario), ..Setup::new(scenario.service(), space) };
    let server = Server::start(&setup, folder.path())?;
    let connections = if args.connections.len() == 1 { args.connections[0] } else { CONNECTIONS };
    let wires = dialer.wires(&server.target, connections).await?;
    let step = Step { scenario, transport: dialer.transport, store: space.store, connections: Some(connections) };
    let (in_flight, warmup) = (args.in_flight(scenario), args.warmup());
    let pace = Pace { in_flight, warmup, measured: args.measured(), rate: None };
    let site = CallSite { step, server: &server, space, wires: &wires, pace, spread: args.spread };
    let greatest = site.measure().await.context("the greatest load")?;
    ensure!(greatest.failure.is_none(), "the greatest load: {}", greatest.failure.as_deref().unwrap_or_default());
    eprintln!(
        "{} over {}: {:.0}/s; half of it for {duration:?}",
        greatest.scenario, greatest.transport, greatest.per_s
    );
    let rate = Some(greatest.per_s / 2.0);
    let pace = Pace { in_flight, warmup: Duration::ZERO, measured: duration, rate };
    let sampler = Sampler::start(server.id(), space.port, duration, args.json);
    let load = CallSite { pace, ..site }.measure().await.context("half of the load")?;
    let samples = sampler.stop();
    Ok(judge(duration, greatest, load, samples))
}

/// Sessions know no documents.
fn sections(scenario: Scenario) -> &'static str {
    if scenario.service() == control::launch::Service::Statesync { SECTIONS } else { "" }
}

/// Looks at a process from a thread of its own until it is told to stop.
struct Sampler {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Sample>>,
}

impl Sampler {
    fn start(id: u32, port: Option<u16>, duration: Duration, is_silent: bool) -> Self {
        let (stop, stopped) = mpsc::channel();
        let interval = (duration / SAMPLES).max(INTERVAL_MIN);
        let thread = std::thread::spawn(move || {
            let (start, mut samples) = (Instant::now(), Vec::new());
            // Ends with a word or with the one who would say it.
            while stopped.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
                let at = start.elapsed();
                let Some(held) = Holdings::of(id, port).filter(|_| at <= duration) else { continue };
                let sample = Sample { at_s: at.as_secs_f64(), held };
                if !is_silent {
                    eprintln!("{}", sample.line());
                }
                samples.push(sample);
            }
            samples
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Sample> {
        // It may have ended already.
        let _ = self.stop.send(());
        self.thread.join().expect("looking at a process does not panic")
    }
}

impl Sample {
    fn line(&self) -> String {
        let Holdings { resident_bytes, threads, descriptors, store_connections } = self.held;
        format!(
            "{:>7.1} s: {:>7.1} MiB resident, {threads} threads, {descriptors} descriptors, {store_connections} connections to the store",
            self.at_s,
            resident_bytes as f64 / f64::from(1 << 20)
        )
    }
}

/// One of the holdings.
type Read = fn(&Holdings) -> u64;

fn judge(duration: Duration, greatest: Cell, load: Cell, samples: Vec<Sample>) -> Soak {
    let warm: Vec<Sample> =
        samples.iter().copied().filter(|sample| sample.at_s >= WARM_SHARE * duration.as_secs_f64()).collect();
    let holdings: [(&str, f64, Read); 4] = [
        ("resident bytes", RESIDENT_GROWTH_BYTES_MIN, |held| held.resident_bytes),
        ("threads", COUNT_GROWTH_MIN, |held| held.threads),
        ("descriptors", COUNT_GROWTH_MIN, |held| held.descriptors),
        ("connections to the store", COUNT_GROWTH_MIN, |held| held.store_connections),
    ];
    let growth: Vec<Growth> = holdings
        .into_iter()
        .filter_map(|(what, least, of)| {
            let points: Vec<(f64, f64)> = warm.iter().map(|sample| (sample.at_s, of(&sample.held) as f64)).collect();
            Growth::along(what, least, &points)
        })
        .collect();
    let grown = growth.iter().find(|growth| growth.growth > growth.growth_max).map(Growth::line);
    let too_few = growth.is_empty().then(|| format!("{} samples are too few", samples.len()));
    let failure = load.failure.clone().or(grown).or(too_few);
    Soak { seconds: duration.as_secs_f64(), greatest, load, samples, growth, failure }
}

impl Growth {
    /// Along the straight line of least squares through points of seconds and values; nothing of fewer than three.
    fn along(what: &'static str, least: f64, points: &[(f64, f64)]) -> Option<Self> {
        let (first, last) = (points.first()?, points.last()?);
        if points.len() < 3 {
            return None;
        }
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (middle_s, middle) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(at, _)| (at - middle_s).powi(2)).sum();
        let slope = points.iter().map(|(at, value)| (at - middle_s) * (value - middle)).sum::<f64>() / spread;
        let growth = slope * (last.0 - first.0);
        let growth_max = (GROWTH_SHARE_MAX * middle).max(least);
        Some(Self { what, slope_per_minute: slope * 60.0, growth, growth_max })
    }

    fn line(&self) -> String {
        let Self { what, slope_per_minute, growth, growth_max } = self;
        format!("{what}: {slope_per_minute:+.1} per minute, {growth:+.1} once warm, bound {growth_max:.1}")
    }
}

impl Soak {
    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{} on {} over {}, {:.0}/s for {} s, p50, p99, p99.9 ms: {}\n",
            self.load.scenario,
            self.load.store,
            self.load.transport,
            self.load.per_s,
            self.seconds,
            self.load.latency.in_ms()
        );
        for growth in &self.growth {
            let _ = writeln!(text, "{}", growth.line());
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Growth;

    fn growth(values: &[f64]) -> Option<Growth> {
        let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(at, value)| (at as f64 * 30.0, *value)).collect();
        Growth::along("threads", 4.0, &points)
    }

    #[test]
    fn what_grows_by_more_than_its_bound_is_told_from_what_goes_up_and_down() {
        let steady = growth(&[100.0, 104.0, 100.0, 104.0, 100.0]).unwrap();
        assert!(steady.growth < 1.0 && steady.growth < steady.growth_max, "{steady:?}");
        let grown = growth(&[100.0, 106.0, 112.0, 118.0, 124.0]).unwrap();
        assert!((grown.slope_per_minute - 12.0).abs() < 1e-9 && (grown.growth - 24.0).abs() < 1e-9, "{grown:?}");
        assert!((grown.growth_max - 11.2).abs() < 1e-9 && grown.growth > grown.growth_max, "{grown:?}");
        let few = growth(&[2.0, 4.0, 6.0]).unwrap();
        assert!(few.growth <= few.growth_max, "four more may be chance: {few:?}");
        assert!(growth(&[1.0, 2.0]).is_none() && growth(&[]).is_none());
    }
}
