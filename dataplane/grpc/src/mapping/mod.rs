//! How an RPC lies on a stream: `MAPPING.md` is the specification.

mod dictionary;
mod field;
mod frames;
mod head;
mod varint;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;

pub(crate) use dictionary::{Acknowledgement, Acknowledgements, Decoder, Encoder, Ticket, encode_plain};
pub(crate) use field::Field;
pub(crate) use frames::{FrameSplitter, Piece, TAIL_MARKER};
pub(crate) use head::{BlockReader, RequestHead, ResponseHead, frame_block, tail_fields, tail_from_fields};

/// Bytes of a head or tail block at most, unless configured otherwise.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why a head, a tail or the framing between them cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MappingError {
    /// A block is longer than the limit.
    #[error("a head of {0} bytes is larger than the limit")]
    TooLarge(u64),
    /// A block ends in the middle of something.
    #[error("a head ends in the middle of a field")]
    Truncated,
    /// A number is not encoded in at most ten bytes.
    #[error("a number is too long")]
    Number,
    /// A name or template number that does not exist.
    #[error("a head refers to entry {0} which does not exist")]
    UnknownEntry(u64),
    /// A template may not be kept: too large.
    #[error("a head defines an entry that is too large")]
    EntryTooLarge,
    /// A header name or value that HTTP does not allow, or a path that is no path.
    #[error("a head carries an invalid name, value or path")]
    Invalid,
    /// More fields than a head may have.
    #[error("a head has too many fields")]
    TooManyFields,
    /// The peer ended the stream before it said how the call went.
    #[error("the stream ended in the middle of a {0}")]
    Ended(&'static str),
    /// A message's first byte is neither a compression flag nor the tail's mark.
    #[error("a message begins with the byte {0:#x}")]
    Marker(u8),
    /// Bytes after the tail.
    #[error("the stream goes on after its tail")]
    AfterTail,
}
