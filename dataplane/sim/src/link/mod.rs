//! One direction of a network path, composed of effects.

mod config;
mod delay;
mod loss;
mod mangle;
mod node;
mod queue;
mod reorder;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use quantum::Time;

pub use config::{BadLink, Blackout, Burst, EcnEffects, LinkConfig, RandomOutage};
pub use stats::{LinkStats, QueueStats};

use crate::Rng;
use node::{Flow, Node};

/// Datagrams under way at most; more are dropped as if a queue were full. A second of full packets at 12 Gbit/s.
const IN_FLIGHT_MAX: u64 = 1 << 20;

/// What travels over a link: bytes, and whatever the two ends want to know about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram<M> {
    /// The bytes that effects count and corrupt.
    pub payload: Vec<u8>,
    /// Carried along untouched: addresses, ECN bits.
    pub meta: M,
}

/// What a path does with what accompanies a datagram.
pub trait Meta: Clone {
    /// The two ECN bits; none if it has no such bits.
    fn ecn(&self) -> u8 {
        0
    }

    /// Changes them.
    fn set_ecn(&mut self, _ecn: u8) {}
}

impl Meta for () {}
impl Meta for u64 {}

/// One direction of a path. Datagrams go in by [`process`](Self::process) and come out of [`poll`](Self::poll) when they are
/// due; [`next_time`](Self::next_time) says when to poll again.
///
/// Whoever polls late does not slow the path down: what is due is computed from when a datagram entered each effect.
#[derive(Debug)]
pub struct Link<M> {
    nodes: Vec<Node<M>>,
    arrived: VecDeque<Flow<M>>,
    flows: Vec<Flow<M>>,
    flows_next: Vec<Flow<M>>,
    stats: LinkStats,
    sequence_next: u64,
    /// One more than the highest sequence delivered.
    sequence_delivered: u64,
}

impl<M: Meta> Link<M> {
    /// A path with the effects of `config`, whose randomness comes from `seed`.
    ///
    /// # Errors
    /// [`BadLink`] names the setting that makes no sense.
    pub fn new(config: &LinkConfig, seed: u64) -> Result<Self, BadLink> {
        config.check()?;
        Ok(Self {
            nodes: nodes(config, seed),
            arrived: VecDeque::new(),
            flows: Vec::new(),
            flows_next: Vec::new(),
            stats: LinkStats::default(),
            sequence_next: 0,
            sequence_delivered: 0,
        })
    }

    /// Takes a datagram in. Times never go back.
    pub fn process(&mut self, now: Time, datagram: Datagram<M>) {
        self.stats.sent += 1;
        self.stats.bytes_sent += datagram.payload.len() as u64;
        if self.in_flight() > IN_FLIGHT_MAX {
            self.stats.dropped_queue += 1;
            return;
        }
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        self.flows.push(Flow { at: now, sequence, datagram });
        self.advance(now);
    }

    /// The next datagram that has arrived at the far end.
    pub fn poll(&mut self, now: Time) -> Option<Datagram<M>> {
        if self.arrived.is_empty() {
            self.advance(now);
        }
        let flow = self.arrived.pop_front()?;
        debug_assert!(flow.at <= now, "nothing arrives before it is due");
        self.stats.delivered += 1;
        self.stats.bytes_delivered += flow.datagram.payload.len() as u64;
        // The copy of the last datagram is not late.
        if flow.sequence + 1 < self.sequence_delivered {
            self.stats.reordered += 1;
        }
        self.sequence_delivered = self.sequence_delivered.max(flow.sequence + 1);
        Some(flow.datagram)
    }

    /// When [`poll`](Self::poll) may next give something.
    pub fn next_time(&self) -> Option<Time> {
        match self.arrived.front() {
            Some(flow) => Some(flow.at),
            None => self.nodes.iter().filter_map(Node::next_time).min(),
        }
    }

    /// From here on larger datagrams are dropped. A path without a limit stays so.
    pub fn set_mtu(&mut self, mtu: usize) {
        for node in &mut self.nodes {
            if let Node::Mtu(node) = node {
                *node = mtu;
            }
        }
    }

    /// From here on the bottleneck has this rate; the length of its queue stays. Without a bottleneck nothing changes.
    pub fn set_rate(&mut self, bits_per_s: u64) {
        for node in &mut self.nodes {
            if let Node::Queue(queue) = node {
                queue.set_rate(bits_per_s.max(1));
            }
        }
    }

    /// What enters from here on takes so long; it may overtake what entered before. A path without delay stays so.
    pub fn set_delay(&mut self, delay: Duration) {
        for node in &mut self.nodes {
            if let Node::Delay(node) = node {
                node.set_base(delay);
            }
        }
    }

    /// Bytes that wait before the bottleneck.
    pub fn queued_bytes(&self) -> u64 {
        let queued = |node: &Node<M>| if let Node::Queue(queue) = node { queue.bytes() } else { 0 };
        self.nodes.iter().map(queued).sum()
    }

    /// What the path has done so far.
    pub const fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// Datagrams under way.
    pub const fn in_flight(&self) -> u64 {
        self.stats.sent + self.stats.duplicated - self.stats.delivered - self.stats.dropped()
    }

    /// Brings every effect up to `now`: each gets what comes from the one before it, at the times at which it came.
    fn advance(&mut self, now: Time) {
        for node in &mut self.nodes {
            for flow in self.flows.drain(..) {
                node.advance(flow.at, &mut self.flows_next);
                node.push(flow, &mut self.stats, &mut self.flows_next);
            }
            node.advance(now, &mut self.flows_next);
            std::mem::swap(&mut self.flows, &mut self.flows_next);
        }
        self.arrived.extend(self.flows.drain(..));
    }
}

/// The effects that `config` asks for, from the sender to the receiver: the bottleneck and its queue come first, what happens
/// to a packet on the way after.
fn nodes<M: Meta>(config: &LinkConfig, seed: u64) -> Vec<Node<M>> {
    let rng = |purpose: u64| Rng::derive(seed, purpose);
    let mut nodes = Vec::new();
    if let Some(mtu) = config.mtu {
        nodes.push(Node::Mtu(mtu));
    }
    if let Some(rate) = config.rate_bits_per_s {
        nodes.push(Node::Queue(queue::Queue::new(rate, config.queue_bytes_max(), config.ecn.mark_above_bytes)));
    }
    if config.ecn.drops {
        nodes.push(Node::DropMarked);
    }
    if config.ecn.clears {
        nodes.push(Node::Bleach);
    }
    if !config.blackouts.is_empty() {
        nodes.push(Node::Blackout(config.blackouts.clone()));
    }
    if let Some(outage) = config.outage {
        nodes.push(Node::Outage(loss::Outage::new(outage, rng(1))));
    }
    if let Some(burst) = config.burst {
        nodes.push(Node::Burst(loss::Chain::new(burst, rng(2))));
    }
    if config.loss_percent > 0.0 {
        nodes.push(Node::Loss(loss::Loss::new(config.loss_percent, rng(3))));
    }
    if config.corrupt_percent > 0.0 {
        nodes.push(Node::Corrupt(mangle::Corrupt::new(config.corrupt_percent, rng(4))));
    }
    if config.duplicate_percent > 0.0 {
        nodes.push(Node::Duplicate(mangle::Duplicate::new(config.duplicate_percent, rng(5))));
    }
    if config.reorder_percent > 0.0 {
        nodes.push(Node::Reorder(reorder::Reorder::new(config.reorder_percent, rng(6))));
    }
    if !config.delay.is_zero() || !config.jitter.is_zero() {
        nodes.push(Node::Delay(delay::Delay::new(config.delay, config.jitter, rng(7))));
    }
    nodes
}
