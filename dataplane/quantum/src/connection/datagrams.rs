//! Unreliable datagrams (RFC 9221): whole messages that are sent once, and dropped where there is no room for them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Connection;
use crate::crypto::session::TAG_LEN;
use crate::fec::RESERVE_MAX;
use crate::sent_frame::{SentFrame, SentFrames};
use crate::stats::DatagramStats;
use crate::wire::{DATAGRAM_HEAD_LEN_MAX, FrameWriter, HEADER_LEN};
use crate::{DatagramConfig, Event, TransportError, TransportErrorCode};

/// What a datagram counts for in its queue beside its bytes: many empty ones must not fill memory either.
const ENTRY_BYTES: usize = 64;

/// Why a datagram is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes none.
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// It is longer than fits into a packet of the path, or than the peer takes.
    #[error("the datagram is longer than {0} bytes")]
    TooLarge(usize),
    /// The connection is closed or not connected.
    #[error("the connection is closed")]
    Closed,
}

/// Datagrams that wait, oldest first, no more of them than their limit.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

impl Queue {
    /// Adds one; the oldest go to make room for it. Gives how many went.
    fn push(&mut self, data: Bytes, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        self.bytes += data.len() + ENTRY_BYTES;
        self.waiting.push_back(data);
        while self.bytes > bytes_max && self.pop().is_some() {
            dropped += 1;
        }
        dropped
    }

    fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
    }

    fn pop(&mut self) -> Option<Bytes> {
        let data = self.waiting.pop_front()?;
        self.bytes -= data.len() + ENTRY_BYTES;
        Some(data)
    }
}

/// The datagrams of a connection, both ways.
#[derive(Debug)]
pub(super) struct Datagrams {
    config: DatagramConfig,
    /// Bytes of a DATAGRAM frame that the peer takes at most; 0: it takes none.
    peer_max: u64,
    outgoing: Queue,
    incoming: Queue,
    /// The application knows that there is something to receive.
    announced: bool,
    /// The packet before this one began with a datagram: it is the streams' turn.
    was_first: bool,
    stats: DatagramStats,
}

impl Datagrams {
    pub(super) fn new(config: DatagramConfig) -> Self {
        Self {
            config,
            peer_max: 0,
            outgoing: Queue::default(),
            incoming: Queue::default(),
            announced: false,
            was_first: false,
            stats: DatagramStats::default(),
        }
    }

    /// Frees memory that holds nothing.
    pub(super) fn shrink(&mut self) {
        self.outgoing.shrink();
        self.incoming.shrink();
    }

    /// The peer takes frames of so many bytes.
    pub(super) fn accept(&mut self, frame_max: u64) {
        self.peer_max = frame_max;
    }

    /// Whether there is one to send.
    pub(super) fn has_pending(&self) -> bool {
        !self.outgoing.waiting.is_empty()
    }

    /// Whether datagrams go before the streams in the next packet: in every other one, if both have something to say.
    pub(super) fn go_first(&mut self, streams_wait: bool) -> bool {
        self.was_first = self.has_pending() && !(streams_wait && self.was_first);
        self.was_first
    }

    /// Bytes of a datagram that a packet of `datagram_size` bytes and the peer take at most.
    fn size_max(&self, datagram_size: u16) -> Option<usize> {
        let path_max = usize::from(datagram_size) - HEADER_LEN - TAG_LEN - RESERVE_MAX;
        let frame_max = usize::try_from(self.peer_max).unwrap_or(usize::MAX).min(path_max);
        frame_max.checked_sub(DATAGRAM_HEAD_LEN_MAX)
    }

    /// Writes as many as fit, of at most `size_max` bytes each.
    fn write(&mut self, size_max: usize, writer: &mut FrameWriter<'_>, frames: &mut SentFrames) {
        while let Some(data) = self.outgoing.waiting.front() {
            if data.len() > size_max {
                // The path has become narrower since it was taken.
                self.outgoing.pop();
                self.stats.send_dropped += 1;
                continue;
            }
            if !writer.datagram(data) {
                return;
            }
            self.outgoing.pop();
            self.stats.sent += 1;
            frames.push(SentFrame::Datagram);
        }
    }

    /// One that was sent has arrived.
    pub(super) fn on_acked(&mut self) {
        self.stats.delivered += 1;
    }

    /// Counters.
    pub(super) fn stats(&self) -> DatagramStats {
        self.stats
    }

    /// The connection is over.
    pub(super) fn forget(&mut self) {
        self.outgoing = Queue::default();
        self.incoming = Queue::default();
    }
}

impl Connection {
    /// Bytes of a datagram that can be sent at most; none if the peer takes none.
    pub(crate) fn datagram_size_max(&self) -> Option<usize> {
        self.pending.datagrams.size_max(self.path.discovery.size()).filter(|_| self.is_open())
    }

    /// Puts a datagram in line; if there is no room the oldest goes.
    pub(crate) fn send_datagram(&mut self, data: Bytes) -> Result<(), DatagramError> {
        if !self.is_open() {
            return Err(DatagramError::Closed);
        }
        let most = self.datagram_size_max().ok_or(DatagramError::Unsupported)?;
        if data.len() > most {
            return Err(DatagramError::TooLarge(most));
        }
        let datagrams = &mut self.pending.datagrams;
        datagrams.stats.send_dropped += datagrams.outgoing.push(data, datagrams.config.send_bytes_max);
        Ok(())
    }

    /// The next datagram that came.
    pub(crate) fn recv_datagram(&mut self) -> Option<Bytes> {
        let datagrams = &mut self.pending.datagrams;
        let data = datagrams.incoming.pop();
        datagrams.announced &= data.is_some();
        data
    }

    /// DATAGRAM, in the packet with that number or restored from it.
    pub(super) fn on_datagram(&mut self, number: u64, restored: bool, data: &[u8]) -> Result<(), TransportError> {
        let is_repeated = !restored && self.fec.restorer.was_restored(number);
        let datagrams = &mut self.pending.datagrams;
        if data.len() + 1 > datagrams.config.frame_bytes_max as usize {
            let reason = "a DATAGRAM frame that is longer than was announced";
            return Err(TransportError::new(TransportErrorCode::ProtocolViolation, reason));
        }
        if is_repeated {
            // The original came after all; its streams notice by themselves.
            return Ok(());
        }
        datagrams.stats.received += 1;
        let data = Bytes::copy_from_slice(data);
        datagrams.stats.receive_dropped += datagrams.incoming.push(data, datagrams.config.receive_bytes_max);
        if !std::mem::replace(&mut datagrams.announced, true) {
            self.told.events.push_back(Event::DatagramReceived);
        }
        Ok(())
    }

    /// Writes datagrams into a packet. Gives whether there were any that forward error correction is to protect, and whether
    /// there were any.
    pub(super) fn write_datagrams(&mut self, writer: &mut FrameWriter<'_>, frames: &mut SentFrames) -> (bool, bool) {
        let Some(most) = self.datagram_size_max() else { return (false, false) };
        let datagrams = &mut self.pending.datagrams;
        let before = frames.len();
        datagrams.write(most, writer, frames);
        let has_written = frames.len() > before;
        (has_written && datagrams.config.protected, has_written)
    }
}
