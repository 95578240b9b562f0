//! What carries calls: Quantum, with `io_uring` and without it, TCP where UDP does not get through, and the commands that
//! choose.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod auto;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod quantum;
mod without_io_uring;
