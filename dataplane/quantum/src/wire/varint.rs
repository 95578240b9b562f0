//! Integers of 1, 2, 4 or 8 bytes whose first two bits tell the length (RFC 9000 section 16).

/// The largest value that can be encoded.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Bytes of the shortest encoding of `value`, which is at most [`VARINT_MAX`].
pub const fn len(value: u64) -> usize {
    debug_assert!(value <= VARINT_MAX);
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Writes the shortest encoding of `value` (at most [`VARINT_MAX`]) to the front of `out` and gives its length; `None`, and
/// nothing written, if it does not fit.
pub fn write(value: u64, out: &mut [u8]) -> Option<usize> {
    let len = len(value);
    let out = out.get_mut(..len)?;
    match len {
        1 => out[0] = value as u8,
        2 => out.copy_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        4 => out.copy_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.copy_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
    Some(len)
}

/// Takes an integer from the front of `input`. Longer encodings than needed are valid. `None`, and nothing taken, if the
/// input ends before the integer does.
pub fn read(input: &mut &[u8]) -> Option<u64> {
    let first = *input.first()?;
    let len = 1 << (first >> 6);
    let (bytes, rest) = input.split_at_checked(len)?;
    let value = bytes[1..].iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
    *input = rest;
    Some(value)
}
