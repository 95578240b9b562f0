//! `aetherflow-bench services` as a user runs it, for a moment and with few clients: is everything answered, and right?
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use private_stores::{Programs, StartError};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const BENCH: &str = env!("CARGO_BIN_EXE_aetherflow-bench");
const SESSION_CALLS: [&str; 6] =
    ["session-create", "session-get", "session-heartbeat", "session-update", "session-delete", "session-list"];
const DOCUMENT_CALLS: [&str; 8] = [
    "document-create",
    "document-get",
    "document-list",
    "document-update",
    "document-lock",
    "apply-single",
    "apply-1",
    "apply-100",
];

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

/// Where `.ci/tools.sh` puts what tests use and a machine may lack: beside the build.
fn tools() -> PathBuf {
    Path::new(BENCH).ancestors().nth(2).unwrap().join("tools")
}

/// A folder that the user whom PostgreSQL runs as can reach.
fn data() -> TempDir {
    let data = tempfile::tempdir().unwrap();
    std::fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();
    data
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

/// What is true of every measurement of calls for 0.4 s, which a machine that stands still may miss: few do.
fn check_cells(cells: &[Value]) {
    let answered = cells.iter().filter(|cell| check_cell(cell)).count();
    assert!(answered * 4 >= cells.len() * 3, "{answered} of {} measurements saw an answer", cells.len());
}

/// Whether there was an answer; the figures of one without are nothing.
fn check_cell(cell: &Value) -> bool {
    assert!(cell["errors"] == 0 && cell["failure"].is_null(), "{cell}");
    let (answered, per_s) = (number(cell, "answered"), number(cell, "per_s"));
    assert!((per_s - answered / 0.4).abs() < 1.0, "{cell}");
    if answered < 1.0 {
        return false;
    }
    assert!(ordered(cell), "{cell}");
    // Half of the calls took the median at least, and all had to fit into the callers' time.
    let callers = number(cell, "connections") * number(cell, "in_flight");
    let least_us = answered / 2.0 * number(cell, "p50_us");
    assert!(least_us < 1.01 * callers * (0.4e6 + number(cell, "max_us")), "{cell}");
    let resident_bytes = number(cell, "server_resident_bytes");
    assert!(resident_bytes > 1e6 && number(cell, "server_cpu_s") < 10.0, "{cell}");
    true
}

/// Without a warm-up the first call of every caller counts, however slow the disk is.
const SHORT: [&str; 7] = ["--seconds", "0.4", "--warmup", "0", "--spread", "50", "--json"];

#[test]
fn every_call_is_answered_and_right_on_both_embedded_stores_over_both_transports() {
    let transports = transports();
    if transports.is_empty() {
        return;
    }
    let calls = [&SESSION_CALLS[..], &DOCUMENT_CALLS].concat();
    for store in ["memory", "sqlite"] {
        let data = data();
        let (only, carried) = (calls.join(","), transports.join(","));
        let connections = if store == "memory" { "1,3" } else { "3" };
        let flags = ["--only", &only, "--transport", &carried, "--store", store, "--connections", connections];
        let result = measured(data.path(), &[&flags[..], &SHORT, &["--in-flight", "4"]].concat());
        assert!(result["stores"][0] == store && result["failed"] == 0, "{result}");
        assert!(!result["file_system"].as_str().unwrap().is_empty(), "{result}");
        let cells = result["cells"].as_array().unwrap();
        assert_eq!(cells.len(), transports.len() * calls.len() * connections.split(',').count(), "{result}");
        for cell in cells {
            assert!(cell["store"] == store && cell["store_cpu_s"].is_null(), "{cell}");
        }
        check_cells(cells);
        let targets = result["targets"].as_array().unwrap();
        let expected = if store == "sqlite" { transports.len() * 2 } else { 0 };
        assert_eq!(targets.len(), expected, "operations are durable on sqlite only: {result}");
        let judged = |target: &Value| target["met"] == (number(target, "measured") >= number(target, "wanted"));
        assert!(targets.iter().all(judged), "{result}");
    }
}

/// On a server that the bench starts; none if it is not installed.
fn on_a_server(store: &str, calls: &[&str], programs: Result<PathBuf, StartError>) {
    let transports = transports();
    if transports.is_empty() {
        return;
    }
    if let Err(missing) = programs {
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("SKIPPED: services on {store}: {missing}");
        return;
    }
    let data = data();
    let (only, carried, tools) = (calls.join(","), transports.join(","), tools());
    let flags = ["--only", &only, "--transport", &carried, "--store", store, "--connections", "1"];
    let found = ["--tools", tools.to_str().unwrap()];
    let result = measured(data.path(), &[&flags[..], &found, &SHORT].concat());
    let cells = result["cells"].as_array().unwrap();
    assert_eq!(cells.len(), transports.len() * calls.len(), "{result}");
    for cell in cells {
        assert!(cell["store"] == store && number(cell, "store_cpu_s") < 10.0, "{cell}");
    }
    check_cells(cells);
    let targets = result["targets"].as_array().unwrap();
    assert!(targets.len() >= transports.len() * 5, "the table of {store} is judged: {result}");
}

#[test]
fn sessions_are_kept_by_a_redis_server_of_its_own() {
    on_a_server("redis", &SESSION_CALLS, programs().redis_server());
}

#[test]
fn documents_are_kept_by_a_postgresql_server_of_its_own() {
    on_a_server("postgres", &DOCUMENT_CALLS, programs().postgres_folder());
}

/// As the bench looks for them.
fn programs() -> Programs {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Programs::new([tools().join("bin")], std::env::split_paths(&path))
}

#[test]
fn a_run_of_several_stores_beside_the_floor_writes_lines_and_a_summary() {
    if transports().is_empty() {
        return;
    }
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let stores = ["--store", "tonic-floor,memory", "--only", "session-get,document-get", "--transport", "tcp"];
    let files = ["--connections", "2", "--out", out.path().to_str().unwrap()];
    let result = measured(data.path(), &[&stores[..], &files, &SHORT].concat());
    let of: Vec<_> =
        result["cells"].as_array().unwrap().iter().map(|cell| (&cell["store"], &cell["scenario"])).collect();
    assert_eq!(of.len(), 3, "the floor has no documents: {result}");
    assert!(of[0] == (&"tonic-floor".into(), &"session-get".into()) && of[1].0 == "memory", "{result}");
    let targets = result["targets"].as_array().unwrap();
    let share = number(&result["cells"][1], "per_s") / number(&result["cells"][0], "per_s");
    assert!(targets.len() == 1 && (number(&targets[0], "measured") - share).abs() < 1e-9, "{result}");
    let lines = std::fs::read_to_string(out.path().join("results.jsonl")).unwrap();
    let kinds: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(kinds.len() == 3 && kinds.iter().all(|line| line["kind"] == "cell"), "{lines}");
    let summary = std::fs::read_to_string(out.path().join("summary.md")).unwrap();
    for part in ["## Targets", "1 of 1 are met", "| document-get | memory | tcp-grpc | 2 |", "plain tonic floor"] {
        let part = if share < 0.85 { part.replace("1 of 1", "0 of 1") } else { part.to_owned() };
        assert!(summary.contains(&part), "{part:?} is missing in {summary}");
    }
}

#[test]
fn paced_operations_are_as_many_as_were_due() {
    if transports().is_empty() {
        return;
    }
    // On no disk, where there is such a folder: a slow one may take longer than the bench waits.
    let data = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| data());
    let flags = ["--only", "apply-paced", "--transport", "tcp", "--connections", "4", "--seconds", "0.2"];
    let result = measured(data.path(), &[&flags[..], &["--warmup", "0.1", "--spread", "50", "--json"]].concat());
    let cell = &result["cells"][0];
    assert!(cell["errors"] == 0 && cell["failure"].is_null() && number(cell, "rate") > 9_999.0, "{cell}");
    // A fifth of a second at 10,000/s, whatever the machine takes: who is late is counted with the time that it waited.
    let answered = number(cell, "answered");
    assert!((answered - 2000.0).abs() <= 64.0, "{cell}");
    assert_eq!(result["targets"].as_array().unwrap().len(), 1, "the latency is judged: {result}");
}

#[test]
fn an_edit_comes_to_other_subscribers_over_a_link() {
    let transports = transports();
    let has_link = geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if transports.is_empty() || !has_link {
        assert!(has_link || std::env::var_os("CI").is_none(), "no root, or no TUN devices");
        println!("SKIPPED: edits over a link: no root, or no TUN devices");
        return;
    }
    let (data, carried) = (data(), transports.join(","));
    let flags = ["--only", "edit-to-subscriber", "--transport", &carried, "--store", "memory"];
    let result = measured(data.path(), &[&flags[..], &["--seconds", "1", "--warmup", "0.2", "--json"]].concat());
    let edits = result["edits"].as_array().unwrap();
    assert_eq!(edits.len(), transports.len(), "{result}");
    for edit in edits {
        assert!(edit["errors"] == 0 && edit["failure"].is_null() && edit["lagged"] == 0, "{edit}");
        assert_eq!(edit["delivered"].as_u64(), Some(4 * 60), "{edit}");
        assert!(ordered(edit) && number(edit, "p50_us") > 20_000.0, "nothing is faster than the link: {edit}");
    }
    assert_eq!(result["targets"].as_array().unwrap().len(), transports.len(), "{result}");
}

#[test]
fn a_soak_of_half_of_the_load_watches_the_process() {
    if transports().is_empty() {
        return;
    }
    let data = data();
    let flags = ["--soak", "6s", "--only", "session-heartbeat", "--transport", "tcp", "--connections", "4"];
    let output = services(data.path(), &[&flags[..], &["--seconds", "0.5", "--warmup", "0.1"]].concat()).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{} {text}", said(&output));
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let soak = &result["soaks"][0];
    let share = number(&soak["load"], "per_s") / number(&soak["greatest"], "per_s");
    // It may be less where the machine is slower than when the greatest was measured.
    assert!((0.1..0.55).contains(&share), "half of the greatest load: {soak}");
    let samples = soak["samples"].as_array().unwrap();
    assert!(samples.len() >= 5, "{soak}");
    for sample in samples {
        assert!(number(sample, "resident_bytes") > 1e6 && number(sample, "threads") > 1.0, "{sample}");
        assert!(number(sample, "descriptors") > 4.0 && sample["store_connections"] == 0, "{sample}");
    }
    let growth = soak["growth"].as_array().unwrap();
    let bounded = |growth: &Value| number(growth, "growth") <= number(growth, "growth_max");
    assert!(growth.len() == 4 && growth.iter().all(bounded), "{soak}");
    for line in ["MiB resident", "resident bytes: ", "connections to the store: "] {
        assert!(said(&output).contains(line), "{line:?} is missing in {}", said(&output));
    }
}

#[test]
fn every_event_comes_to_every_subscriber_also_beside_those_that_never_read() {
    let floor = transports().contains(&"tcp-grpc").then_some(("tcp-grpc", "tonic-floor"));
    for (transport, store) in transports().into_iter().map(|transport| (transport, "memory")).chain(floor) {
        let data = data();
        let flags = ["--only", "fan-out", "--transport", transport, "--store", store, "--json", "--rounds", "1"];
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
        let compared = if store == "tonic-floor" { 0 } else { 2 };
        assert_eq!(targets.len(), compared, "only our two parts are, as the size is another one: {result}");
        for (target, quantile) in targets.iter().zip(["p50_us", "p99_us"]) {
            let ratio = number(&parts[1], quantile) / number(&parts[0], quantile);
            assert!((number(target, "measured") - ratio).abs() < 1e-9, "{result}");
        }
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
    for line in ["[1/2] session-get over tcp-grpc", "[2/2] apply-1 over tcp-grpc, sqlite", "data in ", "p99 ms"] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
    assert!(said.contains("apply-1 over tcp-grpc, durable on sqlite: "), "{said}");
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
    let cases: [(&[&str], &str); 15] = [
        (&["--store", "etcd"], "possible values: memory, sqlite"),
        (&["--store", "redis", "--redis-url", "localhost"], "--redis-url: it begins with redis://"),
        (&["--store", "postgres", "--postgres-url", "postgres://h:1"], "has to name a user"),
        (&["--store", "memory", "--matrix"], "cannot be used with"),
        (&["--soak", "1s"], "--soak must be 5 s to 24 h"),
        (&["--soak", "1m", "--only", "fan-out"], "neither streams nor lists"),
        (&["--store", "tonic-floor", "--only", "document-get"], "there is nothing to measure"),
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
