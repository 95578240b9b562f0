//! Tells a response's messages from its tail.

use bytes::{Buf, Bytes};

use super::MappingError;
use super::head::BlockReader;

/// The byte before the tail, where a message would have its compression flag.
pub(crate) const TAIL_MARKER: u8 = 0x80;

/// Bytes of a gRPC message's prefix: the compression flag and the length.
const PREFIX_BYTES: u8 = 5;

/// A part of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of messages, prefixes included, as they came.
    Messages(Bytes),
    /// The tail's block: the response is complete.
    Tail(Bytes),
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Between,
    /// So many bytes of the prefix are still to come; the length so far.
    Prefix(u8, u32),
    Message(u32),
    Tail,
    End,
}

/// Follows the messages of a response, without holding on to them.
#[derive(Debug)]
pub(crate) struct FrameSplitter {
    place: Place,
    tail: BlockReader,
}

impl FrameSplitter {
    pub(crate) fn new(tail_bytes_max: usize) -> Self {
        Self { place: Place::Between, tail: BlockReader::new(tail_bytes_max) }
    }

    /// The next piece at the front of `chunk`, which keeps what follows it; `None`: `chunk` is used up.
    pub(crate) fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Piece>, MappingError> {
        if matches!(self.place, Place::End) {
            return if chunk.is_empty() { Ok(None) } else { Err(MappingError::AfterTail) };
        }
        let messages = self.scan(chunk)?;
        if messages > 0 {
            return Ok(Some(Piece::Messages(chunk.split_to(messages))));
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        if matches!(self.place, Place::Between) {
            chunk.advance(1);
            self.place = Place::Tail;
        }
        let Some(block) = self.tail.push(chunk)? else { return Ok(None) };
        self.place = Place::End;
        Ok(Some(Piece::Tail(block)))
    }

    /// Bytes at the front of `chunk` that belong to messages. Stops before a tail's mark.
    fn scan(&mut self, chunk: &[u8]) -> Result<usize, MappingError> {
        let mut at = 0;
        while at < chunk.len() {
            match self.place {
                Place::Between => match chunk[at] {
                    0 | 1 => {
                        self.place = Place::Prefix(PREFIX_BYTES - 1, 0);
                        at += 1;
                    }
                    TAIL_MARKER => return Ok(at),
                    byte => return Err(MappingError::Marker(byte)),
                },
                Place::Prefix(left, so_far) => {
                    let len = so_far << 8 | u32::from(chunk[at]);
                    at += 1;
                    self.place = match (left, len) {
                        (1, 0) => Place::Between,
                        (1, len) => Place::Message(len),
                        _ => Place::Prefix(left - 1, len),
                    };
                }
                Place::Message(left) => {
                    let taken = (chunk.len() - at).min(left as usize);
                    at += taken;
                    let left = left - taken as u32;
                    self.place = if left == 0 { Place::Between } else { Place::Message(left) };
                }
                Place::Tail | Place::End => return Ok(at),
            }
        }
        Ok(at)
    }

    /// The stream ended here.
    pub(crate) fn finish(&self) -> Result<(), MappingError> {
        match self.place {
            Place::Between | Place::End => Ok(()),
            Place::Prefix(..) | Place::Message(_) => Err(MappingError::Ended("message")),
            Place::Tail => Err(MappingError::Ended("tail")),
        }
    }
}
