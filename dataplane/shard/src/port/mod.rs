//! Ports: how bytes move between the kernel and a shard. The only place, with the hand-off, that talks to the kernel itself.

mod address;
mod buffers;
mod control;
mod mmsg;
mod slots;
mod sys;
mod unreachable;
mod uring;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire_tests;

use std::io;
use std::os::fd::OwnedFd;

use quantum::Time;

pub(crate) use mmsg::MmsgPort;
pub(crate) use sys::{attach_steering, locked_memory_limit_kib, prepare_socket};
pub(crate) use uring::{UringPort, UringSettings, probe};

use crate::work::Port;

/// A port as a host sees it: what its thread sleeps on.
pub(crate) trait Parkable: Port {
    /// Hands the kernel what was queued, and takes what it has completed.
    ///
    /// # Errors
    /// What the kernel says; the shard cannot go on.
    fn submit(&mut self) -> io::Result<()>;

    /// Whether something is there that was not looked at.
    fn has_completions(&mut self) -> bool;

    /// The thread is about to sleep, until then at the latest.
    fn set_deadline(&mut self, deadline: Option<Time>);

    /// Sleeps until there is something: a datagram, a send, the doorbell, the deadline.
    ///
    /// # Errors
    /// What the kernel says; the shard cannot go on.
    fn wait(&mut self) -> io::Result<()>;

    /// A descriptor for runtimes that wait by themselves: it can be read from once there is something that came after
    /// [`prepare_wait`](Self::prepare_wait).
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    fn wake_fd(&mut self) -> io::Result<OwnedFd>;

    /// A runtime is about to wait for [`wake_fd`](Self::wake_fd). False if there is something already.
    ///
    /// # Errors
    /// What the kernel says; the shard cannot go on.
    fn prepare_wait(&mut self) -> io::Result<bool>;
}

/// The monotonic clock.
fn monotonic() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Whether a send failed since the datagram was too large for the interface: to its sender it is a lost one, like those that are
/// too large for another link of the path.
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}
