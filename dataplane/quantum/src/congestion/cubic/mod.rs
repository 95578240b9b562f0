//! CUBIC (RFC 9438) with `HyStart++` (RFC 9406): any loss is congestion, and the window grows with the time since the last one.
//!
//! It fills a path without random loss and shares it with other loss-based flows; a path that loses packets by itself it leaves
//! nearly empty. Packets are paced somewhat faster than the window turns over.

mod curve;
mod hystart;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::round::Round;
use super::{CongestionConfig, PathView};
use crate::Time;
use crate::recovery::{RateSample, Stamp};
use crate::stats::CongestionStats;
use curve::{BETA, Curve};
use hystart::{HyStart, Phase};

/// Packets in flight at least (RFC 9438 section 4.6).
const WINDOW_PACKETS_MIN: u64 = 2;
/// Windows per round-trip time at which packets leave: twice in slow start, so that the window and not the pacer is its pace
/// (RFC 9002 section 7.7 asks for more than one).
const PACING_GAIN_SLOW_START: f64 = 2.0;
const PACING_GAIN: f64 = 1.2;
/// Assumed for the first pacing rate, while no round-trip time is known.
const RTT_NOMINAL: Duration = Duration::from_millis(1);

/// What a reduction changed.
#[derive(Clone, Copy, Debug)]
struct Before {
    window: u64,
    threshold: u64,
    curve: Curve,
}

/// The controller.
#[derive(Debug)]
pub(crate) struct Cubic {
    datagram: u64,
    window: u64,
    /// Slow start ends at this window.
    threshold: u64,
    curve: Curve,
    hystart: HyStart,
    round: Round,
    /// Losses of packets sent before then belong to the last reduction.
    reduced_at: Option<Time>,
    before: Option<Before>,
    acked_at: Option<Time>,
    rtt: Option<Duration>,
    pacing_rate: u64,
}

impl Cubic {
    /// Nothing sent.
    pub(super) fn new(config: &CongestionConfig) -> Self {
        let mut cubic = Self {
            datagram: u64::from(config.datagram_size),
            window: config.initial_window,
            threshold: u64::MAX,
            curve: Curve::default(),
            hystart: HyStart::default(),
            round: Round::default(),
            reduced_at: None,
            before: None,
            acked_at: None,
            rtt: None,
            pacing_rate: 0,
        };
        cubic.set_pacing_rate();
        cubic
    }

    /// A full packet has so many bytes from here on.
    pub(super) fn set_datagram_size(&mut self, size: u16) {
        self.datagram = u64::from(size);
    }

    /// A packet is lost: one reduction for all that were sent before it.
    pub(super) fn on_lost(&mut self, now: Time, stamp: &Stamp) {
        if self.reduced_at.is_none_or(|reduced_at| stamp.time_sent > reduced_at) {
            self.reduce(now);
        }
    }

    /// Something new was acknowledged.
    pub(super) fn on_ack(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        self.rtt = Some(path.rtt_smoothed);
        self.round.update(sample.prior_delivered, path.delivered);
        if path.ce && self.reduced_at.is_none_or(|reduced_at| now > reduced_at + path.rtt_smoothed) {
            self.reduce(now);
        }
        let elapsed = self.acked_at.replace(now).map_or(Duration::ZERO, |acked_at| now - acked_at);
        // What the application leaves unused shows nothing, and the time of it does not count (RFC 9438 section 5.8).
        if !sample.is_app_limited && !path.is_app_limited && !self.is_recovering(sample, now) {
            self.grow(elapsed, sample, path);
        }
        self.set_pacing_rate();
    }

    /// Everything was lost for long.
    pub(super) fn on_persistent_congestion(&mut self, now: Time) {
        if self.window > self.window_min() {
            self.reduce(now);
            self.before = None;
        }
        self.window = self.window_min();
        self.curve.restart();
        self.set_pacing_rate();
    }

    /// All recent losses were only late (RFC 9438 section 4.9.2).
    pub(super) fn on_losses_undone(&mut self) {
        if let Some(before) = self.before.take() {
            self.window = self.window.max(before.window);
            self.threshold = self.threshold.max(before.threshold);
            self.curve = before.curve;
            self.reduced_at = None;
            self.set_pacing_rate();
        }
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Bytes per second.
    pub(super) fn pacing_rate(&self) -> u64 {
        self.pacing_rate
    }

    /// Windows per round-trip time, in bytes per second: nothing better is known of the path.
    pub(super) fn known_bandwidth(&self) -> u64 {
        self.rtt.map_or(0, |rtt| rate(self.window, 1.0, rtt))
    }

    /// Fills in what the controller knows.
    pub(super) fn stats(&self, stats: &mut CongestionStats) {
        stats.state = match (self.is_slow_start(), self.hystart.phase()) {
            (false, _) => "congestion_avoidance",
            (true, Phase::SlowStart) => "slow_start",
            (true, Phase::Conservative) => "conservative_slow_start",
        };
        stats.bandwidth = self.known_bandwidth();
        stats.pacing_rate = self.pacing_rate;
        stats.window_bytes = self.window;
        stats.pacing_gain = self.pacing_gain();
        stats.window_gain = 1.0;
    }

    fn is_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Whether what is acknowledged was sent before the last reduction: the window rests for a round trip.
    fn is_recovering(&self, sample: &RateSample, now: Time) -> bool {
        let rtt = sample.rtt.or(self.rtt).unwrap_or_default();
        self.reduced_at.is_some_and(|reduced_at| now <= reduced_at + rtt)
    }

    fn grow(&mut self, elapsed: Duration, sample: &RateSample, path: &PathView) {
        if !self.is_slow_start() {
            let rtt = path.rtt_smoothed;
            self.window = self.curve.grow(self.window, (self.datagram, sample.newly_acked), (elapsed, rtt));
            return;
        }
        let is_over = self.hystart.on_ack(sample.rtt, self.round.started());
        self.window += sample.newly_acked / self.hystart.growth_divisor();
        self.window = self.window.min(self.threshold);
        if is_over {
            self.threshold = self.window;
        }
    }

    /// Congestion (RFC 9438 section 4.6).
    fn reduce(&mut self, now: Time) {
        self.before = Some(Before { window: self.window, threshold: self.threshold, curve: self.curve });
        self.reduced_at = Some(now);
        self.curve.on_congestion(self.window);
        self.window = ((self.window as f64 * BETA) as u64).max(self.window_min());
        self.threshold = self.window;
        self.hystart.restart();
        self.set_pacing_rate();
    }

    fn window_min(&self) -> u64 {
        WINDOW_PACKETS_MIN * self.datagram
    }

    fn pacing_gain(&self) -> f64 {
        if self.is_slow_start() { PACING_GAIN_SLOW_START } else { PACING_GAIN }
    }

    fn set_pacing_rate(&mut self) {
        self.pacing_rate = rate(self.window, self.pacing_gain(), self.rtt.unwrap_or(RTT_NOMINAL));
    }
}

/// `gain` windows per round-trip time.
fn rate(window: u64, gain: f64, rtt: Duration) -> u64 {
    (window as f64 * gain / rtt.as_secs_f64().max(1e-6)) as u64
}
