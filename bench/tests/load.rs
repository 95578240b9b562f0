//! The load generator against itself, as separate processes: what a user runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_aetherflow-bench");

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn serve(transport: &str) -> Server {
    let arguments = ["serve", "--transport", transport, "--listen", "127.0.0.1:0", "--json"];
    let mut process = Command::new(BENCH).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let announced: Value = serde_json::from_str(&line).unwrap();
    Server { process, address: announced["listen"].as_str().unwrap().to_owned() }
}

fn result(arguments: &[&str]) -> Value {
    let output = Command::new(BENCH).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

const DRIVE_FIELDS: [&str; 16] = [
    "transport",
    "sent",
    "received",
    "errors",
    "p50_us",
    "p90_us",
    "p95_us",
    "p99_us",
    "p999_us",
    "max_us",
    "mean_us",
    "seconds",
    "rps",
    "cpu_s",
    "wire_bytes_sent",
    "wire_bytes_received",
];

#[test]
fn the_open_loop_sends_what_the_rate_says_and_reports_every_field() {
    for transport in ["tcp", "tcp-grpc"] {
        let server = serve(transport);
        let result = result(&[
            "drive",
            "--transport",
            transport,
            "--connect",
            &server.address,
            "--rate",
            "200",
            "--size",
            "256",
            "--seconds",
            "1",
            "--warmup",
            "0.25",
            "--json",
        ]);
        let fields: Vec<&String> = result.as_object().unwrap().keys().collect();
        assert!(
            fields.len() == DRIVE_FIELDS.len() && DRIVE_FIELDS.iter().all(|name| result.get(name).is_some()),
            "{fields:?}"
        );
        assert_eq!(
            (result["sent"].as_u64(), result["received"].as_u64(), result["errors"].as_u64()),
            (Some(200), Some(200), Some(0))
        );
        let number = |name: &str| result[name].as_f64().unwrap();
        assert!(
            0.0 < number("p50_us") && number("p50_us") <= number("p99_us") && number("p99_us") <= number("max_us"),
            "{result}"
        );
        // 200 requests and 200 answers of 256 bytes and more, all on loopback.
        assert!(number("wire_bytes_sent") > 2.0 * 200.0 * 256.0, "{result}");
    }
}

#[test]
fn the_closed_loop_keeps_going_and_bulk_counts_what_arrived() {
    for transport in ["tcp", "tcp-grpc"] {
        let server = serve(transport);
        let result = |arguments: &[&str]| {
            let common = ["--transport", transport, "--connect", &server.address, "--seconds", "0.5", "--json"];
            self::result(&[arguments, &common].concat())
        };
        let closed = result(&["drive", "--rate", "0", "--concurrency", "16", "--size", "256", "--warmup", "0.1"]);
        assert!(closed["received"].as_u64() > Some(500) && closed["errors"] == 0, "{closed}");
        let bulk = result(&["bulk"]);
        assert!(bulk["goodput_mbit"].as_f64() > Some(50.0) && bulk["seconds"].as_f64() >= Some(0.5), "{bulk}");
        let sent = bulk["wire_bytes_sent"].as_f64().unwrap();
        let carried = bulk["goodput_mbit"].as_f64().unwrap() * bulk["seconds"].as_f64().unwrap() * 1e6 / 8.0;
        assert!(sent >= carried, "{sent} bytes on the wire carried {carried}");
    }
}

#[test]
fn a_server_that_dies_leaves_errors_not_silence() {
    let mut server = serve("tcp-grpc");
    let arguments = [
        "drive",
        "--transport",
        "tcp-grpc",
        "--connect",
        &server.address,
        "--rate",
        "100",
        "--size",
        "64",
        "--seconds",
        "2",
        "--warmup",
        "0",
    ];
    let client = Command::new(BENCH).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    server.process.kill().unwrap();
    let output = client.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(result["sent"], 200);
    assert!(result["errors"].as_u64() > Some(0), "{result}");
    assert!(result["max_us"].as_f64() > Some(1e6), "an unanswered request counts with its age: {result}");
}

#[test]
fn every_subcommand_has_help_with_examples() {
    for subcommand in ["serve", "drive", "bulk", "replay"] {
        let output = Command::new(BENCH).args([subcommand, "--help"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Examples:") && text.contains(&format!("aetherflow-bench {subcommand} ")), "{text}");
    }
    let completions = Command::new(BENCH).args(["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8(completions.stdout).unwrap().contains("aetherflow-bench"));
}
