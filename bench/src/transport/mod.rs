//! What carries the load generator's requests.

pub mod congestion;
pub mod quantum;
pub mod quic;
pub mod tcp;
pub mod tcp_grpc;

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use control::config::{QuantumHost, QuantumIo};
use tokio::runtime::{Builder, Runtime};

pub use congestion::Congestion;

/// What carries requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// gRPC over Quantum
    QuantumGrpc,
    /// Plain Quantum streams, one per message
    Quantum,
    /// Plain Quantum streams, answered on the server's shard, without tokio
    QuantumEcho,
    /// Frames (length, number, payload) over kernel TCP with NODELAY
    Tcp,
    /// gRPC (tonic) over plaintext HTTP/2 over TCP with NODELAY
    TcpGrpc,
    /// QUIC (quinn), a stream per message
    Quic,
}

impl Transport {
    /// The name in the JSON result.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuantumGrpc => "quantum-grpc",
            Self::Quantum => "quantum",
            Self::QuantumEcho => "quantum-echo",
            Self::Tcp => "tcp",
            Self::TcpGrpc => "tcp-grpc",
            Self::Quic => "quic",
        }
    }
}

/// Arguments that `serve`, `drive` and `bulk` share.
#[derive(Debug, Clone, Args)]
pub struct TransportArgs {
    /// What carries requests and answers
    #[arg(long, value_enum)]
    pub transport: Transport,
    /// Print only the JSON line
    #[arg(long)]
    pub json: bool,
    /// Folder of the certificate that both sides share; made by whoever comes first
    #[arg(long, value_name = "DIR", default_value_os_t = crate::certs::default_dir())]
    pub certs: PathBuf,
    /// Congestion control of what this side sends [default: bbr for Quantum, cubic for QUIC, the kernel's for TCP]
    #[arg(long, value_name = "C", value_enum)]
    pub congestion: Option<Congestion>,
    /// Quantum: sends without forward error correction
    #[arg(long)]
    pub no_fec: bool,
    /// Quantum: shards, each a thread with its own socket
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub shards: usize,
    /// Quantum: cores that the shards are pinned to, such as 0,1
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Quantum: microseconds that a busy shard looks for more work before it sleeps; 0: it sleeps at once
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub spin_us: u64,
    /// Quantum: what runs the shards' threads
    #[arg(long, value_name = "H", value_enum, default_value_t)]
    pub host: QuantumHost,
    /// Quantum: how bytes move
    #[arg(long, value_enum, default_value_t)]
    pub io: QuantumIo,
    /// Threads of tokio [default: as many as processors]; one often does more where few processors are shared
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Quantum: log what happens on each connection into this folder (qlog)
    #[arg(long, value_name = "DIR")]
    pub qlog: Option<PathBuf>,
}

impl TransportArgs {
    /// What runs the tasks of this side.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn runtime(&self) -> io::Result<Runtime> {
        let mut runtime = Builder::new_multi_thread();
        if let Some(workers) = self.workers {
            runtime.worker_threads(workers.into());
        }
        runtime.enable_all().build()
    }
}

/// The generated messages and stubs of `proto/bench.proto`.
#[expect(
    missing_docs,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto file documents it"
)]
pub mod bench_proto {
    tonic::include_proto!("aetherflow.bench");
}
