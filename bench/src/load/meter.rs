//! What a stretch of time cost: processor time of this process and bytes on the wire.

use std::net::IpAddr;

use quantum::RecoveryStats;
use quantum_grpc::Endpoint;
use rustix::time::{ClockId, clock_gettime};

/// Bytes before the payload of a datagram: IP without options, and UDP.
const HEADERS_V4: u64 = 20 + 8;
const HEADERS_V6: u64 = 40 + 8;
/// Of `proc_pid_stat(5)`; `USER_HZ` is 100 on every architecture that Linux still has.
const TICKS_PER_S: f64 = 100.0;

/// Who counts the bytes on the wire, IP headers included.
#[derive(Debug, Clone)]
pub enum Wire {
    /// The loopback interface if the peer is there, else all others of this network namespace.
    Interfaces {
        /// The peer is on loopback.
        loopback: bool,
    },
    /// The shards of an endpoint, which is all that they carry.
    Shards {
        /// Theirs.
        endpoint: Endpoint,
        /// Bytes of a datagram that they do not count.
        headers: u64,
    },
}

impl Wire {
    /// Counted by the interfaces.
    pub fn of_interfaces(peer: IpAddr) -> Self {
        Self::Interfaces { loopback: peer.is_loopback() }
    }

    /// Counted by an endpoint's shards.
    pub fn of_shards(endpoint: &Endpoint, peer: IpAddr) -> Self {
        let headers = if peer.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
        Self::Shards { endpoint: endpoint.clone(), headers }
    }

    /// Bytes received and sent so far.
    fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Interfaces { loopback } => {
                let table = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
                interface_bytes(&table, *loopback)
            }
            Self::Shards { endpoint, headers } => {
                endpoint.shard_stats().iter().fold((0, 0), |(received, sent), shard| {
                    (
                        received + shard.received_bytes + headers * shard.received_datagrams,
                        sent + shard.sent_bytes + headers * shard.sent_datagrams,
                    )
                })
            }
        }
    }
}

impl Wire {
    /// How long what was lost was missing, so far; of shards only.
    fn recovery(&self) -> Option<RecoveryStats> {
        let Self::Shards { endpoint, .. } = self else { return None };
        let shards = endpoint.shard_stats();
        Some(shards.iter().fold(RecoveryStats::default(), |all, shard| all.with(&shard.timings.recovery)))
    }
}

/// What is read: this process, its wire, and the server's process if it is on this machine and known.
#[derive(Debug, Clone)]
pub struct Meters {
    wire: Wire,
    server: Option<u32>,
}

impl Meters {
    /// With the server's process id, if its processor time is asked for.
    pub fn new(wire: Wire, server: Option<u32>) -> Self {
        Self { wire, server }
    }

    /// Reads the counters.
    pub fn read(&self) -> Meter {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let (wire_bytes_received, wire_bytes_sent) = self.wire.bytes();
        Meter {
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            server_cpu_s: self.server.and_then(cpu_s_of),
            wire_bytes_sent,
            wire_bytes_received,
            recovery: self.wire.recovery(),
        }
    }
}

/// A reading of the counters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    /// User and system time of this process, all threads, in seconds.
    pub cpu_s: f64,
    /// The same of the server's process.
    pub server_cpu_s: Option<f64>,
    /// Bytes that left, IP headers included.
    pub wire_bytes_sent: u64,
    /// Bytes that came in.
    pub wire_bytes_received: u64,
    /// How long what was lost was missing, over Quantum.
    pub recovery: Option<RecoveryStats>,
}

impl Meter {
    /// What was counted since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - earlier.cpu_s,
            server_cpu_s: self.server_cpu_s.zip(earlier.server_cpu_s).map(|(later, earlier)| later - earlier),
            wire_bytes_sent: self.wire_bytes_sent.saturating_sub(earlier.wire_bytes_sent),
            wire_bytes_received: self.wire_bytes_received.saturating_sub(earlier.wire_bytes_received),
            recovery: self.recovery.map(|later| later.since(&earlier.recovery.unwrap_or_default())),
        }
    }
}

/// User and system time of a process in seconds, in steps of 10 ms; nothing if there is no such process.
fn cpu_s_of(process: u32) -> Option<f64> {
    ticks(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?).map(|ticks| ticks as f64 / TICKS_PER_S)
}

/// User and system time in `proc_pid_stat(5)`, fields 14 and 15. The name before them may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

/// Received and sent bytes in the kernel's table (`proc_net(5)`): eight columns for receive, then eight for transmit.
fn interface_bytes(table: &str, loopback: bool) -> (u64, u64) {
    let rows = table.lines().skip(2).filter_map(|line| line.split_once(':'));
    let rows = rows.filter(|(name, _)| (name.trim() == "lo") == loopback);
    rows.fold((0, 0), |(received, sent), (_, columns)| {
        let mut columns = columns.split_whitespace().map(|column| column.parse().unwrap_or(0));
        (received + columns.next().unwrap_or(0), sent + columns.nth(7).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::{cpu_s_of, interface_bytes, ticks};

    #[test]
    fn the_times_of_a_process_are_found_behind_its_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 5 6 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!((ticks("7 (a) S 1"), ticks("")), (None, None));
        assert!(cpu_s_of(std::process::id()).is_some() && cpu_s_of(u32::MAX).is_none());
    }

    #[test]
    fn the_right_columns_of_the_right_interfaces_are_counted() {
        let table = "Inter-|   Receive    |  Transmit\n face |bytes ...\n    lo:  11 2 0 0 0 0 0 0  13 2 0 0 0 0 0 0\n\
                     afl0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(interface_bytes(table, true), (11, 13));
        assert_eq!(interface_bytes(table, false), (101, 202));
    }
}
