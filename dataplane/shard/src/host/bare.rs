//! A thread without a runtime: it parks in the port's ring.

use super::HostSettings;
use super::run::{Next, Runner};
use crate::error::ShardError;
use crate::port::UringPort;
use crate::work::Work;

pub(super) fn run(
    settings: &HostSettings,
    make: impl FnOnce() -> Result<UringPort, ShardError>,
    work: &mut dyn Work,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    if let Some(id) = settings.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(ShardError::Config(format!("the shard cannot be pinned to core {id}")));
    }
    let mut runner = Runner::new(make()?, work, settings.spin);
    ready();
    while runner.run_until_idle()? == Next::Park {
        runner.port.wait()?;
        runner.woke();
    }
    Ok(())
}
