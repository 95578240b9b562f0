//! The streams of a connection: ordered bytes both ways, each stream on its own, within the credit of either side.
//!
//! Nothing here knows packets, time or the network. The connection passes frames in, asks [`Streams::fill`] for frames to
//! send, and tells what became of them by [`SentFrame`](crate::sent_frame::SentFrame).
//!
//! Memory of a connection: at most `streams_max` streams of the peer and as many of this side as the peer allows, each with
//! `stream_window` bytes to be read (see [`reassembly`] for what surrounds them) and `send_buffer_max` bytes to be sent; and
//! `connection_window` bytes more in all, by which the windows of streams grow that are too small for the path, and as much
//! again, by which their send buffers do.

mod chunks;
mod credit;
mod frames;
mod ids;
mod ranges;
mod reassembly;
mod receive;
mod schedule;
mod send;
mod send_buffer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

use self::chunks::Chunks;
use self::credit::{Granted, Received};
use self::ids::{Ids, Named};
use self::receive::Receiving;
pub use self::schedule::Priority;
use self::schedule::{Line, Place};
use self::send::Sending;
use crate::id_map::IdMap;
use crate::stats::StreamsStats;
use crate::{Event, OpenError, Read, Side, StreamId, TransportError, WriteError};

/// What this side allows the peer, and itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamsConfig {
    /// Bytes that the peer may send on a stream beyond what the application has read.
    pub(crate) stream_window: u64,
    /// Bytes that the peer may send on all streams beyond what has been received.
    pub(crate) connection_window: u64,
    /// Streams that the peer may have open at once.
    pub(crate) streams_max: u64,
    /// Bytes that a stream keeps for sending and resending.
    pub(crate) send_buffer_max: usize,
}

/// What the peer allows at first, from its transport parameters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerLimits {
    /// Bytes on each stream.
    pub(crate) stream_window: u64,
    /// Bytes on all streams.
    pub(crate) connection_window: u64,
    /// Streams that this side may open.
    pub(crate) streams_max: u64,
}

/// All streams of a connection.
#[derive(Debug)]
pub(crate) struct Streams {
    config: StreamsConfig,
    peer: PeerLimits,
    ids: Ids,
    live: IdMap<StreamId, Stream>,
    /// Connection credit given: the highest offsets received of all streams count as consumed at once, read or not.
    granted: Granted,
    /// Connection credit had.
    received: Received,
    /// Bytes by which the windows of live streams have grown.
    grown_bytes: u64,
    /// Bytes by which their send buffers have.
    send_grown_bytes: usize,
    lines: Lines,
    /// Memory for what is received.
    chunks: Chunks,
    events: VecDeque<Event>,
    stats: StreamsStats,
    /// The connection is over.
    closed: bool,
}

/// Who wants to send.
#[derive(Debug, Default)]
struct Lines {
    /// `RESET_STREAM`, `STOP_SENDING`, `MAX_STREAM_DATA` and `STREAM_DATA_BLOCKED`.
    control: Line,
    /// STREAM frames that take no connection credit: lost ones, and ends.
    resend: Line,
    /// Bytes that have not been sent yet.
    fresh: Line,
    /// Bytes of urgent streams that have been sent in a row while others waited.
    urgent_run_bytes: u64,
}

#[derive(Debug)]
struct Stream {
    sending: Sending,
    receiving: Receiving,
    control: Place,
    resend: Place,
    fresh: Place,
    /// Bytes sent in the current turn.
    turn_bytes: u64,
    /// Forward error correction protects what is sent on it.
    protected: bool,
    priority: Priority,
    /// What the stream's share of the statistics was last.
    send_buffered: usize,
    receive_buffered: usize,
}

impl Streams {
    /// No streams. None can be opened before [`set_peer_limits`](Self::set_peer_limits).
    pub(crate) fn new(side: Side, config: StreamsConfig) -> Self {
        assert!(config.send_buffer_max > 0, "a stream has to be able to send");
        Self {
            config,
            peer: PeerLimits::default(),
            ids: Ids::new(side, config.streams_max),
            live: IdMap::default(),
            granted: Granted::new(config.connection_window),
            received: Received::default(),
            grown_bytes: 0,
            send_grown_bytes: 0,
            lines: Lines::default(),
            chunks: Chunks::default(),
            events: VecDeque::new(),
            stats: StreamsStats::default(),
            closed: false,
        }
    }

    /// The connection is over: frees everything. Streams cannot be opened, written or sent any more, frames are ignored.
    pub(crate) fn clear(&mut self) {
        self.live = IdMap::default();
        self.lines = Lines::default();
        self.chunks = Chunks::default();
        self.events = VecDeque::new();
        self.stats = StreamsStats { resent_bytes: self.stats.resent_bytes, ..StreamsStats::default() };
        self.closed = true;
    }

    /// Nothing has come for a while: frees memory that holds nothing.
    pub(crate) fn release(&mut self) {
        self.chunks = Chunks::default();
        self.live.shrink_to_fit();
        self.ids.shrink();
        self.events.shrink_to_fit();
        for stream in self.live.values_mut() {
            stream.receiving.release();
            stream.sending.release();
        }
    }

    /// The peer closed the connection: what it had sent before stays readable, all else goes as in [`clear`](Self::clear).
    pub(crate) fn clear_unreadable(&mut self) {
        let mut live = std::mem::take(&mut self.live);
        for stream in live.values_mut() {
            stream.sending = Sending::new(0);
        }
        self.clear();
        self.live = live;
    }

    /// The peer's transport parameters are known. To be called before the first frame of a stream is passed in.
    pub(crate) fn set_peer_limits(&mut self, limits: PeerLimits) {
        self.peer = limits;
        self.received.raise(limits.connection_window);
        self.on_max_streams(limits.streams_max);
    }

    /// What the peer allowed at first.
    pub(crate) fn peer_limits(&self) -> PeerLimits {
        self.peer
    }

    /// Whether what has been sent so far is within these limits.
    pub(crate) fn fits(&self, limits: PeerLimits) -> bool {
        let is_within = |stream: &Stream| stream.sending.sent_end() <= limits.stream_window;
        self.ids.local_count() <= limits.streams_max
            && self.received.used() <= limits.connection_window
            && self.live.values().all(is_within)
    }

    /// The peer's limits that were gone by turn out to be these. What has been sent is within them.
    pub(crate) fn replace_peer_limits(&mut self, limits: PeerLimits) {
        debug_assert!(self.fits(limits));
        self.received.replace(limits.connection_window);
        self.ids.replace_limit(limits.streams_max);
        let live: Vec<StreamId> = self.live.keys().copied().collect();
        for id in live {
            self.with(id, |stream| stream.sending.replace_limit(limits.stream_window));
        }
        self.set_peer_limits(limits);
    }

    /// Opens the next stream of this side. If it is refused, [`Event::StreamsAvailable`] follows.
    pub(crate) fn open(&mut self) -> Result<StreamId, OpenError> {
        if self.closed {
            return Err(OpenError::Closed);
        }
        let id = self.ids.open().ok_or(OpenError::Blocked)?;
        self.start(id);
        Ok(id)
    }

    /// Takes as much of `data` as there is room for. If some is left, [`Event::StreamWritable`] follows.
    pub(crate) fn write(&mut self, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let base = self.config.send_buffer_max;
        self.with(id, |stream| stream.sending.write(data, base)).unwrap_or(Err(WriteError::Closed))
    }

    /// Ends this side's direction after what has been written. [`Event::StreamDelivered`] follows.
    pub(crate) fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        self.with(id, |stream| stream.sending.finish()).unwrap_or(Err(WriteError::Closed))
    }

    /// Abandons this side's direction. Does nothing if it is over.
    pub(crate) fn reset(&mut self, id: StreamId, code: u64) {
        self.with(id, |stream| stream.sending.reset(code));
    }

    /// Asks the peer to stop, and drops what still comes. Does nothing if that direction is over.
    pub(crate) fn stop(&mut self, id: StreamId, code: u64) {
        self.with(id, |stream| stream.receiving.stop(code));
    }

    /// Whether forward error correction is to protect what is sent on the stream from here on.
    pub(crate) fn protect(&mut self, id: StreamId, protected: bool) {
        self.with(id, |stream| stream.protected = protected);
    }

    /// Where the stream stands among those that want to send.
    pub(crate) fn set_priority(&mut self, id: StreamId, priority: Priority) {
        let Some(stream) = self.live.get_mut(&id) else { return };
        stream.priority = priority;
        self.lines.resend.requeue(id, &mut stream.resend, priority.urgent);
        self.lines.fresh.requeue(id, &mut stream.fresh, priority.urgent);
    }

    /// Reads at most `max` bytes (at least one). A stream that does not exist, is over or was stopped has
    /// [`Read::Finished`] to say.
    pub(crate) fn read(&mut self, id: StreamId, max: usize) -> Read {
        if self.closed {
            // A stream that was cut off by the end of the connection must not look finished.
            return self.live.get_mut(&id).map_or(Read::Blocked, |stream| stream.receiving.read(max));
        }
        self.with(id, |stream| stream.receiving.read(max)).unwrap_or(Read::Finished)
    }

    /// The next thing that the application should know.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > 256 {
            self.events = VecDeque::new();
        }
        event
    }

    /// Gauges and counters.
    pub(crate) fn stats(&self) -> StreamsStats {
        StreamsStats { live: self.live.len(), ..self.stats }
    }

    /// Makes sure that the stream of a frame exists, if the frame opens it. Tells whether it lives.
    fn locate(&mut self, id: StreamId) -> Result<bool, TransportError> {
        if self.closed {
            return Ok(false);
        }
        if self.ids.name(id)? == Named::Known {
            return Ok(self.live.contains_key(&id));
        }
        self.start(id);
        self.events.push_back(Event::StreamOpened(id));
        Ok(true)
    }

    fn start(&mut self, id: StreamId) {
        let stream = Stream {
            sending: Sending::new(self.peer.stream_window),
            receiving: Receiving::new(self.config.stream_window),
            control: Place::default(),
            resend: Place::default(),
            fresh: Place::default(),
            turn_bytes: 0,
            protected: true,
            priority: Priority::default(),
            send_buffered: 0,
            receive_buffered: 0,
        };
        let before = self.live.insert(id, stream);
        debug_assert!(before.is_none(), "ids are never used twice");
    }

    /// Does something with a stream and draws the consequences. `None`: there is no such stream, or all are over.
    fn with<T>(&mut self, id: StreamId, act: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        if self.closed {
            return None;
        }
        let stream = self.live.get_mut(&id)?;
        let result = act(stream);
        self.settle(id);
        Some(result)
    }

    /// Brings everything that depends on a stream's state up to date: events, lines, statistics, and whether it lives.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.live.get_mut(&id) else { return };
        if stream.receiving.take_readable() {
            self.events.push_back(Event::StreamReadable(id));
        }
        let (base, growth_max) = (self.config.send_buffer_max, self.config.connection_window as usize);
        self.send_grown_bytes += stream.sending.grow(base, growth_max.saturating_sub(self.send_grown_bytes));
        if stream.sending.take_room(base) {
            self.events.push_back(Event::StreamWritable(id));
        }
        let (sent, received) = (stream.sending.buffered(), stream.receiving.buffered());
        self.stats.send_buffered_bytes += sent;
        self.stats.send_buffered_bytes -= std::mem::replace(&mut stream.send_buffered, sent);
        self.stats.receive_buffered_bytes += received;
        self.stats.receive_buffered_bytes -= std::mem::replace(&mut stream.receive_buffered, received);
        let wants_control = stream.wants_control();
        let urgent = stream.priority.urgent;
        self.lines.control.set(id, &mut stream.control, false, wants_control);
        self.lines.resend.set(id, &mut stream.resend, urgent, stream.sending.wants_resend());
        self.lines.fresh.set(id, &mut stream.fresh, urgent, stream.sending.wants_fresh());
        if stream.sending.is_over() && stream.receiving.is_over() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.live.remove(&id) else { return };
        debug_assert!(stream.is_idle(), "what is over wants and keeps nothing");
        self.grown_bytes -= stream.receiving.grown();
        self.send_grown_bytes -= stream.sending.grown();
        self.ids.close(id);
        if self.live.capacity() > 64 && self.live.len() < self.live.capacity() / 8 {
            self.live.shrink_to(2 * self.live.len());
        }
    }
}

impl Stream {
    fn wants_control(&self) -> bool {
        self.sending.wants_reset().is_some()
            || self.receiving.wants_stop().is_some()
            || self.receiving.wants_credit().is_some()
            || self.sending.wants_blocked().is_some()
    }

    fn is_idle(&self) -> bool {
        let wants = self.wants_control() || self.sending.wants_resend() || self.sending.wants_fresh();
        !wants && self.sending.buffered() == 0 && self.receiving.buffered() == 0
    }
}
