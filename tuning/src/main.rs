//! The `aetherflow-tune` command: what a host lacks to run shards well.

mod check;
mod cli;
mod finding;
mod host;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
