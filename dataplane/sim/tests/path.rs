//! What connections make of their network path: how large packets become. The figures are printed.

use std::time::Duration;

use bytes::Bytes;
use quantum::{ConnectionStats, EcnState, EndpointConfig, Event, PathConfig, Read, StreamId, Time};
use quantum_sim::{Cipher, EcnEffects, LinkConfig, Pair};

const RATE: u64 = 20_000_000;

/// A client that sends as much as it can on one stream.
struct Bulk {
    pair: Pair,
    id: StreamId,
    chunk: Bytes,
    /// Bytes that the server has read.
    bytes: u64,
}

impl Bulk {
    fn new(link: &LinkConfig, config: &EndpointConfig, seed: u64) -> Self {
        let mut pair = Pair::new(link, config, seed, Cipher::Null).expect("the link makes sense");
        let limit = pair.now() + Duration::from_secs(30);
        let mut connected = 0;
        while connected < 2 {
            pair.step(limit, |_, _, event| connected += u32::from(matches!(event, Event::Connected { .. })));
            assert!(pair.now() < limit, "no connection");
        }
        let id = pair.client().open().expect("a stream is allowed");
        Self { pair, id, chunk: Bytes::from(vec![7; 64 << 10]), bytes: 0 }
    }

    /// Sends for so long; gives the bits per second that were read.
    fn run(&mut self, time: Duration) -> f64 {
        let (end, before) = (self.pair.now() + time, self.bytes);
        let (id, chunk, bytes) = (self.id, self.chunk.clone(), &mut self.bytes);
        let fill = |pair: &mut Pair| while pair.client().write(id, &mut chunk.clone()).expect("it is open") > 0 {};
        fill(&mut self.pair);
        while self.pair.now() < end {
            self.pair.step(end, |pair, is_server, event| match (is_server, event) {
                (false, Event::StreamWritable(_)) => fill(pair),
                (true, Event::StreamOpened(id) | Event::StreamReadable(id)) => {
                    let mut server = pair.server().expect("it has a stream");
                    while let Read::Data(data) = server.read(id, usize::MAX) {
                        *bytes += data.len() as u64;
                    }
                }
                (_, Event::Closed(reason)) => panic!("{reason}"),
                _ => {}
            });
        }
        (self.bytes - before) as f64 * 8.0 / time.as_secs_f64()
    }

    fn stats(&mut self) -> ConnectionStats {
        self.pair.client().stats()
    }
}

fn link(loss_percent: f64, mtu: usize) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(25),
        loss_percent,
        rate_bits_per_s: Some(RATE),
        mtu: Some(mtu),
        ..LinkConfig::default()
    }
}

fn fixed(datagram_size: u16) -> EndpointConfig {
    let path = PathConfig { datagram_size, datagram_size_max: datagram_size, ..PathConfig::default() };
    EndpointConfig { path, ..EndpointConfig::default() }
}

#[test]
fn bulk_data_finds_the_size_of_the_path_and_gains_by_it() {
    let rates = [fixed(1200), EndpointConfig::default()].map(|config| {
        let mut bulk = Bulk::new(&link(0.0, 1472), &config, 1);
        let first = bulk.run(Duration::from_secs(1));
        let rate = bulk.run(Duration::from_secs(10));
        let (stats, per_packet) = (bulk.stats(), bulk.pair.link_stats());
        println!(
            "packets of {} bytes: {:.2} Mbit/s ({:.1} % of the link) after {:.2} in the first second; {} lost; {:.0} bytes each",
            stats.path.datagram_size,
            rate / 1e6,
            rate / RATE as f64 * 100.0,
            first / 1e6,
            stats.packets_lost,
            per_packet.bytes_sent as f64 / per_packet.sent as f64
        );
        (rate, stats)
    });
    assert_eq!(rates[0].1.path.datagram_size, 1200);
    assert_eq!(rates[1].1.path.datagram_size, 1472);
    assert!(rates[1].0 > rates[0].0 * 1.005, "{rates:?}");
    // Of a link that counts UDP payload, 1472 bytes carry 54 of ours.
    assert!(rates[1].0 > RATE as f64 * 0.945, "{rates:?}");
}

#[test]
fn narrow_paths_are_found_to_a_few_bytes_and_probes_are_no_congestion() {
    for mtu in [1200, 1252, 1392, 1420, 1452, 1464, 1472] {
        let mut bulk = Bulk::new(&link(0.0, mtu), &EndpointConfig::default(), 2);
        let rate = bulk.run(Duration::from_secs(8));
        let stats = bulk.stats();
        let found = usize::from(stats.path.datagram_size);
        let dropped = bulk.pair.link_stats().dropped_mtu;
        println!("a path of {mtu} bytes: {found} found, {dropped} probes lost, {:.2} Mbit/s", rate / 1e6);
        assert!(found <= mtu && mtu - found < 16, "{found} of {mtu}");
        assert!(
            dropped <= 18 && stats.path.black_holes == 0 && stats.congestion.persistent_congestions == 0,
            "{dropped} {stats:?}"
        );
        assert!(rate > RATE as f64 * 0.85, "{rate}");
    }
}

#[test]
fn paths_that_lose_packets_hide_their_size_no_longer() {
    for (loss, seed) in [(1.0, 1), (5.0, 2), (10.0, 3), (10.0, 4), (30.0, 5)] {
        let mut bulk = Bulk::new(&link(loss, 1472), &EndpointConfig::default(), seed);
        let rate = bulk.run(Duration::from_secs(10));
        let stats = bulk.stats();
        println!("{loss} % loss: {:?}, {:.2} Mbit/s", stats.path, rate / 1e6);
        assert!(stats.path.datagram_size > 1440, "{stats:?}");
    }
}

#[test]
fn a_path_that_becomes_narrow_is_a_black_hole_for_a_moment_only() {
    for (seed, loss) in [(1, 0.0), (2, 0.0), (3, 5.0), (4, 10.0)] {
        let mut bulk = Bulk::new(&link(loss, 1472), &EndpointConfig::default(), seed);
        bulk.run(Duration::from_secs(3));
        assert_eq!(bulk.stats().path.datagram_size, 1472);
        bulk.pair.set_mtu(1300);
        let hole = bulk.run(Duration::from_secs(1));
        let after = bulk.run(Duration::from_secs(10));
        let stats = bulk.stats();
        println!(
            "seed {seed}, {loss} % loss: {:.2} Mbit/s in the second after, then {:.2}; {:?}, {} probe timeouts",
            hole / 1e6,
            after / 1e6,
            stats.path,
            stats.probe_timeouts
        );
        let found = stats.path.datagram_size;
        assert!(stats.path.black_holes >= 1 && (1284..=1300).contains(&found), "{:?}", stats.path);
        assert!(after > RATE as f64 * 0.75, "{after}");
    }
}

#[test]
fn short_messages_send_no_probes() {
    let mut bulk = Bulk::new(&link(0.0, 1472), &EndpointConfig::default(), 1);
    let until = bulk.pair.now() + Duration::from_secs(5);
    let mut next: Time = bulk.pair.now();
    while bulk.pair.now() < until {
        if next <= bulk.pair.now() {
            let id = bulk.id;
            bulk.pair.client().write(id, &mut Bytes::from_static(&[1; 256])).expect("the stream is open");
            next += Duration::from_millis(20);
        }
        bulk.pair.step(next, |_, _, _| {});
    }
    let stats = bulk.stats();
    assert_eq!(stats.path.datagram_size, 1200);
    let sent = bulk.pair.link_stats();
    assert!(sent.bytes_sent < sent.sent * 800, "{sent:?}");
}

/// Sends for so long over a link that does this with ECN bits.
fn with_ecn(ecn: EcnEffects, loss_percent: f64, seconds: u64, seed: u64) -> (f64, ConnectionStats, Bulk) {
    let link = LinkConfig { ecn, ..link(loss_percent, 1472) };
    let mut bulk = Bulk::new(&link, &EndpointConfig::default(), seed);
    let rate = bulk.run(Duration::from_secs(seconds));
    let stats = bulk.stats();
    println!("{ecn:?}, {loss_percent} % loss: {:?}, {:.2} Mbit/s", stats.path, rate / 1e6);
    (rate, stats, bulk)
}

#[test]
fn a_path_that_carries_marks_is_found_capable_at_any_loss() {
    for (loss, seed) in [(0.0, 1), (1.0, 2), (5.0, 3), (10.0, 4), (10.0, 5), (30.0, 6)] {
        let (_, stats, _) = with_ecn(EcnEffects::default(), loss, 5, seed);
        assert_eq!((stats.path.ecn, stats.path.congestion_marks), (EcnState::Capable, 0));
    }
}

#[test]
fn congestion_marks_are_counted_exactly_and_heeded() {
    // A queue of a tenth of what the path holds: STARTUP fills it.
    let marking = EcnEffects { mark_above_bytes: Some(12_500), ..EcnEffects::default() };
    for (loss, seed) in [(0.0, 1), (5.0, 2)] {
        let (rate, _, mut bulk) = with_ecn(marking, loss, 5, seed);
        // The last reports arrive.
        let until = bulk.pair.now() + Duration::from_secs(1);
        while bulk.pair.now() < until {
            bulk.pair.step(until, |_, _, _| {});
        }
        let (stats, link) = (bulk.stats(), bulk.pair.link_stats());
        println!(
            "{} marked by the link, {} told; {} lost",
            link.queue.marked, stats.path.congestion_marks, stats.packets_lost
        );
        assert!(link.queue.marked > 0 && stats.path.ecn == EcnState::Capable, "{link:?} {:?}", stats.path);
        assert!(rate > RATE as f64 * 0.75, "{rate}");
        if loss == 0.0 {
            assert_eq!(stats.path.congestion_marks, link.queue.marked);
        }
    }
}

#[test]
fn a_path_that_clears_marks_is_found_out_and_sent_none() {
    let clearing = EcnEffects { clears: true, ..EcnEffects::default() };
    for (loss, seed) in [(0.0, 1), (10.0, 2)] {
        let (rate, stats, _) = with_ecn(clearing, loss, 5, seed);
        assert_eq!(stats.path.ecn, EcnState::Failed);
        assert!(rate > RATE as f64 * 0.7, "{rate}");
    }
}

#[test]
fn a_path_that_drops_marked_packets_costs_a_probe_timeout_and_no_more() {
    let dropping = EcnEffects { drops: true, ..EcnEffects::default() };
    for (loss, seed) in [(0.0, 1), (10.0, 2)] {
        let (rate, stats, bulk) = with_ecn(dropping, loss, 5, seed);
        assert_eq!(stats.path.ecn, EcnState::Failed);
        let dropped = bulk.pair.link_stats().dropped_ecn;
        println!("{dropped} dropped, {} probe timeouts", stats.probe_timeouts);
        assert!((1..=32).contains(&dropped), "{dropped}");
        assert!(rate > RATE as f64 * 0.65, "{rate}");
    }
}

#[test]
fn a_side_that_only_acknowledges_is_heard_where_marked_packets_are_dropped() {
    let ecn = EcnEffects { drops: true, ..EcnEffects::default() };
    let mut bulk = Bulk::new(&LinkConfig { ecn, ..link(0.0, 1472) }, &EndpointConfig::default(), 1);
    // Too little for the server to say anything about its windows.
    bulk.chunk = Bytes::from_static(&[7; 100]);
    for _ in 0..200 {
        let (id, mut message) = (bulk.id, bulk.chunk.clone());
        bulk.pair.client().write(id, &mut message).expect("it is open");
        let until = bulk.pair.now() + Duration::from_millis(50);
        while bulk.pair.now() < until {
            bulk.pair.step(until, |_, _, event| assert!(!matches!(event, Event::Closed(_)), "{event:?}"));
        }
    }
    let (sent, acknowledgements) = (bulk.pair.link_stats(), bulk.pair.link_stats_to_clients());
    println!("to the server {sent:?}, to the client {acknowledgements:?}");
    assert!(acknowledgements.sent > 100, "the server acknowledges");
    assert!(acknowledgements.dropped_ecn <= 2, "{acknowledgements:?}");
    assert!(bulk.stats().probe_timeouts <= 10, "{}", bulk.stats().probe_timeouts);
}

#[test]
fn marks_can_be_turned_off() {
    let path = PathConfig { ecn: false, ..PathConfig::default() };
    let mut bulk = Bulk::new(&link(0.0, 1472), &EndpointConfig { path, ..EndpointConfig::default() }, 1);
    bulk.run(Duration::from_secs(1));
    assert_eq!(bulk.stats().path.ecn, EcnState::Off);
}
