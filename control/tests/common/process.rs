//! Processes that do not outlive their test, and `aetherflow up` in one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::commands::AETHERFLOW;
use super::free_base;

/// A process; ends with this.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// `-TERM` and the like.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `aetherflow up`, on ports that are free.
pub struct UpProcess {
    pub process: Process,
    pub base: u16,
}

impl UpProcess {
    /// Starts it on the data in this folder and waits until it is up.
    pub fn start(data: &Path) -> Self {
        let base = free_base();
        Self { process: start(data, base), base }
    }

    /// Ends it without any warning and starts it again.
    pub fn kill_and_start(&mut self, data: &Path) {
        self.process.kill();
        self.process = start(data, self.base);
    }

    /// 1 is the session service, 2 the document service; with 100 more, their metrics.
    pub fn address(&self, offset: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.base + offset))
    }
}

/// The command `aetherflow up`.
pub fn up(data: &Path, base: u16) -> Command {
    let mut command = Command::new(AETHERFLOW);
    command.args(["up", "--ports", &base.to_string(), "--data"]).arg(data);
    command
}

fn start(data: &Path, base: u16) -> Process {
    let mut process = Process::start(up(data, base).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("is up")), "it ended before it was up");
    // What it still says is read, so that a full pipe never stops it.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    process
}
