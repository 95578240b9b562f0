//! Made-up results, in the shape of a full campaign. None of its figures was measured.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use crate::compare::model::{BurstLoss, Cell, Goodput, Latency, Machine, Outcome, Path, Results, Share, Workload};
use crate::load;

pub(super) const PEERS: [&str; 8] =
    ["tcp-bbr", "quantum", "tcp-grpc-cubic", "quinn-bbr", "tcp-cubic", "quantum-grpc", "tcp-grpc-bbr", "quinn-cubic"];
const ROUNDS: u32 = 3;

pub(super) fn results(cells: Vec<Cell>) -> Results {
    Results {
        machine: Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            kernel: "Linux 6.18.0".to_owned(),
            congestion_controls: vec!["bbr".to_owned(), "cubic".to_owned()],
        },
        commit: "0123456789abcdef".to_owned(),
        dirty: true,
        started: "2026-01-02T03:04:05Z".to_owned(),
        ended: "2026-01-02T05:04:05Z".to_owned(),
        plan: "full".to_owned(),
        rounds: ROUNDS,
        cipher: "TLS13_AES_128_GCM_SHA256, X25519".to_owned(),
        cells,
    }
}

pub(super) fn path(rtt_ms: f64, loss_percent: f64) -> Path {
    Path {
        name: format!("rtt{rtt_ms}-loss{loss_percent}"),
        rtt_ms,
        loss_percent,
        jitter_ms: 0.0,
        rate_mbit: Some(100.0),
        queue_bytes: Some((rtt_ms * 12_500.0) as u64),
        burst: None,
    }
}

pub(super) fn cell(workload: Workload, path: Path, peer: &str, round: u32, outcome: Outcome) -> Cell {
    Cell {
        workload,
        path,
        peer: peer.to_owned(),
        round,
        seed: u64::from(round) * 7,
        seconds: 20.0,
        outcome,
        standstill: None,
    }
}

/// Latencies in milliseconds with how many of each.
pub(super) fn latency(values: &[(f64, u64)]) -> Outcome {
    let mut histogram = load::histogram();
    for (ms, count) in values {
        histogram.saturating_record_n((ms * 1e6) as u64, *count);
    }
    let sent = histogram.len();
    let mut packed = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut packed).unwrap();
    Outcome::Latency(Latency {
        sent,
        received: sent,
        errors: 0,
        histogram: STANDARD.encode(packed),
        per_s: sent as f64 / 20.0,
        wire_bytes_sent: sent * 420,
        wire_bytes_received: sent * 400,
        cpu_s: sent as f64 * 40e-6,
        recovery: None,
    })
}

/// How much worse a peer is in this made-up world, and how it takes loss.
fn traits(peer: &str) -> (f64, f64) {
    match peer {
        "quantum-grpc" => (1.01, 0.02),
        "quantum" => (1.0, 0.02),
        "quinn-bbr" => (1.005, 0.9),
        "quinn-cubic" => (1.006, 1.1),
        "tcp-grpc-bbr" => (1.02, 2.2),
        "tcp-grpc-cubic" => (1.02, 4.0),
        "tcp-bbr" => (1.0, 1.8),
        _ => (1.0, 3.6),
    }
}

/// One of 100 requests in twenty meets a lost packet, then another.
pub(super) fn plausible(peer: &str, path: &Path, round: u32) -> Outcome {
    let (base, worse) = traits(peer);
    let loss = path.loss_percent / 100.0 + if path.burst.is_some() { 0.04 } else { 0.0 };
    let total = 4_000.0;
    let mut values = Vec::new();
    for nth in 0..60_u32 {
        let share = f64::from(nth) / 60.0;
        let ms = path.rtt_ms * base + 0.3 + path.jitter_ms * share + 0.02 * share * share + 0.01 * f64::from(round);
        values.push((ms, (total * (1.0 - 2.0 * loss) / 60.0) as u64));
    }
    for again in 1..5 {
        let count = total * (2.0 * loss).powi(again);
        let ms = path.rtt_ms * (base + worse * f64::from(again)) + 2.0 * worse;
        for nth in 0..10 {
            values.push((ms * (1.0 + f64::from(nth) * 0.01), (count / 10.0) as u64));
        }
    }
    latency(&values)
}

fn goodput(peer: &str, path: &Path, round: u32) -> Outcome {
    let (_, worse) = traits(peer);
    let rate = path.rate_mbit.unwrap_or(9_000.0);
    let loss = path.loss_percent * worse * path.rtt_ms.ln().max(0.3);
    Outcome::Goodput(Goodput {
        mbit_per_s: rate * (0.96 - path.rtt_ms / 2_000.0) / (1.0 + loss * 0.02) * (1.0 - 0.03 * f64::from(round)),
        queue_bytes_mean: Some(path.rtt_ms * 12_500.0 * 0.1 * (1.0 + worse)),
        wire_bytes_sent: 100_000_000,
        cpu_s: 2.0 + worse,
    })
}

fn profiles() -> Vec<Path> {
    let of = |name: &str, (rtt_ms, loss_percent, jitter_ms)| Path {
        name: name.to_owned(),
        jitter_ms,
        ..path(rtt_ms, loss_percent)
    };
    let packets = BurstLoss::Packets { good_to_bad_percent: 1.04, bad_to_good_percent: 25.0, loss_percent: 100.0 };
    vec![
        Path { burst: Some(packets), ..of("rtt50-bursts", (50.0, 0.0, 0.0)) },
        Path {
            burst: Some(BurstLoss::Outages { good_ms: 480.0, bad_ms: 20.0 }),
            ..of("rtt50-outages", (50.0, 0.0, 0.0))
        },
        of("wifi", (10.0, 2.0, 5.0)),
        of("4g", (60.0, 1.0, 20.0)),
        of("overseas", (180.0, 3.0, 10.0)),
    ]
}

pub(super) fn unlimited() -> Path {
    Path { name: "unlimited".to_owned(), rate_mbit: None, queue_bytes: None, ..path(0.05, 0.0) }
}

/// All workloads and peers, with a peer that fails, a round that is missing and one that failed.
pub(super) fn campaign() -> Vec<Cell> {
    let mut cells = Vec::new();
    for round in 1..=ROUNDS {
        let grid = [1.0, 20.0, 50.0, 100.0, 200.0]
            .into_iter()
            .flat_map(|rtt_ms| [0.0, 1.0, 5.0, 10.0, 20.0, 30.0].map(|loss| path(rtt_ms, loss)));
        for path in grid.clone().chain(profiles()) {
            for peer in PEERS {
                let outcome = match (peer, path.loss_percent as u32, round) {
                    ("tcp-grpc-cubic", 30, _) => Outcome::Failed("no connection within 30 s".to_owned()),
                    ("quinn-cubic", 10, 2) => Outcome::Failed("too many gaps in stream buffer".to_owned()),
                    ("tcp-cubic", 20, 3) => continue,
                    _ => plausible(peer, &path, round),
                };
                cells.push(cell(Workload::Messages, path.clone(), peer, round, outcome));
                if path.loss_percent <= 10.0
                    && path.burst.is_none()
                    && path.jitter_ms == 0.0
                    && !peer.contains("tcp-grpc")
                {
                    cells.push(cell(Workload::Bulk, path.clone(), peer, round, goodput(peer, &path, round)));
                }
            }
        }
        for (nth, peer) in PEERS.into_iter().enumerate() {
            for workload in [Workload::Concurrent, Workload::PingPong] {
                let values = [(0.05 + nth as f64 * 0.01, 90_000 * nth as u64 + 100_000), (0.3, 1_000)];
                cells.push(cell(workload, unlimited(), peer, round, latency(&values)));
            }
            cells.push(cell(Workload::BulkUnlimited, unlimited(), peer, round, goodput(peer, &unlimited(), round)));
        }
        cells.extend(shared(round));
    }
    cells
}

fn shared(round: u32) -> Vec<Cell> {
    let share = |peer: &str, mbit_per_s: f64| Share { peer: peer.to_owned(), mbit_per_s };
    let mut cells = Vec::new();
    for rtt_ms in [20.0, 50.0] {
        let bottleneck = || Path { name: format!("rtt{rtt_ms}-shared"), ..path(rtt_ms, 0.0) };
        let cases = [
            ("2 x quantum-grpc", vec![share("quantum-grpc", 47.0), share("quantum-grpc", 46.0)]),
            ("10 x quantum-grpc", (0..10).map(|nth| share("quantum-grpc", 8.0 + f64::from(nth) * 0.3)).collect()),
            ("quantum-grpc + tcp-cubic", vec![share("quantum-grpc", 70.0), share("tcp-cubic", 22.0)]),
            ("quantum-grpc + tcp-bbr", vec![share("quantum-grpc", 50.0), share("tcp-bbr", 42.0)]),
        ];
        for (name, shares) in cases {
            cells.push(cell(Workload::Fairness, bottleneck(), name, round, Outcome::Shares(shares)));
        }
        let failed = Outcome::Failed("the second flow never started".to_owned());
        cells.push(cell(Workload::Fairness, bottleneck(), "2 x quinn-bbr", round, failed));
    }
    cells
}
