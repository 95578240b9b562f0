//! A thread without a runtime: it parks in the port.

use super::run::{Next, Runner};
use super::{HostSettings, pin};
use crate::error::ShardError;
use crate::port::Parkable;
use crate::work::Work;

pub(super) fn run<P: Parkable>(
    settings: &HostSettings,
    make: impl FnOnce() -> Result<P, ShardError>,
    work: &mut dyn Work,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    pin(settings.core)?;
    let mut runner = Runner::new(make()?, work, settings.spin);
    ready();
    while runner.run_until_idle()? == Next::Park {
        runner.port.wait()?;
        runner.woke();
    }
    Ok(())
}
