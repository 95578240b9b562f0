//! Reordering: some datagrams wait until later ones have passed them.

use std::time::Duration;

use quantum::Time;

use super::node::Flow;
use crate::Rng;

/// Datagrams that may pass one that is held back, at most.
const DEPTH_MAX: u64 = 8;
/// A datagram that nothing passes goes on after so long.
const HOLD_MAX: Duration = Duration::from_millis(5);

/// Holds some datagrams back until one to eight later ones have passed, or for 5 ms.
#[derive(Debug)]
pub(super) struct Reorder<M> {
    percent: f64,
    rng: Rng,
    /// In the order of their entry, and so of `until`.
    held: Vec<Held<M>>,
}

#[derive(Debug)]
struct Held<M> {
    flow: Flow<M>,
    until: Time,
    /// Datagrams that must yet pass.
    depth: u64,
}

impl<M> Reorder<M> {
    pub(super) const fn new(percent: f64, rng: Rng) -> Self {
        Self { percent, rng, held: Vec::new() }
    }

    pub(super) fn push(&mut self, flow: Flow<M>, out: &mut Vec<Flow<M>>) {
        let at = flow.at;
        if self.rng.chance(self.percent) {
            let depth = 1 + self.rng.below(DEPTH_MAX);
            self.held.push(Held { until: at + HOLD_MAX, depth, flow });
            return;
        }
        out.push(flow);
        for held in &mut self.held {
            held.depth -= 1;
        }
        self.release(at, out, |held| held.depth == 0);
    }

    pub(super) fn advance(&mut self, now: Time, out: &mut Vec<Flow<M>>) {
        while let Some(due) = self.next_time().filter(|due| *due <= now) {
            self.release(due, out, |held| held.until == due);
        }
    }

    pub(super) fn next_time(&self) -> Option<Time> {
        self.held.first().map(|held| held.until)
    }

    fn release(&mut self, at: Time, out: &mut Vec<Flow<M>>, is_due: impl Fn(&Held<M>) -> bool) {
        out.extend(self.held.extract_if(.., |held| is_due(held)).map(|held| Flow { at, ..held.flow }));
    }
}
