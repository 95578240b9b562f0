//! The settings of a link.

use std::time::Duration;

use quantum::Time;

/// Bytes that the queue before a bottleneck holds at least if nothing else is said: 32 full Ethernet packets.
const QUEUE_BYTES_MIN: u64 = 32 * 1500;

/// The effects of one direction of a path. The default has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkConfig {
    /// One way delay.
    pub delay: Duration,
    /// The delay of each datagram varies evenly by as much up or down, so datagrams closer together may overtake each other.
    pub jitter: Duration,
    /// Independent loss.
    pub loss_percent: f64,
    /// Burst loss that steps with the packets.
    pub burst: Option<Burst>,
    /// Burst loss that steps with time.
    pub outage: Option<RandomOutage>,
    /// Rate of the bottleneck.
    pub rate_bits_per_s: Option<u64>,
    /// Bytes that the queue before the bottleneck holds; the bandwidth-delay product of the round trip if not given.
    pub queue_bytes: Option<u64>,
    /// Datagrams held back until one to eight later ones have passed.
    pub reorder_percent: f64,
    /// Datagrams that arrive twice.
    pub duplicate_percent: f64,
    /// Datagrams of which one bit is flipped.
    pub corrupt_percent: f64,
    /// Larger datagrams are dropped.
    pub mtu: Option<usize>,
    /// When nothing passes.
    pub blackouts: Vec<Blackout>,
    /// What becomes of ECN bits.
    pub ecn: EcnEffects,
}

/// What a path does with the ECN bits of datagrams, and because of them. The default carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EcnEffects {
    /// Marks datagrams that would be the queue's bytes beyond this instead of letting them wait in silence (RFC 3168).
    pub mark_above_bytes: Option<u64>,
    /// Clears the bits of every datagram.
    pub clears: bool,
    /// Drops every datagram that has any of them.
    pub drops: bool,
}

/// Gilbert-Elliott loss: a chain of a good and a bad state that steps with each packet, good at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Chance of the step from good to bad.
    pub good_to_bad_percent: f64,
    /// Chance of the step from bad to good.
    pub bad_to_good_percent: f64,
    /// Loss in the bad state; none is lost in the good one.
    pub loss_percent: f64,
}

/// A path that works and fails in turn, good at first: the lengths are exponentially distributed with these means, and
/// everything is lost while it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomOutage {
    /// Mean time that it works.
    pub good: Duration,
    /// Mean time that it fails.
    pub bad: Duration,
}

/// A time in which nothing passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blackout {
    /// Its beginning.
    pub from: Time,
    /// Its end, the first moment at which datagrams pass again.
    pub until: Time,
}

impl Blackout {
    pub(super) fn covers(&self, at: Time) -> bool {
        (self.from..self.until).contains(&at)
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadLink {
    /// Not a share of a hundred.
    #[error("{name}: {percent} is not between 0 and 100 percent")]
    Percent {
        /// The setting.
        name: &'static str,
        /// Its value.
        percent: f64,
    },
    /// Nothing would ever pass.
    #[error("a rate of zero lets nothing pass")]
    RateZero,
    /// A time-based burst without a length.
    #[error("the mean times of a burst must be above zero")]
    OutageZero,
}

impl LinkConfig {
    pub(super) fn check(&self) -> Result<(), BadLink> {
        let burst =
            self.burst.unwrap_or(Burst { good_to_bad_percent: 0.0, bad_to_good_percent: 0.0, loss_percent: 0.0 });
        let percents = [
            ("loss", self.loss_percent),
            ("reorder", self.reorder_percent),
            ("duplicate", self.duplicate_percent),
            ("corrupt", self.corrupt_percent),
            ("burst good to bad", burst.good_to_bad_percent),
            ("burst bad to good", burst.bad_to_good_percent),
            ("burst loss", burst.loss_percent),
        ];
        if let Some(&(name, percent)) = percents.iter().find(|(_, percent)| !(0.0..=100.0).contains(percent)) {
            return Err(BadLink::Percent { name, percent });
        }
        if self.rate_bits_per_s == Some(0) {
            return Err(BadLink::RateZero);
        }
        if self.outage.is_some_and(|outage| outage.good.is_zero() || outage.bad.is_zero()) {
            return Err(BadLink::OutageZero);
        }
        Ok(())
    }

    /// Bytes that the queue before the bottleneck holds.
    pub fn queue_bytes_max(&self) -> u64 {
        let product = self.rate_bits_per_s.map_or(0, |rate| {
            let bits = u128::from(rate) * 2 * self.delay.as_nanos() / 1_000_000_000;
            u64::try_from(bits / 8).unwrap_or(u64::MAX)
        });
        self.queue_bytes.unwrap_or_else(|| product.max(QUEUE_BYTES_MIN))
    }
}
