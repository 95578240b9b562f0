//! A glommio executor, pinned to its core. While parked it waits for the port's eventfd as for any file of its own.

use glommio::{GlommioError, LocalExecutorBuilder, Placement};

use super::HostSettings;
use super::run::{Next, Runner};
use crate::error::ShardError;
use crate::port::{self, UringPort, share_event};
use crate::work::Work;

/// Bytes that the executor locks, three times over, for I/O of its own, of which there is none but the wake-up. It takes no
/// less.
const IO_MEMORY: usize = 64 << 10;
/// Operations of the executor's rings; two are under way at most.
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
        let event = share_event(runner.port.event())?;
        ready();
        while runner.run_until_idle()? == Next::Park {
            runner.port.listen(true);
            runner.port.enter()?;
            if !runner.port.has_completions() {
                event.read_at(0, 8).await.map_err(|error| ShardError::Host(error.to_string()))?;
            }
            runner.port.listen(false);
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
