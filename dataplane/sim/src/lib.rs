//! A network in one process: link effects as nodes, on a virtual clock for the protocol's tests and on the real one for the
//! emulator of `aetherflow-bench link`.
//!
//! Time comes in as an argument and randomness from a seed, so the same seed gives the same network.
#![forbid(unsafe_code)]

mod app;
mod cipher;
mod link;
mod rng;
mod world;

pub use app::{Fault, Plan, StreamKind, StreamPlan};
pub use cipher::Cipher;
pub use link::{
    BadLink, Blackout, Burst, Datagram, EcnEffects, Link, LinkConfig, LinkStats, Meta, QueueStats, RandomOutage,
};
pub use rng::Rng;
pub use world::{Duel, Incident, IncidentKind, Outcome, Pair, Scenario, World};
