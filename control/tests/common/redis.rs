//! A real Redis server of a test's own.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use control::session::RedisOptions;
use tempfile::TempDir;

use super::commands::{path, skip};
use super::eventually;
use super::process::Process;

/// Ends with this.
pub struct RedisServer {
    process: Process,
    pub address: SocketAddr,
    data: TempDir,
}

impl RedisServer {
    /// One with an append-only file; none if `redis-server` is not installed, which is a failure where everything has to be tested.
    pub async fn start() -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = tempfile::tempdir().unwrap();
        let Some(process) = spawn(address, &data) else {
            skip("no redis-server (Debian: redis-server): .ci/tools.sh fetches it");
            return None;
        };
        let mut server = Self { process, address, data };
        server.wait().await;
        Some(server)
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions {
            address: self.address.to_string(),
            password: String::new(),
            database: 0,
            key_prefix: String::new(),
            connections: 2,
            retries: 3,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
        }
    }

    /// The section `Store` of a configuration file.
    pub fn section(&self) -> String {
        format!("Store:\n  Type: redis\n  Redis: {{Addr: \"{}\"}}\n", self.address)
    }

    /// Has it run a command.
    pub fn tell(&self, command: &str) {
        self.connect()(command);
    }

    /// A connection that has it run commands.
    pub fn connect(&self) -> impl FnMut(&str) + use<> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        move |command| {
            let answer = answer(&mut stream, command).unwrap();
            assert!(!answer.starts_with('-'), "{command}: {answer}");
        }
    }

    /// The number that is the answer to a command.
    pub fn ask(&self, command: &str) -> u64 {
        let answer = answer(&mut TcpStream::connect(self.address).unwrap(), command).unwrap();
        answer.trim_start_matches(':').parse().expect("it is a number")
    }

    /// Stops it, or lets it go on.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again with what it had.
    pub async fn restart(&mut self) {
        self.process = spawn(self.address, &self.data).expect("it was there before");
        self.wait().await;
    }

    /// Waits until it answers, with what it had.
    async fn wait(&mut self) {
        let look = async || {
            assert!(self.process.0.try_wait().unwrap().is_none(), "redis-server has ended: is its port taken?");
            if answers(self.address) { Ok(()) } else { Err("redis-server does not answer") }
        };
        eventually(Duration::from_mins(1), look).await;
    }
}

/// The first line of the answer to a command.
fn answer(stream: &mut TcpStream, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(line.trim_end().to_owned()) }
}

/// Whether it is there and has read what it had: until then it answers with an error.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut answer = [0; 7];
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG\r\n"
}

fn spawn(address: SocketAddr, data: &TempDir) -> Option<Process> {
    // What is acknowledged is in its file: with everysec a write may stay in its memory while it syncs.
    let durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    Command::new("redis-server")
        .env("PATH", path())
        .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
        .args(durable)
        .arg("--dir")
        .arg(data.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
        .map(Process)
}
