//! A hostile peer that seals whatever it likes: frames of all kinds with odd values, cut, flipped, in any order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::net::{CLIENT, Net, RTT, SERVER, address, with_fec};
use crate::connection::forge::Forged;
use crate::wire::{Epoch, Flags, FrameWriter};
use crate::{CloseReason, ConnectionHandle, EndpointConfig, Event, Side, StreamId};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use rand::{Rng, RngCore, SeedableRng};

/// Payloads in all.
const PAYLOADS: u32 = 100_000;

fn settings() -> EndpointConfig {
    EndpointConfig { stream_window: 4_000, connection_window: 16_000, streams_max: 20, ..with_fec() }
}

/// A number, rarely one at the border of something.
fn odd(rng: &mut StdRng) -> u64 {
    const BORDERS: [u64; 12] = [0, 1, 63, 64, 3_999, 4_000, 4_001, 16_000, 16_384, 1 << 60, 1 << 61, (1 << 62) - 1];
    match rng.random_range(0..100) {
        0 => *BORDERS.choose(rng).unwrap(),
        1..20 => rng.random_range(0..4_000),
        _ => rng.random_range(0..600),
    }
}

/// A stream that the attacker may open, rarely another.
fn stream(rng: &mut StdRng, attacker: Side) -> StreamId {
    match rng.random_range(0..400) {
        0 => StreamId(odd(rng)),
        1 => StreamId::new(attacker, 18 + rng.random_range(0..40)),
        _ => StreamId::new(attacker, rng.random_range(0..18)),
    }
}

/// Writes a frame with odd values. `last` is the largest number that the victim has sent, `own` that of the packet.
fn frame(rng: &mut StdRng, writer: &mut FrameWriter<'_>, (last, own): (u64, u64), attacker: Side) {
    let id = stream(rng, attacker);
    // A frame that does not fit is left out.
    let _ = match rng.random_range(0..23) {
        0 => writer.ping(),
        20 | 21 => {
            let mut symbol = vec![0; rng.random_range(0..200)];
            let mut inner = FrameWriter::new(&mut symbol);
            frame(rng, &mut inner, (last, own), attacker);
            let len = inner.written();
            // A packet that never came, alone or with others; the symbol is right if it is alone.
            let members = [(own.saturating_sub(2), own.saturating_sub(rng.random_range(1..=2)))];
            let repairs = rng.random_range(1..=4);
            let out = writer.begin_repair(own, &members, (rng.random_range(0..repairs), repairs), len);
            out.map(|out| out.copy_from_slice(&symbol[..len])).is_some()
        }
        22 => writer.recovered(&[(last.saturating_sub(odd(rng)), last)]),
        1 => writer.reset_stream(id, odd(rng), 4_000 - odd(rng).min(3)),
        2 => writer.stop_sending(id, odd(rng)),
        3 => writer.max_data(odd(rng)),
        4 => writer.max_stream_data(id, odd(rng)),
        5 => writer.max_streams(odd(rng)),
        6 => writer.data_blocked(odd(rng)),
        7 => writer.stream_data_blocked(id, odd(rng)),
        8 => writer.streams_blocked(odd(rng)),
        9 => {
            let (mut above, mut ranges) = (last + 2, Vec::new());
            while above > 2 && ranges.len() < 300 {
                let end = above - 2 - rng.random_range(0..(above - 2).min(5));
                let start = end - rng.random_range(0..end.min(5));
                ranges.push(start..=end);
                above = start;
            }
            writer.ack(ranges, odd(rng), None) > 0
        }
        _ => {
            let (offset, len, fin) = (odd(rng).min(1 << 61), rng.random_range(0..200), rng.random_range(0..40) == 0);
            writer.begin_stream(id, offset, len, fin).map(|place| place.fill(7)).is_some()
        }
    };
}

/// A payload: odd frames, some of them cut or flipped; or random bytes.
fn payload(rng: &mut StdRng, numbers: (u64, u64), attacker: Side) -> Vec<u8> {
    let mut buffer = vec![0; 1_100];
    if rng.random_range(0..500) == 0 {
        buffer.truncate(rng.random_range(0..200));
        rng.fill_bytes(&mut buffer);
        return buffer;
    }
    let mut writer = FrameWriter::new(&mut buffer);
    for _ in 0..rng.random_range(1..6) {
        frame(rng, &mut writer, numbers, attacker);
    }
    let written = writer.written();
    buffer.truncate(written);
    match rng.random_range(0..500) {
        0 => buffer.truncate(rng.random_range(0..=written)),
        1 if written > 0 => buffer[rng.random_range(0..written)] ^= 1 << rng.random_range(0..8),
        _ => {}
    }
    buffer
}

/// SACK blocks, mostly possible ones, and the number that they acknowledge.
fn blocks(rng: &mut StdRng, last: u64) -> (u32, Vec<(u32, u32)>) {
    let mut blocks = Vec::new();
    let mut above = last as u32 + 2;
    while above > 3 && blocks.len() < rng.random_range(1..=8) {
        let end = above - 2 - rng.random_range(0..(above - 2).min(4));
        let start = end - rng.random_range(0..end.min(4));
        blocks.push((start, end));
        above = start;
    }
    if rng.random_range(0..500) == 0
        && let Some(block) = blocks.choose_mut(rng)
    {
        *block = (rng.random(), rng.random());
    }
    (blocks.first().map_or(0, |block| block.1.wrapping_add(1)), blocks)
}

fn forged(rng: &mut StdRng, last: u64, next: u64, attacker: Side) -> Forged {
    let mut forged = Forged::frames(Epoch::OneRtt0, &payload(rng, (last, next), attacker));
    if rng.random() {
        (forged.ack, forged.blocks) = blocks(rng, last);
        let has = !forged.blocks.is_empty() || rng.random_range(0..500) == 0;
        forged.flags = if has { Flags::ACK } else { Flags::NONE };
    }
    if rng.random_range(0..10) == 0 {
        forged.flags |= Flags::from_bits(rng.random::<u8>() & !(Flags::ACK | Flags::RST).bits());
    }
    if rng.random_range(0..4) == 0 {
        forged.number = Some(next + rng.random_range(0..5));
    }
    forged
}

/// What the victim's application does: reads some, writes some, stops and resets some.
fn work(net: &mut Net, victim: usize, handle: ConnectionHandle, rng: &mut StdRng) {
    let events = std::mem::take(&mut net.nodes[victim].events);
    let Some(mut connection) = net.nodes[victim].endpoint.connection(handle) else {
        net.nodes[victim].events = events;
        return;
    };
    for (_, event) in &events {
        if let Event::StreamReadable(id) | Event::StreamOpened(id) | Event::StreamWritable(id) = *event {
            match rng.random_range(0..5) {
                0 => connection.stop(id, 1),
                1 => connection.reset(id, 1),
                2 => drop(connection.finish(id)),
                3 => drop(connection.write(id, &mut Bytes::from_static(&[1; 3_000]))),
                _ => drop(connection.read(id, 10_000)),
            }
        }
    }
    if rng.random_range(0..10) == 0 {
        let _ = connection.open();
    }
    let streams = connection.stats().streams;
    assert!(streams.receive_buffered_bytes <= 20 * 4_000 + 16_000, "more than the windows allow: {streams:?}");
    assert!(streams.live <= 2_000, "{streams:?}");
    drop(connection);
    net.nodes[victim].events.extend(events.into_iter().filter(|event| matches!(event.1, Event::Closed(_))));
}

/// Attacks one node by the other's keys until enough payloads were sent. Gives how connections ended.
fn attack(victim: usize, seed: u64, payloads: u32) -> BTreeMap<u64, u32> {
    let attacker = if victim == SERVER { CLIENT } else { SERVER };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ends = BTreeMap::new();
    let mut sent = 0;
    while sent < payloads {
        let (mut net, client, server) = Net::connected(&settings());
        net.hook = Box::new(|_| Vec::new());
        let (own, theirs) = if victim == SERVER { (client, server) } else { (server, client) };
        while sent < payloads && net.closed(victim).is_none() {
            sent += 1;
            let Some(target) = net.nodes[victim].endpoint.slots.get(theirs) else { break };
            let last = target.next_number() - 1;
            let source = net.nodes[attacker].endpoint.slots.get_mut(own).expect("it hears nothing and stays");
            let forged = forged(&mut rng, last, source.next_number(), source.id().side);
            let data = source.forge(&forged).expect("it is connected");
            net.hand(victim, address(attacker), &data);
            net.run_for(Duration::from_micros(rng.random_range(0..300)));
            work(&mut net, victim, theirs, &mut rng);
            net.log.clear();
        }
        match net.closed(victim) {
            Some(CloseReason::Transport { code, .. } | CloseReason::Peer { code, .. }) => {
                *ends.entry(code).or_insert(0) += 1;
            }
            None => {}
            other => panic!("{other:?}"),
        }
        net.run_for(RTT * 500);
        assert!(net.closed(victim).is_none() || net.nodes[victim].endpoint.is_idle(), "what ended is forgotten");
    }
    ends
}

#[test]
fn no_frames_of_a_hostile_client_break_a_server() {
    let ends = attack(SERVER, 1, PAYLOADS / 2);
    println!("{ends:?}");
    for code in [0x3, 0x5, 0x6, 0x7, 0xa] {
        assert!(ends.contains_key(&code), "the fuzz reaches {code:#x}: {ends:?}");
    }
}

#[test]
fn no_frames_of_a_hostile_server_break_a_client() {
    let ends = attack(CLIENT, 2, PAYLOADS / 2);
    println!("{ends:?}");
    for code in [0x3, 0x5, 0x6, 0x7, 0xa] {
        assert!(ends.contains_key(&code), "the fuzz reaches {code:#x}: {ends:?}");
    }
}
