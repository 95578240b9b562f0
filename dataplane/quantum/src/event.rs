//! What the application hears from the core.

use std::net::SocketAddr;

use crate::{Alpn, CloseReason, Guuid, StreamId};

/// Something that happened on a connection. Events of one connection come in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The connection may be used though its handshake is not complete; [`Event::Connected`] or [`Event::Closed`] follows. Only with
    /// [`early_data`](crate::SecurityConfig::early_data). A client's streams go as early data until then: nothing proves
    /// that the server lives, and who copies the packets can send them again. A server's streams that are opened until then came as
    /// early data: nothing proves that the client sent them just now, so only what may happen twice may be done for them.
    Early {
        /// The connection's id, the same on both sides.
        guuid: Guuid,
        /// Where the peer is.
        remote: SocketAddr,
        /// The application protocol of the connection.
        alpn: Alpn,
    },
    /// The handshake is complete; streams may be opened and written. First event of a connection that succeeds, but for
    /// [`Event::Early`].
    Connected {
        /// The connection's id, the same on both sides.
        guuid: Guuid,
        /// Where the peer is.
        remote: SocketAddr,
        /// The application protocol that both sides agreed on.
        alpn: Alpn,
    },
    /// The peer opened a stream.
    StreamOpened(StreamId),
    /// There is data, an end or a reset to read on the stream. Comes again only after a read found nothing.
    StreamReadable(StreamId),
    /// A write that found the send buffer full can go on.
    StreamWritable(StreamId),
    /// All that was written to the stream and its end have been acknowledged.
    StreamDelivered(StreamId),
    /// The peer asks to stop sending on the stream, with its code; further writes fail.
    StreamStopped(StreamId, u64),
    /// The peer allows more streams; an open that was refused can be tried again.
    StreamsAvailable,
    /// There is a datagram to receive. Comes again only after a receive found nothing.
    DatagramReceived,
    /// The connection is over. Last event of a connection, the only one if it never connected.
    Closed(CloseReason),
}
