//! Packets declared lost, remembered for a while: the acknowledgement of one shows that it was only late.

use std::collections::VecDeque;
use std::time::Duration;

use super::reordering::Reordering;
use crate::Time;

/// Lost packets remembered at most; the oldest is forgotten.
const LOST_MAX: usize = 4096;

/// A packet that was declared lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) number: u64,
    pub(super) sent: Time,
    pub(super) size: u16,
    declared: Time,
    late: bool,
}

/// The recently lost, by number.
#[derive(Debug)]
pub(crate) struct LostPackets {
    packets: VecDeque<Lost>,
    /// How many of them were only late.
    late: usize,
    reordering: Reordering,
}

impl LostPackets {
    /// Nothing was lost yet.
    pub(super) fn new(now: Time) -> Self {
        Self { packets: VecDeque::new(), late: 0, reordering: Reordering::new(now) }
    }

    /// What late packets have shown of the path.
    pub(super) fn reordering(&self) -> &Reordering {
        &self.reordering
    }

    /// The same, to be told more.
    pub(super) fn reordering_mut(&mut self) -> &mut Reordering {
        &mut self.reordering
    }

    /// A packet is declared lost.
    pub(super) fn push(&mut self, now: Time, number: u64, size: u16, sent: Time) {
        if self.packets.len() == LOST_MAX {
            self.pop_oldest();
        }
        let at = self.packets.partition_point(|lost| lost.number < number);
        self.packets.insert(at, Lost { number, sent, size, declared: now, late: false });
    }

    /// Finds lost packets that the ranges (newest first) acknowledge, and gives each.
    pub(super) fn take_late(&mut self, ranges: &[(u64, u64)], mut late: impl FnMut(&Lost, &mut Reordering)) {
        let Some(oldest) = self.packets.front().map(|lost| lost.number) else { return };
        for &(first, last) in ranges {
            if last < oldest {
                break;
            }
            let start = self.packets.partition_point(|lost| lost.number < first);
            for lost in self.packets.range_mut(start..).take_while(|lost| lost.number <= last) {
                if !std::mem::replace(&mut lost.late, true) {
                    self.late += 1;
                    late(lost, &mut self.reordering);
                }
            }
        }
    }

    /// Whether everything that is remembered as lost has turned out to be only late; then nothing is remembered any more.
    pub(crate) fn take_undone(&mut self) -> bool {
        let undone = self.late > 0 && self.late == self.packets.len();
        if undone {
            self.packets.clear();
            self.late = 0;
        }
        undone
    }

    /// Forgets what was declared lost more than `age` ago: those losses were real.
    pub(crate) fn forget(&mut self, now: Time, age: Duration) {
        while self.packets.front().is_some_and(|lost| now - lost.declared > age) {
            self.pop_oldest();
        }
    }

    /// Frees memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.packets.shrink_to_fit();
    }

    fn pop_oldest(&mut self) {
        if self.packets.pop_front().is_some_and(|lost| lost.late) {
            self.late -= 1;
        }
    }
}
