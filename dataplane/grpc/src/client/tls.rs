//! HTTP/2 over TLS over TCP, the server verified as over Quantum.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::endpoint::ClientConfig;
use crate::tls::{self, TlsError};

/// Connects to one server.
#[derive(Clone)]
pub(super) struct TlsConnector {
    connector: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
    remote: SocketAddr,
}

impl TlsConnector {
    /// To `remote`, which has to prove that it is `client.server_name`.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn new(client: ClientConfig, remote: SocketAddr) -> Result<Self, TlsError> {
        let mut config = Arc::unwrap_or_clone(tls::client_config(&client, remote)?);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = client.server_name.unwrap_or_else(|| remote.ip().to_string());
        let name = ServerName::try_from(name).map_err(|error| TlsError::Rustls(error.to_string()))?;
        Ok(Self { connector: Arc::new(config).into(), name, remote })
    }

    async fn connect(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(self.remote).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(self.name, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the server does not speak HTTP/2"));
        }
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _server: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
