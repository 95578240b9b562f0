//! The two ends of a hand-off: a bounded ring each way and a doorbell for each side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::doorbell::Doorbell;
use super::sleep_flag::SleepFlag;
use super::{ToControl, ToShard};

/// What both ends share besides the rings.
#[derive(Debug)]
struct Shared {
    control: Doorbell,
    shard: Arc<Doorbell>,
    /// The control plane sleeps until there is room for its messages.
    control_wants_room: SleepFlag,
    /// The shard sleeps until there is room for its messages.
    shard_wants_room: SleepFlag,
    /// The shard has ended.
    is_over: AtomicBool,
}

/// The control plane's end. One task owns it.
#[derive(Debug)]
pub struct ControlEnd {
    sender: Producer<ToShard>,
    receiver: Consumer<ToControl>,
    shared: Arc<Shared>,
}

/// The shard's end.
#[derive(Debug)]
pub(crate) struct ShardEnd {
    sender: Producer<ToControl>,
    receiver: Consumer<ToShard>,
    shared: Arc<Shared>,
}

/// A hand-off with rings of `capacity` messages. `shard` wakes the shard's thread.
pub(crate) fn pair(capacity: usize, shard: Arc<Doorbell>) -> io::Result<(ControlEnd, ShardEnd)> {
    let (to_shard, from_control) = RingBuffer::new(capacity);
    let (to_control, from_shard) = RingBuffer::new(capacity);
    let shared = Arc::new(Shared {
        control: Doorbell::of_control()?,
        shard,
        control_wants_room: SleepFlag::new(),
        shard_wants_room: SleepFlag::new(),
        is_over: AtomicBool::new(false),
    });
    let control = ControlEnd { sender: to_shard, receiver: from_shard, shared: Arc::clone(&shared) };
    Ok((control, ShardEnd { sender: to_control, receiver: from_control, shared }))
}

impl ControlEnd {
    /// Puts a message into the ring to the shard, which [`ring`](Self::ring) tells.
    ///
    /// # Errors
    /// Gives the message back if the ring is full.
    pub fn try_send(&mut self, message: ToShard) -> Result<(), ToShard> {
        self.sender.push(message).map_err(|PushError::Full(message)| message)
    }

    /// Tells the shard of what was sent, if it sleeps.
    pub fn ring(&self) {
        self.shared.shard.ring();
    }

    /// The next message of the shard.
    pub fn try_recv(&mut self) -> Option<ToControl> {
        let message = self.receiver.pop().ok()?;
        if self.shared.shard_wants_room.take() {
            self.shared.shard.ring();
        }
        Some(message)
    }

    /// The owner is about to wait for the [eventfd](AsFd::as_fd): for messages and, with `wants_room`, for room. False if
    /// there is something already. Followed by [`awake`](Self::awake) or [`stay_awake`](Self::stay_awake).
    pub fn prepare_sleep(&mut self, wants_room: bool) -> bool {
        self.shared.control.prepare_sleep();
        if wants_room {
            self.shared.control_wants_room.prepare();
        }
        self.receiver.is_empty() && (!wants_room || self.sender.is_full()) && !self.is_closed()
    }

    /// The owner does not wait after all.
    pub fn stay_awake(&self) {
        self.shared.control.awake();
        self.shared.control_wants_room.clear();
    }

    /// The owner has waited and is awake. Reads the eventfd, so that it can ring again.
    pub fn awake(&self) {
        self.stay_awake();
        // Nothing to read is as good as something read.
        let _ = rustix::io::read(&self.shared.control, &mut [0_u8; 8]);
    }

    /// Whether the shard has ended, so that nothing will come or go any more. What it sent before can still be received.
    pub fn is_closed(&self) -> bool {
        self.shared.is_over.load(Ordering::Acquire)
    }

    /// The eventfd, for waiting with.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn event(&self) -> io::Result<OwnedFd> {
        self.shared.control.duplicate()
    }
}

impl AsFd for ControlEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.control.as_fd()
    }
}

impl Drop for ControlEnd {
    fn drop(&mut self) {
        // The shard notices that nobody is there.
        self.shared.shard.ring_anyway();
    }
}

impl ShardEnd {
    /// Puts a message into the ring to the control plane, which [`ring`](Self::ring) tells.
    pub(crate) fn try_send(&mut self, message: ToControl) -> Result<(), ToControl> {
        self.sender.push(message).map_err(|PushError::Full(message)| message)
    }

    /// Tells the control plane of what was sent, if it sleeps.
    pub(crate) fn ring(&self) {
        self.shared.control.ring();
    }

    /// The next message of the control plane.
    pub(crate) fn try_recv(&mut self) -> Option<ToShard> {
        let message = self.receiver.pop().ok()?;
        if self.shared.control_wants_room.take() {
            self.shared.control.ring();
        }
        Some(message)
    }

    /// The shard is about to sleep; with `wants_room` until there is room, too. False if there is something already.
    pub(crate) fn prepare_sleep(&mut self, wants_room: bool) -> bool {
        if wants_room {
            self.shared.shard_wants_room.prepare();
        }
        self.receiver.is_empty() && (!wants_room || self.sender.is_full()) && !self.is_abandoned()
    }

    /// The shard is awake.
    pub(crate) fn awake(&self) {
        self.shared.shard_wants_room.clear();
    }

    /// Whether the control plane's end is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.receiver.is_abandoned() && self.receiver.is_empty()
    }
}

impl Drop for ShardEnd {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.control.ring_anyway();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::ConnectionKey;

    #[test]
    fn a_full_ring_gives_messages_back_and_wakes_who_waits_for_room() {
        let bell = Arc::new(Doorbell::of_shard().unwrap());
        let (mut control, mut shard) = pair(2, bell).unwrap();
        assert!(control.try_send(ToShard::Shutdown).is_ok() && control.try_send(ToShard::Shutdown).is_ok());
        assert!(matches!(control.try_send(ToShard::Stats(ConnectionKey(1))), Err(ToShard::Stats(ConnectionKey(1)))));
        assert!(control.prepare_sleep(true), "nothing to do until there is room");
        assert!(shard.try_recv().is_some());
        assert!(rustix::io::read(&control, &mut [0; 8]).is_ok(), "rung");
        control.awake();
        assert!(!control.prepare_sleep(true), "there is room");
    }

    #[test]
    fn the_end_of_either_side_is_noticed() {
        let bell = Arc::new(Doorbell::of_shard().unwrap());
        let (mut control, mut shard) = pair(2, bell).unwrap();
        assert!(shard.prepare_sleep(false) && control.prepare_sleep(false));
        shard.try_send(ToControl::Opened(ConnectionKey(2), quantum::StreamId(0))).unwrap();
        drop(shard);
        assert!(control.is_closed() && !control.prepare_sleep(false));
        assert!(control.try_recv().is_some() && control.try_recv().is_none());
        let (control, mut shard) = pair(2, Arc::new(Doorbell::of_shard().unwrap())).unwrap();
        drop(control);
        assert!(shard.is_abandoned() && !shard.prepare_sleep(false));
    }
}
