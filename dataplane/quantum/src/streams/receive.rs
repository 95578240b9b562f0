//! The receiving direction of a stream.

use bytes::Bytes;

use super::chunks::Chunks;
use super::credit::Granted;
use super::reassembly::Reassembly;
use super::send::Signal;
use crate::wire::varint::VARINT_MAX;
use crate::{Read, TransportError, TransportErrorCode};

/// A stream's window grows to so many times what it was at first, at most.
const GROWTH_MAX: u64 = 64;
/// It grows only while no more than this share of it is unread. The peer asks when a quarter of it is on its way, so nobody who does
/// not read gets more.
const UNREAD_SHARE: u64 = 5;

/// What this side receives on a stream.
#[derive(Debug)]
pub(super) struct Receiving {
    reassembly: Reassembly,
    /// Highest offset that came, or the final size.
    highest: u64,
    final_size: Option<u64>,
    credit: Granted,
    /// Bytes by which the window has grown.
    grown: u64,
    state: State,
    /// The next time that there is something to read the application is to be told.
    armed: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Data comes.
    Open,
    /// This side wants no more.
    Stopped { code: u64, signal: Signal },
    /// The peer gave up, with its code; the application has not been told.
    Reset(u64),
    /// The application knows the end, or wants no more and there is none.
    Over,
}

impl Receiving {
    /// A stream on which the peer may be `window` bytes ahead of the application.
    pub(super) fn new(window: u64) -> Self {
        Self {
            reassembly: Reassembly::default(),
            highest: 0,
            final_size: None,
            credit: Granted::new(window),
            grown: 0,
            state: State::Open,
            armed: true,
        }
    }

    /// Checks a frame that reaches to `end`, and by how much it takes the stream further.
    pub(super) fn check(&self, end: u64, is_final: bool) -> Result<u64, TransportError> {
        use TransportErrorCode::{FinalSize, FlowControl};
        match self.final_size {
            Some(size) if end > size => return Err(TransportError::new(FinalSize, "data beyond the stream's end")),
            Some(size) if is_final && end != size => {
                return Err(TransportError::new(FinalSize, "the stream's end changed"));
            }
            None if is_final && end < self.highest => {
                return Err(TransportError::new(FinalSize, "the stream's end lies before its data"));
            }
            _ => {}
        }
        if end > self.credit.advertised() {
            return Err(TransportError::new(FlowControl, "data beyond the stream's credit"));
        }
        Ok(end.saturating_sub(self.highest))
    }

    /// Takes in a STREAM frame that has been checked.
    pub(super) fn on_data(&mut self, offset: u64, data: &[u8], fin: bool, chunks: &mut Chunks) {
        let end = offset + data.len() as u64;
        self.highest = self.highest.max(end);
        if fin {
            self.final_size = Some(end);
        }
        match self.state {
            State::Open => self.reassembly.insert(offset, data, chunks),
            State::Stopped { .. } if self.final_size.is_some() => self.state = State::Over,
            _ => {}
        }
    }

    /// Takes in a `RESET_STREAM` frame that has been checked.
    pub(super) fn on_reset(&mut self, code: u64, final_size: u64) {
        let ended = self.final_size.replace(final_size).is_some();
        self.highest = final_size;
        match self.state {
            // All of it is here, the end included: the application may as well have it.
            State::Open if ended && self.reassembly.ready_end() == final_size => {}
            State::Open => {
                self.reassembly.clear();
                self.state = State::Reset(code);
            }
            State::Stopped { .. } => self.state = State::Over,
            State::Reset(_) | State::Over => {}
        }
    }

    /// Reads at most `max` bytes, which is taken as one if it is zero.
    pub(super) fn read(&mut self, max: usize) -> Read {
        match self.state {
            State::Open => {}
            State::Reset(code) => {
                self.state = State::Over;
                return Read::Reset(code);
            }
            State::Stopped { .. } | State::Over => return Read::Finished,
        }
        if let Some(bytes) = self.read_bytes(max) {
            return Read::Data(bytes);
        }
        if self.final_size == Some(self.reassembly.read_offset()) {
            self.state = State::Over;
            return Read::Finished;
        }
        self.armed = true;
        Read::Blocked
    }

    /// Wants no more.
    pub(super) fn stop(&mut self, code: u64) {
        match self.state {
            State::Open if self.final_size.is_none() => {
                self.state = State::Stopped { code: code.min(VARINT_MAX), signal: Signal::Pending };
            }
            State::Open | State::Reset(_) => self.state = State::Over,
            State::Stopped { .. } | State::Over => return,
        }
        self.reassembly.clear();
        self.armed = false;
    }

    /// Whether the application is to be told that there is something to read. Tells once, until a read finds nothing.
    pub(super) fn take_readable(&mut self) -> bool {
        let readable = match self.state {
            State::Open => self.reassembly.is_readable() || self.final_size == Some(self.reassembly.read_offset()),
            State::Reset(_) => true,
            State::Stopped { .. } | State::Over => false,
        };
        let tells = self.armed && readable;
        self.armed &= !tells;
        tells
    }

    /// Whether nothing more is to be done.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Drops memory that holds nothing.
    pub(super) fn release(&mut self) {
        self.reassembly.release();
    }

    /// Bytes kept.
    pub(super) fn buffered(&self) -> usize {
        self.reassembly.buffered()
    }

    /// Bytes of memory that the received data takes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.reassembly.memory()
    }

    /// The code of a `STOP_SENDING` that is to be sent.
    pub(super) fn wants_stop(&self) -> Option<u64> {
        match self.state {
            State::Stopped { code, signal: Signal::Pending } => Some(code),
            _ => None,
        }
    }

    /// `STOP_SENDING` is in a packet.
    pub(super) fn on_stop_sent(&mut self) {
        if let State::Stopped { signal, .. } = &mut self.state {
            *signal = Signal::Sent;
        }
    }

    /// `STOP_SENDING` has been acknowledged.
    pub(super) fn on_stop_acked(&mut self) {
        if let State::Stopped { signal, .. } = &mut self.state {
            *signal = Signal::Acked;
        }
    }

    /// `STOP_SENDING` was lost.
    pub(super) fn on_stop_lost(&mut self) {
        if let State::Stopped { signal, .. } = &mut self.state {
            signal.lost();
        }
    }

    /// The limit of a `MAX_STREAM_DATA` that is to be sent.
    pub(super) fn wants_credit(&self) -> Option<u64> {
        (self.takes_credit() && self.credit.is_pending()).then(|| self.credit.latest())
    }

    /// `MAX_STREAM_DATA` is in a packet.
    pub(super) fn on_credit_sent(&mut self) {
        self.credit.sent();
    }

    /// `MAX_STREAM_DATA` was lost.
    pub(super) fn on_credit_lost(&mut self) {
        self.credit.lost();
    }

    /// The peer has used up the window, which was `base` bytes at first, or will have soon. It quadruples, but takes no more than
    /// two thirds of the `room` that all streams have, if the application is not what it waits for. Gives by how much it grew.
    pub(super) fn grow(&mut self, base: u64, room: u64) -> u64 {
        let unread = self.reassembly.ready_end() - self.reassembly.read_offset();
        if !self.takes_credit() || unread > self.credit.window() / UNREAD_SHARE {
            return 0;
        }
        let most = base.saturating_mul(GROWTH_MAX - 1).saturating_sub(self.grown);
        let by = self.credit.window().saturating_mul(3).min(room.saturating_sub(self.grown / 2) / 2).min(most);
        self.credit.grow(by);
        self.grown += by;
        by
    }

    /// Bytes by which the window has grown.
    pub(super) fn grown(&self) -> u64 {
        self.grown
    }

    /// Whether the peer has a use for credit.
    fn takes_credit(&self) -> bool {
        self.state == State::Open && self.final_size.is_none()
    }

    fn read_bytes(&mut self, max: usize) -> Option<Bytes> {
        let bytes = self.reassembly.read(max.max(1))?;
        self.credit.consume(bytes.len() as u64);
        self.credit.update_by_half();
        Some(bytes)
    }
}
