//! Sessions: who is connected, from where, and until when.
//!
//! Reading order: [`service`] checks a request and asks the [`store`]; [`model`] is what a session is and how it changes;
//! [`memory`] and [`sqlite`] are the stores.

mod memory;
mod model;
mod service;
mod sqlite;
mod store;

pub use memory::MemorySessions;
pub use model::{Session, SessionUpdate};
pub use service::SessionServer;
pub use sqlite::SqliteSessions;
pub use store::{SessionCounts, SessionFilter, SessionStore, Updated};
