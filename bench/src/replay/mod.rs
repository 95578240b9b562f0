//! Replays an editing session as its real number of independent clients and checks that everybody ends with the same text.

mod client;
mod operation;
mod outcome;
pub(crate) mod reconnect;
mod shared;
pub(crate) mod wire;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::history::Logged;
use crate::trace::{Causality, Trace};
use client::Client;
pub use outcome::Outcome;
use shared::Shared;
use wire::Dialer;

const EXAMPLES: &str = "\
Positions in a trace count unicode code points; on the wire they are UTF-16 units. Every client has its own connection, \
session, subscription and replica, and makes a transaction only when its replica holds exactly the transaction's ancestors. \
Transactions that nothing foreign separates travel in one operation, and up to 8 operations of a client are on their way at \
once (Operation.session_sequence keeps their order).

Exit code 0: every replica and the server hold exactly the trace's endContent. 1: they do not, and the first difference is \
printed; or, with --check-history, an acknowledged operation is lost, applied twice or out of order.

Examples:
  aetherflow-bench replay --trace friendsforever.json.gz --to 127.0.0.1:9002 --transport tcp-grpc
  aetherflow-bench replay --trace generate:2,2000,7 --to 127.0.0.1:9002 --transport tcp-grpc \\
      --encoding json --json
  aetherflow-bench replay --trace generate:2,2000,7 --to 127.0.0.1:9002 --transport quantum-grpc \\
      --insecure-loopback
  aetherflow-bench replay --trace sveltecomponent.json.gz --to 10.0.0.2:7002 \\
      --session-addr 10.0.0.2:7001 --transport tcp-grpc --resume --check-history";

/// What carries the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReplayTransport {
    /// gRPC over Quantum, encrypted
    QuantumGrpc,
    /// gRPC over plaintext HTTP/2 over TCP
    #[value(alias = "tcp")]
    TcpGrpc,
}

impl ReplayTransport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::QuantumGrpc => "quantum-grpc",
            Self::TcpGrpc => "tcp-grpc",
        }
    }
}

/// How operations are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// Yjs updates, format v1
    Yjs,
    /// JSON items {"pos", "del", "ins"}
    Json,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Yjs => "yjs",
            Self::Json => "json",
        }
    }
}

/// Arguments of `replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// A trace in the public editing-traces format (gzip or not), or generate:WRITERS,OPERATIONS,SEED
    #[arg(long, value_name = "FILE|generate:W,N,SEED")]
    pub trace: String,
    /// The statesync service, HOST:PORT
    #[arg(long, value_name = "STATESYNC")]
    pub to: String,
    /// The session service, HOST:PORT [default: the same host, one port lower]
    #[arg(long, value_name = "ADDR")]
    pub session_addr: Option<String>,
    /// What carries the calls
    #[arg(long, value_enum)]
    pub transport: ReplayTransport,
    /// Quantum: the server's certificate, or its issuer's, in a PEM file
    #[arg(long, value_name = "FILE", group = "verification")]
    pub ca: Option<std::path::PathBuf>,
    /// Quantum: the SHA-256 of the server's public key, which `aetherflow up` prints
    #[arg(long, value_name = "HEX", group = "verification")]
    pub pin: Option<String>,
    /// Quantum: do not verify the server; only for a server on loopback
    #[arg(long, group = "verification")]
    pub insecure_loopback: bool,
    /// How operations are written
    #[arg(long, value_enum, default_value = "yjs")]
    pub encoding: Encoding,
    /// Multiples of recorded time; 0 is as fast as causality allows
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub speed: f64,
    /// When a connection breaks, reconnect, resume the subscription and send unanswered operations again
    #[arg(long)]
    pub resume: bool,
    /// Read the document's log in the end and check that it has every acknowledged operation once, in order, and no gap; for
    /// sessions of up to 10,000 operations
    #[arg(long)]
    pub check_history: bool,
    /// Print only the JSON line, without progress
    #[arg(long)]
    pub json: bool,
}

/// Runs `replay`.
///
/// # Errors
/// If the trace is malformed, or a client meets a failure that it may not or cannot get over.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let trace = crate::trace::load(&args.trace).with_context(|| format!("trace {}", args.trace))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args, trace))?;
    // Connections close in the background; nothing of the result depends on them.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    let violations = outcome.history.iter().flat_map(|history| &history.violations);
    for fault in outcome.differences.iter().chain(violations) {
        eprintln!("{fault}");
    }
    if !args.json {
        eprintln!("{}", outcome.summary());
    }
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(if outcome.is_right() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Replays a trace against running services.
///
/// # Errors
/// If the trace contradicts itself, or a client meets a failure that it may not or cannot get over.
pub async fn play(args: &ReplayArgs, trace: Trace) -> anyhow::Result<Outcome> {
    ensure!(args.speed.is_finite() && args.speed >= 0.0, "--speed must be a number that is not negative");
    let causality = Causality::new(&trace)?;
    let verify = wire::verify(args.transport, args.ca.as_ref(), args.pin.as_ref(), args.insecure_loopback)?;
    let dialer = Dialer::new(&args.to, args.session_addr.as_deref(), args.transport, verify)?;
    // One writer alone would show nothing to anybody: a client that only watches is beside it.
    let clients = if trace.agents == 1 { 2 } else { trace.agents };
    let document = dialer.create_document().await.context("cannot create the document")?;
    let shared = Arc::new(Shared::new(args, trace, causality, document, usize::from(clients)));
    let mut tasks = tokio::task::JoinSet::new();
    for agent in 0..clients {
        let (shared, dialer) = (shared.clone(), dialer.clone());
        tasks.spawn(async move {
            let client = Client::join(agent, shared, dialer).await;
            let played = async { client?.play().await }.await;
            played.with_context(|| format!("client {agent}"))
        });
    }
    let mut texts = Vec::new();
    while let Some(text) = tasks.join_next().await {
        texts.push(text.context("a client panicked")??);
    }
    let server = dialer.document_text(&shared.document).await.context("cannot read the document back")?;
    let history = match &shared.history {
        Some(recorder) => {
            let log = dialer.log(&shared.document).await.context("cannot read the log back")?;
            Some(recorder.verdict(&Logged::of_events(&log)))
        }
        None => None,
    };
    shared.progress.finish_and_clear();
    Ok(Outcome::new(args, &shared, &texts, &server, history))
}
