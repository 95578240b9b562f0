use bytes::Bytes;
use futures_util::StreamExt;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::fixture::{Fixture, Network, ask, until};
use super::service::failure;
use crate::{Priority, ServeOptions};

async fn a_unary_call_is_answered(network: Network) {
    let fixture = Fixture::start(network);
    let reply = fixture.client().unary(Request::new(ask("echo", 3, "hello"))).await.unwrap().into_inner();
    assert_eq!((reply.number, &reply.payload[..]), (3, &b"hello"[..]));
}

async fn a_server_streams_its_messages_in_order(network: Network) {
    let fixture = Fixture::start(network);
    let replies = fixture.client().server_streaming(Request::new(ask("", 500, "x"))).await.unwrap().into_inner();
    let numbers: Vec<u32> = replies.map(|reply| reply.unwrap().number).collect().await;
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
}

async fn a_client_streams_its_messages(network: Network) {
    let fixture = Fixture::start(network);
    let asks = futures_util::stream::iter((0..1000).map(|number| ask("", number, vec![1; 1000])));
    let reply = fixture.client().client_streaming(asks).await.unwrap().into_inner();
    assert_eq!((reply.number, &reply.payload[..]), (1000, &b"1000000"[..]));
}

async fn both_sides_stream_at_once(network: Network) {
    let fixture = Fixture::start(network);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let asks = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut replies = fixture.client().bidi(asks).await.unwrap().into_inner();
    for number in 0..100 {
        sender.send(ask("", number, "ping")).await.unwrap();
        assert_eq!(replies.message().await.unwrap().unwrap().number, number);
    }
    drop(sender);
    assert!(replies.message().await.unwrap().is_none());
}

async fn metadata_comes_back_text_and_binary(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    // Three times: whole, whole while the dictionary's entry is on its way, and by its number.
    for _ in 0..3 {
        let mut request = Request::new(ask("echo", 0, ""));
        request.metadata_mut().insert("x-own", MetadataValue::from_static("a value"));
        request.metadata_mut().insert_bin("x-own-bin", MetadataValue::from_bytes(&[0, 1, 254, 255]));
        let response = client.unary(request).await.unwrap();
        assert_eq!(response.metadata().get("x-own").unwrap(), "a value");
        let binary = response.metadata().get_bin("x-own-bin").unwrap();
        assert_eq!(&binary.to_bytes().unwrap()[..], [0, 1, 254, 255]);
    }
}

async fn a_call_tells_the_server_its_priority(network: Network) {
    let fixture = Fixture::start(network);
    let mut request = Request::new(ask("echo", 0, ""));
    request.extensions_mut().insert(Priority { urgent: true, weight: 9 });
    let response = fixture.client().unary(request).await.unwrap();
    assert_eq!(response.metadata().get("x-priority").unwrap(), "urgent 9");
    let response = fixture.client().unary(Request::new(ask("echo", 0, ""))).await.unwrap();
    assert!(response.metadata().get("x-priority").is_none());
}

async fn a_status_keeps_its_message_details_and_metadata(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    let expected = failure();
    let trailers_only = client.unary(Request::new(ask("fail", 0, ""))).await.unwrap_err();
    let mut replies = client.server_streaming(Request::new(ask("fail", 2, ""))).await.unwrap().into_inner();
    assert!(replies.message().await.unwrap().is_some());
    assert!(replies.message().await.unwrap().is_some());
    let trailers = replies.message().await.unwrap_err();
    for status in [trailers_only, trailers] {
        assert_eq!((status.code(), status.message()), (expected.code(), expected.message()));
        assert_eq!(status.details(), expected.details());
        assert_eq!(status.metadata().get("x-trailer").unwrap(), "kept");
        let binary = status.metadata().get_bin("x-trailer-bin").unwrap();
        assert_eq!(&binary.to_bytes().unwrap()[..], [0, 255, 1]);
    }
}

async fn an_unknown_method_is_unimplemented(network: Network) {
    let fixture = Fixture::start(network);
    let mut grpc = fixture.client().grpc;
    let codec = tonic_prost::ProstCodec::<super::service::Ask, super::service::Reply>::default();
    for path in ["/test.Service/None", "/none.Service/None"] {
        let path = http::uri::PathAndQuery::from_static(path);
        let status = grpc.unary(Request::new(ask("", 0, "")), path, codec.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}

async fn the_handler_sees_who_calls(network: Network) {
    let fixture = Fixture::start(network);
    let reply = fixture.client().unary(Request::new(ask("info", 0, ""))).await.unwrap().into_inner();
    let info = String::from_utf8(reply.payload.to_vec()).unwrap();
    assert!(info.contains("127.0.0.1") && info.contains("guuid"), "{info}");
}

async fn a_16_mib_message_passes_both_ways(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    let reply = client.unary(Request::new(ask("size", 16 << 20, ""))).await.unwrap().into_inner();
    assert_eq!(reply.payload, Bytes::from(vec![7; 16 << 20]));
    let reply = client.unary(Request::new(ask("echo", 0, vec![9; 16 << 20]))).await.unwrap().into_inner();
    assert_eq!(reply.payload.len(), 16 << 20);
}

async fn compressed_messages_pass(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    client.grpc = client.grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    let response = client.unary(Request::new(ask("echo", 0, vec![5; 100_000]))).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(response.into_inner().payload, vec![5; 100_000]);
}

async fn a_message_over_the_limit_is_refused_and_the_connection_lives(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    let status = client.unary(Request::new(ask("size", 18 << 20, ""))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let mut unlimited = fixture.client();
    unlimited.grpc = unlimited.grpc.max_encoding_message_size(64 << 20);
    let status = unlimited.unary(Request::new(ask("echo", 0, vec![0; 18 << 20]))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    client.unary(Request::new(ask("echo", 0, ""))).await.unwrap();
}

async fn an_early_status_stops_the_upload(network: Network) {
    let fixture = Fixture::start(network);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(ask("enough", 0, "")).await.unwrap();
    let asks = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let status = fixture.client().client_streaming(asks).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    // The upload's stream of messages is dropped although its sender is still there.
    sender.closed().await;
}

async fn a_handler_that_panics_answers_internal(network: Network) {
    let fixture = Fixture::start(network);
    let mut client = fixture.client();
    assert_eq!(client.unary(Request::new(ask("panic", 0, ""))).await.unwrap_err().code(), Code::Internal);
    client.unary(Request::new(ask("echo", 0, ""))).await.unwrap();
}

async fn rpcs_beyond_the_limit_of_a_connection_are_refused(network: Network) {
    let fixture = Fixture::with(network, ServeOptions { concurrent_rpcs_max: 3, ..ServeOptions::default() });
    let client = fixture.client();
    let hanging: Vec<_> = (0..3)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.unary(Request::new(ask("hang", 0, ""))).await })
        })
        .collect();
    until("three handlers run", || fixture.running() == 3).await;
    let status = client.clone().unary(Request::new(ask("echo", 0, ""))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    for call in hanging {
        call.abort();
    }
    until("the handlers are dropped", || fixture.running() == 0).await;
    client.clone().unary(Request::new(ask("echo", 0, ""))).await.unwrap();
}

on_both! {
    a_call_tells_the_server_its_priority,
    a_unary_call_is_answered,
    a_server_streams_its_messages_in_order,
    a_client_streams_its_messages,
    both_sides_stream_at_once,
    metadata_comes_back_text_and_binary,
    a_status_keeps_its_message_details_and_metadata,
    an_unknown_method_is_unimplemented,
    the_handler_sees_who_calls,
    a_16_mib_message_passes_both_ways,
    compressed_messages_pass,
    a_message_over_the_limit_is_refused_and_the_connection_lives,
    an_early_status_stops_the_upload,
    a_handler_that_panics_answers_internal,
    rpcs_beyond_the_limit_of_a_connection_are_refused,
}
