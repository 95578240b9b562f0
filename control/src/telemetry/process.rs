//! What the system knows of this process, by the names that Prometheus's own client libraries have for it.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::exposition::{Family, Kind};

/// Ticks per second of the times in `/proc`: what Linux tells programs on every architecture that this is built for, whatever its
/// own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

static STARTED: OnceLock<SystemTime> = OnceLock::new();

/// The process starts about now.
pub(super) fn mark_start() {
    STARTED.get_or_init(SystemTime::now);
}

/// The metrics of the process. What cannot be read is left out.
pub(super) fn families() -> Vec<Family> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (status, limits) = (read("status"), read("limits"));
    let started = STARTED.get().and_then(|started| started.duration_since(UNIX_EPOCH).ok());
    let gauge = |name, help, value: Option<f64>| value.map(|value| Family::number(name, help, Kind::Gauge, value));
    let cpu = cpu_seconds(&read("stat")).map(|seconds| {
        let help = "Seconds of processor time used, by the program and by the system for it";
        Family::number("process_cpu_seconds_total", help, Kind::Counter, seconds)
    });
    let gauges = [
        gauge("process_resident_memory_bytes", "Memory in use", kilobytes(&status, "VmRSS:")),
        gauge("process_virtual_memory_bytes", "Addresses in use", kilobytes(&status, "VmSize:")),
        gauge("process_threads", "Threads", field(&status, "Threads:")),
        gauge("process_open_fds", "Files and sockets that are open", open_files()),
        gauge("process_max_fds", "Files and sockets that may be open at once", field(&limits, "Max open files")),
        gauge("process_start_time_seconds", "When it started, since 1970", started.map(|since| since.as_secs_f64())),
    ];
    [cpu].into_iter().chain(gauges).flatten().collect()
}

/// The first number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    field(status, name).map(|kilobytes| kilobytes * 1024.0)
}

/// `utime` and `stime`, the 14th and 15th field (`proc_pid_stat(5)`); the second, in parentheses, may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// The one that lists them is not counted.
fn open_files() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Value;
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_program_is_called() {
        let stat = "7 (a) S 1 (b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 99 1000 50";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!((cpu_seconds(""), cpu_seconds("7 (a) S 1")), (None, None));
        let status = "Name:\tVmRSS: 1 kB\nVmRSS:\t   12 kB\nThreads:\t3\n";
        assert_eq!((kilobytes(status, "VmRSS:"), field(status, "Threads:")), (Some(12_288.0), Some(3.0)));
        let limit = |soft: &str| field(&format!("Max open files            {soft}    4096    files"), "Max open files");
        assert_eq!((limit("1024"), limit("unlimited")), (Some(1024.0), None));
    }

    #[test]
    fn this_process_is_known() {
        mark_start();
        let families = families();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"));
            let Value::Number(value) = family.series[0].value else { panic!("{name} is no number") };
            value
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((0.0..3600.0).contains(&age), "{age} s");
    }
}
