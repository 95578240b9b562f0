//! What a seed stands for.

use std::time::Duration;

use quantum::Time;

use super::incident::{Incident, IncidentKind};
use crate::app::Plan;
use crate::{Blackout, Burst, EcnEffects, LinkConfig, RandomOutage, Rng};

/// UDP payload that every path carries, and that the best ones do.
const MTU_MIN: u64 = 1_200;
const MTU_MAX: u64 = 1_472;
/// Blackouts of a path at most.
const BLACKOUTS_MAX: u64 = 3;
/// Bytes of a full Ethernet packet, in which short queues are counted.
const PACKET: u64 = 1_500;

/// A network, and what clients do on it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// From which everything else was drawn.
    pub seed: u64,
    /// UDP payload of the largest packet at first, in bytes: no path carries less.
    pub datagram_size: u16,
    /// UDP payload of the largest packet that is tried; paths may carry less.
    pub datagram_size_max: u16,
    /// Effects of the path to the server.
    pub up: LinkConfig,
    /// Effects of the path to the clients.
    pub down: LinkConfig,
    /// What each client does.
    pub plans: Vec<Plan>,
    /// What befalls the endpoints, in the order of time.
    pub incidents: Vec<Incident>,
}

impl Scenario {
    /// The scenario of that seed: from a local network without loss to a bad one with everything.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::derive(seed, 100);
        let clients = if rng.chance(25.0) { 2 + rng.below(3) } else { 1 };
        let datagram_size = MTU_MIN + rng.below(MTU_MAX - MTU_MIN + 1);
        let mut up = path(&mut rng, datagram_size);
        // Half of the paths are as good or bad in both directions.
        let mut down = if rng.chance(50.0) { up.clone() } else { path(&mut rng, datagram_size) };
        down.delay = up.delay;
        if rng.chance(15.0) {
            let both = blackout(&mut rng);
            up.blackouts.push(both);
            down.blackouts.push(both);
        }
        let plans = (0..clients).map(|client| Plan::draw(&mut Rng::derive(seed, 200 + client))).collect();
        let incidents = Incident::draw(&mut Rng::derive(seed, 400), clients);
        (up.ecn, down.ecn) = (ecn(&mut Rng::derive(seed, 501)), ecn(&mut Rng::derive(seed, 502)));
        let datagram_size = datagram_size as u16;
        // Two thirds of the worlds find out how large packets may be.
        let finds_out = Rng::derive(seed, 500).below(3) > 0;
        let datagram_size_max = if finds_out { MTU_MAX as u16 } else { datagram_size };
        Self { seed, datagram_size, datagram_size_max, up, down, plans, incidents }
    }

    /// Whether a connection may end in silence, by a timeout or a reset, before its client is done: a clock that jumps by an
    /// hour is an hour without an answer.
    pub fn may_end_in_silence(&self) -> bool {
        self.incidents.iter().any(|incident| matches!(incident.kind, IncidentKind::ClockStep { .. }))
    }
}

/// A path, each effect being there or not on its own.
fn path(rng: &mut Rng, datagram_size: u64) -> LinkConfig {
    let mut percent = |chance: f64, most: f64| if rng.chance(chance) { rng.unit() * most } else { 0.0 };
    let (loss_percent, reorder_percent) = (percent(50.0, 12.0), percent(30.0, 10.0));
    let (duplicate_percent, corrupt_percent) = (percent(25.0, 5.0), percent(25.0, 3.0));
    let delay = Duration::from_micros(100 + rng.below(100_000) * rng.below(2) + rng.below(3_000));
    let jitter = if rng.chance(30.0) { delay.mul_f64(rng.unit()) } else { Duration::ZERO };
    let burst = rng.chance(15.0).then(|| Burst {
        good_to_bad_percent: 0.2 + rng.unit(),
        bad_to_good_percent: 20.0 + 40.0 * rng.unit(),
        loss_percent: 50.0 + 50.0 * rng.unit(),
    });
    let outage = rng.chance(10.0).then(|| RandomOutage {
        good: Duration::from_millis(500 + rng.below(1_500)),
        bad: Duration::from_millis(5 + rng.below(80)),
    });
    let rate_bits_per_s = rng.chance(50.0).then(|| 500_000 << rng.below(8));
    let queue_bytes = rate_bits_per_s.filter(|_| rng.chance(60.0)).map(|rate| queue_bytes(rng, rate));
    let blackouts = (0..rng.below(2) * rng.below(2) * rng.below(BLACKOUTS_MAX + 1)).map(|_| blackout(rng)).collect();
    LinkConfig {
        delay,
        jitter,
        loss_percent,
        burst,
        outage,
        rate_bits_per_s,
        queue_bytes,
        reorder_percent,
        duplicate_percent,
        corrupt_percent,
        mtu: Some((datagram_size + rng.below(MTU_MAX - datagram_size + 1)) as usize),
        blackouts,
        ecn: EcnEffects::default(),
    }
}

/// Half of the paths carry ECN bits as they should, others clear them or drop what has any.
fn ecn(rng: &mut Rng) -> EcnEffects {
    match rng.below(8) {
        0 => EcnEffects { clears: true, ..EcnEffects::default() },
        1 => EcnEffects { drops: true, ..EcnEffects::default() },
        2..6 => EcnEffects { mark_above_bytes: Some(rng.below(64) * PACKET), ..EcnEffects::default() },
        _ => EcnEffects::default(),
    }
}

/// From a queue of four packets to one that holds a second and more at that rate.
fn queue_bytes(rng: &mut Rng, rate_bits_per_s: u64) -> u64 {
    let most = (rate_bits_per_s / 8).max(8 * PACKET);
    4 * PACKET + (most >> rng.below(8))
}

/// Up to six seconds in which nothing passes, somewhere in the first eight, short ones being as likely as long ones.
fn blackout(rng: &mut Rng) -> Blackout {
    let (from_max, length_max) = (8_000 >> rng.below(8), 6_000 >> rng.below(6));
    let from = Time::ZERO + Duration::from_millis(rng.below(from_max));
    let length = Duration::from_millis(50 + rng.below(length_max));
    Blackout { from, until: from + length }
}
