//! The small interface: dial or listen, then send and receive whole messages in order.
//!
//! All messages of a connection go over one stream, each behind its length (4 bytes, big-endian). The dialling side opens it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quantum::{Alpn, CongestionControl, CongestionStats, ConnectionStats, FecMode, Guuid};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use crate::connection::{Connection, ConnectionError, State};
use crate::endpoint::{ClientConfig, Endpoint, EndpointOptions, Listener, ServerConfig, resolve};
use crate::identity::Identity;
use crate::stream::{QuantumStream, ReceiveHalf, SendHalf, StreamError};
use crate::tls::Verify;

/// How long [`MessageConnection::close`] waits for the peer to acknowledge what was sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of [`dial`] and [`listen`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes kept for sending and resending, at most.
    pub send_window: usize,
    /// Bytes that the peer may send beyond what was received here.
    pub receive_window: u64,
    /// A sign of life is sent after so long without anything else.
    pub keepalive_interval: Duration,
    /// The connection ends when nothing came for so long.
    pub idle_timeout: Duration,
    /// Forward error correction of what is sent. Groups of a fixed size have 1 to [`MEMBERS_MAX`](FecMode::MEMBERS_MAX) packets
    /// and 1 to [`REPAIRS_MAX`](FecMode::REPAIRS_MAX) repair symbols.
    pub fec: FecMode,
    /// How much of what is sent may be on its way, and how fast it leaves.
    pub congestion: CongestionControl,
    /// Bytes of one message at most, in both directions.
    pub message_bytes_max: usize,
    /// How a dialled server is verified.
    pub verify: Verify,
}

impl Default for Config {
    fn default() -> Self {
        let protocol = quantum::EndpointConfig::default();
        Self {
            send_window: protocol.send_buffer_max,
            receive_window: protocol.stream_window,
            keepalive_interval: Duration::from_secs(10),
            idle_timeout: protocol.idle_timeout,
            fec: protocol.fec.mode,
            congestion: protocol.congestion,
            message_bytes_max: 16 << 20,
            verify: Verify::InsecureLoopback,
        }
    }
}

impl Config {
    fn options(&self) -> Result<EndpointOptions, MessageError> {
        if let FecMode::Fixed { members, repairs } = self.fec
            && !((1..=FecMode::MEMBERS_MAX).contains(&members) && (1..=FecMode::REPAIRS_MAX).contains(&repairs))
        {
            return Err(MessageError::Fec { members, repairs });
        }
        let mut options = EndpointOptions::default();
        options.protocol.send_buffer_max = self.send_window;
        options.protocol.stream_window = self.receive_window;
        options.protocol.connection_window = options.protocol.connection_window.max(self.receive_window);
        options.protocol.keepalive = Some(self.keepalive_interval);
        options.protocol.idle_timeout = self.idle_timeout;
        options.protocol.fec.mode = self.fec;
        options.protocol.congestion = self.congestion;
        Ok(options)
    }
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The network is not `quantum` or `udp`.
    #[error("unknown network {0:?}: use \"quantum\" or \"udp\"")]
    Network(String),
    /// No group of packets can be like that.
    #[error(
        "forward error correction cannot give {repairs} repair symbols to groups of {members} packets: 1 to {} packets get 1 to {}",
        FecMode::MEMBERS_MAX,
        FecMode::REPAIRS_MAX
    )]
    Fec {
        /// Packets of a group.
        members: u8,
        /// Repair symbols of each group.
        repairs: u8,
    },
    /// The connection could not be made or is over.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The stream that carries the messages is over.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A message is larger than allowed.
    #[error("a message of {0} bytes is larger than the limit of {1}")]
    TooLarge(usize, usize),
    /// Nothing came in time.
    #[error("no message came in time")]
    Timeout,
    /// The peer ended the stream in the middle of a message.
    #[error("the peer ended in the middle of a message")]
    Truncated,
    /// The server's identity cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The endpoint could not be started.
    #[error(transparent)]
    Endpoint(#[from] crate::endpoint::EndpointError),
}

fn check_network(network: &str) -> Result<(), MessageError> {
    match network {
        "quantum" | "udp" => Ok(()),
        _ => Err(MessageError::Network(network.to_owned())),
    }
}

/// Connects to `address` (`host:port`) with an endpoint of its own.
///
/// # Errors
/// See [`MessageError`].
pub async fn dial(network: &str, address: &str, config: &Config) -> Result<MessageConnection, MessageError> {
    check_network(network)?;
    let remote = resolve(address).await?;
    let client = ClientConfig { alpn: Alpn::Stream, ..ClientConfig::new(config.verify.clone()) }.named(address);
    let connection = Endpoint::client(&config.options()?)?.connect(remote, &client).await?;
    let mut stream = connection.open_stream()?;
    // The peer may be the one to speak first.
    stream.announce();
    Ok(MessageConnection::new(connection, stream, config.message_bytes_max))
}

/// Listens on a UDP address with that identity.
///
/// # Errors
/// See [`MessageError`].
pub fn listen(
    network: &str,
    address: SocketAddr,
    identity: &Identity,
    config: &Config,
) -> Result<MessageListener, MessageError> {
    check_network(network)?;
    let mut server = ServerConfig::new(identity)?;
    server.options = config.options()?;
    Ok(MessageListener { listener: Listener::bind(address, &server)?, message_bytes_max: config.message_bytes_max })
}

/// Gives out connections that carry messages.
#[derive(Debug)]
pub struct MessageListener {
    listener: Listener,
    message_bytes_max: usize,
}

impl MessageListener {
    /// The next connection; `None` once the endpoint has ended. The client's stream is waited for by the future that is
    /// given: to be awaited beside further accepts.
    pub async fn accept(&mut self) -> Option<impl Future<Output = Result<MessageConnection, MessageError>> + use<>> {
        let message_bytes_max = self.message_bytes_max;
        loop {
            let connection = self.listener.accept().await?;
            if connection.alpn() == Alpn::Stream {
                return Some(async move {
                    let stream = connection.accept_stream().await?;
                    Ok(MessageConnection::new(connection, stream, message_bytes_max))
                });
            }
            connection.close(0, b"only message streams are served here");
        }
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

#[derive(Debug)]
struct Reader {
    half: ReceiveHalf,
    // What of a message has come, kept when a receive is given up before its end.
    gathered: BytesMut,
}

/// A connection that carries messages, whole and in order, both ways.
#[derive(Debug)]
pub struct MessageConnection {
    connection: Connection,
    sender: Mutex<SendHalf>,
    reader: Mutex<Reader>,
    message_bytes_max: usize,
}

/// Bytes of a message's length.
const LENGTH_BYTES: usize = 4;

impl MessageConnection {
    pub(crate) fn new(connection: Connection, stream: QuantumStream, message_bytes_max: usize) -> Self {
        let (half, sender) = stream.into_split();
        let reader = Mutex::new(Reader { half, gathered: BytesMut::new() });
        Self { connection, sender: Mutex::new(sender), reader, message_bytes_max }
    }

    /// Sends a message, waiting while the peer or the network is slower. A send that is given up halfway breaks the
    /// connection's messages: the peer finds the next one malformed.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`], [`MessageError::Stream`].
    pub async fn send(&self, message: Bytes) -> Result<(), MessageError> {
        let len = u32::try_from(message.len()).ok().filter(|_| message.len() <= self.message_bytes_max);
        let len = len.ok_or(MessageError::TooLarge(message.len(), self.message_bytes_max))?;
        let mut sender = self.sender.lock().await;
        if message.len() <= 2048 {
            let mut framed = BytesMut::with_capacity(LENGTH_BYTES + message.len());
            framed.put_u32(len);
            framed.put_slice(&message);
            return Ok(sender.send_bytes(framed.freeze()).await?);
        }
        sender.send_bytes(Bytes::copy_from_slice(&len.to_be_bytes())).await?;
        Ok(sender.send_bytes(message).await?)
    }

    /// The next message; `None` once the peer has ended and everything was received.
    ///
    /// # Errors
    /// [`MessageError::TooLarge`], [`MessageError::Truncated`], [`MessageError::Io`].
    pub async fn receive(&self) -> Result<Option<Bytes>, MessageError> {
        let mut reader = self.reader.lock().await;
        let Reader { half, gathered } = &mut *reader;
        loop {
            if let Some(length) = gathered.first_chunk::<LENGTH_BYTES>() {
                let len = u32::from_be_bytes(*length) as usize;
                if len > self.message_bytes_max {
                    return Err(MessageError::TooLarge(len, self.message_bytes_max));
                }
                if gathered.len() >= LENGTH_BYTES + len {
                    let mut message = gathered.split_to(LENGTH_BYTES + len).freeze();
                    return Ok(Some(message.split_off(LENGTH_BYTES)));
                }
            }
            if half.read_buf(gathered).await? == 0 {
                return if gathered.is_empty() { Ok(None) } else { Err(MessageError::Truncated) };
            }
        }
    }

    /// The next message, if it comes within `limit`. What has come of a later one is kept.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`MessageError::Timeout`].
    pub async fn receive_timeout(&self, limit: Duration) -> Result<Option<Bytes>, MessageError> {
        tokio::time::timeout(limit, self.receive()).await.map_err(|_| MessageError::Timeout)?
    }

    /// Ends the connection once the peer has acknowledged what was sent, or after 5 s.
    pub async fn close(&self) {
        let mut sender = self.sender.lock().await;
        if sender.finish().is_ok() {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, sender.delivered()).await;
        }
        self.connection.close(0, b"");
    }

    /// What the connection does at the moment.
    pub fn state(&self) -> State {
        self.connection.state()
    }

    /// The connection's id, the same at both ends.
    pub fn guuid(&self) -> Guuid {
        self.connection.guuid()
    }

    /// The address that this side's socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.connection.local_addr()
    }

    /// The peer's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_addr()
    }

    /// What the connection has done and how its path looks.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn statistics(&self) -> Result<ConnectionStats, ConnectionError> {
        self.connection.statistics().await
    }

    /// What the congestion controller knows and allows.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn bbr_statistics(&self) -> Result<CongestionStats, ConnectionError> {
        self.connection.bbr_statistics().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_the_endpoint_and_impossible_groups_are_refused() {
        let of = |fec| Config { fec, congestion: CongestionControl::Cubic, ..Config::default() }.options();
        let adaptive = Config::default().options().unwrap().protocol;
        assert_eq!((adaptive.fec.mode, adaptive.congestion), (FecMode::Adaptive, CongestionControl::Bbr));
        for fec in
            [FecMode::Off, FecMode::Fixed { members: 10, repairs: 3 }, FecMode::Fixed { members: 192, repairs: 63 }]
        {
            let protocol = of(fec).unwrap().protocol;
            assert_eq!((protocol.fec.mode, protocol.congestion), (fec, CongestionControl::Cubic));
        }
        for (members, repairs) in [(0, 3), (193, 3), (10, 0), (10, 64)] {
            let error = of(FecMode::Fixed { members, repairs }).unwrap_err();
            assert!(error.to_string().contains("1 to 192 packets get 1 to 63"), "{error}");
        }
    }
}
