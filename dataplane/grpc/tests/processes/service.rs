//! An echo service without generated code, and its client.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use http::uri::PathAndQuery;
use quantum_grpc::{Channel, ShardMonitor};
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// Larger than the largest message of the tests.
const MESSAGE_BYTES_MAX: usize = 17 << 20;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ask {
    /// Messages to answer with, of so many bytes.
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) size: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reply {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) payload: Bytes,
    #[prost(message, tag = "2")]
    pub(crate) state: Option<State>,
}

/// What the server knows of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct State {
    /// Tasks of its runtime.
    #[prost(uint64, tag = "1")]
    pub(crate) tasks: u64,
    /// Streams that are being answered.
    #[prost(uint64, tag = "2")]
    pub(crate) handlers: u64,
    /// Connections of its shards.
    #[prost(uint64, tag = "3")]
    pub(crate) connections: u64,
    /// Packets that were refused for whatever reason.
    #[prost(uint64, tag = "4")]
    pub(crate) refused: u64,
    /// Of them: of no packet's shape, of another version, not authentic, of no connection, seen before.
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) reasons: Vec<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct EchoService {
    monitor: ShardMonitor,
    handlers: Arc<AtomicU64>,
}

/// Counts a stream that is being answered.
struct Handler(Arc<AtomicU64>);

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<Reply, Status>> + Send>>;

impl EchoService {
    pub(crate) fn new(monitor: ShardMonitor) -> Self {
        Self { monitor, handlers: Arc::default() }
    }

    fn state(&self) -> State {
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64;
        let mut state = State { tasks, handlers: self.handlers.load(Ordering::SeqCst), ..State::default() };
        for shard in self.monitor.stats() {
            let seen = shard.endpoint;
            state.connections += seen.connections;
            state.reasons =
                vec![seen.malformed, seen.wrong_version, seen.unauthenticated, seen.unknown, seen.duplicates];
            state.refused = state.reasons.iter().sum::<u64>() + seen.dropped + seen.refused;
        }
        state
    }

    fn many(&self, ask: &Ask) -> Replies {
        self.handlers.fetch_add(1, Ordering::SeqCst);
        let handler = Handler(Arc::clone(&self.handlers));
        let (count, size) = (ask.count, ask.size as usize);
        Box::pin(futures_util::stream::iter(0..count).map(move |number| {
            let _ = &handler;
            Ok(Reply { payload: Bytes::from(vec![number as u8; size]), state: None })
        }))
    }
}

fn codec<E, D>() -> ProstCodec<E, D> {
    ProstCodec::default()
}

impl Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let own = self.clone();
        let mut grpc = Grpc::new(codec::<Reply, Ask>())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        async move {
            Ok(match request.uri().path() {
                "/load.Echo/Many" => {
                    let many = move |ask: Request<Ask>| std::future::ready(Ok(Response::new(own.many(ask.get_ref()))));
                    grpc.server_streaming(tower::service_fn(many), request).await
                }
                path => {
                    let state = (path == "/load.Echo/State").then(|| own.state());
                    let echo = move |ask: Request<Ask>| {
                        let reply = Reply { payload: ask.into_inner().payload, state: state.clone() };
                        std::future::ready(Ok(Response::new(reply)))
                    };
                    grpc.unary(tower::service_fn(echo), request).await
                }
            })
        }
        .boxed()
    }
}

/// What a generated client would be.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    grpc: tonic::client::Grpc<Channel>,
}

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        let grpc = tonic::client::Grpc::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { grpc }
    }

    pub(crate) async fn echo(&mut self, payload: Bytes) -> Result<Bytes, Status> {
        let reply = self.unary("/load.Echo/Unary", Ask { payload, ..Ask::default() }).await?;
        Ok(reply.payload)
    }

    pub(crate) async fn state(&mut self) -> State {
        self.unary("/load.Echo/State", Ask::default()).await.unwrap().state.unwrap()
    }

    /// A stream of `count` messages of `size` bytes.
    pub(crate) async fn many(&mut self, count: u32, size: u32) -> Result<Streaming<Reply>, Status> {
        self.grpc.ready().await?;
        let ask = Request::new(Ask { count, size, payload: Bytes::new() });
        let path = PathAndQuery::from_static("/load.Echo/Many");
        Ok(self.grpc.server_streaming(ask, path, codec::<Ask, Reply>()).await?.into_inner())
    }

    async fn unary(&mut self, path: &'static str, ask: Ask) -> Result<Reply, Status> {
        self.grpc.ready().await?;
        let path = PathAndQuery::from_static(path);
        Ok(self.grpc.unary(Request::new(ask), path, codec::<Ask, Reply>()).await?.into_inner())
    }
}
