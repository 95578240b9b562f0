//! A monoio runtime, which waits for the port by its own driver: `io_uring`, or epoll where the port moves bytes by system calls.

use std::io;
use std::os::unix::net::UnixStream;

use monoio::{FusionDriver, LegacyDriver, RuntimeBuilder};

use super::run::{Next, Runner};
use super::{HostSettings, IoKind, pin};
use crate::error::ShardError;
use crate::port::Parkable;
use crate::work::Work;

pub(super) fn run<P: Parkable>(
    settings: &HostSettings,
    make: impl FnOnce() -> Result<P, ShardError>,
    work: &mut dyn Work,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    let refused = |error: io::Error| ShardError::Host(format!("monoio: {error}"));
    pin(settings.core)?;
    match settings.io {
        IoKind::Uring => {
            let mut runtime = RuntimeBuilder::<FusionDriver>::new().build().map_err(refused)?;
            runtime.block_on(serve(settings, make, work, ready))
        }
        IoKind::Mmsg => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().build().map_err(refused)?;
            runtime.block_on(serve(settings, make, work, ready))
        }
    }
}

async fn serve<P: Parkable>(
    settings: &HostSettings,
    make: impl FnOnce() -> Result<P, ShardError>,
    work: &mut dyn Work,
    ready: &mut dyn FnMut(),
) -> Result<(), ShardError> {
    let mut runner = Runner::new(make()?, work, settings.spin);
    // monoio waits for sockets only. All that happens to this one is that it is waited for and closed.
    let wake = monoio::net::UnixStream::from_std(UnixStream::from(runner.port.wake_fd()?))?;
    ready();
    while runner.run_until_idle()? == Next::Park {
        if runner.port.prepare_wait()? {
            wake.readable(false).await?;
        }
        runner.woke();
    }
    Ok(())
}
