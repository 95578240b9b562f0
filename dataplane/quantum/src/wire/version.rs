//! Version negotiation: what a packet of another version is answered with.
//!
//! The answer is one header, so that it is never longer than what it answers: a packet of any version has at least one.

use crate::Guuid;
use crate::wire::header::{HEADER_LEN, HeaderError, MAGIC, VERSION};

/// Bytes of a version negotiation packet.
pub const VERSION_NEGOTIATION_LEN: usize = HEADER_LEN;

/// What a version negotiation packet says. It is not authenticated: a client heeds it only before it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionNegotiation {
    /// The connection, copied from the packet that it answers.
    pub guuid: Guuid,
    /// The sequence number, copied from the packet that it answers.
    pub sequence: u32,
    /// Bit `n` is set if the sender speaks version `n`.
    pub versions: u32,
}

impl VersionNegotiation {
    /// Whether the sender speaks `version`.
    pub const fn supports(&self, version: u8) -> bool {
        version < 32 && self.versions >> version & 1 == 1
    }
}

/// Writes the answer to `trigger`, a packet of another version, to the front of `out` and gives its length. `None` if there is
/// none: `trigger` is no packet, is itself a version negotiation (two endpoints would answer each other for ever) or is of
/// this version.
///
/// # Panics
/// If `out` is shorter than [`VERSION_NEGOTIATION_LEN`].
pub fn encode_version_negotiation(trigger: &[u8], out: &mut [u8]) -> Option<usize> {
    let trigger = trigger.first_chunk::<HEADER_LEN>()?;
    let version = trigger[4] & 0xf;
    if trigger[..4] != MAGIC || version == 0 || version == VERSION || trigger[6..22] == [0; 16] {
        return None;
    }
    let out = &mut out[..VERSION_NEGOTIATION_LEN];
    out.fill(0);
    out[..4].copy_from_slice(&MAGIC);
    out[6..26].copy_from_slice(&trigger[6..26]);
    out[26..30].copy_from_slice(&(1_u32 << VERSION).to_be_bytes());
    Some(VERSION_NEGOTIATION_LEN)
}

/// Decodes a version negotiation packet: a segment for which [`Header::decode`](crate::wire::Header::decode) gives
/// `HeaderError::Version(0)`.
///
/// # Errors
/// [`HeaderError`]: it is none.
pub fn decode_version_negotiation(segment: &[u8]) -> Result<VersionNegotiation, HeaderError> {
    let bytes = segment.first_chunk::<HEADER_LEN>().ok_or(HeaderError::Short)?;
    let [m0, m1, m2, m3, version, flags, guuid @ .., s0, s1, s2, s3, v0, v1, v2, v3, l0, l1] = *bytes;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(HeaderError::Magic);
    }
    if version != 0 {
        return Err(HeaderError::Version(version & 0xf));
    }
    if segment.len() != VERSION_NEGOTIATION_LEN || flags != 0 || [l0, l1] != [0, 0] {
        return Err(HeaderError::Lengths);
    }
    let guuid = Guuid(guuid);
    if guuid.is_nil() {
        return Err(HeaderError::NilGuuid);
    }
    let versions = u32::from_be_bytes([v0, v1, v2, v3]);
    Ok(VersionNegotiation { guuid, sequence: u32::from_be_bytes([s0, s1, s2, s3]), versions })
}
