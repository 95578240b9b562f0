//! What `compare` measured, as its raw JSON holds it: one [`Cell`] for each path, workload, peer and round.

use serde::{Deserialize, Serialize};

use crate::load::Recovery;

/// Everything a report is made from: `results.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Where it was measured.
    pub machine: Machine,
    /// The commit of the sources, `unknown` outside of a repository.
    pub commit: String,
    /// The sources had changes that are in no commit.
    pub dirty: bool,
    /// When the first cell began (RFC 3339).
    pub started: String,
    /// When the last cell ended (RFC 3339).
    pub ended: String,
    /// Which plan: `quick` or `full`.
    pub plan: String,
    /// Rounds that were complete.
    pub rounds: u32,
    /// TLS cipher suite and key exchange of Quantum and QUIC.
    pub cipher: String,
    /// In the order of measuring.
    pub cells: Vec<Cell>,
}

/// The machine that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Logical processors.
    pub cores: usize,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's name, release and version.
    pub kernel: String,
    /// Congestion controls of TCP that the kernel offers.
    pub congestion_controls: Vec<String>,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What was done.
    pub workload: Workload,
    /// Over which path.
    pub path: Path,
    /// What carried it, such as `quantum-grpc` or `quinn-bbr`; of fairness the mix of flows: `quantum-x2`, `quantum-x10`,
    /// `quantum+tcp-cubic`, `quantum+tcp-bbr`.
    pub peer: String,
    /// From 1.
    pub round: u32,
    /// Seed of the link's randomness.
    pub seed: u64,
    /// The measured time in seconds.
    pub seconds: f64,
    /// What came of it.
    pub outcome: Outcome,
    /// How the machine ran meanwhile; none in results of before it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standstill: Option<Standstill>,
}

/// How much a machine stood still: a thread that the processor has to run before all others woke more than 5 ms late.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standstill {
    /// The longest of these times beyond 5 ms, in milliseconds.
    pub longest_ms: f64,
    /// All of them, in percent of the measurement, of the processor that has most.
    pub percent: f64,
    /// How often it was measured again for that; this is the least disturbed of all.
    pub repeats: u32,
}

/// The workloads of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// A: 200 requests of 256 bytes per second, open loop.
    Messages,
    /// B: as much as the path takes, in one direction.
    Bulk,
    /// C: 64 requests of 256 bytes in flight on a path without limits.
    Concurrent,
    /// C: one request in flight.
    PingPong,
    /// C: bulk on a path without limits.
    BulkUnlimited,
    /// Two or more bulk flows on one bottleneck.
    Fairness,
}

/// A link's settings, the same in both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// What it is called in tables: `rtt50-loss5`, `rtt50-bursts`, `wifi`...
    pub name: String,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
    /// Independent loss in percent, in each direction.
    pub loss_percent: f64,
    /// Jitter in milliseconds up or down.
    pub jitter_ms: f64,
    /// Rate of the bottleneck in Mbit/s; none: no limit.
    pub rate_mbit: Option<f64>,
    /// Queue before the bottleneck in bytes.
    pub queue_bytes: Option<u64>,
    /// Burst loss, as `link` takes it.
    pub burst: Option<BurstLoss>,
}

/// Burst loss of a path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BurstLoss {
    /// Gilbert-Elliott: chances in percent per packet of good to bad and bad to good, and loss while bad.
    Packets {
        /// Good to bad.
        good_to_bad_percent: f64,
        /// Bad to good.
        bad_to_good_percent: f64,
        /// Loss while bad.
        loss_percent: f64,
    },
    /// Outages: mean milliseconds that the link works and that it loses everything.
    Outages {
        /// Mean time that it works.
        good_ms: f64,
        /// Mean time of an outage.
        bad_ms: f64,
    },
}

/// What came of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Requests and their latencies: A, and C's requests.
    Latency(Latency),
    /// Bulk.
    Goodput(Goodput),
    /// Flows that shared a bottleneck.
    Shares(Vec<Share>),
    /// The measurement failed, or the peer did: why.
    Failed(String),
}

/// Requests and their latencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Requests in the window.
    pub sent: u64,
    /// With an answer.
    pub received: u64,
    /// Without: in the histogram with their age.
    pub errors: u64,
    /// Nanoseconds: `HdrHistogram` V2, deflated, base64.
    pub histogram: String,
    /// Requests answered per second.
    pub per_s: f64,
    /// Bytes sent by the client, IP headers included.
    pub wire_bytes_sent: u64,
    /// Bytes received by the client, IP headers included.
    pub wire_bytes_received: u64,
    /// Processor time of client and server in seconds.
    pub cpu_s: f64,
    /// What was lost and came after all, over Quantum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// Bulk in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// Application bits per second that the receiver got, in Mbit/s.
    pub mbit_per_s: f64,
    /// Mean bytes in the bottleneck's queue, where the link counts them.
    pub queue_bytes_mean: Option<f64>,
    /// Bytes sent by the client, IP headers included.
    pub wire_bytes_sent: u64,
    /// Processor time of client and server in seconds.
    pub cpu_s: f64,
}

/// A flow's part of a bottleneck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// What carried it, such as `quantum-grpc`, `tcp-cubic`.
    pub peer: String,
    /// Goodput over the second half in Mbit/s.
    pub mbit_per_s: f64,
}
