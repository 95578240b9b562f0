//! Peers and paths that say too little, and strangers who say anything.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::net::{CLIENT, DELAY, Net, RTT, SERVER, Segment, address, config};
use crate::wire::{Epoch, Flags, HEADER_LEN};
use crate::{CloseReason, ConnectionHandle, EndpointConfig, Guuid, SecurityConfig};

/// What an endpoint counts of datagrams that change nothing.
fn counted(net: &Net, place: usize) -> u64 {
    let stats = net.nodes[place].endpoint.stats();
    stats.malformed + stats.wrong_version + stats.unauthenticated + stats.unknown + stats.duplicates + stats.dropped
}

/// Hands every variant of a packet with one byte changed to its receiver. Gives how many there were.
fn corrupt_every_byte(net: &mut Net, segment: &Segment) -> u64 {
    let place = if segment.is_to_server() { SERVER } else { CLIENT };
    let before = (counted(net, place), net.nodes[place].events.len());
    let mut variants = 0;
    for at in 0..segment.data.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut data = segment.data.clone();
            data[at] ^= change;
            net.hand(place, segment.from, &data);
            variants += 1;
        }
    }
    let missed = before.0 + variants - counted(net, place);
    // A flipped bit of the id may name nobody: that SYN would be another client's, but for the keys derived from the id.
    assert_eq!(missed, 0, "each is counted once, in {:?}", segment.header());
    assert_eq!(net.nodes[place].events.len(), before.1);
    variants
}

#[test]
fn a_packet_with_any_one_byte_changed_changes_nothing() {
    let (mut net, client, server) = Net::connected(&config());
    // Losses, so that the packets have blocks and frames of all kinds.
    let lost = Rc::new(RefCell::new(Vec::new()));
    let (mut nth, kept) = (0, Rc::clone(&lost));
    net.hook = Box::new(move |segment| {
        nth += 1;
        if nth % 3 == 0 {
            kept.borrow_mut().push(segment);
            return Vec::new();
        }
        vec![segment]
    });
    let up = net.write(CLIENT, client, &vec![1; 30_000]);
    let down = net.write(SERVER, server, &vec![2; 30_000]);
    net.run_for(RTT * 4);
    let segments: Vec<Segment> = lost.take();
    let with_blocks =
        |segment: &&Segment| segment.data.len() >= HEADER_LEN + 8 + usize::from(segment.header().payload_len);
    assert!(segments.iter().filter(with_blocks).count() >= 2, "{}", segments.len());
    let mut variants = 0;
    for segment in segments.iter().filter(|segment| segment.epoch() == Epoch::OneRtt0).take(8) {
        variants += corrupt_every_byte(&mut net, segment);
    }
    assert!(variants > 3_000, "{variants}");
    // The originals count all the same, and everything arrives.
    for segment in segments {
        net.inject(segment);
    }
    net.hook = Box::new(|segment| vec![segment]);
    let mut got = [0, 0];
    let all = net.wait_for(Duration::from_secs(20), |net| {
        got[0] += net.read(SERVER, server, up).len();
        got[1] += net.read(CLIENT, client, down).len();
        got == [30_000, 30_000]
    });
    assert!(all, "{got:?}");
}

#[test]
fn a_handshake_with_every_byte_of_every_packet_corrupted_completes_all_the_same() {
    let mut net = Net::new(&config());
    let client = net.connect(CLIENT);
    // Before each packet come all the variants of it.
    net.hook = Box::new(|segment| {
        let changed = (0..segment.data.len()).map(|at| {
            let mut data = segment.data.clone();
            data[at] ^= 0x10;
            Segment { data, ..segment.clone() }
        });
        changed.chain([segment.clone()]).collect()
    });
    net.run_for(RTT * 4);
    let server = net.server_handle().expect("it is connected");
    net.hook = Box::new(|segment| vec![segment]);
    assert!(net.is_connected(CLIENT) && net.delivers(client, server));
    // A changed id is another client's: those wait for the rest of their hellos, and no longer.
    net.run_for(Duration::from_secs(15));
    assert_eq!(net.nodes[SERVER].endpoint.stats().handshakes, 0);
    assert_eq!(net.nodes[SERVER].endpoint.stats().connections, 1);
}

/// Without keys nobody acknowledges, closes or aborts anything: such packets change a counter.
#[test]
fn forged_acknowledgements_closes_and_resets_change_a_counter() {
    let (mut net, client, server) = Net::connected(&config());
    net.write(CLIENT, client, &[1; 5_000]);
    net.run_for(RTT * 2);
    let last = |to_server: bool| {
        net.log.iter().rev().find(|(_, it)| it.is_to_server() == to_server).map(|(_, it)| it.data.clone()).unwrap()
    };
    let (to_server, to_client) = (last(true), last(false));
    for (place, packet) in [(SERVER, to_server), (CLIENT, to_client)] {
        let from = if place == SERVER { address(CLIENT) } else { address(SERVER) };
        let before = counted(&net, place);
        for (nth, flags) in
            (0..1_000_u32).zip([Flags::ACK, Flags::FIN, Flags::RST, Flags::ACK | Flags::FIN].iter().cycle())
        {
            let mut forged = packet.clone();
            forged[5] = flags.bits();
            forged[22..26].copy_from_slice(&(50_000 + nth).to_be_bytes());
            forged[26..30].copy_from_slice(&nth.to_be_bytes());
            net.hand(place, from, &forged);
        }
        assert_eq!(counted(&net, place), before + 1_000);
    }
    assert!(net.closed(CLIENT).is_none() && net.closed(SERVER).is_none());
    assert!(net.delivers(client, server));
}

/// Who does not see the connection's id has 74 random bits to guess.
#[test]
fn guessing_ids_finds_nothing_and_is_answered_at_a_limited_rate() {
    let (mut net, client, server) = Net::connected(&config());
    let real = net.log.iter().rev().find(|(_, it)| it.is_to_server()).map(|(_, it)| it.data.clone()).unwrap();
    let before = net.nodes[SERVER].endpoint.stats();
    let guuid = net.nodes[CLIENT].endpoint.connection(client).unwrap().guuid();
    let mut bytes = *guuid.as_bytes();
    for nth in 0..50_000_u64 {
        // The time and the counter known, everything else guessed.
        bytes[8..].copy_from_slice(&(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63).to_be_bytes());
        let mut guess = real.clone();
        guess.resize(200, 7);
        guess[30..32].copy_from_slice(&168_u16.to_be_bytes());
        guess[5] = 0;
        guess[6..22].copy_from_slice(&bytes);
        net.hand(SERVER, super::net::address(7), &guess);
        if nth % 1_000 == 0 {
            net.run_for(Duration::from_millis(1));
        }
    }
    let stats = net.nodes[SERVER].endpoint.stats();
    assert_eq!(stats.unknown - before.unknown, 50_000, "{stats:?}");
    assert!(stats.connections == 1 && stats.handshakes == 0, "{stats:?}");
    assert!(stats.resets_sent - before.resets_sent < 2_000, "{stats:?}");
    assert!(Guuid(bytes) != guuid && net.delivers(client, server));
}

/// A hello in ever so small parts, or half of one and signs of life: it ends when its time is over.
#[test]
fn a_handshake_that_trickles_in_ends_after_its_limit() {
    let settings = EndpointConfig {
        security: SecurityConfig { handshake_timeout: Duration::from_secs(3), ..SecurityConfig::default() },
        ..config()
    };
    let mut net = Net::new(&settings);
    // The server gets nothing but the first half, again and again, from a client that does not end.
    net.hook = Box::new(|segment| if segment.is_to_server() { Vec::new() } else { vec![segment] });
    net.connect(CLIENT);
    net.run_for(Duration::ZERO);
    let hello: Vec<Segment> = net.log.iter().map(|(_, segment)| segment.clone()).collect();
    assert_eq!(hello.len(), 2);
    let mut seen = 0;
    for _ in 0..60 {
        net.hand(SERVER, address(CLIENT), &hello[0].data);
        net.run_for(Duration::from_millis(100));
        seen = seen.max(net.nodes[SERVER].endpoint.stats().handshakes);
    }
    // Its time was over once; the id then counts as used, and the same half opens nothing.
    assert_eq!(seen, 1);
    net.run_for(Duration::from_secs(4));
    assert!(net.nodes[SERVER].endpoint.is_idle(), "{:?}", net.nodes[SERVER].endpoint.stats());
    assert_eq!(net.closed(CLIENT), Some(CloseReason::HandshakeTimeout));
}

#[test]
fn a_path_that_turns_into_a_blackhole_ends_in_a_timeout_and_few_packets() {
    let (mut net, client, server) = Net::connected(&config());
    let id = net.write(CLIENT, client, &vec![1; 300_000]);
    net.run_for(RTT * 3);
    net.read(SERVER, server, id);
    net.hook = Box::new(|_| Vec::new());
    let sent = net.log.len();
    net.run_for(Duration::from_secs(61));
    assert_eq!(net.closed(CLIENT), Some(CloseReason::IdleTimeout));
    assert_eq!(net.closed(SERVER), Some(CloseReason::IdleTimeout));
    assert!(net.nodes.iter().all(|node| node.endpoint.is_idle()));
    let late = net.log[sent..].iter().filter(|(at, _)| net.now - *at < Duration::from_secs(50)).count();
    assert!(late < 60, "probes back off: {late} packets in 50 s");
}

#[test]
fn a_blackhole_of_ten_seconds_is_survived() {
    let (mut net, client, server) = Net::connected(&config());
    let data = vec![3; 200_000];
    let id = net.write(CLIENT, client, &data);
    net.run_for(RTT * 2);
    net.hook = Box::new(|_| Vec::new());
    net.run_for(Duration::from_secs(10));
    net.hook = Box::new(|segment| vec![segment]);
    let mut got = 0;
    let all = net.wait_for(Duration::from_secs(15), |net| {
        got += net.read(SERVER, server, id).len();
        got == data.len()
    });
    assert!(all, "{got} bytes");
}

/// The shape of RUSTSEC-2024-0373 (quinn-proto panicked when it answered odd first packets by a retry): cookies of any kind.
#[test]
fn no_cookie_of_any_length_or_number_breaks_a_server() {
    use crate::wire::FrameWriter;
    for demanded in [true, false] {
        let settings = EndpointConfig {
            security: SecurityConfig {
                handshakes_without_cookie: if demanded { 0 } else { 256 },
                ..SecurityConfig::default()
            },
            ..config()
        };
        for (nth, lens) in
            (0..66_usize).map(|len| vec![len]).chain([vec![20, 20], vec![1, 64, 1], vec![0, 0]]).enumerate()
        {
            let mut net = Net::new(&settings);
            net.hook = Box::new(|_| Vec::new());
            let client = net.connect(CLIENT);
            let mut payload = vec![0; 1_152];
            let mut at = 0;
            for &len in &lens {
                // A length beyond 64 is one that no writer writes.
                payload[at] = 7;
                payload[at + 1] = len.min(63) as u8;
                at += 2 + len;
            }
            let mut writer = FrameWriter::new(&mut payload[at..]);
            let hello = vec![1; 300];
            writer.begin_crypto(0, hello.len()).unwrap().copy_from_slice(&hello);
            let forged = crate::connection::forge::Forged::frames(Epoch::Initial, &payload);
            let source = net.nodes[CLIENT].endpoint.slots.get_mut(client).unwrap();
            let data = source.forge(&forged).unwrap();
            for _ in 0..3 {
                net.hand(SERVER, address(CLIENT), &data);
                net.run_for(Duration::from_millis(1));
            }
            let stats = net.nodes[SERVER].endpoint.stats();
            assert!(!demanded || stats.connections == 0 && stats.cookies_sent > 0 || lens[0] == 0, "{nth} {stats:?}");
            net.run_for(Duration::from_secs(30));
            assert!(net.nodes[SERVER].endpoint.is_idle(), "{lens:?}");
        }
    }
}

/// An address that changes in the middle: packets that open are taken in, and the connection ends in silence or goes on.
#[test]
fn a_client_whose_address_changes_never_hangs() {
    let (mut net, client, server) = Net::connected(&config());
    let elsewhere = address(9);
    net.hook = Box::new(move |segment| {
        if segment.is_to_server() {
            vec![Segment { from: elsewhere, ..segment }]
        } else if segment.to == elsewhere {
            // The translator's new mapping leads to the client.
            vec![Segment { to: address(CLIENT), ..segment }]
        } else {
            Vec::new()
        }
    });
    let id = net.write(CLIENT, client, b"from elsewhere");
    net.run_for(DELAY * 2);
    assert_eq!(net.read(SERVER, server, id), b"from elsewhere", "packets that open are taken in");
    net.run_for(Duration::from_secs(200));
    let goes_on = net.closed(CLIENT).is_none() && net.closed(SERVER).is_none();
    let is_over = |place: usize| net.closed(place) == Some(CloseReason::IdleTimeout);
    assert!(goes_on || is_over(CLIENT) && is_over(SERVER), "{:?} {:?}", net.closed(CLIENT), net.closed(SERVER));
    let _: (ConnectionHandle, ConnectionHandle) = (client, server);
}
