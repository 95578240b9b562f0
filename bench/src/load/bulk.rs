//! `bulk`: as much as the path takes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::{Echo, Meter, Wire};
use crate::transport::quantum::{QuantumGrpcEcho, QuantumStreams};
use crate::transport::{Transport, TransportArgs, tcp, tcp_grpc};

const CHUNK_BYTES: usize = 64 << 10;
const EXAMPLES: &str = "\
Sends for the given time, then waits until the other side says how much arrived: goodput counts that, from the first byte to
that answer, start-up included. quantum-echo sends everything back, so both directions are busy.

JSON: cpu_s is this process's processor time; wire_bytes_sent is what was sent meanwhile, IP headers included: over Quantum by
this process's shards, over TCP by the interfaces of this network namespace (peer on loopback: by lo, both directions).

Examples:
  aetherflow-bench bulk --transport tcp --connect 10.0.0.2:7000 --seconds 10
  aetherflow-bench bulk --transport quantum --connect 10.0.0.2:7000 --seconds 10 --certs /tmp/certs
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
}

#[derive(Debug, Serialize)]
struct BulkResult {
    transport: &'static str,
    goodput_mbit: f64,
    seconds: f64,
    cpu_s: f64,
    wire_bytes_sent: u64,
}

/// Runs `bulk`.
///
/// # Errors
/// If the connection cannot be made or breaks.
pub fn run(args: &BulkArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.seconds > 0.0 && args.seconds <= 86_400.0, "--seconds must be over 0 and at most a day");
    let duration = Duration::from_secs_f64(args.seconds);
    let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
    let uploaded = match args.transport.transport {
        Transport::Tcp => {
            let wire = Wire::of_interfaces(args.connect.ip());
            let before = Meter::read(&wire);
            let (bytes, started) = tcp::upload(args.connect, &chunk, duration)?;
            Uploaded { bytes, seconds: started.elapsed().as_secs_f64(), spent: Meter::read(&wire).since(&before) }
        }
        transport => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(async {
                match transport {
                    Transport::QuantumGrpc => {
                        upload(&QuantumGrpcEcho::connect(&args.transport, args.connect).await?, chunk, args).await
                    }
                    Transport::Quantum | Transport::QuantumEcho => {
                        upload(&QuantumStreams::connect(&args.transport, args.connect).await?, chunk, args).await
                    }
                    Transport::Tcp | Transport::TcpGrpc => {
                        upload(&tcp_grpc::connect(args.connect).await?, chunk, args).await
                    }
                }
            })?
        }
    };
    let Uploaded { bytes, seconds, spent } = uploaded;
    let result = BulkResult {
        transport: args.transport.transport.name(),
        goodput_mbit: bytes as f64 * 8.0 / 1e6 / seconds,
        seconds,
        cpu_s: spent.cpu_s,
        wire_bytes_sent: spent.wire_bytes_sent,
    };
    if !args.transport.json {
        eprintln!(
            "{}: {:.1} Mbit/s in {seconds:.2} s, {:.2} s of CPU",
            result.transport, result.goodput_mbit, result.cpu_s
        );
    }
    println!("{}", serde_json::to_string(&result)?);
    Ok(ExitCode::SUCCESS)
}

/// What was done and what it cost.
struct Uploaded {
    bytes: u64,
    seconds: f64,
    spent: Meter,
}

async fn upload(echo: &impl Echo, chunk: Bytes, args: &BulkArgs) -> anyhow::Result<Uploaded> {
    let wire = echo.wire(args.connect.ip());
    let (before, started) = (Meter::read(&wire), Instant::now());
    let bytes = echo.upload(chunk, started + Duration::from_secs_f64(args.seconds)).await?;
    Ok(Uploaded { bytes, seconds: started.elapsed().as_secs_f64(), spent: Meter::read(&wire).since(&before) })
}
