//! Histograms as raw results hold them: base64 of deflated `HdrHistogram` V2, from a file that anybody may have written.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use thiserror::Error;

use crate::load;

/// A histogram of an hour in nanoseconds with three digits has some 34,000 buckets of at most nine bytes.
const INFLATED_BYTES_MAX: u64 = 512 << 10;
const BASE64_BYTES_MAX: usize = 700 << 10;
/// Cookie and length before the deflated part.
const DEFLATED_AT: usize = 8;
/// Cookie, length of the counts, offset, digits, lowest and highest value, ratio.
const COUNTS_AT: usize = 40;
const DIGITS_MAX: u32 = 3;
const COUNT_MAX: u64 = 1 << 40;

/// Why a histogram is not one.
#[derive(Debug, Error)]
pub(super) enum BadHistogram {
    #[error("its histogram is longer than {BASE64_BYTES_MAX} bytes")]
    Long,
    #[error("its histogram is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("its histogram cannot be inflated: {0}")]
    Inflate(#[from] std::io::Error),
    #[error("its histogram is not of the format V2: {0}")]
    Format(String),
    #[error("its histogram holds no request")]
    Empty,
    #[error("its histogram holds values over an hour")]
    Values,
}

/// Adds what `text` holds to `sum`, which is as [`load::histogram`] makes it.
pub(super) fn add(sum: &mut Histogram<u64>, text: &str) -> Result<(), BadHistogram> {
    let histogram = decode(text)?;
    if histogram.is_empty() {
        return Err(BadHistogram::Empty);
    }
    sum.add(&histogram).map_err(|_| BadHistogram::Values)
}

pub(super) fn none() -> Histogram<u64> {
    load::histogram()
}

fn decode(text: &str) -> Result<Histogram<u64>, BadHistogram> {
    if text.len() > BASE64_BYTES_MAX {
        return Err(BadHistogram::Long);
    }
    let packed = STANDARD.decode(text)?;
    let deflated = packed.get(DEFLATED_AT..).ok_or_else(|| format("too short"))?;
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated).take(INFLATED_BYTES_MAX + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > INFLATED_BYTES_MAX {
        return Err(format("too long when inflated"));
    }
    check(&plain)?;
    Deserializer::new().deserialize(&mut plain.as_slice()).map_err(|error| format(error.to_string()))
}

fn format(why: impl Into<String>) -> BadHistogram {
    BadHistogram::Format(why.into())
}

/// The deserializer allocates what the header says and negates numbers without looking: both are held here.
fn check(plain: &[u8]) -> Result<(), BadHistogram> {
    let counts = plain.get(COUNTS_AT..).ok_or_else(|| format("no header"))?;
    let word = |at: usize| u32::from_be_bytes(plain[at..at + 4].try_into().expect("four bytes of the header"));
    let highest = u64::from_be_bytes(plain[24..32].try_into().expect("eight bytes of the header"));
    if word(4) as usize > counts.len() {
        return Err(format("fewer counts than announced"));
    }
    if word(12) > DIGITS_MAX || highest > 1 << 44 {
        return Err(format("more digits or higher values than three and an hour"));
    }
    let mut rest = &counts[..word(4) as usize];
    let mut total = 0_u64;
    while !rest.is_empty() {
        // Odd numbers are runs of empty buckets, in zigzag encoding.
        let number = varint(&mut rest);
        total = total.saturating_add(number / 2);
        if total > COUNT_MAX {
            return Err(format("counts beyond any measurement"));
        }
    }
    Ok(())
}

/// LEB128, where the ninth byte has all eight bits; what is missing at the end is zero.
fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for nth in 0..9 {
        let Some((&byte, after)) = rest.split_first() else { break };
        *rest = after;
        let bits = if nth == 8 { byte } else { byte & 0x7f };
        value |= u64::from(bits) << (7 * nth);
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
