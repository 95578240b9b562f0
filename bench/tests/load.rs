//! The load generator against itself, as separate processes: what a user runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_aetherflow-bench");

/// What may carry the requests, and how: a transport, and flags for both sides.
const PEERS: [&[&str]; 7] = [
    &["tcp"],
    &["tcp", "--congestion", "cubic"],
    &["tcp-grpc"],
    &["tcp-grpc", "--congestion", "cubic"],
    &["quic"],
    &["quic", "--congestion", "bbr"],
    &["quic", "--congestion", "cubic"],
];
const QUANTUM: [&[&str]; 7] = [
    &["quantum", "--congestion", "cubic", "--no-fec"],
    &["quantum-grpc", "--host", "glommio"],
    &["quantum-grpc", "--host", "bare", "--spin-us", "20"],
    &["quantum", "--host", "glommio", "--shards", "2"],
    &["quantum", "--host", "bare", "--io", "uring"],
    &["quantum-echo", "--host", "glommio", "--cores", "0"],
    &["quantum-echo", "--host", "bare"],
];

/// Everything that can be run here.
fn transports() -> Vec<&'static [&'static str]> {
    let mut all = PEERS.to_vec();
    match quantum_shard::Shards::check() {
        Ok(()) => all.extend(QUANTUM),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            println!("SKIPPED: {} ways over Quantum: {error}", QUANTUM.len());
        }
    }
    all
}

struct Server {
    process: Child,
    address: String,
    certs: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Server {
    fn start(transport: &[&str]) -> Self {
        let certs = tempfile::tempdir().unwrap();
        let mut command = Command::new(BENCH);
        command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--transport"]).args(transport);
        let mut process = command.arg("--certs").arg(certs.path().join("made")).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let announced: Value = serde_json::from_str(&line).unwrap();
        Self { process, address: announced["listen"].as_str().unwrap().to_owned(), certs }
    }

    /// Runs a subcommand against it.
    fn asked(&self, transport: &[&str], arguments: &[&str]) -> Value {
        let certs = self.certs.path().join("made");
        let common = ["--connect", &self.address, "--certs", certs.to_str().unwrap(), "--json", "--transport"];
        result(&[arguments, &common, transport].concat())
    }
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
/// Over Quantum there are more.
const QUANTUM_FIELDS: [&str; 5] = ["recovered", "resent", "recovery_buckets", "recovery_p50_us", "recovery_p99_us"];
const WIRE_BYTES: [&str; 2] = ["wire_bytes_sent", "wire_bytes_received"];

#[test]
fn the_open_loop_sends_what_the_rate_says_and_reports_every_field() {
    for transport in transports() {
        let server = Server::start(transport);
        let open = ["drive", "--rate", "200", "--size", "256", "--seconds", "1", "--warmup", "0.25"];
        let is_quantum = transport[0].starts_with("quantum");
        // 200 requests, 200 answers. Shards count their own datagrams; loopback's counters count both directions and whatever
        // else is there.
        let least = if is_quantum { 200.0 } else { 400.0 } * (256.0 + 28.0);
        let wire_bytes = |result: &Value, name: &str| result[name].as_f64().unwrap();
        // A machine that stops for milliseconds makes both sides send again what was only late: of five tries one is enough.
        let is_cheap = |result: &Value| WIRE_BYTES.iter().all(|name| wire_bytes(result, name) < 3.5 * least);
        let mut results = (0..5).map(|_| server.asked(transport, &open));
        let result = results.find(|result| !is_quantum || is_cheap(result)).expect("each try was too dear");
        let fields: Vec<&String> = result.as_object().unwrap().keys().collect();
        let more: &[&str] = if is_quantum { &QUANTUM_FIELDS } else { &[] };
        let mut expected = DRIVE_FIELDS.iter().chain(more);
        assert!(
            fields.len() == DRIVE_FIELDS.len() + more.len() && expected.all(|name| result.get(name).is_some()),
            "{fields:?}"
        );
        assert_eq!(result["transport"], transport[0]);
        assert_eq!(
            (result["sent"].as_u64(), result["received"].as_u64(), result["errors"].as_u64()),
            (Some(200), Some(200), Some(0)),
            "{transport:?}"
        );
        let number = |name: &str| result[name].as_f64().unwrap();
        assert!(
            0.0 < number("p50_us") && number("p50_us") <= number("p99_us") && number("p99_us") <= number("max_us"),
            "{result}"
        );
        assert!(WIRE_BYTES.iter().all(|name| least < number(name)), "{result}");
    }
}

#[test]
fn the_closed_loop_keeps_going_and_bulk_counts_what_arrived() {
    for transport in transports() {
        let server = Server::start(transport);
        let closed = ["drive", "--rate", "0", "--concurrency", "16", "--size", "256", "--warmup", "0.1", "--seconds"];
        let closed = server.asked(transport, &[&closed[..], &["0.5"]].concat());
        assert!(closed["received"].as_u64() > Some(500) && closed["errors"] == 0, "{closed}");
        let bulk = server.asked(transport, &["bulk", "--seconds", "0.5"]);
        assert!(bulk["goodput_mbit"].as_f64() > Some(50.0) && bulk["seconds"].as_f64() >= Some(0.5), "{bulk}");
        let second_half = bulk["goodput_second_half_mbit"].as_f64().unwrap() / bulk["goodput_mbit"].as_f64().unwrap();
        assert!((0.2..5.0).contains(&second_half), "{bulk}");
        let sent = bulk["wire_bytes_sent"].as_f64().unwrap();
        let carried = bulk["goodput_mbit"].as_f64().unwrap() * bulk["seconds"].as_f64().unwrap() * 1e6 / 8.0;
        assert!(sent >= carried, "{sent} bytes on the wire carried {carried}");
    }
}

#[test]
fn what_a_transport_cannot_do_is_said_with_exit_code_2() {
    let cases: [(&[&str], &str); 7] = [
        (&["--transport", "tcp", "--congestion", "reno"], "possible values: bbr, cubic"),
        (&["--transport", "quantum", "--io", "mmsg"], "with mmsg choose the host monoio or bare"),
        (&["--transport", "quantum", "--shards", "0"], "at least one shard"),
        (&["--transport", "quantum", "--shards", "2", "--cores", "0"], "2 shards need as many cores"),
        (&["--transport", "quantum", "--host", "tokio"], "possible values: glommio, monoio, bare"),
        (&["--transport", "quick"], "possible values: quantum-grpc, quantum, quantum-echo, tcp, tcp-grpc, quic"),
        (&["--transport", "tcp", "--spin-us=-1"], "--spin-us"),
    ];
    let certs = tempfile::tempdir().unwrap();
    let side = |command: &[&str], arguments: &[&str], message: &str| {
        let mut bench = Command::new(BENCH);
        let output = bench.args(command).args(arguments).arg("--certs").arg(certs.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command:?} {arguments:?}: {said}");
        assert!(said.contains(message), "{command:?} {arguments:?}: {said}");
    };
    for (arguments, message) in cases {
        side(&["serve", "--listen", "127.0.0.1:0"], arguments, message);
        side(&["bulk", "--connect", "127.0.0.1:9", "--seconds", "1"], arguments, message);
        let drive = ["drive", "--connect", "127.0.0.1:9", "--rate", "1", "--size", "1", "--seconds", "1"];
        side(&drive, arguments, message);
    }
    side(&["drive", "--connect", "127.0.0.1:9"], &["--transport", "tcp"], "required arguments were not provided");
}

#[test]
fn a_client_with_another_certificate_is_turned_away() {
    for transport in transports().into_iter().filter(|transport| ["quantum", "quic"].contains(&transport[0])) {
        another_certificate(transport);
    }
}

fn another_certificate(transport: &[&str]) {
    let (server, other) = (Server::start(transport), tempfile::tempdir().unwrap());
    let mut bench = Command::new(BENCH);
    bench.args(["bulk", "--connect", &server.address, "--seconds", "1", "--transport"]).args(transport);
    let output = bench.arg("--certs").arg(other.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot connect") && output.stdout.is_empty(), "{said}");
}

#[test]
fn a_server_that_dies_leaves_errors_not_silence() {
    for transport in transports().into_iter().filter(|transport| transport[0].ends_with("grpc")) {
        a_server_dies(transport);
    }
}

fn a_server_dies(transport: &[&str]) {
    let mut server = Server::start(transport);
    let certs = server.certs.path().join("made");
    let open = ["drive", "--rate", "100", "--size", "64", "--seconds", "4", "--warmup", "0", "--connect"];
    let mut arguments = [&open[..], &[&server.address, "--certs", certs.to_str().unwrap(), "--transport"]].concat();
    arguments.extend(transport);
    let mut client = Command::new(BENCH).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(client.stderr.take().unwrap());
    let mut connected = String::new();
    told.read_line(&mut connected).unwrap();
    assert!(connected.starts_with("connected to "), "{connected}");
    server.process.kill().unwrap();
    std::io::copy(&mut told, &mut std::io::sink()).unwrap();
    let output = client.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let result: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(result["sent"], 400);
    assert!(result["errors"].as_u64() > Some(0), "{result}");
    assert!(result["max_us"].as_f64() > Some(1e6), "an unanswered request counts with its age: {result}");
}

#[test]
fn a_histogram_and_the_servers_processor_time_come_when_asked_for() {
    let server = Server::start(&["quic"]);
    let pid = server.process.id().to_string();
    let closed = ["drive", "--rate", "0", "--size", "64", "--seconds", "0.5", "--warmup", "0.1", "--histogram"];
    let result = server.asked(&["quic"], &[&closed[..], &["--concurrency", "16", "--server-pid", &pid]].concat());
    let text = result["histogram"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
    assert_eq!(Some(histogram.len()), result["sent"].as_u64());
    assert!((histogram.value_at_quantile(0.5) as f64 / 1e3 - result["p50_us"].as_f64().unwrap()).abs() < 1e-6);
    assert!((0.01..2.0).contains(&result["server_cpu_s"].as_f64().unwrap()), "{result}");
}

#[test]
fn every_subcommand_has_help_with_examples() {
    let measuring = ["serve", "drive", "bulk", "replay", "writers", "link", "services", "compare", "demo", "report"];
    for subcommand in measuring.into_iter().chain(["completions"]) {
        let output = Command::new(BENCH).args([subcommand, "--help"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Examples:") && text.contains(&format!("aetherflow-bench {subcommand}")), "{text}");
        // Clap breaks what is longer, without a backslash.
        assert!(text.lines().all(|line| !line.starts_with("  aetherflow-bench") || line.len() <= 100), "{text}");
    }
    let completions = Command::new(BENCH).args(["completions", "bash"]).output().unwrap();
    let completions = String::from_utf8(completions.stdout).unwrap();
    assert!(
        measuring.iter().all(|subcommand| completions.contains(&format!("aetherflow__bench__subcmd__{subcommand}")))
    );
}
