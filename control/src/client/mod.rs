//! What the commands that are clients share: whom they call, over what, and how the server is verified.

pub mod call;
pub mod proxy;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quantum_grpc::{AnyChannel, AnyConfig, ClientConfig, Endpoint, EndpointOptions, Transport, Verify};

/// A connection over Quantum says that it lives so often.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// A connection over Quantum from which nothing came for so long is lost: UDP may be blocked by now.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a client reaches a server.
#[derive(Args, Clone, Debug)]
pub struct ConnectArgs {
    /// What carries the calls: Quantum, HTTP/2 over TCP, or whichever connects (Quantum 250 ms ahead)
    #[arg(long, value_name = "TRANSPORT", value_enum, default_value_t = TransportArg::Quantum)]
    pub transport: TransportArg,
    /// TCP: encrypt; without it TCP is in plain text
    #[arg(long)]
    pub tls: bool,
    /// Trust servers whose certificate is in, or signed by one in, this PEM file (the server's is DATA/cert.pem)
    #[arg(long, value_name = "FILE", group = "verify")]
    pub ca: Option<PathBuf>,
    /// Trust the server with this public key (the SHA-256 that `aetherflow up` prints)
    #[arg(long, value_name = "FINGERPRINT", group = "verify")]
    pub pin: Option<String>,
    /// Trust any server, on a loopback address only
    #[arg(long, group = "verify")]
    pub insecure_loopback: bool,
    /// Let `--transport auto` without `--tls` fall back to plain text TCP on addresses that are not loopback
    #[arg(long)]
    pub allow_plain_text: bool,
    /// Quantum: log what happens on each connection into this folder (qlog; <https://qvis.quictools.info> draws it)
    #[arg(long, value_name = "DIR")]
    pub qlog: Option<PathBuf>,
    /// RPCs without side effects may be early data. An option of those commands only that connect more than once: the first
    /// connection brings the ticket.
    #[arg(skip)]
    pub early_data: bool,
}

/// What carries the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TransportArg {
    /// gRPC over Quantum.
    Quantum,
    /// gRPC over HTTP/2 over TCP.
    Tcp,
    /// Whichever connects.
    Auto,
}

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Quantum and TLS have to know whom to trust.
    #[error(
        "say how to know the server: --pin FINGERPRINT (which `aetherflow up` prints), --ca FILE (its DATA/cert.pem), or on \
         a loopback address --insecure-loopback; or use --transport tcp without --tls, which is in plain text"
    )]
    Unverified,
    /// Early data on a transport that waits for its handshake.
    #[error("--early-data needs --transport quantum: auto waits for the handshake to see what gets through")]
    EarlyData,
    /// The address is none.
    #[error("{0:?} is no address: give HOST:PORT, for example 127.0.0.1:9002")]
    Address(String),
    /// Quantum cannot run here.
    #[error(transparent)]
    Endpoint(#[from] quantum_grpc::EndpointError),
}

impl ConnectArgs {
    fn verify(&self) -> Option<Verify> {
        let ca = self.ca.clone().map(Verify::Ca);
        let pin = self.pin.clone().map(Verify::Pin);
        ca.or(pin).or(self.insecure_loopback.then_some(Verify::InsecureLoopback))
    }

    /// A channel to `address`, with or without a scheme before `HOST:PORT`, that connects with its first call. To be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn channel(&self, address: &str) -> Result<AnyChannel, ConnectError> {
        let host_port = address.split_once("://").map_or(address, |(_scheme, rest)| rest).trim_end_matches('/');
        let port = host_port.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            return Err(ConnectError::Address(address.to_owned()));
        }
        if self.early_data && self.transport != TransportArg::Quantum {
            return Err(ConnectError::EarlyData);
        }
        if self.transport == TransportArg::Tcp && !self.tls {
            return Ok(AnyChannel::tcp(host_port));
        }
        let mut client = ClientConfig::new(self.verify().ok_or(ConnectError::Unverified)?);
        if self.transport == TransportArg::Tcp {
            return Ok(AnyChannel::tls(host_port, client));
        }
        let transport = if self.transport == TransportArg::Auto { Transport::Auto } else { Transport::Quantum };
        let mut options = EndpointOptions::default();
        options.protocol.keepalive = Some(KEEPALIVE);
        options.protocol.idle_timeout = IDLE_TIMEOUT;
        options.protocol.security.early_data = self.early_data;
        options.qlog.clone_from(&self.qlog);
        if self.early_data {
            client.idempotent = proto::IDEMPOTENT_METHODS.iter().copied().collect();
        }
        match Endpoint::client(&options) {
            Ok(endpoint) => {
                let config = AnyConfig { transport, client, tls: self.tls, allows_plain_text: self.allow_plain_text };
                Ok(AnyChannel::connect_lazy(endpoint, host_port, config))
            }
            Err(error) if transport == Transport::Auto && self.tls => {
                tracing::warn!(%error, "Quantum cannot run on this host: TLS over TCP is used");
                Ok(AnyChannel::tls(host_port, client))
            }
            Err(error) if transport == Transport::Auto && self.allow_plain_text => {
                tracing::warn!(%error, "Quantum cannot run on this host: TCP is used");
                Ok(AnyChannel::tcp(host_port))
            }
            Err(error) => Err(error.into()),
        }
    }
}
