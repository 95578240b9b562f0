//! `aetherflow-bench services` as a user runs it, for a moment and with few clients: is everything answered, and right?
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_aetherflow-bench");
const CALLS: [&str; 6] =
    ["session-create", "session-get", "session-heartbeat", "document-create", "apply-1", "apply-100"];

/// What can carry calls here; nothing if the services' program is not there, which Cargo builds for the tests of the
/// workspace, but not for those of this package alone.
fn transports() -> Vec<&'static str> {
    if !Path::new(BENCH).with_file_name("aetherflow").exists() {
        assert!(std::env::var_os("CI").is_none(), "the program aetherflow is not built");
        println!("SKIPPED: the program aetherflow is not built: cargo build -p aetherflow");
        return Vec::new();
    }
    if let Err(error) = quantum_shard::Shards::check() {
        assert!(std::env::var_os("CI").is_none(), "{error}");
        println!("SKIPPED: services over Quantum: {error}");
        return vec!["tcp-grpc"];
    }
    vec!["tcp-grpc", "quantum-grpc"]
}

fn services(data: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    command.arg("services").arg("--data-dir").arg(data).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON of a run in which nothing failed.
fn measured(data: &Path, flags: &[&str]) -> Value {
    let output = services(data, flags).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{flags:?}: {} {text}", said(&output));
    assert_eq!(std::fs::read_dir(data).unwrap().count(), 0, "no data is left behind");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {value}"))
}

fn ordered(value: &Value) -> bool {
    let latencies = ["p50_us", "p99_us", "p999_us", "max_us"].map(|name| number(value, name));
    latencies[0] > 1.0 && latencies.is_sorted()
}

#[test]
fn every_call_is_answered_and_right_on_both_stores_over_both_transports() {
    let transports = transports();
    if transports.is_empty() {
        return;
    }
    for store in ["memory", "sqlite"] {
        let data = tempfile::tempdir().unwrap();
        let (only, carried) = (CALLS.join(","), transports.join(","));
        let connections = if store == "memory" { "1,3" } else { "3" };
        let flags = ["--only", &only, "--transport", &carried, "--store", store, "--connections", connections];
        // Without a warm-up the first call of every caller counts, however slow the disk is.
        let short = ["--seconds", "0.4", "--warmup", "0", "--in-flight", "4", "--spread", "50", "--json"];
        let result = measured(data.path(), &[&flags[..], &short].concat());
        assert!(result["store"] == store && result["failed"] == 0, "{result}");
        assert!(!result["file_system"].as_str().unwrap().is_empty(), "{result}");
        let cells = result["cells"].as_array().unwrap();
        assert_eq!(cells.len(), transports.len() * CALLS.len() * connections.split(',').count(), "{result}");
        for cell in cells {
            assert!(cell["errors"] == 0 && cell["failure"].is_null(), "{cell}");
            let (answered, per_s) = (number(cell, "answered"), number(cell, "per_s"));
            assert!(answered >= 4.0 && (per_s - answered / 0.4).abs() < 1.0, "{cell}");
            assert!(ordered(cell), "{cell}");
            // Half of the calls took the median at least, and all had to fit into the callers' time.
            let callers = number(cell, "connections") * number(cell, "in_flight");
            let least_us = answered / 2.0 * number(cell, "p50_us");
            assert!(least_us < 1.01 * callers * (0.4e6 + number(cell, "max_us")), "{cell}");
            let resident_bytes = number(cell, "server_resident_bytes");
            assert!(resident_bytes > 1e6 && number(cell, "server_cpu_s") < 10.0, "{cell}");
        }
        let targets = result["targets"].as_array().unwrap();
        let expected = if store == "sqlite" { transports.len() * 2 } else { 0 };
        assert_eq!(targets.len(), expected, "operations are durable on sqlite only: {result}");
        let judged = |target: &Value| target["met"] == (number(target, "measured") >= number(target, "wanted"));
        assert!(targets.iter().all(judged), "{result}");
    }
}

#[test]
fn every_event_comes_to_every_subscriber_also_beside_those_that_never_read() {
    for transport in transports() {
        let data = tempfile::tempdir().unwrap();
        let flags = ["--only", "fan-out", "--transport", transport, "--store", "memory", "--json", "--rounds", "1"];
        let size = ["--subscribers", "30", "--subscriber-connections", "3", "--stalled", "20", "--rate", "50"];
        let short = ["--seconds", "1", "--warmup", "0.2"];
        let result = measured(data.path(), &[&flags[..], &size, &short].concat());
        let parts = result["fan_out"].as_array().unwrap();
        let stalled: Vec<_> = parts.iter().map(|part| part["stalled"].as_u64().unwrap()).collect();
        assert_eq!(stalled, [0, 6], "{result}");
        for (part, stalled) in parts.iter().zip(stalled) {
            assert!(part["errors"] == 0 && part["failure"].is_null() && part["lagged"] == 0, "{part}");
            let expected = (30 - stalled) * 60;
            assert_eq!((part["expected"].as_u64(), part["delivered"].as_u64()), (Some(expected), Some(expected)));
            assert!(ordered(part), "{part}");
        }
        let targets = result["targets"].as_array().unwrap();
        assert_eq!(targets.len(), 1, "only the two parts are compared, as the size is another one: {result}");
        let ratio = number(&parts[1], "p99_us") / number(&parts[0], "p99_us");
        assert!((number(&targets[0], "measured") - ratio).abs() < 1e-9, "{result}");
    }
}

#[test]
fn people_see_a_table_and_each_measurement_as_it_is_done() {
    if transports().is_empty() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let flags = ["--only", "session-get,apply-1", "--transport", "tcp", "--connections", "2", "--seconds", "0.2"];
    let output = services(data.path(), &[&flags[..], &["--warmup", "0"]].concat()).output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for line in ["[1/2] session-get over tcp-grpc", "[2/2] apply-1 over tcp-grpc", "store sqlite, data in ", "p99 ms"] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
    assert!(said.contains("apply-1 over tcp-grpc, durable: "), "{said}");
}

#[test]
fn an_interrupted_run_ends_early_and_leaves_nothing() {
    if transports().is_empty() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let running = services(data.path(), &["--only", "session-get", "--transport", "tcp-grpc"]).spawn().unwrap();
    // The folder of a service within that of the run.
    let is_measuring = || {
        let runs = std::fs::read_dir(data.path()).unwrap().filter_map(|run| std::fs::read_dir(run.ok()?.path()).ok());
        runs.flatten().next().is_some()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_measuring() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_raw(running.id() as i32).unwrap(), Signal::INT).unwrap();
    let interrupted = Instant::now();
    let output = running.wait_with_output().unwrap();
    assert!(interrupted.elapsed() < Duration::from_secs(15), "it ends long before it is done");
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("interrupted") && output.stdout.is_empty(), "{}", said(&output));
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "no data is left behind");
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let cases: [(&[&str], &str); 9] = [
        (&["--store", "redis"], "possible values: memory, sqlite"),
        (&["--only", "apply-2"], "possible values: session-create"),
        (&["--connections", "0"], "--connections must be 1 to 1000"),
        (&["--in-flight", "0"], "--in-flight must be 1 to 512"),
        (&["--seconds", "0"], "--seconds must be over 0"),
        (&["--rate", "0"], "--rate must be over 0"),
        (&["--rate", "1000", "--seconds", "60"], "fan-out takes 50000 operations at most"),
        (&["--subscribers", "20000"], "raise --subscriber-connections until they are at most 1000"),
        (&["--subscriber-connections", "2", "--stalled", "50"], "would stop the others by flow control"),
    ];
    let data = tempfile::tempdir().unwrap();
    for (flags, message) in cases {
        let output = services(data.path(), flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", said(&output));
        assert!(said(&output).contains(message), "{flags:?}: {}", said(&output));
    }
}
