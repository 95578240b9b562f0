//! A group of packets that has its repair symbols, on the side that sends them.

use smallvec::SmallVec;

use crate::Time;
use crate::sent_frame::{SentFrame, SentFrames};

/// What is known of a packet of a group.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is on its way.
    Waiting,
    /// Its frames need no care any more: they arrived, were restored, or are being sent again.
    Settled,
    /// It was lost. Its frames are sent again only if the group cannot restore them.
    Held(SentFrames),
}

/// A packet of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) fate: Fate,
}

/// The packets of a group.
pub(super) type Members = SmallVec<[Member; 2]>;

/// The group, and what became of its repair symbols.
#[derive(Debug)]
pub(super) struct Group {
    /// By number.
    pub(super) members: Members,
    /// The symbols; a single one if all are alike, none when all have left.
    pub(super) shards: Vec<Vec<u8>>,
    /// Symbols in all.
    pub(super) repairs: u8,
    pub(super) unsent: u8,
    pub(super) in_flight: u8,
    pub(super) arrived: u8,
    /// When the last symbol left, or is to leave.
    pub(super) last_repair_at: Time,
}

impl Group {
    /// Its members as ranges, newest first.
    pub(super) fn ranges(&self) -> SmallVec<[(u64, u64); 8]> {
        ranges(self.members.iter().map(|member| member.number).rev())
    }

    /// The member with that number.
    pub(super) fn member(&mut self, number: u64) -> Option<&mut Member> {
        let index = self.members.binary_search_by_key(&number, |member| member.number).ok()?;
        self.members.get_mut(index)
    }

    /// Whether nothing has to be known of it any more.
    pub(super) fn is_settled(&self) -> bool {
        self.members.iter().all(|member| matches!(member.fate, Fate::Settled))
    }

    /// Lost packets whose frames are held back.
    pub(super) fn held(&self) -> usize {
        self.members.iter().filter(|member| matches!(member.fate, Fate::Held(_))).count()
    }

    /// Whether the symbols that have arrived or still may suffice for what is known to be lost.
    pub(super) fn can_recover(&self) -> bool {
        self.held() <= usize::from(self.arrived) + usize::from(self.in_flight) + usize::from(self.unsent)
    }

    /// Gives up: the frames that were held back are to be sent again.
    pub(super) fn release(&mut self, released: &mut Vec<SentFrame>) {
        for member in &mut self.members {
            if matches!(member.fate, Fate::Held(_))
                && let Fate::Held(frames) = std::mem::replace(&mut member.fate, Fate::Settled)
            {
                released.extend(frames);
            }
        }
    }

    /// The symbol of that index.
    pub(super) fn shard(&self, index: u8) -> Option<&[u8]> {
        let last = self.shards.len().checked_sub(1)?;
        self.shards.get(usize::from(index).min(last)).map(Vec::as_slice)
    }
}

/// Numbers, which descend, as ranges, newest first.
pub(super) fn ranges(numbers: impl Iterator<Item = u64>) -> SmallVec<[(u64, u64); 8]> {
    let mut ranges = SmallVec::<[(u64, u64); 8]>::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if range.0 == number + 1 => range.0 = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}
