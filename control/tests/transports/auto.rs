//! `--transport auto` where a firewall (nftables, in network namespaces of the tests' own) drops UDP, or TCP.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use control::client::{ConnectArgs, SendingArgs, TransportArg};
use proto::session::GetStatsRequest;
use proto::session::session_service_client::SessionServiceClient;
use quantum_grpc::{AnyChannel, Transport};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::task::JoinSet;
use tonic::Status;
use uuid::Uuid;

use crate::common::commands::*;
use crate::common::*;

/// How long Quantum tries alone.
const HEAD_START: Duration = Duration::from_millis(250);
/// What a machine that is busy with other tests may need beyond that to connect over TCP and call. To wait until Quantum has
/// given up takes longer.
const CALL_TIME: Duration = Duration::from_secs(5);
/// Nothing comes over Quantum for two seconds until TCP is tried, a look every quarter of a second later, and connecting takes time.
const FALLBACK_TIME: Duration = Duration::from_secs(4);
/// How long calls are begun to see what they take.
const WATCHED_TIME: Duration = Duration::from_secs(6);
/// Between the beginnings of two calls.
const CALL_PAUSE: Duration = Duration::from_millis(100);
/// An attempt over Quantum repeats its first packet after seconds; the next attempt begins a second after one that failed.
const RETURN_TIME: Duration = Duration::from_secs(30);

/// Longer than all of a test's waits together.
const TEST_TIME: Duration = Duration::from_mins(2);

/// A network namespace with nothing but a loopback device. Dropping it removes it.
struct Namespace(String);

impl Namespace {
    /// None, and the test is skipped, where there can be none.
    fn new(name: &str) -> Option<Self> {
        if !has_shards() {
            return None;
        }
        let is_root = rustix::process::geteuid().is_root();
        if !is_root || !succeeds("ip", &["netns", "list"]) || !succeeds("nft", &["list", "ruleset"]) {
            skip("network namespaces with firewalls need root, iproute2 and nftables");
            return None;
        }
        let namespace = Self(format!("test-auto-{name}-{}", std::process::id()));
        assert!(succeeds("ip", &["netns", "add", &namespace.0]));
        assert!(succeeds("ip", &["-n", &namespace.0, "link", "set", "lo", "up"]));
        Some(namespace)
    }

    /// Runs a test whose sockets, threads and processes are all inside.
    fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        let namespace = File::open(Path::new("/run/netns").join(&self.0)).unwrap();
        let inside = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            // Its threads are made by this one, so they are in the namespace too.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let ended = runtime.block_on(async { tokio::time::timeout(TEST_TIME, test()).await });
            ended.expect("no call hangs");
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A panic here would hide why the test failed.
        if !succeeds("ip", &["netns", "del", &self.0]) {
            println!("the network namespace {} is left", self.0);
        }
    }
}

/// The rules for what arrives in the namespace of the caller, and a counter of what comes over TCP to a server.
struct Firewall {
    port: u16,
}

impl Firewall {
    /// Drops nothing.
    fn before(port: u16) -> Self {
        let firewall = Self { port };
        firewall.nft(
            "add table inet aether
             add counter inet aether to_tcp
             add chain inet aether arriving { type filter hook input priority 0 ; }",
        );
        firewall.drops_nothing();
        firewall
    }

    fn drops_nothing(&self) {
        self.set("");
    }

    fn drops_udp(&self) {
        self.set("add rule inet aether arriving meta l4proto udp drop");
    }

    /// Drops a quarter of it, by chance, in each direction.
    fn loses_udp(&self) {
        self.set("add rule inet aether arriving meta l4proto udp numgen random mod 100 < 25 drop");
    }

    /// Drops what comes to the server over TCP.
    fn drops_tcp(&self) {
        self.set(&format!("add rule inet aether arriving tcp dport {} drop", self.port));
    }

    /// Takes the place of the rules before, at once.
    fn set(&self, rule: &str) {
        let counter = format!("add rule inet aether arriving tcp dport {} counter name \"to_tcp\"", self.port);
        self.nft(&format!("flush chain inet aether arriving\n{counter}\n{rule}\n"));
    }

    /// Packets that came to the server over TCP.
    fn tcp_packets(&self) -> u64 {
        let listed = self.nft("list counter inet aether to_tcp\n");
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no packets in {listed}"))
    }

    fn nft(&self, script: &str) -> String {
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"]).env("PATH", path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut nft = nft.spawn().unwrap();
        nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = nft.wait_with_output().unwrap();
        assert!(output.status.success(), "port {}: {script}\n{}", self.port, said(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The channel of `call` and `proxy` with `--transport auto` to the session service.
fn channel(world: &World) -> AnyChannel {
    let connect = ConnectArgs {
        transport: TransportArg::Auto,
        tls: false,
        ca: None,
        pin: Some(world.running.fingerprint.clone()),
        insecure_loopback: false,
        cert: None,
        key: None,
        allow_plain_text: false,
        qlog: None,
        sending: SendingArgs::default(),
    };
    connect.channel(&world.running.session_addr.to_string()).unwrap()
}

/// A call that has to be answered soon.
async fn ask(channel: &AnyChannel) -> Result<(), Status> {
    let mut request = tonic::Request::new(GetStatsRequest {});
    request.set_timeout(HEAD_START + CALL_TIME);
    SessionServiceClient::new(channel.clone()).get_stats(request).await.map(drop)
}

/// Begins calls for a while, none of which waits for another. Gives when each began and how it ended.
async fn begin_calls(channel: &AnyChannel) -> Vec<(Duration, Result<(), Status>)> {
    let started = Instant::now();
    let mut calls = JoinSet::new();
    while started.elapsed() < WATCHED_TIME {
        let (channel, began) = (channel.clone(), started.elapsed());
        calls.spawn(async move { (began, ask(&channel).await) });
        tokio::time::sleep(CALL_PAUSE).await;
    }
    calls.join_all().await
}

/// Waits until calls are carried by Quantum. Meanwhile every call is answered.
async fn returns(channel: &AnyChannel) {
    let started = Instant::now();
    eventually(RETURN_TIME, async || {
        if channel.transport().await.unwrap() == Transport::Quantum {
            return Ok(());
        }
        ask(channel).await.unwrap();
        Err("Quantum is not used")
    })
    .await;
    println!("over Quantum after {:?}", started.elapsed());
}

#[test]
fn calls_take_tcp_while_udp_is_dropped_remember_it_and_return() {
    let Some(namespace) = Namespace::new("return") else { return };
    namespace.run(|| async {
        let world = World::start().await;
        let firewall = Firewall::before(world.running.session_addr.port());
        firewall.drops_udp();
        let channel = channel(&world);
        let started = Instant::now();
        ask(&channel).await.unwrap();
        let first = started.elapsed();
        assert!((HEAD_START..HEAD_START + CALL_TIME).contains(&first), "{first:?}");
        assert_eq!(channel.transport().await.unwrap(), Transport::Tcp);
        let mut later = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            ask(&channel).await.unwrap();
            later.push(started.elapsed());
        }
        later.sort();
        assert!(later[2] < HEAD_START, "what carries calls is not found out anew for each: {later:?}");
        println!("the first call over TCP took {first:?}, those after it {later:?}");
        firewall.drops_nothing();
        returns(&channel).await;
        firewall.drops_tcp();
        ask(&channel).await.expect("Quantum carries it: TCP is dropped");
    });
}

#[test]
fn calls_take_tcp_seconds_after_udp_is_dropped_under_a_connection_and_return() {
    let Some(namespace) = Namespace::new("lost") else { return };
    namespace.run(|| async {
        let world = World::start().await;
        let firewall = Firewall::before(world.running.session_addr.port());
        let channel = channel(&world);
        returns(&channel).await;
        firewall.drops_udp();
        let calls = begin_calls(&channel).await;
        let failed = calls.iter().filter(|(_, answer)| answer.is_err());
        let last = failed.map(|(began, _)| *began).max();
        println!("the last call that was not answered began {last:?} after UDP was dropped");
        assert!(last.is_some_and(|last| last < FALLBACK_TIME), "{calls:?}");
        assert_eq!(channel.transport().await.unwrap(), Transport::Tcp);
        firewall.drops_nothing();
        returns(&channel).await;
        firewall.drops_tcp();
        ask(&channel).await.expect("Quantum carries it: TCP is dropped");
    });
}

#[test]
fn calls_stay_with_quantum_while_udp_loses_a_quarter() {
    let Some(namespace) = Namespace::new("lossy") else { return };
    namespace.run(|| async {
        let world = World::start().await;
        let firewall = Firewall::before(world.running.session_addr.port());
        let channel = channel(&world);
        returns(&channel).await;
        let before = firewall.tcp_packets();
        firewall.loses_udp();
        for (began, answer) in begin_calls(&channel).await {
            answer.unwrap_or_else(|status| panic!("the call of {began:?} was not answered: {status:?}"));
        }
        assert_eq!(channel.transport().await.unwrap(), Transport::Quantum);
        // A lull may make it try TCP, in a few packets; each call over TCP would add two.
        let over_tcp = firewall.tcp_packets() - before;
        assert!(over_tcp < 10, "{over_tcp} packets went over TCP");
    });
}

#[test]
fn the_call_command_takes_whichever_transport_gets_through() {
    let Some(namespace) = Namespace::new("call") else { return };
    namespace.run(|| async {
        let world = World::start().await;
        let firewall = Firewall::before(world.running.session_addr.port());
        let (address, pin) = (world.running.session_addr.to_string(), format!("--pin={}", world.running.fingerprint));
        let args = ["--transport=auto", &pin, &address, "session.SessionService/GetStats"];
        firewall.drops_udp();
        let started = Instant::now();
        let called = call(&args, "").await;
        let took = started.elapsed();
        assert!(called.status.success(), "{}", said(&called));
        // Reflection and the call itself share one decision. A process has to start as well.
        assert!((HEAD_START..HEAD_START + CALL_TIME).contains(&took), "{took:?}");
        println!("UDP dropped: {took:?}");
        firewall.drops_tcp();
        let called = call(&args, "").await;
        assert!(called.status.success(), "{}", said(&called));
        firewall.drops_nothing();
        // A machine that is busy with other tests may let a head start pass; not again and again.
        let mut tries = 0;
        loop {
            let before = firewall.tcp_packets();
            let called = call(&args, "").await;
            assert!(called.status.success(), "{}", said(&called));
            if firewall.tcp_packets() == before {
                break;
            }
            tries += 1;
            assert!(tries < 5, "where both get through TCP is used");
        }
    });
}

#[test]
fn the_proxy_takes_tcp_while_udp_is_dropped_and_returns_with_a_stream_open() {
    let Some(namespace) = Namespace::new("proxy") else { return };
    namespace.run(|| async {
        let world = World::start().await;
        let server = world.running.statesync_addr;
        let firewall = Firewall::before(server.port());
        firewall.drops_udp();
        let pin = format!("--pin={}", world.running.fingerprint);
        let (_proxy, address) = proxy(&server.to_string(), &["--transport=auto", &pin]).await;
        let mut client = documents(address.parse().unwrap()).await;
        let started = Instant::now();
        let doc_id = create_text(&mut client, "").await;
        assert!(started.elapsed() < HEAD_START + CALL_TIME, "{:?}", started.elapsed());
        let mut events = subscribe(&mut client, subscription(&doc_id, "bob")).await;
        next(&mut events).await;
        firewall.drops_nothing();
        let started = Instant::now();
        eventually(RETURN_TIME, async || {
            let before = firewall.tcp_packets();
            assert_eq!(text(&mut client, &doc_id).await, "");
            if firewall.tcp_packets() == before { Ok(()) } else { Err("the proxy does not use Quantum again") }
        })
        .await;
        println!("over Quantum again after {:?}", started.elapsed());
        let applied = apply(&mut client, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")).await.unwrap();
        let seen = next_operation(&mut events).await.operation.unwrap();
        assert_eq!(seen, applied, "a stream that began over TCP goes on there");
        firewall.drops_tcp();
        assert_eq!(text(&mut client, &doc_id).await, "x", "Quantum carries it: TCP is dropped");
    });
}
