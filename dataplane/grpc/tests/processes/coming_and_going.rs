//! Readers that stall, large messages, clients that end properly and clients that die.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::roles::{CLIENTS_EACH, Process};
use super::service::Client;
use super::{Holdings, alone, channel, endpoint, has_shards, settles};

/// Clients that come and go, half of them killed.
const CLIENTS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::await_holding_lock, reason = "each test has its own runtime, and waits for the others")]
async fn stalled_large_closed_and_killed_clients_leave_nothing_behind() {
    let _alone = alone();
    if !has_shards() {
        return;
    }
    let server = Process::server();
    let endpoint = endpoint();
    let mut keeper = Client::new(channel(&endpoint, &server.said));
    keeper.echo(Bytes::from_static(b"here")).await.unwrap();
    let start = Holdings::at_rest(&server, &mut keeper).await;
    stall_beside_working_calls(&keeper).await;
    settles("a stalled reader beside 100 calls", &server, &mut keeper, &start).await;
    send_16_mib_both_ways(&keeper).await;
    settles("16 MiB both ways", &server, &mut keeper, &start).await;
    come_and_close(&server.said).await;
    let most = come_and_die(&server, &mut keeper).await;
    println!("with {} clients alive: {most:?}", CLIENTS / 2);
    settles("200 clients", &server, &mut keeper, &start).await;
    let connections = keeper.state().await.connections;
    assert_eq!(connections, 1, "the keeper's is left");
}

/// Nobody reads one stream; a hundred calls at a time go on beside it on the same connection.
async fn stall_beside_working_calls(keeper: &Client) {
    let mut stalled = keeper.clone().many(u32::MAX, 60_000).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let calls: Vec<_> = (0..100_u8)
            .map(|number| {
                let mut client = keeper.clone();
                tokio::spawn(async move { client.echo(Bytes::from(vec![number; 5_000])).await })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            let back = tokio::time::timeout(Duration::from_secs(5), call).await.expect("in time").unwrap().unwrap();
            assert_eq!(back, vec![number as u8; 5_000]);
        }
        took.push(start.elapsed());
    }
    took.sort();
    println!("100 calls of 5 kB beside a stalled reader: median {:?}, most {:?}", took[10], took[19]);
    // The stalled one goes on where it stopped.
    for number in 0..100_u8 {
        assert_eq!(stalled.message().await.unwrap().unwrap().payload, vec![number; 60_000]);
    }
}

async fn send_16_mib_both_ways(keeper: &Client) {
    let payload: Bytes = (0..16 << 20).map(|index: u32| (index / 3) as u8).collect::<Vec<u8>>().into();
    let start = Instant::now();
    assert!(keeper.clone().echo(payload.clone()).await.unwrap() == payload, "it comes back as it was");
    println!("16 MiB there and back: {:?}", start.elapsed());
}

/// Clients that end as they should, each with a call under way.
async fn come_and_close(server: &str) {
    for _ in 0..CLIENTS / 2 / 10 {
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let server = server.to_owned();
                tokio::spawn(async move {
                    let endpoint = endpoint();
                    let channel = channel(&endpoint, &server);
                    let mut client = Client::new(channel.clone());
                    client.echo(Bytes::from(vec![5; 4_000])).await.unwrap();
                    let mut stream = client.many(u32::MAX, 60_000).await.unwrap();
                    stream.message().await.unwrap().unwrap();
                    channel.connection().await.unwrap().close(0, b"done");
                    drop((stream, client, channel));
                    endpoint.ended().await;
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
    }
}

/// Clients whose processes are killed, each with a stream that is being sent to it.
async fn come_and_die(server: &Process, keeper: &mut Client) -> Holdings {
    let processes = CLIENTS / 2 / CLIENTS_EACH;
    let clients: Vec<Process> = (0..processes).map(|_| Process::clients(&server.said)).collect();
    let most = Holdings::of(server, keeper).await;
    assert_eq!(most.handlers as usize, CLIENTS / 2);
    clients.into_iter().for_each(Process::kill);
    most
}
