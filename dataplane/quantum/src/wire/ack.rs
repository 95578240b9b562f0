//! The ACK frame's ranges (RFC 9000 section 19.3).

use std::ops::RangeInclusive;

use crate::wire::varint;

/// Ranges of an ACK frame at most.
pub const ACK_RANGES_MAX: usize = 256;

/// How many packets came with each ECN mark (RFC 9000 section 19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnCounts {
    /// Packets marked ECT(0).
    pub ect0: u64,
    /// Packets marked ECT(1).
    pub ect1: u64,
    /// Packets marked CE.
    pub ce: u64,
}

/// An ACK or `ACK_ECN` frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The largest number received.
    pub largest: u64,
    /// Microseconds from the receipt of `largest` to the sending of this frame.
    pub delay_micros: u64,
    /// The numbers received, newest first.
    pub ranges: AckRanges<'a>,
    /// The counts of an `ACK_ECN` frame.
    pub ecn: Option<EcnCounts>,
}

/// The ranges of an ACK frame, newest first: descending, not overlapping, not touching. They have been validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckRanges<'a> {
    /// The largest number of the next range.
    largest: u64,
    /// Ranges yet to come.
    remaining: u16,
    /// The length of the next range and what follows it.
    encoded: &'a [u8],
}

impl<'a> Ack<'a> {
    /// Takes the frame from `input`, which is past the frame type. `None` if it is cut short or absurd.
    pub(crate) fn read(input: &mut &'a [u8], with_ecn: bool) -> Option<Self> {
        let largest = varint::read(input)?;
        let delay_micros = varint::read(input)?;
        let more = varint::read(input)?;
        if more >= ACK_RANGES_MAX as u64 {
            return None;
        }
        let ranges = AckRanges::read(input, largest, more as u16)?;
        let ecn = if with_ecn {
            Some(EcnCounts { ect0: varint::read(input)?, ect1: varint::read(input)?, ce: varint::read(input)? })
        } else {
            None
        };
        Some(Self { largest, delay_micros, ranges, ecn })
    }
}

impl<'a> AckRanges<'a> {
    /// Takes the length of the range that ends at `largest`, and `more` ranges below it. `None` if they are cut short or go
    /// below 0.
    pub(crate) fn read(input: &mut &'a [u8], largest: u64, more: u16) -> Option<Self> {
        let start = *input;
        let mut smallest = largest.checked_sub(varint::read(input)?)?;
        for _ in 0..more {
            let gap = varint::read(input)?;
            let next = smallest.checked_sub(gap)?.checked_sub(2)?;
            smallest = next.checked_sub(varint::read(input)?)?;
        }
        Some(Self { largest, remaining: more + 1, encoded: &start[..start.len() - input.len()] })
    }
}

impl Iterator for AckRanges<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let largest = self.largest;
        let smallest = largest - varint::read(&mut self.encoded).expect("validated when the frame was read");
        if self.remaining > 0 {
            let gap = varint::read(&mut self.encoded).expect("validated when the frame was read");
            self.largest = smallest - gap - 2;
        }
        Some(smallest..=largest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.remaining), Some(usize::from(self.remaining)))
    }
}

impl ExactSizeIterator for AckRanges<'_> {}
