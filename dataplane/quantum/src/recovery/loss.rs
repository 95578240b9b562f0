//! Which packets are lost (RFC 9002 section 6.1), which were only late, and which the peer has restored.

use std::time::Duration;

use super::{AckOutcome, REPAIR_ACK_DELAY_MAX, Recovery};
use crate::Time;
use crate::connection::SYN_SIZE;
use crate::sent_frame::{SentFrame, SentFrames};
use crate::wire::Epoch;

/// Lost packets are remembered for so many round-trip times: an acknowledgement that comes later undoes nothing.
pub(super) const SPURIOUS_MEMORY_RTTS: u32 = 3;
/// Probe timeouts that losses have to span to be persistent congestion (RFC 9002 section 7.6.1).
const PERSISTENT_PERIODS: u32 = 3;

impl Recovery {
    /// Finds packets that were declared lost and arrived after all.
    pub(super) fn find_late(&mut self, now: Time, ranges: &[(u64, u64)]) {
        self.lost.forget(now, self.rtt.smoothed() * SPURIOUS_MEMORY_RTTS);
        let (sampler, counters) = (&mut self.sampler, &mut self.counters);
        let allowed = self.rtt.loss_delay(self.config.pto_granularity);
        let (rtt, largest) = (self.rtt.smoothed(), self.largest_acked.unwrap_or(0));
        self.lost.take_late(ranges, |lost, reordering| {
            sampler.on_spurious_loss(now, lost.size);
            counters.spurious_losses += 1;
            let late = (now - lost.sent).saturating_sub(allowed);
            reordering.on_late(now, (largest.saturating_sub(lost.number), late), rtt);
        });
        if self.lost.take_undone() {
            self.controller.on_losses_undone(now);
        }
    }

    /// Declares lost what an acknowledgement has overtaken by too many packets or for too long (RFC 9002 section 6.1).
    pub(super) fn detect_losses(&mut self, now: Time, outcome: &mut AckOutcome) {
        self.loss_at = None;
        let Some(largest) = self.largest_acked else { return };
        self.lost.reordering_mut().age(now);
        let (delay, threshold) = (self.loss_delay(), self.lost.reordering().packets());
        let mut period: Option<(Time, Time)> = None;
        let mut longest = Duration::ZERO;
        let mut index = 0;
        while let Some(packet) = self.sent.get(index).filter(|packet| packet.number < largest) {
            if packet.resolved {
                if packet.acked {
                    period = None;
                }
                index += 1;
                continue;
            }
            let sent = packet.stamp.time_sent;
            if largest - packet.number < threshold && sent + delay > now {
                self.loss_at = Some(sent + delay);
                break;
            }
            let explores = packet.frames.first().is_some_and(SentFrame::is_exploring);
            if packet.ack_eliciting && !explores && self.first_rtt_at.is_some_and(|first| sent > first) {
                let start = period.map_or(sent, |period| period.0);
                period = Some((start, sent));
                longest = longest.max(sent - start);
            }
            self.declare_lost(now, index, outcome);
            index += 1;
        }
        if longest > self.persistent_congestion_after() {
            self.counters.persistent_congestions += 1;
            self.controller.on_persistent_congestion(now);
        }
    }

    fn declare_lost(&mut self, now: Time, index: usize, outcome: &mut AckOutcome) {
        let Some(packet) = self.sent.resolve(index, false) else { return };
        let (number, size, stamp, marked) = (packet.number, packet.size, packet.stamp, packet.marked);
        if packet.frames.first().is_some_and(SentFrame::is_exploring) {
            // It went where packets may not pass: no sign of congestion, nor of what the path loses (RFC 9000 section 14.4).
            outcome.lost.extend(packet.frames.drain(..));
            return;
        }
        packet.lost = true;
        outcome.sizes.on_lost(number, size > SYN_SIZE);
        outcome.lost_numbers.push(number);
        outcome.marks.on_lost(number, marked);
        let sent = packet.frames.iter().any(|frame| matches!(frame, SentFrame::Stream { .. }));
        let sent = sent.then_some(SentFrame::SentAt(stamp.time_sent));
        if let Some(first) = packet.frames.first_mut().filter(|frame| matches!(frame, SentFrame::Source { .. })) {
            // In its place: the number is told beside.
            if let Some(sent) = sent {
                *first = sent;
            }
            outcome.lost_sources.push((number, std::mem::take(&mut packet.frames)));
        } else {
            outcome.lost.extend(sent);
            outcome.lost.extend(packet.frames.drain(..));
        }
        self.counters.packets_lost += 1;
        self.sampler.on_lost(size);
        self.lost.push(now, number, size, stamp.time_sent);
        let path = self.path(false);
        self.controller.on_lost(now, size, &stamp, &path);
    }

    /// The peer is at another address: what is in flight is taken for lost, which is no sign of congestion.
    pub(crate) fn on_path_changed(&mut self, now: Time, outcome: &mut AckOutcome) {
        let mut index = 0;
        while self.sent.get(index).is_some() {
            if let Some(packet) = self.sent.resolve(index, false) {
                let (number, frames) = (packet.number, std::mem::take(&mut packet.frames));
                if matches!(frames.first(), Some(SentFrame::Source { .. })) {
                    outcome.lost_sources.push((number, frames));
                } else {
                    outcome.lost.extend(frames);
                }
            }
            index += 1;
        }
        self.trim();
        self.loss_at = None;
        self.timer.on_newly_acked(now, false);
    }

    /// The peer is in another network, of whose paths neither time nor rate is known (RFC 9000 section 9.4). Full packets have so
    /// many bytes there. Nothing is in flight.
    pub(crate) fn forget_path(&mut self, now: Time, datagram_size: u16) {
        self.config.datagram_size = datagram_size;
        let fresh = Self::new(now, &self.config);
        let ack_delay_max = self.rtt.ack_delay_max();
        (self.rtt, self.lost, self.sampler) = (fresh.rtt, fresh.lost, fresh.sampler);
        (self.pacer, self.controller, self.losses) = (fresh.pacer, fresh.controller, fresh.losses);
        (self.first_rtt_at, self.is_window_limited) = (None, false);
        self.rtt.set_ack_delay_max(ack_delay_max);
    }

    fn persistent_congestion_after(&self) -> Duration {
        (self.rtt.probe_timeout(self.config.pto_granularity) + self.rtt.ack_delay_max()) * PERSISTENT_PERIODS
    }

    /// When repair symbols that nobody acknowledged, with nothing else in flight, leave the flight.
    pub(super) fn repairs_expire(&self) -> Option<Time> {
        let sent = self.sent.last_repair().filter(|_| self.sent.oldest().is_some())?;
        Some(sent + self.timer.period(&self.rtt) + REPAIR_ACK_DELAY_MAX)
    }

    /// Nobody asks what became of repair symbols at the end of what was sent: they count as neither acknowledged nor lost.
    pub(super) fn expire_repairs(&mut self, outcome: &mut AckOutcome) {
        let mut index = 0;
        while self.sent.get(index).is_some() {
            if let Some(packet) = self.sent.resolve(index, false) {
                outcome.lost.extend(packet.frames.drain(..));
            }
            index += 1;
        }
        self.trim();
    }

    /// Forgets what is over, and learns from it what the path loses.
    pub(super) fn trim(&mut self) {
        let losses = &mut self.losses;
        self.sent.trim(|packet| {
            if packet.acked || packet.lost {
                losses.on_outcome(packet.stamp.time_sent, packet.lost);
            }
        });
    }

    /// The peer has restored the packets in `ranges` (inclusive, newest first): what they carried has arrived, though they did
    /// not. They are lost or late all the same, and stay in flight until that is known.
    pub(crate) fn on_recovered(&mut self, ranges: &[(u64, u64)], outcome: &mut AckOutcome) {
        let Some(oldest) = self.sent.oldest() else { return };
        for &(first, last) in ranges.iter().take_while(|range| range.1 >= oldest) {
            let mut index = self.sent.position(first);
            while let Some(packet) = self.sent.get_mut(index).filter(|packet| packet.number <= last) {
                if !packet.resolved {
                    let frames = std::mem::take(&mut packet.frames);
                    let (restored, others) = frames.into_iter().partition(SentFrame::is_protected);
                    packet.frames = others;
                    let restored: SentFrames = restored;
                    outcome.acked.extend(restored);
                }
                index += 1;
            }
        }
    }

    /// Packets of that epoch, which are not acknowledged, leave the flight, neither acknowledged nor lost; what they carried is added
    /// to `frames`.
    pub(crate) fn abandon_epoch(&mut self, epoch: Epoch, frames: &mut Vec<SentFrame>) {
        self.frames_of(epoch, frames);
        self.discard_epoch(epoch);
    }

    /// What the packets of that epoch carry that are in flight is added to `frames`.
    pub(crate) fn frames_of(&self, epoch: Epoch, frames: &mut Vec<SentFrame>) {
        let packets = (0..self.sent.len()).filter_map(|index| self.sent.get(index));
        for packet in packets.filter(|packet| packet.epoch == epoch && !packet.resolved) {
            frames.extend(packet.frames.iter().cloned());
        }
    }
}
