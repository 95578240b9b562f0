use std::time::Duration;

use futures_util::StreamExt;
use tonic::{Code, Request};
use tower::{Layer, ServiceExt};

use super::fixture::{Client, Fixture, Network, ask, until};
use super::service::TestService;
use crate::{DeadlineLayer, ServeOptions};

fn within(limit: Duration, kind: &str, number: u32) -> Request<super::service::Ask> {
    let mut request = Request::new(ask(kind, number, ""));
    request.set_timeout(limit);
    request
}

async fn a_call_ends_at_its_deadline_and_its_handler_with_it(network: Network) {
    let fixture = Fixture::start(network);
    let status = fixture.client().unary(within(Duration::from_millis(50), "hang", 0)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    until("the handler is dropped", || fixture.running() == 0).await;
}

async fn a_streaming_response_ends_at_its_deadline(network: Network) {
    let fixture = Fixture::start(network);
    let replies = fixture.client().server_streaming(within(Duration::from_millis(80), "hang", 3)).await.unwrap();
    let replies: Vec<_> = replies.into_inner().collect().await;
    assert_eq!(replies.iter().filter(|reply| reply.is_ok()).count(), 3);
    assert_eq!(replies.last().unwrap().as_ref().unwrap_err().code(), Code::DeadlineExceeded);
    until("the handler is dropped", || fixture.running() == 0).await;
}

async fn the_server_enforces_a_deadline_that_the_client_does_not(network: Network) {
    let fixture = Fixture::start(network);
    // Sent by hand, so that only the server knows of the deadline.
    let connection = fixture.channel().connection().await.unwrap();
    let mut stream = connection.open_stream().unwrap();
    let head = super::hostile::head("/test.Service/ServerStreaming", &[("grpc-timeout", "50m")]);
    let message = [&head[..], &[0, 0, 0, 0, 6, 10, 4], b"hang"].concat();
    stream.send_bytes(message.into()).await.unwrap();
    stream.finish().unwrap();
    let mut answer = Vec::new();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        answer.extend_from_slice(&chunk);
    }
    // The tail: its mark, its length, no template, then grpc-status (name 9) with "4".
    let tail = answer.iter().rposition(|&byte| byte == 0x80).unwrap();
    assert_eq!(&answer[tail + 2..tail + 6], [0, 9 << 1, 1, b'4'], "{answer:?}");
    until("the handler is dropped", || fixture.running() == 0).await;
}

async fn a_dropped_call_drops_its_handler(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    let call = tokio::spawn(async move { client.unary(Request::new(ask("hang", 0, ""))).await });
    until("the handler runs", || fixture.running() == 1).await;
    call.abort();
    until("the handler is dropped", || fixture.running() == 0).await;
    let replies = fixture.client().server_streaming(Request::new(ask("hang", 1, ""))).await.unwrap();
    until("the handler runs", || fixture.running() == 1).await;
    drop(replies);
    until("the handler is dropped", || fixture.running() == 0).await;
}

async fn a_dropped_upload_drops_its_handler(network: Network) {
    let fixture = Fixture::start(network);
    let replies = fixture.client().bidi(futures_util::stream::pending()).await.unwrap();
    until("the handler runs", || fixture.running() == 1).await;
    drop(replies);
    until("the handler is dropped", || fixture.running() == 0).await;
}

async fn a_shutdown_lets_running_calls_end_and_refuses_others(network: Network) {
    let mut fixture = Fixture::start(network);
    let mut client = fixture.client();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut replies = client.bidi(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap().into_inner();
    sender.send(ask("", 1, "")).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap().number, 1);
    fixture.shutdown.take().unwrap().send(()).unwrap();
    for _ in 0..200 {
        if client.unary(Request::new(ask("echo", 0, ""))).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(client.unary(Request::new(ask("echo", 0, ""))).await.unwrap_err().code(), Code::Unavailable);
    sender.send(ask("", 2, "")).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap().number, 2);
    drop(sender);
    assert!(replies.message().await.unwrap().is_none());
    fixture.server.await.unwrap();
}

async fn a_shutdown_does_not_wait_for_calls_that_never_end(network: Network) {
    let drain_timeout = Duration::from_millis(100);
    let mut fixture = Fixture::with(network, ServeOptions { drain_timeout, ..ServeOptions::default() });
    let mut replies = fixture.client().server_streaming(Request::new(ask("hang", 0, ""))).await.unwrap().into_inner();
    fixture.shutdown.take().unwrap().send(()).unwrap();
    // The server's shards end with the server.
    fixture.server.await.unwrap();
    assert!(replies.message().await.is_err());
}

async fn a_channel_connects_again_after_its_connection_was_lost(network: Network) {
    let fixture = Fixture::start(network);
    let channel = fixture.channel();
    let mut client = Client::new(channel.clone());
    client.unary(Request::new(ask("echo", 0, ""))).await.unwrap();
    let mut hanging = client.clone();
    let hanging = tokio::spawn(async move { hanging.unary(Request::new(ask("hang", 0, ""))).await });
    until("the handler runs", || fixture.running() == 1).await;
    let connection = channel.connection().await.unwrap();
    connection.close(0, b"");
    assert_eq!(hanging.await.unwrap().unwrap_err().code(), Code::Unavailable);
    connection.closed().await;
    client.unary(Request::new(ask("echo", 0, ""))).await.unwrap();
}

/// A tonic server over TCP with the layer, and what counts its handlers.
async fn tcp_server() -> (std::net::SocketAddr, std::sync::Arc<super::service::Counts>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TestService::default();
    let counts = service.counts.clone();
    let server = tonic::transport::Server::builder().layer(DeadlineLayer).add_service(service);
    tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
    (address, counts)
}

/// Calls that hang over any transport end with this code.
async fn hanging_codes<T>(transport: T) -> Vec<Code>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError>,
{
    let mut grpc = tonic::client::Grpc::new(transport);
    let mut codes = Vec::new();
    for method in ["/test.Service/Unary", "/test.Service/ServerStreaming"].repeat(10) {
        grpc.ready().await.map_err(Into::into).unwrap();
        let codec = tonic_prost::ProstCodec::<super::service::Ask, super::service::Reply>::default();
        let path = http::uri::PathAndQuery::from_static(method);
        let replies = grpc.server_streaming(within(Duration::from_millis(20), "hang", 0), path, codec).await;
        codes.push(match replies {
            Ok(replies) => replies.into_inner().message().await.unwrap_err().code(),
            Err(status) => status.code(),
        });
    }
    codes
}

#[tokio::test]
async fn a_tonic_server_with_the_layer_answers_deadline_exceeded() {
    let (address, counts) = tcp_server().await;
    let tcp = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, tcp).await.unwrap();
    tokio::spawn(connection);
    // A client without a timer of its own: what it sees is the server's doing.
    let transport = tower::service_fn(move |mut request: http::Request<tonic::body::Body>| {
        let mut sender = sender.clone();
        *request.uri_mut() = format!("http://{address}{}", request.uri().path()).parse().unwrap();
        async move { sender.send_request(request).await }
    });
    assert!(hanging_codes(transport).await.iter().all(|code| *code == Code::DeadlineExceeded));
    until("the handlers are dropped", || counts.running.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_tonic_channel_with_the_layer_gives_deadline_exceeded() {
    let (address, _) = tcp_server().await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let codes = hanging_codes(DeadlineLayer.layer(channel)).await;
    assert!(codes.iter().all(|code| *code == Code::DeadlineExceeded), "{codes:?}");
}

#[tokio::test]
async fn the_layer_leaves_calls_without_a_deadline_alone() {
    let service = DeadlineLayer.layer(TestService::default());
    let request = http::Request::builder().uri("/none").body(tonic::body::Body::empty()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
}

on_both! {
    a_call_ends_at_its_deadline_and_its_handler_with_it,
    a_streaming_response_ends_at_its_deadline,
    the_server_enforces_a_deadline_that_the_client_does_not,
    a_dropped_call_drops_its_handler,
    a_dropped_upload_drops_its_handler,
    a_shutdown_lets_running_calls_end_and_refuses_others,
    a_shutdown_does_not_wait_for_calls_that_never_end,
    a_channel_connects_again_after_its_connection_was_lost,
}
