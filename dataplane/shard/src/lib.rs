//! The shards that run Quantum: one thread each, with its own UDP socket, `io_uring` and endpoint, pinned to a core if told so.
//!
//! [`Shards::start`] gives the control plane one [`ControlEnd`](handoff::ControlEnd) for each shard. Start reading in
//! `engine/mod.rs` (what a shard does), then `host/run.rs` (the loop around it) and `port/uring.rs` (how bytes move).

mod engine;
mod error;
pub mod handoff;
mod host;
mod port;
mod qlog;
mod shards;
mod socket;
mod spin;
mod steering;
mod work;

pub use engine::ShardStats;
pub use error::ShardError;
pub use host::{HostKind, IoKind};
pub use qlog::Qlog;
pub use shards::{AppKind, Shards, ShardsConfig};
pub use spin::AdaptiveSpin;
