//! Packets of a hostile peer, sealed with the real keys: each fault has its code.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, address, config, frames};
use crate::connection::forge::Forged;
use crate::crypto::session::{KeyPair, Provider, Session, TAG_LEN};
use crate::crypto::tls::TlsProvider;
use crate::params::TransportParameters;
use crate::wire::{Epoch, Flags, HEADER_LEN, Header, SackBlock, SackBlocks};
use crate::{
    CloseReason, ConnectError, ConnectOptions, ConnectionHandle, Endpoint, EndpointConfig, Guuid, Side, StreamId,
};

const FLOW_CONTROL: u64 = 0x3;
const STREAM_LIMIT: u64 = 0x4;
const STREAM_STATE: u64 = 0x5;
const FINAL_SIZE: u64 = 0x6;
const FRAME_ENCODING: u64 = 0x7;
const TRANSPORT_PARAMETER: u64 = 0x8;
const PROTOCOL_VIOLATION: u64 = 0xa;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0xd;

/// Sends a forged packet from the connection of that node to the other one, at once.
fn strike(net: &mut Net, from: usize, handle: ConnectionHandle, forged: &Forged) {
    let to = if from == CLIENT { SERVER } else { CLIENT };
    let data = net.nodes[from].endpoint.slots.get_mut(handle).unwrap().forge(forged).expect("the keys are there");
    net.hand(to, address(from), &data);
}

/// The transport's code by which the victim ended the connection of `from`.
fn code_of(net: &mut Net, from: usize) -> u64 {
    net.run_for(DELAY);
    match net.closed(from) {
        Some(CloseReason::Peer { code, application: false, .. }) => code,
        other => panic!("{other:?}"),
    }
}

/// What a server, and a client, says to frames in 1-RTT.
fn answer(from: usize, forged: &Forged) -> u64 {
    let (mut net, client, server) = Net::connected(&config());
    strike(&mut net, from, if from == CLIENT { client } else { server }, forged);
    let code = code_of(&mut net, from);
    let victim = if from == CLIENT { SERVER } else { CLIENT };
    assert!(matches!(net.closed(victim), Some(CloseReason::Transport { code: told, .. }) if told == code));
    net.run_for(Duration::from_secs(5));
    assert!(net.nodes[victim].endpoint.is_idle());
    code
}

fn stream(id: u64, offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    frames(|writer| {
        writer.begin_stream(StreamId(id), offset, data.len(), fin).unwrap().copy_from_slice(data);
    })
}

#[test]
fn frames_that_a_side_may_not_send_are_protocol_violations() {
    let crypto = frames(|writer| writer.begin_crypto(0, 3).unwrap().copy_from_slice(b"abc"));
    let cookie = frames(|writer| assert!(writer.cookie(&[1; 20])));
    let done = frames(|writer| assert!(writer.handshake_done()));
    for from in [CLIENT, SERVER] {
        assert_eq!(answer(from, &Forged::frames(Epoch::OneRtt0, &crypto)), PROTOCOL_VIOLATION);
        assert_eq!(answer(from, &Forged::frames(Epoch::OneRtt0, &cookie)), PROTOCOL_VIOLATION);
    }
    assert_eq!(answer(CLIENT, &Forged::frames(Epoch::OneRtt0, &done)), PROTOCOL_VIOLATION);
}

#[test]
fn acknowledgements_of_what_was_never_sent_are_protocol_violations() {
    // Far more than either side has sent.
    let impossible: [(u32, &[(u32, u32)]); 12] = [
        (1_001, &[(1_000, 1_000)]),
        (1_001, &[(1, 1_000)]),
        (1, &[(0, 0)]),
        (2, &[(0, 1)]),
        (0, &[(u32::MAX, u32::MAX)]),
        (0x8000_0001, &[(0x8000_0000, 0x8000_0000)]),
        (3, &[(3, 2)]),
        (4, &[(3, 3), (3, 3)]),
        (4, &[(3, 3), (2, 2)]),
        (2, &[(1, 1), (3, 3)]),
        (3, &[(1, 1)]),
        (3, &[]),
    ];
    for (ack, blocks) in impossible {
        for from in [CLIENT, SERVER] {
            let code = answer(from, &Forged::acks(Epoch::OneRtt0, ack, blocks));
            assert_eq!(code, PROTOCOL_VIOLATION, "{ack} {blocks:?}");
        }
    }
    let without_flag = Forged { flags: Flags::NONE, ..Forged::acks(Epoch::OneRtt0, 2, &[(1, 1)]) };
    assert_eq!(answer(CLIENT, &without_flag), PROTOCOL_VIOLATION);
    for range in [1_000..=1_000_u64, 0..=1, 0..=0, 1..=(1 << 62) - 1] {
        let ack = frames(|writer| assert_eq!(writer.ack([range.clone()], 0, None), 1));
        assert_eq!(answer(CLIENT, &Forged::frames(Epoch::OneRtt0, &ack)), PROTOCOL_VIOLATION, "{range:?}");
    }
}

#[test]
fn frames_that_cannot_be_read_are_encoding_errors() {
    let mut payloads: Vec<Vec<u8>> = vec![
        // A varint cut short, a length beyond the packet, a close with too many words, too many streams, ACK ranges below 0.
        vec![0x10],
        vec![0x0a, 0x00, 0x40, 0xff, 1],
        [&[0x1c, 0, 0x41, 1][..], &[b'w'; 257]].concat(),
        vec![0x12, 0xd0, 0, 0, 0, 0, 0, 0, 1],
        vec![0x02, 5, 0, 0, 6],
        vec![0x0e, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 9],
    ];
    for kind in [0x13, 0x17, 0x1a, 0x1b, 0x1f, 0x20, 0x31, 0x3f, 0x40, 0x80, 0xff] {
        payloads.push(vec![kind; 20]);
    }
    for payload in payloads {
        assert_eq!(answer(CLIENT, &Forged::frames(Epoch::OneRtt0, &payload)), FRAME_ENCODING, "{payload:?}");
    }
}

#[test]
fn faults_of_streams_have_their_codes() {
    let EndpointConfig { stream_window, streams_max, .. } = config();
    let beyond = stream(0, stream_window, b"x", false);
    let one_too_many = stream(streams_max * 2, 0, b"x", false);
    let mut changed_end = stream(0, 0, b"abc", true);
    changed_end.extend(stream(0, 0, b"abcd", false));
    let mut lower_end = stream(0, 0, b"abc", false);
    lower_end.extend(frames(|writer| assert!(writer.reset_stream(StreamId(0), 1, 2))));
    let not_opened = frames(|writer| assert!(writer.max_stream_data(StreamId(1), 5)));
    let huge_reset = frames(|writer| assert!(writer.reset_stream(StreamId(0), 1, 1 << 61)));
    for (payload, code, what) in [
        (&beyond, FLOW_CONTROL, "a byte over the stream's window"),
        (&huge_reset, FLOW_CONTROL, "a final size over the window"),
        (&one_too_many, STREAM_LIMIT, "a stream too many"),
        (&stream(1, 0, b"x", false), STREAM_STATE, "data on a stream that the server has not opened"),
        (&not_opened, STREAM_STATE, "credit for a stream that the server has not opened"),
        (&changed_end, FINAL_SIZE, "data behind the end"),
        (&lower_end, FINAL_SIZE, "an end before what came"),
    ] {
        assert_eq!(answer(CLIENT, &Forged::frames(Epoch::OneRtt0, payload)), code, "{what}");
    }
}

#[test]
fn the_connections_window_holds_over_all_streams() {
    let settings = EndpointConfig { connection_window: 3_000, stream_window: 2_000, ..config() };
    let (mut net, client, _) = Net::connected(&settings);
    // The bytes stay outside of the streams' buffers for want of those before them.
    for id in [0, 2, 4] {
        strike(&mut net, CLIENT, client, &Forged::frames(Epoch::OneRtt0, &stream(id, 1_999, b"x", false)));
    }
    assert_eq!(code_of(&mut net, CLIENT), FLOW_CONTROL);
}

/// A server in the middle of a handshake and a client that is through with it: what it sent since is held back.
fn half_open() -> (Net, ConnectionHandle) {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    net.hook = Box::new(|segment| {
        let is_held = segment.is_to_server() && segment.epoch() != Epoch::Initial;
        if is_held { Vec::new() } else { vec![segment] }
    });
    assert!(net.wait_for(RTT * 2, |net| net.is_connected(CLIENT)));
    (net, client)
}

/// A packet of epoch 0 that anybody can make who has seen the id.
fn observed(guuid: Guuid, side: Side, number: u64, blocks: &[(u32, u32)], plaintext: &[u8]) -> Vec<u8> {
    let mut sack = SackBlocks::new();
    for &(start, end) in blocks {
        assert!(sack.push(SackBlock { start, end }));
    }
    let head = HEADER_LEN + sack.encoded_len();
    let mut data = vec![0; head + plaintext.len() + TAG_LEN];
    let header = Header {
        version: 2,
        epoch: Epoch::Initial,
        flags: if blocks.is_empty() { Flags::SYN } else { Flags::SYN | Flags::ACK },
        guuid,
        sequence: number as u32,
        ack: blocks.first().map_or(0, |block| block.1 + 1),
        payload_len: (plaintext.len() + TAG_LEN) as u16,
    };
    header.encode(&mut data);
    sack.encode(&mut data[HEADER_LEN..]);
    data[head..][..plaintext.len()].copy_from_slice(plaintext);
    let keys = TlsProvider::new(None, false).initial_keys(guuid, side);
    let (head, payload) = data.split_at_mut(head);
    keys.local.seal(number, head, payload);
    data
}

#[test]
fn the_handshakes_epochs_carry_nothing_else() {
    let forbidden = [
        stream(0, 0, b"x", false),
        frames(|writer| assert!(writer.max_data(5))),
        frames(|writer| assert!(writer.stop_sending(StreamId(0), 5))),
        frames(|writer| assert!(writer.connection_close(5, true, b""))),
        frames(|writer| assert!(writer.handshake_done())),
    ];
    for payload in &forbidden {
        let (mut net, client) = half_open();
        strike(&mut net, CLIENT, client, &Forged::frames(Epoch::Handshake, payload));
        assert_eq!(code_of(&mut net, CLIENT), PROTOCOL_VIOLATION, "{payload:?} in epoch 1");
        let (mut net, _) = half_open();
        let guuid = net.log[0].1.header().guuid;
        net.hand(SERVER, address(CLIENT), &observed(guuid, Side::Client, 40, &[], payload));
        assert_eq!(code_of(&mut net, CLIENT), PROTOCOL_VIOLATION, "{payload:?} in epoch 0");
    }
    let (mut net, client) = half_open();
    let cookie = frames(|writer| assert!(writer.cookie(&[1; 20])));
    strike(&mut net, CLIENT, client, &Forged::frames(Epoch::Handshake, &cookie));
    assert_eq!(code_of(&mut net, CLIENT), PROTOCOL_VIOLATION, "a cookie in epoch 1");
}

#[test]
fn handshake_data_far_ahead_is_refused() {
    let ahead = frames(|writer| writer.begin_crypto(16 << 10, 1).unwrap().copy_from_slice(b"x"));
    let (mut net, client) = half_open();
    strike(&mut net, CLIENT, client, &Forged::frames(Epoch::Handshake, &ahead));
    assert_eq!(code_of(&mut net, CLIENT), CRYPTO_BUFFER_EXCEEDED);
}

#[test]
fn an_acknowledgement_that_anybody_can_make_counts_for_epoch_0_alone() {
    let (mut net, _) = half_open();
    let guuid = net.log[0].1.header().guuid;
    let sent: Vec<u32> =
        net.log.iter().filter(|(_, it)| !it.is_to_server()).map(|(_, it)| it.header().sequence).collect();
    let (first, last) = (sent[0], *sent.last().unwrap());
    let of_epoch_1: u64 = net
        .log
        .iter()
        .filter(|(_, it)| !it.is_to_server() && it.epoch() == Epoch::Handshake)
        .map(|(_, it)| it.data.len() as u64)
        .sum();
    net.hand(SERVER, address(CLIENT), &observed(guuid, Side::Client, 40, &[(first, last)], &[1]));
    let handle = net.nodes[SERVER].endpoint.slots.find(guuid).unwrap();
    let in_flight = net.nodes[SERVER].endpoint.slots.get(handle).unwrap().stats().congestion.in_flight_bytes;
    assert_eq!(in_flight, of_epoch_1, "what was sent in epoch 1 is in flight still");
    // In the same way an acknowledgement in epoch 1 does not count for data: the client's first message is still under way.
    let (mut net, client) = half_open();
    net.write(CLIENT, client, b"data");
    net.run_for(Duration::from_millis(1));
    let before = net.nodes[CLIENT].endpoint.connection(client).unwrap().stats().congestion.in_flight_bytes;
    let last = net.nodes[CLIENT].endpoint.slots.get(client).unwrap().next_number() as u32 - 1;
    let server = net.nodes[SERVER].endpoint.slots.find(net.log[0].1.header().guuid).unwrap();
    strike(&mut net, SERVER, server, &Forged::acks(Epoch::Handshake, last + 1, &[(last, last)]));
    assert_eq!(net.closed(CLIENT), None);
    let after = net.nodes[CLIENT].endpoint.connection(client).unwrap().stats().congestion.in_flight_bytes;
    assert_eq!(before, after);
}

#[test]
fn after_the_handshake_epoch_0_counts_for_nothing() {
    let (mut net, client, server) = Net::connected(&config());
    let guuid = net.log[0].1.header().guuid;
    let close = frames(|writer| assert!(writer.connection_close(1, false, b"go away")));
    for (to, side) in [(SERVER, Side::Client), (CLIENT, Side::Server)] {
        let from = if to == SERVER { CLIENT } else { SERVER };
        for (number, payload) in [(90, &close), (0, &close), (91, &stream(0, 0, b"x", false))] {
            net.hand(to, address(from), &observed(guuid, side, number, &[], payload));
        }
    }
    assert!(net.delivers(client, server));
    assert!(net.closed(CLIENT).is_none() && net.closed(SERVER).is_none());
}

#[test]
fn a_close_of_a_server_that_has_sent_all_it_may_does_not_amplify() {
    let mut net = Net::new(&config());
    net.connect(CLIENT);
    let received = Rc::new(RefCell::new(0_u64));
    let counted = Rc::clone(&received);
    // The hello arrives and nothing else; the server sends what it may.
    net.hook = Box::new(move |segment| {
        let passes = segment.is_to_server() && segment.header().sequence <= 2;
        *counted.borrow_mut() += if passes { segment.data.len() as u64 } else { 0 };
        if passes { vec![segment] } else { Vec::new() }
    });
    net.run_for(Duration::from_secs(9));
    let guuid = net.log[0].1.header().guuid;
    for number in 0..1_000 {
        let packet = observed(guuid, Side::Client, 1_000 + number, &[], &stream(0, 0, b"x", false));
        *received.borrow_mut() += packet.len() as u64;
        net.hand(SERVER, address(CLIENT), &packet);
        net.run_for(Duration::from_micros(10));
        let sent: u64 = net.log.iter().filter(|(_, it)| !it.is_to_server()).map(|(_, it)| it.data.len() as u64).sum();
        assert!(sent <= 3 * *received.borrow(), "{sent} bytes for {}", received.borrow());
    }
}

#[test]
fn a_replayed_packet_is_a_duplicate_and_changes_nothing() {
    let (mut net, client, server) = Net::connected(&config());
    let id = net.write(CLIENT, client, b"once");
    net.run_for(RTT);
    assert_eq!(net.read(SERVER, server, id), b"once");
    let all: Vec<_> = net.log.iter().filter(|(_, it)| it.is_to_server()).map(|(_, it)| it.clone()).collect();
    let before = net.nodes[SERVER].endpoint.stats();
    let connection = net.nodes[SERVER].endpoint.connection(server).unwrap().stats();
    for segment in &all {
        net.hand(SERVER, segment.from, &segment.data);
    }
    let after = net.nodes[SERVER].endpoint.stats();
    assert_eq!(after.duplicates - before.duplicates, all.len() as u64);
    let stats = net.nodes[SERVER].endpoint.connection(server).unwrap().stats();
    assert_eq!(stats, connection, "nothing changed");
    assert_eq!(net.read(SERVER, server, id), b"");
    assert!(net.delivers(client, server));
}

/// A client that announces what the test wants.
struct Announces(TlsProvider, Vec<u8>);

impl Provider for Announces {
    fn initial_keys(&self, guuid: Guuid, side: Side) -> KeyPair {
        self.0.initial_keys(guuid, side)
    }

    fn connect(&self, options: &ConnectOptions, _: Vec<u8>) -> Result<Box<dyn Session>, ConnectError> {
        self.0.connect(options, self.1.clone())
    }

    fn accepts(&self) -> bool {
        false
    }

    fn accept(&self, _: Vec<u8>) -> Option<Box<dyn Session>> {
        None
    }
}

#[test]
fn absurd_transport_parameters_end_the_handshake() {
    let good = TransportParameters::local(&config(), None).encode();
    let too_small = TransportParameters { datagram_size_max: 1_199, ..TransportParameters::local(&config(), None) };
    for (parameters, is_good) in [
        (good.clone(), true),
        ([&good[..], &[0x3f, 2, 9, 9]].concat(), true),
        (Vec::new(), false),
        (good[..good.len() - 1].to_vec(), false),
        ([&good[..], &good[..]].concat(), false),
        ([&good[..], &[0; 1_024]].concat(), false),
        (too_small.encode(), false),
    ] {
        let mut net = Net::new(&config());
        let provider = Box::new(Announces(TlsProvider::new(None, false), parameters.clone()));
        net.nodes[CLIENT].endpoint = Endpoint::with_provider(Arc::new(config()), [2; 32], provider);
        net.connect(CLIENT);
        net.run_for(RTT * 3);
        assert_eq!(net.is_connected(SERVER), is_good, "{parameters:?}");
        if !is_good {
            assert_eq!(code_of(&mut net, CLIENT), TRANSPORT_PARAMETER, "{parameters:?}");
        }
    }
}
