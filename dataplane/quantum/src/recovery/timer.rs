//! The probe timer (RFC 9002 section 6.2): packets that go unanswered are asked about.

use std::time::Duration;

use super::{RecoveryConfig, Rtt};
use crate::{Side, Time};

/// Probes that one timeout asks for: the second covers the loss of the first.
const PROBES: u8 = 2;
/// The timeout doubles each time it fires in vain, up to this: after a blackout a path is found again soon.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Doublings counted at most, so that the count does not overflow.
const BACKOFF_MAX: u32 = 16;

/// When to probe, and how many probes are due.
#[derive(Debug)]
pub(crate) struct ProbeTimer {
    granularity: Duration,
    period_min: Duration,
    /// A client probes with nothing in flight until the handshake is confirmed: the server may have no right to send.
    keeps_handshake: bool,
    confirmed: bool,
    /// The last ack-eliciting packet, acknowledgement or timeout.
    anchor: Time,
    backoff: u32,
    pending: u8,
    fired: u64,
}

impl ProbeTimer {
    /// Nothing sent.
    pub(crate) fn new(now: Time, config: &RecoveryConfig) -> Self {
        Self {
            granularity: config.pto_granularity,
            period_min: config.pto_min,
            keeps_handshake: config.side == Side::Client,
            confirmed: false,
            anchor: now,
            backoff: 0,
            pending: 0,
            fired: 0,
        }
    }

    /// An ack-eliciting packet left.
    pub(crate) fn on_eliciting_sent(&mut self, now: Time) {
        self.anchor = now;
    }

    /// Something was acknowledged; `outstanding` ack-eliciting packets remain.
    pub(crate) fn on_newly_acked(&mut self, now: Time, outstanding: bool) {
        self.backoff = 0;
        self.pending = 0;
        if !outstanding {
            self.anchor = now;
        }
    }

    /// The timeout without backoff.
    pub(crate) fn period(&self, rtt: &Rtt) -> Duration {
        // The peer waits no longer than an eighth of the round trip, which it may measure somewhat longer.
        let delay = if self.confirmed { rtt.ack_delay_max().min(rtt.smoothed() / 4) } else { Duration::ZERO };
        (rtt.probe_timeout(self.granularity) + delay).max(self.period_min)
    }

    /// When it fires.
    pub(crate) fn next(&self, rtt: &Rtt, outstanding: bool) -> Option<Time> {
        let armed = outstanding || (self.keeps_handshake && !self.confirmed);
        let period = self.period(rtt);
        armed.then(|| self.anchor + (period * 2_u32.pow(self.backoff)).min(TIMEOUT_MAX.max(period)))
    }

    /// It fired.
    pub(crate) fn on_fired(&mut self, now: Time) {
        self.anchor = now;
        self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
        self.pending = PROBES;
        self.fired += 1;
    }

    /// Probes that are due.
    pub(crate) fn probes_pending(&self) -> u8 {
        self.pending
    }

    /// Probes that the last timeout has got.
    pub(crate) fn probes_sent(&self) -> usize {
        usize::from(PROBES - self.pending)
    }

    /// A probe left.
    pub(crate) fn on_probe_sent(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Keys are gone, and with them what the backoff was about.
    pub(crate) fn on_keys_discarded(&mut self) {
        self.backoff = 0;
        self.pending = 0;
    }

    /// The handshake is confirmed.
    pub(crate) fn set_handshake_confirmed(&mut self) {
        self.confirmed = true;
    }

    /// Times that it fired.
    pub(crate) fn fired(&self) -> u64 {
        self.fired
    }
}
