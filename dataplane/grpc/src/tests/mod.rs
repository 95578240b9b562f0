//! The whole crate between two pumps: a wire in memory takes the place of the shards.

mod calls;
mod deadlines;
mod fixture;
mod hostile;
mod load;
mod plain;
mod service;
mod wire;
