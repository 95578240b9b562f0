//! What congestion has taught: the longest flight that was well, and what recent rounds leave of it.

/// Limits beside the model's own (draft-ietf-ccwg-bbr section 2.7); `u64::MAX` where nothing is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The longest flight without too much loss, bytes.
    pub(super) inflight_hi: u64,
    /// What recent congestion leaves of the flight, bytes.
    pub(super) inflight_lo: u64,
    /// What recent congestion leaves of the bandwidth, bytes per second.
    pub(super) bw_lo: u64,
}

impl Bounds {
    /// Nothing known.
    pub(super) const NONE: Self = Self { inflight_hi: u64::MAX, inflight_lo: u64::MAX, bw_lo: u64::MAX };

    /// A probe starts without what short congestion has taught.
    pub(super) fn reset_lower(&mut self) {
        (self.inflight_lo, self.bw_lo) = (u64::MAX, u64::MAX);
    }

    /// A round with congestion: keeps `beta` of both, no less than was just delivered.
    pub(super) fn lower(
        &mut self,
        beta: f64,
        (bandwidth, bw_latest): (u64, u64),
        (window, inflight_latest): (u64, u64),
    ) {
        let bandwidth = if self.bw_lo == u64::MAX { bandwidth } else { self.bw_lo };
        let window = if self.inflight_lo == u64::MAX { window } else { self.inflight_lo };
        self.bw_lo = bw_latest.max((bandwidth as f64 * beta) as u64);
        self.inflight_lo = inflight_latest.max((window as f64 * beta) as u64);
    }

    /// The greater of both, where a loss turned out to be none.
    pub(super) fn undo(&mut self, before: &Self) {
        self.inflight_hi = self.inflight_hi.max(before.inflight_hi);
        self.inflight_lo = self.inflight_lo.max(before.inflight_lo);
        self.bw_lo = self.bw_lo.max(before.bw_lo);
    }
}
