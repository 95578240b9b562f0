//! `drive`: requests at a fixed rate (open loop), or a fixed number in flight (closed loop).

mod closed;
mod open;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;

use super::{Echo, Meter, Meters, RecoveryResult, Wire};
use crate::transport::quantum::{QuantumGrpcEcho, QuantumStreams};
use crate::transport::quic::QuicStreams;
use crate::transport::{Transport, TransportArgs, tcp::FramedTcp, tcp_grpc};

const REQUESTS_MAX: f64 = 200e6;
const EXAMPLES: &str = "\
Open loop (--rate over 0): request i is due at start + i / rate, whatever became of those before it; its latency counts from \
when it was due. The schedule starts once connected; requests due in the warm-up are not counted. At the end it waits \
max(2 s, 10 round trips) for answers; a request without one is an error and counts in the percentiles with its age.
Closed loop (--rate 0): --concurrency requests are in flight; latency counts from the sending.

JSON: latencies in microseconds; cpu_s is this process's processor time in the measured window; wire_bytes_* is what was sent \
and received in the window, IP headers included: over Quantum by this process's shards, over TCP by the interfaces of this \
network namespace (peer on loopback: by lo, which is both directions). QUIC counts like TCP.
Over Quantum also: packets that were lost and restored here (recovered), or sent again from here (resent), and how long that \
took (recovery_*): restored, from when it may have been due at the earliest; sent again, from when it was sent first.

Examples:
  aetherflow-bench drive --transport tcp-grpc --connect 10.0.0.2:7000 --rate 200 --size 256 \\
      --seconds 30
  aetherflow-bench drive --transport quic --congestion bbr --connect 10.0.0.2:7000 --rate 200 \\
      --size 256 --seconds 30
  aetherflow-bench drive --transport quantum-echo --connect 127.0.0.1:7000 --rate 200 --size 256 \\
      --seconds 5 --host bare
  aetherflow-bench drive --transport tcp --connect 127.0.0.1:7000 --rate 0 --concurrency 64 \\
      --size 256 --seconds 5 --json";

/// Arguments of `drive`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DriveArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// The server
    #[arg(long, value_name = "ADDR")]
    connect: SocketAddr,
    /// Requests per second; 0 is a closed loop
    #[arg(long, value_name = "PER_S")]
    rate: f64,
    /// Payload of a request, which comes back
    #[arg(long, value_name = "BYTES")]
    size: usize,
    /// The measured time
    #[arg(long, value_name = "S")]
    seconds: f64,
    /// Requests in flight in the closed loop
    #[arg(long, value_name = "N", default_value_t = 1)]
    concurrency: usize,
    /// Time before the measured time
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warmup: f64,
    /// Adds the latencies to the JSON: nanoseconds in an HDR histogram (V2, deflated, base64)
    #[arg(long)]
    histogram: bool,
    /// The server's process id, if it runs here: adds its processor time to the JSON
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

/// What is asked for.
#[derive(Debug, Clone)]
struct Plan {
    remote: SocketAddr,
    rate: f64,
    payload: Bytes,
    seconds: f64,
    concurrency: usize,
    warmup: Duration,
    server_pid: Option<u32>,
    quiet: bool,
}

impl Plan {
    fn meters(&self, wire: Wire) -> Meters {
        Meters::new(wire, self.server_pid)
    }

    /// Says that the schedule starts, unless only the result is wanted.
    fn tell_connected(&self) {
        if !self.quiet {
            eprintln!(
                "connected to {}; measuring for {} s after {} s of warm-up",
                self.remote,
                self.seconds,
                self.warmup.as_secs_f64()
            );
        }
    }
}

/// What happened in the measured window.
#[derive(Debug)]
struct Measured {
    histogram: Histogram<u64>,
    sent: u64,
    received: u64,
    errors: u64,
    seconds: f64,
    spent: Meter,
}

#[derive(Debug, Serialize)]
struct DriveResult {
    transport: &'static str,
    sent: u64,
    received: u64,
    errors: u64,
    #[serde(flatten)]
    latency: LatencyResult,
    seconds: f64,
    rps: f64,
    cpu_s: f64,
    wire_bytes_sent: u64,
    wire_bytes_received: u64,
    #[serde(flatten)]
    recovery: Option<RecoveryResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<String>,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields, units last")]
struct LatencyResult {
    p50_us: f64,
    p90_us: f64,
    p95_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    mean_us: f64,
}

/// Runs `drive`.
///
/// # Errors
/// If the arguments contradict each other or the connection cannot be made.
pub fn run(args: &DriveArgs) -> anyhow::Result<ExitCode> {
    let plan = plan(args)?;
    let congestion = args.transport.congestion;
    let measured = match args.transport.transport {
        Transport::Tcp => {
            let connection = FramedTcp::connect(plan.remote, congestion)?;
            plan.tell_connected();
            if plan.rate > 0.0 { open::framed(connection, &plan)? } else { closed::framed(connection, &plan)? }
        }
        transport => {
            let runtime = args.transport.runtime()?;
            match transport {
                Transport::QuantumGrpc => {
                    calls(&runtime, &runtime.block_on(QuantumGrpcEcho::connect(&args.transport, plan.remote))?, &plan)
                }
                Transport::Quantum | Transport::QuantumEcho => {
                    calls(&runtime, &runtime.block_on(QuantumStreams::connect(&args.transport, plan.remote))?, &plan)
                }
                Transport::Quic => {
                    calls(&runtime, &runtime.block_on(QuicStreams::connect(&args.transport, plan.remote))?, &plan)
                }
                Transport::Tcp | Transport::TcpGrpc => {
                    calls(&runtime, &runtime.block_on(tcp_grpc::connect(plan.remote, congestion))?, &plan)
                }
            }
        }
    };
    report(args, &measured)
}

fn calls(runtime: &tokio::runtime::Runtime, echo: &impl Echo, plan: &Plan) -> Measured {
    plan.tell_connected();
    if plan.rate > 0.0 { open::calls(runtime, echo, plan) } else { closed::calls(runtime, echo, plan) }
}

fn plan(args: &DriveArgs) -> anyhow::Result<Plan> {
    ensure!(args.seconds > 0.0 && args.seconds <= 86_400.0, "--seconds must be over 0 and at most a day");
    ensure!((0.0..=3600.0).contains(&args.warmup), "--warmup must be 0 to an hour");
    ensure!(args.rate >= 0.0, "--rate must not be negative");
    ensure!(args.rate * (args.seconds + args.warmup) <= REQUESTS_MAX, "more than {REQUESTS_MAX} requests in all");
    ensure!((1..=1_000_000).contains(&args.concurrency), "--concurrency must be 1 to 1000000");
    ensure!(args.size <= crate::transport::tcp::PAYLOAD_BYTES_MAX - 1024, "--size must be under 64 MiB");
    Ok(Plan {
        remote: args.connect,
        rate: args.rate,
        payload: Bytes::from(vec![0x5a; args.size]),
        seconds: args.seconds,
        concurrency: args.concurrency,
        warmup: Duration::from_secs_f64(args.warmup),
        server_pid: args.server_pid,
        quiet: args.transport.json,
    })
}

fn report(args: &DriveArgs, measured: &Measured) -> anyhow::Result<ExitCode> {
    let us = |ns: u64| ns as f64 / 1e3;
    let quantile = |share: f64| us(measured.histogram.value_at_quantile(share));
    let result = DriveResult {
        transport: args.transport.transport.name(),
        sent: measured.sent,
        received: measured.received,
        errors: measured.errors,
        latency: LatencyResult {
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p95_us: quantile(0.95),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: us(measured.histogram.max()),
            mean_us: measured.histogram.mean() / 1e3,
        },
        seconds: measured.seconds,
        rps: measured.received as f64 / measured.seconds,
        cpu_s: measured.spent.cpu_s,
        wire_bytes_sent: measured.spent.wire_bytes_sent,
        wire_bytes_received: measured.spent.wire_bytes_received,
        recovery: measured.spent.recovery.map(RecoveryResult::from),
        server_cpu_s: measured.spent.server_cpu_s,
        histogram: args.histogram.then(|| encoded(&measured.histogram)).transpose()?,
    };
    if !args.transport.json {
        let latency = &result.latency;
        eprintln!(
            "{}: {} sent, {} received, {} errors, {:.0}/s; p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us",
            result.transport,
            result.sent,
            result.received,
            result.errors,
            result.rps,
            latency.p50_us,
            latency.p99_us,
            latency.p999_us,
            latency.max_us
        );
    }
    println!("{}", serde_json::to_string(&result)?);
    Ok(ExitCode::SUCCESS)
}

fn encoded(histogram: &Histogram<u64>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).context("the histogram cannot be written")?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}
