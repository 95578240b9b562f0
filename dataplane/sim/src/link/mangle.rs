//! Corruption and duplication.

use super::LinkStats;
use super::node::Flow;
use crate::Rng;

/// Flips one bit of some datagrams.
#[derive(Debug)]
pub(super) struct Corrupt {
    percent: f64,
    rng: Rng,
}

impl Corrupt {
    pub(super) const fn new(percent: f64, rng: Rng) -> Self {
        Self { percent, rng }
    }

    pub(super) fn push<M>(&mut self, mut flow: Flow<M>, stats: &mut LinkStats, out: &mut Vec<Flow<M>>) {
        let payload = &mut flow.datagram.payload;
        if !payload.is_empty() && self.rng.chance(self.percent) {
            let bit = self.rng.below(payload.len() as u64 * 8);
            payload[(bit / 8) as usize] ^= 1 << (bit % 8);
            stats.corrupted += 1;
        }
        out.push(flow);
    }
}

/// Sends a copy of some datagrams right after them.
#[derive(Debug)]
pub(super) struct Duplicate {
    percent: f64,
    rng: Rng,
}

impl Duplicate {
    pub(super) const fn new(percent: f64, rng: Rng) -> Self {
        Self { percent, rng }
    }

    pub(super) fn push<M: Clone>(&mut self, flow: Flow<M>, stats: &mut LinkStats, out: &mut Vec<Flow<M>>) {
        let copy = self.rng.chance(self.percent).then(|| Flow {
            at: flow.at,
            sequence: flow.sequence,
            datagram: flow.datagram.clone(),
        });
        out.push(flow);
        if let Some(copy) = copy {
            stats.duplicated += 1;
            out.push(copy);
        }
    }
}
