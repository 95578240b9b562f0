//! Real servers of Redis and PostgreSQL for tests and measurements: private, on a free port of loopback, their data in a temporary
//! folder, durable as they are told to be by those who count on them. They end with the values that stand for them.
//!
//! Reading order: `programs.rs` finds what is installed, `redis.rs` and `postgres.rs` start it, `owner.rs` is whom PostgreSQL runs as.

mod owner;
mod postgres;
mod programs;
mod redis;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub use postgres::Postgres;
pub use programs::Programs;
pub use redis::Redis;

/// How often a server is asked whether it is up.
const POLL: Duration = Duration::from_millis(10);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not installed.
    #[error("{program} is not there (Debian: {package}); say where it is, or have .ci/tools.sh fetch it")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// What it is part of.
        package: &'static str,
    },
    /// A program cannot be run, or its folder not be made.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its data cannot be made.
    #[error("{}: {said}", .program.display())]
    Prepare {
        /// What failed.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else.
    #[error("nobody but root can run PostgreSQL here: it needs setpriv or unshare, and a data folder in their reach")]
    NoOwner,
    /// It is gone.
    #[error("{program} has ended ({status}): is its port taken?")]
    Ended {
        /// What ended.
        program: &'static str,
        /// How.
        status: ExitStatus,
    },
    /// It does not answer.
    #[error("{program} is not up after {limit:?}")]
    Silent {
        /// What does not answer.
        program: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl StartError {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}

/// A port of loopback that nobody listens on at this moment.
fn free_port() -> Result<u16, StartError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(StartError::system("no port of loopback is free"))
}

/// Blocks until `is_up`.
fn wait(
    program: &'static str,
    limit: Duration,
    mut is_up: impl FnMut() -> Result<bool, StartError>,
) -> Result<(), StartError> {
    let deadline = Instant::now() + limit;
    while !is_up()? {
        if Instant::now() >= deadline {
            return Err(StartError::Silent { program, limit });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
