//! Bytes from outside that are no packets, or once were: they change counters.

use std::time::Duration;

use super::net::{CLIENT, Net, RTT, SERVER, address, config};
use crate::ConnectionHandle;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

/// Datagrams of each test.
const DATAGRAMS: u64 = 300_000;

/// One that is none: random bytes, or a packet that was really sent, cut, flipped or of another version.
fn garbage(rng: &mut StdRng, real: &[Vec<u8>]) -> Vec<u8> {
    let mut data = real.choose(rng).unwrap().clone();
    match rng.random_range(0..6) {
        0 => {
            data.resize(rng.random_range(1..1_500), 0);
            rng.fill_bytes(&mut data);
        }
        1 => {
            // A header that is right, of this connection or another, before random bytes.
            let from = if rng.random() { 6 } else { 22 };
            rng.fill_bytes(&mut data[from..30]);
            rng.fill_bytes(&mut data[32..]);
        }
        2 => data.truncate(rng.random_range(1..data.len())),
        3 => {
            // With its own number it would be a duplicate for the most part.
            rng.fill_bytes(&mut data[22..26]);
            let bit = rng.random_range(0..data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
        }
        4 => {
            let version = (3 + rng.random_range(0..15)) % 16;
            data[4] = data[4] & 0xf0 | version;
        }
        _ => data.extend((0..rng.random_range(1..200)).map(|_| rng.random::<u8>())),
    }
    data
}

/// Datagrams that the node has taken some account of.
fn accounted(net: &mut Net, place: usize, handle: ConnectionHandle) -> u64 {
    let endpoint = &mut net.nodes[place].endpoint;
    let received = endpoint.connection(handle).map_or(0, |connection| connection.stats().packets_received);
    let stats = endpoint.stats();
    stats.malformed
        + stats.wrong_version
        + stats.unauthenticated
        + stats.unknown
        + stats.duplicates
        + stats.dropped
        + stats.refused
        + stats.cookies_sent
        + received
}

/// Throws garbage at a node whose one honest connection goes on.
fn bombard(place: usize, seed: u64) {
    let (mut net, client, server) = Net::connected(&config());
    net.write(CLIENT, client, &[3; 10_000]);
    net.run_for(RTT * 3);
    let to = address(place);
    let real: Vec<Vec<u8>> = net.log.iter().filter(|(_, it)| it.to == to).map(|(_, it)| it.data.clone()).collect();
    let handle = if place == SERVER { server } else { client };
    let from = if place == SERVER { address(CLIENT) } else { address(SERVER) };
    let mut rng = StdRng::seed_from_u64(seed);
    let before = accounted(&mut net, place, handle);
    let mut honest = 0;
    for nth in 1..=DATAGRAMS {
        let data = garbage(&mut rng, &real);
        net.hand(place, from, &data);
        if nth % 10_000 == 0 {
            net.log.clear();
            let received =
                |net: &mut Net| net.nodes[place].endpoint.connection(handle).unwrap().stats().packets_received;
            let earlier = received(&mut net);
            assert!(net.delivers(client, server), "the honest connection goes on");
            honest += received(&mut net) - earlier;
            net.run_for(Duration::from_millis(5));
        } else if nth % 16 == 0 {
            net.now += Duration::from_micros(1);
            net.run_for(Duration::ZERO);
        }
    }
    let earlier = accounted(&mut net, place, handle);
    assert!(earlier - before - honest <= DATAGRAMS + 100, "{earlier} {before} {honest}");
    assert!(
        earlier - before - honest >= DATAGRAMS - 100,
        "every datagram is counted once: {earlier} {before} {honest}"
    );
    let endpoint = &net.nodes[place].endpoint;
    let stats = endpoint.stats();
    assert_eq!(stats.connections, 1, "{stats:?}");
    assert!(stats.malformed > 50_000 && stats.wrong_version > 40_000 && stats.unauthenticated > 20_000, "{stats:?}");
    assert!(endpoint.slots.len() == 1 && endpoint.timers.len() <= 1 && endpoint.stateless.is_empty());
    assert!(endpoint.transmitting.len() <= 1 && endpoint.eventful.len() <= 1);
    assert!(net.closed(CLIENT).is_none() && net.closed(SERVER).is_none());
    println!("node {place}: {stats:?}");
}

#[test]
fn garbage_changes_a_servers_counters_and_nothing_else() {
    bombard(SERVER, 1);
}

#[test]
fn garbage_changes_a_clients_counters_and_nothing_else() {
    bombard(CLIENT, 2);
}

#[test]
fn merged_segments_are_packets_of_their_own() {
    let (mut net, client, server) = Net::connected(&config());
    net.hook = Box::new(|_| Vec::new());
    let id = net.write(CLIENT, client, &[9; 3_000]);
    let sent = net.log.len();
    net.run_for(Duration::from_millis(1));
    let segments: Vec<Vec<u8>> =
        net.log[sent..].iter().filter(|(_, it)| it.is_to_server()).map(|(_, it)| it.data.clone()).collect();
    assert!(segments.len() >= 3 && segments[0].len() == segments[1].len());
    // The middle one is broken: the others count.
    let mut data = segments.concat();
    let size = segments[0].len();
    data[size + 100] ^= 1;
    let received =
        crate::Received { remote: address(CLIENT), local: None, ecn: 0, segment_size: size, data: &mut data };
    let before = net.nodes[SERVER].endpoint.stats().unauthenticated;
    net.nodes[SERVER].endpoint.handle_datagram(net.now, received);
    assert_eq!(net.nodes[SERVER].endpoint.stats().unauthenticated, before + 1);
    assert_eq!(net.read(SERVER, server, id).len(), 1_000_usize.max(size - 32 - 16 - 4).min(size), "up to the gap");
    net.hook = Box::new(|segment| vec![segment]);
    net.run_for(RTT * 5);
    let rest = net.read(SERVER, server, id);
    assert!(!rest.is_empty() && rest.iter().all(|&byte| byte == 9));
}
