//! What both services do for whoever calls, configures or runs them.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod auth;
mod binary;
#[path = "../common/mod.rs"]
mod common;
mod config;
mod events;
mod help;
mod readiness;
mod readme_examples;
mod reload;
mod rpcs;
mod traces;
