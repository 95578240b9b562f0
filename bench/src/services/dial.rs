//! Connections to a service under test.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use quantum_grpc::{ClientConfig, EndpointOptions, Verify};
use tonic::transport::Endpoint;

use crate::replay::ReplayTransport;
use crate::replay::wire::Wire;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Flow control over TCP as Quantum has it by default: a stream that nobody reads stops itself, not its connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A service that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// gRPC, over TCP and over Quantum.
    pub(super) address: SocketAddr,
    /// SHA-256 of its public key, in hexadecimal.
    pub(super) fingerprint: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (address, fingerprint) = text.split_once(',').context("ADDRESS,FINGERPRINT")?;
        Ok(Self { address: address.parse().context("ADDRESS,FINGERPRINT")?, fingerprint: fingerprint.to_owned() })
    }
}

/// Makes connections over one transport. Those over Quantum share a socket and a shard; each is one of its own.
pub(super) struct Dialer {
    /// What carries the calls.
    pub(super) transport: ReplayTransport,
    endpoint: Option<quantum_grpc::Endpoint>,
}

impl Dialer {
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// If a shard cannot start.
    pub(super) fn new(transport: ReplayTransport) -> anyhow::Result<Self> {
        let endpoint = match transport {
            ReplayTransport::QuantumGrpc => Some(quantum_grpc::Endpoint::client(&EndpointOptions::default())?),
            ReplayTransport::TcpGrpc => None,
        };
        Ok(Self { transport, endpoint })
    }

    /// So many connections to a service.
    ///
    /// # Errors
    /// If one cannot be made.
    pub(super) async fn wires(&self, target: &Target, count: usize) -> anyhow::Result<Vec<Wire>> {
        let mut wires = Vec::with_capacity(count);
        for number in 1..=count {
            let wire = self.wire(target).await;
            wires.push(wire.with_context(|| format!("cannot make connection {number} to {}", target.address))?);
        }
        Ok(wires)
    }

    async fn wire(&self, target: &Target) -> anyhow::Result<Wire> {
        let address = target.address.to_string();
        let Some(endpoint) = &self.endpoint else {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .tcp_nodelay(true)
                .connect_timeout(CONNECT_TIMEOUT)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            return Ok(Wire::Tcp(endpoint.connect().await?));
        };
        let config = ClientConfig::new(Verify::Pin(target.fingerprint.clone()));
        let channel = quantum_grpc::Channel::connect_lazy(endpoint.clone(), &address, config);
        tokio::time::timeout(CONNECT_TIMEOUT, channel.connection()).await.context("no answer")??;
        Ok(Wire::Quantum(channel))
    }
}
