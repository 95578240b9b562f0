//! The sending direction of a stream.

use std::ops::Range;

use bytes::Bytes;

use super::ranges::RangeSet;
use super::send_buffer::SendBuffer;
use crate::wire::varint::VARINT_MAX;
use crate::wire::{FrameWriter, stream_capacity};
use crate::{StreamId, WriteError};

/// A stream's data is not cut to a piece smaller than this at the end of a packet that carries something already.
const PIECE_BYTES_MIN: usize = 32;
/// A stream's buffer grows to so many times what it was at first, at most.
const GROWTH_MAX: usize = 16;
/// Of a window so much is left, as a multiple of what is on its way, when a larger one is asked for.
const AHEAD: u64 = 3;

/// What this side sends on a stream.
#[derive(Debug)]
pub(super) struct Sending {
    buffer: SendBuffer,
    /// Offset of the first byte that has never been sent.
    next: u64,
    /// The peer's credit, as an offset.
    limit: u64,
    /// Acknowledged ranges beyond the buffer's start.
    acked: RangeSet,
    /// Ranges to be sent again.
    lost: RangeSet,
    state: State,
    /// The peer's code, if it asked to stop.
    stopped: Option<u64>,
    /// The peer is to learn of the stream before there is anything to send on it.
    announces: bool,
    /// A write was cut short; the application waits for room.
    wants_room: bool,
    /// Bytes by which the buffer has grown.
    grown: usize,
    /// The limit at which the peer has been told that there is more to send.
    blocked_at: Option<u64>,
}

/// How far the direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The application may write.
    Open,
    /// It has written everything.
    Finished(Signal),
    /// It gave up.
    Reset { code: u64, signal: Signal },
    /// The peer has everything.
    Delivered,
}

/// A FIN, `RESET_STREAM` or `STOP_SENDING` on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// To be sent, for the first time or again.
    Pending,
    /// In a packet.
    Sent,
    /// Acknowledged.
    Acked,
}

/// A STREAM frame that has been written.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) fin: bool,
    /// The frame carries the last byte so far written, or the end.
    pub(super) message_end: bool,
}

impl Signal {
    /// The packet that carried it was lost.
    pub(super) fn lost(&mut self) {
        if *self == Self::Sent {
            *self = Self::Pending;
        }
    }
}

impl Sending {
    /// A stream on which the peer allows `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            buffer: SendBuffer::default(),
            next: 0,
            limit,
            acked: RangeSet::default(),
            lost: RangeSet::default(),
            state: State::Open,
            stopped: None,
            announces: false,
            wants_room: false,
            grown: 0,
            blocked_at: None,
        }
    }

    /// Takes of `data` what fits into the buffer, which was `base` bytes at first. Writing nothing announces the stream to
    /// the peer.
    pub(super) fn write(&mut self, data: &mut Bytes, base: usize) -> Result<usize, WriteError> {
        self.check_open()?;
        let len = data.len().min((base + self.grown).saturating_sub(self.buffer.len()));
        self.wants_room = len < data.len();
        if len > 0 {
            self.buffer.push(data.split_to(len));
        } else if data.is_empty() {
            self.announces = self.is_untouched();
        }
        Ok(len)
    }

    /// Ends the stream after what has been written.
    pub(super) fn finish(&mut self) -> Result<(), WriteError> {
        self.check_open()?;
        self.state = State::Finished(Signal::Pending);
        self.wants_room = false;
        Ok(())
    }

    /// Gives up what has not been delivered.
    pub(super) fn reset(&mut self, code: u64) {
        if matches!(self.state, State::Open | State::Finished(_)) {
            self.state = State::Reset { code: code.min(VARINT_MAX), signal: Signal::Pending };
            self.wants_room = false;
            self.lost.clear();
            self.acked.clear();
            self.buffer.clear();
        }
    }

    /// The peer asks to stop. Tells whether that matters.
    pub(super) fn on_stop(&mut self, code: u64) -> bool {
        if !matches!(self.state, State::Open | State::Finished(_)) || self.stopped.is_some() {
            return false;
        }
        self.stopped = Some(code);
        self.reset(code);
        true
    }

    /// The peer allows bytes up to `limit`.
    pub(super) fn on_limit(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// What was taken for the limit turns out to be `limit`, which covers what has been sent.
    pub(super) fn replace_limit(&mut self, limit: u64) {
        self.limit = limit.max(self.next);
    }

    /// Offset behind the last byte that has been sent.
    pub(super) fn sent_end(&self) -> u64 {
        self.next
    }

    /// Bytes that may be sent for the first time, as far as the stream's credit goes.
    pub(super) fn wants_fresh(&self) -> bool {
        self.fresh_end() > self.next
    }

    /// The limit to name in a `STREAM_DATA_BLOCKED` that is to be sent: there is more than the stream's credit or the buffer
    /// allows, and what is left of the credit is no more than `AHEAD` times what has not been acknowledged. A sender that doubles its
    /// rate has more credit then before it needs it, though what asks or what answers is lost once.
    pub(super) fn wants_blocked(&self) -> Option<u64> {
        let is_open = matches!(self.state, State::Open | State::Finished(_));
        let unacked = self.next.saturating_sub(self.buffer.start());
        let has_more = self.buffer.end() > self.limit || self.wants_room;
        let is_blocked = has_more && self.limit - self.next <= AHEAD * unacked;
        (is_open && is_blocked && self.blocked_at != Some(self.limit)).then_some(self.limit)
    }

    /// `STREAM_DATA_BLOCKED` is in a packet.
    pub(super) fn on_blocked_sent(&mut self) {
        self.blocked_at = Some(self.limit);
    }

    /// `STREAM_DATA_BLOCKED` was lost.
    pub(super) fn on_blocked_lost(&mut self) {
        self.blocked_at = None;
    }

    /// Whether something is to be sent that takes no credit: lost bytes, an end by itself, or an announcement.
    pub(super) fn wants_resend(&self) -> bool {
        !self.lost.is_empty()
            || self.state == State::Finished(Signal::Pending) && self.next == self.buffer.end()
            || self.announces && self.is_untouched()
    }

    /// Whether lost bytes are to be sent again.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The code and final size of a `RESET_STREAM` that is to be sent.
    pub(super) fn wants_reset(&self) -> Option<(u64, u64)> {
        match self.state {
            State::Reset { code, signal: Signal::Pending } => Some((code, self.next)),
            _ => None,
        }
    }

    /// Whether nothing more is to be done: everything, or the reset, has been acknowledged.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Delivered | State::Reset { signal: Signal::Acked, .. })
    }

    /// Drops memory that holds nothing.
    pub(super) fn release(&mut self) {
        self.buffer.shrink();
    }

    /// Bytes kept.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Chunks that the buffer consists of.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.buffer.chunks()
    }

    /// Whether the application waits for room and the buffer, which was `base` bytes at first, is at most half full. Tells
    /// once.
    pub(super) fn take_room(&mut self, base: usize) -> bool {
        let room = self.wants_room && 2 * self.buffer.len() <= base + self.grown;
        self.wants_room &= !room;
        room
    }

    /// The buffer, which was `base` bytes at first, doubles, but not by more than `room`, if the application waits though
    /// nearly all of it has been sent: then the path holds more than the buffer does. Gives by how much it grew.
    pub(super) fn grow(&mut self, base: usize, room: usize) -> usize {
        let (max, unsent) = (base + self.grown, (self.buffer.end() - self.next) as usize);
        if !self.wants_room || unsent > max / 4 || self.next == self.limit {
            return 0;
        }
        let by = max.min(room).min((base * GROWTH_MAX).saturating_sub(max));
        self.grown += by;
        by
    }

    /// Bytes by which the buffer has grown.
    pub(super) fn grown(&self) -> usize {
        self.grown
    }

    /// Writes a STREAM frame with the first lost bytes, or the end alone, or nothing.
    pub(super) fn write_lost(&mut self, id: StreamId, writer: &mut FrameWriter<'_>) -> Option<Piece> {
        let range = self.lost.first().unwrap_or(self.next..self.next);
        let piece = self.write_range(id, range, writer)?;
        self.announces = false;
        self.lost.remove(piece.offset..piece.offset + u64::from(piece.len));
        Some(piece)
    }

    /// Writes a STREAM frame with bytes that have never been sent, at most `credit`.
    pub(super) fn write_fresh(&mut self, id: StreamId, credit: u64, writer: &mut FrameWriter<'_>) -> Option<Piece> {
        let end = self.fresh_end().min(self.next.saturating_add(credit));
        let piece = self.write_range(id, self.next..end, writer)?;
        self.next += u64::from(piece.len);
        Some(piece)
    }

    /// What a frame carried has been acknowledged. Tells whether with it everything is delivered.
    pub(super) fn on_acked(&mut self, range: Range<u64>, fin: bool) -> bool {
        if matches!(self.state, State::Reset { .. } | State::Delivered) {
            return false;
        }
        self.ack_range(range);
        match &mut self.state {
            State::Finished(signal) if fin => *signal = Signal::Acked,
            _ => {}
        }
        let delivered = self.state == State::Finished(Signal::Acked) && self.buffer.len() == 0;
        if delivered {
            self.state = State::Delivered;
        }
        delivered
    }

    /// What a frame carried was lost.
    pub(super) fn on_lost(&mut self, range: Range<u64>, fin: bool) {
        match &mut self.state {
            State::Reset { .. } | State::Delivered => return,
            State::Finished(signal) if fin => signal.lost(),
            _ => self.announces |= range.is_empty() && self.is_untouched(),
        }
        let range = range.start.max(self.buffer.start())..range.end;
        for missing in self.acked.missing(range) {
            self.lost.insert(missing);
        }
    }

    /// `RESET_STREAM` is in a packet.
    pub(super) fn on_reset_sent(&mut self) {
        if let State::Reset { signal, .. } = &mut self.state {
            *signal = Signal::Sent;
        }
    }

    /// `RESET_STREAM` has been acknowledged.
    pub(super) fn on_reset_acked(&mut self) {
        if let State::Reset { signal, .. } = &mut self.state {
            *signal = Signal::Acked;
        }
    }

    /// `RESET_STREAM` was lost.
    pub(super) fn on_reset_lost(&mut self) {
        if let State::Reset { signal, .. } = &mut self.state {
            signal.lost();
        }
    }

    fn check_open(&self) -> Result<(), WriteError> {
        match (self.state, self.stopped) {
            (State::Open, _) => Ok(()),
            (_, Some(code)) => Err(WriteError::Stopped(code)),
            _ => Err(WriteError::Closed),
        }
    }

    /// Whether the stream is open and nothing has ever been written.
    fn is_untouched(&self) -> bool {
        self.state == State::Open && self.buffer.end() == 0
    }

    fn fresh_end(&self) -> u64 {
        match self.state {
            State::Open | State::Finished(_) => self.buffer.end().min(self.limit),
            State::Reset { .. } | State::Delivered => self.next,
        }
    }

    /// Writes as much of `range` as fits, with the end if it follows.
    fn write_range(&mut self, id: StreamId, range: Range<u64>, writer: &mut FrameWriter<'_>) -> Option<Piece> {
        let wanted = range.end - range.start;
        let capacity = stream_capacity(id, range.start, writer.remaining())?;
        if wanted > capacity as u64 && capacity < PIECE_BYTES_MIN && (writer.written() > 0 || capacity == 0) {
            return None;
        }
        let len = wanted.min(capacity as u64) as usize;
        let end = range.start + len as u64;
        let at_end = end == self.buffer.end();
        let fin = at_end && matches!(self.state, State::Finished(_));
        let out = writer.begin_stream(id, range.start, len, fin)?;
        self.buffer.copy_to(range.start, out);
        match &mut self.state {
            State::Finished(signal) if fin && *signal == Signal::Pending => *signal = Signal::Sent,
            _ => {}
        }
        Some(Piece { offset: range.start, len: len as u32, fin, message_end: at_end })
    }

    fn ack_range(&mut self, range: Range<u64>) {
        self.lost.remove(range.clone());
        self.acked.insert(range);
        let Some(first) = self.acked.first().filter(|first| first.start <= self.buffer.start()) else { return };
        self.acked.remove(first.clone());
        self.buffer.release(first.end);
    }
}
