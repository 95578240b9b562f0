//! The server: echoes every stream, and sends streams of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use quantum::{CloseReason, ConnectionHandle, ConnectionRef, Endpoint, Event, Read, Side, StreamId, WriteError};

use super::pattern::Pattern;
use super::plan::Plan;
use super::{CLOSE_CODE, ECHO_MAX, Fault, READ_MAX};

/// Bytes of its own that the server writes at once.
const WRITE_MAX: u64 = 8 << 10;

/// A server of any number of connections.
pub(crate) struct Server {
    /// What the clients do, the one whose address ends in 1 first.
    plans: Vec<Plan>,
    connections: BTreeMap<ConnectionHandle, BTreeMap<StreamId, Stream>>,
    accepted: usize,
    /// Which clients came, from 0 on.
    known: BTreeSet<usize>,
}

/// A stream under way.
enum Stream {
    /// One of a client's.
    Echo(Echo),
    /// One of its own.
    Push {
        /// Bytes in all.
        size: u64,
        /// Bytes written.
        written: u64,
        /// Whether its end was written.
        finished: bool,
    },
}

/// What of a stream has been read and not written back.
#[derive(Default)]
struct Echo {
    pending: VecDeque<Bytes>,
    pending_len: usize,
    read_all: bool,
    /// The direction back is over: finished, reset or stopped.
    sent_all: bool,
}

impl Server {
    /// A server whose clients do these things. The last byte of an address tells which client it is, from 1 on.
    pub(crate) const fn new(plans: Vec<Plan>) -> Self {
        Self { plans, connections: BTreeMap::new(), accepted: 0, known: BTreeSet::new() }
    }

    pub(crate) fn handles(&self) -> Vec<ConnectionHandle> {
        self.connections.keys().copied().collect()
    }

    /// Whether that client's handshake is over, from 0 on.
    pub(crate) fn knows(&self, client: usize) -> bool {
        self.known.contains(&client)
    }

    /// Whether every client came, once; some may have been cut off before they could.
    pub(crate) fn check_end(&self, may_end_in_silence: bool) -> Result<(), Fault> {
        let is_right = self.accepted == self.plans.len() || may_end_in_silence && self.accepted < self.plans.len();
        if is_right && self.connections.is_empty() {
            return Ok(());
        }
        Err(Fault::new(format!(
            "{} connections of {} clients, {} open",
            self.accepted,
            self.plans.len(),
            self.connections.len()
        )))
    }

    /// Does what can be done at once; whether there was anything.
    pub(crate) fn act(&mut self, endpoint: &mut Endpoint) -> Result<bool, Fault> {
        let mut acted = false;
        while let Some((handle, event)) = endpoint.poll_event() {
            acted = true;
            self.handle_event(endpoint, handle, &event)?;
        }
        Ok(acted)
    }

    fn handle_event(&mut self, endpoint: &mut Endpoint, handle: ConnectionHandle, event: &Event) -> Result<(), Fault> {
        if let Event::Connected { remote, .. } = event {
            return self.connected(endpoint, handle, *remote);
        }
        if let Event::Closed(reason) = event {
            return self.closed(handle, reason);
        }
        let Some(streams) = self.connections.get_mut(&handle) else {
            return Err(Fault::new(format!("the server got {event:?} of a connection that is not")));
        };
        let Some(mut connection) = endpoint.connection(handle) else {
            return Err(Fault::new("a connection of the server is gone without having closed"));
        };
        match *event {
            Event::StreamOpened(id) => {
                if id.opener() == Side::Server || streams.insert(id, Stream::Echo(Echo::default())).is_some() {
                    return Err(Fault::new(format!("a client opened {id:?}")));
                }
                go_on(streams, &mut connection, id)
            }
            Event::StreamReadable(id) | Event::StreamWritable(id) => go_on(streams, &mut connection, id),
            Event::StreamStopped(id, code) => {
                if let Some(Stream::Echo(echo)) = streams.get_mut(&id) {
                    echo.sent_all = true;
                    echo.pending.clear();
                    echo.pending_len = 0;
                    connection.reset(id, code);
                }
                go_on(streams, &mut connection, id)
            }
            _ => Ok(()),
        }
    }

    /// A client came: its streams are opened to it.
    fn connected(
        &mut self,
        endpoint: &mut Endpoint,
        handle: ConnectionHandle,
        remote: SocketAddr,
    ) -> Result<(), Fault> {
        let place = match remote.ip() {
            IpAddr::V4(ip) => usize::from(ip.octets()[3]).checked_sub(1),
            IpAddr::V6(_) => None,
        };
        let Some((place, plan)) = place.and_then(|place| Some((place, self.plans.get(place)?))) else {
            return Err(Fault::new(format!("a client came from {remote}")));
        };
        self.known.insert(place);
        let mut streams = BTreeMap::new();
        self.accepted += 1;
        let Some(mut connection) = endpoint.connection(handle) else {
            return Err(Fault::new("a connection is gone when it is reported"));
        };
        for size in &plan.pushes {
            let id = connection.open().map_err(|error| Fault::new(format!("the server cannot open: {error}")))?;
            streams.insert(id, Stream::Push { size: *size, written: 0, finished: false });
            go_on(&mut streams, &mut connection, id)?;
        }
        match self.connections.insert(handle, streams) {
            None => Ok(()),
            Some(_) => Err(Fault::new("a connection was reported twice")),
        }
    }

    /// A client is gone. That it said so may have been lost.
    fn closed(&mut self, handle: ConnectionHandle, reason: &CloseReason) -> Result<(), Fault> {
        let is_expected = match reason {
            CloseReason::Peer { code, application, .. } => *code == CLOSE_CODE && *application,
            CloseReason::IdleTimeout | CloseReason::Reset => true,
            // The client did not need the server's last packet of the handshake to close, if a copy of its first came late.
            CloseReason::HandshakeTimeout => !self.connections.contains_key(&handle),
            _ => false,
        };
        self.connections.remove(&handle);
        if is_expected { Ok(()) } else { Err(Fault::new(format!("the server's connection closed: {reason}"))) }
    }
}

/// Reads and writes on one stream until it can go no further.
fn go_on(
    streams: &mut BTreeMap<StreamId, Stream>,
    connection: &mut ConnectionRef<'_>,
    id: StreamId,
) -> Result<(), Fault> {
    match streams.get_mut(&id) {
        None => Ok(()),
        Some(Stream::Push { size, written, finished }) => push(connection, id, *size, written, finished),
        Some(Stream::Echo(echo)) => {
            // What is written back makes room to read on.
            while echo.read(connection, id) | echo.write(connection, id)? {}
            Ok(())
        }
    }
}

fn push(
    connection: &mut ConnectionRef<'_>,
    id: StreamId,
    size: u64,
    written: &mut u64,
    finished: &mut bool,
) -> Result<(), Fault> {
    let fault = |error: WriteError| Fault::new(format!("the server cannot write {id:?}: {error}"));
    while *written < size {
        let len = (size - *written).min(WRITE_MAX) as usize;
        let mut data = Pattern::new(id.0).bytes(*written, len);
        match connection.write(id, &mut data).map_err(fault)? {
            0 => return Ok(()),
            taken => *written += taken as u64,
        }
    }
    if !*finished {
        *finished = true;
        connection.finish(id).map_err(fault)?;
    }
    match connection.read(id, READ_MAX) {
        Read::Blocked | Read::Finished => Ok(()),
        other => Err(Fault::new(format!("{id:?} of the server gave {other:?}"))),
    }
}

impl Echo {
    /// Reads until nothing is there or enough waits to be written; whether anything came.
    fn read(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) -> bool {
        let mut came = false;
        while !self.read_all && self.pending_len < ECHO_MAX {
            match connection.read(id, READ_MAX) {
                Read::Blocked => return came,
                Read::Data(data) => {
                    // After the client stopped the echo, the rest is read for its own sake.
                    if !self.sent_all {
                        self.pending_len += data.len();
                        self.pending.push_back(data);
                    }
                }
                Read::Finished => self.read_all = true,
                Read::Reset(code) => {
                    self.read_all = true;
                    self.sent_all = true;
                    self.pending.clear();
                    self.pending_len = 0;
                    connection.reset(id, code);
                }
            }
            came = true;
        }
        came
    }

    /// Writes back what is taken; whether anything was.
    fn write(&mut self, connection: &mut ConnectionRef<'_>, id: StreamId) -> Result<bool, Fault> {
        let mut wrote = false;
        while !self.sent_all {
            let outcome = match self.pending.front_mut() {
                Some(data) => connection.write(id, data),
                None if self.read_all => {
                    self.sent_all = true;
                    connection.finish(id).map(|()| 0)
                }
                None => return Ok(wrote),
            };
            match outcome {
                // Full, or stopped: an event follows.
                Ok(0) | Err(WriteError::Stopped(_)) => return Ok(wrote),
                Ok(taken) => self.pending_len -= taken,
                Err(error) => return Err(Fault::new(format!("the server cannot echo {id:?}: {error}"))),
            }
            wrote = true;
            if self.pending.front().is_some_and(Bytes::is_empty) {
                self.pending.pop_front();
            }
        }
        Ok(wrote)
    }
}
