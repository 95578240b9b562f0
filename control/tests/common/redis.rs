//! A real Redis server of a test's own.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use control::session::RedisOptions;
use private_stores::{Redis, StartError};

use super::commands::{programs, skip};
use super::eventually;

/// Ends with this.
pub struct RedisServer {
    server: Redis,
    pub address: SocketAddr,
}

impl RedisServer {
    /// One with an append-only file; none if `redis-server` is not installed, which is a failure where everything has to be tested.
    pub async fn start() -> Option<Self> {
        let server = match Redis::start(&programs(), &std::env::temp_dir()) {
            Err(missing @ StartError::Missing { .. }) => {
                skip(&missing.to_string());
                return None;
            }
            started => started.unwrap(),
        };
        let address = server.address();
        let mut server = Self { server, address };
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
        assert!(Command::new("kill").args([name, &self.server.id().to_string()]).status().unwrap().success());
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again with what it had.
    pub async fn restart(&mut self) {
        self.server.restart().unwrap();
        self.wait().await;
    }

    /// Waits until it answers, with what it had.
    async fn wait(&mut self) {
        let look = async || if self.server.is_up().unwrap() { Ok(()) } else { Err("redis-server does not answer") };
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
