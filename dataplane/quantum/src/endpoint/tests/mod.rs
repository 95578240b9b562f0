//! Endpoints against each other, in virtual time.

mod cookies;
mod handshake;
mod net;
mod stateless;
