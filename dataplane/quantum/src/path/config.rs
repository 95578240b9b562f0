//! What connections may do with their paths.

/// Settings of the network path of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathConfig {
    /// UDP payload of the largest packet, from 1200 to 2048 bytes, before a larger one is known to arrive. A path that carries
    /// less than that is found out by its losses, and has 1200 from then on.
    pub datagram_size: u16,
    /// Up to this size, at most 2048 bytes, a connection that fills its packets tries larger ones (RFC 8899). 1472 is what
    /// Ethernet carries over IPv4; over IPv6 it is taken for 20 bytes less. `datagram_size` or less: none is tried.
    pub datagram_size_max: u16,
    /// Lets the network mark packets instead of dropping them (RFC 3168), where it does so.
    pub ecn: bool,
    /// A server follows a client to another address, once that is proved to be the client's. Packets are taken from any address
    /// in any case.
    pub migration: bool,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self { datagram_size: 1200, datagram_size_max: 1472, ecn: true, migration: true }
    }
}
