//! The gRPC servers: a service with health, reflection and measurement around it, on a transport.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use futures_util::TryStreamExt;
use quantum_grpc::{EndpointOptions, Identity, Listener, ServeOptions, ServerConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Server, ServerTlsConfig};
use tonic_health::pb::health_server::HealthServer;

use super::UpError;
use super::caller::TcpConnection;
use super::health::Health;
use super::readiness::Readiness;
use crate::auth::Authenticator;
use crate::telemetry::{Tracer, measure};

/// Calls open at once on one HTTP/2 connection; more wait at the client.
const STREAMS_MAX: u32 = 4096;
/// A connection that does not answer a ping in this time is dead.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// `service` with its companions, ready for any transport, measured and, if there is a tracer, traced; callers have to prove who they
/// are to `authenticator`, if there is one.
pub(super) fn routes<S>(
    service: S,
    authenticator: Option<Arc<Authenticator>>,
    tracer: Option<Tracer>,
    readiness: Readiness,
) -> Result<Routes, UpError>
where
    S: Service<http::Request<Body>, Error = std::convert::Infallible> + NamedService + Clone + Send + Sync + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(S::NAME)
            .with_service_name("grpc.health.v1.Health")
    };
    let failed = |error: tonic_reflection::server::Error| UpError::Server(error.to_string());
    let routes = Routes::new(service)
        .add_service(HealthServer::new(Health::new(S::NAME, readiness)))
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?);
    let mut router = routes.into_axum_router();
    if let Some(authenticator) = authenticator {
        router = router.layer(from_fn_with_state(authenticator, crate::auth::authenticate));
    }
    // What was not let in counts as well.
    Ok(Routes::from(router.layer(from_fn_with_state(tracer, measure))))
}

/// Files of TLS on TCP, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those it follows from.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose certificates clients have to show, over Quantum as well; none: clients show none.
    pub client_ca: Option<PathBuf>,
}

/// A server of HTTP/2 with TLS by `tls`, or in plain text.
pub(super) fn tcp_server(tls: Option<&TlsFiles>) -> Result<Server, UpError> {
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE));
    let Some(tls) = tls else { return Ok(server) };
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| UpError::Server(format!("Server.TLS: {}: {error}", path.display())))
    };
    let identity = tonic::transport::Identity::from_pem(read(&tls.cert)?, read(&tls.key)?);
    let mut config = ServerTlsConfig::new().identity(identity);
    if let Some(ca) = &tls.client_ca {
        config = config.client_ca_root(Certificate::from_pem(read(ca)?));
    }
    let refused = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
        UpError::Server(format!("Server.TLS: {}: {cause}", tls.cert.display()))
    };
    server.tls_config(config).map_err(refused)
}

/// Serves over TCP until `stop`, then until open calls have ended.
pub(super) async fn serve_tcp(mut server: Server, listener: TcpListener, routes: Routes, stop: CancellationToken) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).map_ok(TcpConnection::new);
    let served = server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}

/// Listens for Quantum on a UDP port.
pub(super) fn bind_quantum(
    address: SocketAddr,
    identity: &Identity,
    options: &EndpointOptions,
    client_ca: Option<&Path>,
) -> Result<Listener, UpError> {
    let failed = |error: String| UpError::Server(format!("Quantum on UDP {address}: {error}"));
    let mut config = ServerConfig::with_client_ca(identity, client_ca).map_err(|error| failed(error.to_string()))?;
    config.options = options.clone();
    Listener::bind(address, &config).map_err(|error| failed(error.to_string()))
}

/// Serves over Quantum until `stop`, then until open calls have ended.
pub(super) async fn serve_quantum(listener: Listener, routes: Routes, stop: CancellationToken) {
    let idempotent = proto::IDEMPOTENT_METHODS.iter().copied().collect();
    let options = ServeOptions { idempotent, ..ServeOptions::default() };
    quantum_grpc::serve_with(listener, routes, options, stop.cancelled_owned()).await;
}
