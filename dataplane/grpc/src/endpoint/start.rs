//! Starts shards.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use quantum_shard::{AppKind, ShardError, Shards, ShardsConfig};

use super::{EndpointError, EndpointOptions, ServerConfig};
use crate::port::{ControlPort, RingPort};

/// Shards that run.
pub(super) struct Started {
    pub(super) shards: Shards,
    pub(super) ports: Vec<ControlPort>,
}

/// Starts the shards of an endpoint, bound to `address` or to any.
pub(super) fn start(
    options: &EndpointOptions,
    address: Option<SocketAddr>,
    server: Option<&ServerConfig>,
    app: AppKind,
) -> Result<Started, EndpointError> {
    let mut endpoint = options.protocol.clone();
    endpoint.server = server.map(|server| server.tls.clone());
    endpoint.node_key = server.map_or_else(rand::random, |server| server.node_key);
    let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let mut config = ShardsConfig {
        listen: address.unwrap_or(any_v6),
        shards: options.shards,
        cores: options.cores.clone(),
        spin: options.spin,
        host: options.host,
        io: options.io,
        endpoint,
        app,
        qlog: options.qlog.clone(),
    };
    let (shards, ends) = match Shards::start(&config) {
        // A host without IPv6: a client that was told no address takes the other family.
        Err(ShardError::Socket { .. }) if address.is_none() => {
            config.listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            Shards::start(&config)
        }
        started => started,
    }
    .map_err(|error| EndpointError(error.to_string()))?;
    let port =
        |end| RingPort::new(end, options.spin).map(ControlPort::Ring).map_err(|error| EndpointError(error.to_string()));
    let ports = ends.into_iter().map(port).collect::<Result<_, _>>()?;
    Ok(Started { shards, ports })
}
