//! Handshakes: the packets of PROTOCOL.md section 5, lost ones, and what a server sends to whom it does not know.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, Segment, address, client_tls, config, make_identity, server_tls};
use crate::crypto::session::{KeyPair, Provider, Session};
use crate::crypto::tls::{TlsProvider, connect_with_alpn};
use crate::wire::{Epoch, Flags};
use crate::{
    Alpn, CloseReason, ConnectError, ConnectOptions, Endpoint, EndpointConfig, Event, Guuid, Side, TransportErrorCode,
};

/// What was sent, in one letter for the side and one for the epoch.
fn flights(net: &Net) -> Vec<(u64, String)> {
    let start = net.log[0].0;
    let mut flights: Vec<(u64, String)> = Vec::new();
    for (at, segment) in &net.log {
        let at = (*at - start).as_millis() as u64;
        let side = if segment.is_to_server() { 'c' } else { 's' };
        let syn = segment.has(Flags::SYN);
        assert_eq!(syn, !segment.epoch().is_one_rtt(), "SYN is set in epochs 0 and 1 and in no other");
        let word = format!("{side}{}", segment.epoch() as u8);
        match flights.last_mut() {
            Some(last) if last.0 == at => last.1 = format!("{} {word}", last.1),
            _ => flights.push((at, word)),
        }
    }
    flights
}

#[test]
fn a_handshake_takes_one_round_trip_and_the_packets_of_the_specification() {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    assert!(net.wait_for(RTT, |net| net.is_connected(CLIENT)), "the client is connected after one round trip");
    assert_eq!(net.now - net.log[0].0, RTT);
    let id = net.write(CLIENT, client, b"hello");
    assert!(net.wait_for(DELAY, |net| net.is_connected(SERVER)), "the server after one and a half");
    let server = net.server_handle().unwrap();
    assert_eq!(net.read(SERVER, server, id), b"hello", "data comes with the client's Finished");
    net.run_for(RTT);
    let flights = flights(&net);
    assert_eq!(flights[0], (0, "c0 c0".to_owned()), "the ClientHello spans two packets");
    // With a post-quantum share the ServerHello spans two packets as well.
    assert_eq!(flights[1], (10, "s0 s0 s1".to_owned()));
    assert!(flights[2].0 == 20 && flights[2].1.starts_with("c1") && flights[2].1.ends_with("c2"), "{flights:?}");
    assert!(flights[3].0 == 30 && flights[3].1.starts_with("s2"), "{flights:?}");
    let syns = net.log.iter().filter(|(_, segment)| segment.epoch() == Epoch::Initial);
    for (_, segment) in syns.filter(|(_, segment)| segment.is_to_server()) {
        assert!(segment.data.len() >= 1200, "a SYN is padded: {}", segment.data.len());
    }
    let expected = Event::Connected { guuid: net.log[0].1.header().guuid, remote: address(SERVER), alpn: Alpn::Stream };
    assert_eq!(net.nodes[CLIENT].events[0].1, expected);
    assert_eq!(net.nodes[SERVER].endpoint.connection(server).unwrap().side(), Side::Server);
}

#[test]
fn the_two_halves_of_a_client_hello_may_come_in_either_order() {
    let mut net = Net::new(&config());
    net.connect(CLIENT);
    let mut first = true;
    net.hook = Box::new(move |mut segment| {
        if segment.is_to_server() && std::mem::take(&mut first) {
            segment.delay += Duration::from_micros(100);
        }
        vec![segment]
    });
    assert!(net.wait_for(RTT + Duration::from_millis(1), |net| net.is_connected(CLIENT)));
    let syns = net.log.iter().filter(|(_, segment)| segment.is_to_server() && segment.epoch() == Epoch::Initial);
    assert_eq!(syns.count(), 2, "nothing had to be sent again");
}

/// Loses what `lose` says, and gives how long both sides took to be connected and to exchange a message.
fn time_with(lose: impl FnMut(usize, &Segment) -> bool + 'static) -> (Duration, usize) {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    let start = net.now;
    let lost = Rc::new(RefCell::new(0));
    let (mut lose, count) = (lose, Rc::clone(&lost));
    let mut seen = [0; 2];
    net.hook = Box::new(move |segment| {
        let nth = &mut seen[usize::from(segment.is_to_server())];
        *nth += 1;
        if lose(*nth - 1, &segment) {
            *count.borrow_mut() += 1;
            return Vec::new();
        }
        vec![segment]
    });
    assert!(net.wait_for(Duration::from_secs(9), |net| net.is_connected(CLIENT) && net.is_connected(SERVER)));
    let took = net.now - start;
    let server = net.server_handle().unwrap();
    assert!(net.delivers(client, server));
    (took, *lost.borrow())
}

#[test]
fn lost_first_packets_are_sent_again() {
    for lost in [vec![0], vec![1], vec![0, 1]] {
        let wanted = lost.len();
        let (took, count) = time_with(move |nth, segment| segment.is_to_server() && lost.contains(&nth));
        assert_eq!(count, wanted);
        assert!(took < Duration::from_millis(300) + RTT * 3, "one probe timeout and a handshake: {took:?}");
    }
}

#[test]
fn a_lost_flight_of_the_server_is_sent_again() {
    for lost in [0..1, 1..2, 0..2, 0..3, 0..4] {
        let name = format!("{lost:?}");
        let (took, count) = time_with(move |nth, segment| !segment.is_to_server() && lost.contains(&nth));
        assert!(count > 0);
        assert!(took < Duration::from_millis(400), "{name}: one probe timeout and a handshake: {took:?}");
    }
}

#[test]
fn a_lost_answer_of_the_client_is_sent_again() {
    for lost in [2..3, 2..4, 2..5] {
        let name = format!("{lost:?}");
        let (took, count) = time_with(move |nth, segment| segment.is_to_server() && lost.contains(&nth));
        assert_eq!(count, lost_len(&name));
        assert!(took < Duration::from_millis(400), "{name}: {took:?}");
    }
}

fn lost_len(range: &str) -> usize {
    let (first, last) = range.split_once("..").unwrap();
    last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap()
}

#[test]
fn a_server_sends_at_most_three_times_what_came_until_the_address_is_proved() {
    // The client's hello arrives, whole or in part, and nothing that the server says ever does.
    for passing in [1_usize, 2] {
        let mut net = Net::new(&config());
        net.connect(CLIENT);
        let received = Rc::new(RefCell::new(0_u64));
        let counted = Rc::clone(&received);
        let mut passed = 0;
        net.hook = Box::new(move |segment| {
            let passes = segment.is_to_server() && passed < passing;
            passed += usize::from(passes);
            *counted.borrow_mut() += if passes { segment.data.len() as u64 } else { 0 };
            if passes { vec![segment] } else { Vec::new() }
        });
        net.run_for(Duration::from_secs(30));
        let sent: u64 =
            net.log.iter().filter(|(_, segment)| !segment.is_to_server()).map(|(_, it)| it.data.len() as u64).sum();
        let received = *received.borrow();
        assert!(sent > 0 && sent <= 3 * received, "{sent} bytes sent for {received}");
        assert_eq!(net.closed(CLIENT), Some(CloseReason::HandshakeTimeout));
        assert!(net.nodes[SERVER].endpoint.is_idle() && net.nodes[SERVER].events.is_empty());
    }
}

#[test]
fn a_failed_handshake_does_not_amplify_either() {
    // A hello that no server takes, from an address that hears nothing and repeats it: the close is counted too.
    let mut net = Net::new(&config());
    let provider = Box::new(OtherAlpn(TlsProvider::new(None, false)));
    net.nodes[CLIENT].endpoint = Endpoint::with_provider(Arc::new(config()), [2; 32], provider);
    net.connect(CLIENT);
    let received = Rc::new(RefCell::new(0_u64));
    let counted = Rc::clone(&received);
    net.hook = Box::new(move |segment| {
        if segment.is_to_server() {
            *counted.borrow_mut() += segment.data.len() as u64;
            return vec![segment];
        }
        Vec::new()
    });
    net.run_for(Duration::from_secs(12));
    let sent: u64 =
        net.log.iter().filter(|(_, segment)| !segment.is_to_server()).map(|(_, it)| it.data.len() as u64).sum();
    let received = *received.borrow();
    assert!(sent > 0 && sent <= 3 * received, "{sent} bytes sent for {received}");
}

#[test]
fn a_certificate_that_takes_more_than_the_server_may_send_does_not_end_in_silence() {
    // About 9,000 bytes: the server has to stop at three times the client's 2,400 and to wait for it.
    let identity = make_identity(200);
    let settings = EndpointConfig { server: Some(server_tls(&identity)), ..config() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.0.clone()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let tls = Arc::new(tls.with_root_certificates(roots).with_no_client_auth());
    for lost in [vec![], vec![0], vec![1, 2, 3, 4, 5, 6], vec![2, 4], vec![6], (0..7).collect()] {
        let mut net = Net::new(&config());
        net.nodes[SERVER].endpoint = Endpoint::new(Arc::new(settings.clone()), [1; 32]);
        let options = ConnectOptions { tls: Arc::clone(&tls), ..net.options() };
        let client = net.nodes[CLIENT].endpoint.connect(net.now, options).unwrap();
        let (name, mut nth, mut received, mut sent, mut proved) = (format!("{lost:?}"), 0, 0, 0, false);
        net.hook = Box::new(move |segment| {
            let len = segment.data.len();
            if segment.is_to_server() {
                received += len;
                proved |= segment.epoch() == Epoch::Handshake;
                return vec![segment];
            }
            sent += len;
            assert!(proved || sent <= 3 * received, "{sent} bytes sent for {received}");
            nth += 1;
            if lost.contains(&(nth - 1)) { Vec::new() } else { vec![segment] }
        });
        let connected =
            net.wait_for(Duration::from_secs(5), |net| net.is_connected(CLIENT) && net.is_connected(SERVER));
        assert!(connected, "lost {name}");
        let server = net.server_handle().unwrap();
        assert!(net.delivers(client, server), "lost {name}");
    }
}

/// A client of another application protocol.
struct OtherAlpn(TlsProvider);

impl Provider for OtherAlpn {
    fn initial_keys(&self, guuid: Guuid, side: Side) -> KeyPair {
        self.0.initial_keys(guuid, side)
    }

    fn connect(&self, options: &ConnectOptions, parameters: Vec<u8>) -> Result<Box<dyn Session>, ConnectError> {
        connect_with_alpn(options, parameters, vec![b"h3".to_vec()])
    }

    fn accepts(&self) -> bool {
        false
    }

    fn accept(&self, _parameters: Vec<u8>) -> Option<Box<dyn Session>> {
        None
    }
}

#[test]
fn without_a_common_application_protocol_both_sides_end_with_the_alert() {
    let mut net = Net::new(&config());
    let provider = Box::new(OtherAlpn(TlsProvider::new(None, false)));
    net.nodes[CLIENT].endpoint = Endpoint::with_provider(Arc::new(config()), [2; 32], provider);
    net.connect(CLIENT);
    net.run_for(Duration::from_secs(3));
    // RFC 7301: no_application_protocol is alert 120.
    let code = TransportErrorCode::Crypto as u64 + 120;
    match net.closed(CLIENT) {
        Some(CloseReason::Peer { code: got, application: false, .. }) => assert_eq!(got, code),
        other => panic!("{other:?}"),
    }
    assert!(net.nodes[SERVER].events.is_empty(), "a server does not hear of what never connected");
    assert!(net.nodes[SERVER].endpoint.is_idle() && net.nodes[CLIENT].endpoint.is_idle());
}

#[test]
fn a_certificate_that_nobody_trusts_ends_the_handshake_with_its_alert() {
    let mut net = Net::new(&config());
    let options = crate::ConnectOptions { tls: client_tls(false), ..net.options() };
    net.nodes[CLIENT].endpoint.connect(net.now, options).unwrap();
    assert!(net.wait_for(RTT, |net| net.closed(CLIENT).is_some()));
    // RFC 8446 section 6: unknown_ca is alert 48.
    match net.closed(CLIENT) {
        Some(CloseReason::Transport { code, reason }) => assert_eq!(code, 0x100 + 48, "{reason}"),
        other => panic!("{other:?}"),
    }
    net.run_for(Duration::from_secs(3));
    let close = net.log.iter().find(|(_, segment)| segment.is_to_server() && segment.has(Flags::FIN));
    assert_eq!(close.map(|(_, segment)| segment.epoch()), Some(Epoch::Handshake), "sealed, not for everybody to see");
    assert!(net.nodes[SERVER].events.is_empty() && net.nodes[SERVER].endpoint.is_idle(), "the server heard it");
    assert!(net.now < net.log[0].0 + config().security.handshake_timeout);
}

#[test]
fn an_open_port_that_does_not_answer_ends_in_a_timeout() {
    let mut net = Net::new(&config());
    net.hook = Box::new(|_| Vec::new());
    net.connect(CLIENT);
    let start = net.now;
    assert!(net.wait_for(Duration::from_secs(11), |net| net.closed(CLIENT).is_some()));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::HandshakeTimeout));
    assert_eq!(net.now - start, config().security.handshake_timeout);
    let syns = net.log.len();
    assert!((4..=30).contains(&syns), "it tries again, ever more rarely: {syns} packets");
}

#[test]
fn packets_of_1_rtt_that_overtake_the_handshake_are_kept_up_to_eight() {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    // Each packet of epoch 1 is held back for longer than it takes 12 messages to come.
    net.hook = Box::new(|mut segment| {
        if segment.is_to_server() && segment.epoch() == Epoch::Handshake {
            segment.delay += Duration::from_millis(3);
        }
        vec![segment]
    });
    assert!(net.wait_for(RTT, |net| net.is_connected(CLIENT)));
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(net.write(CLIENT, client, b"early"));
        net.run_for(Duration::from_micros(100));
    }
    assert!(net.wait_for(Duration::from_millis(13), |net| net.is_connected(SERVER)));
    let server = net.server_handle().unwrap();
    let came = ids.iter().filter(|&&id| net.read(SERVER, server, id) == b"early").count();
    assert_eq!(came, 8, "so many are kept");
    net.run_for(RTT * 10);
    let later = ids.iter().filter(|&&id| net.read(SERVER, server, id) == b"early").count();
    assert_eq!(came + later, 12, "the others are sent again");
}
