//! `PROBE_BW`: cruises at the bandwidth and probes every few seconds for more (draft-ietf-ccwg-bbr section 5.3.3).

use std::time::Duration;

use super::{Bbr, PathView, State};
use crate::Time;
use crate::recovery::{RateSample, Stamp};

/// What a response to congestion leaves (`BBRBeta`).
pub(super) const BETA: f64 = 0.7;
/// Share of the longest flight that CRUISE leaves to others (`BBRHeadroom`).
const HEADROOM: f64 = 0.15;
/// Between two probes lie this long and a random second.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Rounds between two probes at most, so that flows of Reno's size are not starved (draft section 5.3.3.3).
const PROBE_ROUNDS_MAX: u64 = 63;
/// Steps of growth of one probe, each twice the one before.
const UP_ROUNDS_MAX: u32 = 30;

/// Of a flight that was too large a flow keeps this share: one that has more gives more, and each probe gains all the same. The
/// draft keeps the flight, and flows that have once got unequal shares keep those.
const KEPT: f64 = 0.7;

/// A phase of the cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Drains the queue that UP has built.
    Down,
    /// Sends as fast as the path delivers.
    Cruise,
    /// Fills the pipe for a round, so that UP starts from a full one.
    Refill,
    /// Sends faster, to see whether the path delivers more.
    Up,
}

/// Which packets the acknowledgements are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// Where in the cycle the controller is.
#[derive(Debug)]
pub(super) struct Cycle {
    phase_start: Time,
    phase_start_round: u64,
    down_start: Time,
    down_start_round: u64,
    wait: Duration,
    rounds_max: u64,
    ack_phase: AckPhase,
    /// Acknowledgements and losses are of packets that probed: they may lower the longest flight.
    probe_samples: bool,
    up_rounds: u32,
    up_acked: u64,
    random: u64,
}

impl Cycle {
    /// Before the first cycle.
    pub(super) fn new(now: Time, seed: u64) -> Self {
        Self {
            phase_start: now,
            phase_start_round: 0,
            down_start: now,
            down_start_round: 0,
            wait: PROBE_WAIT,
            rounds_max: PROBE_ROUNDS_MAX,
            ack_phase: AckPhase::Init,
            probe_samples: false,
            up_rounds: 0,
            up_acked: 0,
            random: seed,
        }
    }

    /// A phase starts in round `round`.
    pub(super) fn start_phase(&mut self, now: Time, round: u64) {
        self.phase_start = now;
        self.phase_start_round = round;
    }

    /// Whether what is acknowledged in round `round` was sent in this phase.
    pub(super) fn is_settled(&self, round: u64) -> bool {
        round >= self.phase_start_round + 2
    }

    /// What is acknowledged from here on was not sent to probe.
    pub(super) fn stop_probing(&mut self) {
        self.probe_samples = false;
        self.ack_phase = AckPhase::Init;
    }

    fn pick_wait(&mut self) {
        // splitmix64: the low bits decide only how long a flow waits.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 27;
        self.wait = PROBE_WAIT + Duration::from_nanos(mixed % 1_000_000_000);
        self.rounds_max = PROBE_ROUNDS_MAX - (mixed >> 32) % 2;
    }
}

impl Bbr {
    /// The first cycle, after DRAIN.
    pub(super) fn enter_probe_bw(&mut self, now: Time) {
        self.start_down(now);
    }

    /// Moves on to the next phase when it is time.
    pub(super) fn update_cycle(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        if !self.full_pipe.reached() {
            return;
        }
        self.adapt_upper_bounds(now, sample, path);
        let State::ProbeBw(phase) = self.state else { return };
        match phase {
            Phase::Down => {
                if self.has_waited(now) {
                    self.start_refill(now, path);
                } else if self.is_time_to_cruise(path.in_flight) {
                    self.start_cruise(now);
                }
            }
            Phase::Cruise => {
                if self.is_time_to_probe(now) {
                    self.start_refill(now, path);
                }
            }
            Phase::Refill => {
                if self.round.started() && self.round.count() > self.cycle.phase_start_round + 1 {
                    self.cycle.probe_samples = true;
                    self.start_up(now, path);
                }
            }
            Phase::Up => {
                if self.is_time_to_go_down(now, sample, path) {
                    self.start_down(now);
                }
            }
        }
    }

    fn enter_phase(&mut self, now: Time, phase: Phase) {
        self.state = State::ProbeBw(phase);
        self.cycle.start_phase(now, self.round.count());
    }

    fn start_down(&mut self, now: Time) {
        self.model.reset_latest();
        self.cycle.pick_wait();
        self.cycle.ack_phase = AckPhase::ProbeStopping;
        self.cycle.down_start = now;
        self.cycle.down_start_round = self.round.count();
        self.enter_phase(now, Phase::Down);
    }

    fn start_cruise(&mut self, now: Time) {
        self.enter_phase(now, Phase::Cruise);
    }

    fn start_refill(&mut self, now: Time, path: &PathView) {
        self.bounds.reset_lower();
        self.cycle.up_rounds = 0;
        self.cycle.up_acked = 0;
        self.cycle.ack_phase = AckPhase::Refilling;
        self.round.restart(path.delivered);
        self.enter_phase(now, Phase::Refill);
    }

    /// Sends faster than the path has delivered, again if a loss that ended it was none.
    pub(super) fn start_up(&mut self, now: Time, path: &PathView) {
        self.cycle.ack_phase = AckPhase::ProbeStarting;
        self.round.restart(path.delivered);
        self.full_pipe.reset(self.model.bandwidth.max());
        self.enter_phase(now, Phase::Up);
    }

    fn has_waited(&self, now: Time) -> bool {
        now - self.cycle.down_start >= self.cycle.wait
    }

    fn is_time_to_probe(&self, now: Time) -> bool {
        let target = self.target_inflight() / u64::from(self.config.datagram_size);
        self.has_waited(now)
            || self.round.count() - self.cycle.down_start_round >= target.clamp(1, self.cycle.rounds_max)
    }

    fn is_time_to_cruise(&self, in_flight: u64) -> bool {
        in_flight <= self.inflight_with_headroom() && in_flight <= self.inflight(1.0)
    }

    fn is_time_to_go_down(&mut self, now: Time, sample: &RateSample, path: &PathView) -> bool {
        if path.is_window_limited && self.window >= self.bounds.inflight_hi {
            // The longest flight, not the path, may hold the bandwidth: growth of that flight starts the count over.
            self.full_pipe.reset(sample.delivery_rate.unwrap_or(0));
        } else if self.full_pipe.is_full() {
            return true;
        }
        let rtt_min = self.model.rtt_min.min().unwrap_or(path.rtt_smoothed);
        now - self.cycle.phase_start >= rtt_min && path.in_flight >= self.inflight(self.state.pacing_gain())
    }

    /// The longest flight, less what CRUISE leaves to others.
    pub(super) fn inflight_with_headroom(&self) -> u64 {
        let longest = self.bounds.inflight_hi;
        if longest == u64::MAX {
            return u64::MAX;
        }
        let headroom = ((longest as f64 * HEADROOM) as u64).max(u64::from(self.config.datagram_size));
        longest.saturating_sub(headroom).max(self.window_min())
    }

    fn target_inflight(&self) -> u64 {
        self.inflight(1.0).min(self.window)
    }

    /// Lets the longest flight grow or shrink by what the probe shows (draft section 5.5.10.2).
    fn adapt_upper_bounds(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        let cycle = &mut self.cycle;
        if cycle.ack_phase == AckPhase::ProbeStarting && self.round.started() {
            cycle.ack_phase = AckPhase::ProbeFeedback;
        }
        if cycle.ack_phase == AckPhase::ProbeStopping && self.round.started() {
            cycle.probe_samples = false;
            cycle.ack_phase = AckPhase::Init;
            if matches!(self.state, State::ProbeBw(_)) && !sample.is_app_limited {
                self.model.bandwidth.advance();
            }
        }
        if self.is_inflight_too_high(sample.lost, sample.in_flight_at_send) {
            if self.cycle.probe_samples {
                self.handle_inflight_too_high(now, sample.in_flight_at_send, sample.is_app_limited);
            }
            return;
        }
        if self.bounds.inflight_hi == u64::MAX {
            return;
        }
        self.bounds.inflight_hi = self.bounds.inflight_hi.max(sample.in_flight_at_send);
        if self.state == State::ProbeBw(Phase::Up) {
            self.raise_inflight_hi(sample, path);
        }
    }

    fn raise_inflight_hi(&mut self, sample: &RateSample, path: &PathView) {
        if !path.is_window_limited || self.window < self.bounds.inflight_hi {
            return;
        }
        let datagram = u64::from(self.config.datagram_size);
        self.cycle.up_acked += sample.newly_acked;
        // One packet more per so many acknowledged bytes; twice as many packets each round.
        let step = (self.window >> self.cycle.up_rounds).max(datagram);
        self.bounds.inflight_hi += self.cycle.up_acked / step * datagram;
        self.cycle.up_acked %= step;
        if self.round.started() {
            self.cycle.up_rounds = (self.cycle.up_rounds + 1).min(UP_ROUNDS_MAX);
        }
    }

    /// More of a flight was lost than the path loses by itself, and it counts.
    fn is_inflight_too_high(&self, lost: u64, in_flight_at_send: u64) -> bool {
        lost as f64 > self.loss_rule.threshold() * in_flight_at_send as f64
            && self.loss_rule.counts(self.model.rtt_min.min())
    }

    /// A packet of a probe is lost: finds the flight at which loss went over the threshold (draft section 5.5.10.2).
    pub(super) fn check_probe_loss(&mut self, now: Time, size: u16, stamp: &Stamp, lost_total: u64) {
        let lost = lost_total - stamp.lost.min(lost_total);
        if !self.cycle.probe_samples || !self.is_inflight_too_high(lost, stamp.in_flight) {
            return;
        }
        let size = f64::from(size);
        let threshold = self.loss_rule.threshold();
        let (flight, lost) = (stamp.in_flight as f64 - size, lost as f64 - size);
        let prefix = ((threshold * flight - lost) / (1.0 - threshold)).clamp(0.0, size);
        self.handle_inflight_too_high(now, (flight + prefix) as u64, stamp.is_app_limited);
    }

    fn handle_inflight_too_high(&mut self, now: Time, flight: u64, is_app_limited: bool) {
        self.cycle.probe_samples = false;
        if !is_app_limited {
            let kept = (flight as f64 * KEPT).max(self.target_inflight() as f64 * BETA);
            self.bounds.inflight_hi = (kept as u64).max(self.window_min());
        }
        if self.state == State::ProbeBw(Phase::Up) {
            self.start_down(now);
        }
    }
}
