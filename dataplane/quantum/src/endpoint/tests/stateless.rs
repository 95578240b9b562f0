//! Stateless resets and version negotiation.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, Segment, address, config, server_endpoint};
use crate::crypto::reset::{encode_reset, reset_token};
use crate::wire::{Epoch, Flags, HEADER_LEN, Header, VERSION};
use crate::{CloseReason, EndpointConfig, Guuid, SecurityConfig};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A reset of the connection by the node with that key.
fn reset(node_key: &[u8; 32], guuid: Guuid) -> Vec<u8> {
    let mut out = [0; 64];
    let token = reset_token(node_key, guuid);
    let len = encode_reset(guuid, &token, 1200, &mut StdRng::from_seed([4; 32]), &mut out).unwrap();
    out[..len].to_vec()
}

fn guuid_of(net: &Net) -> Guuid {
    net.log[0].1.header().guuid
}

#[test]
fn a_server_that_forgot_the_connection_ends_it_by_a_reset() {
    let (mut net, client, _) = Net::connected(&config());
    net.nodes[SERVER].endpoint = server_endpoint(&config());
    net.write(CLIENT, client, &[1; 600]);
    let before = net.now;
    let sent = net.log.len();
    assert!(net.wait_for(RTT * 2, |net| net.closed(CLIENT).is_some()));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::Reset));
    assert_eq!(net.now - before, RTT, "as soon as something is answered");
    let trigger = net.log[sent].1.data.len();
    let answer = net.log[sent..].iter().find(|(_, segment)| segment.has(Flags::RST)).unwrap();
    assert!((48..=64).contains(&answer.1.data.len()) && answer.1.data.len() < trigger);
    net.run_for(RTT * 5);
    assert_eq!(net.nodes[SERVER].endpoint.stats().resets_sent, 1);
    assert!(net.nodes[CLIENT].endpoint.is_idle() && net.nodes[SERVER].endpoint.is_idle(), "nobody answers a reset");
}

#[test]
fn a_reset_that_does_not_prove_itself_is_ignored() {
    let (mut net, client, server) = Net::connected(&config());
    let guuid = guuid_of(&net);
    let elsewhere = SocketAddr::from(([66, 6, 6, 6], 666));
    let other = net.next_guuid();
    let true_one = reset(&config().node_key, guuid);
    let mut cut = true_one.clone();
    cut.truncate(cut.len() - 1);
    let mut flipped = true_one.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut without_flag = true_one.clone();
    without_flag[5] = 0;
    let packets = [
        (address(SERVER), reset(&[8; 32], guuid), "another node's"),
        (address(SERVER), reset(&config().node_key, other), "another connection's"),
        (address(SERVER), cut, "cut short"),
        (address(SERVER), flipped, "a flipped bit"),
        (address(SERVER), without_flag, "no RST"),
        (elsewhere, true_one.clone(), "from elsewhere"),
    ];
    for (from, data, what) in packets {
        net.hand(CLIENT, from, &data);
        net.run_for(Duration::from_millis(1));
        assert_eq!(net.closed(CLIENT), None, "{what}");
    }
    assert!(net.delivers(client, server));
    // The server has no token of the client's: nothing resets it.
    net.hand(SERVER, address(CLIENT), &true_one);
    assert!(net.delivers(client, server));
    net.hand(CLIENT, address(SERVER), &true_one);
    net.run_for(Duration::from_millis(1));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::Reset), "the true one counts");
}

#[test]
fn resets_are_shorter_than_what_they_answer_and_never_answer_one() {
    let mut net = Net::new(&config());
    let mut buffer = vec![0; 1 << 16];
    for len in HEADER_LEN..=200 {
        let guuid = net.next_guuid();
        for flags in [Flags::NONE, Flags::ACK, Flags::RST, Flags::RST | Flags::ACK] {
            let mut data = vec![5; len];
            let header = Header {
                version: VERSION,
                epoch: Epoch::OneRtt0,
                flags,
                guuid,
                sequence: 5,
                ack: 0,
                payload_len: (len - HEADER_LEN) as u16,
            };
            header.encode(&mut data);
            net.hand(SERVER, address(CLIENT), &data);
            let answer = net.nodes[SERVER].endpoint.poll_transmit(net.now, &mut buffer).map(|transmit| transmit.len);
            let may = !flags.contains(Flags::RST) && len > 48;
            assert_eq!(answer.is_some(), may, "{len} bytes, {flags:?}");
            assert!(answer.is_none_or(|answer| answer < len), "{answer:?} for {len}");
        }
    }
    // A client has no node to speak for.
    let data = net.next_guuid();
    let mut packet = vec![5; 200];
    let header = Header { payload_len: 168, guuid: data, ..Header::decode(&reset(&[7; 32], data)).unwrap().0 };
    Header { flags: Flags::NONE, ..header }.encode(&mut packet);
    net.hand(CLIENT, address(SERVER), &packet);
    assert_eq!(net.nodes[CLIENT].endpoint.poll_transmit(net.now, &mut buffer), None);
}

/// Answers to `count` packets within one second that begin like `first_bytes`.
fn answers(net: &mut Net, count: u32, make: impl Fn(Guuid) -> Vec<u8>) -> u32 {
    let mut buffer = vec![0; 1 << 16];
    let mut answers = 0;
    for _ in 0..count {
        net.now += Duration::from_secs(1) / count;
        let guuid = net.next_guuid();
        net.hand(SERVER, address(CLIENT), &make(guuid));
        while net.nodes[SERVER].endpoint.poll_transmit(net.now, &mut buffer).is_some() {
            answers += 1;
        }
    }
    answers
}

fn one_rtt(guuid: Guuid) -> Vec<u8> {
    let mut data = vec![5; 200];
    let header = Header {
        version: VERSION,
        epoch: Epoch::OneRtt0,
        flags: Flags::NONE,
        guuid,
        sequence: 5,
        ack: 0,
        payload_len: 168,
    };
    header.encode(&mut data);
    data
}

fn version_3(guuid: Guuid) -> Vec<u8> {
    let mut data = one_rtt(guuid);
    data[4] = 3;
    data
}

#[test]
fn answers_that_prove_nothing_are_limited_in_rate() {
    let mut net = Net::new(&config());
    let first = answers(&mut net, 20_000, one_rtt);
    assert!((1_000..=2_001).contains(&first), "a second's worth at once and the rate: {first}");
    let second = answers(&mut net, 20_000, version_3);
    assert!((999..=1_001).contains(&second), "version negotiation draws on the same: {second}");
    let third = answers(&mut net, 500, one_rtt);
    assert_eq!(third, 500, "below the rate every one is answered");
}

#[test]
fn another_version_is_answered_with_the_versions_spoken() {
    let mut net = Net::new(&config());
    let mut buffer = vec![0; 1 << 16];
    let guuid = net.next_guuid();
    for version in 0..16_u8 {
        let mut packet = one_rtt(guuid);
        packet[4] = 0x10 | version;
        packet[22..26].copy_from_slice(&77_u32.to_be_bytes());
        net.hand(SERVER, address(CLIENT), &packet);
        let sent = net.nodes[SERVER].endpoint.poll_transmit(net.now, &mut buffer);
        match (version, sent) {
            // Version 2, epoch 1 of an unknown connection: no answer. Version 0 is never answered.
            (0 | VERSION, None) => {}
            (1 | 3.., Some(transmit)) => {
                let answer = &buffer[..transmit.len];
                assert_eq!((transmit.len, answer[4], answer[5]), (32, 0, 0));
                assert_eq!(&answer[6..26], &packet[6..26], "GUUID and sequence are copied");
                assert_eq!(&answer[26..], &[0, 0, 0, 4, 0, 0], "the mask of version 2, no payload");
                assert_eq!(transmit.remote, address(CLIENT));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(net.nodes[SERVER].endpoint.stats().wrong_version, 15);
}

/// A version negotiation as an answer to `segment`.
fn negotiation(guuid: Guuid, sequence: u32, mask: u32) -> Vec<u8> {
    let mut data = vec![0; 32];
    data[..4].copy_from_slice(b"QUNT");
    data[6..22].copy_from_slice(guuid.as_bytes());
    data[22..26].copy_from_slice(&sequence.to_be_bytes());
    data[26..30].copy_from_slice(&mask.to_be_bytes());
    data
}

#[test]
fn a_client_gives_up_only_on_a_negotiation_that_answers_it_and_comes_first() {
    let mut net = Net::new(&config());
    net.connect(CLIENT);
    net.run_for(Duration::from_millis(1));
    let guuid = guuid_of(&net);
    let other = net.next_guuid();
    let mut longer = negotiation(guuid, 1, 8);
    longer.push(0);
    let mut with_flag = negotiation(guuid, 1, 8);
    with_flag[5] = 1;
    for (data, what) in [
        (negotiation(other, 1, 8), "another connection"),
        (negotiation(guuid, 3, 8), "a number that was not sent"),
        (negotiation(guuid, 0, 8), "number 0"),
        (negotiation(guuid, 1, 4 | 8), "the version is spoken after all"),
        (longer, "too long"),
        (with_flag, "a flag"),
    ] {
        net.hand(CLIENT, address(SERVER), &data);
        net.run_for(Duration::from_micros(1));
        assert_eq!(net.closed(CLIENT), None, "{what}");
    }
    net.hand(CLIENT, address(SERVER), &negotiation(guuid, 2, 8));
    net.run_for(Duration::from_micros(1));
    let reason = net.closed(CLIENT).unwrap();
    assert_eq!(reason, CloseReason::VersionMismatch { versions: 8 });
    assert_eq!(reason.to_string(), "the peer speaks these versions of Quantum: 3; this side speaks 2");
}

#[test]
fn two_servers_do_not_answer_each_other() {
    let mut net = Net::new(&config());
    net.nodes[CLIENT].endpoint = server_endpoint(&config());
    let guuid = net.next_guuid();
    // As from the other server: its answer goes there, and ends there.
    net.hand(SERVER, address(CLIENT), &version_3(guuid));
    net.run_for(RTT * 10);
    let sent: Vec<usize> = net.log.iter().map(|(_, segment)| segment.data.len()).collect();
    assert_eq!(sent, [HEADER_LEN], "one answer, as long as the shortest packet");
    assert_eq!(net.nodes[CLIENT].endpoint.stats().wrong_version, 1);
}

#[test]
fn after_anything_authentic_a_negotiation_is_ignored() {
    for settings in [
        config(),
        EndpointConfig {
            security: SecurityConfig { handshakes_without_cookie: 0, ..SecurityConfig::default() },
            ..config()
        },
    ] {
        let mut net = Net::new(&settings);
        let client = net.connect(CLIENT);
        // One answer of the server comes, then what an attacker says. In the second case it is the cookie.
        let came = Rc::new(RefCell::new(false));
        let seen = Rc::clone(&came);
        net.hook = Box::new(move |segment: Segment| {
            let passes = segment.is_to_server() || !seen.replace(true);
            if passes { vec![segment] } else { Vec::new() }
        });
        net.run_for(RTT + DELAY / 2);
        assert!(*came.borrow());
        let guuid = guuid_of(&net);
        net.hand(CLIENT, address(SERVER), &negotiation(guuid, 1, 8));
        net.hook = Box::new(|segment| vec![segment]);
        assert!(net.wait_for(Duration::from_secs(2), |net| net.is_connected(CLIENT) && net.is_connected(SERVER)));
        let server = net.server_handle().unwrap();
        assert!(net.delivers(client, server));
    }
}
