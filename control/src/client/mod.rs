//! What the commands that are clients share: whom they call, over what, and how the server is verified.

pub mod call;
pub mod proxy;
mod sending;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::HeaderValue;
use quantum_grpc::{
    AnyChannel, AnyConfig, ClientCertificate, ClientConfig, Endpoint, EndpointOptions, Transport, Verify,
};

use crate::auth::{AuthError, read_secret};

use crate::telemetry::TraceError;
pub use sending::SendingArgs;
pub use trace::TraceArgs;

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
    /// What this client proves itself by, to servers that ask for it (Server.TLS.ClientCA): the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The private key of --cert, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Let `--transport auto` without `--tls` fall back to plain text TCP on addresses that are not loopback, and tokens travel so
    #[arg(long)]
    pub allow_plain_text: bool,
    /// Quantum: log what happens on each connection into this folder (qlog; <https://qvis.quictools.info> draws it)
    #[arg(long, value_name = "DIR")]
    pub qlog: Option<PathBuf>,
    /// How what this side sends over Quantum leaves and is protected.
    #[command(flatten)]
    pub sending: SendingArgs,
}

/// The token that calls are made with.
#[derive(Args, Clone)]
pub struct CredentialArgs {
    /// Send this token with calls that have none (authorization: Bearer TOKEN); others on this host can read a command line
    #[arg(long, value_name = "TOKEN", env = "AETHERFLOW_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Send the token that is in this file, instead of --token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl std::fmt::Debug for CredentialArgs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CredentialArgs").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

impl CredentialArgs {
    /// What `authorization` is in calls to `address`, if there is a token.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn header(&self, connect: &ConnectArgs, address: &str) -> Result<Option<HeaderValue>, ConnectError> {
        let token = match (&self.token_file, &self.token) {
            (Some(file), _) => read_secret(file)?,
            (None, Some(token)) => token.clone(),
            (None, None) => return Ok(None),
        };
        let token = token.trim();
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ConnectError::Token)?;
        header.set_sensitive(true);
        let plain = connect.transport == TransportArg::Tcp && !connect.tls && !connect.allow_plain_text;
        if token.is_empty() || token.contains(' ') {
            return Err(ConnectError::Token);
        }
        if plain && !is_loopback(address) {
            return Err(ConnectError::TokenInPlainText);
        }
        Ok(Some(header))
    }
}

/// Whether `HOST:PORT` is this host.
fn is_loopback(address: &str) -> bool {
    let host_port = address.split_once("://").map_or(address, |(_scheme, rest)| rest);
    let host = host_port.rsplit_once(':').map_or(host_port, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
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
    /// The address is none.
    #[error("{0:?} is no address: give HOST:PORT, for example 127.0.0.1:9002")]
    Address(String),
    /// The token is none.
    #[error("what was given as a token is none: `aetherflow token` prints one")]
    Token,
    /// The token's file.
    #[error(transparent)]
    TokenFile(#[from] AuthError),
    /// Anybody on the way could read the token.
    #[error(
        "a token would travel in plain text to another host: use Quantum or --tls, or --allow-plain-text if that is what you want"
    )]
    TokenInPlainText,
    /// Quantum cannot run here.
    #[error(transparent)]
    Endpoint(#[from] quantum_grpc::EndpointError),
    /// Traces cannot be sent.
    #[error(transparent)]
    Trace(#[from] TraceError),
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
        if self.transport == TransportArg::Tcp && !self.tls {
            return Ok(AnyChannel::tcp(host_port));
        }
        let mut client = ClientConfig::new(self.verify().ok_or(ConnectError::Unverified)?);
        client.certificate = self.cert.clone().zip(self.key.clone()).map(|(cert, key)| ClientCertificate { cert, key });
        if self.transport == TransportArg::Tcp {
            return Ok(AnyChannel::tls(host_port, client));
        }
        let transport = if self.transport == TransportArg::Auto { Transport::Auto } else { Transport::Quantum };
        let mut options = EndpointOptions::default();
        options.protocol.keepalive = Some(KEEPALIVE);
        options.protocol.idle_timeout = IDLE_TIMEOUT;
        self.sending.apply(&mut options.protocol);
        options.qlog.clone_from(&self.qlog);
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
