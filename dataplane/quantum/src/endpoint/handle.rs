//! A connection in the application's hands.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{ConnectionHandle, Endpoint};
use crate::connection::Connection;
use crate::wire::varint::VARINT_MAX;
use crate::{ConnectionStats, DatagramError, Guuid, Priority, Side, StreamId, Time};

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

/// A connection, to be used by the application.
pub struct ConnectionRef<'a> {
    endpoint: &'a mut Endpoint,
    handle: ConnectionHandle,
}

impl<'a> ConnectionRef<'a> {
    /// The connection of that name, which exists.
    pub(super) fn new(endpoint: &'a mut Endpoint, handle: ConnectionHandle) -> Self {
        Self { endpoint, handle }
    }

    fn get(&self) -> &Connection {
        self.endpoint.slots.get(self.handle).expect("a ConnectionRef is only made of a connection that exists")
    }

    fn get_mut(&mut self) -> &mut Connection {
        self.endpoint.slots.get_mut(self.handle).expect("a ConnectionRef is only made of a connection that exists")
    }

    /// Which end of the connection this is.
    pub fn side(&self) -> Side {
        self.get().id().side
    }

    /// The connection's id on the wire.
    pub fn guuid(&self) -> Guuid {
        self.get().id().guuid
    }

    /// Opens a stream: the next one of this side.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self) -> Result<StreamId, OpenError> {
        let connection = self.get_mut();
        if !connection.is_usable() {
            return Err(OpenError::Closed);
        }
        connection.streams().open()
    }

    /// Takes as much of `data` as the stream's send buffer has room for and leaves the rest. Gives the bytes taken; zero:
    /// [`Event::StreamWritable`](crate::Event::StreamWritable) follows.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write(&mut self, id: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        self.get_mut().streams().write(id, data)
    }

    /// Ends this side's direction after what has been written.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        self.get_mut().streams().finish(id)
    }

    /// Abandons this side's direction. Does nothing if it is over. A code beyond 2^62 - 1 becomes that.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        self.get_mut().streams().reset(id, code.min(VARINT_MAX));
    }

    /// Asks the peer to stop sending, and drops what still comes. Does nothing if that direction is over. A code
    /// beyond 2^62 - 1 becomes that.
    pub fn stop(&mut self, id: StreamId, code: u64) {
        self.get_mut().streams().stop(id, code.min(VARINT_MAX));
    }

    /// Whether forward error correction, if the connection has it, is to protect what is sent on the stream from here on. It
    /// does unless told otherwise; bulk that nobody waits for can do without.
    pub fn protect(&mut self, id: StreamId, protected: bool) {
        self.get_mut().streams().protect(id, protected);
    }

    /// Where the stream stands among those of this side that want to send. Does nothing if its sending is over.
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) {
        self.get_mut().streams().set_priority(id, priority);
    }

    /// Bytes of a datagram that can be sent at the moment, at most; none if the peer takes no datagrams. It changes with the
    /// path's.
    pub fn datagram_size_max(&self) -> Option<usize> {
        self.get().datagram_size_max()
    }

    /// Sends a datagram, once and unreliably (RFC 9221), within what congestion control and pacing let go. If those that wait
    /// have no room for it, the oldest is dropped.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn send_datagram(&mut self, data: Bytes) -> Result<(), DatagramError> {
        self.get_mut().send_datagram(data)
    }

    /// The next datagram that came. Of those that are not taken in time the oldest are dropped. After `None`,
    /// [`Event::DatagramReceived`](crate::Event::DatagramReceived) follows.
    pub fn recv_datagram(&mut self) -> Option<Bytes> {
        self.get_mut().recv_datagram()
    }

    /// Reads at most `max` bytes in order. What is read is credited to the peer. What a peer had sent in order before its
    /// application closed the connection can be read for a short while after [`Event::Closed`](crate::Event::Closed).
    pub fn read(&mut self, id: StreamId, max: usize) -> Read {
        self.get_mut().streams().read(id, max)
    }

    /// Closes the connection with the application's code. [`Event::Closed`](crate::Event::Closed) follows at once.
    pub fn close(&mut self, now: Time, code: u64, reason: &[u8]) {
        self.get_mut().close(now, code, reason);
    }

    /// Where the peer is, as far as that is proved.
    pub fn remote(&self) -> SocketAddr {
        self.get().remote()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> ConnectionStats {
        self.get().stats()
    }
}

impl Drop for ConnectionRef<'_> {
    fn drop(&mut self) {
        self.endpoint.touch(self.handle);
    }
}
