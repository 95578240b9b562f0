//! Forward error correction of a connection: what it protects, holds back and restores.

use std::time::Duration;

use super::Connection;
use super::receive::{Context, Ranges};
use crate::fec::{PathView, Protector, Restorer};
use crate::sent_frame::{SentFrame, SentFrames};
use crate::stats::{FecStats, TrafficStats};
use crate::wire::{AckRanges, FrameIter, FrameWriter, Repair};
use crate::{FecConfig, Time, TransportError, TransportErrorCode};

/// A repair symbol that is due this soon rides in a packet that leaves anyway, unless losses come in bursts. Messages of 5 ms
/// apart take the last symbols of the one before, due 6 ms after it, also when a timer was late then.
const RIDE_AHEAD: Duration = Duration::from_micros(1_500);
/// Repair symbols of different groups in one packet at most.
const REPAIRS_PER_PACKET_MAX: usize = 4;

/// Both sides of forward error correction.
#[derive(Debug)]
pub(super) struct Fec {
    pub(super) protector: Protector,
    pub(super) restorer: Restorer,
}

impl Fec {
    pub(super) fn new(now: Time, config: &FecConfig) -> Self {
        Self { protector: Protector::new(now, config), restorer: Restorer::new(config) }
    }

    pub(super) fn stats(&self, stats: &mut FecStats) {
        self.protector.stats(stats);
        self.restorer.stats(stats);
    }

    /// Fills in what is counted of the traffic.
    pub(super) fn traffic(&self, traffic: &mut TrafficStats) {
        self.protector.traffic(traffic);
        self.restorer.traffic(traffic);
    }

    /// The connection is over.
    pub(super) fn forget(&mut self) {
        self.protector.forget();
        self.restorer.forget();
    }
}

/// What goes out.
impl Connection {
    /// The path, as far as it matters here.
    pub(super) fn path_view(&self) -> PathView {
        let (rtt, losses) = (self.recovery.rtt(), self.recovery.losses());
        PathView {
            rtt: rtt.smoothed(),
            rtt_min: rtt.min().unwrap_or(rtt.smoothed()),
            loss_delay: self.recovery.loss_delay(),
            bandwidth: self.recovery.bandwidth(),
            loss: losses.rate(),
            burst: losses.burst(),
        }
    }

    /// Whether a packet should leave for the sake of a repair symbol. A quarter of the window is left to the application.
    pub(super) fn has_due_repair(&mut self, now: Time) -> bool {
        self.fec.protector.has_due(now) && self.recovery.in_flight() < self.recovery.window() * 3 / 4
    }

    /// When an acknowledgement has to leave: it may wait as long as any for a packet with a repair symbol that will leave then.
    pub(super) fn ack_due(&self) -> Option<Time> {
        let due = self.received.ack_due()?;
        let upcoming = self.fec.protector.upcoming();
        let rides = upcoming.filter(|&at| at <= due + self.received.ack_delay_max());
        Some(rides.map_or(due, |at| at.max(due)))
    }

    /// Writes repair symbols that are due, and in a packet that carries `other` things also those that are due soon.
    pub(super) fn write_repairs(
        &mut self,
        now: Time,
        other: bool,
        writer: &mut FrameWriter<'_>,
        frames: &mut SentFrames,
    ) -> bool {
        // Where losses come in bursts, a packet of its own is one more between a symbol and the next.
        let rides = other && self.recovery.losses().burst().packets == 0.0;
        let by = if rides { now + RIDE_AHEAD } else { now };
        let number = self.pending.number;
        let mut written = 0;
        while written < REPAIRS_PER_PACKET_MAX
            && let Some(group) = self.fec.protector.write_repair(now, by, (number, &mut *writer), frames)
        {
            frames.push(SentFrame::Repair { group });
            written += 1;
        }
        written > 0
    }

    /// A packet that forward error correction may restore is lost: what it carried waits until that is known.
    pub(super) fn hold(&mut self, now: Time, number: u64, frames: SentFrames) {
        let (held, others): (SentFrames, SentFrames) = frames.into_iter().partition(SentFrame::is_protected);
        for frame in &others {
            self.resend(now, frame);
        }
        self.fec.protector.on_lost(now, number, held);
    }

    /// Sends again what forward error correction has given up.
    pub(super) fn resend_released(&mut self, now: Time) {
        while let Some(frame) = self.fec.protector.take_released() {
            self.resend(now, &frame);
        }
    }

    /// Time has passed.
    pub(super) fn on_fec_timeout(&mut self, now: Time) {
        let path = self.path_view();
        self.fec.protector.handle_timeout(now, &path);
        self.resend_released(now);
    }

    /// When it has something to do.
    pub(super) fn next_fec_timeout(&self) -> Option<Time> {
        self.fec.protector.next_timeout(self.recovery.rtt().smoothed())
    }
}

/// What comes in.
impl Connection {
    /// REPAIR.
    pub(super) fn on_repair(&mut self, number: u64, repair: &Repair<'_>) -> Result<(), TransportError> {
        self.fec.restorer.on_repair(number, repair, &self.received)
    }

    /// RECOVERED: what those packets carried has arrived.
    pub(super) fn on_recovered(&mut self, now: Time, ranges: AckRanges<'_>) -> Result<(), TransportError> {
        let ranges: Ranges = ranges.map(|range| (*range.start(), *range.end())).collect();
        self.check_ranges(&ranges)?;
        let mut outcome = self.outcome.take().unwrap_or_default();
        self.recovery.on_recovered(&ranges, &mut outcome);
        self.fec.protector.on_recovered(&ranges, &mut outcome.acked);
        self.outcome = Some(outcome);
        self.settle(now);
        Ok(())
    }

    /// Takes the symbol of a packet, which consists of these parts of its payload.
    pub(super) fn keep_symbol<'a>(
        &mut self,
        number: u64,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), TransportError> {
        self.fec.restorer.on_symbol(number, parts, &self.received)
    }

    /// Takes apart what has been restored.
    pub(super) fn take_restored(&mut self, now: Time, context: Context) -> Result<(), TransportError> {
        while let Some((number, symbol)) = self.fec.restorer.take_restored() {
            if let Some(since) = self.fec.restorer.missing_since(number) {
                self.told.timings.on_restored(now - since);
            }
            let context = Context { number, restored: true, ..context };
            for frame in FrameIter::new(&symbol) {
                let frame = frame?;
                if !frame.is_protected() {
                    let reason = "a frame was restored that forward error correction does not protect";
                    return Err(TransportError::new(TransportErrorCode::ProtocolViolation, reason));
                }
                self.on_frame(now, context, frame)?;
                if !self.is_open() {
                    return Ok(());
                }
            }
            self.fec.restorer.give_back(symbol);
        }
        Ok(())
    }
}
