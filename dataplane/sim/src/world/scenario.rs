//! What a seed stands for.

use std::time::Duration;

use quantum::Time;

use crate::app::Plan;
use crate::{Blackout, Burst, LinkConfig, RandomOutage, Rng};

/// A network, and what clients do on it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// From which everything else was drawn.
    pub seed: u64,
    /// Effects of the path to the server.
    pub up: LinkConfig,
    /// Effects of the path to the clients.
    pub down: LinkConfig,
    /// What each client does.
    pub plans: Vec<Plan>,
}

impl Scenario {
    /// The scenario of that seed: from a local network without loss to a bad one with everything.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::derive(seed, 100);
        let clients = if rng.chance(25.0) { 2 + rng.below(3) } else { 1 };
        let up = path(&mut rng);
        // Half of the paths are as good or bad in both directions.
        let mut down = if rng.chance(50.0) { up.clone() } else { path(&mut rng) };
        down.delay = up.delay;
        let plans = (0..clients).map(|client| Plan::draw(&mut Rng::derive(seed, 200 + client))).collect();
        Self { seed, up, down, plans }
    }
}

/// A path, each effect being there or not on its own.
fn path(rng: &mut Rng) -> LinkConfig {
    let mut percent = |chance: f64, most: f64| if rng.chance(chance) { rng.unit() * most } else { 0.0 };
    let (loss_percent, reorder_percent) = (percent(50.0, 12.0), percent(30.0, 10.0));
    let (duplicate_percent, corrupt_percent) = (percent(25.0, 5.0), percent(25.0, 3.0));
    let delay = Duration::from_micros(100 + rng.below(100_000) * rng.below(2) + rng.below(3_000));
    let jitter = if rng.chance(25.0) { delay / 4 } else { Duration::ZERO };
    let burst = rng.chance(15.0).then(|| Burst {
        good_to_bad_percent: 0.2 + rng.unit(),
        bad_to_good_percent: 20.0 + 40.0 * rng.unit(),
        loss_percent: 50.0 + 50.0 * rng.unit(),
    });
    let outage = rng.chance(10.0).then(|| RandomOutage {
        good: Duration::from_millis(500 + rng.below(1_500)),
        bad: Duration::from_millis(5 + rng.below(80)),
    });
    let rate_bits_per_s = rng.chance(40.0).then(|| 2_000_000 << rng.below(6));
    let blackouts = if rng.chance(15.0) { vec![blackout(rng)] } else { Vec::new() };
    LinkConfig {
        delay,
        jitter,
        loss_percent,
        burst,
        outage,
        rate_bits_per_s,
        queue_bytes: None,
        reorder_percent,
        duplicate_percent,
        corrupt_percent,
        mtu: Some(1_472),
        blackouts,
    }
}

/// Up to five seconds in which nothing passes, somewhere in the first three.
fn blackout(rng: &mut Rng) -> Blackout {
    let from = Time::ZERO + Duration::from_millis(rng.below(3_000));
    Blackout { from, until: from + Duration::from_millis(100 + rng.below(4_900)) }
}
