//! Skeleton.
pub mod handoff;
