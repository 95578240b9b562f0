//! DRAIN: takes the queue away that STARTUP has built (draft-ietf-ccwg-bbr section 5.3.2).

use super::{Bbr, State};
use crate::Time;

/// The reciprocal of STARTUP's window gain: the queue is gone in about a round.
pub(super) const PACING_GAIN: f64 = 0.5;

impl Bbr {
    /// The pipe is full.
    pub(super) fn enter_drain(&mut self, now: Time) {
        self.state = State::Drain;
        self.cycle.start_phase(now, self.round.count());
    }

    /// Ends DRAIN once no more is in flight than the path itself holds.
    pub(super) fn check_drain_done(&mut self, now: Time, in_flight: u64) {
        if self.state == State::Drain && in_flight <= self.inflight(1.0) {
            self.enter_probe_bw(now);
        }
    }
}
