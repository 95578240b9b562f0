//! Endpoints against each other, in virtual time.

mod attacks;
mod close;
mod cookies;
mod datagrams;
mod early;
mod fec;
mod fuzz;
mod garbage;
mod handshake;
mod keys;
mod migration;
mod net;
mod numbers;
mod optimistic;
mod patience;
mod stateless;
mod timers;
mod violations;
