//! Forward error correction: what a lost packet carried comes back from repair symbols, without another round trip
//! (PROTOCOL.md section 12).
//!
//! The sending side ([`Protector`]) gathers packets into groups and adds repair symbols to each ([`code`] makes them), as many as
//! the path's losses call for ([`LossMeter`], [`plan`]) and as the budget allows. The receiving side ([`Restorer`]) puts lost
//! packets together again and reports them.

mod budget;
pub mod code;
mod config;
mod gaps;
mod group;
mod groups;
mod meter;
mod on_demand;
mod open;
mod plan;
mod pool;
mod protector;
mod reports;
mod restorer;
#[cfg(test)]
mod tests;

pub(crate) use budget::PathView;
pub use config::{FecConfig, FecMode};
pub(crate) use meter::{Burst, LossMeter};
pub(crate) use protector::{Protector, RESERVE_MAX};
pub(crate) use restorer::Restorer;

/// Bytes before a packet's symbol in its shard, in a group of several: the symbol's length and the packet's number.
const SHARD_HEAD_LEN: usize = 2 + 8;
