//! The 16-byte id of everything: a UUIDv7 (RFC 9562).

/// A UUIDv7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Guuid(pub [u8; 16]);

/// Makes ids.
#[derive(Debug)]
pub struct GuuidGenerator {}

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct GuuidParseError;
