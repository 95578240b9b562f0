//! `aetherflow-bench link`: a command on a bad network.
//!
//! Two network namespaces are joined by the simulator's link effects, in real time, on a TUN device in each. The command runs
//! outside of both and enters them by `ip netns exec`.

mod args;
mod command;
mod emulator;
mod line;
mod namespace;
mod netem;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use quantum_sim::LinkConfig;

pub use args::LinkArgs;
pub(crate) use emulator::be_punctual;
pub(crate) use line::Line;
use namespace::Namespaces;

/// Address of the first namespace's end.
pub const ADDR_A: &str = "10.77.0.1";
/// Address of the second namespace's end.
pub const ADDR_B: &str = "10.77.0.2";
/// Name of the device that leads to the other namespace, in both.
pub const DEVICE: &str = "link0";

/// Runs the command of `args` on its link and gives the command's exit code.
///
/// # Errors
/// A setting makes no sense, the network cannot be set up, or the emulator failed. The namespaces are gone in any case.
pub fn run(args: &LinkArgs) -> anyhow::Result<ExitCode> {
    let config = args.config()?;
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("link makes network namespaces and needs root: run it with sudo");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Signals are caught before there is anything that they would have to clean up.
    let signals = runtime.block_on(async { command::Signals::catch() })?;
    let namespaces = Namespaces::create(&args.name())?;
    if args.netem {
        run_netem(args, &config, &namespaces, &runtime, signals)
    } else {
        run_emulated(args, &config, &namespaces, &runtime, signals)
    }
}

fn run_emulated(
    args: &LinkArgs,
    config: &LinkConfig,
    namespaces: &Namespaces,
    runtime: &tokio::runtime::Runtime,
    signals: command::Signals,
) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let devices = namespaces.tun_devices(args.mtu)?;
    let mut emulator = emulator::Emulator::start(devices, config, seed)?;
    let code = runtime.block_on(command::run(&args.command, &environment(namespaces), signals, emulator.ended()))?;
    let overflows = namespaces.device_drops()?;
    let directions = emulator.stop()?;
    report::emulated(seed, &directions, overflows);
    Ok(code)
}

fn run_netem(
    args: &LinkArgs,
    config: &LinkConfig,
    namespaces: &Namespaces,
    runtime: &tokio::runtime::Runtime,
    signals: command::Signals,
) -> anyhow::Result<ExitCode> {
    let [ns_a, ns_b] = namespaces.names();
    for line in netem::commands(ns_a, ns_b, config, args.mtu, args.seed)? {
        let [program, arguments @ ..] = line.as_slice() else { continue };
        namespace::call(program, arguments).with_context(|| {
            format!("`{}` failed; a kernel without sch_netem needs the emulator: leave out --netem", line.join(" "))
        })?;
    }
    let code =
        runtime.block_on(command::run(&args.command, &environment(namespaces), signals, std::future::pending()))?;
    report::netem(namespaces)?;
    Ok(code)
}

/// What the command sees.
fn environment(namespaces: &Namespaces) -> [(&'static str, OsString); 4] {
    let [ns_a, ns_b] = namespaces.names();
    [("NS_A", ns_a.into()), ("NS_B", ns_b.into()), ("ADDR_A", ADDR_A.into()), ("ADDR_B", ADDR_B.into())]
}
