//! The command line.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::compare::CompareArgs;
use crate::compare::report::{self, ReportArgs};
use crate::demo::DemoArgs;
use crate::link::LinkArgs;
use crate::load::bulk::BulkArgs;
use crate::load::drive::DriveArgs;
use crate::load::serve::ServeArgs;
use crate::replay::ReplayArgs;
use crate::services::ServicesArgs;
use crate::writers::WritersArgs;
use crate::{compare, demo, link, load, replay, services, writers};

const EXAMPLES: &str = "Examples:
  aetherflow-bench serve --transport quantum-grpc --listen 127.0.0.1:7000 &
  aetherflow-bench drive --transport quantum-grpc --connect 127.0.0.1:7000 --rate 200 --size 256 \\
      --seconds 10                                  latencies between the two
  aetherflow-bench services                         the two services under load, each answer checked
  sudo aetherflow-bench demo                        two people edit a text over a bad network
  sudo aetherflow-bench compare --quick             Quantum beside TCP and QUIC, in five minutes
  aetherflow-bench COMMAND --help                   more examples, and what the results mean

Results are JSON, one line on standard output; what is for people goes to standard error. Exit code 0: done; 1: done, and \
something is not as it has to be; 2: it could not be done; that of `link` is its command's.";

const COMPLETIONS: &str = "Examples:
  aetherflow-bench completions bash > /etc/bash_completion.d/aetherflow-bench
  aetherflow-bench completions zsh > \"${fpath[1]}/_aetherflow-bench\"
  aetherflow-bench completions fish > ~/.config/fish/completions/aetherflow-bench.fish";

const ABOUT: &str = "Measures and proves AetherFlow: load, lossy links and recorded editing sessions";

/// Measures and proves `AetherFlow`: load, lossy links and recorded editing sessions.
#[derive(Debug, Parser)]
#[command(name = "aetherflow-bench", version, about = ABOUT, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers `drive` and `bulk`
    Serve(ServeArgs),
    /// Sends requests at a fixed rate, or a fixed number in flight, and reports the latencies
    Drive(DriveArgs),
    /// Sends as much as the path takes, and reports the goodput
    Bulk(BulkArgs),
    /// Replays a recorded or generated editing session through real clients and checks that all converge
    Replay(ReplayArgs),
    /// Lets several writers make random operations on documents of every type, and accounts for each operation
    Writers(WritersArgs),
    Link(LinkArgs),
    /// Measures the session and the document service: calls, durable operations, and fan-out to many subscribers
    Services(ServicesArgs),
    /// Measures Quantum beside TCP, gRPC over TCP and QUIC on the same lossy paths (needs root)
    Compare(CompareArgs),
    /// Shows two people editing one document over a link that loses packets (needs root)
    Demo(DemoArgs),
    /// Writes the report of a comparison again from its raw results
    Report(ReportArgs),
    /// Prints a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let outcome = match cli.command {
        Command::Serve(args) => load::serve::run(&args),
        Command::Drive(args) => load::drive::run(&args),
        Command::Bulk(args) => load::bulk::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Writers(args) => writers::run(&args),
        Command::Link(args) => link::run(&args),
        Command::Services(args) => services::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "aetherflow-bench", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
