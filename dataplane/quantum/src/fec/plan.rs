//! How many repair symbols a group gets, and when they leave.

use std::time::Duration;

use super::Burst;
use super::code::{REPAIRS_MAX, SHARDS_MAX};

/// Repair symbols of one group are spread over six of these, which is twice the round trip's share that a single one waits.
const SPACING: Duration = Duration::from_millis(1);
const SPACING_MIN: Duration = Duration::from_micros(300);
/// Shares of the round-trip time: what a repair symbol may wait at most on a path whose losses are independent, and where they
/// come in bursts. Six spacings, the place of the third symbol, are then a quarter of the round trip.
const SPACING_SHARE: u32 = 20;
const SPACING_SHARE_BURST: u32 = 24;
/// Where six steps are no more than this share of the round-trip time and losses are independent, a second symbol may wait for
/// them: messages of 5 ms apart then take one packet less each, 6 % of their bytes at 10 % loss.
const WAIT_SHARE: u32 = 8;

/// The share of a group's packets that are sent again: lost, together with so many other packets of the group that its `repairs`
/// repair symbols do not suffice. Losses are taken as independent, each with chance `loss`.
pub(crate) fn residual(members: usize, repairs: usize, loss: f64) -> f64 {
    let total = members + repairs;
    // The chance that exactly so many of all are lost, from none upward.
    let mut chance = (1.0 - loss).powi(total as i32);
    let odds = loss / (1.0 - loss);
    let mut share = 0.0;
    for lost in 0..=total {
        if lost > repairs {
            share += chance * lost as f64 / total as f64;
        }
        chance *= odds * (total - lost) as f64 / (lost + 1) as f64;
    }
    share
}

/// The fewest repair symbols with which no more than `target` of the packets are sent again, at most `repairs_max`.
pub(crate) fn repairs(members: usize, loss: f64, target: f64, repairs_max: usize) -> usize {
    let loss = loss.clamp(0.0, 0.5);
    let most = repairs_max.min(REPAIRS_MAX).min(SHARDS_MAX - members.min(SHARDS_MAX));
    (0..most).find(|&repairs| residual(members, repairs, loss) <= target).unwrap_or(most)
}

/// Repair symbols that bursts call for, whatever the share of packets they take: twice as many as a burst takes on average, at
/// most `repairs_max`.
pub(crate) fn burst_repairs(burst: Burst, repairs_max: usize) -> usize {
    ((2.0 * burst.packets).ceil() as usize).min(repairs_max).min(REPAIRS_MAX / 2)
}

/// How far apart repair symbols leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spacing {
    step: Duration,
    /// The second symbol waits, six steps, for a packet that leaves anyway.
    waits: bool,
}

/// What suits a path with that round trip, whose bursts of losses last so long; zero if its losses are independent.
pub(crate) fn spacing(rtt: Duration, burst: Duration) -> Spacing {
    let independent = SPACING.min(rtt / SPACING_SHARE).max(SPACING_MIN);
    let step = independent.max(burst.min(rtt / SPACING_SHARE_BURST));
    Spacing { step, waits: burst.is_zero() && rtt >= step * 6 * WAIT_SHARE }
}

/// How long after the group closed its repair symbol `index` of `repairs` leaves: after 1, 3 and 6 steps, so that what loses
/// one does not lose the next, or after 1, 6 and 6. More than three share the same time evenly.
pub(crate) fn offset(index: usize, repairs: usize, spacing: Spacing) -> Duration {
    let steps = if spacing.waits { [1, 6, 6] } else { [1, 3, 6] };
    if repairs <= 3 {
        spacing.step * steps[index.min(2)]
    } else {
        spacing.step * 6 * (index as u32 + 1) / repairs as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_a_single_packet_are_as_many_as_the_target_needs() {
        assert!((residual(1, 2, 0.1) - 1e-3).abs() < 1e-12);
        for (loss, expected) in [(0.0, 0), (0.00005, 0), (0.001, 1), (0.01, 1), (0.02, 2), (0.099, 3), (0.3, 3)] {
            assert_eq!(repairs(1, loss, 1.0001e-4, 3), expected, "{loss}");
        }
    }

    #[test]
    fn larger_groups_need_a_smaller_share() {
        let ten = repairs(10, 0.05, 1e-4, 30);
        let forty = repairs(40, 0.05, 1e-4, 120);
        assert!((4..=5).contains(&ten) && forty < 4 * ten - 4, "{ten} {forty}");
        assert!(residual(10, ten, 0.05) <= 1e-4 && residual(10, ten - 1, 0.05) > 1e-4);
        assert!(repairs(200, 0.5, 1e-9, 1_000) <= REPAIRS_MAX.min(SHARDS_MAX - 200));
    }

    #[test]
    fn symbols_leave_one_after_the_other_and_within_a_quarter_of_a_round_trip() {
        let millis = Duration::from_millis;
        assert_eq!(spacing(millis(50), Duration::ZERO), Spacing { step: millis(1), waits: true });
        assert_eq!(spacing(millis(20), Duration::ZERO), Spacing { step: millis(1), waits: false });
        assert_eq!(spacing(millis(1), Duration::ZERO), Spacing { step: SPACING_MIN, waits: false });
        assert_eq!(spacing(millis(200), millis(6)), Spacing { step: millis(6), waits: false });
        for burst in [Duration::ZERO, millis(6), millis(40)] {
            for (rtt, repairs) in [(20, 1), (20, 3), (200, 3), (200, 9)] {
                let spacing = spacing(millis(rtt), burst);
                let offsets: Vec<Duration> = (0..repairs).map(|index| offset(index, repairs, spacing)).collect();
                assert!(offsets.windows(2).all(|pair| pair[0] < pair[1] || spacing.waits && pair[0] == pair[1]));
                assert!(offsets[repairs - 1] <= millis(rtt) * 3 / 10, "{offsets:?}");
            }
        }
    }
}
