//! gRPC over Quantum, the client's side: a [`Channel`] for any generated tonic client.

mod any;
mod body;
mod call;
mod silence;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use quantum::Alpn;
use tokio::sync::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

pub use any::{AnyChannel, AnyConfig, Transport};
pub use body::ResponseBody;

use crate::connection::{Connection, ConnectionError};
use crate::endpoint::{ClientConfig, Endpoint, resolve};
use crate::mapping::{Acknowledgements, Decoder, Encoder};

/// A connection and the dictionaries that live with it.
#[derive(Debug)]
struct ClientConnection {
    connection: Connection,
    requests: Arc<Encoder>,
    responses: Decoder,
    acknowledgements: Acknowledgements,
}

#[derive(Debug)]
struct ChannelShared {
    endpoint: Endpoint,
    address: String,
    config: ClientConfig,
    current: Mutex<Option<Arc<ClientConnection>>>,
    /// How the server at that address is verified, and the sessions with it that can be resumed.
    tls: Mutex<Option<(SocketAddr, Arc<rustls::ClientConfig>)>>,
}

/// A gRPC channel to one server over Quantum. Clones share one connection, which is made again with the next call after it
/// was lost; calls in flight then end with UNAVAILABLE.
#[derive(Clone, Debug)]
pub struct Channel {
    shared: Arc<ChannelShared>,
}

impl Channel {
    /// Connects to `address` (`host:port`) over the process-wide client endpoint.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn connect(address: &str, config: ClientConfig) -> Result<Self, ConnectionError> {
        let channel = Self::connect_lazy(Endpoint::shared()?, address, config);
        channel.connection().await?;
        Ok(channel)
    }

    /// A channel over a given endpoint that connects with its first call.
    pub fn connect_lazy(endpoint: Endpoint, address: &str, mut config: ClientConfig) -> Self {
        config.alpn = Alpn::Grpc;
        let (address, current, tls) = (address.to_owned(), Mutex::new(None), Mutex::new(None));
        let shared = ChannelShared { endpoint, address, config, current, tls };
        Self { shared: Arc::new(shared) }
    }

    /// Whether there is a connection for the next call.
    pub(crate) async fn is_connected(&self) -> bool {
        let current = self.shared.current.lock().await;
        current.as_ref().is_some_and(|current| current.connection.close_reason().is_none())
    }

    /// The connection that calls use at the moment; it is made if there is none.
    ///
    /// # Errors
    /// See [`ConnectionError`].
    pub async fn connection(&self) -> Result<Connection, ConnectionError> {
        let connection = self.usable().await?;
        connection.connected().await?;
        Ok(connection)
    }

    /// As [`connection`](Self::connection), but with early data perhaps.
    pub(crate) async fn usable(&self) -> Result<Connection, ConnectionError> {
        Ok(self.shared.current().await?.connection.clone())
    }
}

impl ChannelShared {
    async fn current(&self) -> Result<Arc<ClientConnection>, ConnectionError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current
            && connection.connection.close_reason().is_none()
        {
            return Ok(connection.clone());
        }
        *current = None;
        let remote = resolve(&self.address).await?;
        let config = self.config.named(&self.address);
        let connection = if config.idempotent.is_empty() {
            self.endpoint.connect(remote, &config).await?
        } else {
            self.endpoint.connect_early(remote, &config, self.tls(remote).await?).await?
        };
        let connection = Arc::new(ClientConnection {
            connection,
            requests: Encoder::new(true),
            responses: Decoder::default(),
            acknowledgements: Acknowledgements::default(),
        });
        *current = Some(connection.clone());
        Ok(connection)
    }
}

impl ChannelShared {
    /// The channel's TLS settings for `remote`: they keep the tickets, so they last as long as the address does.
    async fn tls(&self, remote: SocketAddr) -> Result<Arc<rustls::ClientConfig>, ConnectionError> {
        let mut tls = self.tls.lock().await;
        if let Some((_, kept)) = tls.as_ref().filter(|(of, _)| *of == remote) {
            return Ok(kept.clone());
        }
        let made = crate::tls::client_config(&self.config, remote)?;
        *tls = Some((remote, made.clone()));
        Ok(made)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(call::call(self.shared.clone(), request))
    }
}
