//! What was sent to one document, and what the server has of it in the end.

use bytes::Bytes;
use proto::statesync::{Conflict, OperationEvent};
use serde_json::Value;

use super::Target;

/// What a writer was told of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// That it is this version. A status of `resolved` or `rejected` tells that it won or lost against what it did not know.
    Applied { version: u64, status: String },
    /// That it is kept until somebody decides.
    Waits,
    /// That it is not taken, and why.
    Refused(String),
}

/// An operation as its writer meant it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) writer: u16,
    /// The version that the writer had read. It had also seen its own operations since.
    pub(super) base: u64,
    pub(super) kind: &'static str,
    pub(super) data: Value,
    pub(super) told: Told,
}

/// Everything of one document.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) target: Target,
    /// In the order in which operations were made.
    pub(super) sent: Vec<Sent>,
    /// Every operation in the log, with its Yjs update.
    pub(super) log: Vec<OperationEvent>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) content: Bytes,
}
