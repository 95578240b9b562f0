//! Delay and jitter.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use quantum::Time;

use super::node::Flow;
use crate::Rng;

/// Holds every datagram for the delay, give or take the jitter.
#[derive(Debug)]
pub(super) struct Delay<M> {
    base_ns: u64,
    jitter_ns: u64,
    rng: Rng,
    held: BinaryHeap<Reverse<Held<M>>>,
    entered: u64,
}

#[derive(Debug)]
struct Held<M> {
    /// Datagrams due at the same time leave in the order of their entry.
    entry: u64,
    flow: Flow<M>,
}

impl<M> Held<M> {
    const fn key(&self) -> (Time, u64) {
        (self.flow.at, self.entry)
    }
}

impl<M> PartialEq for Held<M> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<M> Eq for Held<M> {}

impl<M> PartialOrd for Held<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M> Ord for Held<M> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<M> Delay<M> {
    pub(super) fn new(delay: Duration, jitter: Duration, rng: Rng) -> Self {
        Self { base_ns: nanos(delay), jitter_ns: nanos(jitter), rng, held: BinaryHeap::new(), entered: 0 }
    }

    /// What comes from here on is held for so long.
    pub(super) fn set_base(&mut self, delay: Duration) {
        self.base_ns = nanos(delay);
    }

    pub(super) fn push(&mut self, mut flow: Flow<M>) {
        let mut delay_ns = self.base_ns;
        if self.jitter_ns > 0 {
            delay_ns = (delay_ns + self.rng.below(2 * self.jitter_ns + 1)).saturating_sub(self.jitter_ns);
        }
        flow.at += Duration::from_nanos(delay_ns);
        self.held.push(Reverse(Held { entry: self.entered, flow }));
        self.entered += 1;
    }

    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<Flow<M>>) {
        while self.next_time().is_some_and(|due| due <= now) {
            out.extend(self.held.pop().map(|Reverse(held)| held.flow));
        }
    }

    pub(super) fn next_time(&self) -> Option<Time> {
        self.held.peek().map(|Reverse(held)| held.flow.at)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4)
}
