//! `aetherflow-bench compare` end to end: a tiny plan that is interrupted and resumed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aetherflow_bench::compare::model::{Outcome, Results, Workload};
use rustix::process::{Pid, Signal};
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_aetherflow-bench");
/// Two rounds; in each, messages by two peers at the same time and bulk by one after the other.
const CELLS: usize = 8;

/// Whether links can be made and Quantum can run here. A machine that tests the project must be able to.
fn may_run() -> bool {
    let is_able = rustix::process::geteuid().is_root()
        && Path::new("/dev/net/tun").exists()
        && Command::new("ip").args(["netns", "list"]).output().is_ok_and(|output| output.status.success())
        && quantum_shard::Shards::check().is_ok();
    if !is_able {
        assert!(std::env::var_os("CI").is_none(), "compare needs root, /dev/net/tun, iproute2 and io_uring");
        println!("SKIPPED: compare needs root, /dev/net/tun, iproute2 and io_uring");
    }
    is_able
}

fn compare(out: &Path, flags: &[&str]) -> Child {
    let mut command = Command::new(BENCH);
    command.args(["compare", "--plan", "tiny", "--out"]).arg(out).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Lines of the file of measurements, its head not counted.
fn measured(out: &Path) -> usize {
    std::fs::read_to_string(out.join("cells.jsonl")).unwrap_or_default().lines().count().saturating_sub(1)
}

fn namespaces_of(id: u32) -> usize {
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().matches(&format!("aether-compare-{id}-")).count()
}

#[test]
fn an_interrupted_comparison_goes_on_where_it_was() {
    if !may_run() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let first = compare(&out, &[]);
    let (id, deadline) = (first.id(), Instant::now() + Duration::from_secs(20));
    // In the third group: some is measured, something is being measured.
    while (measured(&out) < 3 || namespaces_of(id) == 0) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    rustix::process::kill_process(Pid::from_raw(id as i32).unwrap(), Signal::INT).unwrap();
    let interrupted = Instant::now();
    let first = first.wait_with_output().unwrap();
    assert!(interrupted.elapsed() < Duration::from_secs(3), "it ends at once");
    assert_eq!(first.status.code(), Some(130), "{}", said(&first));
    assert!(said(&first).contains("--resume goes on"), "{}", said(&first));
    assert_eq!(namespaces_of(id), 0, "nothing is left behind");
    let line = last_line(&first);
    let done = measured(&out);
    assert!((3..CELLS).contains(&done) && line["cells"] == done && line["interrupted"] == true, "{line}");
    let results: Results = serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
    assert_eq!((results.cells.len(), results.rounds), (done, u32::from(done >= CELLS / 2)));

    let again = compare(&out, &[]).wait_with_output().unwrap();
    assert!(again.status.code() == Some(2) && said(&again).contains("give --resume"), "{}", said(&again));

    let second = compare(&out, &["--resume"]).wait_with_output().unwrap();
    assert!(second.status.success(), "{}", said(&second));
    assert!(said(&second).contains(&format!("{} of {CELLS} measurements", CELLS - done)), "{}", said(&second));
    let line = last_line(&second);
    assert!(line["cells"] == CELLS && line["failed"] == 0 && line["rounds"] == 2, "{line} {}", said(&second));
    let results: Results = serde_json::from_slice(&std::fs::read(out.join("results.json")).unwrap()).unwrap();
    check(&results);
}

fn check(results: &Results) {
    assert_eq!(results.cells.len(), CELLS);
    for cell in &results.cells {
        match (&cell.workload, &cell.outcome) {
            (Workload::Messages, Outcome::Latency(latency)) => {
                assert_eq!((latency.sent, latency.received + latency.errors), (200, 200), "{cell:?}");
                assert!(latency.wire_bytes_sent > 200 * 256 && !latency.histogram.is_empty(), "{cell:?}");
            }
            (Workload::Bulk, Outcome::Goodput(goodput)) => {
                assert!(goodput.mbit_per_s > 0.1 && goodput.mbit_per_s < 100.0, "{cell:?}");
                let queue = goodput.queue_bytes_mean.unwrap();
                assert!(queue > 0.0 && queue < 1.1 * cell.path.queue_bytes.unwrap() as f64, "{cell:?}");
            }
            _ => panic!("{cell:?}"),
        }
    }
    let mut seeds: Vec<_> = results.cells.iter().map(|cell| (cell.round, cell.seed)).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 2, "one seed for each round, the same for all peers");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for (flags, message) in
        [(&["--resume"][..], "--out <DIR>"), (&["--quick", "--plan", "tiny"], "cannot be used with")]
    {
        let output = Command::new(BENCH).arg("compare").args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(message), "{}", said(&output));
    }
    let help = Command::new(BENCH).args(["compare", "--help"]).output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("Examples:") && text.contains("--resume"), "{text}");
}
