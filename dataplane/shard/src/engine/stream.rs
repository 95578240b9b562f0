//! One stream between the core and the hand-off.

use std::collections::VecDeque;

use bytes::Bytes;
use quantum::{ConnectionRef, Priority, Read, StreamId, WriteError};

use crate::handoff::HANDOFF_WINDOW;

/// Bytes of one message to the control plane at most.
const READ_MAX: usize = 64 << 10;
/// Bytes taken by the core that are credited to the control plane together: it has three quarters of the window meanwhile.
const CREDIT_BATCH: usize = HANDOFF_WINDOW / 4;

/// What a read brought for the control plane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    Data(Bytes),
    Finished,
    Reset(u64),
}

/// A stream's state beside the core's.
#[derive(Debug)]
pub(super) struct StreamState {
    /// Bytes that may still go to the control plane.
    credit: usize,
    /// The core has, or may have, something to read.
    readable: bool,
    /// Nothing of the peer's direction will go to the control plane any more.
    inbound_over: bool,
    /// Written by the control plane, not yet taken by the core.
    outbound: VecDeque<Bytes>,
    outbound_bytes: usize,
    /// Bytes that the core took and the control plane may write again, once it is told.
    credit_due: usize,
    /// The control plane's direction ends after `outbound`.
    finish: bool,
    /// Nothing of this side's direction is to be done any more but to hear that it was delivered.
    outbound_over: bool,
    /// This side's stream, asked for and not yet opened.
    pub(super) is_waiting: bool,
    /// Where it stands among those that want to send, if it was told.
    pub(super) priority: Option<Priority>,
    /// Forward error correction is to protect what is sent on it.
    pub(super) protected: bool,
}

impl StreamState {
    pub(super) fn new(is_waiting: bool) -> Self {
        Self {
            credit: HANDOFF_WINDOW,
            readable: false,
            inbound_over: false,
            outbound: VecDeque::new(),
            outbound_bytes: 0,
            credit_due: 0,
            finish: false,
            outbound_over: false,
            is_waiting,
            priority: None,
            protected: true,
        }
    }

    /// Tells the core, which has opened it only now, how it is to be sent.
    pub(super) fn tell(&self, connection: &mut ConnectionRef<'_>, id: StreamId) {
        if let Some(priority) = self.priority {
            connection.set_priority(id, priority);
        }
        if !self.protected {
            connection.protect(id, false);
        }
    }

    /// Whether nothing more will happen on it.
    pub(super) fn is_over(&self) -> bool {
        self.inbound_over && self.outbound_over
    }

    /// The core has something to read.
    pub(super) fn on_readable(&mut self) {
        self.readable = true;
    }

    /// Whether a read may bring something.
    pub(super) fn may_read(&self) -> bool {
        self.readable && self.credit > 0 && !self.inbound_over
    }

    /// The control plane has consumed so many bytes.
    pub(super) fn on_credit(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(bytes).min(HANDOFF_WINDOW);
    }

    /// What comes next for the control plane, if its credit allows.
    pub(super) fn read(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) -> Option<Inbound> {
        if self.may_read() { self.read_up_to(connection, id, self.credit.min(READ_MAX)) } else { None }
    }

    /// What comes next for the control plane when the connection is over.
    pub(super) fn read_rest(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) -> Option<Inbound> {
        if self.inbound_over { None } else { self.read_up_to(connection, id, READ_MAX) }
    }

    fn read_up_to(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId, bytes_max: usize) -> Option<Inbound> {
        match connection.read(id, bytes_max) {
            Read::Data(data) => {
                self.credit -= data.len().min(self.credit);
                Some(Inbound::Data(data))
            }
            Read::Blocked => {
                self.readable = false;
                None
            }
            Read::Finished => {
                self.inbound_over = true;
                Some(Inbound::Finished)
            }
            Read::Reset(code) => {
                self.inbound_over = true;
                Some(Inbound::Reset(code))
            }
        }
    }

    /// The control plane wants no more of the peer's direction.
    pub(super) fn stop(&mut self) {
        self.inbound_over = true;
    }

    /// The control plane wrote something, or nothing, which announces the stream. False if it is more than it may have in the
    /// hand-off.
    pub(super) fn push(&mut self, data: Bytes) -> bool {
        if self.outbound_over || self.finish || data.is_empty() && !self.outbound.is_empty() {
            return true;
        }
        self.outbound_bytes += data.len();
        self.outbound.push_back(data);
        self.outbound_bytes <= HANDOFF_WINDOW
    }

    /// The control plane's direction ends.
    pub(super) fn finish(&mut self) {
        self.finish = true;
    }

    /// This side's direction is abandoned, or the peer wants no more of it.
    pub(super) fn abandon(&mut self) {
        self.outbound.clear();
        self.outbound_bytes = 0;
        self.outbound_over = true;
    }

    /// All of this side's direction was acknowledged.
    pub(super) fn on_delivered(&mut self) {
        self.outbound_over = true;
    }

    /// Bytes that the control plane may write again; none while they are few.
    pub(super) fn credit_to_give(&mut self) -> Option<usize> {
        (self.credit_due >= CREDIT_BATCH).then(|| std::mem::take(&mut self.credit_due))
    }

    /// Lets the core take what it has room for.
    pub(super) fn write(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) {
        if self.is_waiting || self.outbound_over {
            return;
        }
        let mut taken = 0;
        while let Some(data) = self.outbound.front_mut() {
            match connection.write(id, data) {
                Ok(len) => {
                    taken += len;
                    if !data.is_empty() {
                        break;
                    }
                    self.outbound.pop_front();
                }
                Err(WriteError::Stopped(_) | WriteError::Closed) => {
                    // The event that tells of it is on its way, or the connection is over.
                    self.abandon();
                    return;
                }
            }
        }
        self.outbound_bytes -= taken;
        self.credit_due += taken;
        if self.outbound.is_empty() && self.finish {
            self.finish = false;
            if connection.finish(id).is_err() {
                self.abandon();
            }
        }
    }
}
