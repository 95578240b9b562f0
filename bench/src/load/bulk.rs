//! `bulk`: as much as the path takes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::{Arrived, Echo, Meter, Meters, Wire};
use crate::transport::quantum::{QuantumGrpcEcho, QuantumStreams};
use crate::transport::quic::QuicStreams;
use crate::transport::{Transport, TransportArgs, tcp::BulkTcp, tcp_grpc};

const CHUNK_BYTES: usize = 64 << 10;
const EXAMPLES: &str = "\
Sends for the given time. Goodput is what the receiver got in that time by its own clock, from the first byte on: start-up is \
included, what still waits in a buffer at the end is not. quantum-echo sends everything back, so both directions are busy, and \
counts what is back.

JSON: goodput_second_half_mbit leaves the first half out; cpu_s is this process's processor time; wire_bytes_sent is what was \
sent meanwhile, IP headers included: over Quantum by this process's shards, otherwise by the interfaces of this network \
namespace (peer on loopback: by lo, both directions).

Examples:
  aetherflow-bench bulk --transport tcp --congestion bbr --connect 10.0.0.2:7000 --seconds 10
  aetherflow-bench bulk --transport quantum --connect 10.0.0.2:7000 --seconds 10 \\
      --certs /tmp/certs
  aetherflow-bench bulk --transport tcp-grpc --connect 127.0.0.1:7000 --seconds 5 --json";

/// Arguments of `bulk`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BulkArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// The server
    #[arg(long, value_name = "ADDR")]
    connect: SocketAddr,
    /// How long to send
    #[arg(long, value_name = "S")]
    seconds: f64,
    /// The server's process id, if it runs here: adds its processor time to the JSON
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Debug, Serialize)]
struct BulkResult {
    transport: &'static str,
    goodput_mbit: f64,
    goodput_second_half_mbit: f64,
    seconds: f64,
    cpu_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_s: Option<f64>,
    wire_bytes_sent: u64,
}

/// Runs `bulk`.
///
/// # Errors
/// If the connection cannot be made or breaks.
pub fn run(args: &BulkArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.seconds >= 0.001 && args.seconds <= 86_400.0, "--seconds must be 0.001 to a day");
    let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
    let (remote, congestion) = (args.connect, args.transport.congestion);
    let (arrived, spent) = match args.transport.transport {
        Transport::Tcp => {
            let connection = BulkTcp::connect(remote, congestion)?;
            let meters = Meters::new(Wire::of_interfaces(remote.ip()), args.server_pid);
            let before = meters.read();
            let arrived = connection.upload(&chunk, Duration::from_secs_f64(args.seconds))?;
            (arrived, meters.read().since(&before))
        }
        transport => {
            let runtime = args.transport.runtime()?;
            runtime.block_on(async {
                match transport {
                    Transport::QuantumGrpc => {
                        upload(&QuantumGrpcEcho::connect(&args.transport, remote).await?, chunk, args).await
                    }
                    Transport::Quantum | Transport::QuantumEcho => {
                        upload(&QuantumStreams::connect(&args.transport, remote).await?, chunk, args).await
                    }
                    Transport::Quic => upload(&QuicStreams::connect(&args.transport, remote).await?, chunk, args).await,
                    Transport::Tcp | Transport::TcpGrpc => {
                        upload(&tcp_grpc::connect(remote, congestion).await?, chunk, args).await
                    }
                }
            })?
        }
    };
    report(args, &arrived, &spent)
}

async fn upload(echo: &impl Echo, chunk: Bytes, args: &BulkArgs) -> anyhow::Result<(Arrived, Meter)> {
    let meters = Meters::new(echo.wire(args.connect.ip()), args.server_pid);
    let before = meters.read();
    let arrived = echo.upload(chunk, Duration::from_secs_f64(args.seconds)).await?;
    Ok((arrived, meters.read().since(&before)))
}

fn report(args: &BulkArgs, arrived: &Arrived, spent: &Meter) -> anyhow::Result<ExitCode> {
    let result = BulkResult {
        transport: args.transport.transport.name(),
        goodput_mbit: arrived.mbit_per_s(),
        goodput_second_half_mbit: arrived.mbit_per_s_second_half(),
        seconds: arrived.measured.as_secs_f64(),
        cpu_s: spent.cpu_s,
        server_cpu_s: spent.server_cpu_s,
        wire_bytes_sent: spent.wire_bytes_sent,
    };
    if !args.transport.json {
        let BulkResult { transport, goodput_mbit, seconds, cpu_s, .. } = &result;
        eprintln!("{transport}: {goodput_mbit:.1} Mbit/s in {seconds:.2} s, {cpu_s:.2} s of CPU");
    }
    println!("{}", serde_json::to_string(&result)?);
    Ok(ExitCode::SUCCESS)
}
