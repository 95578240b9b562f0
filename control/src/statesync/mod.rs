//! Documents that several people edit at once.
//!
//! Reading order: [`service`] checks a request and hands it to the document's actor, which the [`registry`] finds or starts;
//! [`operations`] does so with operations, also with streams of them;
//! [`document`] is that actor, the one owner of a document's version, content, lock and subscribers; [`content`] applies
//! operations under the document's [`strategy`]; [`text`] is the mergeable text, [`items`] what whiteboards, canvases and sheets
//! have; [`guard`] reads the Yjs updates of clients first, [`places`] tells whether they fit; [`subscription`] is the stream that a
//! subscriber reads, [`events`] sends it; [`permission`] is what callers may do; [`store`] is what a store has to do, [`memory`], [`sqlite`] and [`postgres`] do it, and [`measured`] counts
//! how long they take.

mod content;
mod document;
mod events;
mod guard;
mod items;
mod measured;
mod memory;
mod model;
mod operations;
mod order;
mod permission;
mod places;
pub mod postgres;
mod registry;
mod service;
mod sqlite;
mod store;
mod strategy;
mod subscription;
pub mod text;
mod write;

pub use events::StateSyncRoutes;
pub use measured::MeasuredDocuments;
pub use memory::MemoryDocuments;
pub use model::{ConflictRecord, DocumentRecord, LockRecord, LogRow, Pending, Snapshot};
pub use postgres::{PostgresDocuments, PostgresOptions};
pub use registry::DocumentOptions;
pub(crate) use registry::PURGE_DELETED_AFTER;
pub use service::StateSyncServer;
pub use sqlite::SqliteDocuments;
pub use store::{Batch, ConflictFilter, DocumentCounts, DocumentFilter, DocumentStore, Durability, Purged};
