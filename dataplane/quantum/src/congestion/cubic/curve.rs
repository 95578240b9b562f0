//! How the window grows in congestion avoidance (RFC 9438 sections 4.2 to 4.5).

use std::time::Duration;

/// What congestion leaves of the window.
pub(super) const BETA: f64 = 0.7;
/// How steep the curve is, packets per second cubed.
const C: f64 = 0.4;
/// Packets per window with which a flow of Reno's kind, that backs off to `BETA`, is as fast as Reno.
const RENO_INCREASE: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);
/// A round trip raises the window by half of it at most.
const TARGET_MAX: f64 = 1.5;

/// The cubic curve since the last congestion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Curve {
    /// The window at which the curve is flat: that of the last congestion, or less where another flow wants room. Bytes.
    window_max: f64,
    /// The window before the last congestion, bytes.
    window_before: f64,
    epoch: Option<Epoch>,
}

/// The growth since the window began to grow again.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// Time of growth, seconds.
    time: f64,
    /// When the curve is flat, seconds.
    flat_at: f64,
    /// The curve's height there, bytes.
    origin: f64,
    /// What Reno would have, bytes.
    reno: f64,
    /// What growth has left of a byte.
    rest: f64,
}

impl Curve {
    /// Congestion at this window. A flow that did not get back to where it was leaves more room (fast convergence, section 4.7).
    pub(super) fn on_congestion(&mut self, window: u64) {
        let window = window as f64;
        self.window_max = if window < self.window_max { window * f64::midpoint(1.0, BETA) } else { window };
        self.window_before = window;
        self.epoch = None;
    }

    /// Growth starts over from the window that is then.
    pub(super) fn restart(&mut self) {
        self.epoch = None;
    }

    /// The window after `acked` bytes came, packets having `datagram` bytes, `elapsed` after the ones before.
    pub(super) fn grow(
        &mut self,
        window: u64,
        (datagram, acked): (u64, u64),
        (elapsed, rtt): (Duration, Duration),
    ) -> u64 {
        let (packet, acked, current) = (datagram as f64, acked as f64, window as f64);
        let (window_max, window_before) = (self.window_max, self.window_before);
        let epoch = self.epoch.get_or_insert_with(|| Epoch::new(current, window_max, packet));
        epoch.time += elapsed.as_secs_f64();
        let target = epoch.height(epoch.time + rtt.as_secs_f64(), packet).clamp(current, current * TARGET_MAX);
        let increase = if epoch.reno < window_before { RENO_INCREASE } else { 1.0 };
        epoch.reno += increase * packet * acked / current;
        let grown = if epoch.height(epoch.time, packet) < epoch.reno {
            epoch.reno.max(current)
        } else {
            current + (target - current) * acked / current + epoch.rest
        };
        epoch.rest = grown.fract();
        grown as u64
    }
}

impl Epoch {
    fn new(window: f64, window_max: f64, packet: f64) -> Self {
        let origin = window_max.max(window);
        let flat_at = ((origin - window) / packet / C).cbrt();
        Self { time: 0.0, flat_at, origin, reno: window, rest: 0.0 }
    }

    /// The curve's window after so many seconds, bytes.
    fn height(&self, time: f64, packet: f64) -> f64 {
        self.origin + C * (time - self.flat_at).powi(3) * packet
    }
}
