//! `aetherflow proxy`: ordinary gRPC clients speak HTTP/2 to it, it speaks Quantum to the server. It knows no service.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use quantum_grpc::{AnyChannel, status_trailers};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tower::Service;

use super::{ConnectArgs, ConnectError, CredentialArgs, TraceArgs};
use crate::telemetry::{RpcSpan, Tracer};

/// Streams of one client's connection at most.
const STREAMS_MAX: u32 = 1024;

/// Calls that are open when the proxy is stopped may go on for so long.
const DRAIN_TIME: Duration = Duration::from_secs(4);

/// Help with examples.
pub const EXAMPLES: &str = "Examples:
  aetherflow proxy --listen 127.0.0.1:7002 --to 127.0.0.1:9002 --insecure-loopback
  aetherflow proxy --listen 127.0.0.1:7002 --to example.org:9002 --pin FINGERPRINT
  aetherflow proxy --listen 127.0.0.1:7002 --to example.org:9002 --pin FINGERPRINT \\
      --transport auto --allow-plain-text
  aetherflow proxy --listen 127.0.0.1:7002 --to example.org:9002 --pin FINGERPRINT \\
      --token-file token
  aetherflow proxy --listen 127.0.0.1:7002 --to 127.0.0.1:9002 --insecure-loopback \\
      --trace http://127.0.0.1:4317

Any gRPC client (Python, Go, Java ...) then uses http://127.0.0.1:7002 in plain text, and its metadata passes \
as it is; the proxy's own token goes with calls that have none. Whom to trust has to be said: --pin, --ca \
or, on loopback, --insecure-loopback. Ctrl-C ends it once open calls have ended, after 4 s at most.";

/// Arguments of `aetherflow proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Where gRPC clients connect, over HTTP/2 in plain text
    #[arg(long, value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// The server that it forwards every call to
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The client's side could not be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}; choose another address with --listen IP:PORT")]
    Listen(SocketAddr, std::io::Error),
    /// The server ended.
    #[error("the proxy ended: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    channel: AnyChannel,
    /// Sent with calls that have none.
    authorization: Option<HeaderValue>,
    tracer: Option<Tracer>,
}

impl Proxy {
    /// Listens. To be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub async fn bind(args: &ProxyArgs) -> Result<Self, ProxyError> {
        let authorization = args.credentials.header(&args.connect, &args.to)?;
        if authorization.is_some() && !args.listen.ip().is_loopback() {
            tracing::warn!("whoever reaches this proxy from the network calls with its token");
        }
        let channel = args.connect.channel(&args.to)?;
        let listener = TcpListener::bind(args.listen).await.map_err(|error| ProxyError::Listen(args.listen, error))?;
        let tracer = args.trace.tracer("aetherflow-proxy").map_err(ConnectError::from)?;
        Ok(Self { listener, channel, authorization, tracer })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The channel to the server.
    pub fn channel(&self) -> &AnyChannel {
        &self.channel
    }

    /// Forwards calls until `stop`, then until those that are open have ended, but for four seconds at most.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ProxyError> {
        let tracer = self.tracer.clone();
        let forward = Forward { channel: self.channel, authorization: self.authorization, tracer: self.tracer };
        let router = Router::new().fallback_service(forward);
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let server = Server::builder().max_concurrent_streams(STREAMS_MAX).add_routes(Routes::from(router));
        let asked = CancellationToken::new();
        let serving = server.serve_with_incoming_shutdown(incoming, async {
            stop.await;
            asked.cancel();
        });
        let cut = async {
            asked.cancelled().await;
            tokio::time::sleep(DRAIN_TIME).await;
        };
        let ended = tokio::select! {
            served = serving => served,
            () = cut => Ok(()),
        };
        if let Some(tracer) = tracer {
            tracer.shutdown().await;
        }
        Ok(ended?)
    }
}

/// Hands every request to the channel as it is, but for a token that it lacks, and for the span that it names as its caller's: that
/// becomes the proxy's, below the client's.
#[derive(Clone, Debug)]
struct Forward {
    channel: AnyChannel,
    authorization: Option<HeaderValue>,
    tracer: Option<Tracer>,
}

impl Service<Request<axum::body::Body>> for Forward {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<axum::body::Body>) -> Self::Future {
        let mut channel = self.channel.clone();
        if let Some(authorization) = &self.authorization {
            request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| authorization.clone());
        }
        let span = self.tracer.as_ref().map(|tracer| {
            let path = request.uri().path().to_owned();
            RpcSpan::sent(tracer, &path, request.headers_mut())
        });
        let mut span = Traced(span);
        Box::pin(async move {
            let answered = channel.call(request.map(Body::new)).await;
            Ok(match answered {
                Ok(response) => {
                    // A call that fails at once says so here.
                    span.see(response.headers());
                    response.map(|body| Body::new(Trailed { body, span }))
                }
                Err(status) => {
                    span.end(status.code());
                    status.into_http()
                }
            })
        })
    }
}

/// The span of a call that is forwarded, if it has one.
struct Traced(Option<RpcSpan>);

impl Traced {
    /// Ends with the status that is among headers or trailers, if it is.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.end(Code::from_bytes(code.as_bytes()));
        }
    }

    fn end(&mut self, code: Code) {
        if let Some(span) = &mut self.0 {
            span.end(code.into());
        }
    }
}

/// A response whose failure on the way becomes its trailers: the client is told the status, not that a stream broke.
struct Trailed {
    body: Body,
    span: Traced,
}

impl http_body::Body for Trailed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match frame {
            Some(Err(status)) => {
                self.span.end(status.code());
                self.body = Body::empty();
                Poll::Ready(Some(Ok(Frame::trailers(status_trailers(&status)))))
            }
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.span.see(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
