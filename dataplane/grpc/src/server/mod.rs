//! gRPC over Quantum, the server's side: any tonic service behind a [`Listener`].

mod rpc;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use quantum::{Alpn, Guuid};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::connection::Connection;
use crate::early::IdempotentMethods;
use crate::endpoint::Listener;
use crate::mapping::{Decoder, Encoder, HEAD_BYTES_MAX};
use crate::monitor::ConnectionMonitor;

/// The code with which a server that ends closes its connections.
const CODE_GOING_AWAY: u64 = 0x10;

/// How long the shards may take to tell the peers that their connections are closed.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Streams that are accepted together before a connection looks at anything else.
const ACCEPTED_MAX: usize = 64;

/// Limits of a gRPC server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// RPCs that may run on one connection; further ones are answered `RESOURCE_EXHAUSTED`.
    pub concurrent_rpcs_max: usize,
    /// Bytes of a request's head at most; a longer one is answered `RESOURCE_EXHAUSTED`.
    pub head_bytes_max: usize,
    /// A stream that has not sent its head for so long is answered `DEADLINE_EXCEEDED`.
    pub head_timeout: Duration,
    /// The RPCs that are done at once if they come as early data; others wait for the end of the handshake.
    pub idempotent: IdempotentMethods,
    /// Running RPCs may go on for so long after the shutdown was asked for.
    pub drain_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            concurrent_rpcs_max: 1024,
            head_bytes_max: HEAD_BYTES_MAX,
            head_timeout: Duration::from_secs(10),
            idempotent: IdempotentMethods::default(),
            drain_timeout: Duration::from_secs(3),
        }
    }
}

/// Who called; among a request's extensions.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// The caller's address.
    pub remote: SocketAddr,
    /// The connection's id.
    pub guuid: Guuid,
    /// Its statistics and its end.
    pub connection: ConnectionMonitor,
}

/// What the RPCs of one connection share.
#[derive(Debug)]
struct ServerConnection {
    connection: Connection,
    monitor: ConnectionMonitor,
    options: ServeOptions,
    requests: Decoder,
    responses: Arc<Encoder>,
}

/// Serves gRPC with default limits until `shutdown`; see [`serve_with`].
pub async fn serve<S>(listener: Listener, service: S, shutdown: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<tonic::codegen::StdError> + Send,
    S::Future: Send + 'static,
{
    serve_with(listener, service, ServeOptions::default(), shutdown).await;
}

/// Serves gRPC: each stream of each connection is one RPC of `service`. Once `shutdown` is ready, no connection and no RPC
/// is accepted any more; running RPCs go on for at most the drain timeout, then the connections are closed.
pub async fn serve_with<S>(
    mut listener: Listener,
    service: S,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<tonic::codegen::StdError> + Send,
    S::Future: Send + 'static,
{
    let drain = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Some(connection) if connection.alpn() == Alpn::Grpc => {
                    connections.spawn(serve_connection(connection, service.clone(), options.clone(), drain.subscribe()));
                }
                Some(connection) => connection.close(CODE_GOING_AWAY, b"only gRPC is served here"),
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = &mut shutdown => break,
        }
    }
    listener.close();
    drain.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(options.drain_timeout, drained).await.is_err() {
        tracing::info!(connections = connections.len(), "closing connections whose RPCs still run");
    }
    // Dropping the tasks closes their connections, and with the last one the endpoint ends.
    connections.shutdown().await;
    if tokio::time::timeout(END_TIMEOUT, listener.ended()).await.is_err() {
        tracing::warn!("the shards have not ended in time");
    }
}

async fn serve_connection<S>(
    connection: Connection,
    service: S,
    options: ServeOptions,
    mut draining: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<tonic::codegen::StdError> + Send,
    S::Future: Send + 'static,
{
    let shared = Arc::new(ServerConnection {
        options,
        requests: Decoder::default(),
        responses: Encoder::new(false),
        monitor: connection.monitor(),
        connection: connection.clone(),
    });
    let _closes = ClosesWhenDropped(connection.clone());
    let rpcs = TaskTracker::new();
    loop {
        let first = tokio::select! {
            stream = connection.accept_early_stream() => match stream {
                Ok(stream) => stream,
                Err(_) => break,
            },
            _ = draining.wait_for(|draining| *draining) => break,
        };
        let others = (1..ACCEPTED_MAX).map_while(|_| connection.try_accept_early_stream());
        for stream in std::iter::once(first).chain(others) {
            if rpcs.len() >= shared.options.concurrent_rpcs_max {
                rpc::refuse(stream, &Status::resource_exhausted("too many RPCs on one connection"));
            } else {
                rpcs.spawn(rpc::serve_stream(shared.clone(), stream, service.clone()));
            }
        }
    }
    // While the last RPCs run, further ones are told that the server ends.
    let refuse = async {
        while let Ok(stream) = connection.accept_stream().await {
            rpc::refuse(stream, &Status::unavailable("the server is shutting down"));
        }
    };
    let finish = async {
        rpcs.close();
        rpcs.wait().await;
        // A connection that is closed when its last RPC is over must not cut off what is on its way.
        connection.delivered().await;
    };
    tokio::select! {
        () = finish => {}
        () = refuse => {}
    }
}

/// Closes a connection, which ends its RPCs: they run as tasks of their own.
#[derive(Debug)]
struct ClosesWhenDropped(Connection);

impl Drop for ClosesWhenDropped {
    fn drop(&mut self) {
        self.0.close(CODE_GOING_AWAY, b"the server is shutting down");
    }
}
