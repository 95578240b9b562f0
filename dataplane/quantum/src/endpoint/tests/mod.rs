//! Endpoints against each other, in virtual time.

mod close;
mod cookies;
mod fec;
mod fuzz;
mod garbage;
mod handshake;
mod net;
mod numbers;
mod stateless;
mod timers;
mod violations;
