//! Writing frames.

use std::ops::RangeInclusive;

use crate::StreamId;
use crate::wire::ack::{ACK_RANGES_MAX, EcnCounts};
use crate::wire::frame::{COOKIE_LEN_MAX, REASON_LEN_MAX, frame_type};
use crate::wire::repair::REPAIR_RANGES_MAX;
use crate::wire::varint;

/// Writes frames into a packet's plaintext. Every method that writes a frame writes all of it, or nothing if it does not fit,
/// and tells which.
#[derive(Debug)]
pub struct FrameWriter<'b> {
    buffer: &'b mut [u8],
    written: usize,
}

/// Bytes of a STREAM frame before its data.
pub const fn stream_header_len(id: StreamId, offset: u64, len: usize) -> usize {
    let offset_len = if offset == 0 { 0 } else { varint::len(offset) };
    1 + varint::len(id.0) + offset_len + varint::len(len as u64)
}

/// Bytes of a DATAGRAM frame before its data, at most: type and length.
pub const DATAGRAM_HEAD_LEN_MAX: usize = 3;

/// How many bytes of data a STREAM frame of at most `space` bytes carries; `None` if not even an empty one fits.
pub fn stream_capacity(id: StreamId, offset: u64, space: usize) -> Option<usize> {
    data_capacity(stream_header_len(id, offset, 0) - 1, space)
}

/// Bytes of a CRYPTO frame before its data.
pub const fn crypto_header_len(offset: u64, len: usize) -> usize {
    1 + varint::len(offset) + varint::len(len as u64)
}

/// How many bytes of data a CRYPTO frame of at most `space` bytes carries; `None` if not even an empty one fits.
pub fn crypto_capacity(offset: u64, space: usize) -> Option<usize> {
    data_capacity(crypto_header_len(offset, 0) - 1, space)
}

/// The most data that fits in `space` after `before` bytes and the data's length.
fn data_capacity(before: usize, space: usize) -> Option<usize> {
    let space = space.checked_sub(before)?;
    // Lengths of 1, 2, 4 and 8 bytes hold at most so much; the longest that fits wins. At the borders a byte stays unused.
    let fits = |len_len: usize, max: usize| space.checked_sub(len_len).map(|len| len.min(max));
    [fits(1, 0x3f), fits(2, 0x3fff), fits(4, 0x3fff_ffff)].into_iter().flatten().max()
}

impl<'b> FrameWriter<'b> {
    /// Writes to `buffer` from its front.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, written: 0 }
    }

    /// Bytes that are left.
    pub const fn remaining(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Bytes that have been written.
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Writes `len` bytes of PADDING, or as many as there is room for.
    pub fn padding(&mut self, len: usize) {
        let len = len.min(self.remaining());
        self.buffer[self.written..][..len].fill(frame_type::PADDING);
        self.written += len;
    }

    /// Writes PING.
    #[must_use]
    pub fn ping(&mut self) -> bool {
        self.integers(frame_type::PING, [])
    }

    /// Writes ACK, or `ACK_ECN` if there are counts, with as many of the first `ranges` as fit, at most [`ACK_RANGES_MAX`].
    /// They are newest first and do not touch each other. Gives how many it wrote; zero: nothing was written.
    #[must_use]
    pub fn ack<R>(&mut self, ranges: R, delay_micros: u64, ecn: Option<EcnCounts>) -> usize
    where
        R: IntoIterator<Item = RangeInclusive<u64>>,
        R::IntoIter: Clone,
    {
        let ranges = ranges.into_iter().take(ACK_RANGES_MAX);
        let Some(first) = ranges.clone().next() else { return 0 };
        let delay_micros = delay_micros.min(varint::VARINT_MAX);
        let ecn_len = ecn.map_or(0, |ecn| [ecn.ect0, ecn.ect1, ecn.ce].map(varint::len).iter().sum());
        // The number of ranges takes one or two bytes; two are reckoned with.
        let fixed = 1 + varint::len(*first.end()) + varint::len(delay_micros) + 2 + ecn_len;
        let Some(mut space) = self.remaining().checked_sub(fixed) else { return 0 };
        let mut above = None;
        let mut count = 0;
        for range in ranges.clone() {
            let need = gap_below(above, &range).map_or(0, varint::len) + varint::len(range.end() - range.start());
            let Some(left) = space.checked_sub(need) else { break };
            (space, above, count) = (left, Some(*range.start()), count + 1);
        }
        if count == 0 {
            return 0;
        }
        self.byte(if ecn.is_some() { frame_type::ACK_ECN } else { frame_type::ACK });
        self.integer(*first.end());
        self.integer(delay_micros);
        self.integer(count as u64 - 1);
        above = None;
        for range in ranges.take(count) {
            if let Some(gap) = gap_below(above, &range) {
                self.integer(gap);
            }
            self.integer(range.end() - range.start());
            above = Some(*range.start());
        }
        if let Some(ecn) = ecn {
            for count in [ecn.ect0, ecn.ect1, ecn.ce] {
                self.integer(count);
            }
        }
        count
    }

    /// Writes `RESET_STREAM`.
    #[must_use]
    pub fn reset_stream(&mut self, id: StreamId, code: u64, final_size: u64) -> bool {
        self.integers(frame_type::RESET_STREAM, [id.0, code, final_size])
    }

    /// Writes `STOP_SENDING`.
    #[must_use]
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> bool {
        self.integers(frame_type::STOP_SENDING, [id.0, code])
    }

    /// Writes a CRYPTO frame's head and gives the `len` bytes that its data goes to.
    #[must_use]
    pub fn begin_crypto(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        let total = crypto_header_len(offset, len).checked_add(len)?;
        if total > self.remaining() {
            return None;
        }
        self.byte(frame_type::CRYPTO);
        self.integer(offset);
        self.integer(len as u64);
        Some(self.take(len))
    }

    /// Writes COOKIE: 1 to [`COOKIE_LEN_MAX`] bytes.
    #[must_use]
    pub fn cookie(&mut self, cookie: &[u8]) -> bool {
        debug_assert!((1..=COOKIE_LEN_MAX).contains(&cookie.len()));
        if self.remaining() < 2 + cookie.len() + usize::from(cookie.len() > 0x3f) {
            return false;
        }
        self.byte(frame_type::COOKIE);
        self.integer(cookie.len() as u64);
        self.take(cookie.len()).copy_from_slice(cookie);
        true
    }

    /// Writes a STREAM frame's head and gives the `len` bytes that its data goes to.
    #[must_use]
    pub fn begin_stream(&mut self, id: StreamId, offset: u64, len: usize, fin: bool) -> Option<&mut [u8]> {
        let total = stream_header_len(id, offset, len).checked_add(len)?;
        if total > self.remaining() {
            return None;
        }
        let mut kind = frame_type::STREAM | frame_type::STREAM_LEN;
        if offset > 0 {
            kind |= frame_type::STREAM_OFF;
        }
        if fin {
            kind |= frame_type::STREAM_FIN;
        }
        self.byte(kind);
        self.integer(id.0);
        if offset > 0 {
            self.integer(offset);
        }
        self.integer(len as u64);
        Some(self.take(len))
    }

    /// Writes `MAX_DATA`.
    #[must_use]
    pub fn max_data(&mut self, max: u64) -> bool {
        self.integers(frame_type::MAX_DATA, [max])
    }

    /// Writes `MAX_STREAM_DATA`.
    #[must_use]
    pub fn max_stream_data(&mut self, id: StreamId, max: u64) -> bool {
        self.integers(frame_type::MAX_STREAM_DATA, [id.0, max])
    }

    /// Writes `MAX_STREAMS`.
    #[must_use]
    pub fn max_streams(&mut self, max: u64) -> bool {
        self.integers(frame_type::MAX_STREAMS, [max])
    }

    /// Writes `DATA_BLOCKED`.
    #[must_use]
    pub fn data_blocked(&mut self, max: u64) -> bool {
        self.integers(frame_type::DATA_BLOCKED, [max])
    }

    /// Writes `STREAM_DATA_BLOCKED`.
    #[must_use]
    pub fn stream_data_blocked(&mut self, id: StreamId, max: u64) -> bool {
        self.integers(frame_type::STREAM_DATA_BLOCKED, [id.0, max])
    }

    /// Writes `STREAMS_BLOCKED`.
    #[must_use]
    pub fn streams_blocked(&mut self, max: u64) -> bool {
        self.integers(frame_type::STREAMS_BLOCKED, [max])
    }

    /// Writes `CONNECTION_CLOSE`, its reason cut to [`REASON_LEN_MAX`] and to what fits.
    #[must_use]
    pub fn connection_close(&mut self, code: u64, application: bool, reason: &[u8]) -> bool {
        let Some(room) = self.remaining().checked_sub(1 + varint::len(code) + 2) else { return false };
        let reason = &reason[..reason.len().min(REASON_LEN_MAX).min(room)];
        self.byte(if application { frame_type::APPLICATION_CLOSE } else { frame_type::CONNECTION_CLOSE });
        self.integer(code);
        self.integer(reason.len() as u64);
        self.take(reason.len()).copy_from_slice(reason);
        true
    }

    /// Writes `PATH_CHALLENGE`, or `PATH_RESPONSE`.
    #[must_use]
    pub fn path(&mut self, data: [u8; 8], is_response: bool) -> bool {
        if self.remaining() < 1 + data.len() {
            return false;
        }
        self.byte(if is_response { frame_type::PATH_RESPONSE } else { frame_type::PATH_CHALLENGE });
        self.take(data.len()).copy_from_slice(&data);
        true
    }

    /// Writes `HANDSHAKE_DONE`.
    #[must_use]
    pub fn handshake_done(&mut self) -> bool {
        self.integers(frame_type::HANDSHAKE_DONE, [])
    }

    /// Writes DATAGRAM, with its length.
    #[must_use]
    pub fn datagram(&mut self, data: &[u8]) -> bool {
        let len = 1 + varint::len(data.len() as u64) + data.len();
        if len > self.remaining() {
            return false;
        }
        self.byte(frame_type::DATAGRAM_LEN);
        self.integer(data.len() as u64);
        self.buffer[self.written..][..data.len()].copy_from_slice(data);
        self.written += data.len();
        true
    }

    /// Writes REPAIR for the group with these members (ranges, newest first, all below `number`, that of the packet), and gives
    /// the `len` bytes that its symbol goes to. `index` of at most `repairs` symbols.
    #[must_use]
    pub fn begin_repair(
        &mut self,
        number: u64,
        members: &[(u64, u64)],
        (index, repairs): (u8, u8),
        len: usize,
    ) -> Option<&mut [u8]> {
        let &(_, newest) = members.first()?;
        let distance = number.checked_sub(newest)?;
        debug_assert!(members.len() <= REPAIR_RANGES_MAX && index < repairs && distance > 0);
        let ranges_len = ranges_len(members);
        let total = 1 + varint::len(distance) + 2 + ranges_len + varint::len(len as u64) + len;
        if total > self.remaining() {
            return None;
        }
        self.byte(frame_type::REPAIR);
        self.integer(distance);
        self.byte(repairs);
        self.byte(index);
        self.ranges(members);
        self.integer(len as u64);
        Some(self.take(len))
    }

    /// Writes RECOVERED with these numbers (ranges, newest first).
    #[must_use]
    pub fn recovered(&mut self, ranges: &[(u64, u64)]) -> bool {
        let Some(&(_, largest)) = ranges.first() else { return false };
        debug_assert!(ranges.len() <= REPAIR_RANGES_MAX);
        if 1 + varint::len(largest) + ranges_len(ranges) > self.remaining() {
            return false;
        }
        self.byte(frame_type::RECOVERED);
        self.integer(largest);
        self.ranges(ranges);
        true
    }

    /// Writes how many further ranges there are, and how long each range and each gap is.
    fn ranges(&mut self, ranges: &[(u64, u64)]) {
        self.integer(ranges.len() as u64 - 1);
        let mut above = None;
        for &(first, last) in ranges {
            if let Some(gap) = gap_below(above, &(first..=last)) {
                self.integer(gap);
            }
            self.integer(last - first);
            above = Some(first);
        }
    }

    fn integers<const N: usize>(&mut self, kind: u8, values: [u64; N]) -> bool {
        let len = 1 + values.iter().map(|&value| varint::len(value)).sum::<usize>();
        if len > self.remaining() {
            return false;
        }
        self.byte(kind);
        for value in values {
            self.integer(value);
        }
        true
    }

    fn byte(&mut self, byte: u8) {
        self.buffer[self.written] = byte;
        self.written += 1;
    }

    fn integer(&mut self, value: u64) {
        let len = varint::write(value, &mut self.buffer[self.written..]);
        self.written += len.expect("the caller has checked the room");
    }

    fn take(&mut self, len: usize) -> &mut [u8] {
        let start = self.written;
        self.written += len;
        &mut self.buffer[start..self.written]
    }
}

/// Bytes of ranges and their number.
fn ranges_len(ranges: &[(u64, u64)]) -> usize {
    let mut above = None;
    let mut len = varint::len(ranges.len() as u64 - 1);
    for &(first, last) in ranges {
        len += gap_below(above, &(first..=last)).map_or(0, varint::len) + varint::len(last - first);
        above = Some(first);
    }
    len
}

/// The gap that an ACK frame gives between a range and the one above it, which begins at `above`.
fn gap_below(above: Option<u64>, range: &RangeInclusive<u64>) -> Option<u64> {
    above.map(|above| {
        debug_assert!(range.end() + 1 < above, "ranges descend and do not touch");
        above - range.end() - 2
    })
}
