//! The load generator, link emulator and trace player of `AetherFlow`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aetherflow_bench::cli::main()
}
