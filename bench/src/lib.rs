//! The load generator, link emulator and trace player of `AetherFlow`.
//!
//! It may import every other crate of the workspace; nothing imports it. Every subcommand prints its result as one JSON
//! line, the last of standard output; everything for people (progress, tables, hints) goes to standard error.

pub mod certs;
pub mod cli;
pub mod compare;
pub mod demo;
pub mod history;
pub mod link;
pub mod load;
pub mod replay;
pub mod replica;
pub mod services;
pub mod trace;
pub mod transport;
pub mod writers;
