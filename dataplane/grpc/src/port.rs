//! The pump's view of a hand-off: a ring each way and a doorbell.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use quantum_shard::AdaptiveSpin;
use quantum_shard::handoff::{ControlEnd, ToControl, ToShard};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
#[cfg(test)]
use tokio::sync::mpsc;

/// The shard has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortClosed;

/// The control plane's end of one shard's hand-off.
#[derive(Debug)]
pub(crate) enum ControlPort {
    /// The rings of a shard.
    Ring(RingPort),
    /// Two bounded queues in memory, for tests that need no shard.
    #[cfg(test)]
    Memory(MemoryPort),
}

/// See [`ControlPort::Ring`].
#[derive(Debug)]
pub(crate) struct RingPort {
    end: ControlEnd,
    /// Readable once the shard rings.
    bell: AsyncFd<OwnedFd>,
    waiting: Option<ToControl>,
    spin: AdaptiveSpin,
}

/// See [`ControlPort::Memory`].
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct MemoryPort {
    to_shard: mpsc::Sender<ToShard>,
    to_control: mpsc::Receiver<ToControl>,
    waiting: Option<ToControl>,
}

impl ControlPort {
    /// Puts a message into the ring; gives it back if the ring is full.
    pub(crate) fn push(&mut self, message: ToShard) -> Result<Result<(), ToShard>, PortClosed> {
        match self {
            Self::Ring(port) if port.end.is_closed() => Err(PortClosed),
            Self::Ring(port) => Ok(port.end.try_send(message)),
            #[cfg(test)]
            Self::Memory(port) => match port.to_shard.try_send(message) {
                Ok(()) => Ok(Ok(())),
                Err(mpsc::error::TrySendError::Full(message)) => Ok(Err(message)),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(PortClosed),
            },
        }
    }

    /// Lets the shard know of what was pushed.
    pub(crate) fn flush(&mut self) {
        match self {
            Self::Ring(port) => port.end.ring(),
            #[cfg(test)]
            Self::Memory(_) => {}
        }
    }

    /// The next message of the shard.
    pub(crate) fn pop(&mut self) -> Option<ToControl> {
        match self {
            Self::Ring(port) => port.waiting.take().or_else(|| port.end.try_recv()),
            #[cfg(test)]
            Self::Memory(port) => port.waiting.take().or_else(|| port.to_control.try_recv().ok()),
        }
    }

    /// Something was pushed or popped.
    pub(crate) fn worked(&mut self) {
        match self {
            Self::Ring(port) => port.spin.worked(),
            #[cfg(test)]
            Self::Memory(_) => {}
        }
    }

    /// Whether work comes all the time.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Ring(port) => port.spin.is_busy(),
            #[cfg(test)]
            Self::Memory(_) => false,
        }
    }

    /// Nothing was pushed or popped; whether to look once more rather than to wait.
    pub(crate) fn looks_on(&mut self) -> bool {
        match self {
            Self::Ring(port) => port.spin.looks_on(),
            #[cfg(test)]
            Self::Memory(_) => false,
        }
    }

    /// Waits until there is something to pop or, if `full`, room to push.
    pub(crate) async fn changed(&mut self, full: bool) -> Result<(), PortClosed> {
        match self {
            Self::Ring(port) => port.changed(full).await,
            #[cfg(test)]
            Self::Memory(port) => {
                tokio::select! {
                    message = port.to_control.recv() => {
                        port.waiting = message;
                        port.waiting.as_ref().map(|_| ()).ok_or(PortClosed)
                    }
                    permit = port.to_shard.reserve(), if full => permit.map(drop).map_err(|_| PortClosed),
                }
            }
        }
    }
}

impl RingPort {
    /// The port of a shard, which looks for messages so long before it sleeps. To be called within a tokio runtime.
    pub(crate) fn new(end: ControlEnd, spin: Duration) -> io::Result<Self> {
        #[expect(deprecated, reason = "its successor is unsafe; an OwnedFd stays open and the same, as it demands")]
        let bell = AsyncFd::with_interest(end.event()?, Interest::READABLE)?;
        Ok(Self { end, bell, waiting: None, spin: AdaptiveSpin::new(spin) })
    }

    async fn changed(&mut self, full: bool) -> Result<(), PortClosed> {
        let sleeper = Sleeper(&mut self.end);
        if sleeper.0.prepare_sleep(full) {
            // It fails when the runtime shuts down.
            self.bell.readable().await.map_err(|_| PortClosed)?.clear_ready();
            sleeper.0.awake();
        }
        drop(sleeper);
        if self.end.is_closed() {
            self.waiting = self.end.try_recv();
            return self.waiting.as_ref().map(|_| ()).ok_or(PortClosed);
        }
        Ok(())
    }
}

/// Awake again when it goes, also when the wait is given up for something else.
struct Sleeper<'a>(&'a mut ControlEnd);

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.stay_awake();
    }
}

#[cfg(test)]
impl MemoryPort {
    pub(crate) fn new(to_shard: mpsc::Sender<ToShard>, to_control: mpsc::Receiver<ToControl>) -> Self {
        Self { to_shard, to_control, waiting: None }
    }
}
