//! Packets that came in: duplicates, what to report, and when.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Time;
use crate::range_set::RangeSet;
use crate::wire::Epoch;

/// Ranges that a packet header reports at most.
pub(crate) const SACK_BLOCKS_MAX: usize = 8;
/// Up to so many ranges blocks in the header take no more bytes than a frame.
const SACK_BLOCKS_CHEAP: usize = 3;
/// Ranges that are kept, and that an ACK frame reports, at most. The oldest goes when there are more: its numbers, and all
/// below, count as received. At 10 % loss and 200 ms about 160 gaps are open.
pub(crate) const RANGES_MAX: usize = 256;
/// Packets that came late and whose report is not acknowledged, at most; beyond it the oldest is reported no more.
const LATE_MAX: usize = 64;
/// Acknowledgements wait for no longer, whatever the round-trip time.
pub(crate) const ACK_DELAY_MAX: Duration = Duration::from_millis(1);
/// Packets with nothing but repair symbols may wait longer: nobody waits for their acknowledgement.
pub(crate) const REPAIR_ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// Ack-eliciting packets after which an acknowledgement goes at once.
const ELICITING_MAX: u32 = 2;

/// What a packet asks of its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedInfo {
    /// It has to be acknowledged.
    pub(crate) ack_eliciting: bool,
    /// It carries nothing but repair symbols.
    pub(crate) repair_only: bool,
    /// It ends a message (PSH): nothing follows it that an acknowledgement had to wait for.
    pub(crate) message_end: bool,
    /// The network marked it: congestion experienced.
    pub(crate) ce: bool,
    /// The keys that it came under.
    pub(crate) epoch: Epoch,
}

/// The peer's packet numbers as they come in, over all key epochs.
#[derive(Debug)]
pub(crate) struct ReceivedPackets {
    /// Every number at or above `floor` that came in, for telling duplicates.
    seen: RangeSet,
    /// Numbers below it count as received.
    floor: u64,
    /// What is still to be reported: the peer has not acknowledged a report of it.
    report: RangeSet,
    /// Numbers that came after greater ones, each with the largest number at that time: an acknowledged report that ends
    /// there or below does not hold them.
    late: VecDeque<(u64, u64)>,
    largest_at: Time,
    ack_delay: Duration,
    repair_ack_delay: Duration,
    ack_due: Option<Time>,
    eliciting: u32,
    ce: bool,
}

impl ReceivedPackets {
    /// Nothing received.
    pub(crate) fn new() -> Self {
        Self {
            seen: RangeSet::new(),
            floor: 0,
            report: RangeSet::new(),
            late: VecDeque::new(),
            largest_at: Time::ZERO,
            ack_delay: ACK_DELAY_MAX,
            repair_ack_delay: REPAIR_ACK_DELAY_MAX,
            ack_due: None,
            eliciting: 0,
            ce: false,
        }
    }

    /// Acknowledgements may wait an eighth of the round-trip time, 1 ms at most; after a message's end half as long, and after
    /// packets with nothing but repair symbols a quarter of the round-trip time, 5 ms at most.
    pub(crate) fn set_ack_delay(&mut self, rtt: Duration) {
        self.ack_delay = (rtt / 8).min(ACK_DELAY_MAX);
        self.repair_ack_delay = (rtt / 4).min(REPAIR_ACK_DELAY_MAX);
    }

    /// Whether the number came in before, or is too old to tell. Asked before a packet is opened it saves the work.
    pub(crate) fn is_duplicate(&self, number: u64) -> bool {
        number < self.floor || self.seen.contains(number)
    }

    /// An authenticated packet came in. False: a duplicate, or too old to tell, and nothing changed.
    pub(crate) fn on_received(&mut self, now: Time, number: u64, info: ReceivedInfo) -> bool {
        if number < self.floor {
            return false;
        }
        let largest = self.seen.largest();
        if !self.seen.insert(number) {
            return false;
        }
        let in_order = largest.map_or(number == 0, |largest| number == largest + 1);
        if largest.is_none_or(|largest| number > largest) {
            self.largest_at = now;
        } else if let Some(largest) = largest {
            if self.late.len() == LATE_MAX {
                self.late.pop_front();
            }
            self.late.push_back((number, largest));
        }
        self.report.insert(number);
        self.limit_ranges();
        self.ce |= info.ce;
        if info.ack_eliciting || info.ce {
            self.schedule(now, in_order, info);
        }
        true
    }

    fn limit_ranges(&mut self) {
        while self.seen.len() > RANGES_MAX {
            let Some((_, last)) = self.seen.pop_oldest() else { return };
            self.floor = last + 1;
        }
        while self.report.len() > RANGES_MAX {
            self.report.pop_oldest();
        }
    }

    fn schedule(&mut self, now: Time, in_order: bool, info: ReceivedInfo) {
        if info.repair_only && !info.ce {
            let due = now + self.repair_ack_delay;
            self.ack_due = Some(self.ack_due.map_or(due, |earlier| earlier.min(due)));
            return;
        }
        self.eliciting += 1;
        let handshake = !info.epoch.is_one_rtt();
        let at_once = !in_order || info.ce || handshake || self.eliciting >= ELICITING_MAX;
        let delay = match info.message_end {
            _ if at_once => Duration::ZERO,
            // An answer may be on its way already, and carries it for a fifth of the bytes.
            true => self.ack_delay / 2,
            false => self.ack_delay,
        };
        let due = now + delay;
        self.ack_due = Some(self.ack_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// The largest number received.
    pub(crate) fn largest(&self) -> Option<u64> {
        self.seen.largest()
    }

    /// When an acknowledgement has to be sent, if nothing carries it before.
    pub(crate) fn ack_due(&self) -> Option<Time> {
        self.ack_due
    }

    /// How long an acknowledgement may wait for something to ride on.
    pub(crate) fn ack_delay_max(&self) -> Duration {
        self.ack_delay
    }

    /// How long the largest number has been here, for the peer's round-trip time.
    pub(crate) fn ack_delay(&self, now: Time) -> Duration {
        now.saturating_since(self.largest_at)
    }

    /// Whether a mark came in that no acknowledgement has echoed.
    pub(crate) fn ce_pending(&self) -> bool {
        self.ce
    }

    /// The newest ranges, newest first, at most eight: what a packet header reports. The first ends at the largest number.
    pub(crate) fn sack_blocks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges().take(SACK_BLOCKS_MAX)
    }

    /// More ranges are open than a header should hold: an ACK frame carries them in fewer bytes.
    pub(crate) fn needs_ack_frame(&self) -> bool {
        self.report.len() > SACK_BLOCKS_CHEAP
    }

    /// All ranges to report, newest first, at most 256.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + Clone + '_ {
        // The newest range is reported even if the peer knows it: block 0 ends at the largest number.
        let fallback = if self.report.is_empty() { self.seen.newest().map(|range| (range.1, range.1)) } else { None };
        let detached = self.report.newest().zip(self.seen.newest()).filter(|(report, seen)| report.1 < seen.1);
        let first = fallback.or(detached.map(|(_, seen)| (seen.1, seen.1)));
        first.into_iter().chain(self.report.iter_newest_first()).take(RANGES_MAX)
    }

    /// Ranges kept to tell duplicates, and to report.
    #[cfg(test)]
    pub(crate) fn ranges_kept(&self) -> (usize, usize) {
        (self.seen.len(), self.report.len())
    }

    /// An acknowledgement left.
    pub(crate) fn on_ack_sent(&mut self) {
        self.ack_due = None;
        self.eliciting = 0;
        self.ce = false;
    }

    /// Nothing has come for a while: frees memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.seen.shrink();
        self.report.shrink();
        self.late.shrink_to_fit();
    }

    /// The peer acknowledged a packet that reported **all** ranges up to `largest`: they need no report any more.
    pub(crate) fn on_ack_of_ack(&mut self, largest: u64) {
        self.report.remove_below(largest.saturating_add(1));
        self.late.retain(|&(_, largest_then)| largest_then >= largest);
        for &(number, _) in &self.late {
            self.report.insert(number);
        }
    }
}

#[cfg(test)]
#[path = "received_tests.rs"]
mod tests;
