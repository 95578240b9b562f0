//! A tonic service without generated code: what it does is said in the request.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{FutureExt, StreamExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, Streaming};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::{Grpc, NamedService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::ConnectInfo;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ask {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(uint32, tag = "2")]
    pub(super) number: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) payload: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reply {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) payload: Bytes,
}

/// The metadata by which a caller has the handler choose for its answer: `on` or `off`.
pub(super) const FEC_ANSWER: &str = "x-fec-answer";

/// Counts handlers that run.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) started: AtomicUsize,
    pub(super) running: AtomicUsize,
}

struct Running(Arc<Counts>);

impl Running {
    fn start(counts: &Arc<Counts>) -> Self {
        counts.started.fetch_add(1, Ordering::SeqCst);
        counts.running.fetch_add(1, Ordering::SeqCst);
        Self(counts.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct TestService {
    pub(super) counts: Arc<Counts>,
}

impl NamedService for TestService {
    const NAME: &'static str = "test.Service";
}

pub(super) fn failure() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-trailer", MetadataValue::from_static("kept"));
    metadata.insert_bin("x-trailer-bin", MetadataValue::from_bytes(&[0, 255, 1]));
    let details = Bytes::from_static(&[8, 5, 18, 3, 1, 0, 255]);
    Status::with_details_and_metadata(Code::FailedPrecondition, "no: ü %", details, metadata)
}

async fn unary(counts: Arc<Counts>, request: Request<Ask>) -> Result<Response<Reply>, Status> {
    let running = Running::start(&counts);
    let info = format!("{:?} {:?}", request.remote_addr(), request.extensions().get::<ConnectInfo>());
    let connection = request.extensions().get::<ConnectInfo>().map(|info| info.connection.clone());
    let (metadata, _, ask) = request.into_parts();
    let payload = match ask.kind.as_str() {
        "protected" => {
            let stats = connection.expect("the server says").statistics().await;
            return Ok(Response::new(Reply { number: stats.unwrap().fec.protected as u32, payload: Bytes::new() }));
        }
        "hang" => std::future::pending().await,
        "fail" => return Err(failure()),
        "panic" => panic!("as asked"),
        "size" => Bytes::from(vec![7; ask.number as usize]),
        "info" => Bytes::from(info),
        _ => ask.payload,
    };
    let mut response = Response::new(Reply { number: ask.number, payload });
    for name in ["x-own", "x-own-bin"] {
        if let Some(value) = metadata.get(name) {
            response.metadata_mut().append("x-own", value.clone());
        }
        if let Some(value) = metadata.get_bin(name) {
            response.metadata_mut().append_bin("x-own-bin", value.clone());
        }
    }
    if let Some(value) = metadata.get(crate::PRIORITY_HEADER.as_str()) {
        response.metadata_mut().append("x-priority", value.clone());
    }
    if let Some(value) = metadata.get(FEC_ANSWER) {
        response.extensions_mut().insert(if value == "off" { crate::Fec::Off } else { crate::Fec::On });
    }
    drop(running);
    Ok(response)
}

type Replies = Pin<Box<dyn Stream<Item = Result<Reply, Status>> + Send>>;

fn server_streaming(counts: &Arc<Counts>, request: Request<Ask>) -> Response<Replies> {
    let ask = request.into_inner();
    let running = Running::start(counts);
    let payload = ask.payload.clone();
    let reply = move |number| Ok(Reply { number, payload: payload.clone() });
    let replies = futures_util::stream::iter((0..ask.number).map(reply));
    let replies: Replies = match ask.kind.as_str() {
        "hang" => Box::pin(replies.chain(futures_util::stream::pending())),
        "fail" => Box::pin(replies.chain(futures_util::stream::iter([Err(failure())]))),
        _ => Box::pin(replies),
    };
    Response::new(Box::pin(replies.inspect(move |_| {
        let _ = &running;
    })))
}

async fn client_streaming(counts: Arc<Counts>, request: Request<Streaming<Ask>>) -> Result<Response<Reply>, Status> {
    let _running = Running::start(&counts);
    let mut asks = request.into_inner();
    let (mut number, mut bytes) = (0, 0);
    while let Some(ask) = asks.message().await? {
        if ask.kind == "enough" {
            return Err(Status::out_of_range("enough"));
        }
        number += 1;
        bytes += ask.payload.len();
    }
    Ok(Response::new(Reply { number, payload: Bytes::from(bytes.to_string()) }))
}

fn bidi(counts: &Arc<Counts>, request: Request<Streaming<Ask>>) -> Response<Replies> {
    let running = Running::start(counts);
    let mut asks = request.into_inner();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _running = running;
        loop {
            let ask = tokio::select! {
                ask = asks.message() => ask,
                () = sender.closed() => break,
            };
            match ask {
                Ok(Some(ask)) => {
                    let _ = sender.send(Ok(Reply { number: ask.number, payload: ask.payload })).await;
                }
                _ => break,
            }
        }
    });
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

impl Service<http::Request<Body>> for TestService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let counts = self.counts.clone();
        let grpc = || {
            Grpc::new(ProstCodec::<Reply, Ask>::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(17 << 20)
                .max_encoding_message_size(17 << 20)
        };
        async move {
            let path = request.uri().path().to_owned();
            let counts = || counts.clone();
            Ok(match path.as_str() {
                "/test.Service/Unary" => {
                    let counts = counts();
                    grpc().unary(tower::service_fn(move |request| unary(counts.clone(), request)), request).await
                }
                "/test.Service/ServerStreaming" => {
                    let counts = counts();
                    let service =
                        tower::service_fn(move |request| std::future::ready(Ok(server_streaming(&counts, request))));
                    grpc().server_streaming(service, request).await
                }
                "/test.Service/ClientStreaming" => {
                    let counts = counts();
                    let service = tower::service_fn(move |request| client_streaming(counts.clone(), request));
                    grpc().client_streaming(service, request).await
                }
                "/test.Service/Bidi" => {
                    let counts = counts();
                    grpc()
                        .streaming(
                            tower::service_fn(move |request| std::future::ready(Ok(bidi(&counts, request)))),
                            request,
                        )
                        .await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        }
        .boxed()
    }
}
