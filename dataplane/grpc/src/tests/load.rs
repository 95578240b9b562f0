use std::time::Duration;

use tonic::Request;

use super::fixture::{Fixture, Network, ask, until};

async fn a_stalled_reader_does_not_delay_a_hundred_calls_beside_it(network: Network) {
    let fixture = Fixture::start(network);
    let client = fixture.client();
    // Far more than any window holds, and nobody reads it.
    let stalled = client.clone().server_streaming(Request::new(ask("", 100_000, vec![1; 60_000]))).await.unwrap();
    let calls = (0..100).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(Request::new(ask("echo", number, vec![2; 5000]))).await })
    });
    let calls: Vec<_> = calls.collect();
    for (number, call) in calls.into_iter().enumerate() {
        let reply = tokio::time::timeout(Duration::from_secs(10), call).await.unwrap().unwrap().unwrap();
        assert_eq!(reply.into_inner().number as usize, number);
    }
    assert_eq!(fixture.running(), 1);
    drop(stalled);
    until("the stalled handler is dropped", || fixture.running() == 0).await;
}

async fn nothing_is_left_of_200_clients_that_come_and_go(network: Network) {
    let fixture = Fixture::start(network);
    let keeping = fixture.client();
    keeping.clone().unary(Request::new(ask("echo", 0, ""))).await.unwrap();
    let metrics = tokio::runtime::Handle::current().metrics();
    // The connection's task, the pumps, the wire and the server.
    let tasks = metrics.num_alive_tasks();
    for round in 0..200 {
        let channel = fixture.channel();
        let mut client = super::fixture::Client::new(channel.clone());
        client.unary(Request::new(ask("echo", round, "x"))).await.unwrap();
        let hanging = client.server_streaming(Request::new(ask("hang", 1, ""))).await.unwrap();
        // A third ends its call, a third closes its connection, a third only goes away.
        match round % 3 {
            0 => drop(hanging),
            1 => channel.connection().await.unwrap().close(0, b""),
            _ => {}
        }
    }
    until("no handler is left", || fixture.running() == 0).await;
    until("no task is left", || metrics.num_alive_tasks() <= tasks).await;
    keeping.clone().unary(Request::new(ask("echo", 0, ""))).await.unwrap();
}

async fn no_stream_is_left_of_calls_that_ended(network: Network) {
    let fixture = Fixture::start(network);
    let channel = fixture.channel();
    let mut client = super::fixture::Client::new(channel.clone());
    for round in 0..300 {
        client.unary(Request::new(ask(if round % 3 == 0 { "fail" } else { "echo" }, 0, ""))).await.ok();
    }
    let connection = channel.connection().await.unwrap();
    until("no stream is left", || connection.streams_open() == 0).await;
}

on_both! {
    a_stalled_reader_does_not_delay_a_hundred_calls_beside_it,
    nothing_is_left_of_200_clients_that_come_and_go,
    no_stream_is_left_of_calls_that_ended,
}
