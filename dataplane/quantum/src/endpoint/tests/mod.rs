//! Endpoints against each other, in virtual time.

mod close;
mod cookies;
mod handshake;
mod net;
mod stateless;
mod violations;
