//! Ends of connections: closed by either side, or by silence.

use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, address, config};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Flags};
use crate::{CloseReason, ConnectError, EndpointConfig, Event, OpenError, Read, WriteError};

use bytes::Bytes;

fn peer(code: u64, reason: &'static [u8]) -> CloseReason {
    CloseReason::Peer { code, application: true, reason: Bytes::from_static(reason) }
}

#[test]
fn a_close_brings_its_code_and_words_and_both_sides_forget() {
    for (closer, other) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        let (mut net, client, server) = Net::connected(&config());
        let handle = if closer == CLIENT { client } else { server };
        let id = net.write(CLIENT, client, &[1; 5_000]);
        net.run_for(DELAY / 2);
        net.nodes[closer].endpoint.connection(handle).unwrap().close(net.now, 77, b"enough");
        let mut connection = net.nodes[closer].endpoint.connection(handle).unwrap();
        assert_eq!(connection.open(), Err(OpenError::Closed));
        assert_eq!(connection.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Closed));
        assert_eq!(connection.read(id, 10), Read::Blocked, "a stream that was cut off does not look finished");
        drop(connection);
        let sent = net.log.len();
        net.run_for(DELAY);
        assert_eq!(net.closed(closer), Some(CloseReason::Local { code: 77 }));
        assert_eq!(net.closed(other), Some(peer(77, b"enough")));
        let after = net.log.len();
        net.run_for(RTT * 20);
        assert!(net.nodes[CLIENT].endpoint.is_idle() && net.nodes[SERVER].endpoint.is_idle());
        let draining = net.log[after..].iter().filter(|(_, segment)| segment.from == address(other)).count();
        assert_eq!(draining, 0, "who was told says nothing any more");
        assert!(net.log[sent..].iter().any(|(_, segment)| segment.has(Flags::FIN)));
        for node in &net.nodes {
            assert!(matches!(node.events.last(), Some((_, Event::Closed(_)))), "the last event is the close");
        }
    }
}

#[test]
fn what_a_connection_sent_stays_counted_when_it_is_forgotten_and_its_window_does_not() {
    let (mut net, client, server) = Net::connected(&config());
    assert!(net.delivers(client, server));
    net.run_for(RTT);
    let mut before = Vec::new();
    // In the order of the nodes.
    for (place, handle) in [(SERVER, server), (CLIENT, client)] {
        let connection = net.nodes[place].endpoint.connection(handle).unwrap().stats();
        let traffic = net.nodes[place].endpoint.stats().traffic;
        assert_eq!(traffic.packets_sent, connection.packets_sent);
        assert_eq!(traffic.packets_received, connection.packets_received);
        assert!(traffic.window_bytes > 0);
        before.push(traffic);
    }
    net.nodes[CLIENT].endpoint.connection(client).unwrap().close(net.now, 1, b"");
    net.run_for(RTT * 20);
    for (node, before) in net.nodes.iter().zip(before) {
        let (after, timings) = (node.endpoint.stats().traffic, node.endpoint.timings().read());
        assert!(after.packets_sent >= before.packets_sent && after.packets_received >= before.packets_received);
        assert_eq!((after.window_bytes, after.in_flight_bytes), (0, 0));
        assert_eq!(timings.handshake.count(), 1);
        assert!(timings.rtt.count() > 0);
    }
}

#[test]
fn the_first_second_fourth_and_eighth_packet_of_a_peer_that_did_not_hear_is_answered() {
    let (mut net, client, server) = Net::connected(&config());
    net.hook = Box::new(|segment| if segment.is_to_server() { vec![segment] } else { Vec::new() });
    net.nodes[SERVER].endpoint.connection(server).unwrap().close(net.now, 5, b"");
    net.run_for(Duration::from_micros(1));
    let mut answered = Vec::new();
    for nth in 1..=20 {
        let before = net.log.len();
        let packet = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap();
        let data = packet.forge(&Forged::frames(Epoch::OneRtt0, &[1])).unwrap();
        net.hand(SERVER, address(CLIENT), &data);
        net.run_for(Duration::from_micros(1));
        if net.log.len() > before {
            assert!(net.log[before..].iter().all(|(_, segment)| segment.has(Flags::FIN)));
            answered.push(nth);
        }
    }
    assert_eq!(answered, [1, 2, 4, 8, 16]);
}

#[test]
fn a_client_that_closes_before_the_handshake_is_confirmed_is_heard() {
    for delay_of_close in [Duration::ZERO, DELAY / 2, DELAY + DELAY / 2] {
        let mut net = Net::new(&config());
        let client = net.connect(CLIENT);
        assert!(net.wait_for(RTT, |net| net.is_connected(CLIENT)));
        net.write(CLIENT, client, b"last words");
        net.run_for(delay_of_close);
        net.nodes[CLIENT].endpoint.connection(client).unwrap().close(net.now, 9, b"bye");
        net.run_for(DELAY);
        assert_eq!(net.closed(SERVER), Some(peer(9, b"bye")), "closed after {delay_of_close:?}");
    }
}

#[test]
fn a_server_that_closes_at_once_is_heard() {
    let mut net = Net::new(&config());
    net.connect(CLIENT);
    assert!(net.wait_for(RTT * 2, |net| net.is_connected(SERVER)));
    let server = net.server_handle().unwrap();
    net.nodes[SERVER].endpoint.connection(server).unwrap().close(net.now, 9, b"bye");
    net.run_for(DELAY);
    assert_eq!(net.closed(CLIENT), Some(peer(9, b"bye")));
}

#[test]
fn when_the_close_is_lost_the_next_packet_is_answered_with_it() {
    let (mut net, client, server) = Net::connected(&config());
    net.nodes[SERVER].endpoint.connection(server).unwrap().close(net.now, 5, b"gone");
    net.hook = Box::new(|_| Vec::new());
    net.run_for(Duration::from_micros(1));
    net.hook = Box::new(|segment| vec![segment]);
    net.write(CLIENT, client, b"are you there");
    net.run_for(RTT);
    assert_eq!(net.closed(CLIENT), Some(peer(5, b"gone")));
}

#[test]
fn both_sides_may_close_at_once() {
    let (mut net, client, server) = Net::connected(&config());
    net.nodes[SERVER].endpoint.connection(server).unwrap().close(net.now, 1, b"");
    net.nodes[CLIENT].endpoint.connection(client).unwrap().close(net.now, 2, b"");
    let sent = net.log.len();
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.closed(SERVER), Some(CloseReason::Local { code: 1 }));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::Local { code: 2 }));
    assert_eq!(net.log.len() - sent, 2, "a close is not answered with another");
    assert!(net.nodes[CLIENT].endpoint.is_idle() && net.nodes[SERVER].endpoint.is_idle());
}

#[test]
fn words_are_cut_to_what_a_close_carries() {
    let (mut net, client, _) = Net::connected(&config());
    net.nodes[CLIENT].endpoint.connection(client).unwrap().close(net.now, (1 << 62) - 1, &[b'w'; 5_000]);
    net.run_for(RTT);
    match net.closed(SERVER) {
        Some(CloseReason::Peer { code, application: true, reason }) => {
            assert_eq!((code, reason.len()), ((1 << 62) - 1, 256));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_code_beyond_what_the_wire_carries_is_cut_to_it() {
    let (mut net, client, _) = Net::connected(&config());
    net.nodes[CLIENT].endpoint.connection(client).unwrap().close(net.now, u64::MAX, b"");
    net.run_for(RTT);
    match net.closed(SERVER) {
        Some(CloseReason::Peer { code, application: true, .. }) => assert_eq!(code, (1 << 62) - 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_endpoint_that_closes_takes_and_makes_no_more_connections() {
    let (mut net, _, _) = Net::connected(&config());
    net.nodes[SERVER].endpoint.close(net.now, 3, b"maintenance");
    net.run_for(RTT);
    assert_eq!(net.closed(CLIENT), Some(peer(3, b"maintenance")));
    net.run_for(Duration::from_secs(1));
    assert!(net.nodes[SERVER].endpoint.is_idle());
    let options = net.options();
    let refused = net.nodes[SERVER].endpoint.connect(net.now, options);
    assert_eq!(refused, Err(ConnectError::TooManyConnections));
    net.connect(CLIENT);
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.nodes[SERVER].endpoint.stats().connections, 0);
}

#[test]
fn silence_ends_a_connection_after_the_smaller_idle_timeout() {
    let quiet = EndpointConfig { keepalive: None, ..config() };
    let mut net = Net::new(&quiet);
    let settings = EndpointConfig { idle_timeout: Duration::from_secs(7), ..quiet };
    net.nodes[CLIENT].endpoint = crate::Endpoint::new(std::sync::Arc::new(settings), [2; 32]);
    net.connect(CLIENT);
    net.run_for(RTT * 5);
    let last = net.log.last().unwrap().0;
    assert!(net.is_connected(CLIENT) && net.is_connected(SERVER));
    assert!(net.wait_for(Duration::from_secs(8), |net| net.closed(CLIENT).is_some() && net.closed(SERVER).is_some()));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::IdleTimeout));
    assert_eq!(net.closed(SERVER), Some(CloseReason::IdleTimeout));
    assert!((net.now - last).abs_diff(Duration::from_secs(7)) <= RTT, "{:?}", net.now - last);
    assert_eq!(net.log.last().unwrap().0, last, "without a word");
    assert!(net.nodes[CLIENT].endpoint.is_idle() && net.nodes[SERVER].endpoint.is_idle());
}

#[test]
fn keepalive_keeps_a_silent_connection_with_one_ping_for_both() {
    let (mut net, client, server) = Net::connected(&config());
    let sent = net.log.len();
    net.run_for(Duration::from_mins(10));
    let pings = net.log[sent..].iter().filter(|(_, segment)| segment.is_to_server()).count();
    assert!((55..=65).contains(&pings), "every ten seconds one: {pings}");
    assert!(net.log.len() - sent <= 2 * pings + 1, "each with one acknowledgement");
    assert!(net.delivers(client, server));
}

#[test]
fn a_peer_that_is_gone_is_noticed_though_one_keeps_asking() {
    let (mut net, client, _) = Net::connected(&config());
    net.hook = Box::new(|_| Vec::new());
    net.write(CLIENT, client, b"hello?");
    let start = net.now;
    assert!(net.wait_for(Duration::from_mins(2), |net| net.closed(CLIENT).is_some() && net.closed(SERVER).is_some()));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::IdleTimeout));
    assert!(net.now - start <= Duration::from_secs(61));
}

#[test]
fn a_killed_client_is_noticed_within_four_seconds_if_its_host_says_so() {
    let (mut net, client, _) = Net::connected(&config());
    net.write(CLIENT, client, b"a request");
    net.run_for(RTT);
    // The client's process dies: nothing comes from it, and its host refuses what is sent to its port.
    net.hook = Box::new(|segment| if segment.is_to_server() { Vec::new() } else { vec![segment] });
    let start = net.now;
    let mut told = net.log.len();
    while net.closed(SERVER).is_none() && net.now < start + Duration::from_secs(10) {
        net.run_for(Duration::from_millis(10));
        let refused: Vec<Vec<u8>> = net.log[told..]
            .iter()
            .filter(|(_, segment)| !segment.is_to_server())
            .map(|(_, segment)| segment.data.clone())
            .collect();
        told = net.log.len();
        for quoted in refused {
            let now = net.now;
            net.nodes[SERVER].endpoint.handle_unreachable(now, address(CLIENT), &quoted);
        }
    }
    assert_eq!(net.closed(SERVER), Some(CloseReason::Unreachable));
    assert!(net.now < start + Duration::from_secs(4), "after {:?}", net.now - start);
}

#[test]
fn a_living_client_is_kept_whatever_its_host_is_said_to_say() {
    let (mut net, client, _) = Net::connected(&config());
    net.write(CLIENT, client, b"a request");
    let mut told = 0;
    for _ in 0..1_000 {
        net.run_for(Duration::from_millis(10));
        let quoted: Vec<Vec<u8>> = net.log[told..].iter().map(|(_, segment)| segment.data.clone()).collect();
        told = net.log.len();
        for (to, quoted) in quoted.iter().flat_map(|quoted| [(CLIENT, quoted), (SERVER, quoted)]) {
            let now = net.now;
            net.nodes[to].endpoint.handle_unreachable(now, address(1 - to), quoted);
            net.nodes[to].endpoint.handle_unreachable(now, address(1 - to), &quoted[..quoted.len().min(25)]);
        }
    }
    assert_eq!((net.closed(CLIENT), net.closed(SERVER)), (None, None));
}
