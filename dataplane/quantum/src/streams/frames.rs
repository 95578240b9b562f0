//! Frames of streams: those that come in, those that go out, and what became of them.

use super::schedule::{TURN_BYTES_WHOLE, URGENT_RUN_BYTES};
use super::{Stream, Streams};
use crate::sent_frame::{SentFrame, SentFrames};
use crate::wire::FrameWriter;
use crate::wire::varint::VARINT_MAX;
use crate::{Event, StreamId, TransportError, TransportErrorCode};

/// What a packet was filled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// It carries the last byte that a stream has to send so far.
    pub(crate) message_end: bool,
    /// It carries stream bytes, or an end, that had been sent before.
    pub(crate) resent: bool,
    /// It carries something that forward error correction is to protect.
    pub(crate) protected: bool,
    /// It carries something of a latency-class stream.
    pub(crate) urgent: bool,
}

/// Frames that came in.
impl Streams {
    /// STREAM.
    pub(crate) fn on_stream(
        &mut self,
        id: StreamId,
        offset: u64,
        data: &[u8],
        fin: bool,
    ) -> Result<(), TransportError> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= VARINT_MAX)
            .ok_or(TransportError::new(TransportErrorCode::FrameEncoding, "stream offset beyond 2^62 - 1"))?;
        if self.locate(id)? {
            self.advance(id, end, fin)?;
            let mut chunks = std::mem::take(&mut self.chunks);
            self.with(id, |stream| stream.receiving.on_data(offset, data, fin, &mut chunks));
            self.chunks = chunks;
        }
        Ok(())
    }

    /// `RESET_STREAM`.
    pub(crate) fn on_reset_stream(&mut self, id: StreamId, code: u64, final_size: u64) -> Result<(), TransportError> {
        if self.locate(id)? {
            self.advance(id, final_size, true)?;
            self.with(id, |stream| stream.receiving.on_reset(code, final_size));
        }
        Ok(())
    }

    /// `STOP_SENDING`. The stream is reset with the peer's code.
    pub(crate) fn on_stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), TransportError> {
        if self.locate(id)? && self.with(id, |stream| stream.sending.on_stop(code)) == Some(true) {
            self.events.push_back(Event::StreamStopped(id, code));
        }
        Ok(())
    }

    /// `MAX_DATA`.
    pub(crate) fn on_max_data(&mut self, limit: u64) {
        self.received.raise(limit);
    }

    /// `MAX_STREAM_DATA`.
    pub(crate) fn on_max_stream_data(&mut self, id: StreamId, limit: u64) -> Result<(), TransportError> {
        if self.locate(id)? {
            self.with(id, |stream| stream.sending.on_limit(limit));
        }
        Ok(())
    }

    /// `MAX_STREAMS`.
    pub(crate) fn on_max_streams(&mut self, limit: u64) {
        if self.ids.on_limit(limit) && !self.closed {
            self.events.push_back(Event::StreamsAvailable);
        }
    }

    /// `STREAM_DATA_BLOCKED`. If the application keeps up with the stream, its window is too small for the path and doubles,
    /// out of what all windows of the connection may grow. Of `DATA_BLOCKED` and `STREAMS_BLOCKED` nothing follows: that
    /// credit is given without being asked for.
    pub(crate) fn on_stream_data_blocked(&mut self, id: StreamId) -> Result<(), TransportError> {
        if self.locate(id)? {
            let base = self.config.stream_window;
            let room = self.config.connection_window.saturating_sub(self.grown_bytes);
            self.grown_bytes += self.with(id, |stream| stream.receiving.grow(base, room)).unwrap_or(0);
        }
        Ok(())
    }

    /// Checks that a frame may take its stream to `end`, and takes the connection's credit for it, which is given back at
    /// once: what a stream keeps is limited by its own window, and must not be another's wait.
    fn advance(&mut self, id: StreamId, end: u64, is_final: bool) -> Result<(), TransportError> {
        let Some(stream) = self.live.get(&id) else { return Ok(()) };
        let further = stream.receiving.check(end, is_final)?;
        if further > self.granted.advertised() - self.granted.consumed() {
            return Err(TransportError::new(TransportErrorCode::FlowControl, "data beyond the connection's credit"));
        }
        self.granted.consume(further);
        self.granted.update_by_half();
        Ok(())
    }
}

/// Frames that go out.
impl Streams {
    /// Whether [`fill`](Self::fill) would write something into an empty packet.
    pub(crate) fn has_pending(&self) -> bool {
        if self.closed {
            return false;
        }
        self.granted.is_pending()
            || self.ids.wants_update()
            || !self.lines.control.is_empty()
            || !self.lines.resend.is_empty()
            || !self.lines.fresh.is_empty() && self.received.available() > 0
    }

    /// Writes what is to be sent: control frames, then what urgent streams have, then the others, of each lost data first and
    /// then data of the streams in turn, until the packet is full or nothing is left. Adds to `sent` what it wrote.
    pub(crate) fn fill(&mut self, writer: &mut FrameWriter<'_>, sent: &mut SentFrames) -> Filled {
        let mut filled = Filled::default();
        if self.closed {
            return filled;
        }
        let before = sent.len();
        self.fill_control(writer, sent);
        filled.protected = sent.len() > before;
        let rest_waits = self.lines.resend.has(false) || self.lines.fresh.has(false);
        let classes = match self.lines.urgent_run_bytes {
            URGENT_RUN_BYTES.. if rest_waits => [false, true],
            _ => [true, false],
        };
        for urgent in classes {
            let (start, count) = (writer.written(), sent.len());
            self.fill_lost(urgent, writer, sent, &mut filled);
            self.fill_fresh(urgent, writer, sent, &mut filled);
            let has_written = sent.len() > count;
            filled.urgent |= urgent && has_written;
            if urgent && rest_waits {
                self.lines.urgent_run_bytes += (writer.written() - start) as u64;
            } else if has_written || !rest_waits {
                self.lines.urgent_run_bytes = 0;
            }
        }
        filled
    }

    fn fill_control(&mut self, writer: &mut FrameWriter<'_>, sent: &mut SentFrames) {
        if self.granted.is_pending() && writer.max_data(self.granted.latest()) {
            self.granted.sent();
            sent.push(SentFrame::MaxData);
        }
        let remote = self.ids.remote();
        if remote.is_pending() && writer.max_streams(remote.latest()) {
            remote.sent();
            sent.push(SentFrame::MaxStreams);
        }
        while let Some(id) = self.lines.control.first(false) {
            if self.with(id, |stream| stream.write_control(id, writer, sent)) != Some(true) {
                break;
            }
        }
    }

    fn fill_lost(&mut self, urgent: bool, writer: &mut FrameWriter<'_>, sent: &mut SentFrames, filled: &mut Filled) {
        while let Some(id) = self.lines.resend.first(urgent) {
            let Some(stream) = self.live.get_mut(&id) else { break };
            let is_first_end = !stream.sending.has_lost();
            let Some(piece) = stream.sending.write_lost(id, writer) else { break };
            self.stats.resent_bytes += u64::from(piece.len);
            filled.message_end |= piece.message_end;
            filled.resent |= !is_first_end;
            filled.protected |= stream.protected;
            sent.push(SentFrame::Stream { id, offset: piece.offset, len: piece.len, fin: piece.fin });
            self.lines.resend.requeue(id, &mut stream.resend, urgent);
            self.settle(id);
        }
    }

    fn fill_fresh(&mut self, urgent: bool, writer: &mut FrameWriter<'_>, sent: &mut SentFrames, filled: &mut Filled) {
        while let Some(id) = self.lines.fresh.first(urgent) {
            let credit = self.received.available();
            let Some(stream) = self.live.get_mut(&id).filter(|_| credit > 0) else { break };
            let turn = stream.priority.turn_bytes();
            if let Some(beyond) = stream.turn_bytes.checked_sub(turn) {
                // It has sent more in the turns before than was its share.
                stream.turn_bytes = beyond;
                self.lines.fresh.requeue(id, &mut stream.fresh, urgent);
                continue;
            }
            let is_short = turn < TURN_BYTES_WHOLE && self.lines.fresh.has_several(urgent);
            let most = if is_short { credit.min(turn - stream.turn_bytes) } else { credit };
            let Some(piece) = stream.sending.write_fresh(id, most, writer) else { break };
            self.received.consume(u64::from(piece.len));
            filled.protected |= stream.protected;
            filled.message_end |= piece.message_end;
            sent.push(SentFrame::Stream { id, offset: piece.offset, len: piece.len, fin: piece.fin });
            stream.turn_bytes += u64::from(piece.len);
            if !stream.sending.wants_fresh() {
                stream.turn_bytes = 0;
            } else if let Some(beyond) = stream.turn_bytes.checked_sub(turn) {
                stream.turn_bytes = beyond;
                self.lines.fresh.requeue(id, &mut stream.fresh, urgent);
            }
            self.settle(id);
        }
    }
}

/// What became of frames that went out.
impl Streams {
    /// The packet that carried `frame` has been acknowledged. Frames of others are ignored.
    pub(crate) fn on_acked(&mut self, frame: &SentFrame) {
        match *frame {
            SentFrame::Stream { id, offset, len, fin } => {
                let range = offset..offset + u64::from(len);
                // The event goes before the stream does.
                let delivered = self.live.get_mut(&id).is_some_and(|stream| stream.sending.on_acked(range, fin));
                if delivered {
                    self.events.push_back(Event::StreamDelivered(id));
                }
                self.settle(id);
            }
            SentFrame::ResetStream(id) => {
                self.with(id, |stream| stream.sending.on_reset_acked());
            }
            SentFrame::StopSending(id) => {
                self.with(id, |stream| stream.receiving.on_stop_acked());
            }
            _ => {}
        }
    }

    /// The packet that carried `frame` was lost: what still matters of it will be sent again. Also for a frame that is to be
    /// sent again as a probe. Frames of others are ignored.
    pub(crate) fn on_lost(&mut self, frame: &SentFrame) {
        match *frame {
            SentFrame::Stream { id, offset, len, fin } => {
                self.with(id, |stream| stream.sending.on_lost(offset..offset + u64::from(len), fin));
            }
            SentFrame::ResetStream(id) => {
                self.with(id, |stream| stream.sending.on_reset_lost());
            }
            SentFrame::StopSending(id) => {
                self.with(id, |stream| stream.receiving.on_stop_lost());
            }
            SentFrame::MaxData => self.granted.lost(),
            SentFrame::MaxStreams => self.ids.remote().lost(),
            SentFrame::MaxStreamData(id) => {
                self.with(id, |stream| stream.receiving.on_credit_lost());
            }
            SentFrame::StreamDataBlocked(id) => {
                self.with(id, |stream| stream.sending.on_blocked_lost());
            }
            _ => {}
        }
    }
}

impl Stream {
    /// Writes the control frames that the stream wants. Tells whether all of them fitted.
    fn write_control(&mut self, id: StreamId, writer: &mut FrameWriter<'_>, sent: &mut SentFrames) -> bool {
        if let Some((code, final_size)) = self.sending.wants_reset() {
            if !writer.reset_stream(id, code, final_size) {
                return false;
            }
            self.sending.on_reset_sent();
            sent.push(SentFrame::ResetStream(id));
        }
        if let Some(code) = self.receiving.wants_stop() {
            if !writer.stop_sending(id, code) {
                return false;
            }
            self.receiving.on_stop_sent();
            sent.push(SentFrame::StopSending(id));
        }
        if let Some(limit) = self.receiving.wants_credit() {
            if !writer.max_stream_data(id, limit) {
                return false;
            }
            self.receiving.on_credit_sent();
            sent.push(SentFrame::MaxStreamData(id));
        }
        if let Some(limit) = self.sending.wants_blocked() {
            if !writer.stream_data_blocked(id, limit) {
                return false;
            }
            self.sending.on_blocked_sent();
            sent.push(SentFrame::StreamDataBlocked(id));
        }
        true
    }
}
