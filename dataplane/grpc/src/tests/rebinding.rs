//! Calls through a relay that changes its address in their midst, as a translator's mapping or a client's network does.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::service::Routes;

use super::fixture::{Client, ask, config, has_shards, udp, until};
use super::service::TestService;
use crate::{Channel, EndpointOptions, ServeOptions, serve_with};

/// Where a packet has its connection's id.
const GUUID: std::ops::Range<usize> = 6..22;
/// Calls between two changes of address, at least.
const CALLS: usize = 60;

/// What the relay has seen.
#[derive(Default)]
struct Seen {
    /// Ids of connections.
    guuids: Mutex<BTreeSet<Vec<u8>>>,
    /// Times that the relay's address changed.
    moves: AtomicUsize,
    /// Datagrams that the server sent to the latest one.
    down: AtomicUsize,
}

/// Carries datagrams between one client and a server. It ends when `moves` is dropped.
struct Relay {
    front: UdpSocket,
    back: UdpSocket,
    server: SocketAddr,
    client: Option<SocketAddr>,
    seen: Arc<Seen>,
}

async fn bind(ip: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind((ip, 0)).await.unwrap()
}

impl Relay {
    async fn run(mut self, mut moves: mpsc::Receiver<Ipv4Addr>) {
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                moved = moves.recv() => {
                    let Some(ip) = moved else { return };
                    // The old port is closed: what the server still sends there is refused.
                    self.back = bind(ip).await;
                    self.seen.down.store(0, Ordering::SeqCst);
                    self.seen.moves.fetch_add(1, Ordering::SeqCst);
                }
                Ok((len, from)) = self.front.recv_from(&mut up) => {
                    self.client = Some(from);
                    self.seen.guuids.lock().unwrap().insert(up[GUUID].to_vec());
                    let _ = self.back.send_to(&up[..len], self.server).await;
                }
                Ok((len, _)) = self.back.recv_from(&mut down) => {
                    self.seen.down.fetch_add(1, Ordering::SeqCst);
                    if let Some(client) = self.client {
                        let _ = self.front.send_to(&down[..len], client).await;
                    }
                }
            }
        }
    }
}

/// Calls one after the other until it is told to stop; how many there were.
fn call(client: &Client, done: &Arc<AtomicUsize>, stop: &Arc<AtomicBool>, seed: u32) -> JoinHandle<usize> {
    let (mut client, done, stop) = (client.clone(), Arc::clone(done), Arc::clone(stop));
    tokio::spawn(async move {
        let mut calls = 0;
        while !stop.load(Ordering::SeqCst) {
            let number = seed + calls as u32;
            let payload = Bytes::from(number.to_be_bytes().repeat(500));
            let reply =
                client.unary(Request::new(ask("echo", number, payload.clone()))).await.expect("no call is lost");
            assert_eq!((reply.get_ref().number, &reply.get_ref().payload), (number, &payload));
            calls += 1;
            done.fetch_add(1, Ordering::SeqCst);
        }
        calls
    })
}

/// One call that streams both ways until it is told to stop; how many messages came back.
async fn converse(mut client: Client, stop: Arc<AtomicBool>) -> u32 {
    let (sender, receiver) = mpsc::channel(1);
    let mut replies = client.bidi(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        sender.send(ask("", number, "ping")).await.unwrap();
        assert_eq!(replies.message().await.expect("the stream goes on").unwrap().number, number);
        number += 1;
    }
    drop(sender);
    assert!(replies.message().await.unwrap().is_none());
    number
}

#[tokio::test]
async fn calls_go_on_while_the_clients_address_changes() {
    if !has_shards() {
        return;
    }
    // More than one shard: a datagram from an unknown address has to find its connection's.
    let mut options = EndpointOptions::default();
    // A client that has asked and only listens says nothing until then: the answer may have gone to the old address.
    options.protocol.keepalive = Some(Duration::from_millis(500));
    let (endpoint, listener) = udp(&options, 2);
    let server = listener.local_addr();
    let service = TestService::default();
    let counts = service.counts.clone();
    let (shutdown, asked) = oneshot::channel::<()>();
    let served = tokio::spawn(serve_with(listener, Routes::new(service), ServeOptions::default(), async {
        let _ = asked.await;
    }));
    let (front, back) = (bind(Ipv4Addr::LOCALHOST).await, bind(Ipv4Addr::LOCALHOST).await);
    let (address, seen) = (front.local_addr().unwrap(), Arc::new(Seen::default()));
    let (moves, moved) = mpsc::channel(1);
    let relay = tokio::spawn(Relay { front, back, server, client: None, seen: Arc::clone(&seen) }.run(moved));

    let client = Client::new(Channel::connect_lazy(endpoint, &address.to_string(), config()));
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let calls: Vec<_> = (0..4).map(|nth| call(&client, &done, &stop, nth << 20)).collect();
    let conversation = tokio::spawn(converse(client.clone(), Arc::clone(&stop)));
    until("calls are made", || done.load(Ordering::SeqCst) >= CALLS).await;
    // Another port of the same host four times, and another host three times, and back.
    for (nth, last) in [1, 1, 1, 2, 2, 3, 1, 1].into_iter().enumerate() {
        moves.send(Ipv4Addr::new(127, 0, 0, last)).await.unwrap();
        until("the address changes", || seen.moves.load(Ordering::SeqCst) == nth + 1).await;
        let before = done.load(Ordering::SeqCst);
        until("calls go on", || done.load(Ordering::SeqCst) >= before + CALLS).await;
        assert!(seen.down.load(Ordering::SeqCst) > 0, "the answers come to the latest address");
    }
    stop.store(true, Ordering::SeqCst);
    let mut made = 0;
    for call in calls {
        made += call.await.unwrap();
    }
    let messages = conversation.await.unwrap();
    assert!(made > 8 * CALLS && messages > 8, "{made} calls, {messages} messages");
    assert_eq!(counts.started.load(Ordering::SeqCst), made + 1, "no call was made twice");
    assert_eq!(seen.guuids.lock().unwrap().len(), 1, "it is one connection all the time");
    drop((moves, shutdown));
    relay.await.unwrap();
    served.await.unwrap();
}
