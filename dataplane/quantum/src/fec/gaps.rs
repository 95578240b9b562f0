//! Since when packets are missing.

use std::collections::VecDeque;
use std::time::Duration;

use super::protector::GATHER_MAX;
use crate::Time;

/// Gaps that are remembered at most; the oldest goes. At 10 % loss so many packets in a row have not come in the time of 1,280.
const GAPS_MAX: usize = 128;
/// See [`Gaps`].
const UNSEEN_MAX: Duration = GATHER_MAX;

/// Runs of missing numbers, each with the earliest time at which it may have been due: when the last packet before it came, but no
/// longer before the first beyond it than a sender gathers packets for a group. So a recovery seems to take longer than it
/// did, rather than less long, and does not count the silence of a sender that had nothing to send.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// First and last number, by number.
    gaps: VecDeque<(u64, u64, Time)>,
    /// When the last packet came.
    last_at: Time,
}

impl Gaps {
    /// A packet came, and until then none greater than `largest`.
    pub(crate) fn on_packet(&mut self, now: Time, number: u64, largest: u64) {
        let last_at = std::mem::replace(&mut self.last_at, now);
        if number > largest + 1 {
            let due = last_at + (now - last_at).saturating_sub(UNSEEN_MAX);
            if self.gaps.len() == GAPS_MAX {
                self.gaps.pop_front();
            }
            self.gaps.push_back((largest + 1, number - 1, due));
        }
    }

    /// Since when the number is missing, if that is still known.
    pub(crate) fn since(&self, number: u64) -> Option<Time> {
        let place = self.gaps.partition_point(|gap| gap.1 < number);
        self.gaps.get(place).filter(|gap| gap.0 <= number).map(|gap| gap.2)
    }

    /// Frees what is remembered.
    pub(crate) fn forget(&mut self) {
        self.gaps = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{GAPS_MAX, Gaps};
    use crate::Time;

    #[test]
    fn a_number_is_missing_since_the_last_packet_before_it_came_but_not_for_long() {
        let start = Time::ZERO;
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut gaps = Gaps::default();
        for (ms, number, largest) in [(1, 5, 4), (3, 8, 5), (4, 7, 8), (1_000, 10, 8)] {
            gaps.on_packet(at(ms), number, largest);
        }
        let since = [5, 6, 7, 8, 9, 10].map(|number| gaps.since(number));
        assert_eq!(since, [None, Some(at(1)), Some(at(1)), None, Some(at(995)), None]);
    }

    #[test]
    fn the_oldest_gap_is_forgotten_when_there_are_too_many() {
        let mut gaps = Gaps::default();
        for number in 0..=GAPS_MAX as u64 {
            gaps.on_packet(Time::ZERO, 2 * number + 2, 2 * number);
        }
        assert_eq!((gaps.since(1), gaps.since(3), gaps.gaps.len()), (None, Some(Time::ZERO), GAPS_MAX));
    }
}
