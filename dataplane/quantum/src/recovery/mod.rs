//! Reliability: what was sent, what of it arrived, what is lost, and when more may leave.
//!
//! One number space covers all key epochs, so one [`Recovery`] does for a connection.

mod loss;
mod pacer;
mod rate;
mod received;
mod reordering;
mod rtt;
mod sent;
mod spurious;
mod stats;
mod timer;

use std::time::Duration;

use crate::congestion::{CongestionConfig, CongestionControl, Controller, PathView};
use crate::connection::SYN_SIZE;
use crate::fec::LossMeter;
use crate::path::Evidence;
use crate::sent_frame::{SentFrame, SentFrames};
use crate::wire::Epoch;
use crate::{Side, Time};
use pacer::{Pace, Pacer};
use rate::RateSampler;
pub(crate) use rate::{RateSample, Stamp};
pub(crate) use received::{ACK_DELAY_MAX, REPAIR_ACK_DELAY_MAX, ReceivedInfo, ReceivedPackets};
use rtt::Rtt;
use sent::{SentPacket, SentPackets};
use spurious::LostPackets;
use timer::ProbeTimer;

/// Packets in flight at most, whatever the window: the memory of one connection is bounded.
const FLIGHT_PACKETS_MAX: usize = 1 << 16;

/// Settings of loss recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveryConfig {
    /// Which end this is: the client keeps a handshake alive with nothing in flight.
    pub(crate) side: Side,
    /// UDP payload bytes of a full packet.
    pub(crate) datagram_size: u16,
    /// Resolution of the timers.
    pub(crate) pto_granularity: Duration,
    /// The probe timeout is no shorter.
    pub(crate) pto_min: Duration,
    /// Packets of one burst at most.
    pub(crate) segments_max: usize,
    /// Bytes per second at which an application-limited sender is paced at least.
    pub(crate) pacing_floor: u64,
    /// Packets that may be in flight at first.
    pub(crate) initial_window_packets: u16,
    /// The congestion controller.
    pub(crate) congestion: CongestionControl,
    /// Randomness of the controller.
    pub(crate) seed: u64,
}

impl RecoveryConfig {
    /// The usual settings.
    pub(crate) fn new(side: Side, datagram_size: u16, segments_max: usize, seed: u64) -> Self {
        Self {
            side,
            datagram_size,
            pto_granularity: Duration::from_millis(1),
            pto_min: Duration::from_millis(1),
            segments_max,
            // 4 Mbit/s.
            pacing_floor: 500_000,
            // What half a second of small messages and their repair symbols take. They are paced.
            initial_window_packets: 32,
            congestion: CongestionControl::Bbr,
            seed,
        }
    }
}

/// A packet that was sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    /// UDP payload bytes.
    pub(crate) size: u16,
    pub(crate) ack_eliciting: bool,
    /// It carries nothing but repair symbols.
    pub(crate) repair_only: bool,
    /// The network may mark it: ECT(0).
    pub(crate) marked: bool,
    /// It counts against the window; everything ack-eliciting does.
    pub(crate) in_flight: bool,
    pub(crate) frames: SentFrames,
}

/// What an acknowledgement or a timeout led to. The caller keeps one and clears it, so that its memory is reused.
#[derive(Debug, Default)]
pub(crate) struct AckOutcome {
    /// Frames of packets that arrived.
    pub(crate) acked: Vec<SentFrame>,
    /// Frames of packets that are lost: to be sent again.
    pub(crate) lost: Vec<SentFrame>,
    /// Sources of forward error correction that are lost, each by its number and with its frames.
    pub(crate) lost_sources: Vec<(u64, SentFrames)>,
    /// Whether packets arrived that are larger than what every path carries.
    pub(crate) sizes: Evidence,
    /// Numbers of the packets that are lost.
    pub(crate) lost_numbers: Vec<u64>,
    /// The ranges of the acknowledgement, for the caller.
    pub(crate) ranges: Vec<(u64, u64)>,
    /// Whether packets arrived that the network may mark.
    pub(crate) marks: Evidence,
    /// Something was acknowledged for the first time.
    pub(crate) newly_acked: bool,
    /// The round-trip time was sampled.
    pub(crate) rtt_sampled: bool,
    /// A probe timeout fired: [`Recovery::probes_pending`] ack-eliciting packets are to be sent.
    pub(crate) probe: bool,
}

impl AckOutcome {
    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.acked.clear();
        self.lost.clear();
        self.lost_sources.clear();
        self.lost_numbers.clear();
        (self.sizes, self.marks) = (Evidence::default(), Evidence::default());
        (self.newly_acked, self.rtt_sampled, self.probe) = (false, false, false);
    }
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// So many bytes, at least a full packet.
    Bytes(usize),
    /// Nothing until then.
    PacedUntil(Time),
    /// Nothing until an acknowledgement or a timeout makes room.
    WindowFull,
}

/// Counters of a connection's recovery.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets_sent: u64,
    bytes_sent: u64,
    packets_lost: u64,
    spurious_losses: u64,
    persistent_congestions: u64,
}

/// Loss recovery and congestion control of one connection.
#[derive(Debug)]
pub(crate) struct Recovery {
    config: RecoveryConfig,
    rtt: Rtt,
    sent: SentPackets,
    lost: LostPackets,
    sampler: RateSampler,
    pacer: Pacer,
    controller: Controller,
    losses: LossMeter,
    timer: ProbeTimer,
    largest_sent: Option<u64>,
    largest_acked: Option<u64>,
    /// The time threshold of the next packet that is not lost yet.
    loss_at: Option<Time>,
    first_rtt_at: Option<Time>,
    is_window_limited: bool,
    counters: Counters,
}

impl Recovery {
    /// A connection that has sent nothing.
    pub(crate) fn new(now: Time, config: &RecoveryConfig) -> Self {
        let initial_window = u64::from(config.initial_window_packets) * u64::from(config.datagram_size);
        let congestion = CongestionConfig { datagram_size: config.datagram_size, initial_window, seed: config.seed };
        Self {
            config: *config,
            rtt: Rtt::new(Duration::ZERO),
            sent: SentPackets::default(),
            lost: LostPackets::new(now),
            sampler: RateSampler::new(now),
            pacer: Pacer::new(now, config.datagram_size, config.segments_max, initial_window),
            controller: Controller::new(now, config.congestion, &congestion),
            losses: LossMeter::new(),
            timer: ProbeTimer::new(now, config),
            largest_sent: None,
            largest_acked: None,
            loss_at: None,
            first_rtt_at: None,
            is_window_limited: false,
            counters: Counters::default(),
        }
    }

    /// An empty list of frames for the next packet.
    pub(crate) fn frames(&mut self) -> SentFrames {
        self.sent.frames()
    }

    /// A packet left. Numbers ascend.
    pub(crate) fn on_sent(&mut self, now: Time, packet: Outgoing) {
        debug_assert!(self.largest_sent.is_none_or(|largest| largest < packet.number), "numbers ascend");
        self.largest_sent = Some(packet.number);
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += u64::from(packet.size);
        if !packet.in_flight && !packet.ack_eliciting {
            self.sent.push_ack_only(packet.number, packet.frames);
            return;
        }
        let path = self.path(false);
        self.controller.on_send(now, &path);
        let stamp = self.sampler.on_sent(now, packet.size, self.sent.in_flight());
        self.pacer.on_sent(packet.size);
        if packet.ack_eliciting && !packet.repair_only {
            self.timer.on_eliciting_sent(now);
        }
        self.sent.push(SentPacket {
            number: packet.number,
            epoch: packet.epoch,
            size: packet.size,
            ack_eliciting: packet.ack_eliciting,
            repair_only: packet.repair_only,
            marked: packet.marked,
            resolved: false,
            acked: false,
            lost: false,
            stamp,
            frames: packet.frames,
        });
    }

    /// The peer reports `ranges` (inclusive, newest first) as received; what was never sent or is already known is passed over.
    /// The report came in a packet of `epoch` and counts for packets of that epoch and of those before only. `ce`: it also
    /// reports a congestion mark. The outcome is added to `outcome`.
    pub(crate) fn on_ack(
        &mut self,
        now: Time,
        (epoch, ranges): (Epoch, &[(u64, u64)]),
        (ack_delay, ce): (Duration, bool),
        outcome: &mut AckOutcome,
    ) {
        let Some(largest) = ranges.first().map(|range| range.1) else { return };
        if self.largest_sent.is_none_or(|sent| largest > sent) {
            return;
        }
        if epoch.is_one_rtt() {
            if let Some(frames) = self.sent.take_ack_only(ranges) {
                outcome.acked.extend(frames);
            }
            self.find_late(now, ranges);
        }
        let delivered = self.sampler.delivered();
        let rtt = self.take_acked(now, (epoch, ranges), outcome);
        let newly_acked = self.sampler.delivered() > delivered;
        if let Some(rtt) = rtt {
            self.rtt.update(rtt, ack_delay);
            self.first_rtt_at.get_or_insert(now);
            outcome.rtt_sampled = true;
        }
        self.detect_losses(now, outcome);
        self.trim();
        let rtt_min = self.rtt.min().unwrap_or_default();
        if let Some(sample) = self.sampler.sample(rtt_min, rtt) {
            let path = self.path(ce);
            self.controller.on_ack(now, &sample, &path);
            self.is_window_limited = false;
        }
        if newly_acked {
            outcome.newly_acked = true;
            self.timer.on_newly_acked(now, self.sent.has_eliciting());
        }
    }

    /// Takes acknowledged packets out of the flight. Gives the round-trip time if the largest reported is among them and one
    /// of them asked for an answer.
    fn take_acked(
        &mut self,
        now: Time,
        (epoch, ranges): (Epoch, &[(u64, u64)]),
        outcome: &mut AckOutcome,
    ) -> Option<Duration> {
        let oldest = self.sent.oldest()?;
        let (mut newest, mut eliciting) = (None, false);
        for &(first, last) in ranges {
            if last < oldest {
                break;
            }
            let mut index = self.sent.position(first);
            while self.sent.get(index).is_some_and(|packet| packet.number <= last) {
                if self.sent.get(index).is_some_and(|packet| packet.epoch.is_acked_in(epoch))
                    && let Some(packet) = self.sent.resolve(index, true)
                {
                    outcome.acked.extend(packet.frames.drain(..));
                    outcome.sizes.on_acked(packet.number, packet.size > SYN_SIZE);
                    outcome.marks.on_acked(packet.number, packet.marked);
                    self.sampler.on_acked(now, packet.size, &packet.stamp);
                    // A repair symbol is acknowledged at leisure: it says nothing about the path's time.
                    eliciting |= packet.ack_eliciting && !packet.repair_only;
                    newest = newest.max(Some((packet.number, packet.stamp.time_sent, packet.repair_only)));
                }
                index += 1;
            }
        }
        let (number, time_sent, repair_only) = newest?;
        self.largest_acked = self.largest_acked.max(Some(number));
        (number == ranges[0].1 && eliciting && !repair_only).then(|| now - time_sent)
    }

    /// The largest number that was acknowledged.
    pub(crate) fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// What the path loses.
    pub(crate) fn losses(&self) -> &LossMeter {
        &self.losses
    }

    /// Bytes per second that the path is known to carry.
    pub(crate) fn bandwidth(&self) -> u64 {
        self.controller.bandwidth()
    }

    /// How long after a packet was sent it is lost once later ones are acknowledged.
    pub(crate) fn loss_delay(&self) -> Duration {
        self.rtt.loss_delay(self.config.pto_granularity) + self.lost.reordering().extra()
    }

    /// When [`Recovery::on_timeout`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let outstanding = self.sent.has_eliciting();
        self.loss_at.or_else(|| self.timer.next(&self.rtt, outstanding)).or_else(|| self.repairs_expire())
    }

    /// Time has passed: declares losses, or asks for probes. Does nothing before [`Recovery::next_timeout`].
    pub(crate) fn on_timeout(&mut self, now: Time, outcome: &mut AckOutcome) {
        // What is due first may hide what is due as well.
        while self.next_timeout().is_some_and(|at| at <= now) {
            if self.loss_at.is_some() {
                self.detect_losses(now, outcome);
                self.trim();
            } else if self.timer.next(&self.rtt, self.sent.has_eliciting()).is_some() {
                self.timer.on_fired(now);
                outcome.probe = true;
            } else {
                self.expire_repairs(outcome);
            }
        }
    }

    /// Ack-eliciting packets that a probe timeout wants sent, regardless of window and pacing.
    pub(crate) fn probes_pending(&self) -> u8 {
        self.timer.probes_pending()
    }

    /// Gives the frames that the next probe should carry again: those of an ack-eliciting packet in flight, the oldest
    /// first. None if nothing is in flight: a PING does. The packets stay in flight.
    pub(crate) fn probe_frames(&self, frames: &mut Vec<SentFrame>) {
        let nth = self.timer.probes_sent();
        if let Some(packet) = self.sent.nth_eliciting(nth).or_else(|| self.sent.nth_eliciting(0)) {
            frames.extend(packet.frames.iter().cloned());
        }
    }

    /// Whether a probe is due that is not the first of its timeout, and the timeout is every second one.
    pub(crate) fn is_second_probe_of_second_timeout(&self) -> bool {
        self.timer.probes_sent() > 0 && self.timer.fired().is_multiple_of(2)
    }

    /// A probe left.
    pub(crate) fn on_probe_sent(&mut self) {
        self.timer.on_probe_sent();
    }

    /// What may be sent at this time. Packets that only acknowledge need no allowance.
    pub(crate) fn allowance(&mut self, now: Time) -> Allowance {
        let datagram = u64::from(self.config.datagram_size);
        let room = self.controller.window().saturating_sub(self.sent.in_flight());
        if room < datagram || self.sent.len() >= FLIGHT_PACKETS_MAX {
            self.is_window_limited = true;
            return Allowance::WindowFull;
        }
        match self.pacer.allowance(now, self.pace()) {
            Ok(bytes) => Allowance::Bytes(bytes.min(room) as usize),
            Err(later) => Allowance::PacedUntil(later),
        }
    }

    fn pace(&self) -> Pace {
        let is_app_limited = self.sampler.is_app_limited();
        let floor = if is_app_limited { self.config.pacing_floor } else { 0 };
        Pace { rate: self.controller.pacing_rate().max(floor), is_app_limited }
    }

    /// The application had nothing to send though more was allowed.
    pub(crate) fn on_app_limited(&mut self) {
        self.sampler.on_app_limited(self.sent.in_flight());
    }

    /// The keys of an epoch are gone: its packets leave the flight, neither acknowledged nor lost.
    pub(crate) fn discard_epoch(&mut self, epoch: Epoch) {
        let mut index = 0;
        while let Some(packet) = self.sent.get(index) {
            if packet.epoch == epoch
                && let Some(packet) = self.sent.resolve(index, false)
            {
                packet.frames.clear();
            }
            index += 1;
        }
        self.trim();
        self.loss_at = None;
        self.timer.on_keys_discarded();
    }

    /// The next acknowledgement says in one range what all before it said: those need not be known to have arrived.
    pub(crate) fn forget_reports(&mut self) {
        self.sent.forget_ack_only();
    }

    /// Nothing has come for a while: frees memory that holds nothing.
    pub(crate) fn shrink(&mut self, now: Time) {
        self.lost.forget(now, self.rtt.smoothed() * loss::SPURIOUS_MEMORY_RTTS);
        self.lost.shrink();
        self.sent.shrink();
    }

    /// The connection is over: nothing is acknowledged or sent again.
    pub(crate) fn forget(&mut self) {
        self.sent = SentPackets::default();
        self.lost = LostPackets::new(Time::ZERO);
        self.loss_at = None;
    }

    /// The handshake is confirmed: the peer's acknowledgement delay counts, and nothing has to be kept alive.
    pub(crate) fn set_handshake_confirmed(&mut self) {
        self.timer.set_handshake_confirmed();
    }

    /// The peer has told how long it delays acknowledgements at most.
    pub(crate) fn set_peer_max_ack_delay(&mut self, delay: Duration) {
        self.rtt.set_ack_delay_max(delay);
    }

    /// The round-trip time.
    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// The probe timeout without backoff.
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.timer.period(&self.rtt)
    }

    /// Whether something is on its way that the peer has to acknowledge.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.sent.has_eliciting()
    }

    /// A full packet has so many bytes of UDP payload from here on.
    pub(crate) fn set_datagram_size(&mut self, size: u16) {
        self.config.datagram_size = size;
        self.pacer.set_datagram_size(size, self.config.segments_max);
        self.controller.set_datagram_size(size);
    }

    /// Bytes in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent.in_flight()
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> u64 {
        self.controller.window()
    }

    fn path(&self, ce: bool) -> PathView {
        PathView {
            in_flight: self.sent.in_flight(),
            delivered: self.sampler.delivered(),
            lost: self.sampler.lost(),
            rtt_smoothed: self.rtt.smoothed(),
            is_window_limited: self.is_window_limited,
            is_app_limited: self.sampler.is_app_limited(),
            ce,
        }
    }
}

#[cfg(test)]
mod tests;
