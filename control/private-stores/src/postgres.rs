//! A PostgreSQL server that syncs what it commits.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::owner::{Owner, command};
use crate::{Programs, StartError, free_port, wait};

const PROGRAM: &str = "postgres";
/// How long it may take to start, with what it has to repair after it was killed.
const START_TIME: Duration = Duration::from_secs(30);
const END_TIME: Duration = Duration::from_secs(5);
/// The lines of `postmaster.pid` with the process id and the state.
const PID_LINE: usize = 0;
const STATE_LINE: usize = 7;

/// A running `postgres`, which ends with this: role `postgres`, no password, database `postgres`.
#[derive(Debug)]
pub struct Postgres {
    process: Child,
    programs: PathBuf,
    owner: Option<Owner>,
    port: u16,
    data: TempDir,
}

impl Postgres {
    /// Starts one with its data in a folder of its own in `parent`; it is not up at once.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(programs: &Programs, parent: &Path) -> Result<Self, StartError> {
        let programs = programs.postgres_folder()?;
        let data = tempfile::Builder::new().prefix("postgres-").tempdir_in(parent);
        let data = data.map_err(StartError::system("no folder for PostgreSQL"))?;
        let owner = Owner::find(&programs, data.path())?;
        let initdb = programs.join("initdb");
        // Its own start syncs nothing: what somebody looks at is what the server does later.
        let mut init = command(owner.as_ref(), &initdb);
        init.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        let made = init.arg(data.path().join("data")).current_dir(data.path()).stdin(Stdio::null()).output();
        let made = made.map_err(StartError::system(format!("cannot run {}", initdb.display())))?;
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Err(StartError::Prepare { program: initdb, said });
        }
        let port = free_port()?;
        let process = spawn(owner.as_ref(), &programs, port, data.path())?;
        Ok(Self { process, programs, owner, port, data })
    }

    /// The port of 127.0.0.1 that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the one that starts the others.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its process, then those that it started.
    pub fn processes(&self) -> Vec<u32> {
        let id = self.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
    }

    /// Whether it takes connections.
    ///
    /// # Errors
    /// [`StartError::Ended`].
    pub fn is_up(&mut self) -> Result<bool, StartError> {
        if let Ok(Some(status)) = self.process.try_wait() {
            return Err(StartError::Ended { program: PROGRAM, status });
        }
        let file = self.data.path().join("data/postmaster.pid");
        let state = std::fs::read_to_string(file).unwrap_or_default();
        Ok(is_ready(&state, self.id()))
    }

    /// Blocks until it is up.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn wait(&mut self) -> Result<(), StartError> {
        wait(PROGRAM, START_TIME, || self.is_up())
    }

    /// Ends every process of it without any warning.
    pub fn kill(&mut self) {
        signal(Signal::KILL, &self.processes());
        // Already ended is fine.
        let _ = self.process.wait();
    }

    /// Starts it again, after its end, with what it had on disk; it is not up at once. Processes of a server that was killed and
    /// are not quite gone let it end at once.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.process = spawn(self.owner.as_ref(), &self.programs, self.port, self.data.path())?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may have ended already. QUIT is an immediate end that leaves nothing behind in the system.
        if matches!(self.process.try_wait(), Ok(None)) {
            let processes = self.processes();
            signal(Signal::CONT, &processes);
            signal(Signal::QUIT, &processes[..1]);
            let deadline = Instant::now() + END_TIME;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether `postmaster.pid` says that the server of this process id takes connections. One that was killed leaves its own behind.
fn is_ready(state: &str, id: u32) -> bool {
    let line = |number: usize| state.lines().nth(number).map(str::trim);
    line(PID_LINE).and_then(|line| line.parse().ok()) == Some(id) && line(STATE_LINE) == Some("ready")
}

/// One that has just ended is no failure.
fn signal(signal: Signal, processes: &[u32]) {
    for process in processes.iter().filter_map(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(process, signal);
    }
}

fn spawn(owner: Option<&Owner>, programs: &Path, port: u16, data: &Path) -> Result<Child, StartError> {
    let program = programs.join("postgres");
    let mut command = command(owner, &program);
    command.arg("-D").arg(data.join("data")).args(["-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "fsync=on"] {
        command.args(["-c", setting]);
    }
    command.current_dir(data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(StartError::system(format!("cannot run {}", program.display())))
}

#[cfg(test)]
mod tests {
    use super::is_ready;

    #[test]
    fn a_server_is_ready_when_its_own_file_says_so() {
        let state = |id: u32, word: &str| format!("{id}\n/data\n1700000000\n5432\n\n127.0.0.1\n 1 2\n{word}\n");
        assert!(is_ready(&state(7, "ready   "), 7));
        assert!(!is_ready(&state(7, "starting"), 7));
        assert!(!is_ready(&state(8, "ready   "), 7) && !is_ready("", 7));
    }
}
