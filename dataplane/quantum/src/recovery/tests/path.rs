//! A toy path in virtual time: a bottleneck with a queue, a delay, random loss; [`Recovery`] sends, [`ReceivedPackets`] answers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use smallvec::smallvec;

use super::super::*;
use crate::range_set::RangeSet;
use crate::{ConnectionStats, StreamId};

/// Bytes of a full packet.
pub(super) const PACKET: u16 = 1452;

/// How the path is.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathOptions {
    /// Bytes per second of the bottleneck.
    pub(super) rate: u64,
    pub(super) rtt: Duration,
    /// Packets lost in each direction, of a thousand.
    pub(super) loss_per_mille: u64,
    /// Bandwidth-delay products that the queue holds.
    pub(super) queue: f64,
    pub(super) seed: u64,
}

impl PathOptions {
    /// 100 Mbit/s and a queue of one bandwidth-delay product.
    pub(super) fn new(rtt_ms: u64, loss_per_mille: u64, seed: u64) -> Self {
        Self { rate: 12_500_000, rtt: Duration::from_millis(rtt_ms), loss_per_mille, queue: 1.0, seed }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    Data { number: u64, chunk: u64, sent: Time },
    Ack { ranges: Vec<(u64, u64)> },
}

/// What the application sends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Application {
    /// As much as goes.
    Bulk,
    /// `size` bytes each `interval`.
    Messages { size: u16, interval: Duration },
}

/// Both ends and what lies between.
pub(super) struct Path {
    options: PathOptions,
    application: Application,
    pub(super) now: Time,
    pub(super) sender: Recovery,
    receiver: ReceivedPackets,
    chunks: RangeSet,
    outcome: AckOutcome,
    resend: Vec<u64>,
    wire: Wire,
    random: u64,
    numbers: u64,
    chunks_sent: u64,
    pub(super) waits: Waits,
    pub(super) blackout: bool,
}

/// What is under way.
struct Wire {
    arrivals: BinaryHeap<Reverse<(Time, u64, Arrival)>>,
    sequence: u64,
    bottleneck_free: Time,
}

/// What held the sender back, and how long queues were.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Messages that could not leave at once.
    pub(super) held: u64,
    pub(super) tail_drops: u64,
    pub(super) queue_max: Duration,
    pub(super) queue_sum: Duration,
    pub(super) queued: u32,
    /// The longest time from a chunk's first sending to its arrival.
    pub(super) latency_max: Duration,
}

impl Path {
    pub(super) fn new(options: PathOptions, application: Application) -> Self {
        let now = Time::from_nanos(1_000_000_000);
        let mut sender = Recovery::new(now, &RecoveryConfig::new(Side::Server, PACKET, 16, options.seed));
        sender.set_peer_max_ack_delay(Duration::from_millis(1));
        sender.set_handshake_confirmed();
        Self {
            options,
            application,
            now,
            sender,
            receiver: ReceivedPackets::new(),
            chunks: RangeSet::new(),
            outcome: AckOutcome::default(),
            resend: Vec::new(),
            wire: Wire { arrivals: BinaryHeap::new(), sequence: 0, bottleneck_free: now },
            random: options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            numbers: 0,
            chunks_sent: 0,
            waits: Waits::default(),
            blackout: false,
        }
    }

    /// Chunks that have arrived.
    pub(super) fn delivered(&self) -> u64 {
        self.chunks.iter_newest_first().map(|(first, last)| last - first + 1).sum()
    }

    /// Chunks that were sent for the first time.
    pub(super) fn offered(&self) -> u64 {
        self.chunks_sent
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        let mut stats = ConnectionStats::default();
        self.sender.stats(&mut stats);
        stats
    }

    /// Runs for a while; for how many bytes per second of unique payload.
    pub(super) fn run(&mut self, duration: Duration) -> f64 {
        let (end, before) = (self.now + duration, self.delivered());
        let mut next_message = self.now;
        while self.now < end {
            let mut next = end;
            let wake = self.send(&mut next_message);
            for at in [wake, self.sender.next_timeout(), self.receiver.ack_due()].into_iter().flatten() {
                next = next.min(at);
            }
            if let Some(Reverse((at, ..))) = self.wire.arrivals.peek() {
                next = next.min(*at);
            }
            self.now = self.now.max(next);
            self.receive();
        }
        (self.delivered() - before) as f64 * f64::from(PACKET) / duration.as_secs_f64()
    }

    fn send(&mut self, next_message: &mut Time) -> Option<Time> {
        while self.sender.probes_pending() > 0 {
            let mut frames = Vec::new();
            self.sender.probe_frames(&mut frames);
            let chunk = frames.iter().find_map(chunk_of);
            self.send_packet(chunk.unwrap_or(u64::MAX), PACKET);
            self.sender.on_probe_sent();
        }
        loop {
            let fresh = match self.application {
                Application::Bulk => true,
                Application::Messages { .. } => *next_message <= self.now,
            };
            let wanted = fresh || !self.resend.is_empty();
            let mut bytes = match self.sender.allowance(self.now) {
                Allowance::Bytes(bytes) if !wanted => {
                    assert!(bytes >= usize::from(PACKET));
                    self.sender.on_app_limited();
                    return Some(*next_message);
                }
                Allowance::Bytes(bytes) => bytes,
                held => {
                    self.waits.held += u64::from(fresh);
                    let paced = if let Allowance::PacedUntil(at) = held { Some(at) } else { None };
                    // The pacer's time counts only with something to send.
                    return if wanted { paced } else { Some(*next_message) };
                }
            };
            while bytes >= usize::from(PACKET) {
                bytes -= usize::from(PACKET);
                let chunk = self.resend.pop().unwrap_or(self.chunks_sent);
                let first_time = chunk == self.chunks_sent;
                self.chunks_sent += u64::from(first_time);
                let Application::Messages { size, interval } = self.application else {
                    self.send_packet(chunk, PACKET);
                    continue;
                };
                self.send_packet(chunk, size);
                if first_time {
                    *next_message += interval;
                }
                break;
            }
        }
    }

    fn send_packet(&mut self, chunk: u64, size: u16) {
        let number = self.numbers;
        self.numbers += 1;
        let frames = smallvec![SentFrame::Stream { id: StreamId(0), offset: chunk, len: 1, fin: false }];
        let packet = Outgoing {
            number,
            epoch: Epoch::OneRtt0,
            size,
            ack_eliciting: true,
            repair_only: false,
            marked: false,
            in_flight: true,
            frames,
        };
        self.sender.on_sent(self.now, packet);
        if self.blackout {
            return;
        }
        let start = self.wire.bottleneck_free.max(self.now);
        let queued = start - self.now;
        if queued > self.options.rtt.mul_f64(self.options.queue) {
            self.waits.tail_drops += 1;
            return;
        }
        self.waits.queue_max = self.waits.queue_max.max(queued);
        self.waits.queue_sum += queued;
        self.waits.queued += 1;
        self.wire.bottleneck_free = start + Duration::from_nanos(u64::from(size) * 1_000_000_000 / self.options.rate);
        if !self.lose() {
            let arrival = Arrival::Data { number, chunk, sent: self.now };
            self.push(self.wire.bottleneck_free + self.options.rtt / 2, arrival);
        }
    }

    fn receive(&mut self) {
        while let Some(Reverse((at, ..))) = self.wire.arrivals.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, arrival))) = self.wire.arrivals.pop() else { return };
            match arrival {
                Arrival::Data { number, chunk, sent } => {
                    let epoch = Epoch::OneRtt0;
                    let info =
                        ReceivedInfo { ack_eliciting: true, repair_only: false, message_end: false, ce: false, epoch };
                    assert!(self.receiver.on_received(self.now, number, info), "numbers are never used twice");
                    if chunk != u64::MAX && self.chunks.insert(chunk) {
                        self.waits.latency_max = self.waits.latency_max.max(self.now - sent);
                    }
                }
                Arrival::Ack { ranges } => {
                    self.sender.on_ack(self.now, (Epoch::OneRtt0, &ranges), (Duration::ZERO, false), &mut self.outcome);
                    // A report that arrived stands for one that the sender's next packet acknowledges.
                    self.receiver.on_ack_of_ack(ranges[0].1);
                }
            }
        }
        if self.receiver.ack_due().is_some_and(|due| due <= self.now) {
            let ranges: Vec<_> = self.receiver.ranges().collect();
            self.receiver.on_ack_sent();
            if !self.blackout && !self.lose() {
                self.push(self.now + self.options.rtt / 2, Arrival::Ack { ranges });
            }
        }
        self.sender.on_timeout(self.now, &mut self.outcome);
        self.resend.extend(self.outcome.lost.iter().filter_map(chunk_of).filter(|chunk| *chunk != u64::MAX));
        self.resend.retain(|chunk| !self.chunks.contains(*chunk));
        self.outcome.clear();
    }

    fn push(&mut self, at: Time, arrival: Arrival) {
        self.wire.sequence += 1;
        self.wire.arrivals.push(Reverse((at, self.wire.sequence, arrival)));
    }

    fn lose(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % 1000 < self.options.loss_per_mille
    }
}

fn chunk_of(frame: &SentFrame) -> Option<u64> {
    if let SentFrame::Stream { offset, .. } = frame { Some(*offset) } else { None }
}
