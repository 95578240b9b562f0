//! Everything with keys: packet protection, cookies, stateless resets.

pub(crate) mod cookie;
pub(crate) mod reset;
pub mod session;
pub(crate) mod tls;
