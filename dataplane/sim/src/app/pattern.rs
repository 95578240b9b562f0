//! Bytes that tell where they belong: what is read can be checked without keeping what was written.

use bytes::Bytes;

use super::Fault;

/// The bytes of one stream, from offset 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    key: u64,
}

impl Pattern {
    pub(super) const fn new(key: u64) -> Self {
        Self { key }
    }

    /// `len` bytes from `offset` on.
    pub(super) fn bytes(self, offset: u64, len: usize) -> Bytes {
        (offset..).take(len).map(|offset| self.byte(offset)).collect()
    }

    /// Whether `data` are the bytes from `offset` on.
    pub(super) fn check(self, offset: u64, data: &[u8]) -> Result<(), Fault> {
        match (offset..).zip(data).find(|(offset, byte)| self.byte(*offset) != **byte) {
            None => Ok(()),
            Some((offset, _)) => Err(Fault::new(format!("a wrong byte at offset {offset}"))),
        }
    }

    /// Eight neighbours share a mix, of which each takes its byte.
    const fn byte(self, offset: u64) -> u8 {
        let mixed = (self.key ^ (offset >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 32)) >> (8 * (offset & 7))) as u8
    }
}
