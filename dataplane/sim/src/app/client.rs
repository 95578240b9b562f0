//! The client: opens streams, sends, and checks what comes back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quantum::{
    CloseReason, ConnectOptions, ConnectionHandle, ConnectionRef, Endpoint, Event, OpenError, Read, Side, StreamId,
    Time, WriteError,
};

use super::pattern::Pattern;
use super::plan::{Plan, StreamKind};
use super::{ABORT_CODE, CLOSE_CODE, Fault, READ_MAX};

/// Bytes written at once at most.
const WRITE_MAX: u64 = 8 << 10;

/// A client of one connection.
pub(crate) struct Client {
    plan: Plan,
    /// How it connects; taken when it does.
    options: Option<ConnectOptions>,
    handle: Option<ConnectionHandle>,
    /// When it was connected.
    connected: Option<Time>,
    /// How many of the planned streams have been opened.
    opened: usize,
    /// An open was refused until the peer allows more streams.
    open_blocked: bool,
    streams: BTreeMap<StreamId, Stream>,
    pushes_seen: BTreeSet<StreamId>,
    streams_over: usize,
    /// When it closes, once all streams are over.
    close_at: Option<Time>,
    closed: bool,
    /// Its connection may end in silence before it is done.
    may_end_in_silence: bool,
    bytes_checked: u64,
}

/// A stream under way.
struct Stream {
    pattern: Pattern,
    /// Bytes that it sends in all; zero for one that the server opened.
    size: u64,
    /// Bytes that come in all.
    expected: u64,
    kind: StreamKind,
    written: u64,
    sent_all: bool,
    read: u64,
    read_all: bool,
    delivered: bool,
}

impl Stream {
    /// Whether nothing more is expected to happen on it.
    fn is_over(&self) -> bool {
        match self.kind {
            StreamKind::Echo => self.read_all && self.delivered,
            StreamKind::Reset(_) | StreamKind::Stop(_) => self.sent_all && self.read_all,
        }
    }
}

impl Client {
    pub(crate) fn new(plan: Plan, options: ConnectOptions, may_end_in_silence: bool) -> Self {
        Self {
            plan,
            options: Some(options),
            handle: None,
            connected: None,
            opened: 0,
            open_blocked: false,
            streams: BTreeMap::new(),
            pushes_seen: BTreeSet::new(),
            streams_over: 0,
            close_at: None,
            closed: false,
            may_end_in_silence,
            bytes_checked: 0,
        }
    }

    pub(crate) fn handles(&self) -> Vec<ConnectionHandle> {
        self.handle.into_iter().collect()
    }

    /// From here on its connection may end in silence before it is done.
    pub(crate) fn allow_silence(&mut self) {
        self.may_end_in_silence = true;
    }

    /// Bytes that came back and were right.
    pub(crate) const fn bytes_checked(&self) -> u64 {
        self.bytes_checked
    }

    /// Whether its connection is closed.
    pub(crate) const fn is_over(&self) -> bool {
        self.closed
    }

    /// Whether its connection ended before it was done.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.closed && !self.is_done()
    }

    /// What it waits for, for people.
    pub(crate) fn waiting(&self) -> String {
        let open: Vec<String> = self
            .streams
            .iter()
            .map(|(id, stream)| {
                format!(
                    "{id:?} {:?} wrote {}/{} read {}/{} delivered {}",
                    stream.kind, stream.written, stream.size, stream.read, stream.expected, stream.delivered
                )
            })
            .collect();
        let (opened, planned) = (self.opened, self.plan.streams.len());
        format!("connected {:?}, {opened}/{planned} opened, open: {open:?}", self.connected)
    }

    /// When it does something of its own accord.
    pub(crate) fn next_time(&self) -> Option<Time> {
        if self.closed {
            return None;
        }
        let next = self.plan.streams.get(self.opened).filter(|_| !self.open_blocked);
        let open = self.connected.zip(next).map(|(connected, stream)| connected + stream.after);
        open.into_iter().chain(self.close_at).min()
    }

    /// Does what can be done at once; whether there was anything.
    pub(crate) fn act(&mut self, now: Time, endpoint: &mut Endpoint) -> Result<bool, Fault> {
        let mut acted = false;
        if let Some(options) = self.options.take() {
            self.handle = Some(endpoint.connect(now, options).map_err(|error| Fault::new(error.to_string()))?);
            acted = true;
        }
        while let Some((handle, event)) = endpoint.poll_event() {
            acted = true;
            if Some(handle) != self.handle || self.closed {
                return Err(Fault::new(format!("an event of a connection that is not: {event:?}")));
            }
            self.handle_event(now, endpoint, handle, event)?;
        }
        let Some(handle) = self.handle.filter(|_| !self.closed && self.connected.is_some()) else { return Ok(acted) };
        acted |= self.open_due(now, endpoint, handle)?;
        self.retire();
        if self.close_at.is_some_and(|close_at| close_at <= now) {
            self.close_at = None;
            connection(endpoint, handle)?.close(now, CLOSE_CODE, b"done");
            return Ok(true);
        }
        if self.is_done() && self.close_at.is_none() {
            self.close_at = Some(now + self.plan.rest);
            acted = true;
        }
        Ok(acted)
    }

    fn is_done(&self) -> bool {
        self.streams_over == self.plan.streams.len() + self.plan.pushes.len() && self.connected.is_some()
    }

    fn retire(&mut self) {
        let before = self.streams.len();
        self.streams.retain(|_, stream| !stream.is_over());
        self.streams_over += before - self.streams.len();
    }

    fn handle_event(
        &mut self,
        now: Time,
        endpoint: &mut Endpoint,
        handle: ConnectionHandle,
        event: Event,
    ) -> Result<(), Fault> {
        match event {
            Event::Connected { .. } if self.connected.is_none() => self.connected = Some(now),
            Event::Connected { .. } => return Err(Fault::new("connected twice")),
            Event::Early { .. } => return Err(Fault::new("early data, which is off")),
            Event::StreamOpened(id) => self.accept(endpoint, handle, id)?,
            Event::StreamReadable(id) => self.read(&mut connection(endpoint, handle)?, id)?,
            Event::StreamWritable(id) => self.write(&mut connection(endpoint, handle)?, id)?,
            Event::StreamDelivered(id) => {
                let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
                if !stream.sent_all {
                    return Err(Fault::new(format!("{id:?} was delivered before its end was written")));
                }
                stream.delivered = true;
            }
            Event::StreamStopped(id, code) => return Err(Fault::new(format!("{id:?} was stopped with {code}"))),
            Event::StreamsAvailable => self.open_blocked = false,
            Event::DatagramReceived => return Err(Fault::new("a datagram that nobody sent")),
            Event::Closed(CloseReason::Local { code: CLOSE_CODE }) if self.is_done() => self.closed = true,
            Event::Closed(CloseReason::IdleTimeout | CloseReason::HandshakeTimeout | CloseReason::Reset)
                if self.may_end_in_silence =>
            {
                self.closed = true;
            }
            Event::Closed(reason) => return Err(Fault::new(format!("closed: {reason}; {}", self.waiting()))),
        }
        Ok(())
    }

    /// A stream of the server: nothing is sent on it, and its bytes are checked.
    fn accept(&mut self, endpoint: &mut Endpoint, handle: ConnectionHandle, id: StreamId) -> Result<(), Fault> {
        let expected = self.plan.pushes.get(id.index() as usize).copied();
        let (Side::Server, Some(expected)) = (id.opener(), expected) else {
            return Err(Fault::new(format!("the server opened {id:?}")));
        };
        if !self.pushes_seen.insert(id) {
            return Err(Fault::new(format!("{id:?} was reported twice")));
        }
        let mut connection = connection(endpoint, handle)?;
        connection.finish(id).map_err(|error| Fault::new(format!("{id:?}: {error}")))?;
        self.streams.insert(
            id,
            Stream {
                pattern: Pattern::new(id.0),
                size: 0,
                expected,
                kind: StreamKind::Echo,
                written: 0,
                sent_all: true,
                read: 0,
                read_all: false,
                delivered: false,
            },
        );
        self.read(&mut connection, id)
    }

    /// Opens the streams whose time has come.
    fn open_due(&mut self, now: Time, endpoint: &mut Endpoint, handle: ConnectionHandle) -> Result<bool, Fault> {
        let mut acted = false;
        while self.next_open().is_some_and(|due| due <= now) {
            let mut connection = connection(endpoint, handle)?;
            let id = match connection.open() {
                Ok(id) => id,
                Err(OpenError::Blocked) => {
                    self.open_blocked = true;
                    break;
                }
                Err(OpenError::Closed) => return Err(Fault::new("no stream can be opened: closed")),
            };
            acted = true;
            if id != StreamId::new(Side::Client, self.opened as u64) {
                return Err(Fault::new(format!("the stream number {} is {id:?}", self.opened)));
            }
            let plan = self.plan.streams[self.opened];
            self.opened += 1;
            self.streams.insert(
                id,
                Stream {
                    pattern: Pattern::new(id.0),
                    size: plan.size,
                    expected: plan.size,
                    kind: plan.kind,
                    written: 0,
                    sent_all: false,
                    read: 0,
                    read_all: false,
                    delivered: false,
                },
            );
            self.write(&mut connection, id)?;
            self.read(&mut connection, id)?;
        }
        Ok(acted)
    }

    fn next_open(&self) -> Option<Time> {
        let next = self.plan.streams.get(self.opened).filter(|_| !self.open_blocked)?;
        Some(self.connected? + next.after)
    }

    /// Writes as much as is taken, then ends the stream in its way.
    fn write(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.sent_all) else { return Ok(()) };
        let fault = |error: WriteError| Fault::new(format!("{id:?} cannot be written: {error}"));
        let until = match stream.kind {
            StreamKind::Reset(after) => after,
            StreamKind::Echo | StreamKind::Stop(_) => stream.size,
        };
        while stream.written < until {
            let len = (until - stream.written).min(WRITE_MAX) as usize;
            let mut data: Bytes = stream.pattern.bytes(stream.written, len);
            let taken = connection.write(id, &mut data).map_err(fault)?;
            if taken + data.len() != len {
                return Err(Fault::new(format!("{id:?} took {taken} of {len} bytes and left {}", data.len())));
            }
            if taken == 0 {
                return Ok(());
            }
            stream.written += taken as u64;
        }
        stream.sent_all = true;
        match stream.kind {
            StreamKind::Reset(_) => connection.reset(id, ABORT_CODE),
            StreamKind::Echo | StreamKind::Stop(_) => connection.finish(id).map_err(fault)?,
        }
        Ok(())
    }

    /// Reads and checks what is there.
    fn read(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) -> Result<(), Fault> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let fault = |what: String| Err(Fault::new(format!("{id:?}: {what}")));
        while !stream.read_all {
            match connection.read(id, READ_MAX) {
                Read::Blocked => return Ok(()),
                Read::Data(data) if data.is_empty() || data.len() > READ_MAX => {
                    return fault(format!("a read gave {} bytes", data.len()));
                }
                Read::Data(data) => {
                    stream.pattern.check(stream.read, &data)?;
                    stream.read += data.len() as u64;
                    self.bytes_checked += data.len() as u64;
                    if stream.read > stream.expected {
                        return fault(format!("{} bytes came of {}", stream.read, stream.expected));
                    }
                }
                Read::Finished if stream.kind == StreamKind::Echo || matches!(stream.kind, StreamKind::Stop(_)) => {
                    if stream.read != stream.expected {
                        return fault(format!("it ended after {} of {} bytes", stream.read, stream.expected));
                    }
                    stream.read_all = true;
                }
                Read::Reset(ABORT_CODE) if matches!(stream.kind, StreamKind::Reset(_)) => stream.read_all = true,
                other => return fault(format!("a {:?} stream gave {other:?}", stream.kind)),
            }
            if let StreamKind::Stop(after) = stream.kind
                && stream.read >= after
                && !stream.read_all
            {
                connection.stop(id, ABORT_CODE);
                stream.read_all = true;
            }
        }
        Ok(())
    }
}

fn connection(endpoint: &mut Endpoint, handle: ConnectionHandle) -> Result<ConnectionRef<'_>, Fault> {
    endpoint.connection(handle).ok_or_else(|| Fault::new("the connection is gone without having closed"))
}
