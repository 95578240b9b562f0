//! SYNs of senders that do not exist: what they leave behind, and what an honest client's handshake takes meanwhile.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quantum::{Alpn, ConnectOptions, GuuidGenerator, Time};
use quantum_grpc::{ClientConfig, Endpoint, Verify};

use super::roles::Process;
use super::service::Client;
use super::{alone, channel, endpoint, has_shards};

/// SYNs in all, unless the environment says otherwise: `make soak` sends a million, and on a machine of its own.
const SYNS: usize = 16_000;
const SYNS_VARIABLE: &str = "QUANTUM_SYN_FLOOD";
/// Ids among them. Those that come again find no connection either, but for the few that are kept.
const IDS: usize = 4_096;
/// SYNs per second: every one makes the server derive keys, open a packet, seal an answer and send it, to which the kernel answers
/// that nobody is there. Two cores send them, take them in, and shake hands with the honest client; without optimization, and beside
/// other tests, they do a third of what they do in a soak.
const RATE: usize = 5_000;
const RATE_SOAKED: usize = 15_000;
/// The pauses between bursts.
const PAUSE: Duration = Duration::from_millis(1);
/// Rounds of silence and flood in turn, so that whatever else the machine does is in both.
const ROUNDS: usize = 4;
/// Where others use the machine, so many attempts are made at the honest client's figure. The memory has to hold in each.
const ATTEMPTS: usize = 3;
const SILENCE: Duration = Duration::from_millis(500);
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// How many SYNs there are, and how fast they come.
#[derive(Clone, Copy, Debug)]
struct Plan {
    count: usize,
    /// Per second.
    rate: usize,
    attempts: usize,
}

impl Plan {
    fn new() -> Self {
        match std::env::var(SYNS_VARIABLE) {
            Ok(count) => Self { count: count.parse().unwrap(), rate: RATE_SOAKED, attempts: 1 },
            Err(_) => Self { count: SYNS, rate: RATE, attempts: ATTEMPTS },
        }
    }
}

/// First packets of clients that say nothing more.
fn syns(server: SocketAddr) -> Vec<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let (tls, mut ids, mut buffer) = (Arc::new(tls), GuuidGenerator::new([9; 32]), vec![0; 1 << 16]);
    let now = Time::from_nanos(1_000_000_000);
    let syn = |_| {
        let mut client = quantum::Endpoint::new(Arc::new(quantum::EndpointConfig::default()), [4; 32]);
        let options = ConnectOptions {
            guuid: ids.next(1_735_689_600_000),
            remote: server,
            server_name: "localhost".to_owned(),
            alpn: Alpn::Grpc,
            tls: Arc::clone(&tls),
        };
        client.connect(now, options).unwrap();
        let transmit = client.poll_transmit(now, &mut buffer).unwrap();
        buffer[..transmit.segment_size].to_vec()
    };
    (0..IDS).map(syn).collect()
}

/// The address of a sender: each has its own.
fn spoofed(number: usize) -> SocketAddr {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    // Beginning with 127.1.0.0; the whole network is this host's.
    SocketAddr::from((Ipv4Addr::new(127, 1 + high, middle, low), 0))
}

/// Sends SYNs, each from an address of its own, so many per second.
fn flood(syns: &[Vec<u8>], server: SocketAddr, numbers: std::ops::Range<usize>, rate: usize) {
    let (start, first) = (Instant::now(), numbers.start);
    for number in numbers {
        let due = start + Duration::from_secs(1) * (number - first) as u32 / rate as u32;
        let early = due.saturating_duration_since(Instant::now());
        if early >= PAUSE {
            std::thread::sleep(early);
        }
        UdpSocket::bind(spoofed(number)).unwrap().send_to(&syns[number % IDS], server).unwrap();
    }
}

/// Shakes hands again and again, and measures each time.
async fn measure(endpoint: &Endpoint, server: SocketAddr, into: &mut Vec<Duration>, mut goes_on: impl FnMut() -> bool) {
    let config = ClientConfig::new(Verify::InsecureLoopback);
    while goes_on() {
        let start = Instant::now();
        let connection = endpoint.connect(server, &config).await.unwrap();
        into.push(start.elapsed());
        drop(connection);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort();
    latencies[latencies.len() * 99 / 100]
}

/// What an honest client met in one attempt, and the server's memory.
struct Found {
    rss_before_kib: u64,
    rss_most_kib: u64,
    idle: Vec<Duration>,
    flooded: Vec<Duration>,
}

/// Rounds of silence and flood.
async fn attempt(plan: Plan, process: &Process, endpoint: &Endpoint, syns: &Arc<Vec<Vec<u8>>>) -> Found {
    let server: SocketAddr = process.said.parse().unwrap();
    let rss = process.rss_kib();
    let mut found = Found { rss_before_kib: rss, rss_most_kib: rss, idle: Vec::new(), flooded: Vec::new() };
    for round in 0..ROUNDS {
        let end = Instant::now() + SILENCE;
        measure(endpoint, server, &mut found.idle, || Instant::now() < end).await;
        let (syns, is_over) = (Arc::clone(syns), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let numbers = round * plan.count / ROUNDS..(round + 1) * plan.count / ROUNDS;
        let sender = std::thread::spawn(move || {
            flood(&syns, server, numbers, plan.rate);
            over.store(true, Ordering::SeqCst);
        });
        measure(endpoint, server, &mut found.flooded, || !is_over.load(Ordering::SeqCst)).await;
        sender.join().unwrap();
        found.rss_most_kib = found.rss_most_kib.max(process.rss_kib());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::await_holding_lock, reason = "each test has its own runtime, and waits for the others")]
async fn a_flood_of_spoofed_syns_costs_little_memory_and_an_honest_client_little_time() {
    let _alone = alone();
    if !has_shards() {
        return;
    }
    let plan = Plan::new();
    let process = Process::server();
    let server: SocketAddr = process.said.parse().unwrap();
    let endpoint = endpoint();
    let mut keeper = Client::new(channel(&endpoint, &process.said));
    keeper.echo(Bytes::new()).await.unwrap();
    let syns = Arc::new(syns(server));
    let end = Instant::now() + SILENCE;
    measure(&endpoint, server, &mut Vec::new(), || Instant::now() < end).await;
    for left in (0..plan.attempts).rev() {
        let Found { rss_before_kib, rss_most_kib, mut idle, mut flooded } =
            attempt(plan, &process, &endpoint, &syns).await;
        let handshakes = (idle.len(), flooded.len());
        let (idle, flooded) = (p99(&mut idle), p99(&mut flooded));
        println!("{plan:?}: {rss_before_kib} -> {rss_most_kib} KiB, {:?}", keeper.state().await);
        println!("{handshakes:?} honest handshakes, p99 {idle:?} in silence, {flooded:?} in the flood");
        assert!(rss_most_kib < rss_before_kib + GROWTH_KIB_MAX, "{rss_before_kib} KiB before, {rss_most_kib} at most");
        assert!(handshakes.0 >= 20 && handshakes.1 >= 20, "too few handshakes to tell: {handshakes:?}");
        if flooded < 3 * idle {
            return;
        }
        assert!(left > 0, "p99 {idle:?} in silence, {flooded:?} in the flood");
    }
}
