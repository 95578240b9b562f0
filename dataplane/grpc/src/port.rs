//! The pump's view of a hand-off: a ring each way and a doorbell.

use quantum_shard::handoff::{ToControl, ToShard};
use tokio::sync::mpsc;

/// The shard has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortClosed;

/// The control plane's end of one shard's hand-off.
#[derive(Debug)]
pub(crate) enum ControlPort {
    /// Two bounded queues in memory, for tests that need no shard.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests join two pumps in memory"))]
    Memory(MemoryPort),
}

/// See [`ControlPort::Memory`].
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
            Self::Memory(_) => {}
        }
    }

    /// The next message of the shard.
    pub(crate) fn pop(&mut self) -> Option<ToControl> {
        match self {
            Self::Memory(port) => port.waiting.take().or_else(|| port.to_control.try_recv().ok()),
        }
    }

    /// Waits until there is something to pop or, if `full`, room to push.
    pub(crate) async fn changed(&mut self, full: bool) -> Result<(), PortClosed> {
        match self {
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

#[cfg(test)]
impl MemoryPort {
    pub(crate) fn new(to_shard: mpsc::Sender<ToShard>, to_control: mpsc::Receiver<ToControl>) -> Self {
        Self { to_shard, to_control, waiting: None }
    }
}
