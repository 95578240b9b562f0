//! Ports: how bytes move between the kernel and a shard. The only place, with the hand-off, that talks to the kernel itself.

mod address;
mod buffers;
mod control;
mod slots;
mod sys;
mod unreachable;
mod uring;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wire_tests;

pub(crate) use sys::{attach_steering, locked_memory_limit_kib, prepare_socket};
pub(crate) use uring::{UringPort, UringSettings, probe};
