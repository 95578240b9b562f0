//! `HyStart++` (RFC 9406): leaves slow start when the round-trip time begins to grow, before the queue is full.

use std::time::Duration;

/// Growth of the round-trip time that counts: an eighth of it, within these.
const GROWTH_MIN: Duration = Duration::from_millis(4);
const GROWTH_MAX: Duration = Duration::from_millis(16);
const GROWTH_DIVISOR: u32 = 8;
/// Samples of a round that are enough to judge it.
const SAMPLES_MIN: u32 = 8;
/// Conservative slow start lasts for so many rounds, at so small a part of the growth.
const CONSERVATIVE_ROUNDS: u32 = 5;
const CONSERVATIVE_DIVISOR: u64 = 4;

/// Which growth it is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The window doubles each round.
    #[default]
    SlowStart,
    /// The round-trip time has grown: perhaps the pipe is full.
    Conservative,
}

/// The judgement of slow start.
#[derive(Debug, Default)]
pub(super) struct HyStart {
    phase: Phase,
    /// Least round-trip times of the last round and of this one.
    last: Option<Duration>,
    current: Option<Duration>,
    samples: u32,
    /// That of the round which ended slow start.
    baseline: Option<Duration>,
    conservative_rounds: u32,
}

impl HyStart {
    /// Starts over.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Which growth it is at.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The window grows by what is acknowledged, divided by this.
    pub(super) fn growth_divisor(&self) -> u64 {
        if self.phase == Phase::Conservative { CONSERVATIVE_DIVISOR } else { 1 }
    }

    /// Something was acknowledged, and perhaps a round begins with it; whether slow start is over.
    pub(super) fn on_ack(&mut self, rtt: Option<Duration>, round_started: bool) -> bool {
        if round_started {
            self.last = self.current.take();
            self.samples = 0;
            if self.phase == Phase::Conservative {
                self.conservative_rounds += 1;
                if self.conservative_rounds > CONSERVATIVE_ROUNDS {
                    return true;
                }
            }
        }
        if let Some(rtt) = rtt {
            self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
            self.samples += 1;
        }
        if let Some(current) = self.current.filter(|_| self.samples >= SAMPLES_MIN) {
            self.judge(current);
        }
        false
    }

    fn judge(&mut self, current: Duration) {
        match self.phase {
            Phase::SlowStart => {
                let grown = |last: Duration| current >= last + (last / GROWTH_DIVISOR).clamp(GROWTH_MIN, GROWTH_MAX);
                if self.last.is_some_and(grown) {
                    (self.phase, self.baseline, self.conservative_rounds) = (Phase::Conservative, Some(current), 0);
                }
            }
            // It was jitter.
            Phase::Conservative if self.baseline.is_some_and(|baseline| current < baseline) => {
                (self.phase, self.baseline) = (Phase::SlowStart, None);
            }
            Phase::Conservative => {}
        }
    }
}
