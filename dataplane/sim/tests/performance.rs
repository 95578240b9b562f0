//! What the protocol achieves on paths that lose packets, in virtual time. The figures are printed.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use quantum::{ConnectionStats, EndpointConfig, Event, FecConfig, FecMode, Read, StreamId, Time};
use quantum_sim::{Burst, Cipher, LinkConfig, Pair, RandomOutage};

/// How long bulk transfers last.
const BULK: Duration = Duration::from_secs(10);

fn path(delay_ms: u64, loss_percent: f64, rate_bits_per_s: Option<u64>) -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(delay_ms), loss_percent, rate_bits_per_s, ..LinkConfig::default() }
}

/// A client and a server that are connected.
fn connected(link: &LinkConfig, config: &EndpointConfig, seed: u64) -> Pair {
    let mut pair = Pair::new(link, config, seed, Cipher::Null).expect("the link makes sense");
    let mut connected = 0;
    let limit = pair.now() + Duration::from_secs(30);
    while connected < 2 {
        pair.step(limit, |_, _, event| connected += u32::from(matches!(event, Event::Connected { .. })));
        assert!(pair.now() < limit, "no connection");
    }
    pair
}

/// Writes as much as is taken.
fn fill(pair: &mut Pair, id: StreamId, chunk: &Bytes) {
    while pair.client().write(id, &mut chunk.clone()).expect("the stream is open") > 0 {}
}

/// Sends on one stream for so long; gives the bits per second that were read, and how the connection looks then.
fn bulk(link: &LinkConfig, config: &EndpointConfig, seed: u64) -> (f64, ConnectionStats) {
    let mut pair = connected(link, config, seed);
    let chunk = Bytes::from(vec![7; 64 << 10]);
    let id = pair.client().open().expect("a stream is allowed");
    fill(&mut pair, id, &chunk);
    let (end, mut bytes) = (pair.now() + BULK, 0);
    while pair.now() < end {
        pair.step(end, |pair, is_server, event| match (is_server, event) {
            (false, Event::StreamWritable(id)) => fill(pair, id, &chunk),
            (true, Event::StreamOpened(id) | Event::StreamReadable(id)) => {
                let mut server = pair.server().expect("it has a stream");
                while let Read::Data(data) = server.read(id, usize::MAX) {
                    bytes += data.len() as u64;
                }
            }
            (_, Event::Closed(reason)) => panic!("{reason}"),
            _ => {}
        });
    }
    (bytes as f64 * 8.0 / BULK.as_secs_f64(), pair.client().stats())
}

/// Fills the path, is silent for ten seconds, and fills it again: the bits per second that were read in the first half second
/// of either.
fn restart(link: &LinkConfig) -> [f64; 2] {
    let mut pair = connected(link, &EndpointConfig::default(), 1);
    let chunk = Bytes::from(vec![7; 64 << 10]);
    let id = pair.client().open().expect("a stream is allowed");
    let (begin, span) = (pair.now(), Duration::from_millis(500));
    let starts = [begin, begin + Duration::from_secs(13)];
    let (mut bytes, mut next) = ([0; 2], 0);
    while pair.now() < starts[1] + span {
        if next < 2 && pair.now() >= starts[next] {
            fill(&mut pair, id, &chunk);
            next += 1;
        }
        let until = if next < 2 { starts[next] } else { starts[1] + span };
        pair.step(until, |pair, is_server, event| match (is_server, event) {
            (false, Event::StreamWritable(id)) if next == 2 || pair.now() < begin + Duration::from_secs(3) => {
                fill(pair, id, &chunk);
            }
            (true, Event::StreamOpened(id) | Event::StreamReadable(id)) => {
                let at = pair.now();
                let mut server = pair.server().expect("it has a stream");
                while let Read::Data(data) = server.read(id, usize::MAX) {
                    for (start, bytes) in starts.iter().zip(&mut bytes) {
                        *bytes += if (*start..*start + span).contains(&at) { data.len() as u64 } else { 0 };
                    }
                }
            }
            _ => {}
        });
    }
    bytes.map(|bytes| bytes as f64 * 8.0 / span.as_secs_f64())
}

/// What was learnt of the path before a pause holds after it: no second start from nothing.
#[test]
fn a_transfer_goes_on_at_full_rate_after_a_pause() {
    for loss_percent in [0.0, 5.0] {
        let [first, second] = restart(&path(25, loss_percent, Some(20_000_000)));
        println!("{loss_percent} %: {first} bit/s in the first half second, {second} after a pause");
        // Of the half second the first message takes one way of 25 ms.
        assert!(second >= 20e6 * (1.0 - loss_percent / 100.0) * 0.945 * 0.95 * 0.9, "{first} {second}");
    }
}

/// The share of a link's rate that bulk data gets, in percent: the least of three seeds.
fn share(link: &LinkConfig, config: &EndpointConfig) -> f64 {
    let rate = link.rate_bits_per_s.expect("the link has a rate") as f64;
    let mut least = 100.0_f64;
    for seed in 1..=3 {
        let (bits_per_s, stats) = bulk(link, config, seed);
        let share = bits_per_s / rate * 100.0;
        println!(
            "{:?} one way, {} % loss, {} Mbit/s, seed {seed}: {:.2} Mbit/s, {share:.1} %; RTT {:?}, {} of {} lost, {} probes",
            link.delay,
            link.loss_percent,
            rate / 1e6,
            bits_per_s / 1e6,
            stats.rtt_smoothed,
            stats.packets_lost,
            stats.packets_sent,
            stats.probe_timeouts
        );
        least = least.min(share);
    }
    least
}

#[test]
fn bulk_fills_a_path_without_loss_and_keeps_its_queue_short() {
    let link = path(25, 0.0, Some(20_000_000));
    assert!(share(&link, &EndpointConfig::default()) >= 90.0);
    let (_, stats) = bulk(&link, &EndpointConfig::default(), 4);
    assert!(stats.rtt_smoothed < Duration::from_millis(75), "{:?}", stats.rtt_smoothed);
}

/// Of the link's rate 5 % is lost, and of what arrives 3.5 % are headers and tags: 91.7 % is all that there is.
#[test]
fn bulk_fills_a_path_that_loses_one_packet_in_twenty() {
    assert!(share(&path(25, 5.0, Some(20_000_000)), &EndpointConfig::default()) >= 80.0);
    // Twice the delay: more is kept for sending again until a piece that was lost twice has come.
    assert!(share(&path(50, 5.0, Some(20_000_000)), &EndpointConfig::default()) >= 80.0);
}

/// Windows and send buffers grow to several times what they were at first.
#[test]
fn bulk_fills_a_path_that_holds_more_than_the_first_windows() {
    for (loss, least) in [(0.0, 90.0), (1.0, 85.0), (5.0, 80.0)] {
        let share = share(&path(25, loss, Some(100_000_000)), &EndpointConfig::default());
        assert!(share >= least, "{share} % at {loss} % loss");
    }
}

/// How long messages took, sorted, and how both ends of the connection look in the end.
struct Measured {
    times: Vec<Duration>,
    stats: [ConnectionStats; 2],
}

/// Small messages and their echoes.
struct Messages {
    per_second: u32,
    count: u32,
    size: usize,
}

impl Messages {
    /// Each message on a stream of its own, at its time whether or not others were answered; gives how long each took from when
    /// it was to be sent, sorted.
    fn run(&self, link: &LinkConfig, config: &EndpointConfig, seed: u64) -> Measured {
        let mut pair = connected(link, config, seed);
        let start = pair.now() + Duration::from_millis(500);
        let due = |nth: u32| start + Duration::from_secs(1) * nth / self.per_second;
        let end = due(self.count) + Duration::from_secs(5);
        let (mut sent, mut times, mut nth) = (HashMap::new(), Vec::new(), 0);
        while pair.now() < end && times.len() < self.count as usize {
            if nth < self.count && pair.now() >= due(nth) {
                let mut client = pair.client();
                let id = client.open().expect("streams are over when they are answered");
                let taken = client.write(id, &mut Bytes::from(vec![1; self.size]));
                assert_eq!(taken, Ok(self.size));
                client.finish(id).expect("it is open");
                sent.insert(id, due(nth));
                nth += 1;
            }
            let until = if nth < self.count { due(nth) } else { end };
            pair.step(until, |pair, is_server, event| match event {
                Event::StreamReadable(id) | Event::StreamOpened(id) if read(pair, is_server, id) => {
                    times.extend(sent.remove(&id).map(|sent: Time| pair.now() - sent));
                }
                Event::Closed(reason) => panic!("{reason}"),
                _ => {}
            });
        }
        assert_eq!(times.len(), self.count as usize, "every message is answered");
        times.sort();
        let stats = pair.client().stats();
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| percentile(&times, share));
        println!(
            "{}/s x {} B, {:?} one way, {} % loss, {:?}: p50 {p50:?}, p90 {p90:?}, p99 {p99:?}, p99.9 {p999:?}, max {:?}, {} B \
             and {:.2} packets sent per message; {} restored for the peer, {} symbols, {} of {} wasted, {} sent again",
            self.per_second,
            self.size,
            link.delay,
            link.loss_percent,
            config.fec.mode,
            times[times.len() - 1],
            stats.bytes_sent / u64::from(self.count),
            stats.packets_sent as f64 / f64::from(self.count),
            stats.fec.recovered_by_peer,
            stats.fec.repairs_sent,
            stats.fec.wasted,
            stats.fec.repairs_received,
            stats.retransmissions
        );
        let server = pair.server().expect("it is connected").stats();
        Measured { times, stats: [stats, server] }
    }
}

/// Reads what has come of a message; the server echoes it. Whether its end was read at the client.
fn read(pair: &mut Pair, is_server: bool, id: StreamId) -> bool {
    let mut connection = if is_server { pair.server().expect("it has a stream") } else { pair.client() };
    loop {
        match connection.read(id, usize::MAX) {
            Read::Data(mut data) if is_server => {
                connection.write(id, &mut data).expect("nobody stops it");
            }
            Read::Data(_) => {}
            Read::Finished if is_server => {
                // The event that told of data may come after the end was read: then it is finished already.
                let _ = connection.finish(id);
                return false;
            }
            Read::Finished => return true,
            Read::Blocked | Read::Reset(_) => return false,
        }
    }
}

fn with_fec() -> EndpointConfig {
    fec(FecMode::Adaptive)
}

fn without_fec() -> EndpointConfig {
    fec(FecMode::Off)
}

fn fec(mode: FecMode) -> EndpointConfig {
    EndpointConfig { fec: FecConfig { mode, ..FecConfig::default() }, ..EndpointConfig::default() }
}

fn percentile(times: &[Duration], share: f64) -> Duration {
    times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1]
}

#[test]
fn without_loss_every_message_takes_one_round_trip() {
    let messages = Messages { per_second: 200, count: 4_000, size: 256 };
    let times = messages.run(&path(25, 0.0, None), &without_fec(), 1).times;
    assert!(times[times.len() - 1] < Duration::from_micros(50_100), "pacing and acknowledgements delay nothing");
}

/// With 5 % lost each way one message in ten loses a packet and one in 140 two. The first loss is seen when something later is
/// acknowledged and 9/8 of a round trip have gone, or three packets later: 2.2 round trips in all at 200 messages a second.
#[test]
fn a_lost_message_costs_little_more_than_one_round_trip() {
    let messages = Messages { per_second: 200, count: 20_000, size: 256 };
    for (delay_ms, seed) in [(25, 1), (25, 2), (50, 3)] {
        let rtt = Duration::from_millis(2 * delay_ms);
        let times = messages.run(&path(delay_ms, 5.0, None), &without_fec(), seed).times;
        assert!(percentile(&times, 0.5) < rtt + Duration::from_millis(1));
        assert!(percentile(&times, 0.99) < rtt.mul_f64(2.5), "{:?}", percentile(&times, 0.99));
        assert!(percentile(&times, 0.999) < rtt.mul_f64(4.0), "{:?}", percentile(&times, 0.999));
    }
}

/// Alone on the connection, a message has nothing later to show its loss: the probe timeout does.
#[test]
fn a_lost_message_among_few_waits_for_the_probe_timeout() {
    let messages = Messages { per_second: 5, count: 2_000, size: 256 };
    let times = messages.run(&path(25, 5.0, None), &without_fec(), 1).times;
    assert!(percentile(&times, 0.99) < Duration::from_millis(50).mul_f64(3.0), "{:?}", percentile(&times, 0.99));
}

/// UDP payload and 28 bytes of headers for each packet, for each message and direction.
fn wire_bytes(measured: &Measured) -> f64 {
    let bytes = measured.stats.iter().map(|stats| stats.bytes_sent + 28 * stats.packets_sent).sum::<u64>();
    bytes as f64 / measured.times.len() as f64 / 2.0
}

/// A minute of messages over a path with that delay one way and that loss.
fn minute(delay_ms: u64, loss_percent: f64) {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let (link, rtt) = (path(delay_ms, loss_percent, None), Duration::from_millis(2 * delay_ms));
    let plain = messages.run(&link, &without_fec(), 1);
    assert!(percentile(&plain.times, 0.99) > rtt * 2, "otherwise nothing would be gained");
    for seed in 1..=2 {
        let measured = messages.run(&link, &with_fec(), seed);
        let (p99, p999) = (percentile(&measured.times, 0.99), percentile(&measured.times, 0.999));
        assert!(p99 <= rtt.mul_f64(1.15) + Duration::from_millis(2), "{p99:?}");
        assert!(p999 <= rtt.mul_f64(1.5) + Duration::from_millis(5), "{p999:?}");
        assert!(measured.stats.iter().all(|stats| stats.fec.recovered_by_peer > 0));
        // What a QUIC with a stream per message takes at 10 % loss, 382 bytes, three and a half times; and of 200 ms the reports of
        // twice as many gaps.
        println!("{} B per message and direction", wire_bytes(&measured));
        assert!(wire_bytes(&measured) <= 3.5 * 382.0 + if delay_ms < 100 { 0.0 } else { 20.0 });
    }
}

#[test]
fn repair_symbols_keep_messages_at_one_round_trip_on_short_paths() {
    for loss_percent in [1.0, 5.0, 10.0] {
        minute(10, loss_percent);
        minute(25, loss_percent);
    }
}

#[test]
fn repair_symbols_keep_messages_at_one_round_trip_on_long_paths() {
    for loss_percent in [1.0, 5.0, 10.0] {
        minute(50, loss_percent);
        minute(100, loss_percent);
    }
}

#[test]
fn without_loss_repair_symbols_cost_next_to_nothing() {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let [plain, protected] = [without_fec(), with_fec()].map(|config| messages.run(&path(25, 0.0, None), &config, 1));
    assert_eq!(plain.times[11_999], protected.times[11_999], "nothing waits for them");
    // A path is protected until it has shown that it loses nothing.
    let cost = wire_bytes(&protected) / wire_bytes(&plain) - 1.0;
    println!("{:.2} % more bytes", cost * 100.0);
    assert!(cost < 0.03, "{cost}");
    let rest = protected.stats[0].fec.repairs_sent;
    let more = Messages { count: 16_000, ..messages }.run(&path(25, 0.0, None), &with_fec(), 1);
    let more = more.stats[0].fec.repairs_sent;
    assert_eq!(rest, more, "in the end there are none");
}

#[test]
fn bulk_is_as_fast_with_repair_symbols_as_without() {
    for loss_percent in [0.0, 1.0, 5.0] {
        let link = path(25, loss_percent, Some(20_000_000));
        let [(plain, _), (protected, stats)] = [without_fec(), with_fec()].map(|config| bulk(&link, &config, 1));
        println!("{loss_percent} %: {plain} bit/s without, {protected} with; {:?}", stats.fec);
        assert!(protected > plain * 0.97);
        assert!(stats.fec.repair_bytes_sent < stats.bytes_sent / 50);
    }
}

/// Four percent of all packets are lost, in bursts.
fn bursts(delay_ms: u64, burst: Option<Burst>, outage: Option<RandomOutage>) -> [Duration; 2] {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let link = LinkConfig { burst, outage, ..path(delay_ms, 0.0, None) };
    [without_fec(), with_fec()].map(|config| {
        let measured = messages.run(&link, &config, 1);
        println!("{:.0} B per message and direction", wire_bytes(&measured));
        percentile(&measured.times, 0.99)
    })
}

/// Bursts of four packets on average. On paths under 50 ms a quarter of the round trip is too short to leave one behind.
#[test]
fn repair_symbols_survive_bursts_of_packets() {
    let burst = Burst { good_to_bad_percent: 1.0417, bad_to_good_percent: 25.0, loss_percent: 100.0 };
    for delay_ms in [25, 50, 100] {
        let [plain, protected] = bursts(delay_ms, Some(burst), None);
        assert!(protected <= Duration::from_millis(2 * delay_ms).mul_f64(1.3), "{plain:?} {protected:?}");
    }
}

/// Bursts of 20 ms on average. What is sent at the start of one gets through only by what is sent as much later: within 1.3 round
/// trips of 200 ms, not of 50.
#[test]
fn repair_symbols_survive_bursts_in_time() {
    let outage = RandomOutage { good: Duration::from_millis(480), bad: Duration::from_millis(20) };
    let [plain, protected] = bursts(100, None, Some(outage));
    assert!(protected <= Duration::from_millis(260), "{plain:?} {protected:?}");
}

/// On a local network copies follow within half a millisecond.
#[test]
fn repair_symbols_help_on_short_paths() {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let link = LinkConfig { delay: Duration::from_micros(500), ..path(0, 5.0, None) };
    let measured = messages.run(&link, &with_fec(), 1);
    assert!(percentile(&measured.times, 0.99) < Duration::from_millis(2));
    assert!(percentile(&measured.times, 0.999) < Duration::from_millis(4));
}
