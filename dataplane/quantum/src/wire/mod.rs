//! The wire format: the packet header, its SACK blocks, frames and version negotiation. `PROTOCOL.md` specifies it.
//!
//! Decoding takes hostile bytes: it borrows from its input, allocates nothing, and answers nonsense with an error.

pub mod ack;
mod epoch;
pub mod frame;
pub mod header;
pub mod repair;
pub mod varint;
pub mod version;
pub mod writer;

pub use ack::{ACK_RANGES_MAX, Ack, AckRanges, EcnCounts};
pub use epoch::Epoch;
pub use frame::{COOKIE_LEN_MAX, Frame, FrameIter, REASON_LEN_MAX, STREAMS_MAX};
pub use header::{
    Flags, HEADER_LEN, Header, HeaderError, MAGIC, SACK_BLOCK_LEN, SACK_BLOCKS_MAX, SackBlock, SackBlocks, VERSION,
    expand,
};
pub use repair::{REPAIR_DISTANCE_MAX, REPAIR_MEMBERS_MAX, REPAIR_RANGES_MAX, Repair, repair_head_len_max};
pub use version::{
    VERSION_NEGOTIATION_LEN, VersionNegotiation, decode_version_negotiation, encode_version_negotiation,
};
pub use writer::{
    DATAGRAM_HEAD_LEN_MAX, FrameWriter, crypto_capacity, crypto_header_len, stream_capacity, stream_header_len,
};

#[cfg(test)]
pub(crate) mod hostile_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vector_tests;
