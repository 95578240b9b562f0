//! The messages between a shard and the control plane.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quantum::{Alpn, CloseReason, ConnectionStats, Guuid, Priority, StreamId};

/// A connection as both ends of the hand-off name it: unique among the connections of a shard for its whole life, never
/// reused. Connections that the control plane dials have the number it chose (odd), accepted ones the shard's (even).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey(pub u64);

/// From the shard to the control plane.
#[derive(Debug)]
pub enum ToControl {
    /// A connection can be used though its handshake goes on; [`Connected`](Self::Connected) or [`Closed`](Self::Closed) follows. See
    /// [`Event::Early`](quantum::Event::Early) for what is at stake.
    Early {
        /// Its name in all further messages.
        connection: ConnectionKey,
        /// Its id on the wire.
        guuid: Guuid,
        /// The peer's address.
        remote: SocketAddr,
        /// The application protocol.
        alpn: Alpn,
    },
    /// A connection is up: one that was dialled, or one that a client made.
    Connected {
        /// Its name in all further messages.
        connection: ConnectionKey,
        /// Its id on the wire.
        guuid: Guuid,
        /// The peer's address.
        remote: SocketAddr,
        /// The application protocol.
        alpn: Alpn,
        /// Bytes of a datagram that can be sent at most; none if the peer takes no datagrams.
        datagram_size_max: Option<usize>,
    },
    /// A connection is over, or could not be made. Its streams are over with it; nothing about it follows.
    Closed {
        /// Which one.
        connection: ConnectionKey,
        /// Why.
        reason: CloseReason,
        /// What it had done by then; none if it was never there.
        stats: Option<Box<ConnectionStats>>,
    },
    /// The peer opened a stream. The shard may send [`HANDOFF_WINDOW`](super::HANDOFF_WINDOW) bytes of it.
    Opened(ConnectionKey, StreamId),
    /// Bytes of a stream, in order. Their length is taken from the stream's hand-off credit.
    Data(ConnectionKey, StreamId, Bytes),
    /// The last bytes of a stream, if they are not with the control plane already, and the end of the peer's direction: nothing of
    /// it follows.
    Finished(ConnectionKey, StreamId, Bytes),
    /// The peer reset its direction, with its code; nothing of that direction follows.
    Reset(ConnectionKey, StreamId, u64),
    /// The peer wants no more of what this side sends, with its code.
    Stopped(ConnectionKey, StreamId, u64),
    /// All bytes and the end of this side's direction have been acknowledged by the peer.
    Delivered(ConnectionKey, StreamId),
    /// The core has taken so many of the stream's written bytes since it was last said: so many more may be written.
    Credit(ConnectionKey, StreamId, usize),
    /// The answer to [`ToShard::Stats`].
    Stats(ConnectionKey, Box<ConnectionStats>),
    /// A datagram of the peer.
    Datagram(ConnectionKey, Bytes),
}

/// From the control plane to the shard.
#[derive(Debug)]
pub enum ToShard {
    /// Make a connection.
    Connect {
        /// The name that the control plane gives it: odd, never used before on this shard.
        connection: ConnectionKey,
        /// Where to, and how the server proves who it is.
        target: Box<ConnectTarget>,
    },
    /// Open a stream. Ids are given in order by whoever opens, so the control plane knows the id beforehand. When the
    /// peer's stream limit is reached the shard keeps the request, and what is written to it, until there is room.
    Open(ConnectionKey, StreamId),
    /// Bytes to send on a stream: at most the credit that the control plane holds for it. None tell the peer of the stream.
    Data(ConnectionKey, StreamId, Bytes),
    /// The last bytes of a stream, if any, within the credit as those before; this side's direction ends after them.
    Finish(ConnectionKey, StreamId, Bytes),
    /// Abandon this side's direction, with a code.
    Reset(ConnectionKey, StreamId, u64),
    /// Ask the peer to stop sending, with a code; what still arrives is dropped.
    Stop(ConnectionKey, StreamId, u64),
    /// So many bytes of the stream have been consumed by the application.
    Credit(ConnectionKey, StreamId, usize),
    /// Close the connection, with a code and a reason for the peer.
    Close(ConnectionKey, u64, Bytes),
    /// Where the stream stands among those that want to send.
    Priority(ConnectionKey, StreamId, Priority),
    /// Whether forward error correction, where the connection has it, protects what is sent on the stream from here on.
    Protect(ConnectionKey, StreamId, bool),
    /// Send a datagram, once and unreliably. Whoever sends bounds how many are on their way.
    Datagram(ConnectionKey, Bytes),
    /// Ask for the connection's statistics.
    Stats(ConnectionKey),
    /// Accept nothing further, close every connection, then end the shard.
    Shutdown,
}

/// Where a connection goes.
#[derive(Debug, Clone)]
pub struct ConnectTarget {
    /// The server's address.
    pub remote: SocketAddr,
    /// The name that the server's certificate has to prove, for SNI.
    pub server_name: String,
    /// The application protocol to ask for.
    pub alpn: Alpn,
    /// How the server is verified.
    pub tls: Arc<rustls::ClientConfig>,
}
