//! The text as one client holds it: what it sees when it edits, and what it has received.

mod positional;
#[cfg(test)]
mod tests;
mod yjs;

use bytes::Bytes;

use crate::trace::Patch;
pub use positional::PositionalReplica;
pub use yjs::YjsReplica;

/// Why a replica refuses an edit or an operation.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// An edit of the trace lies outside the text.
    #[error("position {position} with {deleted} deleted is past the end of the text")]
    PastEnd {
        /// Where.
        position: u32,
        /// How many characters would go.
        deleted: u32,
    },
    /// The server sent something that cannot be applied.
    #[error("the server sent an operation that cannot be applied: {0}")]
    Operation(String),
    /// Edits and operations of one document, over the whole session.
    #[error("more than {0} operations")]
    Full(u32),
}

/// Operations of one writer: which of its transactions (its own count) they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The writer.
    pub agent: u16,
    /// The first transaction.
    pub first: u32,
    /// One past the last.
    pub end: u32,
}

/// An operation as the server gives it to a subscriber.
#[derive(Debug, Clone)]
pub struct Received {
    /// What it holds.
    pub span: Span,
    /// `Operation.data`: the JSON form, positions relative to the state before it.
    pub data: Bytes,
    /// The Yjs update, if the subscriber asked for updates.
    pub update: Bytes,
    /// [`Edit::deleted`], as the sender named them, or nothing.
    pub deleted: String,
    /// [`Edit::after`], as the sender named them, or nothing.
    pub after: String,
}

/// An edit, ready to be sent.
#[derive(Debug, Clone)]
pub struct Edit {
    /// `Operation.data`.
    pub data: Bytes,
    /// What it deletes, by name (JSON: characters; Yjs: an update in hexadecimal digits). Events show only what an operation
    /// changed when the server came to it; a third client, that has seen this edit but not another one that deleted the same
    /// before, must still see it gone.
    pub deleted: String,
    /// JSON only: the names of the characters after which its insertions stand.
    pub after: String,
}

/// How a client holds the text.
#[derive(Debug)]
pub enum Replica {
    /// A Yjs document; operations are Yjs updates.
    Yjs(YjsReplica),
    /// Characters that remember who wrote and deleted them; operations are JSON.
    Positional(PositionalReplica),
}

impl Replica {
    /// Makes one edit that holds the transactions of `span`, on top of exactly what [`see`](Self::see) let in; gives what to send.
    ///
    /// # Errors
    /// If a patch lies outside the text.
    pub fn edit<'a>(&mut self, span: Span, patches: impl Iterator<Item = &'a Patch>) -> Result<Edit, ReplicaError> {
        match self {
            Self::Yjs(replica) => replica.edit(patches),
            Self::Positional(replica) => replica.edit(span, patches),
        }
    }

    /// Keeps an operation that arrived, the client's own ones included; they come in the order of the server's versions.
    ///
    /// # Errors
    /// If it cannot be applied.
    pub fn receive(&mut self, received: Received, own: bool) -> Result<(), ReplicaError> {
        match self {
            Self::Yjs(replica) => {
                if !own {
                    replica.receive(received);
                }
                Ok(())
            }
            Self::Positional(replica) => replica.receive(&received, own),
        }
    }

    /// Lets the client see exactly the received operations that lie within `frontier` (transactions per writer).
    ///
    /// # Errors
    /// If an operation cannot be applied.
    pub fn see(&mut self, frontier: &[u32]) -> Result<(), ReplicaError> {
        match self {
            Self::Yjs(replica) => replica.see(frontier),
            Self::Positional(replica) => {
                replica.see(frontier);
                Ok(())
            }
        }
    }

    /// The text that the client sees.
    pub fn text(&self) -> String {
        match self {
            Self::Yjs(replica) => replica.text(),
            Self::Positional(replica) => replica.text(),
        }
    }
}
