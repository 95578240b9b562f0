//! A glommio executor, pinned to its core. While parked it waits for the port's eventfd as for any file of its own.

use glommio::{LocalExecutorBuilder, Placement};

use super::HostSettings;
use super::run::{Next, Runner};
use crate::error::ShardError;
use crate::port::{UringPort, share_event};
use crate::work::Work;

/// Bytes that the executor registers for I/O of its own, of which there is none but the wake-up.
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
        .map_err(|error| ShardError::Host(error.to_string()))?;
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
