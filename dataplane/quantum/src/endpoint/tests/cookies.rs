//! Servers under load: cookies, refusals, ids that were used before.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, Segment, address, config};
use crate::connection::SYN_SIZE;
use crate::crypto::session::{Provider, TAG_LEN};
use crate::crypto::tls::TlsProvider;
use crate::wire::{Epoch, Flags, Frame, FrameIter, FrameWriter, HEADER_LEN, Header, VERSION};
use crate::{CloseReason, Endpoint, EndpointConfig, Event, Guuid, SecurityConfig, Side};

/// Asks everyone for a cookie.
fn wary() -> EndpointConfig {
    EndpointConfig {
        security: SecurityConfig { handshakes_without_cookie: 0, ..SecurityConfig::default() },
        ..config()
    }
}

/// A SYN that anybody can make: the first bytes of something that may be a hello, and a cookie.
fn syn(guuid: Guuid, number: u32, cookie: Option<&[u8]>, hello: &[u8]) -> Vec<u8> {
    let size = usize::from(SYN_SIZE);
    let mut data = vec![0; size];
    let mut writer = FrameWriter::new(&mut data[HEADER_LEN..size - TAG_LEN]);
    if let Some(cookie) = cookie {
        assert!(writer.cookie(cookie));
    }
    writer.begin_crypto(0, hello.len()).unwrap().copy_from_slice(hello);
    let header = Header {
        version: VERSION,
        epoch: Epoch::Initial,
        flags: Flags::SYN,
        guuid,
        sequence: number,
        ack: 0,
        payload_len: (size - HEADER_LEN) as u16,
    };
    header.encode(&mut data);
    let (head, payload) = data.split_at_mut(HEADER_LEN);
    TlsProvider::new(None, false).initial_keys(guuid, Side::Client).local.seal(u64::from(number), head, payload);
    data
}

/// The start of a hello of 1,500 bytes: TLS waits for the rest.
fn half_a_hello() -> Vec<u8> {
    [&[1, 0, 5, 216, 3, 3][..], &[9; 900]].concat()
}

/// The frames of a packet of epoch 0 that the server sent.
fn cookie_in(segment: &Segment) -> Option<Vec<u8>> {
    let mut data = segment.data.clone();
    let header = segment.header();
    let (head, payload) = data.split_at_mut(segment.data.len() - usize::from(header.payload_len));
    let keys = TlsProvider::new(None, false).initial_keys(header.guuid, Side::Client);
    let len = keys.remote.open(u64::from(header.sequence), head, payload)?;
    FrameIter::new(&payload[..len]).find_map(|frame| match frame {
        Ok(Frame::Cookie(cookie)) => Some(cookie.to_vec()),
        _ => None,
    })
}

fn spoofed(number: u32) -> SocketAddr {
    SocketAddr::from((number.to_be_bytes(), 1_000 + (number % 60_000) as u16))
}

/// What the endpoint sends.
fn drain(endpoint: &mut Endpoint, now: crate::Time) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let mut sent = Vec::new();
    while let Some(transmit) = endpoint.poll_transmit(now, &mut buffer) {
        sent.extend(buffer[..transmit.len].chunks(transmit.segment_size).map(<[u8]>::to_vec));
    }
    sent
}

#[test]
fn with_a_cookie_a_handshake_takes_a_round_trip_more_and_keeps_nothing_before() {
    let mut net = Net::new(&wary());
    let client = net.connect(CLIENT);
    assert!(!net.wait_for(DELAY + DELAY / 2, |net| net.nodes[SERVER].endpoint.stats().connections > 0));
    assert!(net.wait_for(RTT * 3, |net| net.is_connected(CLIENT)));
    assert_eq!(net.now - net.log[0].0, RTT * 2);
    assert!(net.nodes[SERVER].endpoint.stats().cookies_sent >= 1);
    let mut numbers = HashSet::new();
    let mut with_cookie = 0;
    for (_, segment) in net.log.iter().filter(|(_, segment)| segment.is_to_server()) {
        assert!(numbers.insert(segment.header().sequence), "numbers never restart");
        let mut data = segment.data.clone();
        let header = segment.header();
        if header.epoch == Epoch::Initial {
            let (head, payload) = data.split_at_mut(segment.data.len() - usize::from(header.payload_len));
            let keys = TlsProvider::new(None, false).initial_keys(header.guuid, Side::Server);
            let len = keys.remote.open(u64::from(header.sequence), head, payload).unwrap();
            let has_cookie = FrameIter::new(&payload[..len]).any(|frame| matches!(frame, Ok(Frame::Cookie(_))));
            with_cookie += usize::from(has_cookie);
            assert_eq!(has_cookie, header.sequence > 2, "both packets carry it once it is known");
        }
    }
    assert!(with_cookie >= 2);
    for (_, segment) in net.log.iter().filter(|(_, segment)| cookie_in(segment).is_some()) {
        assert!(segment.data.len() < 128, "the answer is shorter than the SYN");
        assert_eq!(segment.header().sequence, 0);
    }
    net.run_for(RTT * 2);
    let server = net.server_handle().unwrap();
    assert!(net.delivers(client, server));
}

#[test]
fn lost_packets_of_a_handshake_with_a_cookie_are_sent_again() {
    for lost in 0..8_usize {
        let mut net = Net::new(&wary());
        let client = net.connect(CLIENT);
        let mut nth = 0;
        net.hook = Box::new(move |segment| {
            nth += 1;
            if nth - 1 == lost { Vec::new() } else { vec![segment] }
        });
        assert!(
            net.wait_for(Duration::from_secs(5), |net| net.is_connected(CLIENT) && net.is_connected(SERVER)),
            "{lost}"
        );
        let server = net.server_handle().unwrap();
        assert!(net.delivers(client, server), "{lost}");
    }
}

#[test]
fn a_flood_of_spoofed_syns_leaves_no_memory() {
    let mut net = Net::new(&config());
    let (now, limit) = (net.now, config().security.handshakes_without_cookie as u64);
    let hello = half_a_hello();
    let mut bytes_sent = 0;
    for number in 0..100_000_u32 {
        let guuid = net.next_guuid();
        let data = syn(guuid, 1, None, &hello);
        net.hand(SERVER, spoofed(number), &data);
        let endpoint = &mut net.nodes[SERVER].endpoint;
        if number % 64 == 0 {
            bytes_sent += drain(endpoint, now).iter().map(Vec::len).sum::<usize>();
        }
        assert!(endpoint.stats().connections <= limit);
    }
    let stats = net.nodes[SERVER].endpoint.stats();
    assert_eq!((stats.connections, stats.handshakes), (limit, limit));
    assert_eq!(stats.cookies_sent, 100_000 - limit);
    assert!(bytes_sent < 100_000 * 128, "{bytes_sent} bytes for 120 MB");
    let client = net.connect(CLIENT);
    assert!(net.wait_for(RTT * 3, |net| net.is_connected(CLIENT)), "who answers the cookie is let in");
    net.run_for(RTT * 2);
    let server = net.server_handle().unwrap();
    assert!(net.delivers(client, server));
    net.run_for(config().security.handshake_timeout);
    let stats = net.nodes[SERVER].endpoint.stats();
    assert_eq!((stats.connections, stats.handshakes), (1, 0));
    assert!(net.nodes[SERVER].events.iter().all(|event| event.0 == server), "it hears of the honest one alone");
}

#[test]
fn hellos_that_tls_refuses_count_as_half_open_until_they_are_gone() {
    let mut net = Net::new(&config());
    let limit = config().security.handshakes_without_cookie as u64;
    for number in 0..10_000_u32 {
        let guuid = net.next_guuid();
        let data = syn(guuid, 1, None, &[1, 0, 0, 4, 3, 3, 0, 0]);
        net.hand(SERVER, spoofed(number), &data);
        if number % 64 == 0 {
            drain(&mut net.nodes[SERVER].endpoint, net.now);
        }
    }
    let stats = net.nodes[SERVER].endpoint.stats();
    assert!(stats.connections <= limit, "{} connections are kept", stats.connections);
    net.run_for(Duration::from_secs(11));
    assert_eq!(net.nodes[SERVER].endpoint.stats().connections, 0);
}

#[test]
fn a_cookie_that_is_forged_or_expired_or_anothers_opens_nothing() {
    let mut net = Net::new(&wary());
    let hello = half_a_hello();
    let (guuid, other) = (net.next_guuid(), net.next_guuid());
    net.hand(SERVER, address(CLIENT), &syn(guuid, 1, None, &hello));
    let answers = drain(&mut net.nodes[SERVER].endpoint, net.now);
    let answer = Segment { from: address(SERVER), to: address(CLIENT), data: answers[0].clone(), delay: DELAY };
    let cookie = cookie_in(&answer).expect("a cookie");
    let mut forged = cookie.clone();
    forged[10] ^= 1;
    let issued = net.now;
    let mut attempts: Vec<(Guuid, SocketAddr, Vec<u8>, Duration)> = vec![
        (guuid, address(CLIENT), forged, Duration::ZERO),
        (guuid, address(CLIENT), cookie[..19].to_vec(), Duration::ZERO),
        (guuid, SocketAddr::from(([10, 0, 0, 9], 4_433)), cookie.clone(), Duration::ZERO),
        (guuid, SocketAddr::from((address(CLIENT).ip(), 4_434)), cookie.clone(), Duration::ZERO),
        (other, address(CLIENT), cookie.clone(), Duration::ZERO),
        (guuid, address(CLIENT), cookie.clone(), Duration::from_secs(32)),
    ];
    for (guuid, from, cookie, after) in attempts.drain(..) {
        net.now = issued + after;
        net.hand(SERVER, from, &syn(guuid, 2, Some(&cookie), &hello));
        assert_eq!(net.nodes[SERVER].endpoint.stats().connections, 0, "{from} after {after:?}");
    }
    net.now = issued + Duration::from_secs(29);
    net.hand(SERVER, address(CLIENT), &syn(guuid, 3, Some(&cookie), &hello));
    assert_eq!(net.nodes[SERVER].endpoint.stats().connections, 1, "the true one does");
}

#[test]
fn a_client_beyond_the_limit_is_refused_and_hears_so() {
    let mut net = Net::new(&EndpointConfig { connections_max: 1, ..config() });
    let second = net.add(Endpoint::new(std::sync::Arc::new(config()), [5; 32]));
    net.connect(CLIENT);
    net.run_for(RTT * 2);
    net.connect(second);
    assert!(net.wait_for(RTT, |net| net.closed(second).is_some()));
    match net.closed(second) {
        Some(CloseReason::Peer { code: 2, application: false, .. }) => {}
        other => panic!("{other:?}"),
    }
    let stats = net.nodes[SERVER].endpoint.stats();
    assert!(stats.connections == 1 && stats.refused >= 1, "{stats:?}");
}

#[test]
fn an_id_is_refused_for_ten_minutes_after_its_connection() {
    let (mut net, client, _) = Net::connected(&config());
    let syns: Vec<Segment> = net.log.iter().map(|(_, segment)| segment.clone()).take(2).collect();
    net.nodes[CLIENT].endpoint.connection(client).unwrap().close(net.now, 0, b"");
    net.run_for(Duration::from_secs(5));
    assert!(net.nodes[SERVER].endpoint.is_idle());
    let replay = |net: &mut Net| {
        for segment in &syns {
            net.hand(SERVER, segment.from, &segment.data);
        }
        net.nodes[SERVER].endpoint.stats()
    };
    let refused = net.nodes[SERVER].endpoint.stats().refused;
    let stats = replay(&mut net);
    assert_eq!((stats.connections, stats.refused), (0, refused + 2));
    net.run_for(Duration::from_secs(590));
    assert_eq!(replay(&mut net).connections, 0);
    net.run_for(Duration::from_secs(11));
    assert_eq!(replay(&mut net).connections, 1, "after that it is a stranger's");
}

#[test]
fn a_copied_syn_from_elsewhere_changes_nothing() {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    let copies = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&copies);
    // An observer nearer to the server sends every packet of the handshake again from its own address.
    net.hook = Box::new(move |segment| {
        if segment.is_to_server() && segment.has(Flags::SYN) {
            *counted.borrow_mut() += 1;
            let from = SocketAddr::from(([66, 6, 6, 6], 666));
            return vec![segment.clone(), Segment { from, delay: segment.delay + Duration::from_micros(1), ..segment }];
        }
        vec![segment]
    });
    assert!(net.wait_for(RTT * 2, |net| net.is_connected(CLIENT) && net.is_connected(SERVER)));
    net.run_for(RTT * 2);
    assert!(*copies.borrow() >= 3);
    assert!(net.log.iter().all(|(_, it)| it.to == address(SERVER) || it.to == address(CLIENT)), "nothing goes there");
    let stats = net.nodes[SERVER].endpoint.stats();
    assert_eq!((stats.connections, stats.unknown), (1, *copies.borrow()));
    let server = net.server_handle().unwrap();
    assert!(net.delivers(client, server));
    assert!(!net.nodes[SERVER].events.iter().any(|event| matches!(event.1, Event::Closed(_))));
}
