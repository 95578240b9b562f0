//! The workload: clients that send and check, a server that echoes and sends of its own.

mod client;
mod pattern;
mod plan;
mod server;

use std::fmt;

pub use plan::{Plan, StreamKind, StreamPlan};

pub(crate) use client::Client;
pub(crate) use server::Server;

/// The code with which clients close.
const CLOSE_CODE: u64 = 7;
/// The code with which streams are given up.
const ABORT_CODE: u64 = 42;
/// Bytes read at once.
const READ_MAX: usize = 16 << 10;
/// Bytes that the server reads ahead of what it could echo.
const ECHO_MAX: usize = 64 << 10;

/// What a run did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}
