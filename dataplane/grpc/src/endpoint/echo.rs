//! A server that is nothing but shards.

use std::net::SocketAddr;

use quantum_shard::{AppKind, ShardStats, Shards};

use super::{EndpointError, ServerConfig, start};

/// Sends back what comes on every stream, on the shard that it came to: the floor under every other server's latency.
/// Dropping it ends its shards.
#[derive(Debug)]
pub struct EchoServer {
    shards: Shards,
}

impl EchoServer {
    /// Listens on a UDP address.
    ///
    /// # Errors
    /// [`EndpointError`] if a shard cannot start or the address cannot be bound.
    pub fn bind(address: SocketAddr, config: &ServerConfig) -> Result<Self, EndpointError> {
        let started = start::start(&config.options, Some(address), Some(config), AppKind::Echo)?;
        Ok(Self { shards: started.shards })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shards.local_addr()
    }

    /// What each shard has done, some milliseconds ago.
    pub fn shard_stats(&self) -> Vec<ShardStats> {
        self.shards.stats()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.shards.shutdown();
    }
}
