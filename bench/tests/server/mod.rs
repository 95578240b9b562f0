//! `aetherflow up` in a process of its own.
#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test binary uses its own part of this"
)]

pub mod documents;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// The base of ports that is looked at next; below the ports that the system gives to clients.
static NEXT_BASE: AtomicU16 = AtomicU16::new(11_000);

/// A running server, which does not outlive the test.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it on loopback and waits until it is up.
    pub fn start(data: &Path, base: u16) -> Self {
        let mut command = Command::new(binary("aetherflow"));
        command.args(["up", "--ports", &base.to_string(), "--data"]).arg(data);
        Self::run(&mut command)
    }

    /// Starts it on `address` in a network namespace and waits until it is up.
    pub fn start_inside(namespace: &str, address: &str, data: &Path) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(binary("aetherflow"));
        command.args(["up", "--bind", address, "--allow-anonymous", "--data"]).arg(data);
        Self::run(command.stderr(Stdio::null()))
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let server = Self { child };
        let mut lines = BufReader::new(output).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("is up")), "it ended before it was up");
        // What it still says is read, so that a full pipe never stops it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        server
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that is built beside `aetherflow-bench`.
pub fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_aetherflow-bench")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build -p aetherflow --bins", path.display());
    path
}

/// A base of ports that are free at the moment.
pub fn free_base() -> u16 {
    let is_free = |base: u16| [1, 2, 101, 102].iter().all(|port| TcpListener::bind(("127.0.0.1", base + port)).is_ok());
    loop {
        let base = NEXT_BASE.fetch_add(200, Ordering::Relaxed);
        assert!(base < 23_000, "no ports are free");
        if is_free(base) {
            return base;
        }
    }
}

/// Whether Quantum can run here. Without `io_uring` and what can take its place a test passes by saying what it leaves out, but
/// not where all has to be tested.
pub fn has_quantum(left_out: &str) -> bool {
    let Err(error) = quantum_shard::Shards::check() else { return true };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("SKIPPED: {left_out}: {error}");
    false
}

/// A number from the environment, such as a seed or how long to go on.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
