//! Packet numbers that are left out at random: a peer that acknowledges one acknowledges what it never received.
//!
//! A receiver that acknowledges ahead of what it got (an optimistic acknowledgement, RFC 9000 section 21.4) makes its sender take
//! the path for faster than it is. It has to name numbers before it has seen them, so it names those that never were.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Connection;

/// Numbers before the first one is left out, at least.
const DISTANCE_MIN: u64 = 16;
/// The first distance is up to this much longer, each further one up to twice as much as the one before it ...
const SPREAD_FIRST: u64 = 256;
/// ... and up to so much in the end: each costs an acknowledgement that leaves at once, and a range in it for a round trip.
const SPREAD_MAX: u64 = 1 << 14;
/// Numbers left out that are remembered. An acknowledgement below the oldest one is of packets that are long resolved.
const REMEMBERED: usize = 4;

/// Which numbers were left out, and which one is next.
#[derive(Debug)]
pub(super) struct SkippedNumbers {
    rng: SmallRng,
    /// The next number to leave out; none before packets of 1-RTT are sent.
    next: Option<u64>,
    spread: u64,
    /// The latest ones, in a ring; zero is none.
    latest: [u64; REMEMBERED],
    count: usize,
}

impl SkippedNumbers {
    pub(super) fn new(seed: u64) -> Self {
        // The seed feeds congestion control as well: another stream of numbers is drawn from it here.
        let rng = SmallRng::seed_from_u64(seed ^ 0x736b_6970);
        Self { rng, next: None, spread: SPREAD_FIRST, latest: [0; REMEMBERED], count: 0 }
    }

    /// The number of a packet of 1-RTT: `number`, or the one after it if this one is left out.
    pub(super) fn pass(&mut self, number: u64) -> u64 {
        match self.next {
            Some(next) if number < next => number,
            Some(_) => {
                self.latest[self.count % REMEMBERED] = number;
                self.count += 1;
                self.draw(number);
                number + 1
            }
            None => {
                self.draw(number);
                number
            }
        }
    }

    fn draw(&mut self, number: u64) {
        self.next = Some(number + DISTANCE_MIN + self.rng.random_range(0..self.spread));
        self.spread = (self.spread * 2).min(SPREAD_MAX);
    }

    /// Whether one of these ranges (inclusive) has a number that was left out.
    fn any_in(&self, ranges: &[(u64, u64)]) -> bool {
        let mut latest = self.latest.iter().take(self.count);
        latest.any(|number| ranges.iter().any(|&(first, last)| (first..=last).contains(number)))
    }
}

impl Connection {
    /// Leaves a number out, once in a while.
    pub(super) fn pass_skipped_number(&mut self) {
        self.pending.number = self.pending.skipped.pass(self.pending.number);
    }

    /// Whether an acknowledgement names a number that was left out.
    pub(super) fn names_skipped_number(&self, ranges: &[(u64, u64)]) -> bool {
        self.pending.skipped.any_in(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_left_out_one_at_a_time_and_ever_more_rarely() {
        let mut skipped = SkippedNumbers::new(5);
        let (mut number, mut left_out) = (1, Vec::new());
        for _ in 0..200_000 {
            let passed = skipped.pass(number);
            if passed != number {
                assert_eq!(passed, number + 1);
                left_out.push(number);
                assert!(skipped.any_in(&[(number, number)]));
                assert!(skipped.any_in(&[(number + 9, number + 10), (number - 3, number + 3)]));
                assert!(!skipped.any_in(&[(number + 1, number + 9), (number - 9, number - 1)]));
            }
            number = passed + 1;
        }
        assert!((20..200).contains(&left_out.len()), "{left_out:?}");
        assert!((17..=273).contains(&left_out[0]), "{left_out:?}");
        assert!(left_out.windows(2).all(|pair| pair[1] - pair[0] >= DISTANCE_MIN));
    }

    #[test]
    fn other_connections_leave_out_other_numbers() {
        let first = |seed| {
            let mut skipped = SkippedNumbers::new(seed);
            (1..1_000).find(|&number| skipped.pass(number) != number)
        };
        assert!((2..20).any(|seed| first(seed) != first(1)));
    }
}
