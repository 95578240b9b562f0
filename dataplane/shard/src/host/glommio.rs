//! A glommio executor, pinned to its core.
//!
//! It parks in the port's ring and not in glommio's reactor (there on an eventfd that the port's ring signals). For glommio 0.9
//! was seen to sleep on with its task ready: under 30,000 datagrams per second and calls a shard slept through megabytes of
//! them within a minute or two. Its run loop takes "preempted before any task ran", which a completion in its latency ring
//! causes, for "nothing to run". A sleep there also costs eight system calls instead of one: a call over loopback took 134 us
//! (median) instead of 85. There is no other task on the executor that would wait meanwhile.

use glommio::{GlommioError, LocalExecutorBuilder, Placement};

use super::HostSettings;
use super::run::{Next, Runner};
use crate::error::ShardError;
use crate::port::{self, Parkable, UringPort};
use crate::work::Work;

/// Bytes that the executor locks, three times over, for I/O of its own, of which there is none. It takes no less.
const IO_MEMORY: usize = 64 << 10;
/// Operations of the executor's rings; none are under way.
const RING_DEPTH: usize = 16;

pub(super) fn run(
    settings: &HostSettings,
    make: impl FnOnce() -> Result<UringPort, ShardError>,
    work: &mut dyn Work,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    let placement = settings.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("quantum-shard")
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| refused(&error))?;
    executor.run(async {
        let mut runner = Runner::new(make()?, work, settings.spin);
        ready();
        while runner.run_until_idle()? == Next::Park {
            runner.port.wait()?;
            runner.woke();
        }
        Ok(())
    })
}

/// Why the executor cannot be made. Out of memory means that its rings found no memory left to lock: the kernel counts that
/// over all processes of a user.
fn refused(error: &GlommioError<()>) -> ShardError {
    match error {
        GlommioError::IoError(cause) if cause.raw_os_error() == Some(libc::ENOMEM) => {
            ShardError::LockedMemory { limit_kib: port::locked_memory_limit_kib() }
        }
        _ => ShardError::Host(error.to_string()),
    }
}
