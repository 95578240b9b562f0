//! Wakes a thread that sleeps on an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::sleep_flag::SleepFlag;

/// An eventfd that is rung only while its owner sleeps.
#[derive(Debug)]
pub(crate) struct Doorbell {
    event: OwnedFd,
    asleep: SleepFlag,
}

impl Doorbell {
    /// The doorbell of a shard, which is awake. Its port waits for it in the ring, and for that it has to block.
    pub(crate) fn of_shard() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC)?, asleep: SleepFlag::new() })
    }

    /// The doorbell of the control plane's end, which is awake. An event loop waits for it.
    pub(crate) fn of_control() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, asleep: SleepFlag::new() })
    }

    /// The owner is about to sleep, and has to look for work once more after this.
    pub(crate) fn prepare_sleep(&self) {
        self.asleep.prepare();
    }

    /// The owner is awake.
    pub(crate) fn awake(&self) {
        self.asleep.clear();
    }

    /// Wakes the owner if it sleeps. What it shall find has to be there before.
    pub(crate) fn ring(&self) {
        if self.asleep.take() {
            self.ring_anyway();
        }
    }

    /// Wakes the owner, whatever it says.
    pub(crate) fn ring_anyway(&self) {
        // Only a counter at its limit refuses, and then the owner is rung already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// The eventfd, for waiting.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.event.try_clone()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
