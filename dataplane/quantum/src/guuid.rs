//! The 16-byte id of everything: a `UUIDv7` (RFC 9562 section 5.7).

use std::fmt;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// A `UUIDv7`: 48 bits of Unix milliseconds, the version, a 12-bit counter, the variant, 62 random bits. Ids compare as their
/// bytes do, which is the order in which one generator made them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guuid(pub [u8; 16]);

/// Why a text or a slice is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuuidParseError {
    /// No form of an id has this length.
    #[error("no form of an id has this length")]
    Length,
    /// A character is not one of an id, or stands where it must not.
    #[error("not an id: a character is wrong or misplaced")]
    Format,
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE64_STD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// 128 bits in groups of six.
const BASE64_LEN: usize = 22;
const CANONICAL_LEN: usize = 36;
/// Where the canonical form has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl Guuid {
    /// The id that names nothing.
    pub const NIL: Self = Self([0; 16]);

    /// The id of those bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of a slice of 16 bytes.
    ///
    /// # Errors
    /// [`GuuidParseError::Length`]: it has another length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, GuuidParseError> {
        bytes.try_into().map(Self).map_err(|_| GuuidParseError::Length)
    }

    /// Whether it is [`NIL`](Self::NIL).
    pub const fn is_nil(&self) -> bool {
        u128::from_be_bytes(self.0) == 0
    }

    /// The version: 7, unless it comes from elsewhere.
    pub const fn version(&self) -> u8 {
        self.0[6] >> 4
    }

    /// The two bits of the variant (RFC 9562 section 4.1): 2, unless it comes from elsewhere.
    pub const fn variant(&self) -> u8 {
        self.0[8] >> 6
    }

    /// Milliseconds since the Unix epoch; means nothing unless the version is 7.
    pub const fn timestamp_ms(&self) -> u64 {
        let [b0, b1, b2, b3, b4, b5, ..] = self.0;
        u64::from_be_bytes([0, 0, b0, b1, b2, b3, b4, b5])
    }

    /// The canonical text, 36 characters, in `out`.
    fn canonical(self, out: &mut [u8; CANONICAL_LEN]) -> &str {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        let places = (0..CANONICAL_LEN).filter(|place| !HYPHENS.contains(place));
        out.fill(b'-');
        for (place, digit) in places.zip(digits) {
            out[place] = b"0123456789abcdef"[usize::from(digit)];
        }
        std::str::from_utf8(out).expect("hexadecimal digits and hyphens")
    }

    /// The 32 hexadecimal digits without hyphens.
    pub fn to_hex(self) -> String {
        let mut out = [0; CANONICAL_LEN];
        self.canonical(&mut out).replace('-', "")
    }

    /// URL-safe base64 without padding, 22 characters.
    pub fn to_base64_url(self) -> String {
        self.base64_digits().map(|digit| char::from(BASE64_URL[digit])).collect()
    }

    /// Standard base64 with padding, 24 characters.
    pub fn to_base64(self) -> String {
        let digits = self.base64_digits().map(|digit| char::from(BASE64_STD[digit]));
        digits.chain(['=', '=']).collect()
    }

    fn base64_digits(self) -> impl Iterator<Item = usize> {
        let bits = u128::from_be_bytes(self.0);
        // 22 groups of six bits are 132: the last has two bits of the id and four zeros.
        (0..BASE64_LEN - 1)
            .map(move |index| (bits >> (122 - 6 * index)) as usize & 63)
            .chain([(bits << 4) as usize & 63])
    }

    /// Reads what [`to_base64_url`](Self::to_base64_url) or [`to_base64`](Self::to_base64) wrote.
    ///
    /// # Errors
    /// See [`GuuidParseError`].
    pub fn from_base64(text: &str) -> Result<Self, GuuidParseError> {
        let (digits, alphabet) = match text.len() {
            BASE64_LEN => (text, BASE64_URL),
            24 => (text.strip_suffix("==").ok_or(GuuidParseError::Format)?, BASE64_STD),
            _ => return Err(GuuidParseError::Length),
        };
        let mut bits = 0_u128;
        for (index, byte) in digits.bytes().enumerate() {
            let digit = alphabet.iter().position(|&of| of == byte).ok_or(GuuidParseError::Format)? as u128;
            if index < BASE64_LEN - 1 {
                bits = bits << 6 | digit;
            } else if digit.trailing_zeros() >= 4 {
                bits = bits << 2 | digit >> 4;
            } else {
                return Err(GuuidParseError::Format);
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Guuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = [0; CANONICAL_LEN];
        f.pad(self.canonical(&mut out))
    }
}

impl fmt::Debug for Guuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guuid {
    type Err = GuuidParseError;

    /// Reads the canonical form, in either case, also after `urn:uuid:` or in braces, or 32 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, GuuidParseError> {
        let bytes = text.as_bytes();
        match bytes.len() {
            32 => from_hex(bytes.iter().copied()),
            CANONICAL_LEN => from_canonical(bytes),
            38 => match bytes {
                [b'{', canonical @ .., b'}'] => from_canonical(canonical),
                _ => Err(GuuidParseError::Format),
            },
            45 => match bytes.split_at(9) {
                (prefix, canonical) if prefix.eq_ignore_ascii_case(b"urn:uuid:") => from_canonical(canonical),
                _ => Err(GuuidParseError::Format),
            },
            _ => Err(GuuidParseError::Length),
        }
    }
}

fn from_canonical(bytes: &[u8]) -> Result<Guuid, GuuidParseError> {
    if HYPHENS.iter().any(|&place| bytes[place] != b'-') {
        return Err(GuuidParseError::Format);
    }
    from_hex(bytes.iter().enumerate().filter(|(place, _)| !HYPHENS.contains(place)).map(|(_, &byte)| byte))
}

/// The id of 32 hexadecimal digits.
fn from_hex(digits: impl Iterator<Item = u8>) -> Result<Guuid, GuuidParseError> {
    let mut bits = 0_u128;
    for digit in digits {
        let digit = char::from(digit).to_digit(16).ok_or(GuuidParseError::Format)?;
        bits = bits << 4 | u128::from(digit);
    }
    Ok(Guuid(bits.to_be_bytes()))
}

/// Makes ids, each greater than the one before, also when the clock steps back. One thread uses it; another has its own,
/// with another seed.
pub struct GuuidGenerator {
    rng: StdRng,
    /// The timestamp of the latest id.
    last_ms: u64,
    /// The counter of the latest id.
    counter: u16,
}

/// The largest timestamp, in the year 10889.
const TIMESTAMP_MAX: u64 = (1 << 48) - 1;
/// The largest counter.
const COUNTER_MAX: u16 = 0xfff;
/// A counter begins at or below this, so that at least 2048 ids fit in every millisecond.
const COUNTER_START_MAX: u16 = 0x7ff;

impl GuuidGenerator {
    /// A generator whose random bits come from `seed`, which nobody else may know or use. No further randomness is asked for.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { rng: StdRng::from_seed(seed), last_ms: 0, counter: COUNTER_MAX }
    }

    /// The next id, at `unix_ms` milliseconds since the Unix epoch. While the clock stands or is behind the latest id, the
    /// counter goes on from that id; when it is used up, the timestamp goes one millisecond ahead of the clock.
    pub fn next(&mut self, unix_ms: u64) -> Guuid {
        let random = self.rng.next_u64();
        let now_ms = unix_ms.min(TIMESTAMP_MAX);
        let restart = if now_ms > self.last_ms {
            Some(now_ms)
        } else if self.counter == COUNTER_MAX {
            Some((self.last_ms + 1).min(TIMESTAMP_MAX))
        } else {
            None
        };
        match restart {
            Some(timestamp) => {
                self.last_ms = timestamp;
                self.counter = self.rng.next_u32() as u16 & COUNTER_START_MAX;
            }
            None => self.counter += 1,
        }
        let high = self.last_ms << 16 | 0x7000 | u64::from(self.counter);
        let low = 0x8000_0000_0000_0000 | random >> 2;
        Guuid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }
}

impl fmt::Debug for GuuidGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuuidGenerator").field("last_ms", &self.last_ms).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "guuid_tests.rs"]
mod tests;
