//! The control plane of `AetherFlow`: the session and the document service, and the process that runs them.
//!
//! Reading order: [`launch`] runs what [`config`] says, which [`mod@reload`] reads again; [`migrate`] is the schema of its
//! database; [`up`] starts and stops it; [`client`] is what calls it, [`auth`] who may; [`session`] and [`statesync`] are the services; [`store`] is
//! how both keep data; [`telemetry`] is what an operator sees; [`status`] is how failures are told.

pub mod auth;
pub mod client;
pub mod clock;
pub mod config;
pub mod launch;
pub mod migrate;
mod reload;
pub mod session;
pub mod statesync;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod up;
