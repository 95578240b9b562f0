//! Sessions: who is connected, from where, and until when.

mod model;
mod service;
mod store;

pub use model::Session;
pub use service::SessionServer;
pub use store::SessionStore;
