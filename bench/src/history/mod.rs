//! What the clients of one document sent, were told and saw, and whether the document's log can have come of it.
//!
//! Clients write down what happens to them in a [`Recorder`] that they share; [`check`] holds it against the log that
//! the server has in the end. It knows nothing of content: it counts operations, by their ids.

mod check;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use proto::statesync::{Operation, OperationEvent};
use serde::Serialize;

pub use check::{Violation, check};

/// Something that happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It is about to send an operation, for the first time or again.
    Sent {
        /// The operation.
        id: String,
        /// Its writer's session.
        session: String,
        /// Its number in the session, or 0.
        sequence: u64,
    },
    /// It was told that the operation is the document's version `version`.
    Acknowledged {
        /// The operation.
        id: String,
        /// The version.
        version: u64,
    },
    /// It was told that the operation waits in a conflict.
    Waits {
        /// The operation.
        id: String,
    },
    /// It was told that the operation is not taken.
    Refused {
        /// The operation.
        id: String,
    },
    /// Its subscription gave it the operation.
    Seen {
        /// The client.
        client: u16,
        /// The operation.
        id: String,
        /// The version.
        version: u64,
    },
}

impl Entry {
    /// That an operation is about to be sent.
    pub fn sent(operation: &Operation) -> Self {
        let (id, session) = (operation.id.clone(), operation.session_id.clone());
        Self::Sent { id, session, sequence: operation.session_sequence }
    }
}

/// An operation in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The version that it made.
    pub version: u64,
    /// Its id.
    pub id: String,
}

impl Logged {
    /// The operations of a subscription's events.
    pub fn of_events(events: &[OperationEvent]) -> Vec<Self> {
        let logged = |event: &OperationEvent| {
            let id = event.operation.as_ref()?.id.clone();
            Some(Self { version: event.version, id })
        };
        events.iter().filter_map(logged).collect()
    }
}

/// Takes down what happens to clients, in the order in which it does.
#[derive(Debug, Default)]
pub struct Recorder {
    entries: Mutex<Vec<Entry>>,
}

impl Recorder {
    /// Takes down one thing: [`Entry::Sent`] before the operation leaves, the others after they were heard.
    pub fn record(&self, entry: Entry) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Holds everything against the log.
    pub fn verdict(&self, log: &[Logged]) -> Verdict {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let acknowledged = entries.iter().filter(|entry| matches!(entry, Entry::Acknowledged { .. })).count();
        let violations = check(&entries, log).iter().map(ToString::to_string).collect();
        Verdict { operations: log.len(), acknowledged, violations }
    }
}

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Operations in the log.
    pub operations: usize,
    /// Acknowledgements that clients got.
    pub acknowledged: usize,
    /// What cannot be.
    pub violations: Vec<String>,
}
