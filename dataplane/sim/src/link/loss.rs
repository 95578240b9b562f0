//! Loss: independent, in bursts by packets, in bursts by time.

use std::time::Duration;

use quantum::Time;

use super::{Burst, RandomOutage};
use crate::Rng;

/// Independent loss.
#[derive(Debug)]
pub(super) struct Loss {
    percent: f64,
    rng: Rng,
}

impl Loss {
    pub(super) const fn new(percent: f64, rng: Rng) -> Self {
        Self { percent, rng }
    }

    pub(super) fn drops(&mut self) -> bool {
        self.rng.chance(self.percent)
    }
}

/// The Gilbert-Elliott chain.
#[derive(Debug)]
pub(super) struct Chain {
    burst: Burst,
    bad: bool,
    rng: Rng,
}

impl Chain {
    pub(super) const fn new(burst: Burst, rng: Rng) -> Self {
        Self { burst, bad: false, rng }
    }

    /// Steps the chain, then asks whether the packet is lost in the state it came to.
    pub(super) fn drops(&mut self) -> bool {
        let leave = if self.bad { self.burst.bad_to_good_percent } else { self.burst.good_to_bad_percent };
        self.bad ^= self.rng.chance(leave);
        self.bad && self.rng.chance(self.burst.loss_percent)
    }
}

/// A path that works and fails in turn.
#[derive(Debug)]
pub(super) struct Outage {
    means: RandomOutage,
    bad: bool,
    /// When the state changes next; the clock's origin before the first packet.
    change: Option<Time>,
    rng: Rng,
}

impl Outage {
    pub(super) const fn new(means: RandomOutage, rng: Rng) -> Self {
        Self { means, bad: false, change: None, rng }
    }

    pub(super) fn drops(&mut self, at: Time) -> bool {
        let mut change = match self.change {
            Some(change) => change,
            None => at + self.length(),
        };
        while change <= at {
            self.bad = !self.bad;
            change += self.length();
        }
        self.change = Some(change);
        self.bad
    }

    /// How long the present state lasts; at least a microsecond, which bounds the steps of a long silence.
    fn length(&mut self) -> Duration {
        let mean = if self.bad { self.means.bad } else { self.means.good };
        Duration::from_nanos((self.rng.exponential(mean.as_nanos() as f64) as u64).max(1_000))
    }
}
