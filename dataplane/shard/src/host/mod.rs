//! Hosts: what runs a shard's thread and how it parks.

mod bare;
mod glommio;
mod monoio;
mod run;

#[cfg(test)]
mod tests;

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::error::ShardError;
use crate::port::{self, MmsgPort, UringPort, UringSettings};
use crate::work::Work;

/// Memory that has to be lockable, in KiB: glommio refuses to start with less.
const LOCKED_KIB: u64 = 512;

/// What runs a shard's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKind {
    /// A glommio executor, which parks in the port's ring.
    #[default]
    Glommio,
    /// A monoio runtime, whose driver waits for the port.
    Monoio,
    /// Nothing: the thread parks in the port.
    Bare,
}

/// How bytes move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoKind {
    /// `io_uring`.
    #[default]
    Uring,
    /// `sendmsg` and `recvmmsg`.
    Mmsg,
}

/// Settings of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostSettings {
    pub(crate) host: HostKind,
    pub(crate) io: IoKind,
    /// The core that the thread is pinned to.
    pub(crate) core: Option<usize>,
    /// How long to look for more after the last work, at most, before parking ([`AdaptiveSpin`](crate::AdaptiveSpin)).
    pub(crate) spin: Duration,
    /// Bytes of the largest transmit.
    pub(crate) transmit_len: usize,
}

/// Whether shards can run here.
///
/// # Errors
/// See [`ShardError`].
pub(crate) fn check() -> Result<(), ShardError> {
    let limit_kib = port::locked_memory_limit_kib();
    if limit_kib < LOCKED_KIB {
        return Err(ShardError::LockedMemory { limit_kib });
    }
    port::probe().map_err(ShardError::Uring)
}

/// Whether that host runs with that I/O.
///
/// # Errors
/// [`ShardError::Config`].
pub(crate) fn check_pair(host: HostKind, io: IoKind) -> Result<(), ShardError> {
    if (host, io) == (HostKind::Glommio, IoKind::Mmsg) { Err(no_pair()) } else { Ok(()) }
}

fn no_pair() -> ShardError {
    ShardError::Config(
        "a glommio executor needs I/O over io_uring; with mmsg choose the host monoio or bare".to_owned(),
    )
}

fn check_core(core: Option<usize>) -> Result<(), ShardError> {
    let Some(core) = core else { return Ok(()) };
    let cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    if cores.contains(&core) {
        return Ok(());
    }
    Err(ShardError::Config(format!("there is no core {core} for a shard; this process may run on {cores:?}")))
}

/// Runs a shard on this thread until it is done. `ready` is called once it is about to turn for the first time.
///
/// # Errors
/// See [`ShardError`].
pub(crate) fn run(
    settings: &HostSettings,
    socket: UdpSocket,
    doorbell: OwnedFd,
    work: &mut dyn Work,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    check_core(settings.core)?;
    let transmit_len = settings.transmit_len;
    match settings.io {
        IoKind::Uring => {
            let make = || UringPort::new(socket, doorbell, UringSettings { transmit_len }).map_err(ShardError::Uring);
            match settings.host {
                HostKind::Glommio => glommio::run(settings, make, work, ready),
                HostKind::Monoio => monoio::run(settings, make, work, ready),
                HostKind::Bare => bare::run(settings, make, work, ready),
            }
        }
        IoKind::Mmsg => {
            let make = || MmsgPort::new(socket, doorbell, transmit_len).map_err(ShardError::Io);
            match settings.host {
                HostKind::Glommio => Err(no_pair()),
                HostKind::Monoio => monoio::run(settings, make, work, ready),
                HostKind::Bare => bare::run(settings, make, work, ready),
            }
        }
    }
}

/// Pins this thread to a core.
fn pin(core: Option<usize>) -> Result<(), ShardError> {
    match core {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(ShardError::Config(format!("the shard cannot be pinned to core {id}")))
        }
        _ => Ok(()),
    }
}
