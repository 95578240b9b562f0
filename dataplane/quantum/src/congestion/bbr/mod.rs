//! BBR version 3 (draft-ietf-ccwg-bbr): a model of the path's bandwidth and round-trip time, from delivery-rate samples.
//!
//! What differs from the draft: losses count as congestion only by the rule of `loss_rule`; what a path loses by itself is paced
//! on top of the model's bandwidth, which is a rate of delivery; a flight that was too large is cut to a share of it, and a probe
//! has the same number of packets more for every flow (`probe_bw`), so that ten flows come to share a path within seconds; and
//! before CRUISE a flow waits for the next probe by time alone, or small flows would do nothing but probe.

mod bounds;
mod drain;
mod filter;
mod full_pipe;
mod loss_rule;
mod probe_bw;
mod probe_rtt;
mod startup;

use std::time::Duration;

use super::round::Round;
use super::{CongestionConfig, PathView};
use crate::Time;
use crate::recovery::{RateSample, Stamp};
use crate::stats::CongestionStats;
use bounds::Bounds;
use filter::{BandwidthFilter, ExtraAcked, RttMinFilter};
use full_pipe::FullPipe;
use loss_rule::LossRule;
use probe_bw::{BETA, Cycle, Phase};
use probe_rtt::ProbeRtt;

/// The pacing rate stays so far below the bandwidth, to keep queues short (`BBRPacingMarginPercent`).
const PACING_MARGIN: f64 = 0.01;
/// Packets in flight that keep acknowledgements coming (`BBRMinPipeCwnd`).
const WINDOW_PACKETS_MIN: u64 = 4;
/// Packets that a probe's flight has beyond its gain: as many for a small flow as for a large one, so that those that share a
/// queue come to have the same. The draft has 2, for segmented sends.
const PROBE_PACKETS: u64 = 8;
/// Assumed for the first pacing rate, while no round-trip time is known.
const RTT_NOMINAL: Duration = Duration::from_millis(1);
/// Loss of the path that pacing makes up for, at most.
const LOSS_COMPENSATED_MAX: f64 = 0.3;

/// What the controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Startup,
    Drain,
    ProbeBw(Phase),
    ProbeRtt,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Drain => "drain",
            Self::ProbeBw(Phase::Down) => "probe_bw_down",
            Self::ProbeBw(Phase::Cruise) => "probe_bw_cruise",
            Self::ProbeBw(Phase::Refill) => "probe_bw_refill",
            Self::ProbeBw(Phase::Up) => "probe_bw_up",
            Self::ProbeRtt => "probe_rtt",
        }
    }

    fn pacing_gain(self) -> f64 {
        match self {
            Self::Startup => startup::PACING_GAIN,
            Self::Drain => drain::PACING_GAIN,
            Self::ProbeBw(Phase::Down) => 0.9,
            Self::ProbeBw(Phase::Cruise | Phase::Refill) | Self::ProbeRtt => 1.0,
            Self::ProbeBw(Phase::Up) => 1.25,
        }
    }

    fn window_gain(self) -> f64 {
        match self {
            Self::Startup | Self::Drain => startup::WINDOW_GAIN,
            Self::ProbeBw(Phase::Up) => 2.25,
            Self::ProbeBw(_) => 2.0,
            Self::ProbeRtt => probe_rtt::WINDOW_GAIN,
        }
    }

    /// The controller sends more to see what happens: losses do not lower the lower bounds.
    fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::ProbeBw(Phase::Refill | Phase::Up))
    }
}

/// What is known of the path.
#[derive(Debug)]
struct Model {
    bandwidth: BandwidthFilter,
    rtt_min: RttMinFilter,
    extra_acked: ExtraAcked,
    /// The greatest of the loss round: bytes per second, bytes.
    bw_latest: u64,
    inflight_latest: u64,
}

impl Model {
    fn reset_latest(&mut self) {
        (self.bw_latest, self.inflight_latest) = (0, 0);
    }
}

/// The controller.
#[derive(Debug)]
pub(crate) struct Bbr {
    config: CongestionConfig,
    state: State,
    model: Model,
    bounds: Bounds,
    /// State and bounds before the losses of this round.
    before_loss: (State, Bounds),
    round: Round,
    loss_round: Round,
    full_pipe: FullPipe,
    loss_rule: LossRule,
    cycle: Cycle,
    startup_losses: u32,
    loss_in_round: bool,
    window: u64,
    pacing_rate: u64,
    probe_rtt: ProbeRtt,
}

impl Bbr {
    /// Nothing sent.
    pub(super) fn new(now: Time, config: &CongestionConfig) -> Self {
        Self {
            config: *config,
            state: State::Startup,
            model: Model {
                bandwidth: BandwidthFilter::default(),
                rtt_min: RttMinFilter::default(),
                extra_acked: ExtraAcked::new(now),
                bw_latest: 0,
                inflight_latest: 0,
            },
            bounds: Bounds::NONE,
            before_loss: (State::Startup, Bounds::NONE),
            round: Round::default(),
            loss_round: Round::default(),
            full_pipe: FullPipe::default(),
            loss_rule: LossRule::new(config.datagram_size),
            cycle: Cycle::new(now, config.seed),
            startup_losses: 0,
            loss_in_round: false,
            window: config.initial_window,
            pacing_rate: nominal_rate(config.initial_window, RTT_NOMINAL),
            probe_rtt: ProbeRtt::default(),
        }
    }

    /// A packet is about to leave: after a pause the rate of the model is right, not that of a probe.
    pub(super) fn on_send(&mut self, now: Time, path: &PathView) {
        if path.in_flight != 0 || !path.is_app_limited {
            return;
        }
        self.probe_rtt.idle_restart = true;
        self.model.extra_acked.restart(now);
        if matches!(self.state, State::ProbeBw(_)) {
            self.set_pacing_rate(1.0);
        }
    }

    /// A packet is lost.
    pub(super) fn on_lost(&mut self, now: Time, size: u16, stamp: &Stamp, path: &PathView) {
        if !self.loss_in_round {
            self.loss_in_round = true;
            self.loss_round.restart(path.delivered);
            self.before_loss = (self.state, self.bounds);
        }
        self.startup_losses += 1;
        self.check_probe_loss(now, size, stamp, path.lost);
    }

    /// Something new was acknowledged.
    pub(super) fn on_ack(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        self.update_model(now, sample, path);
        if !self.full_pipe.reached() || self.state == State::ProbeBw(Phase::Up) {
            self.update_full_pipe(now, sample);
        }
        self.check_startup_done(now, sample);
        self.check_drain_done(now, path.in_flight);
        self.update_cycle(now, sample, path);
        if let Some(rtt) = sample.rtt {
            self.first_rtt(rtt);
            self.model.rtt_min.update(now, rtt);
        }
        if self.loss_round.started() {
            self.model.bw_latest = sample.delivery_rate.unwrap_or(0);
            self.model.inflight_latest = sample.delivered;
            self.startup_losses = 0;
        }
        self.update_probe_rtt(now, sample, path);
        self.probe_rtt.idle_restart &= sample.delivered == 0;
        self.set_pacing_rate(self.state.pacing_gain());
        self.set_window(sample, path);
    }

    /// Everything was lost for long: starts with the least window; acknowledgements let it grow to the model's again.
    pub(super) fn on_persistent_congestion(&mut self) {
        self.window = self.window_min();
    }

    /// All recent losses were only late: undoes what they did.
    pub(super) fn on_losses_undone(&mut self, now: Time) {
        let (state, bounds) = self.before_loss;
        self.loss_in_round = false;
        self.bounds.undo(&bounds);
        self.full_pipe.reset(0);
        if state == State::Startup && self.state != State::Startup && self.bounds.inflight_hi == u64::MAX {
            self.full_pipe.set_reached(false);
            self.cycle.start_phase(now, self.round.count());
            self.enter_startup();
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

    /// The greatest bandwidth that the path has shown of late.
    pub(super) fn known_bandwidth(&self) -> u64 {
        self.model.bandwidth.max()
    }

    /// A full packet has so many bytes from here on.
    pub(super) fn set_datagram_size(&mut self, size: u16) {
        self.config.datagram_size = size;
        self.loss_rule.set_datagram_size(size);
    }

    /// Fills in what the controller knows.
    pub(super) fn stats(&self, stats: &mut CongestionStats) {
        stats.state = self.state.name();
        stats.bandwidth = self.bandwidth();
        stats.pacing_rate = self.pacing_rate;
        stats.window_bytes = self.window;
        stats.pacing_gain = self.state.pacing_gain();
        stats.window_gain = self.state.window_gain();
    }

    fn update_model(&mut self, now: Time, sample: &RateSample, path: &PathView) {
        self.round.update(sample.prior_delivered, path.delivered);
        self.loss_round.update(sample.prior_delivered, path.delivered);
        let rate = sample.delivery_rate.unwrap_or(0);
        self.model.bw_latest = self.model.bw_latest.max(rate);
        self.model.inflight_latest = self.model.inflight_latest.max(sample.delivered);
        if rate > 0 && (rate >= self.model.bandwidth.max() || !sample.is_app_limited) {
            self.model.bandwidth.update(rate);
        }
        self.loss_rule.on_ack(sample.newly_acked, sample.newly_lost, sample.rtt, path.ce);
        if self.loss_round.started() {
            let steady = !self.state.is_probing() && self.cycle.is_settled(self.round.count());
            self.loss_rule.end_round(self.model.rtt_min.min(), steady);
            if self.loss_rule.last_round_counted() && !self.state.is_probing() {
                let bandwidths = (self.model.bandwidth.max(), self.model.bw_latest);
                self.bounds.lower(BETA, bandwidths, (self.window, self.model.inflight_latest));
            }
            if self.loss_rule.shows_slower_path() && self.full_pipe.reached() {
                self.model.bandwidth.limit(self.model.bw_latest);
                self.bounds.bw_lo = self.bounds.bw_lo.min(self.model.bw_latest);
            }
            self.loss_in_round = false;
        }
        let bandwidth = self.bandwidth();
        self.model.extra_acked.update(now, sample.newly_acked, self.round.count(), (bandwidth, self.window));
    }

    fn update_full_pipe(&mut self, now: Time, sample: &RateSample) {
        if let Some(rate) = sample.delivery_rate
            && !sample.is_app_limited
        {
            // Later probes end as the draft has it: what they start from is known.
            let has_queue = self.state != State::Startup
                || self.loss_rule.last_round_had_queue()
                || self.loss_rule.last_round_counted();
            self.full_pipe.update(now, rate, self.round.started(), has_queue);
        }
    }

    /// The first round-trip time makes the first pacing rate a real one.
    fn first_rtt(&mut self, rtt: Duration) {
        if self.model.rtt_min.min().is_none() {
            self.pacing_rate = nominal_rate(self.config.initial_window, rtt);
        }
    }

    /// The bandwidth to send at: the model's, and what recent congestion leaves of it.
    fn bandwidth(&self) -> u64 {
        self.model.bandwidth.max().min(self.bounds.bw_lo)
    }

    fn set_pacing_rate(&mut self, gain: f64) {
        let delivered = self.bandwidth() as f64 * gain * (1.0 - PACING_MARGIN);
        let compensation = 1.0 - self.loss_rule.steady_rate().min(LOSS_COMPENSATED_MAX);
        let rate = (delivered / compensation) as u64;
        if rate > 0 && (self.full_pipe.reached() || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    /// `gain` bandwidth-delay products, and no less than what keeps acknowledgements and segmented sends going.
    fn inflight(&self, gain: f64) -> u64 {
        let Some(rtt_min) = self.model.rtt_min.min() else { return self.config.initial_window };
        let compensation = 1.0 - self.loss_rule.steady_rate().min(LOSS_COMPENSATED_MAX);
        let product = self.bandwidth() as f64 * rtt_min.as_secs_f64() * gain / compensation;
        let probe = if self.state == State::ProbeBw(Phase::Up) {
            PROBE_PACKETS * u64::from(self.config.datagram_size)
        } else {
            0
        };
        (product as u64).max(self.window_min()) + probe
    }

    fn window_min(&self) -> u64 {
        WINDOW_PACKETS_MIN * u64::from(self.config.datagram_size)
    }

    fn set_window(&mut self, sample: &RateSample, path: &PathView) {
        let target = self.inflight(self.state.window_gain()) + self.model.extra_acked.max();
        if sample.newly_lost > 0 && self.loss_rule.last_round_counted() {
            self.window = self.window.saturating_sub(sample.newly_lost).max(self.window_min());
        }
        if self.full_pipe.reached() {
            self.window = (self.window + sample.newly_acked).min(target);
        } else if self.window < target || path.delivered < self.config.initial_window {
            self.window += sample.newly_acked;
        }
        let cap = match self.state {
            State::ProbeBw(Phase::Cruise) => self.inflight_with_headroom(),
            State::ProbeBw(_) => self.bounds.inflight_hi,
            State::ProbeRtt => self.inflight(probe_rtt::WINDOW_GAIN),
            State::Startup | State::Drain => u64::MAX,
        };
        self.window = self.window.min(cap.min(self.bounds.inflight_lo)).max(self.window_min());
    }
}

/// The pacing rate that STARTUP gives to a window per round-trip time.
fn nominal_rate(window: u64, rtt: Duration) -> u64 {
    (startup::PACING_GAIN * window as f64 / rtt.as_secs_f64().max(1e-6)) as u64
}
