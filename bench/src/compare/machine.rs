//! Where and from what it was measured.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::model::Machine;
use crate::transport::congestion;

/// Of this machine.
pub(crate) fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = value(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned();
    let memory_kib = value(&read("/proc/meminfo"), "MemTotal")
        .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    let uname = rustix::system::uname();
    let words = [uname.sysname(), uname.release(), uname.version(), uname.machine()];
    Machine {
        processor,
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: memory_kib.unwrap_or(0) * 1024,
        kernel: words.map(std::ffi::CStr::to_string_lossy).join(" "),
        congestion_controls: congestion::available(),
    }
}

/// Of the first line `name : value`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The commit that is checked out where this was built, and whether files of it are changed.
pub(super) fn commit() -> (String, bool) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return ("unknown".to_owned(), false) };
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    (commit, !changes.is_empty())
}

/// Suite and key exchange that Quantum and QUIC agree on: both ends have the same provider and take its first.
pub(super) fn cipher() -> String {
    let provider = quantum_grpc::crypto_provider();
    let suite = provider.cipher_suites.iter().find(|suite| suite.tls13().is_some());
    match (suite, provider.kx_groups.first()) {
        (Some(suite), Some(group)) => format!("{:?}, {:?}", suite.suite(), group.name()),
        _ => "unknown".to_owned(),
    }
}

/// The present in RFC 3339, UTC.
pub(super) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    rfc3339(seconds)
}

/// Seconds since 1970 as date and time, by the calendar's 400-year cycle from 1 March 0000.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + next;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::{cipher, machine, rfc3339, value};

    #[test]
    fn seconds_become_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn the_machine_is_described() {
        assert_eq!(value("a\t: 1\nb : 2\n", "b"), Some("2"));
        let machine = machine();
        assert!(machine.memory_bytes > 1 << 26 && machine.cores > 0, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux ") && !machine.congestion_controls.is_empty(), "{machine:?}");
        assert!(cipher().starts_with("TLS13_"), "{}", cipher());
    }
}
