//! The hand-off between a shard and the control plane.

mod doorbell;
mod ends;
mod message;
mod sleep_flag;
mod sync;

pub(crate) use doorbell::Doorbell;
pub use ends::ControlEnd;
pub(crate) use ends::{ShardEnd, pair};
pub use message::{ConnectTarget, ConnectionKey, ToControl, ToShard};

/// Bytes of one direction of one stream that may be in the hand-off: sent by the shard and not consumed, or written by the
/// control plane and not taken by the core.
pub const HANDOFF_WINDOW: usize = 256 << 10;
