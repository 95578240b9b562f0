//! Starts shards.

use std::net::SocketAddr;

use super::{EndpointError, EndpointOptions, ServerConfig};
use crate::port::ControlPort;

/// Shards that run.
pub(super) struct Started {
    pub(super) ports: Vec<ControlPort>,
    pub(super) local_addr: SocketAddr,
}

/// Starts the shards of an endpoint, bound to `address` or to any.
pub(super) fn start(
    options: &EndpointOptions,
    address: Option<SocketAddr>,
    server: Option<&ServerConfig>,
) -> Result<Started, EndpointError> {
    let _ = (options, address, server);
    Err(EndpointError("quantum-shard cannot start shards yet".to_owned()))
}
