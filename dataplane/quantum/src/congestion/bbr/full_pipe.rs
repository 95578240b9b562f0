//! Whether more in flight still brings more bandwidth (draft-ietf-ccwg-bbr section 5.3.1.2).

use std::time::Duration;

use crate::Time;

/// Bandwidth has to grow by this factor to be worth another round.
const GROWTH: f64 = 1.25;
/// Rounds without such growth after which the pipe is full, if a queue or losses show that more was sent than it holds.
const ROUNDS: u32 = 3;
/// Time without such growth after which it counts as full whatever shows. A machine that stops for some round trips sends and
/// sees too little, which looks like a full pipe but for the queue; it seldom stops for longer.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The estimator.
#[derive(Debug, Default)]
pub(super) struct FullPipe {
    baseline: u64,
    /// When the bandwidth last grew.
    grew_at: Time,
    rounds: u32,
    /// Those of them that showed a queue or losses.
    rounds_with_queue: u32,
    /// In this probe the bandwidth has stopped growing.
    now: bool,
    /// It has once since STARTUP began.
    reached: bool,
}

impl FullPipe {
    /// Takes the bandwidth that an acknowledgement showed, which was not the application's. `has_queue`: a queue, or losses that
    /// count, show that more is in flight than the path holds.
    pub(super) fn update(&mut self, now: Time, rate: u64, round_started: bool, has_queue: bool) {
        if self.now {
            return;
        }
        if rate as f64 >= self.baseline as f64 * GROWTH {
            self.reset(rate);
            self.grew_at = now;
            return;
        }
        if !round_started {
            return;
        }
        self.rounds += 1;
        self.rounds_with_queue += u32::from(has_queue);
        let is_no_pause = self.rounds_with_queue >= ROUNDS || now.saturating_since(self.grew_at) >= PAUSE_MAX;
        self.now = self.rounds >= ROUNDS && is_no_pause;
        self.reached |= self.now;
    }

    /// A probe starts over from `baseline`.
    pub(super) fn reset(&mut self, baseline: u64) {
        (self.baseline, self.rounds, self.rounds_with_queue, self.now) = (baseline, 0, 0, false);
    }

    /// Other evidence, or its refutation, settles it.
    pub(super) fn set_reached(&mut self, reached: bool) {
        self.reached = reached;
    }

    /// Whether the bandwidth has stopped growing in this probe.
    pub(super) fn is_full(&self) -> bool {
        self.now
    }

    /// Whether the path's bandwidth was reached at all.
    pub(super) fn reached(&self) -> bool {
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn three_rounds_without_growth_fill_the_pipe() {
        let mut pipe = FullPipe::default();
        for rate in [100, 200, 400] {
            pipe.update(at(0), rate, true, true);
        }
        for _ in 0..2 {
            pipe.update(at(1), 490, true, true);
            pipe.update(at(1), 490, false, true);
        }
        assert!(!pipe.is_full());
        pipe.update(at(2), 499, true, true);
        assert!(pipe.is_full() && pipe.reached());
        pipe.reset(0);
        assert!(!pipe.is_full() && pipe.reached());
    }

    #[test]
    fn rounds_without_a_queue_fill_it_once_they_are_longer_than_a_pause() {
        for (round_ms, rounds) in [(10, 50), (100, 5), (200, 3), (400, 3)] {
            let mut pipe = FullPipe::default();
            pipe.update(at(0), 400, true, false);
            let counted = (1..100).take_while(|round| {
                pipe.update(at(round * round_ms), 400, true, false);
                !pipe.is_full()
            });
            assert_eq!(counted.count() + 1, rounds, "rounds of {round_ms} ms");
        }
    }
}
