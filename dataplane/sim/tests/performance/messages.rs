//! Small messages and their echoes, each on a stream of its own.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use quantum::{ConnectionStats, EndpointConfig, Event, Read, RecoveryStats, StreamId, Time};
use quantum_sim::{LinkConfig, Pair};

use super::{connected, path, percentile, with_fec, without_fec};

/// How long messages took, sorted, and how both ends of the connection look in the end.
pub(super) struct Measured {
    pub(super) times: Vec<Duration>,
    pub(super) stats: [ConnectionStats; 2],
    /// Of both ends together.
    pub(super) recovery: RecoveryStats,
}

/// Small messages and their echoes.
pub(super) struct Messages {
    pub(super) per_second: u32,
    pub(super) count: u32,
    pub(super) size: usize,
}

impl Messages {
    /// Each message on a stream of its own, at its time whether or not others were answered; gives how long each took from when
    /// it was to be sent, sorted.
    pub(super) fn run(&self, link: &LinkConfig, config: &EndpointConfig, seed: u64) -> Measured {
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
        let [client, other] = pair.recoveries();
        Measured { times, stats: [stats, server], recovery: client.with(&other) }
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
pub(super) fn wire_bytes(measured: &Measured) -> f64 {
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

/// What each end restored, from when it may have been due at the earliest, and what each end had to send again, from when it was first
/// sent. Beside that what users see, from the echoes: of those that took longer than without loss, how much longer.
#[test]
fn what_is_lost_is_there_within_ten_milliseconds_beyond_the_delay_of_the_path() {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let (rtt, allowed) = (Duration::from_millis(50), Duration::from_millis(10));
    for (loss_percent, seed) in [(1.0, 1), (5.0, 1), (10.0, 1), (10.0, 2)] {
        let measured = messages.run(&path(25, loss_percent, None), &with_fec(), seed);
        let (restored, resent) = (measured.recovery.restored, measured.recovery.resent);
        let all = restored.with(&resent);
        println!(
            "{loss_percent} %: {} restored: p50 {:?}, p99 {:?}; {} resent: p50 {:?}; all: p99 {:?}",
            restored.count(),
            restored.quantile(0.5),
            restored.quantile(0.99),
            resent.count(),
            resent.quantile(0.5),
            all.quantile(0.99)
        );
        let late: Vec<Duration> = measured.times.iter().map(|time| time.saturating_sub(rtt)).collect();
        let late = &late[late.partition_point(|late| *late < Duration::from_millis(1))..];
        println!("{} messages later by p50 {:?}, p99 {:?}", late.len(), percentile(late, 0.5), percentile(late, 0.99));
        let lost = 2.0 * f64::from(messages.count) * loss_percent / 100.0;
        assert!(restored.count() as f64 > 0.8 * lost, "{} restored of {lost}", restored.count());
        assert!(restored.quantile(0.99).is_some_and(|p99| p99 <= allowed), "{:?}", restored.quantile(0.99));
        assert!(restored.quantile(0.5).is_some_and(|p50| p50 >= percentile(late, 0.5)), "no less than users see");
        assert!(percentile(late, 0.9) <= allowed, "{:?}", percentile(late, 0.9));
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

/// On a local network copies follow within half a millisecond.
#[test]
fn repair_symbols_help_on_short_paths() {
    let messages = Messages { per_second: 200, count: 12_000, size: 256 };
    let link = LinkConfig { delay: Duration::from_micros(500), ..path(0, 5.0, None) };
    let measured = messages.run(&link, &with_fec(), 1);
    assert!(percentile(&measured.times, 0.99) < Duration::from_millis(2));
    assert!(percentile(&measured.times, 0.999) < Duration::from_millis(4));
}
