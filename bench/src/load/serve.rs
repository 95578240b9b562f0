//! `serve`: answers `drive` and `bulk`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use crate::transport::{Transport, TransportArgs, quantum, quic, tcp, tcp_grpc};

const EXAMPLES: &str = "\
Runs until it is killed. The line on standard output names the address, so port 0 may be given.

Examples:
  aetherflow-bench serve --transport tcp-grpc --listen 127.0.0.1:7000
  aetherflow-bench serve --transport quantum-grpc --listen 0.0.0.0:7000 --shards 2 --cores 0,1 \\
      --certs /tmp/certs
  aetherflow-bench serve --transport quic --congestion bbr --listen 127.0.0.1:7000 \\
      --certs /tmp/certs
  aetherflow-bench serve --transport tcp --congestion cubic --listen 10.0.0.2:7000 --json";

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// Where to listen
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
}

/// Runs `serve`.
///
/// # Errors
/// If the address cannot be bound or the server fails.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    match args.transport.transport {
        Transport::Tcp => {
            let listener = tcp::bind(args.listen, args.transport.congestion)?;
            announce(args, listener.local_addr()?);
            tcp::serve(&listener)?;
        }
        Transport::QuantumGrpc | Transport::Quantum | Transport::QuantumEcho => {
            let runtime = args.transport.runtime()?;
            runtime.block_on(quantum::serve(&args.transport, args.listen, |address| announce(args, address)))?;
        }
        Transport::Quic => {
            let runtime = args.transport.runtime()?;
            runtime.block_on(quic::serve(&args.transport, args.listen, |address| announce(args, address)))?;
        }
        Transport::TcpGrpc => {
            let runtime = args.transport.runtime()?;
            runtime.block_on(async {
                let (address, server) = tcp_grpc::bind(args.listen, args.transport.congestion)?;
                announce(args, address);
                server.await
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(args: &ServeArgs, address: SocketAddr) {
    let transport = args.transport.transport.name();
    if !args.transport.json {
        eprintln!("answering {transport} on {address}; Ctrl-C ends it");
    }
    println!("{}", serde_json::json!({ "transport": transport, "listen": address.to_string() }));
}
