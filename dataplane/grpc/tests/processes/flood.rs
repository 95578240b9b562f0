//! Datagrams of anybody: garbage, cut packets, flipped bits, other versions.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::captured::Relay;
use super::roles::Process;
use super::service::Client;
use super::{Holdings, alone, channel, endpoint, has_shards, settles};

/// Datagrams in all.
const FLOOD: usize = 300_000;
/// Rounds of silence and flood in turn, so that whatever else the machine does is in both.
const ROUNDS: usize = 6;
/// Datagrams per second: a seventh of the 220,000 that this test can send, and one shard takes in, if it does nothing else. Two
/// cores send them, take them in, and make and answer calls: without a pace they would simply be saturated.
const RATE: usize = 30_000;
/// Datagrams that are sent at once.
const BURST: usize = 15;
/// How long calls are measured in silence, each round.
const SILENCE: Duration = Duration::from_millis(700);

/// Makes hostile datagrams of real ones.
struct Forger {
    random: StdRng,
    real: Vec<Vec<u8>>,
}

impl Forger {
    /// The next datagram: each kind in turn.
    fn forge(&mut self, number: usize) -> Vec<u8> {
        let mut packet = self.real[self.random.random_range(0..self.real.len())].clone();
        match number % 4 {
            0 => {
                packet = vec![0; self.random.random_range(0..1_400)];
                self.random.fill_bytes(&mut packet);
            }
            1 => packet.truncate(self.random.random_range(0..packet.len())),
            2 => {
                for _ in 0..self.random.random_range(1..4) {
                    let at = self.random.random_range(0..packet.len());
                    packet[at] ^= 1 << self.random.random_range(0..8);
                }
                if number % 8 == 2 && packet.len() > 26 {
                    // In the number too: one that was seen before is not even decrypted.
                    packet[self.random.random_range(22..26)] ^= 1 << self.random.random_range(0..8);
                }
            }
            _ => {
                // The version is the low half of the fifth byte.
                let other = 2 + self.random.random_range(1..16);
                packet[4] = packet[4] & 0xf0 | other & 0xf;
            }
        }
        packet
    }
}

/// Sends so many datagrams from the sockets in turn, at [`RATE`].
fn send(forger: &mut Forger, sockets: &[UdpSocket], count: usize) {
    let start = Instant::now();
    for number in 0..count {
        if number % BURST == 0 {
            let due = start + Duration::from_secs(1) * number as u32 / RATE as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let packet = forger.forge(number);
        sockets[number / 4 % sockets.len()].send(&packet).unwrap();
    }
}

/// Makes one call after the other until told to end, and measures each.
async fn measure(client: &mut Client, into: &mut Vec<Duration>, mut goes_on: impl FnMut() -> bool) {
    let payload = Bytes::from(vec![7; 256]);
    while goes_on() {
        let start = Instant::now();
        let back = client.echo(payload.clone()).await.unwrap();
        into.push(start.elapsed());
        assert_eq!(back, payload);
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::await_holding_lock, reason = "each test has its own runtime, and waits for the others")]
async fn a_flood_of_hostile_datagrams_leaves_memory_and_latency_as_they_were() {
    let _alone = alone();
    if !has_shards() {
        return;
    }
    let server = Process::server();
    let endpoint = endpoint();
    let mut honest = Client::new(channel(&endpoint, &server.said));
    honest.echo(Bytes::new()).await.unwrap();
    // A second client, whose packets are taken down, and forged from its own address while it lives.
    let relay = Relay::start(server.said.parse().unwrap());
    let mut copied = Client::new(channel(&endpoint, &relay.address.to_string()));
    for len in [0, 100, 1_000, 20_000] {
        copied.echo(Bytes::from(vec![3; len])).await.unwrap();
    }
    let start = Holdings::at_rest(&server, &mut honest).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(&server.said).unwrap();
    let (mut idle, mut flooded) = (Vec::new(), Vec::new());
    measure(&mut honest, &mut Vec::new(), until(SILENCE)).await;
    let real = relay.packets();
    println!("forged from {} real packets", real.len());
    let mut forger = Some(Forger { random: StdRng::seed_from_u64(5), real });
    let (mut took, mut cpu) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        measure(&mut honest, &mut idle, until(SILENCE)).await;
        let mut round = forger.take().unwrap();
        let sockets = [stranger.try_clone().unwrap(), relay.to_server.try_clone().unwrap()];
        let (is_over, begun, cpu_before) = (Arc::new(AtomicBool::new(false)), Instant::now(), server.cpu());
        let over = Arc::clone(&is_over);
        let sender = std::thread::spawn(move || {
            send(&mut round, &sockets, FLOOD / ROUNDS);
            over.store(true, Ordering::SeqCst);
            round
        });
        measure(&mut honest, &mut flooded, || !is_over.load(Ordering::SeqCst)).await;
        took += begun.elapsed();
        cpu += server.cpu().saturating_sub(cpu_before);
        forger = Some(sender.join().unwrap());
        copied.echo(Bytes::from_static(b"alive")).await.unwrap();
    }
    report(&mut idle, &mut flooded, took, cpu);
    let state = honest.state().await;
    println!("the server refused {} packets: {:?}", state.refused, state.reasons);
    // The kernel drops what comes while the machine does something else for long.
    assert!(state.refused >= FLOOD as u64 * 95 / 100, "the flood has to arrive: {state:?}");
    settles("300,000 hostile datagrams", &server, &mut honest, &start).await;
    let (idle, flooded) = (percentile(&idle, 99), percentile(&flooded, 99));
    assert!(flooded < 3 * idle, "p99 {idle:?} idle, {flooded:?} in the flood");
}

fn until(span: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + span;
    move || Instant::now() < end
}

fn report(idle: &mut [Duration], flooded: &mut [Duration], took: Duration, cpu: Duration) {
    for (name, latencies) in [("idle", idle), ("in the flood", flooded)] {
        latencies.sort();
        let [p50, p99] = [50, 99].map(|percent| percentile(latencies, percent));
        println!("{name}: {} calls, p50 {p50:?}, p99 {p99:?}, most {:?}", latencies.len(), latencies.last());
    }
    println!(
        "{FLOOD} datagrams in {took:?}, {:.0} per second; the server used {cpu:?} for them and the calls",
        FLOOD as f64 / took.as_secs_f64()
    );
}
