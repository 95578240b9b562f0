//! The endpoint: all connections of one socket.

mod accept;
mod handle;
mod recent;
mod slots;
mod stateless;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::connection::{Arrival, Connection, ConnectionId, Start, Verdict};
use crate::crypto::cookie::CookieKey;
use crate::crypto::session::{Provider, tls_provider};
use crate::wire::{Header, HeaderError, decode_version_negotiation};
use crate::{ConnectOptions, EndpointConfig, EndpointStats, Event, Observer, Side, Time, Timings};

pub use handle::{ConnectionRef, OpenError, Read, WriteError};
use recent::RecentIds;
use slots::Slots;
use stateless::Stateless;

/// A UDP payload that came in: one packet, or several of equal size (the last may be shorter) if the kernel merged them.
#[derive(Debug)]
pub struct Received<'a> {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it came to, where the socket tells.
    pub local: Option<IpAddr>,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// Size of each segment (`UDP_GRO`); the length of `data` if it is one packet.
    pub segment_size: usize,
    /// The payload. It is decrypted in place.
    pub data: &'a mut [u8],
}

/// A UDP payload to send: `len` bytes of the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub remote: SocketAddr,
    /// From which local address, if it matters.
    pub local: Option<IpAddr>,
    /// Bytes of the buffer in use.
    pub len: usize,
    /// Size of each packet in the buffer, the last may be shorter (`UDP_SEGMENT`). Equal to `len` for one packet.
    pub segment_size: usize,
    /// The two ECN bits to set.
    pub ecn: u8,
}

/// Names a connection of an endpoint. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionHandle(pub u64);

/// Why a connection could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// `server_name` is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The id is one of a connection that exists.
    #[error("the id is in use")]
    GuuidInUse,
    /// The endpoint has as many connections as it may have.
    #[error("the endpoint has as many connections as its limit allows")]
    TooManyConnections,
    /// The TLS configuration cannot be used (TLS 1.3 is needed).
    #[error("TLS: {0}")]
    Tls(String),
}

/// Where a packet came from, and how.
#[derive(Clone, Copy, Debug)]
struct Source {
    remote: SocketAddr,
    local: Option<IpAddr>,
    ecn: u8,
}

/// Who is told of what connections do.
#[derive(Default)]
struct Told {
    observer: Option<Arc<dyn Observer>>,
    timings: Arc<Timings>,
}

/// All connections of one socket. One thread drives it.
pub struct Endpoint {
    config: Arc<EndpointConfig>,
    provider: Box<dyn Provider>,
    rng: StdRng,
    slots: Slots,
    /// When connections want the time told, or earlier: one entry for each that is scheduled.
    timers: BTreeSet<(Time, ConnectionHandle)>,
    /// Those whose time has come; empty between calls.
    due: Vec<ConnectionHandle>,
    /// Connections that may have something to send, in turn.
    transmitting: VecDeque<ConnectionHandle>,
    /// Connections that may have events.
    eventful: VecDeque<ConnectionHandle>,
    stateless: Stateless,
    recent: RecentIds,
    cookies: CookieKey,
    told: Told,
    stats: EndpointStats,
    /// The latest time that was told.
    now: Time,
    /// No connection is accepted or made any more.
    is_closed: bool,
}

impl Endpoint {
    /// An endpoint without connections. `seed` feeds all of its randomness.
    pub fn new(config: Arc<EndpointConfig>, seed: [u8; 32]) -> Self {
        let provider = tls_provider(config.server.as_ref(), config.security.early_data);
        Self::with_provider(config, seed, provider)
    }

    /// An endpoint whose handshakes and keys are made by `provider`, for simulations. [`new`](Self::new) uses TLS 1.3.
    pub fn with_provider(config: Arc<EndpointConfig>, seed: [u8; 32], provider: Box<dyn Provider>) -> Self {
        Self {
            cookies: CookieKey::new(&config.node_key),
            config,
            provider,
            rng: StdRng::from_seed(seed),
            slots: Slots::default(),
            timers: BTreeSet::new(),
            due: Vec::new(),
            transmitting: VecDeque::new(),
            eventful: VecDeque::new(),
            stateless: Stateless::default(),
            recent: RecentIds::default(),
            told: Told::default(),
            stats: EndpointStats::default(),
            now: Time::ZERO,
            is_closed: false,
        }
    }

    /// Has connections that begin from here on observed.
    pub fn observe(&mut self, observer: Arc<dyn Observer>) {
        self.told.observer = Some(observer);
    }

    fn observe_connection(&self, now: Time, connection: &mut Connection) {
        let id = connection.id();
        let log = self.told.observer.as_ref().and_then(|observer| observer.open(id.guuid, id.side));
        connection.observe(now, log, &self.told.timings);
    }

    /// Starts a connection. [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// See [`ConnectError`].
    #[expect(clippy::needless_pass_by_value, reason = "an id is for one connection")]
    pub fn connect(&mut self, now: Time, options: ConnectOptions) -> Result<ConnectionHandle, ConnectError> {
        self.now = self.now.max(now);
        if self.is_closed || self.slots.len() >= self.config.connections_max {
            return Err(ConnectError::TooManyConnections);
        }
        if options.guuid.is_nil() || self.slots.find(options.guuid).is_some() {
            return Err(ConnectError::GuuidInUse);
        }
        let parameters = crate::params::TransportParameters::local(&self.config, None).encode();
        let start = Start {
            id: ConnectionId { guuid: options.guuid, side: Side::Client },
            remote: options.remote,
            local: None,
            validated: true,
            initial_keys: self.provider.initial_keys(options.guuid, Side::Client),
            session: self.provider.connect(&options, parameters)?,
            seed: self.rng.next_u64(),
        };
        let mut connection = Connection::new(now, &self.config, start);
        self.observe_connection(now, &mut connection);
        let handle = self.slots.insert(connection);
        self.touch(handle);
        Ok(handle)
    }

    /// Takes a datagram in.
    pub fn handle_datagram(&mut self, now: Time, received: Received<'_>) {
        self.now = self.now.max(now);
        let Received { remote, local, ecn, segment_size, data } = received;
        let source = Source { remote, local, ecn };
        for segment in data.chunks_mut(segment_size.max(1)) {
            self.handle_segment(now, source, segment);
        }
    }

    fn handle_segment(&mut self, now: Time, source: Source, segment: &mut [u8]) {
        let (header, blocks) = match Header::decode(segment) {
            Ok(decoded) => decoded,
            Err(HeaderError::Version(version)) => {
                self.stats.wrong_version += 1;
                self.on_other_version(now, source, version, segment);
                return;
            }
            Err(_) => {
                self.stats.malformed += 1;
                return;
            }
        };
        let Source { remote, local, ecn } = source;
        let arrival = Arrival { header, blocks, remote, local, ecn };
        let Some(handle) = self.slots.find(header.guuid) else {
            self.on_unknown(now, source, &arrival, segment);
            return;
        };
        let Some(connection) = self.slots.get_mut(handle) else { return };
        if !header.epoch.is_one_rtt() && source.remote != connection.remote() {
            // A handshake stays where it began: a copied SYN from elsewhere changes nothing.
            self.stats.unknown += 1;
            return;
        }
        match connection.handle_packet(now, &arrival, segment) {
            Verdict::Taken => self.touch(handle),
            Verdict::Duplicate => self.stats.duplicates += 1,
            Verdict::Unauthentic => self.stats.unauthenticated += 1,
            Verdict::Dropped => self.stats.dropped += 1,
        }
    }

    fn on_other_version(&mut self, now: Time, source: Source, version: u8, segment: &[u8]) {
        if version != 0 {
            if self.provider.accepts() && !self.is_closed {
                self.stateless.negotiate_version(now, (source.remote, source.local), segment);
            }
        } else if let Ok(negotiation) = decode_version_negotiation(segment)
            && let Some(handle) = self.slots.find(negotiation.guuid)
            && let Some(connection) = self.slots.get_mut(handle)
            && connection.remote() == source.remote
        {
            connection.on_version_negotiation(&negotiation);
            self.touch(handle);
        }
    }

    /// The host at `remote` says (ICMP destination unreachable, code port) that nothing listens there. `quoted` is the front of
    /// the payload that it refused.
    pub fn handle_unreachable(&mut self, now: Time, remote: SocketAddr, quoted: &[u8]) {
        self.now = self.now.max(now);
        let Some(guuid) = Header::peek_guuid(quoted) else { return };
        let sequence = quoted.get(22..26).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let (Some(sequence), Some(handle)) = (sequence, self.slots.find(guuid)) else { return };
        if let Some(connection) = self.slots.get_mut(handle).filter(|connection| connection.remote() == remote) {
            connection.on_unreachable(now, sequence);
            self.touch(handle);
        }
    }

    /// Does what is due. To be called when the time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = self.now.max(now);
        let mut due = std::mem::take(&mut self.due);
        while let Some(&(at, handle)) = self.timers.first().filter(|entry| entry.0 <= now) {
            self.timers.remove(&(at, handle));
            if let Some(slot) = self.slots.slot(handle) {
                slot.scheduled = None;
                due.push(handle);
            }
        }
        for handle in due.drain(..) {
            if let Some(connection) = self.slots.get_mut(handle) {
                connection.handle_timeout(now);
            }
            self.touch(handle);
        }
        self.due = due;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next, for timers and pacing alike.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        loop {
            let &(at, handle) = self.timers.first()?;
            let slot = self.slots.slot(handle).expect("a connection takes its timer with it");
            let actual = slot.connection.poll_timeout();
            if actual.is_some_and(|actual| actual <= at) {
                return Some(at);
            }
            self.timers.remove(&(at, handle));
            slot.scheduled = actual;
            if let Some(actual) = actual {
                self.timers.insert((actual, handle));
            }
        }
    }

    /// Fills `buf` with the next packets to one peer. To be called until it gives `None`. `buf` holds at least
    /// `segments_max` packets of the largest size of [`PathConfig`](crate::PathConfig).
    pub fn poll_transmit(&mut self, now: Time, buf: &mut [u8]) -> Option<Transmit> {
        self.now = self.now.max(now);
        if let Some(transmit) = self.stateless.poll_transmit(buf) {
            return Some(transmit);
        }
        while let Some(handle) = self.transmitting.pop_front() {
            let Some(slot) = self.slots.slot(handle) else { continue };
            if let Some(transmit) = slot.connection.poll_transmit(now, buf) {
                self.transmitting.push_back(handle);
                return Some(transmit);
            }
            slot.wants_transmit = false;
            slot.account(&mut self.stats.traffic);
            self.schedule(handle);
        }
        None
    }

    /// The next thing that the application should know. To be called until it gives `None`.
    pub fn poll_event(&mut self) -> Option<(ConnectionHandle, Event)> {
        while let Some(&handle) = self.eventful.front() {
            if let Some(slot) = self.slots.slot(handle) {
                if let Some(event) = slot.connection.poll_event() {
                    return Some((handle, event));
                }
                slot.has_events = false;
                if slot.connection.is_closed() {
                    self.forget(handle);
                }
            }
            self.eventful.pop_front();
        }
        None
    }

    fn forget(&mut self, handle: ConnectionHandle) {
        let Some(mut slot) = self.slots.remove(handle) else { return };
        slot.retire(&mut self.stats.traffic);
        if let Some(at) = slot.scheduled {
            self.timers.remove(&(at, handle));
        }
        if slot.connection.id().side == Side::Server {
            self.recent.insert(self.now, slot.connection.id().guuid);
        }
    }

    /// The connection of that name, if it still exists.
    pub fn connection(&mut self, handle: ConnectionHandle) -> Option<ConnectionRef<'_>> {
        self.slots.get(handle)?;
        Some(ConnectionRef::new(self, handle))
    }

    /// Closes every connection with the application's `code` and accepts no more.
    pub fn close(&mut self, now: Time, code: u64, reason: &[u8]) {
        self.now = self.now.max(now);
        self.is_closed = true;
        for handle in self.slots.handles() {
            if let Some(connection) = self.slots.get_mut(handle) {
                connection.close(now, code, reason);
            }
            self.touch(handle);
        }
    }

    /// Whether nothing is left: no connection, closing ones included.
    pub fn is_idle(&self) -> bool {
        self.slots.len() == 0 && self.stateless.is_empty()
    }

    /// Counters.
    pub fn stats(&self) -> EndpointStats {
        let (connections, handshakes) = (self.slots.len() as u64, self.slots.half_open() as u64);
        EndpointStats { connections, handshakes, ..self.stats.clone() }
    }

    /// How long things take on all connections that there were.
    pub fn timings(&self) -> &Arc<Timings> {
        &self.told.timings
    }

    /// Something happened to the connection: it may have events, or something to send, and wants other timeouts.
    fn touch(&mut self, handle: ConnectionHandle) {
        let Some(slot) = self.slots.slot(handle) else { return };
        if !std::mem::replace(&mut slot.wants_transmit, true) {
            self.transmitting.push_back(handle);
        }
        if !std::mem::replace(&mut slot.has_events, true) {
            self.eventful.push_back(handle);
        }
        if slot.is_half_open && slot.connection.is_open() {
            self.slots.on_handshake_over(handle);
        }
        self.schedule(handle);
    }

    fn schedule(&mut self, handle: ConnectionHandle) {
        let Some(slot) = self.slots.slot(handle) else { return };
        let Some(at) = slot.connection.poll_timeout() else { return };
        if slot.scheduled.is_some_and(|scheduled| scheduled <= at) {
            return;
        }
        if let Some(later) = slot.scheduled.replace(at) {
            self.timers.remove(&(later, handle));
        }
        self.timers.insert((at, handle));
    }
}

#[cfg(test)]
mod tests;
