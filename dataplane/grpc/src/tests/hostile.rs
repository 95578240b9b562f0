use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, uri::PathAndQuery};
use rand::{Rng, SeedableRng};
use tonic::Request;

use super::fixture::{Fixture, Network, ask, until};
use crate::mapping::{Encoder, RequestHead, frame_block};

/// The head of a request, as a client that knows nothing of the dictionary sends it.
pub(super) fn head(path: &'static str, headers: &[(&'static str, &'static str)]) -> Bytes {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_static(value));
    }
    let head = RequestHead { path: PathAndQuery::from_static(path), headers: map, acknowledgements: Vec::new() };
    let (mut block, mut framed) = (BytesMut::new(), BytesMut::new());
    drop(Encoder::new(true).encode(&head.to_fields(), &mut block));
    frame_block(&block, &mut framed);
    framed.freeze()
}

/// What the server answers to these bytes and an end.
async fn answer(fixture: &Fixture, bytes: impl Into<Bytes>) -> Vec<u8> {
    let connection = fixture.channel().connection().await.unwrap();
    let mut stream = connection.open_stream().unwrap();
    stream.send_bytes(bytes.into()).await.unwrap();
    stream.finish().unwrap();
    let mut answer = Vec::new();
    while let Ok(Some(chunk)) = stream.chunk().await {
        answer.extend_from_slice(&chunk);
    }
    answer
}

fn has_status(answer: &[u8], status: &str) -> bool {
    let field = [&[9 << 1, status.len() as u8], status.as_bytes()].concat();
    answer.windows(field.len()).any(|window| window == field)
}

async fn heads_that_cannot_be_read_are_answered_with_a_status(network: Network) {
    let fixture = Fixture::start(network);
    assert!(has_status(&answer(&fixture, vec![0xff, 0xff, 0xff, 0x7f]).await, "8"), "a head over the limit");
    assert!(has_status(&answer(&fixture, vec![1, 0]).await, "13"), "a head without a path");
    assert!(has_status(&answer(&fixture, vec![1, 40 << 1]).await, "13"), "an entry that does not exist");
    assert!(has_status(&answer(&fixture, vec![9, 1]).await, "1"), "an end within the head");
    fixture.client().unary(Request::new(ask("echo", 0, ""))).await.unwrap();
}

async fn garbage_on_streams_hurts_nobody_else(network: Network) {
    let fixture = Fixture::start(network);
    let mut random = rand::rngs::StdRng::seed_from_u64(11);
    let valid = head("/test.Service/ClientStreaming", &[("x-own", "value")]);
    for round in 0..500 {
        let mut bytes = [&valid[..], &[0, 0, 0, 0, 3, 10, 1, b'x']].concat();
        if round % 2 == 0 {
            bytes = (0..random.random_range(1..100)).map(|_| random.random()).collect();
        } else {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        answer(&fixture, bytes).await;
    }
    fixture.client().unary(Request::new(ask("echo", 0, ""))).await.unwrap();
    until("no handler is left", || fixture.running() == 0).await;
}

on_both! {
    heads_that_cannot_be_read_are_answered_with_a_status,
    garbage_on_streams_hurts_nobody_else,
}
