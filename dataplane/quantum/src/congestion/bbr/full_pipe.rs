//! Whether more in flight still brings more bandwidth (draft-ietf-ccwg-bbr section 5.3.1.2).

/// Bandwidth has to grow by this factor to be worth another round.
const GROWTH: f64 = 1.25;
/// Rounds without such growth after which the pipe is full.
const ROUNDS: u32 = 3;

/// The estimator.
#[derive(Debug, Default)]
pub(super) struct FullPipe {
    baseline: u64,
    rounds: u32,
    /// In this probe the bandwidth has stopped growing.
    now: bool,
    /// It has once since STARTUP began.
    reached: bool,
}

impl FullPipe {
    /// Takes the bandwidth that an acknowledgement showed, which was not the application's.
    pub(super) fn update(&mut self, rate: u64, round_started: bool) {
        if self.now {
            return;
        }
        if rate as f64 >= self.baseline as f64 * GROWTH {
            self.reset(rate);
            return;
        }
        if !round_started {
            return;
        }
        self.rounds += 1;
        self.now = self.rounds >= ROUNDS;
        self.reached |= self.now;
    }

    /// A probe starts over from `baseline`.
    pub(super) fn reset(&mut self, baseline: u64) {
        (self.baseline, self.rounds, self.now) = (baseline, 0, false);
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

    #[test]
    fn three_rounds_without_growth_fill_the_pipe() {
        let mut pipe = FullPipe::default();
        for rate in [100, 200, 400] {
            pipe.update(rate, true);
        }
        for _ in 0..2 {
            pipe.update(490, true);
            pipe.update(490, false);
        }
        assert!(!pipe.is_full());
        pipe.update(499, true);
        assert!(pipe.is_full() && pipe.reached());
        pipe.reset(0);
        assert!(!pipe.is_full() && pipe.reached());
    }
}
