//! Numbers as LEB128: seven bits a byte, least significant first, the top bit set on all but the last.

use bytes::{Buf, BufMut};

use super::MappingError;

/// Appends `value`.
pub(super) fn put(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Takes a number off the front.
pub(super) fn get(input: &mut impl Buf) -> Result<u64, MappingError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        if !input.has_remaining() {
            return Err(MappingError::Truncated);
        }
        let byte = input.get_u8();
        if shift == 63 && byte > 1 {
            return Err(MappingError::Number);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(MappingError::Number)
}
