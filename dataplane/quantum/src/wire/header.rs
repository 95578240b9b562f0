//! The 32 bytes that every packet begins with, and the SACK blocks after them.

use std::ops::{BitOr, BitOrAssign};

use crate::Guuid;
use crate::wire::Epoch;

/// The first four bytes of every packet: `QUNT`.
pub const MAGIC: [u8; 4] = *b"QUNT";
/// The version of the protocol: the low four bits of the version byte.
pub const VERSION: u8 = 2;
/// Bytes of the header, without SACK blocks.
pub const HEADER_LEN: usize = 32;
/// Bytes of a SACK block.
pub const SACK_BLOCK_LEN: usize = 8;
/// SACK blocks of a packet at most.
pub const SACK_BLOCKS_MAX: usize = 8;

/// The flags of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A packet of the handshake.
    pub const SYN: Self = Self(0x01);
    /// The ack number is valid, and SACK block 0 is present.
    pub const ACK: Self = Self(0x02);
    /// The sender closes the connection.
    pub const FIN: Self = Self(0x04);
    /// The sender aborts the connection: sealed, or with a stateless reset token.
    pub const RST: Self = Self(0x08);
    /// The packet carries a repair frame.
    pub const FEC: Self = Self(0x10);
    /// A message ends in the packet.
    pub const PSH: Self = Self(0x20);
    /// The packet carries data of a stream of the latency class.
    pub const URG: Self = Self(0x40);
    /// The sender received a packet with a congestion mark.
    pub const ECE: Self = Self(0x80);

    /// The flags of that byte.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The byte on the wire.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the flags of `other`.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, rhs: Self) {
        self.insert(rhs);
    }
}

/// A range of received packet numbers, both ends included, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SackBlock {
    /// The smallest number.
    pub start: u32,
    /// The largest number.
    pub end: u32,
}

/// The SACK blocks of a packet: at most [`SACK_BLOCKS_MAX`], in the order of the wire (newest first).
#[derive(Clone, Copy, Debug, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; SACK_BLOCKS_MAX],
    len: u8,
}

impl SackBlocks {
    /// No blocks.
    pub const fn new() -> Self {
        Self { blocks: [SackBlock { start: 0, end: 0 }; SACK_BLOCKS_MAX], len: 0 }
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..self.len()]
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the wire.
    pub const fn encoded_len(&self) -> usize {
        self.len() * SACK_BLOCK_LEN
    }

    /// Adds a block after the others. Gives `false` and drops it if there are [`SACK_BLOCKS_MAX`].
    #[must_use]
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else { return false };
        *slot = block;
        self.len += 1;
        true
    }

    /// Writes the blocks to the front of `out` and gives their length.
    ///
    /// # Panics
    /// If `out` is shorter than [`encoded_len`](Self::encoded_len).
    pub fn encode(&self, out: &mut [u8]) -> usize {
        let (chunks, _) = out[..self.encoded_len()].as_chunks_mut::<SACK_BLOCK_LEN>();
        for (chunk, block) in chunks.iter_mut().zip(self.as_slice()) {
            chunk[..4].copy_from_slice(&block.start.to_be_bytes());
            chunk[4..].copy_from_slice(&block.end.to_be_bytes());
        }
        self.encoded_len()
    }

    /// Takes the blocks of a segment; `false` if they are not whole, or too many.
    #[inline]
    fn read(&mut self, bytes: &[u8]) -> bool {
        let (chunks, rest) = bytes.as_chunks::<SACK_BLOCK_LEN>();
        if !rest.is_empty() || chunks.len() > SACK_BLOCKS_MAX {
            return false;
        }
        for (block, &[s0, s1, s2, s3, e0, e1, e2, e3]) in self.blocks.iter_mut().zip(chunks) {
            *block =
                SackBlock { start: u32::from_be_bytes([s0, s1, s2, s3]), end: u32::from_be_bytes([e0, e1, e2, e3]) };
        }
        self.len = chunks.len() as u8;
        true
    }
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

/// The header of a packet. Its numbers are big-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version of the protocol, four bits; [`VERSION`] in what this crate sends and decodes.
    pub version: u8,
    /// The keys that protect the packet.
    pub epoch: Epoch,
    /// What kind of packet it is.
    pub flags: Flags,
    /// The connection.
    pub guuid: Guuid,
    /// Low 32 bits of the packet number.
    pub sequence: u32,
    /// Low 32 bits of the largest received packet number plus one, if [`Flags::ACK`] is set.
    pub ack: u32,
    /// Bytes of the sealed payload, its tag included.
    pub payload_len: u16,
}

/// Why a segment is no packet of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is shorter than a header.
    #[error("shorter than a header")]
    Short,
    /// It does not begin with [`MAGIC`].
    #[error("the magic number is wrong")]
    Magic,
    /// It is a packet of that other version (four bits).
    #[error("version {0} of the protocol")]
    Version(u8),
    /// No key epoch has its number.
    #[error("no such key epoch")]
    Epoch,
    /// The connection id is all zero.
    #[error("the connection id is nil")]
    NilGuuid,
    /// The payload length exceeds the segment.
    #[error("the payload is longer than its segment")]
    Lengths,
    /// What lies between header and payload is not a whole number of SACK blocks, at most [`SACK_BLOCKS_MAX`].
    #[error("no whole number of SACK blocks, or too many")]
    Sack,
}

impl Header {
    /// Writes the header to the front of `out`. SACK blocks and payload follow it.
    ///
    /// # Panics
    /// If `out` is shorter than [`HEADER_LEN`].
    pub fn encode(&self, out: &mut [u8]) {
        debug_assert!(self.version < 16 && !self.guuid.is_nil());
        let out = out.first_chunk_mut::<HEADER_LEN>().expect("the caller's buffer holds a header");
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = self.epoch.bits() << 4 | self.version;
        out[5] = self.flags.bits();
        out[6..22].copy_from_slice(self.guuid.as_bytes());
        out[22..26].copy_from_slice(&self.sequence.to_be_bytes());
        out[26..30].copy_from_slice(&self.ack.to_be_bytes());
        out[30..32].copy_from_slice(&self.payload_len.to_be_bytes());
    }

    /// The header and the SACK blocks of a segment. The payload is its last `payload_len` bytes, what precedes it is the
    /// associated data. Whether a SACK block's ends are in order is for the connection to see: that needs whole numbers.
    ///
    /// # Errors
    /// See [`HeaderError`].
    #[inline]
    pub fn decode(segment: &[u8]) -> Result<(Self, SackBlocks), HeaderError> {
        let (bytes, rest) = segment.split_first_chunk::<HEADER_LEN>().ok_or(HeaderError::Short)?;
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if word(0) != u32::from_be_bytes(MAGIC) {
            return Err(HeaderError::Magic);
        }
        let version = bytes[4];
        if version & 0xf != VERSION {
            return Err(HeaderError::Version(version & 0xf));
        }
        let epoch = Epoch::from_bits(version >> 4).ok_or(HeaderError::Epoch)?;
        let guuid = Guuid(*bytes[6..].first_chunk().expect("sixteen bytes of the header"));
        if guuid.is_nil() {
            return Err(HeaderError::NilGuuid);
        }
        let payload_len = u16::from_be_bytes([bytes[30], bytes[31]]);
        let sack_len = rest.len().checked_sub(usize::from(payload_len)).ok_or(HeaderError::Lengths)?;
        let mut blocks = SackBlocks::new();
        if sack_len > 0 && !blocks.read(&rest[..sack_len]) {
            return Err(HeaderError::Sack);
        }
        let flags = Flags::from_bits(bytes[5]);
        let header = Self { version: VERSION, epoch, flags, guuid, sequence: word(22), ack: word(26), payload_len };
        Ok((header, blocks))
    }

    /// The connection id of a segment that begins with the magic number, whatever its version: what steering needs.
    pub fn peek_guuid(segment: &[u8]) -> Option<Guuid> {
        let bytes = segment.first_chunk::<HEADER_LEN>()?;
        let guuid = Guuid(*bytes[6..].first_chunk()?);
        (bytes[..4] == MAGIC && !guuid.is_nil()).then_some(guuid)
    }
}

/// The 64-bit number nearest to `expected` whose low 32 bits are `truncated` (RFC 9000 appendix A.3). A tie goes to the
/// smaller one.
pub fn expand(truncated: u32, expected: u64) -> u64 {
    const WINDOW: u64 = 1 << 32;
    let distance = i64::from(truncated.wrapping_sub(expected as u32) as i32);
    match expected.checked_add_signed(distance) {
        Some(number) => number,
        None if distance < 0 => expected + (WINDOW - distance.unsigned_abs()),
        None => expected - (WINDOW - distance.unsigned_abs()),
    }
}
