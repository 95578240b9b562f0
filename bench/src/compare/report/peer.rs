//! Peers: their order, and how a line or bar of one looks, the same in every chart.

/// What the targets are about.
pub(super) const OURS: &str = "quantum-grpc";
/// A stream of Quantum for each message, without gRPC.
pub(super) const RAW: &str = "quantum";
/// The same, answered on the shard.
pub(super) const ECHO: &str = "quantum-echo";
/// The same, on shards that spin.
pub(super) const SPINNING: &str = "quantum-echo-spin";
/// Ends the name of a peer that has one thread of tokio on each side.
pub(super) const ONE_WORKER: &str = "-1-worker";
/// QUIC that answers every request at 10 % loss. With CUBIC it falls behind, and what it does not send costs no bytes.
pub(super) const QUINN: &str = "quinn-bbr";

/// Peers with the same code behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    QuantumGrpc,
    Quantum,
    TcpGrpc,
    Tcp,
    Quinn,
    S2n,
    Kcp,
    Other,
}

impl Family {
    pub(super) fn of(peer: &str) -> Self {
        match peer {
            _ if peer.starts_with(OURS) => Self::QuantumGrpc,
            _ if peer.starts_with(RAW) => Self::Quantum,
            _ if peer.starts_with("tcp-grpc") => Self::TcpGrpc,
            _ if peer.starts_with("tcp") => Self::Tcp,
            _ if peer.starts_with("quinn") || peer.starts_with("quic") => Self::Quinn,
            _ if peer.starts_with("s2n") => Self::S2n,
            _ if peer.starts_with("kcp") => Self::Kcp,
            _ => Self::Other,
        }
    }

    pub(super) fn ours(self) -> bool {
        matches!(self, Self::QuantumGrpc | Self::Quantum)
    }

    pub(super) fn quic(self) -> bool {
        matches!(self, Self::Quinn | Self::S2n)
    }

    /// Each has a contrast of 3 or more to white and to black.
    pub(super) fn colour(self) -> &'static str {
        match self {
            Self::QuantumGrpc => "#ea580c",
            Self::Quantum => "#b8860b",
            Self::TcpGrpc => "#3b82f6",
            Self::Tcp => "#0d9488",
            Self::Quinn => "#a855f7",
            Self::S2n => "#db2777",
            Self::Kcp => "#65a30d",
            Self::Other => "#78808a",
        }
    }

    /// The class that carries the colour.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::QuantumGrpc => "qg",
            Self::Quantum => "qu",
            Self::TcpGrpc => "tg",
            Self::Tcp => "tc",
            Self::Quinn => "qn",
            Self::S2n => "s2",
            Self::Kcp => "kc",
            Self::Other => "ot",
        }
    }

    pub(super) const ALL: [Self; 8] =
        [Self::QuantumGrpc, Self::Quantum, Self::TcpGrpc, Self::Tcp, Self::Quinn, Self::S2n, Self::Kcp, Self::Other];
}

/// Colour says what carries the messages, the dashes which congestion control.
pub(super) fn classes(peer: &str) -> String {
    let mut classes = Family::of(peer).class().to_owned();
    if peer.contains("cubic") {
        classes.push_str(" dash");
    } else if peer.starts_with(ECHO) {
        classes.push_str(" dots");
    }
    classes
}

/// Ours first, then families as they stand in [`Family`], BBR before others, then by name.
pub(super) fn rank(peer: &str) -> (Family, bool, &str) {
    (Family::of(peer), !peer.contains("bbr"), peer)
}
