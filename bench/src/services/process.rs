//! A process as the kernel sees it: its processor time, and what it holds.

use std::collections::HashSet;

use serde::Serialize;

/// Of `proc_pid_stat(5)`; `USER_HZ` is 100 on every architecture that Linux still has.
const TICKS_PER_S: f64 = 100.0;
/// Of `proc_pid_net(5)`: a connection that both ends agree on.
const ESTABLISHED: &str = "01";
/// Columns of that table.
const REMOTE: usize = 2;
const STATE: usize = 3;
const INODE: usize = 9;

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Holdings {
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    pub(super) descriptors: u64,
    /// TCP connections to the store's server.
    pub(super) store_connections: u64,
}

impl Holdings {
    /// Of a process, and its connections to servers at `store_port`; nothing if it is gone.
    pub(super) fn of(id: u32, store_port: Option<u16>) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let folder = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?;
        let mut descriptors = 0;
        let mut sockets = HashSet::new();
        // One that is closed meanwhile is no longer held.
        for target in folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
            descriptors += 1;
            let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
            sockets.extend(inode.map(str::to_owned));
        }
        let table = |name: &str| std::fs::read_to_string(format!("/proc/{id}/net/{name}")).unwrap_or_default();
        let connected =
            |port: u16| ["tcp", "tcp6"].map(|name| connections(&table(name), port, &sockets)).iter().sum::<u64>();
        Some(Self {
            resident_bytes: number(&status, "VmRSS:")? * 1024,
            threads: number(&status, "Threads:")?,
            descriptors,
            store_connections: store_port.map_or(0, connected),
        })
    }
}

/// The memory that a process has resident, in bytes.
pub(super) fn resident_bytes(id: u32) -> Option<u64> {
    Some(number(&std::fs::read_to_string(format!("/proc/{id}/status")).ok()?, "VmRSS:")? * 1024)
}

/// User and system time in seconds of a server that is several processes: of the first one, of those that it waited for, and of those
/// that it started and that still run.
pub(super) fn cpu_s_of_server(id: u32) -> Option<f64> {
    let stat = |id: u32| std::fs::read_to_string(format!("/proc/{id}/stat")).ok();
    let first = times(&stat(id)?)?;
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| times(&stat(child.parse().ok()?)?));
    let ticks = first.iter().sum::<u64>() + children.map(|child| child[0] + child[1]).sum::<u64>();
    Some(ticks as f64 / TICKS_PER_S)
}

/// User and system time, then the same of the children that were waited for, in `proc_pid_stat(5)`: fields 14 to 17. The name before
/// them may hold spaces and parentheses.
fn times(stat: &str) -> Option<[u64; 4]> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse().ok());
    Some([times.next()?, times.next()?, times.next()?, times.next()?])
}

/// The number of a line of `proc_pid_status(5)`, which has memory in KiB.
fn number(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Established connections to a port, of a table of `proc_pid_net(5)`, that are among `sockets`.
fn connections(table: &str, port: u16, sockets: &HashSet<String>) -> u64 {
    let port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| {
        let is = |column: usize, test: &dyn Fn(&str) -> bool| row.get(column).is_some_and(|text| test(text));
        is(REMOTE, &|remote| remote.ends_with(&port))
            && is(STATE, &|state| state == ESTABLISHED)
            && is(INODE, &|inode| sockets.contains(inode))
    })
    .count() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Holdings, connections, cpu_s_of_server, number, times};

    #[test]
    fn the_times_of_a_process_and_of_its_children_are_found_behind_its_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 5 6 20 0 1 0 100 1000 10";
        assert_eq!(times(stat), Some([31, 11, 5, 6]));
        assert_eq!((times("7 (a) S 1"), times("")), (None, None));
        assert!(cpu_s_of_server(std::process::id()).is_some() && cpu_s_of_server(u32::MAX).is_none());
    }

    #[test]
    fn connections_to_the_store_are_told_from_others() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:9C40 0100007F:1538 01 00000000:00000000 00:00000000 00000000 0 0 11 1 0 20 4 30 10 -1\n\
                     1: 0100007F:9C41 0100007F:1538 06 00000000:00000000 00:00000000 00000000 0 0 12 1 0 20 4 30 10 -1\n\
                     2: 0100007F:9C42 0100007F:1538 01 00000000:00000000 00:00000000 00000000 0 0 13 1 0 20 4 30 10 -1\n\
                     3: 0100007F:1538 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 14 1 0 20 4 30 10 -1\n";
        let ours: HashSet<String> = ["11", "12", "14"].map(str::to_owned).into();
        assert_eq!(connections(table, 0x1538, &ours), 1);
        assert_eq!(connections(table, 80, &ours), 0);
    }

    #[test]
    fn what_this_process_holds_is_found() {
        let held = Holdings::of(std::process::id(), Some(1)).unwrap();
        assert!(held.resident_bytes > 1 << 16 && held.threads > 0 && held.descriptors > 2, "{held:?}");
        assert_eq!((held.store_connections, number("A:\t7 kB\n", "A:"), number("", "A:")), (0, Some(7), None));
        assert!(Holdings::of(u32::MAX, None).is_none());
    }
}
