//! A server and a client of the test service.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::uri::PathAndQuery;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::codec::Streaming;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::service::{Ask, Counts, Reply, TestService};
use super::wire;
use crate::endpoint::EndpointShared;
use crate::{
    Channel, ClientConfig, Endpoint, EndpointOptions, Identity, Listener, ServeOptions, ServerConfig, Verify,
    serve_with,
};

/// A served test service and the endpoint to reach it.
pub(super) struct Fixture {
    pub(super) endpoint: Endpoint,
    pub(super) address: String,
    pub(super) counts: Arc<Counts>,
    pub(super) shutdown: Option<oneshot::Sender<()>>,
    pub(super) server: JoinHandle<()>,
}

/// What carries the packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Network {
    /// The wire in memory.
    Memory,
    /// UDP on loopback, between shards over `io_uring`.
    Udp,
}

/// An endpoint and a listener that reach each other.
pub(super) fn joined(network: Network) -> (Endpoint, Listener) {
    if let Network::Udp = network {
        return udp(&EndpointOptions::default(), 1);
    }
    let (client, server) = wire::ports();
    let listener = Listener::over(vec![server], wire::address());
    let endpoint = Endpoint::over(EndpointShared::start(vec![client], wire::address(), None));
    (endpoint, listener)
}

/// Whether shards can run here. Without them a test passes by saying so, but not where all has to be tested.
pub(super) fn has_shards() -> bool {
    let Err(error) = quantum_shard::Shards::check() else { return true };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("SKIPPED: {error}");
    false
}

/// A client and a listener of so many shards on loopback.
pub(super) fn udp(options: &EndpointOptions, shards: usize) -> (Endpoint, Listener) {
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(directory.path(), &["127.0.0.1".to_owned()]).unwrap();
    let mut config = ServerConfig::new(&identity).unwrap();
    config.options = EndpointOptions { shards, ..options.clone() };
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into(), &config).unwrap();
    (Endpoint::client(options).unwrap(), listener)
}

pub(super) fn config() -> ClientConfig {
    ClientConfig::new(Verify::InsecureLoopback)
}

impl Fixture {
    pub(super) fn start(network: Network) -> Self {
        Self::with(network, ServeOptions::default())
    }

    pub(super) fn with(network: Network, options: ServeOptions) -> Self {
        Self::over(joined(network), options)
    }

    pub(super) fn over((endpoint, listener): (Endpoint, Listener), options: ServeOptions) -> Self {
        let service = TestService::default();
        let counts = service.counts.clone();
        let (shutdown, asked) = oneshot::channel();
        let address = listener.local_addr().to_string();
        let routes = Routes::new(service);
        let server = tokio::spawn(serve_with(listener, routes, options, async {
            let _ = asked.await;
        }));
        Self { endpoint, address, counts, shutdown: Some(shutdown), server }
    }

    pub(super) fn channel(&self) -> Channel {
        Channel::connect_lazy(self.endpoint.clone(), &self.address, config())
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.channel())
    }

    pub(super) fn running(&self) -> usize {
        self.counts.running.load(Ordering::SeqCst)
    }
}

/// What a generated client would be.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) grpc: tonic::client::Grpc<Channel>,
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

fn codec() -> ProstCodec<Ask, Reply> {
    ProstCodec::default()
}

impl Client {
    pub(super) fn new(channel: Channel) -> Self {
        let grpc = tonic::client::Grpc::new(channel);
        Self { grpc: grpc.max_decoding_message_size(17 << 20).max_encoding_message_size(17 << 20) }
    }

    pub(super) async fn unary(&mut self, request: Request<Ask>) -> Result<Response<Reply>, Status> {
        self.grpc.ready().await?;
        self.grpc.unary(request, path("/test.Service/Unary"), codec()).await
    }

    pub(super) async fn server_streaming(
        &mut self,
        request: Request<Ask>,
    ) -> Result<Response<Streaming<Reply>>, Status> {
        self.grpc.ready().await?;
        self.grpc.server_streaming(request, path("/test.Service/ServerStreaming"), codec()).await
    }

    pub(super) async fn client_streaming(
        &mut self,
        asks: impl Stream<Item = Ask> + Send + 'static,
    ) -> Result<Response<Reply>, Status> {
        self.grpc.ready().await?;
        self.grpc.client_streaming(Request::new(asks), path("/test.Service/ClientStreaming"), codec()).await
    }

    pub(super) async fn bidi(
        &mut self,
        asks: impl Stream<Item = Ask> + Send + 'static,
    ) -> Result<Response<Streaming<Reply>>, Status> {
        self.grpc.ready().await?;
        self.grpc.streaming(Request::new(asks), path("/test.Service/Bidi"), codec()).await
    }
}

pub(super) fn ask(kind: &str, number: u32, payload: impl Into<Bytes>) -> Ask {
    Ask { kind: kind.to_owned(), number, payload: payload.into() }
}

/// Polls until it is so, for at most ten seconds.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("did not happen within ten seconds: {what}");
}

/// The method that echoes.
pub(super) fn path_of_unary() -> PathAndQuery {
    path("/test.Service/Unary")
}
