//! The command line of `services`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::dial::Target;
use super::scenario::Scenario;
use super::store::Store;
use crate::replay::ReplayTransport;

const EXAMPLES: &str = "\
Every measurement starts a service of its own (`aetherflow session` or `aetherflow statesync`, taken from the folder \
that this program is in) on a free loopback port, with its data in a temporary folder within --data-dir, whose file \
system is named. For redis and postgres it starts a private server there too, durable, or takes that of a URL: then \
each measurement has a database or a prefix of keys of its own, removed when it is done. What a store does not keep \
(documents of redis, sessions of postgres) SQLite keeps, and the output says so.

Calls and operations are a closed loop: every connection has --in-flight callers, each sends when its last call was \
answered. apply-1 and apply-100 insert letters into one text and into a hundred, each acknowledged when it is in the \
store (sqlite: on disk). stream-1 and stream-100 send them in a stream (ApplyOperations), one on each connection, \
and keep --in-flight of them on their way. They insert at places 0 to --spread of a text: the farther into a text of many edits, the \
longer a place is searched. A text's history is bounded: after 50,000 operations (5,000 at a steady rate) a fresh text \
takes its place. All are read back in the end: a document has to have exactly the acknowledged operations, and the acknowledged versions have \
to be 2, 3, 4, ... without a gap. Sessions and documents that were created are counted likewise. apply-paced is an \
open loop: latency counts from when an operation was due.

The clients are in this process and share the processors with the service. Connections are made before the time \
begins. Calls that only the tables of targets name (session-update, -delete and -list, document-update and -lock, \
apply-single) are measured with up to 10 connections.

fan-out has one text with --subscribers streams and one writer at --rate; latency counts from when an operation is due \
to each stream that reads it. Then the same with --stalled percent of the streams never read, whose buffers are full \
from the start. All streams are one user's, so that nobody's coming and going is told to everybody. edit-to-subscriber \
is the same with four streams, all clients at one end of a link with 10 ms and 5 % loss each way (root).

--soak measures how much of --only (one call; apply-100, of redis session-heartbeat) the service takes, then sends \
half of that for so long, and fails if memory, threads, descriptors or connections to the store grow (the bounds are \
printed).

Targets, which a machine may miss, are judged in the end; the JSON and the summary say which are met.

Exit code 0: everything was answered and right. 1: a call failed, what was read back is not what was acknowledged, or \
a soak grew.

Examples:
  aetherflow-bench services
  aetherflow-bench services --matrix --out results --data-dir /var/tmp --seconds 2
  aetherflow-bench services --store memory,tonic-floor --only session-create,session-get \\
      --connections 1,10,50,200
  aetherflow-bench services --store postgres --only apply-100 --connections 50 --in-flight 16 \\
      --data-dir /var/tmp
  aetherflow-bench services --only fan-out --transport tcp-grpc --subscribers 1000 --rate 20 \\
      --seconds 10 --json
  aetherflow-bench services --store postgres --soak 15m";

/// Flow control lets so many unread streams leave room for the others on a connection (`dial.rs`).
const STALLED_PER_CONNECTION_MAX: usize = 32;
/// A service takes 1024 streams on a connection over Quantum.
const STREAMS_PER_CONNECTION_MAX: usize = 1000;
/// The writer of fan-out names one version as the base of all its operations, and a base may be 65,536 versions back.
const FAN_OUT_OPERATIONS_MAX: f64 = 50_000.0;
/// A soak of less has too few samples for a slope; one of more has more documents than are worth keeping.
const SOAK: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_hours(24);

/// Arguments of `services`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServicesArgs {
    /// Where the services keep what they are given, one after the other
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values = ["sqlite"])]
    pub(super) store: Vec<Store>,
    /// What carries the calls, one after the other
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values = ["quantum-grpc", "tcp-grpc"])]
    pub(super) transport: Vec<ReplayTransport>,
    /// Connections, one measurement for each number
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ["1", "10", "50", "200"])]
    pub(super) connections: Vec<usize>,
    /// Calls in flight on each connection [default: 1; of apply-1, apply-100 and apply-paced: 16; of stream-1 and stream-100: 64]
    #[arg(long, value_name = "N")]
    pub(super) in_flight: Option<usize>,
    /// The measured time of each measurement
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub(super) seconds: f64,
    /// Time before the measured time
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub(super) warmup: f64,
    /// Only these measurements [default: all]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(super) only: Vec<Scenario>,
    /// Operations insert at places 0 to N of a text
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) spread: usize,
    /// The folder of the temporary data folders [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Print only the JSON line, without progress
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) fan_out: FanOutArgs,
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(flatten)]
    pub(super) inner: InnerArgs,
}

/// What kind of run.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// All stores that are there, and the floor, in one run
    #[arg(long, conflicts_with = "store")]
    pub(super) matrix: bool,
    /// Write every measurement as a line of DIR/results.jsonl, and DIR/summary.md
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Half of the greatest load for so long, such as 15m: does anything grow?
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "matrix")]
    pub(super) soak: Option<Duration>,
}

/// Where the stores' servers are.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// A Redis server, `redis://[:PASSWORD@]HOST:PORT[/DB]` [default: a private one]
    #[arg(long, value_name = "URL")]
    pub(super) redis_url: Option<String>,
    /// A PostgreSQL server, `postgres://USER[:PASSWORD@]HOST:PORT`, whose user may create databases [default: a private one]
    #[arg(long, value_name = "URL")]
    pub(super) postgres_url: Option<String>,
    /// A folder with the programs redis-server, initdb and postgres, or with bin/ of them [default: Debian's, then PATH]
    #[arg(long, value_name = "DIR")]
    pub(super) tools: Option<PathBuf>,
}

/// What this program tells itself.
#[derive(Debug, Clone, Args)]
pub(super) struct InnerArgs {
    /// At one end of a link: the service at the other, ADDRESS,FINGERPRINT
    #[arg(long, hide = true)]
    pub(super) edit_at: Option<Target>,
    /// Be the floor
    #[arg(long, hide = true)]
    pub(super) serve_floor: bool,
}

/// Arguments of the measurement `fan-out`.
#[derive(Debug, Clone, Args)]
pub(super) struct FanOutArgs {
    /// fan-out: streams of events of the document
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) subscribers: usize,
    /// fan-out: connections that carry the streams
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) subscriber_connections: usize,
    /// fan-out: operations per second
    #[arg(long, value_name = "PER_S", default_value_t = 20.0)]
    pub(super) rate: f64,
    /// fan-out: streams that are never read, in percent; 0 leaves this part out
    #[arg(long, value_name = "PCT", default_value_t = 1.0)]
    pub(super) stalled: f64,
    /// fan-out: times that each part is measured, in turn
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(super) rounds: usize,
}

impl FanOutArgs {
    /// Streams that are never read, in the part that has some.
    pub(super) fn stalled_streams(&self) -> usize {
        (self.subscribers as f64 * self.stalled / 100.0).ceil() as usize
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=20_000).contains(&self.subscribers), "--subscribers must be 1 to 20000");
        ensure!((1..=1000).contains(&self.subscriber_connections), "--subscriber-connections must be 1 to 1000");
        let streams = self.subscribers.div_ceil(self.subscriber_connections);
        ensure!(
            streams <= STREAMS_PER_CONNECTION_MAX,
            "{streams} streams on each connection: raise --subscriber-connections until they are at most \
             {STREAMS_PER_CONNECTION_MAX}"
        );
        ensure!(self.rate > 0.0 && self.rate <= 1000.0, "--rate must be over 0 and at most 1000");
        ensure!((0.0..=50.0).contains(&self.stalled), "--stalled must be 0 to 50");
        ensure!(self.stalled_streams() < self.subscribers, "--stalled leaves nobody who reads");
        let stalled = self.stalled_streams().div_ceil(self.subscriber_connections);
        ensure!(
            stalled <= STALLED_PER_CONNECTION_MAX,
            "{stalled} stalled streams on each connection would stop the others by flow control: raise \
             --subscriber-connections until they are at most {STALLED_PER_CONNECTION_MAX}"
        );
        ensure!((1..=100).contains(&self.rounds), "--rounds must be 1 to 100");
        Ok(())
    }
}

impl ServicesArgs {
    /// Whether the arguments make sense.
    ///
    /// # Errors
    /// The one that does not.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.seconds > 0.0 && self.seconds <= 3600.0, "--seconds must be over 0 and at most an hour");
        ensure!((0.0..=600.0).contains(&self.warmup), "--warmup must be 0 to ten minutes");
        let connections = self.connections.iter().all(|connections| (1..=1000).contains(connections));
        ensure!(connections, "--connections must be 1 to 1000 each");
        ensure!((1..=512).contains(&self.in_flight.unwrap_or(1)), "--in-flight must be 1 to 512");
        ensure!((1..=500_000).contains(&self.spread), "--spread must be 1 to 500000");
        let operations = self.fan_out.rate * (self.warmup + self.seconds);
        let is_fan_out_short = operations <= FAN_OUT_OPERATIONS_MAX || !self.scenarios().contains(&Scenario::FanOut);
        ensure!(
            is_fan_out_short,
            "fan-out takes {FAN_OUT_OPERATIONS_MAX} operations at most: lower --rate or --seconds"
        );
        if let Some(soak) = self.run.soak {
            ensure!(SOAK.contains(&soak), "--soak must be 5 s to 24 h");
            ensure!(self.only.len() < 2, "--soak takes one of --only");
            let lists = [Scenario::SessionList, Scenario::DocumentList];
            let is_call = |scenario: &Scenario| !scenario.is_stream() && !lists.contains(scenario);
            ensure!(self.only.iter().all(is_call), "--soak takes calls, neither streams nor lists");
            ensure!(!self.store.contains(&Store::TonicFloor), "--soak is of our services, not of the floor");
        }
        self.fan_out.check()
    }

    /// The stores, in this order; the floor beside what it is compared with.
    pub(super) fn stores(&self) -> Vec<Store> {
        if self.run.matrix {
            return vec![Store::TonicFloor, Store::Memory, Store::Sqlite, Store::Redis, Store::Postgres];
        }
        self.store.clone()
    }

    /// What is measured, in this order.
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        let wanted = |scenario: &Scenario| self.only.is_empty() || self.only.contains(scenario);
        Scenario::value_variants().iter().copied().filter(wanted).collect()
    }

    /// Calls in flight on each connection.
    pub(super) fn in_flight(&self, scenario: Scenario) -> usize {
        self.in_flight.unwrap_or(scenario.in_flight())
    }

    /// The time before the measured time.
    pub(super) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// The measured time.
    pub(super) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
