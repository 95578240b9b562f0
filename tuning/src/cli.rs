//! The command line.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::check;
use crate::finding::{Finding, Verdict};
use crate::host::Host;

const EXAMPLES: &str = "Examples:
  aetherflow-tune check            what this host has, lacks, and how to change it
  aetherflow-tune check --json     the same for programs: an array with an object for each line
  aetherflow-tune check --strict   ends with 1 if anything is worth changing

It reads /proc and /sys, asks the kernel for an io_uring and a UDP socket, and changes nothing. Run it as the user that runs \
AetherFlow: limits such as locked memory belong to the user. Set NO_COLOR for a report without colours.";

const COMPLETIONS: &str = "Examples:
  aetherflow-tune completions bash > /etc/bash_completion.d/aetherflow-tune
  aetherflow-tune completions zsh > \"${fpath[1]}/_aetherflow-tune\"
  aetherflow-tune completions fish > ~/.config/fish/completions/aetherflow-tune.fish";

const ABOUT: &str = "Says what this host lacks to run AetherFlow's shards well";

/// Says what this host lacks to run `AetherFlow`'s shards well.
#[derive(Parser)]
#[command(name = "aetherflow-tune", version, about = ABOUT, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reports what was found, what is wanted and why; changes nothing
    #[command(after_help = EXAMPLES)]
    Check {
        /// Print one JSON array instead of the report
        #[arg(long)]
        json: bool,
        /// End with 1 if anything is worth changing
        #[arg(long)]
        strict: bool,
        /// Where proc and sys are
        #[arg(long, hide = true, default_value = "/")]
        root: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line's command.
pub(crate) fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "aetherflow-tune", &mut out);
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { json, strict, root } => {
            let findings = check::all(&Host::at(root));
            if json {
                serde_json::to_writer_pretty(&mut out, &findings)?;
                writeln!(out)?;
            } else {
                let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                report(&mut out, &findings, colours)?;
            }
            let lacks = findings.iter().any(|finding| finding.verdict == Verdict::Change);
            Ok(if strict && lacks { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

/// The report for people: one line per finding, and three more where something is worth changing.
pub(crate) fn report(out: &mut impl Write, findings: &[Finding], colours: bool) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    for finding in findings {
        let (word, colour) = match finding.verdict {
            Verdict::Good => ("good   ", "\x1b[32m"),
            Verdict::Change => ("change ", "\x1b[33m"),
            Verdict::Unknown => ("unknown", "\x1b[2m"),
        };
        let (colour, plain) = if colours { (colour, "\x1b[0m") } else { ("", "") };
        writeln!(out, "{colour}{word}{plain}  {:width$}  {}", finding.name, finding.found)?;
        if finding.verdict != Verdict::Good {
            let indent = " ".repeat(width + 11);
            writeln!(out, "{indent}wanted: {}", finding.wanted)?;
            writeln!(out, "{indent}why:    {}", finding.why)?;
            if let Some(fix) = &finding.fix {
                writeln!(out, "{indent}how:    {fix}")?;
            }
        }
    }
    let lacking = findings.iter().filter(|finding| finding.verdict == Verdict::Change).count();
    writeln!(out, "{lacking} of {} are worth changing.", findings.len())
}
