//! The frames of forward error correction: REPAIR and RECOVERED (PROTOCOL.md section 12).

use std::ops::RangeInclusive;

use crate::wire::ack::AckRanges;
use crate::wire::varint;

/// Ranges of a RECOVERED frame, and of the members that a REPAIR frame names, at most.
pub const REPAIR_RANGES_MAX: usize = 64;
/// Members of a group at most.
pub const REPAIR_MEMBERS_MAX: u64 = 192;
/// Numbers between the oldest member of a group and the packet with its repair symbol, at most.
pub const REPAIR_DISTANCE_MAX: u64 = 1 << 16;

/// A repair symbol of a group of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair<'a> {
    /// How far the newest member's number lies below that of the packet with this frame.
    pub distance: u64,
    /// Repair symbols of the group, at most so many.
    pub repairs: u8,
    /// Which of them this is.
    pub index: u8,
    /// The members as ranges of how far they lie above [`REPAIR_DISTANCE_MAX`] below the newest, newest first.
    members: AckRanges<'a>,
    /// The symbol.
    pub data: &'a [u8],
}

impl<'a> Repair<'a> {
    /// Takes the frame from `input`, which is past the frame type. `None` if it is cut short or absurd.
    pub(crate) fn read(input: &mut &'a [u8]) -> Option<Self> {
        let distance = varint::read(input)?;
        let (repairs, rest) = input.split_first()?;
        let (index, rest) = rest.split_first()?;
        *input = rest;
        let more = varint::read(input)?;
        if more >= REPAIR_RANGES_MAX as u64 || index >= repairs || !(1..=REPAIR_DISTANCE_MAX).contains(&distance) {
            return None;
        }
        let members = AckRanges::read(input, REPAIR_DISTANCE_MAX, more as u16)?;
        let len = usize::try_from(varint::read(input)?).ok()?;
        let (data, rest) = input.split_at_checked(len)?;
        *input = rest;
        let count: u64 = members.clone().map(|range| range.end() - range.start() + 1).sum();
        (count <= REPAIR_MEMBERS_MAX).then_some(Self { distance, repairs: *repairs, index: *index, members, data })
    }

    /// The numbers of the members as ranges, newest first, if the packet that carries the frame has `number`. `None` if there
    /// would be one below 1.
    pub fn members(&self, number: u64) -> Option<impl Iterator<Item = RangeInclusive<u64>> + 'a> {
        let newest = number.checked_sub(self.distance)?;
        let below = |place: u64| REPAIR_DISTANCE_MAX - place;
        let oldest = self.members.clone().last().map_or(0, |range| below(*range.start()));
        let is_sound = newest > oldest;
        is_sound.then(|| {
            self.members.clone().map(move |range| newest - below(*range.start())..=newest - below(*range.end()))
        })
    }
}

/// Bytes of a REPAIR frame around its symbol, at most, if its members are in so many ranges.
pub const fn repair_head_len_max(ranges: usize) -> usize {
    // Type, distance, two counts, the number of ranges, the first range; two integers for each more; the length.
    1 + 4 + 2 + 2 + 2 + ranges.saturating_sub(1) * 6 + 2
}
