//! The load generator, link emulator and trace player of `AetherFlow`.

use std::process::ExitCode;

/// That of the services, for all peers alike: what is measured of a transport has it at both ends.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    aetherflow_bench::cli::main()
}
