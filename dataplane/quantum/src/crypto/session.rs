//! What the core needs of a handshake and of packet protection. TLS 1.3 is the implementation that leaves this crate.

use crate::wire::Epoch;
use crate::{Alpn, ConnectError, ConnectOptions, Guuid, Side};

/// Length of the tag that sealing adds to a payload, in bytes.
pub const TAG_LEN: usize = 16;

/// One direction of one epoch's packet protection: an AEAD with the packet number as nonce.
pub trait PacketKey: Send {
    /// Seals `payload`, whose last [`TAG_LEN`] bytes are room for the tag, with `header` as associated data.
    fn seal(&self, number: u64, header: &[u8], payload: &mut [u8]);

    /// Opens `payload` in place and gives the length of the plaintext; `None` if it is not authentic.
    fn open(&self, number: u64, header: &[u8], payload: &mut [u8]) -> Option<usize>;

    /// Packets that may be sealed before the key has to be changed: the AEAD's confidentiality limit.
    fn packets_max(&self) -> u64;

    /// Packets that may fail to open on a connection before it has to end: the AEAD's integrity limit.
    fn failures_max(&self) -> u64;
}

/// Gives the keys of one 1-RTT phase after the other (RFC 9001 section 6.1).
pub trait KeyUpdates: Send {
    /// Keys of the next phase.
    fn next_keys(&mut self) -> KeyPair;
}

/// Both directions of an epoch.
pub struct KeyPair {
    /// Seals what this side sends.
    pub local: Box<dyn PacketKey>,
    /// Opens what the peer sends.
    pub remote: Box<dyn PacketKey>,
}

/// Early data: what can be sent under the keys of an earlier session, before the handshake is complete (RFC 8446 section 2.3).
pub struct EarlyData {
    /// Seals what a client sends, and opens it on a server.
    pub key: Box<dyn PacketKey>,
    /// The application protocol of the connection.
    pub alpn: Alpn,
}

/// A handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionError {
    /// The TLS alert to send (RFC 8446 section 6), 0x50 `internal_error` if there is none.
    pub alert: u8,
    /// What went wrong, for people.
    pub reason: String,
}

/// The handshake of one connection.
pub trait Session: Send {
    /// Takes handshake bytes of the peer, in order.
    ///
    /// # Errors
    /// The handshake failed; the connection closes.
    fn read(&mut self, data: &[u8]) -> Result<(), SessionError>;

    /// Appends handshake bytes to `out`; they go into the epoch that was current. Keys mean that what follows goes into
    /// theirs. To be called until it appends nothing and gives no keys.
    fn write(&mut self, out: &mut Vec<u8>) -> Option<(Epoch, KeyPair)>;

    /// Whether the handshake goes on still.
    fn is_handshaking(&self) -> bool;

    /// The transport parameters of the peer, once they came.
    fn peer_parameters(&self) -> Option<Vec<u8>>;

    /// The application protocol, once it is agreed.
    fn alpn(&self) -> Option<Alpn>;

    /// What gives the keys of the 1-RTT phases after the first one; asked for once, when the handshake is complete. Without it
    /// a connection ends when its key has sealed all it may.
    fn key_updates(&mut self) -> Option<Box<dyn KeyUpdates>>;

    /// Early data, if there may be some: on a client from the beginning, if it remembers a session with the server; on a server
    /// once it has accepted it, which it does at most once for each session. The peer's parameters are known by then: a client has
    /// those of the session that it remembers.
    fn early_data(&mut self) -> Option<EarlyData> {
        None
    }

    /// Whether the server accepted early data; for a client whose handshake is complete.
    fn is_early_data_accepted(&self) -> bool {
        false
    }

    /// Whether the server has sent what a later connection can resume; for a client.
    fn has_ticket(&self) -> bool {
        false
    }
}

/// TLS 1.3: what [`Endpoint::new`](crate::Endpoint::new) uses. With `server` it accepts connections, with
/// `early_data` early ones too.
pub fn tls_provider(server: Option<&std::sync::Arc<rustls::ServerConfig>>, early_data: bool) -> Box<dyn Provider> {
    Box::new(super::tls::TlsProvider::new(server, early_data))
}

/// Makes handshakes and the keys of the first packets.
pub trait Provider: Send {
    /// Keys of epoch 0, which anyone who sees the id can derive; they protect against accidents, not attackers.
    fn initial_keys(&self, guuid: Guuid, side: Side) -> KeyPair;

    /// The client's side of a handshake.
    ///
    /// # Errors
    /// See [`ConnectError`].
    fn connect(&self, options: &ConnectOptions, parameters: Vec<u8>) -> Result<Box<dyn Session>, ConnectError>;

    /// Whether this endpoint accepts connections.
    fn accepts(&self) -> bool;

    /// The server's side of a handshake; `None` if this endpoint accepts no connections.
    fn accept(&self, parameters: Vec<u8>) -> Option<Box<dyn Session>>;
}
