//! What is compared, and the flags that make `serve`, `drive` and `bulk` it.

/// gRPC and plain streams over Quantum, kernel TCP, gRPC over it, and QUIC, with each congestion control.
pub(super) const ALL: [&str; 8] =
    ["quantum-grpc", "quantum", "tcp-cubic", "tcp-bbr", "tcp-grpc-cubic", "tcp-grpc-bbr", "quinn-cubic", "quinn-bbr"];
/// Without loss or delay, congestion control decides nothing: one of each.
pub(super) const UNLIMITED: [&str; 5] = ["quantum-grpc", "quantum", "tcp-cubic", "tcp-grpc-cubic", "quinn-cubic"];
/// The same with one thread of tokio on each side. Which of the two does more depends on the machine; the better one counts.
pub(super) const ONE_WORKER: [&str; 4] =
    ["quantum-grpc-1-worker", "quantum-1-worker", "tcp-grpc-cubic-1-worker", "quinn-cubic-1-worker"];
/// Says what forward error correction costs where nothing is lost.
pub(super) const WITHOUT_FEC: &str = "quantum-grpc-nofec";
/// Answers on the shard, which spins.
pub(super) const SPINNING: &str = "quantum-echo-spin";
/// Flows that share a bottleneck. Two mixes without Quantum say what a flow of the kernel's BBR leaves to others.
pub(super) const MIXES: [(&str, &[&str]); 6] = [
    ("quantum-x2", &["quantum"; 2]),
    ("quantum-x10", &["quantum"; 10]),
    ("quantum+tcp-cubic", &["quantum", "tcp-cubic"]),
    ("quantum+tcp-bbr", &["quantum", "tcp-bbr"]),
    ("tcp-cubic+tcp-bbr", &["tcp-cubic", "tcp-bbr"]),
    ("quinn-cubic+tcp-bbr", &["quinn-cubic", "tcp-bbr"]),
];

/// The flags of a peer.
pub(super) fn flags(peer: &str) -> anyhow::Result<&'static [&'static str]> {
    Ok(match peer {
        "quantum-grpc" => &["--transport", "quantum-grpc"],
        WITHOUT_FEC => &["--transport", "quantum-grpc", "--no-fec"],
        "quantum" => &["--transport", "quantum"],
        SPINNING => &["--transport", "quantum-echo", "--workers", "1", "--host", "bare", "--spin-us", "100"],
        "tcp-cubic" => &["--transport", "tcp", "--congestion", "cubic"],
        "tcp-bbr" => &["--transport", "tcp", "--congestion", "bbr"],
        "tcp-grpc-cubic" => &["--transport", "tcp-grpc", "--congestion", "cubic"],
        "tcp-grpc-bbr" => &["--transport", "tcp-grpc", "--congestion", "bbr"],
        "quinn-cubic" => &["--transport", "quic", "--congestion", "cubic"],
        "quinn-bbr" => &["--transport", "quic", "--congestion", "bbr"],
        "quantum-grpc-1-worker" => &["--transport", "quantum-grpc", "--workers", "1"],
        "quantum-1-worker" => &["--transport", "quantum", "--workers", "1"],
        "tcp-grpc-cubic-1-worker" => &["--transport", "tcp-grpc", "--congestion", "cubic", "--workers", "1"],
        "quinn-cubic-1-worker" => &["--transport", "quic", "--congestion", "cubic", "--workers", "1"],
        other => anyhow::bail!("there is no peer {other}"),
    })
}

/// The flows of a cell: those of a mix, or the one peer.
pub(super) fn flows(peer: &str) -> Vec<&str> {
    match MIXES.iter().find(|(name, ..)| *name == peer) {
        Some((_, flows)) => flows.to_vec(),
        None => vec![peer],
    }
}
