//! What is protected by repair symbols, and what is not, between shards over sockets.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use quantum::{Alpn, EndpointConfig, FecConfig, FecMode, FecStats};
use tonic::{Extensions, Request};

use super::fixture::{Client, Fixture, ask, config, has_shards, udp};
use super::service::FEC_ANSWER;
use crate::{Channel, ClientConfig, Connection, EndpointOptions, Fec, ServeOptions};

/// Sixteen packets: more than a small call sends, less than what makes windows open.
const LARGE: usize = 20_000;
/// Packets that one small call may take, acknowledged alone or not.
const SMALL_PACKETS: u64 = 8;

/// Repair symbols for every packet that may have some, without a budget.
fn options() -> EndpointOptions {
    let fec = FecConfig { mode: FecMode::Fixed { members: 10, repairs: 3 }, ..FecConfig::default() };
    EndpointOptions { protocol: EndpointConfig { fec, ..EndpointConfig::default() }, ..EndpointOptions::default() }
}

async fn stats(connection: &Connection) -> FecStats {
    connection.statistics().await.unwrap().fec
}

/// What `look` sees once it is `so`: counters lag behind what they count.
async fn once<T: Copy + Debug>(so: impl Fn(T) -> bool, mut look: impl AsyncFnMut() -> T) -> T {
    let mut seen = look().await;
    for _ in 0..2000 {
        if so(seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        seen = look().await;
    }
    panic!("not within ten seconds: {seen:?}");
}

/// Packets that have got repair symbols, sent by the client and by the server, once they are so.
async fn protected(connection: &Connection, channel: &Channel, so: impl Fn((u64, u64)) -> bool) -> (u64, u64) {
    once(so, async || {
        let mut request = Request::new(ask("protected", 0, ""));
        off(request.extensions_mut());
        let by_server = Client::new(channel.clone()).unary(request).await.unwrap().into_inner().number;
        (stats(connection).await.protected, by_server.into())
    })
    .await
}

async fn call(channel: &Channel, bytes: usize, set: impl Fn(&mut Request<super::service::Ask>)) {
    let mut request = Request::new(ask("echo", 0, Bytes::from(vec![7; bytes])));
    set(&mut request);
    let reply = Client::new(channel.clone()).unary(request).await.unwrap().into_inner();
    assert_eq!(reply.payload.len(), bytes);
}

fn off(extensions: &mut Extensions) {
    extensions.insert(Fec::Off);
}

#[tokio::test]
async fn a_call_that_opted_out_sends_no_repair_symbols_either_way() {
    if !has_shards() {
        return;
    }
    let fixture = Fixture::over(udp(&options(), 1), ServeOptions::default());
    let channel = fixture.channel();
    let connection = channel.connection().await.unwrap();
    for _ in 0..2 {
        call(&channel, LARGE, |request| off(request.extensions_mut())).await;
        call(&channel, LARGE, |request| {
            request.metadata_mut().insert("quantum-fec", "off".parse().unwrap());
        })
        .await;
    }
    protected(&connection, &channel, |(by_client, by_server)| by_client == 0 && by_server == 0).await;
    call(&channel, 100, |_| {}).await;
    let seen = protected(&connection, &channel, |(by_client, by_server)| by_client > 0 && by_server > 0).await;
    // Packets of the calls before would be many more.
    assert!(seen.0 <= SMALL_PACKETS && seen.1 <= SMALL_PACKETS, "{seen:?}");
}

#[tokio::test]
async fn a_handler_decides_for_its_own_direction() {
    if !has_shards() {
        return;
    }
    let fixture = Fixture::over(udp(&options(), 1), ServeOptions::default());
    let channel = fixture.channel();
    let connection = channel.connection().await.unwrap();
    call(&channel, LARGE, |request| {
        request.metadata_mut().insert(FEC_ANSWER, "off".parse().unwrap());
    })
    .await;
    let asked = protected(&connection, &channel, |(by_client, _)| by_client >= 10).await;
    assert_eq!(asked.1, 0, "the handler wanted none for its answer");
    call(&channel, LARGE, |request| {
        off(request.extensions_mut());
        request.metadata_mut().insert(FEC_ANSWER, "on".parse().unwrap());
    })
    .await;
    let answered = protected(&connection, &channel, |(_, by_server)| by_server >= 10).await;
    assert!(answered.0 < asked.0 + SMALL_PACKETS, "{asked:?} {answered:?}");
}

#[tokio::test]
async fn a_stream_that_waits_to_be_opened_keeps_what_it_was_told() {
    if !has_shards() {
        return;
    }
    let mut options = options();
    options.protocol.streams_max = 1;
    let (endpoint, mut listener) = udp(&options, 1);
    let remote = listener.local_addr();
    let client = ClientConfig { alpn: Alpn::Stream, ..config() };
    let (connected, accepted) = tokio::join!(endpoint.connect(remote, &client), listener.accept());
    let (connection, accepted) = (connected.unwrap(), accepted.unwrap());
    let (mut first, mut second) = (connection.open_stream().unwrap(), connection.open_stream().unwrap());
    for stream in [&mut first, &mut second] {
        stream.set_protected(false);
        stream.send_bytes(Bytes::from(vec![7; LARGE])).await.unwrap();
        stream.finish().unwrap();
    }
    for _ in 0..2 {
        let mut stream = accepted.accept_stream().await.unwrap();
        stream.finish().unwrap();
        let mut received = 0;
        while let Some(chunk) = stream.chunk().await.unwrap() {
            received += chunk.len();
        }
        assert_eq!(received, LARGE);
    }
    assert_eq!(stats(&connection).await.protected, 0);
    let mut third = connection.open_stream().unwrap();
    third.send_bytes(Bytes::from_static(b"protected")).await.unwrap();
    let protected = once(|protected| protected > 0, async || stats(&connection).await.protected).await;
    assert!(protected <= SMALL_PACKETS, "{protected}");
}
