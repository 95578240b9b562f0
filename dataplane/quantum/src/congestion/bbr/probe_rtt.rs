//! `PROBE_RTT`: lets the queue go for a moment if the path's own round-trip time has not been seen for long
//! (draft-ietf-ccwg-bbr section 5.3.4).
//!
//! The flight drops to half a bandwidth-delay product, not to four packets: those cost seconds of messages on a long path. A
//! sender that the application limits has no queue of its own, so its samples are the path's.

use std::time::Duration;

use super::{Bbr, PathView, State};
use crate::Time;
use crate::recovery::RateSample;

/// Without a sample near the least one for so long, the queue has to go (`BBRProbeRTTInterval`).
const INTERVAL: Duration = Duration::from_secs(5);
/// It stays away for so long, and a round at least (`BBRProbeRTTDuration`).
const DURATION: Duration = Duration::from_millis(200);
/// Samples are near the least one within a sixty-fourth of it and what timers are off by.
const NEAR_SHARE: u32 = 64;
const NEAR: Duration = Duration::from_micros(100);
/// Bandwidth-delay products in flight meanwhile (`BBRProbeRTTCwndGain`).
pub(super) const WINDOW_GAIN: f64 = 0.5;

/// When the path's own round-trip time was seen, and how far a probe for it is.
#[derive(Debug, Default)]
pub(super) struct ProbeRtt {
    /// The least sample, and when one near it came last.
    least: Option<(Time, Duration)>,
    /// The flight is short until then.
    done_at: Option<Time>,
    round_done: bool,
    /// The least sample of what was sent while the flight was short.
    least_short: Option<Duration>,
    window_before: u64,
    /// The sender was idle, and nothing has been delivered since.
    pub(super) idle_restart: bool,
}

impl ProbeRtt {
    /// Takes a sample; whether none near the least has come for too long.
    fn update(&mut self, now: Time, rtt: Option<Duration>, is_app_limited: bool) -> bool {
        let Some(rtt) = rtt else { return false };
        let Some((seen, least)) = self.least else {
            self.least = Some((now, rtt));
            return false;
        };
        let expired = now - seen > INTERVAL;
        if expired {
            self.least = Some((now, rtt));
        } else if is_app_limited || rtt <= least + least / NEAR_SHARE + NEAR {
            self.least = Some((now, least.min(rtt)));
        }
        expired && !is_app_limited
    }
}

impl Bbr {
    /// Enters the state, stays, or leaves it.
    pub(super) fn update_probe_rtt(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        let expired = self.probe_rtt.update(now, sample.rtt, sample.is_app_limited);
        if matches!(self.state, State::ProbeBw(_)) && expired && !self.probe_rtt.idle_restart {
            self.cycle.stop_probing();
            self.probe_rtt.window_before = self.window;
            self.probe_rtt.done_at = None;
            self.state = State::ProbeRtt;
        }
        if self.state != State::ProbeRtt {
            return;
        }
        match self.probe_rtt.done_at {
            None if path.in_flight <= self.inflight(WINDOW_GAIN) => {
                self.probe_rtt.done_at = Some(now + DURATION);
                (self.probe_rtt.round_done, self.probe_rtt.least_short) = (false, None);
                self.round.restart(path.delivered);
            }
            None => {}
            Some(done_at) => {
                self.probe_rtt.round_done |= self.round.started();
                if self.probe_rtt.round_done {
                    self.probe_rtt.least_short = self.probe_rtt.least_short.into_iter().chain(sample.rtt).min();
                }
                if self.probe_rtt.round_done && now >= done_at {
                    self.bounds.reset_lower();
                    self.window = self.window.max(self.probe_rtt.window_before);
                    self.notice_longer_path(now);
                    self.enter_probe_bw(now);
                }
            }
        }
    }
}

impl Bbr {
    /// What took longer even while hardly anything was in flight did so by the path's own time, not by a queue of this flow.
    fn notice_longer_path(&mut self, now: Time) {
        let (Some(least), Some(known)) = (self.probe_rtt.least_short, self.model.rtt_min.min()) else { return };
        if least > known + known / NEAR_SHARE + NEAR {
            self.model.rtt_min.restart(now, least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::CongestionConfig;
    use super::*;
    use crate::stats::CongestionStats;

    const RTT: Duration = Duration::from_millis(50);
    /// Bytes per second; one packet of 1,000 bytes a millisecond.
    const RATE: u64 = 1_000_000;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    /// A path that delivers at its rate whatever is sent; gives the states that were passed, each with the least window in it.
    fn run(seconds: u64, is_app_limited: bool, rtt: impl Fn(u64, u64) -> Duration) -> Vec<(&'static str, u64)> {
        let config = CongestionConfig { datagram_size: 1_000, initial_window: 10_000, seed: 1 };
        let mut bbr = Bbr::new(at(0), &config);
        let mut states: Vec<(&'static str, u64)> = Vec::new();
        for millis in 0..seconds * 1_000 {
            let delivered = (millis + 1) * 1_000;
            let in_flight = bbr.window().min(50_000);
            let path = PathView {
                in_flight,
                delivered,
                lost: 0,
                rtt_smoothed: RTT,
                is_window_limited: !is_app_limited,
                is_app_limited,
                ce: false,
            };
            let sample = RateSample {
                delivery_rate: Some(RATE),
                is_app_limited,
                delivered: 50_000,
                prior_delivered: delivered.saturating_sub(50_000),
                in_flight_at_send: in_flight,
                lost: 0,
                newly_acked: 1_000,
                newly_lost: 0,
                rtt: Some(rtt(millis, in_flight)),
            };
            bbr.on_ack(at(millis), &sample, &path);
            let mut stats = CongestionStats::default();
            bbr.stats(&mut stats);
            match states.last_mut() {
                Some((state, least)) if *state == stats.state => *least = bbr.window().min(*least),
                _ => states.push((stats.state, bbr.window())),
            }
        }
        states
    }

    #[test]
    fn a_queue_that_never_goes_is_let_go_to_half_the_product() {
        // The path's own time shows only in the first second and while the flight is short.
        let states =
            run(30, false, |millis, in_flight| if millis < 1_000 || in_flight < 40_000 { RTT } else { RTT * 3 / 2 });
        let probes: Vec<u64> =
            states.iter().filter(|(state, _)| *state == "probe_rtt").map(|(_, least)| *least).collect();
        assert!((4..=6).contains(&probes.len()), "every five seconds: {states:?}");
        assert!(probes.iter().all(|least| *least == 25_000), "{probes:?}");
        assert_ne!(states.last().map(|(state, _)| *state), Some("probe_rtt"), "it ends");
    }

    #[test]
    fn a_path_whose_own_time_shows_is_left_alone() {
        let states = run(30, false, |millis, _| if millis % 3_000 == 0 { RTT } else { RTT * 3 / 2 });
        assert!(states.iter().all(|(state, _)| *state != "probe_rtt"), "{states:?}");
    }

    #[test]
    fn an_application_limited_sender_never_pays_for_it() {
        let states = run(30, true, |millis, _| RTT + Duration::from_micros(millis * 7_919 % 20_000));
        assert!(states.iter().all(|(state, _)| *state != "probe_rtt"), "{states:?}");
    }
}
