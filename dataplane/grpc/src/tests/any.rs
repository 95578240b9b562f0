//! The channel that takes whichever transport gets through.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use super::fixture::{ask, config, has_shards, path_of_unary};
use super::service::{Ask, Reply, TestService};
use crate::{
    AnyChannel, AnyConfig, Endpoint, EndpointOptions, Identity, Listener, ServeOptions, ServerConfig, Transport,
    serve_with,
};

/// A server's TCP half, and the UDP port of the same number held by a socket that answers nothing.
async fn tcp_alone() -> (SocketAddr, UdpSocket, JoinHandle<()>) {
    let (listener, udp) = loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()) {
            break (listener, udp);
        }
    };
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_routes(Routes::new(TestService::default()));
    let served = tokio::spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
    (address, udp, served)
}

/// The Quantum half.
fn quantum_at(address: SocketAddr) -> JoinHandle<()> {
    let directory = tempfile::tempdir().unwrap();
    let identity = Identity::load_or_create(directory.path(), &["127.0.0.1".to_owned()]).unwrap();
    let listener = Listener::bind(address, &ServerConfig::new(&identity).unwrap()).unwrap();
    let routes = Routes::new(TestService::default());
    tokio::spawn(serve_with(listener, routes, ServeOptions::default(), std::future::pending()))
}

fn channel(transport: Transport, address: SocketAddr) -> AnyChannel {
    let config = AnyConfig { transport, client: config(), tls: false, allows_plain_text: false };
    let endpoint = Endpoint::client(&EndpointOptions::default()).unwrap();
    AnyChannel::connect_lazy(endpoint, &address.to_string(), config)
}

async fn echo(channel: &AnyChannel) -> Result<Reply, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let request = tonic::Request::new(ask("echo", 1, "over any"));
    let codec = tonic_prost::ProstCodec::<Ask, Reply>::default();
    Ok(grpc.unary(request, path_of_unary(), codec).await?.into_inner())
}

#[tokio::test]
async fn quantum_is_used_where_udp_gets_through() {
    if !has_shards() {
        return;
    }
    let (address, udp, _served) = tcp_alone().await;
    drop(udp);
    let _quantum = quantum_at(address);
    let channel = channel(Transport::Auto, address);
    assert_eq!(channel.transport().await.unwrap(), Transport::Quantum);
    assert_eq!(echo(&channel).await.unwrap().payload, "over any");
}

#[tokio::test]
async fn tcp_is_used_while_udp_is_swallowed_and_quantum_once_it_is_not() {
    if !has_shards() {
        return;
    }
    let (address, udp, _served) = tcp_alone().await;
    let channel = channel(Transport::Auto, address);
    let started = Instant::now();
    assert_eq!(channel.transport().await.unwrap(), Transport::Tcp);
    assert!(started.elapsed() < Duration::from_secs(2), "TCP is a quarter of a second behind");
    assert_eq!(echo(&channel).await.unwrap().payload, "over any");
    drop(udp);
    let _quantum = quantum_at(address);
    let deadline = Instant::now() + Duration::from_secs(30);
    while channel.transport().await.unwrap() != Transport::Quantum {
        assert!(Instant::now() < deadline, "Quantum is not used again");
        assert_eq!(echo(&channel).await.unwrap().payload, "over any");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(echo(&channel).await.unwrap().payload, "over any");
}

#[tokio::test]
async fn without_either_the_error_names_both() {
    if !has_shards() {
        return;
    }
    let (address, udp, served) = tcp_alone().await;
    drop(udp);
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    let status = echo(&channel(Transport::Auto, address)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("Quantum:") && status.message().contains("TCP to"), "{status:?}");
}

#[tokio::test]
async fn a_deadline_holds_while_connecting() {
    if !has_shards() {
        return;
    }
    let (address, _udp, served) = tcp_alone().await;
    served.abort();
    let mut grpc = tonic::client::Grpc::new(channel(Transport::Quantum, address));
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(ask("echo", 1, ""));
    request.set_timeout(Duration::from_millis(200));
    let started = Instant::now();
    let codec = tonic_prost::ProstCodec::<Ask, Reply>::default();
    let status = grpc.unary(request, path_of_unary(), codec).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn tcp_alone_can_be_asked_for() {
    let (address, _udp, _served) = tcp_alone().await;
    let channel = AnyChannel::tcp(&address.to_string());
    assert_eq!(echo(&channel).await.unwrap().payload, "over any");
    assert_eq!(channel.transport().await.unwrap(), Transport::Tcp);
}
