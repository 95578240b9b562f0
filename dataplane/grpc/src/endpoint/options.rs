//! What endpoints and connections can be told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quantum::{Alpn, EndpointConfig};
use quantum_shard::{HostKind, IoKind};

use crate::early::IdempotentMethods;
use crate::identity::Identity;
use crate::tls::{self, TlsError, Verify};

/// About as long as it takes to wake a thread whose virtual processor sleeps (measured: 50 to 150 us).
const SPIN: Duration = Duration::from_micros(50);

/// How an endpoint runs.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// The protocol's windows, timeouts and limits. Its `server` and `node_key` are set by the endpoint.
    pub protocol: EndpointConfig,
    /// Shards: threads, each with its own socket.
    pub shards: usize,
    /// Cores that the shards are pinned to, in order; none: not pinned.
    pub cores: Vec<usize>,
    /// How long a shard, and the task that it hands over to, go on looking for work before they sleep, at most: only while work
    /// comes all the time ([`AdaptiveSpin`](quantum_shard::AdaptiveSpin)).
    pub spin: Duration,
    /// What runs the shards' threads.
    pub host: HostKind,
    /// How their bytes move.
    pub io: IoKind,
    /// Logs each connection into this folder, in qlog's format.
    pub qlog: Option<PathBuf>,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            protocol: EndpointConfig::default(),
            shards: 1,
            cores: Vec::new(),
            spin: SPIN,
            host: HostKind::default(),
            io: IoKind::default(),
            qlog: None,
        }
    }
}

/// Whom a client connects to.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The application protocol.
    pub alpn: Alpn,
    /// The name that the server's certificate has to prove; none: the host that is dialled.
    pub server_name: Option<String>,
    /// How the server is verified.
    pub verify: Verify,
    /// What the client proves itself by, to servers that ask for it.
    pub certificate: Option<ClientCertificate>,
    /// The RPCs that a channel sends as early data, where its endpoint's options allow that
    /// ([`SecurityConfig::early_data`](quantum::SecurityConfig::early_data)) and an earlier connection of the channel left a ticket.
    /// Others wait for the handshake.
    pub idempotent: IdempotentMethods,
}

/// Files in PEM of what a client proves itself by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and those it follows from.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl ClientConfig {
    /// A gRPC client that verifies the server by `verify`.
    pub fn new(verify: Verify) -> Self {
        Self {
            alpn: Alpn::Grpc,
            server_name: None,
            verify,
            certificate: None,
            idempotent: IdempotentMethods::default(),
        }
    }

    /// The configuration with the name of the host in `address` if it has none.
    pub(crate) fn named(&self, address: &str) -> Self {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { server_name: Some(self.server_name.clone().unwrap_or(host)), ..self.clone() }
    }
}

/// How a server proves who it is, and how its endpoint runs.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) node_key: [u8; 32],
    /// How the endpoint runs.
    pub options: EndpointOptions,
}

impl ServerConfig {
    /// A server with that identity and default options.
    ///
    /// # Errors
    /// [`TlsError`] if rustls refuses the identity.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Self::with_client_ca(identity, None)
    }

    /// A server with that identity and default options, whose clients have to show a certificate by one of the authorities in this
    /// PEM file, if there is one.
    ///
    /// # Errors
    /// [`TlsError`] if rustls refuses the identity or the authorities.
    pub fn with_client_ca(identity: &Identity, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let tls = tls::server_config(identity, client_ca)?;
        Ok(Self { tls, node_key: identity.node_key(), options: EndpointOptions::default() })
    }
}
