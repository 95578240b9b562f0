//! Faults of the peer and the ends of connections.

use std::fmt;

use bytes::Bytes;

use crate::wire::VERSION;

/// Codes of transport errors, as `CONNECTION_CLOSE` carries them (RFC 9000 section 20.1, reduced to what exists here).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum TransportErrorCode {
    /// Closed without an error.
    NoError = 0x0,
    /// The sender of the code failed internally.
    Internal = 0x1,
    /// The server takes no more connections.
    ConnectionRefused = 0x2,
    /// More data than credit was given for.
    FlowControl = 0x3,
    /// More streams than were allowed.
    StreamLimit = 0x4,
    /// A frame for a stream in a state that does not allow it.
    StreamState = 0x5,
    /// A stream's final size changed.
    FinalSize = 0x6,
    /// A frame that cannot be decoded.
    FrameEncoding = 0x7,
    /// Transport parameters that are absent or absurd.
    TransportParameter = 0x8,
    /// A violation that no other code names.
    ProtocolViolation = 0xa,
    /// More handshake data than is buffered.
    CryptoBufferExceeded = 0xd,
    /// A key update that was not allowed, or not followed.
    KeyUpdate = 0xe,
    /// A key has been used as often as it may be.
    AeadLimitReached = 0xf,
    /// A TLS alert; the alert's number is added to the code on the wire.
    Crypto = 0x100,
}

/// A fault of the peer, or one found on its behalf, that ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {reason}")]
pub struct TransportError {
    /// What kind of fault.
    pub code: TransportErrorCode,
    /// What it was, for people.
    pub reason: &'static str,
}

impl TransportError {
    /// A fault of kind `code`, explained by `reason`.
    pub const fn new(code: TransportErrorCode, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This side closed it, with the application's code.
    Local {
        /// The application's code.
        code: u64,
    },
    /// The peer closed it.
    Peer {
        /// The peer's code: the application's, or a [`TransportErrorCode`].
        code: u64,
        /// Whether the peer's application closed it, rather than its transport.
        application: bool,
        /// The peer's words, at most 256 bytes, not necessarily UTF-8.
        reason: Bytes,
    },
    /// The peer broke the protocol, or TLS failed (a certificate that does not verify, for instance).
    Transport {
        /// A [`TransportErrorCode`], the alert's number added for [`TransportErrorCode::Crypto`].
        code: u64,
        /// What happened, for people.
        reason: String,
    },
    /// Nothing came from the peer for the idle timeout.
    IdleTimeout,
    /// The peer's host says that nothing listens at its port (any more), and the peer itself says nothing.
    Unreachable,
    /// The handshake did not end in time: nobody answers at that address, or UDP is blocked on the way.
    HandshakeTimeout,
    /// The peer does not know the connection any more (a stateless reset): it restarted, for instance.
    Reset,
    /// The peer speaks other versions of the protocol only.
    VersionMismatch {
        /// Bit `n` is set if the peer speaks version `n`. It is what the network said: nothing proves it.
        versions: u32,
    },
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { code } => write!(f, "closed here with code {code}"),
            Self::Peer { code, application, reason } => {
                let who = if *application { "application" } else { "transport" };
                write!(f, "closed by the peer's {who} with code {code}: {}", String::from_utf8_lossy(reason))
            }
            Self::Transport { code, reason } => write!(f, "transport error {code:#x}: {reason}"),
            Self::IdleTimeout => f.write_str("nothing came from the peer for the idle timeout"),
            Self::Unreachable => f.write_str("nothing listens at the peer's address (any more)"),
            Self::HandshakeTimeout => f.write_str("the handshake did not complete in time; is UDP open on the way?"),
            Self::Reset => f.write_str("the peer does not know the connection any more"),
            Self::VersionMismatch { versions } => {
                let spoken = (0..32).filter(|version| versions >> version & 1 == 1);
                let spoken: Vec<String> = spoken.map(|version: u32| version.to_string()).collect();
                let spoken = if spoken.is_empty() { "none".to_owned() } else { spoken.join(", ") };
                write!(f, "the peer speaks these versions of Quantum: {spoken}; this side speaks {VERSION}")
            }
        }
    }
}

impl From<TransportError> for CloseReason {
    fn from(error: TransportError) -> Self {
        Self::Transport { code: error.code as u64, reason: error.reason.to_owned() }
    }
}
