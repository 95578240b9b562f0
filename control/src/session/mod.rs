//! Sessions: who is connected, from where, and until when.
//!
//! Reading order: [`service`] checks a request and asks the [`store`]; [`model`] is what a session is and how it changes;
//! [`memory`], [`sqlite`] and [`redis`] are the stores, [`measured`] counts how long they take; [`connections`] knows by which
//! connection a session came, and what its end means.

mod connections;
mod measured;
mod memory;
mod model;
mod redis;
mod service;
mod sqlite;
mod store;

// Not the crate.
pub use self::redis::{RedisOptions, RedisSessions};
pub use connections::{Connections, OnDisconnect, Opened, watch};
pub use measured::MeasuredSessions;
pub use memory::MemorySessions;
pub use model::{Refused, Session, SessionChange, SessionUpdate};
pub use service::SessionServer;
pub(crate) use service::hash_token;
pub use sqlite::SqliteSessions;
pub use store::{Changed, SessionCounts, SessionFilter, SessionStore};
