//! What recovery tells of itself.

use super::Recovery;
use crate::{ConnectionStats, TrafficStats};

impl Recovery {
    /// Fills in what recovery knows.
    pub(crate) fn stats(&self, stats: &mut ConnectionStats) {
        stats.packets_sent = self.counters.packets_sent;
        stats.bytes_sent = self.counters.bytes_sent;
        stats.packets_lost = self.counters.packets_lost;
        stats.congestion.spurious_losses = self.counters.spurious_losses;
        stats.congestion.persistent_congestions = self.counters.persistent_congestions;
        stats.probe_timeouts = self.timer.fired();
        if self.rtt.min().is_some() {
            stats.rtt_smoothed = self.rtt.smoothed();
            stats.rtt_min = self.rtt.min().unwrap_or_default();
            stats.congestion.rtt_latest = self.rtt.latest();
        }
        self.controller.stats(&mut stats.congestion);
        stats.congestion.in_flight_bytes = self.sent.in_flight();
    }

    /// Fills in what is counted of the traffic.
    pub(crate) fn traffic(&self, traffic: &mut TrafficStats) {
        traffic.packets_sent = self.counters.packets_sent;
        traffic.packets_lost = self.counters.packets_lost;
        traffic.window_bytes = self.window();
        traffic.in_flight_bytes = self.in_flight();
    }
}
