//! STARTUP: doubles the rate each round until the pipe is full (draft-ietf-ccwg-bbr section 5.3.1).

use super::{Bbr, State};
use crate::Time;
use crate::recovery::RateSample;

/// 4 ln 2: the least factor that lets the rate double each round.
pub(super) const PACING_GAIN: f64 = 2.77;
/// Window, in bandwidth-delay products.
pub(super) const WINDOW_GAIN: f64 = 2.0;
/// Losses in a round that end STARTUP, if they count and are more than the threshold (`BBRStartupFullLossCnt`).
const LOSSES_MIN: u32 = 6;

impl Bbr {
    /// Starts over.
    pub(super) fn enter_startup(&mut self) {
        self.state = State::Startup;
    }

    /// Ends STARTUP once the pipe is full, by bandwidth or by losses that count.
    pub(super) fn check_startup_done(&mut self, now: Time, sample: &RateSample) {
        if self.state != State::Startup {
            return;
        }
        self.check_startup_loss(sample);
        if self.full_pipe.reached() {
            self.enter_drain(now);
        }
    }

    fn check_startup_loss(&mut self, sample: &RateSample) {
        if !self.loss_round.started() || sample.is_app_limited {
            return;
        }
        let share = sample.lost as f64 / sample.in_flight_at_send.max(1) as f64;
        if self.startup_losses >= LOSSES_MIN
            && self.loss_rule.last_round_counted()
            && share > self.loss_rule.startup_threshold()
        {
            self.full_pipe.set_reached(true);
            self.bounds.inflight_hi = self.inflight(1.0).max(self.model.inflight_latest);
        }
    }
}
