use std::time::Duration;

use bytes::Bytes;
use quantum::Alpn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fixture::{Network, config, joined, until};
use crate::message::{MessageConnection, MessageError};
use crate::{ClientConfig, Connection, DatagramError, State, StreamError};

async fn connected(network: Network) -> (Connection, Connection) {
    let (endpoint, mut listener) = joined(network);
    let address = listener.local_addr();
    let client = ClientConfig { alpn: Alpn::Stream, ..config() };
    let (client, server) = tokio::join!(endpoint.connect(address, &client), listener.accept());
    (client.unwrap(), server.unwrap())
}

async fn messengers(network: Network, bytes_max: usize) -> (MessageConnection, MessageConnection) {
    let (client, server) = connected(network).await;
    let mut stream = client.open_stream().unwrap();
    stream.announce();
    let accepted = server.accept_stream().await.unwrap();
    (MessageConnection::new(client, stream, bytes_max), MessageConnection::new(server, accepted, bytes_max))
}

async fn bytes_written_are_read_in_order_to_their_end(network: Network) {
    let (client, server) = connected(network).await;
    let mut stream = client.open_stream().unwrap();
    stream.announce();
    let mut accepted = server.accept_stream().await.unwrap();
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    let mut received = Vec::new();
    accepted.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
    accepted.write_all(b"thanks").await.unwrap();
    accepted.shutdown().await.unwrap();
    assert_eq!(writer.await.unwrap(), "thanks");
}

async fn a_dropped_stream_is_reset_and_stopped(network: Network) {
    let (client, server) = connected(network).await;
    let mut stream = client.open_stream().unwrap();
    stream.send_bytes(Bytes::from_static(b"x")).await.unwrap();
    let (mut receive, send) = server.accept_stream().await.unwrap().into_split();
    assert_eq!(receive.chunk().await.unwrap().unwrap(), "x");
    drop(stream);
    assert_eq!(receive.chunk().await.unwrap_err(), StreamError::Reset(crate::CODE_CANCELLED));
    assert_eq!(send.delivered().await.unwrap_err(), StreamError::Stopped(crate::CODE_CANCELLED));
    drop((receive, send));
    until("the streams are forgotten", || client.streams_open() + server.streams_open() == 0).await;
}

async fn a_close_after_all_was_delivered_cuts_nothing_off(network: Network) {
    let (client, server) = connected(network).await;
    let sent = Bytes::from(vec![7; 200_000]);
    for _ in 0..3 {
        let (mut receive, mut send) = client.open_stream().unwrap().into_split();
        send.send_last(sent.clone()).await.unwrap();
        assert_eq!(send.send_last(Bytes::new()).await.unwrap_err(), StreamError::Finished);
        receive.stop(0);
    }
    assert_eq!(client.streams_open(), 0, "nobody holds them");
    client.delivered().await;
    client.close(0, b"");
    for _ in 0..3 {
        let mut accepted = server.accept_stream().await.unwrap();
        let mut received = 0;
        while let Some(chunk) = accepted.chunk().await.unwrap() {
            received += chunk.len();
        }
        assert_eq!(received, sent.len());
        assert!(accepted.is_finished());
    }
}

async fn messages_come_whole_and_in_order(network: Network) {
    let (client, server) = messengers(network, 16 << 20).await;
    let sizes = [0, 1, 2044, 2045, 100_000, 16 << 20];
    let sender = tokio::spawn(async move {
        for size in sizes {
            client.send(Bytes::from(vec![size as u8; size])).await.unwrap();
        }
        client.close().await;
        client
    });
    for size in sizes {
        assert_eq!(server.receive().await.unwrap().unwrap(), vec![size as u8; size]);
    }
    assert!(server.receive().await.unwrap().is_none());
    let client = sender.await.unwrap();
    until("the connection is closed", || client.state() == State::Closed && server.state() == State::Closed).await;
}

async fn a_receive_in_vain_times_out_and_loses_nothing(network: Network) {
    let (client, server) = messengers(network, 1000).await;
    let waited = server.receive_timeout(Duration::from_millis(20)).await;
    assert!(matches!(waited, Err(MessageError::Timeout)));
    client.send(Bytes::from_static(b"late")).await.unwrap();
    assert_eq!(server.receive().await.unwrap().unwrap(), "late");
}

async fn a_message_over_the_limit_is_refused_at_both_ends(network: Network) {
    let (client, server) = messengers(network, 1000).await;
    let refused = client.send(Bytes::from(vec![0; 1001])).await;
    assert!(matches!(refused, Err(MessageError::TooLarge(1001, 1000))));
    drop((client, server));
    let (client, server) = connected(network).await;
    let mut raw = client.open_stream().unwrap();
    raw.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let accepted = server.accept_stream().await.unwrap();
    let messages = MessageConnection::new(server, accepted, 1000);
    assert!(matches!(messages.receive().await, Err(MessageError::TooLarge(_, 1000))));
}

async fn statistics_come_from_the_shard(network: Network) {
    let (client, server) = connected(network).await;
    assert!(client.statistics().await.unwrap().packets_sent > 0);
    assert_eq!(client.guuid(), server.guuid());
    let monitor = server.monitor();
    let (first, second) = tokio::join!(monitor.statistics(), monitor.statistics());
    let seen = first.unwrap().packets_sent;
    assert!(seen > 0 && second.unwrap().packets_sent >= seen, "two who ask at once are both answered");
    client.close(7, b"bye");
    monitor.closed().await;
    assert!(server.statistics().await.is_err());
    // The wire in memory counts nothing of an end.
    if matches!(network, Network::Udp) {
        assert!(monitor.statistics().await.unwrap().packets_sent >= seen);
    }
    assert!(server.open_stream().is_err());
}

async fn a_connection_that_is_only_watched_closes(network: Network) {
    let (client, server) = connected(network).await;
    let monitor = server.monitor();
    drop(server);
    let both = async { tokio::join!(monitor.closed(), client.closed()) };
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
}

async fn datagrams_go_both_ways_until_the_connection_ends(network: Network) {
    let (client, server) = connected(network).await;
    let most = client.datagram_size_max().unwrap();
    let too_long = client.send_datagram(Bytes::from(vec![0; most + 1]));
    assert_eq!(too_long, Err(DatagramError::TooLarge(most)));
    for size in [0, 1, most] {
        for (from, to) in [(&client, &server), (&server, &client)] {
            from.send_datagram(Bytes::from(vec![7; size])).unwrap();
            assert_eq!(to.recv_datagram().await.unwrap(), vec![7; size]);
        }
    }
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.recv_datagram().await.map(|_| ()) }
    });
    client.close(0, b"");
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(client.datagrams_dropped() + server.datagrams_dropped(), 0);
    until("the sender knows", || client.send_datagram(Bytes::new()) == Err(DatagramError::Closed)).await;
}

on_both! {
    datagrams_go_both_ways_until_the_connection_ends,
    bytes_written_are_read_in_order_to_their_end,
    a_dropped_stream_is_reset_and_stopped,
    a_close_after_all_was_delivered_cuts_nothing_off,
    messages_come_whole_and_in_order,
    a_receive_in_vain_times_out_and_loses_nothing,
    a_message_over_the_limit_is_refused_at_both_ends,
    statistics_come_from_the_shard,
    a_connection_that_is_only_watched_closes,
}
