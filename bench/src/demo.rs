//! `demo`: two people edit one document over a link that loses packets, and what came of it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::replay::ReplayTransport;

const EXAMPLES: &str = "\
Makes a link between two network namespaces (needs root), starts `aetherflow up` at one end and `replay` at the other, and \
prints what happens step by step. `aetherflow` is taken from the folder that this program is in.

Examples:
  aetherflow-bench demo
  aetherflow-bench demo --transport tcp-grpc --delay-ms 25 --loss 5 --trace generate:2,2000,7
  aetherflow-bench demo --trace friendsforever.json.gz --encoding json";

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// What carries the calls
    #[arg(long, value_enum, default_value = "quantum-grpc")]
    transport: ReplayTransport,
    /// A trace in the public editing-traces format (gzip or not), or generate:WRITERS,OPERATIONS,SEED
    #[arg(long, default_value = "generate:2,2000,7")]
    trace: String,
    /// How operations are written: yjs or json
    #[arg(long, default_value = "yjs")]
    encoding: String,
    /// One way delay in milliseconds
    #[arg(long, value_name = "D", default_value_t = 25.0)]
    delay_ms: f64,
    /// Loss in percent, in each direction
    #[arg(long, value_name = "PCT", default_value_t = 5.0)]
    loss: f64,
    /// On the link already
    #[arg(long, hide = true)]
    inside: bool,
}

/// Runs `demo`.
///
/// # Errors
/// If the link or the services do not start.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    if args.inside { on_the_link(args) } else { around_the_link(args) }
}

fn around_the_link(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let transport = args.transport.to_possible_value().expect("no transport is hidden");
    say(&format!(
        "1. A link between two network namespaces: {} ms each way, {} % loss each way",
        args.delay_ms, args.loss
    ));
    let this = std::env::current_exe()?;
    let mut link = Command::new(&this);
    link.args(["link", "--delay-ms", &args.delay_ms.to_string(), "--loss", &args.loss.to_string(), "--"]);
    link.arg(&this).args(["demo", "--inside", "--transport", transport.get_name()]);
    link.args(["--trace", &args.trace, "--encoding", &args.encoding]);
    let status = link.status().context("cannot run the link")?;
    let verdict =
        if status.success() { "Every replica and the server hold the same text." } else { "It did not work." };
    say(&format!("5. {verdict} The line above counts what the link lost."));
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn on_the_link(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (client_end, server_end, address) = (variable("NS_A")?, variable("NS_B")?, variable("ADDR_B")?);
    let data = tempfile::tempdir()?;
    let certificate = data.path().join("cert.pem");
    let this = std::env::current_exe()?;
    let server = this.with_file_name("aetherflow");
    ensure!(server.exists(), "{} is missing: build the package aetherflow", server.display());
    say(&format!("2. aetherflow up at the far end, on {address}"));
    let mut up = in_namespace(&server_end, server);
    up.arg("up").arg("--data").arg(data.path()).args(["--bind", &address, "--allow-anonymous"]);
    let server = Server::start(up)?;
    let transport = args.transport.to_possible_value().expect("no transport is hidden");
    say(&format!("3. replay at this end: {} over {} ({})", args.trace, transport.get_name(), args.encoding));
    let mut replay = in_namespace(&client_end, this);
    replay.args(["replay", "--trace", &args.trace, "--to", &format!("{address}:9002")]);
    replay.args(["--transport", transport.get_name(), "--encoding", &args.encoding]);
    if args.transport == ReplayTransport::QuantumGrpc {
        replay.arg("--ca").arg(certificate);
    }
    let status = replay.status().context("cannot run replay")?;
    say("4. Ctrl-C to aetherflow");
    server.stop()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn in_namespace(namespace: &str, program: PathBuf) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// `aetherflow up`, which does not outlive this.
struct Server(Child);

impl Server {
    /// Starts it and waits until it says that it is up.
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start aetherflow")?;
        let output = child.stdout.take().expect("standard output is a pipe");
        let server = Self(child);
        let mut lines = BufReader::new(output).lines();
        let up = lines
            .by_ref()
            .map_while(Result::ok)
            .inspect(|line| say(&format!("   {line}")))
            .any(|line| line.contains("is up"));
        ensure!(up, "aetherflow ended before it was up");
        // The rest is printed too, and a full pipe never stops the server.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| say(&format!("   {line}"))));
        Ok(server)
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::INT)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "aetherflow ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended: both say so, and that is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(line: &str) {
    // Standard error may be gone; the demonstration goes on.
    let _ = writeln!(std::io::stderr(), "{line}");
}
