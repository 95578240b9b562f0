//! Channels that are connected again and have early data, over UDP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quantum::{EndpointConfig, ProtectionStats, SecurityConfig};
use tokio::net::UdpSocket;
use tonic::Request;

use super::fixture::{Client, Fixture, ask, config, has_shards, udp};
use crate::{Channel, ClientConfig, EndpointOptions, IdempotentMethods, ServeOptions};

const UNARY: &str = "/test.Service/Unary";

/// One way: long enough for a request to leave before the server's first answer is there.
const DELAY: Duration = Duration::from_millis(20);

/// A path of that delay to `server`; gives where it begins. It ends with the runtime.
async fn long_path(server: SocketAddr) -> SocketAddr {
    let [front, back] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let (front, back) = (Arc::new(front.await.unwrap()), Arc::new(back.await.unwrap()));
    let begin = front.local_addr().unwrap();
    let client = Arc::new(OnceLock::new());
    let (towards, from) = (Arc::clone(&client), Arc::clone(&client));
    tokio::spawn(carry(Arc::clone(&front), Arc::clone(&back), move |sender| {
        towards.get_or_init(|| sender);
        Some(server)
    }));
    tokio::spawn(carry(back, front, move |_| from.get().copied()));
    begin
}

/// Hands on what comes to one socket by the other one, later.
async fn carry(
    from: Arc<UdpSocket>,
    by: Arc<UdpSocket>,
    to: impl Fn(SocketAddr) -> Option<SocketAddr> + Send + 'static,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok((len, sender)) = from.recv_from(&mut buffer).await {
        let (Some(to), by, data) = (to(sender), Arc::clone(&by), buffer[..len].to_vec()) else { continue };
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            by.send_to(&data, to).await
        });
    }
}

/// Calls twice, over two connections of one channel, and tells what early data the second one had.
async fn call_twice(early_data: bool, sends: &[&str], does: &[&str]) -> Option<ProtectionStats> {
    if !has_shards() {
        return None;
    }
    let security = SecurityConfig { early_data, ..SecurityConfig::default() };
    let protocol = EndpointConfig { security, ..EndpointConfig::default() };
    let options = EndpointOptions { protocol, ..EndpointOptions::default() };
    let idempotent: IdempotentMethods = does.iter().copied().collect();
    let fixture = Fixture::over(udp(&options, 2), ServeOptions { idempotent, ..ServeOptions::default() });
    let client_config = ClientConfig { idempotent: sends.iter().copied().collect(), ..config() };
    let path = long_path(fixture.address.parse().unwrap()).await;
    let channel = Channel::connect_lazy(fixture.endpoint.clone(), &path.to_string(), client_config);
    let mut client = Client::new(channel.clone());
    let mut stats = ProtectionStats::default();
    for number in 0..2 {
        let reply = client.unary(Request::new(ask("echo", number, Bytes::from_static(b"here")))).await.unwrap();
        assert_eq!(reply.into_inner().payload, &b"here"[..]);
        let connection = channel.connection().await.unwrap();
        stats = connection.statistics().await.unwrap().protection;
        if number == 0 {
            assert_eq!(stats.early_packets, 0, "there is nothing to resume");
            // The ticket comes with the first packets after the handshake; another call is sure to come after them.
            client.unary(Request::new(ask("echo", 7, Bytes::new()))).await.unwrap();
            connection.close(0, b"");
            connection.closed().await;
        }
    }
    Some(stats)
}

#[tokio::test]
async fn a_resumed_channel_sends_an_idempotent_call_as_early_data() {
    if let Some(stats) = call_twice(true, &[UNARY], &[UNARY]).await {
        assert!(stats.early_data_accepted && stats.early_packets > 0, "{stats:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_not_idempotent_waits_for_the_handshake() {
    if let Some(stats) = call_twice(true, &["/test.Service/Other"], &[UNARY]).await {
        assert_eq!(stats.early_packets, 0, "{stats:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_method_as_idempotent_answers_it_after_the_handshake() {
    if let Some(stats) = call_twice(true, &[UNARY], &[]).await {
        assert!(stats.early_data_accepted && stats.early_packets > 0, "{stats:?}");
    }
}

#[tokio::test]
async fn without_the_option_nothing_is_early_data() {
    if let Some(stats) = call_twice(false, &[UNARY], &[UNARY]).await {
        assert_eq!(stats.early_packets, 0, "{stats:?}");
    }
}
