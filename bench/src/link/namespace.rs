//! The two network namespaces and their devices.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{ADDR_A, ADDR_B, DEVICE};

/// Packets that a device keeps for the emulator: a quarter of a second at 500 Mbit/s.
const DEVICE_QUEUE_PACKETS: u32 = 10_000;
/// Characters of a link's name at most.
const NAME_LEN_MAX: usize = 64;
/// What still runs in a namespace has so long to end before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Two network namespaces. Dropping them ends what runs inside and removes them.
#[derive(Debug)]
pub(super) struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Makes the namespaces `name-a` and `name-b`, their loopback devices up.
    pub(super) fn create(name: &str) -> anyhow::Result<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_name =
            name.bytes().all(is_plain) && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        ensure!(
            is_name && name.len() <= NAME_LEN_MAX,
            "--name {name:?}: a letter or digit, then letters, digits, '_', '-' or '.', {NAME_LEN_MAX} at most"
        );
        let names = [format!("{name}-a"), format!("{name}-b")];
        let stale: Vec<&str> = names.iter().map(String::as_str).filter(|name| path(name).exists()).collect();
        if !stale.is_empty() {
            let fix: Vec<String> = stale.iter().map(|name| format!("ip netns del {name}")).collect();
            bail!(
                "the network namespace {} exists already: a link of that name runs, or one was killed. If none runs: {}",
                stale.join(" and "),
                fix.join("; ")
            );
        }
        // Made before the namespaces are, so that a failure half way removes what there is.
        let namespaces = Self { names };
        for name in &namespaces.names {
            call("ip", &["netns", "add", name])?;
            call("ip", &["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(namespaces)
    }

    /// Their names.
    pub(super) fn names(&self) -> [&str; 2] {
        self.names.each_ref().map(String::as_str)
    }

    /// A TUN device in each, up and addressed, which nothing but the emulator and the device's own queue can drop from.
    pub(super) fn tun_devices(&self, mtu: u16) -> anyhow::Result<[SyncDevice; 2]> {
        let [name_a, name_b] = self.names();
        Ok([tun_device(name_a, ADDR_A, mtu)?, tun_device(name_b, ADDR_B, mtu)?])
    }

    /// A pair of Ethernet devices without limits that joins them, up and addressed.
    pub(super) fn join_directly(&self, mtu: u16) -> anyhow::Result<()> {
        let ([name_a, name_b], mtu) = (self.names(), mtu.to_string());
        let peer = ["type", "veth", "peer", "name", DEVICE, "mtu", &mtu, "netns", name_b];
        call("ip", &[&["-n", name_a, "link", "add", DEVICE, "mtu", &mtu][..], &peer].concat())?;
        for (name, address) in [(name_a, ADDR_A), (name_b, ADDR_B)] {
            call("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", DEVICE])?;
            call("ip", &["-n", name, "link", "set", DEVICE, "up"])?;
        }
        Ok(())
    }

    /// Lets TCP's windows grow to so many bytes in both.
    pub(super) fn widen_tcp_windows(&self, bytes_max: u64) -> anyhow::Result<()> {
        for name in self.names() {
            for (setting, initial) in [("tcp_rmem", 131_072), ("tcp_wmem", 16_384)] {
                let path = format!("/proc/sys/net/ipv4/{setting}");
                inside(name, || std::fs::write(&path, format!("4096 {initial} {bytes_max}")))?
                    .with_context(|| format!("cannot set {setting} in {name}"))?;
            }
        }
        Ok(())
    }

    /// Packets that each device dropped because the emulator did not take them in time.
    pub(super) fn device_drops(&self) -> anyhow::Result<[u64; 2]> {
        let [drops_a, drops_b] = self.names().map(|name| -> anyhow::Result<u64> {
            let output = call("ip", &["-n", name, "-s", "-j", "link", "show", "dev", DEVICE])?;
            let links: serde_json::Value = serde_json::from_str(&output).context("ip prints JSON")?;
            links.pointer("/0/stats64/tx/dropped").and_then(serde_json::Value::as_u64).context("ip counts drops")
        });
        Ok([drops_a?, drops_b?])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in self.names.iter().filter(|name| path(name).exists()) {
            end_processes(name);
            if let Err(error) = call("ip", &["netns", "del", name]) {
                tracing::error!(%error, name, "the network namespace could not be removed");
            }
        }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn tun_device(name: &str, address: &str, mtu: u16) -> anyhow::Result<SyncDevice> {
    let device = inside(name, move || {
        // No neighbour or router discovery: the counters count the command's packets only. The loopback keeps its ::1.
        if let Err(error) = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            tracing::debug!(%error, "no IPv6 to disable");
        }
        DeviceBuilder::new().name(DEVICE).mtu(mtu).enable(false).build_sync()
    })?
    .with_context(|| format!("no TUN device in {name}; is /dev/net/tun there (modprobe tun)?"))?;
    device.set_nonblocking(true)?;
    let queue = DEVICE_QUEUE_PACKETS.to_string();
    call("ip", &["-n", name, "link", "set", DEVICE, "txqueuelen", &queue, "up"])?;
    call("tc", &["-n", name, "qdisc", "replace", "dev", DEVICE, "root", "noqueue"])?;
    call("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", DEVICE])?;
    Ok(device)
}

/// Does `work` on a thread of the namespace.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let namespace = File::open(path(name)).with_context(|| format!("the network namespace {name}"))?;
    let entered = thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<T> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        thread.join()
    });
    match entered {
        Ok(result) => result.with_context(|| format!("entering the network namespace {name}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Ends what runs in the namespace: politely first.
fn end_processes(name: &str) {
    let deadline = Instant::now() + GRACE;
    for process in processes(name) {
        let _ = rustix::process::kill_process(process, Signal::TERM);
    }
    loop {
        let running = processes(name);
        if running.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            for process in running {
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn processes(name: &str) -> Vec<Pid> {
    let output = call("ip", &["netns", "pids", name]).unwrap_or_default();
    output.lines().filter_map(|line| line.trim().parse().ok().and_then(Pid::from_raw)).collect()
}

/// Runs a tool of iproute2 and gives what it printed.
pub(super) fn call(program: &str, arguments: &[impl AsRef<OsStr>]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} does not start; it is part of iproute2"))?;
    if !output.status.success() {
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
