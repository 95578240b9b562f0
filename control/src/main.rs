//! The `aetherflow` command.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use control::auth::{SECRET_FILE, token};
use control::client::{SendingArgs, TraceArgs, call, proxy};
use control::config::{Auth, Quantum, QuantumHost, QuantumIo};
use control::launch::{self, CheckArgs, FileArgs, Service, asked_to_stop};
use control::migrate::{self, Migrate};
use control::up::{Ports, Running, UpOptions};

/// Gives memory back that clients have left, which glibc keeps (see `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EXAMPLES: &str = "Examples:
  aetherflow up                                    both services on loopback, data in ./data
  aetherflow session -f configs/session.yaml       one service, as its file says
  aetherflow config check configs/session.yaml     what is wrong with a file
  aetherflow token --key-file data/auth.key --sub ada
  aetherflow call --insecure-loopback 127.0.0.1:9002 list
  aetherflow proxy --listen 127.0.0.1:7002 --to 127.0.0.1:9002 --insecure-loopback
  aetherflow COMMAND --help                        more examples of a command

Set RUST_LOG (for example RUST_LOG=debug) for more or fewer logs.";

const UP_EXAMPLES: &str = "Examples:
  aetherflow up                                    on loopback, data in ./data, TCP and Quantum
  aetherflow up --data /var/lib/aetherflow         data elsewhere
  aetherflow up --ports 19000                      on ports 19001, 19002, 19101 and 19102
  aetherflow up --bind 0.0.0.0 --allow-anonymous   for everybody on the network, unauthenticated
  aetherflow up --auth                             callers need a token, permissions are enforced
  aetherflow up --trace http://127.0.0.1:4317      with traces to an OpenTelemetry collector
  RUST_LOG=debug aetherflow up --qlog /tmp/qlog    with more logs, and what connections do

Data is kept in SQLite, synced to disk before it is acknowledged. Another store, TLS on TCP and everything else is set in the \
files of `aetherflow session` and `aetherflow statesync`. Ctrl-C and SIGTERM stop it within five seconds.";

const COMPLETIONS: &str = "Examples:
  aetherflow completions bash > /etc/bash_completion.d/aetherflow
  aetherflow completions zsh > \"${fpath[1]}/_aetherflow\"
  aetherflow completions fish > ~/.config/fish/completions/aetherflow.fish";

/// Sessions and documents that people edit together, over gRPC.
#[derive(Parser)]
#[command(name = "aetherflow", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the session and the document service in this process
    #[command(after_help = UP_EXAMPLES)]
    Up(Up),
    /// Start the session service
    #[command(after_help = launch::EXAMPLES)]
    Session(FileArgs),
    /// Start the document service
    #[command(after_help = launch::EXAMPLES)]
    Statesync(FileArgs),
    /// Look at the schema of the PostgreSQL database, or change it
    #[command(after_help = migrate::EXAMPLES)]
    Migrate {
        #[command(subcommand)]
        command: Migrate,
    },
    /// Look at configuration files
    #[command(after_help = launch::CONFIG_EXAMPLES)]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Call any method of any gRPC server that answers reflection, over Quantum or TCP
    #[command(after_help = call::EXAMPLES)]
    Call(call::CallArgs),
    /// Let ordinary gRPC clients reach a server over Quantum
    #[command(after_help = proxy::EXAMPLES)]
    Proxy(proxy::ProxyArgs),
    /// Print a token for a user, signed with a key of the services
    #[command(after_help = token::EXAMPLES)]
    Token(token::TokenArgs),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read a file and say what is wrong with it; nothing is started
    #[command(after_help = launch::CONFIG_EXAMPLES)]
    Check(CheckArgs),
}

#[derive(Args)]
struct Up {
    /// Where databases, certificate and keys are kept; created if it is missing
    #[arg(long, value_name = "DIR", default_value = "data", env = "AETHERFLOW_DATA")]
    data: PathBuf,
    /// The address to listen on
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// Let `--bind` be no loopback address although authentication is off: anybody there reads and writes everything
    #[arg(long)]
    allow_anonymous: bool,
    /// Callers have to send a token, and permissions are enforced; the secret is kept in DATA/auth.key
    #[arg(long)]
    auth: bool,
    /// gRPC listens on BASE+1 (sessions) and BASE+2 (documents), metrics on BASE+101 and BASE+102
    #[arg(long, value_name = "BASE", default_value_t = 9000)]
    ports: u16,
    /// Log what happens on each Quantum connection into this folder (qlog; <https://qvis.quictools.info> draws it)
    #[arg(long, value_name = "DIR")]
    qlog: Option<PathBuf>,
    /// Quantum: threads, each with a socket of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: u16,
    /// Quantum: cores that the shards are pinned to, one for each, such as 0,1
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Vec<usize>,
    /// Quantum: microseconds that a busy shard looks for more work before it sleeps; 0: it sleeps at once
    #[arg(long, value_name = "N", default_value_t = 50)]
    spin_us: u64,
    /// Quantum: what runs the shards' threads
    #[arg(long, value_name = "H", value_enum, default_value_t)]
    host: QuantumHost,
    /// Quantum: how bytes move
    #[arg(long, value_enum, default_value_t)]
    io: QuantumIo,
    #[command(flatten)]
    sending: SendingArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

impl Up {
    fn quantum(&self) -> anyhow::Result<Quantum> {
        let shards = usize::from(self.shards);
        anyhow::ensure!(
            self.cores.is_empty() || self.cores.len() == shards,
            "--cores names {} cores for {shards} shards: name one for each",
            self.cores.len()
        );
        let (cores, spin_us, qlog) = (self.cores.clone(), self.spin_us, self.qlog.clone().unwrap_or_default());
        let (congestion, fec) = (self.sending.congestion, self.sending.fec());
        Ok(Quantum {
            shards,
            cores,
            spin_us,
            host: self.host,
            io: self.io,
            congestion,
            fec,
            qlog,
            ..Quantum::default()
        })
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    if let Command::Completions { shell } = command {
        clap_complete::generate(shell, &mut Cli::command(), "aetherflow", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Token(args) = &command {
        writeln!(std::io::stdout(), "{}", token::issue(args)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Config { command: ConfigCommand::Check(args) } = &command {
        return Ok(launch::check(args).map(|()| ExitCode::SUCCESS)?);
    }
    if !matches!(command, Command::Session(_) | Command::Statesync(_)) {
        control::telemetry::init_logs();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(async {
        match command {
            Command::Up(up) => serve(up).await.map(|()| ExitCode::SUCCESS),
            Command::Session(file) => Ok(launch::run(Service::Session, &file).await.map(|()| ExitCode::SUCCESS)?),
            Command::Statesync(file) => Ok(launch::run(Service::Statesync, &file).await.map(|()| ExitCode::SUCCESS)?),
            Command::Migrate { command } => Ok(migrate::run(&command).await.map(|()| ExitCode::SUCCESS)?),
            Command::Call(args) => Ok(call_once(&args).await),
            Command::Proxy(args) => forward(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Config { .. } | Command::Token(_) | Command::Completions { .. } => Ok(ExitCode::SUCCESS),
        }
    });
    runtime.shutdown_background();
    result
}

async fn call_once(args: &call::CallArgs) -> ExitCode {
    let input = tokio::io::BufReader::new(tokio::io::stdin());
    match call::run(args, input, &mut tokio::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn forward(args: &proxy::ProxyArgs) -> anyhow::Result<()> {
    let stop = asked_to_stop()?;
    let proxy = proxy::Proxy::bind(args).await?;
    println!("gRPC clients of {} connect to http://{}. Press Ctrl-C to stop.", args.to, proxy.local_addr()?);
    let channel = proxy.channel().clone();
    tokio::spawn(async move {
        match channel.transport().await {
            Ok(transport) => tracing::info!(?transport, "connected"),
            Err(status) => tracing::warn!("not connected yet: {}; the next call tries again", status.message()),
        }
    });
    Ok(proxy.serve(stop).await?)
}

async fn serve(up: Up) -> anyhow::Result<()> {
    let stop = asked_to_stop()?;
    let quantum = launch::endpoint_options(&up.quantum()?);
    let options = UpOptions {
        bind: up.bind,
        allow_anonymous: up.allow_anonymous,
        auth: Auth { enabled: up.auth, ..Auth::default() },
        ports: Ports::Base(up.ports),
        quantum: Some(quantum),
        tracing: up.trace.options("aetherflow"),
        ..UpOptions::new(&up.data)
    };
    let running = control::up::start(options).await?;
    announce(&running, up.auth.then(|| up.data.join(SECRET_FILE)).as_deref())?;
    stop.await;
    tracing::info!("stopping: streams end, open calls finish");
    running.shutdown().await;
    Ok(())
}

/// Says where everything is; `secret` is the file of the secret of tokens, if they are needed.
fn announce(running: &Running, secret: Option<&Path>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "AetherFlow is up. Press Ctrl-C to stop.")?;
    writeln!(out, "  sessions   gRPC over TCP  http://{}", running.session_addr)?;
    writeln!(out, "             over Quantum   quantum://{}", running.session_addr)?;
    writeln!(out, "             readiness      http://{}/readyz", running.session_metrics_addr)?;
    writeln!(out, "             metrics        http://{}/metrics", running.session_metrics_addr)?;
    writeln!(out, "  documents  gRPC over TCP  http://{}", running.statesync_addr)?;
    writeln!(out, "             over Quantum   quantum://{}", running.statesync_addr)?;
    writeln!(out, "             readiness      http://{}/readyz", running.statesync_metrics_addr)?;
    writeln!(out, "             metrics        http://{}/metrics", running.statesync_metrics_addr)?;
    writeln!(out, "  fingerprint (SHA-256 of the public key)  {}", running.fingerprint)?;
    if let Some(secret) = secret {
        writeln!(out, "  a token    aetherflow token --key-file {} --sub USER", secret.display())?;
    }
    out.flush()
}
