//! Documents that several people edit at once.
//!
//! Reading order: [`service`] checks a request and hands it to the document's actor, which the [`registry`] finds or starts;
//! [`document`] is that actor, the one owner of a document's version, content and subscribers; [`content`] applies operations;
//! [`text`] is the mergeable text; [`subscription`] is the stream that a subscriber reads; [`store`] is the disk.

mod content;
mod document;
mod model;
mod order;
mod registry;
mod service;
mod store;
mod subscription;
pub mod text;

pub use service::StateSyncServer;
pub use store::DocumentStore;
