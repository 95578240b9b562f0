//! Forward error correction between endpoints: offered, accepted, used, and abused.

use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, address, config, server_endpoint, with_fec};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Flags, FrameWriter};
use crate::{CloseReason, ConnectionHandle, FecConfig, FecMode, FecStats, StreamId};

const FRAME_ENCODING: u64 = 0x7;
const PROTOCOL_VIOLATION: u64 = 0xa;

fn stats(net: &mut Net, place: usize, handle: ConnectionHandle) -> FecStats {
    net.nodes[place].endpoint.connection(handle).unwrap().stats().fec
}

/// Packets with repair symbols that a side has sent since.
fn repairs(net: &Net, place: usize, since: usize) -> usize {
    let own = net.log[since..].iter().filter(|(_, segment)| segment.is_to_server() == (place == CLIENT));
    own.filter(|(_, segment)| segment.has(Flags::FEC)).count()
}

#[test]
fn a_message_that_is_lost_comes_a_millisecond_later() {
    let (mut net, client, server) = Net::connected(&with_fec());
    net.run_for(RTT * 20);
    let mut lose = true;
    net.hook = Box::new(move |segment| if std::mem::take(&mut lose) { Vec::new() } else { vec![segment] });
    let (start, id) = (net.now, net.write(CLIENT, client, b"once"));
    assert!(net.wait_for(RTT * 3, |net| net.read(SERVER, server, id) == b"once"));
    assert_eq!(net.now - start, DELAY + Duration::from_millis(1));
    net.run_for(RTT * 5);
    let (sent, received) = (stats(&mut net, CLIENT, client), stats(&mut net, SERVER, server));
    assert_eq!((sent.recovered_by_peer, received.recovered), (1, 1));
    let connection = net.nodes[CLIENT].endpoint.connection(client).unwrap();
    assert_eq!((connection.stats().retransmissions, connection.stats().packets_lost), (0, 1));
}

#[test]
fn a_side_that_takes_no_symbols_is_sent_none() {
    for (on, off) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
        let mut net = Net::new(&if on == CLIENT { with_fec() } else { config() });
        net.nodes[SERVER].endpoint = server_endpoint(&if on == SERVER { with_fec() } else { config() });
        let client = net.connect(CLIENT);
        assert!(net.wait_for(RTT * 3, |net| net.is_connected(SERVER)));
        let server = net.server_handle().unwrap();
        for _ in 0..5 {
            assert!(net.delivers(client, server));
            net.write(SERVER, server, b"back");
            net.run_for(RTT);
        }
        assert_eq!((repairs(&net, on, 0), repairs(&net, off, 0)), (0, 0));
    }
}

#[test]
fn streams_that_opted_out_are_not_protected() {
    let (mut net, client, server) = Net::connected(&with_fec());
    net.run_for(RTT * 10);
    for protected in [false, true] {
        let since = net.log.len();
        let id = net.nodes[CLIENT].endpoint.connection(client).unwrap().open().unwrap();
        let mut connection = net.nodes[CLIENT].endpoint.connection(client).unwrap();
        connection.protect(id, protected);
        connection.write(id, &mut b"data".as_slice().into()).unwrap();
        drop(connection);
        net.run_for(RTT * 3);
        assert_eq!(net.read(SERVER, server, id), b"data");
        assert_eq!(repairs(&net, CLIENT, since) > 0, protected);
    }
}

#[test]
fn a_fixed_group_of_ten_survives_three_losses() {
    let fec = FecConfig { mode: FecMode::Fixed { members: 10, repairs: 3 }, ..FecConfig::default() };
    let (mut net, client, server) = Net::connected(&crate::EndpointConfig { fec, ..config() });
    net.run_for(RTT * 10);
    let mut nth = 0;
    net.hook = Box::new(move |segment| {
        nth += 1;
        if segment.is_to_server() && [1, 4, 8].contains(&nth) { Vec::new() } else { vec![segment] }
    });
    let data: Vec<u8> = (0..10_500_u32).map(|byte| (byte % 251) as u8).collect();
    let (start, id) = (net.now, net.write(CLIENT, client, &data));
    let mut got = Vec::new();
    assert!(net.wait_for(RTT * 3, |net| {
        got.extend(net.read(SERVER, server, id));
        got.len() == data.len()
    }));
    assert_eq!(got, data);
    assert!(net.now - start < RTT, "{:?}", net.now - start);
    let (sender, receiver) = (stats(&mut net, CLIENT, client), stats(&mut net, SERVER, server));
    assert!(receiver.recovered > 0);
    net.run_for(RTT * 2);
    let [sent, taken] = [CLIENT, SERVER].map(|place| net.nodes[place].endpoint.stats().traffic);
    assert!(sender.protected >= 10 && sent.protected >= sender.protected && sent.repairs_sent >= sender.repairs_sent);
    assert!(sent.recovered_by_peer > 0 && taken.repairs_received >= receiver.repairs_received);
    assert_eq!(taken.repairs_wasted, stats(&mut net, SERVER, server).wasted);
}

/// What a server says to frames of a client that takes part in forward error correction.
fn answer(settings: &crate::EndpointConfig, write: impl FnOnce(&mut FrameWriter<'_>, u64)) -> Option<u64> {
    let (mut net, client, _) = Net::connected(settings);
    net.run_for(RTT * 5);
    let mut plaintext = vec![0; 1_000];
    let mut writer = FrameWriter::new(&mut plaintext);
    let source = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap();
    write(&mut writer, source.next_number());
    let written = writer.written();
    let forged =
        Forged { number: Some(source.next_number() + 10), ..Forged::frames(Epoch::OneRtt0, &plaintext[..written]) };
    let data = source.forge(&forged).unwrap();
    net.hand(SERVER, address(CLIENT), &data);
    net.run_for(DELAY);
    match net.closed(CLIENT)? {
        CloseReason::Peer { code, application: false, .. } => Some(code),
        other => panic!("{other:?}"),
    }
}

/// A copy of a packet that never came, consisting of what `write` writes.
fn copy(writer: &mut FrameWriter<'_>, number: u64, write: impl FnOnce(&mut FrameWriter<'_>)) {
    let mut symbol = vec![0; 500];
    let mut inner = FrameWriter::new(&mut symbol);
    write(&mut inner);
    let written = inner.written();
    // Numbers that a client has not used yet are as good as lost ones.
    writer
        .begin_repair(number + 10, &[(number + 9, number + 9)], (0, 1), written)
        .unwrap()
        .copy_from_slice(&symbol[..written]);
}

#[test]
fn abuse_has_its_codes() {
    let none = answer(&with_fec(), |writer, number| {
        copy(writer, number, |symbol| assert!(symbol.ping()));
    });
    assert_eq!(none, None, "a copy by itself is nothing bad");
    let unwanted = answer(&config(), |writer, number| copy(writer, number, |symbol| assert!(symbol.ping())));
    assert_eq!(unwanted, Some(PROTOCOL_VIOLATION));
    let recovered = answer(&with_fec(), |writer, _| assert!(writer.recovered(&[(1_000, 1_000)])));
    assert_eq!(recovered, Some(PROTOCOL_VIOLATION), "it was never sent");
    let crypto = answer(&with_fec(), |writer, number| {
        copy(writer, number, |symbol| symbol.begin_crypto(0, 5).unwrap().fill(1));
    });
    assert_eq!(crypto, Some(PROTOCOL_VIOLATION), "symbols have no such frames");
    let cut = answer(&with_fec(), |writer, number| {
        copy(writer, number, |symbol| {
            // A length beyond the symbol's end.
            symbol.begin_stream(StreamId(0), 0, 5, false).unwrap().fill(1);
            assert!(symbol.ping());
        });
    });
    assert_eq!(cut, None, "that was a whole one");
    let nested = answer(&with_fec(), |writer, number| {
        copy(writer, number, |symbol| copy(symbol, number, |inner| assert!(inner.ping())));
    });
    assert_eq!(nested, Some(PROTOCOL_VIOLATION), "a copy within a copy");
    let odd = answer(&with_fec(), |writer, number| {
        writer.begin_repair(number + 10, &[(number + 9, number + 9)], (0, 1), 1).unwrap().fill(0x3f);
    });
    assert_eq!(odd, Some(FRAME_ENCODING), "an unknown frame in a symbol");
}
