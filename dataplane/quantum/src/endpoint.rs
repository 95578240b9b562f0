//! The endpoint: all connections of one socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::{CloseReason, ConnectOptions, ConnectionStats, EndpointConfig, EndpointStats, Event, Side, StreamId, Time};

/// A UDP payload that came in: one packet, or several of equal size (the last may be shorter) if the kernel merged them.
#[derive(Debug)]
pub struct Received<'a> {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it came to, where the socket tells.
    pub local: Option<IpAddr>,
    /// The two ECN bits of the IP header.
    pub ecn: u8,
    /// Size of each segment (UDP_GRO); the length of `data` if it is one packet.
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
    /// Size of each packet in the buffer, the last may be shorter (UDP_SEGMENT). Equal to `len` for one packet.
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
    /// The endpoint has as many connections as it may have.
    #[error("the endpoint has as many connections as its limit allows")]
    TooManyConnections,
    /// The TLS configuration cannot be used (TLS 1.3 is needed).
    #[error("TLS: {0}")]
    Tls(String),
}

/// All connections of one socket. One thread drives it.
pub struct Endpoint {}

/// What came of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes, in order, never empty.
    Data(Bytes),
    /// The peer ended the stream and everything has been read.
    Finished,
    /// Nothing yet; [`Event::StreamReadable`] follows.
    Blocked,
    /// The peer reset the stream, with its code.
    Reset(u64),
}

/// Why a stream cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer allows no more streams for the moment; [`Event::StreamsAvailable`] follows.
    #[error("the peer allows no more streams for the moment")]
    Blocked,
    /// The connection is closed or not connected.
    #[error("the connection is closed")]
    Closed,
}

/// Why a stream takes no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The peer asked to stop, with its code.
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u64),
    /// The stream does not exist, is finished or reset, or its connection is closed.
    #[error("the stream is closed")]
    Closed,
}

impl Endpoint {
    /// An endpoint without connections. `seed` feeds all of its randomness.
    pub fn new(config: Arc<EndpointConfig>, seed: [u8; 32]) -> Self {
        let _ = (config, seed);
        todo!()
    }

    /// Starts a connection. [`Event::Connected`] or [`Event::Closed`] follows.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&mut self, now: Time, options: ConnectOptions) -> Result<ConnectionHandle, ConnectError> {
        let _ = (now, options);
        todo!()
    }

    /// Takes a datagram in.
    pub fn handle_datagram(&mut self, now: Time, received: Received<'_>) {
        let _ = (now, received);
        todo!()
    }

    /// Does what is due. To be called when the time of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next, for timers and pacing alike.
    pub fn poll_timeout(&mut self) -> Option<Time> {
        todo!()
    }

    /// Fills `buf` with the next packets to one peer. To be called until it gives `None`. `buf` holds at least
    /// `segments_max * datagram_size` bytes.
    pub fn poll_transmit(&mut self, now: Time, buf: &mut [u8]) -> Option<Transmit> {
        let _ = (now, buf);
        todo!()
    }

    /// The next thing that the application should know. To be called until it gives `None`.
    pub fn poll_event(&mut self) -> Option<(ConnectionHandle, Event)> {
        todo!()
    }

    /// The connection of that name, if it still exists.
    pub fn connection(&mut self, handle: ConnectionHandle) -> Option<ConnectionRef<'_>> {
        let _ = handle;
        todo!()
    }

    /// Closes every connection with the application's `code` and accepts no more.
    pub fn close(&mut self, now: Time, code: u64, reason: &[u8]) {
        let _ = (now, code, reason);
        todo!()
    }

    /// Whether nothing is left: no connection, closing ones included.
    pub fn is_idle(&self) -> bool {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> EndpointStats {
        todo!()
    }
}

/// A connection, to be used by the application.
pub struct ConnectionRef<'a> {
    _endpoint: &'a mut Endpoint,
}

impl ConnectionRef<'_> {
    /// Which end of the connection this is.
    pub fn side(&self) -> Side {
        todo!()
    }

    /// Opens a stream: the next one of this side.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self) -> Result<StreamId, OpenError> {
        todo!()
    }

    /// Takes as much of `data` as the stream's send buffer has room for and leaves the rest. Gives the bytes taken; zero:
    /// [`Event::StreamWritable`] follows.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&mut self, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let _ = (id, data);
        todo!()
    }

    /// Ends this side's direction after what has been written.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let _ = id;
        todo!()
    }

    /// Abandons this side's direction. Does nothing if it is over.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        let _ = (id, code);
        todo!()
    }

    /// Asks the peer to stop sending, and drops what still comes. Does nothing if that direction is over.
    pub fn stop(&mut self, id: StreamId, code: u64) {
        let _ = (id, code);
        todo!()
    }

    /// Reads at most `max` bytes in order. What is read is credited to the peer.
    pub fn read(&mut self, id: StreamId, max: usize) -> Read {
        let _ = (id, max);
        todo!()
    }

    /// Closes the connection with the application's code. [`Event::Closed`] follows at once.
    pub fn close(&mut self, now: Time, code: u64, reason: &[u8]) {
        let _ = (now, code, reason);
        todo!()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> ConnectionStats {
        todo!()
    }
}

impl From<crate::TransportError> for CloseReason {
    fn from(error: crate::TransportError) -> Self {
        Self::Transport { code: error.code as u64, reason: error.reason.to_owned() }
    }
}
