//! A Redis server with an append-only file that is synced before it answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{Programs, StartError, free_port, wait};

const PROGRAM: &str = "redis-server";
/// It may have to read what it had.
const START_TIME: Duration = Duration::from_mins(1);
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// A running `redis-server`, which ends with this.
#[derive(Debug)]
pub struct Redis {
    process: Child,
    program: PathBuf,
    address: SocketAddr,
    data: TempDir,
}

impl Redis {
    /// Starts one with its data in a folder of its own in `parent`; it is not up at once.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(programs: &Programs, parent: &Path) -> Result<Self, StartError> {
        let program = programs.redis_server()?;
        let data = tempfile::Builder::new().prefix("redis-").tempdir_in(parent);
        let data = data.map_err(StartError::system("no folder for Redis"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let process = spawn(&program, address, data.path())?;
        Ok(Self { process, program, address, data })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it answers and has read what it had.
    ///
    /// # Errors
    /// [`StartError::Ended`].
    pub fn is_up(&mut self) -> Result<bool, StartError> {
        if answers(self.address) {
            return Ok(true);
        }
        match self.process.try_wait() {
            Ok(Some(status)) => Err(StartError::Ended { program: PROGRAM, status }),
            _ => Ok(false),
        }
    }

    /// Blocks until it is up.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn wait(&mut self) -> Result<(), StartError> {
        wait(PROGRAM, START_TIME, || self.is_up())
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        // Already ended: both say so, and that is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again, after its end, with what it had; it is not up at once.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.process = spawn(&self.program, self.address, self.data.path())?;
        Ok(())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Until it has read what it had it answers with an error.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, ANSWER_TIME) else { return false };
    let mut answer = [0; 7];
    stream.set_read_timeout(Some(ANSWER_TIME)).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"+PONG\r\n"
}

fn spawn(program: &Path, address: SocketAddr, data: &Path) -> Result<Child, StartError> {
    // What is acknowledged is in its file: with everysec a write may stay in its memory while it syncs.
    let durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]).args(durable).arg("--dir").arg(data);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(StartError::system(format!("cannot run {}", program.display())))
}
