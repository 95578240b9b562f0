//! `session-service`: the same as `aetherflow session`.

use std::process::ExitCode;

/// Gives memory back that clients have left, which glibc keeps (see `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    control::launch::main(control::launch::Service::Session)
}
