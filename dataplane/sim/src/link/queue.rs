//! The bottleneck: a rate, and a queue before it that drops what does not fit.

use std::collections::VecDeque;
use std::time::Duration;

use quantum::Time;

use super::node::Flow;
use super::{LinkStats, Meta};

/// ECN bits (RFC 3168 section 5).
const ECT1: u8 = 0b01;
const ECT0: u8 = 0b10;
const CE: u8 = 0b11;
const NANOS_PER_S: u128 = 1_000_000_000;

/// Serialises datagrams at a rate. What waits, the datagram being sent included, holds at most `bytes_max`; a datagram always
/// fits an empty queue.
#[derive(Debug)]
pub(super) struct Queue<M> {
    rate_bits_per_s: u64,
    bytes_max: u64,
    /// What comes while more waits is marked.
    mark_above: Option<u64>,
    bytes: u64,
    /// The integral of `bytes` over time, in byte nanoseconds, and up to when it goes.
    byte_ns: u64,
    summed_to: Time,
    /// When the last datagram that waits will have been sent.
    free_at: Time,
    /// What waits, `at` being the time at which its last bit has been sent.
    waiting: VecDeque<Flow<M>>,
}

impl<M: Meta> Queue<M> {
    pub(super) const fn new(rate_bits_per_s: u64, bytes_max: u64, mark_above: Option<u64>) -> Self {
        Self {
            rate_bits_per_s,
            bytes_max,
            mark_above,
            bytes: 0,
            byte_ns: 0,
            summed_to: Time::ZERO,
            free_at: Time::ZERO,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn push(&mut self, mut flow: Flow<M>, stats: &mut LinkStats) {
        let len = flow.datagram.payload.len() as u64;
        self.sum_to(flow.at);
        stats.queue.byte_ns = self.byte_ns;
        if self.bytes > 0 && self.bytes + len > self.bytes_max {
            stats.dropped_queue += 1;
            return;
        }
        self.bytes += len;
        if self.mark_above.is_some_and(|most| self.bytes > most) && [ECT0, ECT1].contains(&flow.datagram.meta.ecn()) {
            flow.datagram.meta.set_ecn(CE);
            stats.queue.marked += 1;
        }
        stats.queue.bytes_peak = stats.queue.bytes_peak.max(self.bytes);
        let send_ns = u128::from(len) * 8 * NANOS_PER_S / u128::from(self.rate_bits_per_s);
        self.free_at = self.free_at.max(flow.at) + Duration::from_nanos(u64::try_from(send_ns).unwrap_or(u64::MAX));
        flow.at = self.free_at;
        self.waiting.push_back(flow);
    }

    /// What comes from here on is sent at this rate.
    pub(super) const fn set_rate(&mut self, bits_per_s: u64) {
        self.rate_bits_per_s = bits_per_s;
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<Flow<M>>) {
        while self.next_time().is_some_and(|due| due <= now) {
            let flow = self.waiting.pop_front().expect("the queue has a first element, since it has a next time");
            self.sum_to(flow.at);
            self.bytes -= flow.datagram.payload.len() as u64;
            out.push(flow);
        }
    }

    fn sum_to(&mut self, at: Time) {
        let nanos = (at - self.summed_to).as_nanos() as u64;
        self.byte_ns = self.byte_ns.saturating_add(self.bytes.saturating_mul(nanos));
        self.summed_to = self.summed_to.max(at);
    }

    pub(super) fn next_time(&self) -> Option<Time> {
        self.waiting.front().map(|flow| flow.at)
    }
}
