//! The trace hash: whether two runs were the same.

use quantum::Time;

use super::Direction;
use crate::Cipher;

/// Length of the header's fixed part, and where the length of the sealed payload stands in it (PROTOCOL.md section 1).
const HEADER_LEN: usize = 32;
const PAYLOAD_LEN_AT: usize = 30;

/// A hash (FNV-1a, 64 bits) over when, in which direction, how long and with which header every packet was sent. What is sealed
/// is left out: TLS draws its own randomness. Without encryption all of the packet counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct TraceHash {
    sum: u64,
    cipher: Cipher,
}

impl TraceHash {
    pub(super) const fn new(cipher: Cipher) -> Self {
        Self { sum: 0xcbf2_9ce4_8422_2325, cipher }
    }

    pub(super) fn packet(&mut self, now: Time, direction: Direction, segment: &[u8]) {
        self.bytes(&now.as_nanos().to_be_bytes());
        self.bytes(&[direction as u8]);
        self.bytes(&(segment.len() as u64).to_be_bytes());
        self.bytes(if self.cipher == Cipher::Null { segment } else { header(segment) });
    }

    pub(super) const fn value(self) -> u64 {
        self.sum
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.sum = (self.sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The header and the SACK blocks.
fn header(segment: &[u8]) -> &[u8] {
    let Some(&[high, low]) = segment.get(PAYLOAD_LEN_AT..HEADER_LEN) else { return segment };
    let sealed_len = usize::from(u16::from_be_bytes([high, low]));
    &segment[..segment.len().saturating_sub(sealed_len).max(HEADER_LEN)]
}
