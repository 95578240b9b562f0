//! Shards over real sockets, with the test as their control plane.

mod stopped;
mod unreachable;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quantum::{Alpn, CloseReason, EndpointConfig, StreamId};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::handoff::{ConnectTarget, ConnectionKey, ControlEnd, HANDOFF_WINDOW, ToControl, ToShard};
use crate::{AppKind, HostKind, IoKind, Shards, ShardsConfig};

fn skip() -> bool {
    let Err(error) = crate::host::check() else { return false };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    println!("SKIPPED: {error}");
    true
}

struct Tls {
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

fn tls() -> Tls {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Tls { server: Arc::new(server), client: Arc::new(client) }
}

fn start(tls: Option<&Tls>, shards: usize, host: HostKind, app: AppKind) -> (Shards, Vec<ControlEnd>) {
    start_at("127.0.0.1:0", tls, shards, host, app)
}

fn start_at(listen: &str, tls: Option<&Tls>, shards: usize, host: HostKind, app: AppKind) -> (Shards, Vec<ControlEnd>) {
    let endpoint = EndpointConfig { server: tls.map(|tls| Arc::clone(&tls.server)), ..EndpointConfig::default() };
    Shards::start(&ShardsConfig {
        listen: listen.parse().unwrap(),
        shards,
        cores: Vec::new(),
        spin: Duration::ZERO,
        host,
        io: IoKind::Uring,
        endpoint,
        app,
        qlog: None,
    })
    .unwrap()
}

/// The next message of any of the ends, within ten seconds. Waits as an event loop would.
fn next(ends: &mut [ControlEnd]) -> (usize, ToControl) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        for (index, end) in ends.iter_mut().enumerate() {
            if let Some(message) = end.try_recv() {
                return (index, message);
            }
        }
        assert!(Instant::now() < deadline, "nothing came for ten seconds");
        let idle = ends.iter_mut().filter_map(|end| (!end.prepare_sleep(false)).then_some(())).count() == 0;
        if idle {
            let mut polls: Vec<_> =
                ends.iter().map(|end| rustix::event::PollFd::new(end, rustix::event::PollFlags::IN)).collect();
            let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            rustix::event::poll(&mut polls, Some(&second)).unwrap();
        }
        ends.iter().for_each(ControlEnd::awake);
    }
}

fn tell(end: &mut ControlEnd, message: ToShard) {
    end.try_send(message).expect("the ring has room");
    end.ring();
}

fn connect(end: &mut ControlEnd, tls: &Tls, remote: SocketAddr, key: u64) -> ConnectionKey {
    let connection = ConnectionKey(key);
    let target =
        ConnectTarget { remote, server_name: "localhost".to_owned(), alpn: Alpn::Stream, tls: Arc::clone(&tls.client) };
    tell(end, ToShard::Connect { connection, target: Box::new(target) });
    connection
}

fn connected(ends: &mut [ControlEnd]) -> (usize, ConnectionKey) {
    match next(ends) {
        (index, ToControl::Connected { connection, .. }) => (index, connection),
        other => panic!("{other:?} instead of a connection"),
    }
}

#[test]
fn eight_connections_of_one_client_socket_spread_over_two_shards() {
    if skip() {
        return;
    }
    let tls = tls();
    let (server, mut accepted) = start(Some(&tls), 2, HostKind::Glommio, AppKind::Control);
    let (_client, mut dialled) = start(None, 1, HostKind::Bare, AppKind::Control);
    // Each connection has its stream; the server sends back what comes, on whichever shard it is.
    let keys: Vec<_> = (0..8).map(|n| connect(&mut dialled[0], &tls, server.local_addr(), 2 * n + 1)).collect();
    for _ in &keys {
        connected(&mut dialled);
    }
    let mut shards = HashMap::new();
    for _ in &keys {
        let (shard, _) = connected(&mut accepted);
        *shards.entry(shard).or_insert(0) += 1;
    }
    for &key in &keys {
        tell(&mut dialled[0], ToShard::Open(key, StreamId(0)));
        tell(&mut dialled[0], ToShard::Finish(key, StreamId(0), Bytes::from(key.0.to_string())));
    }
    let mut finished = 0;
    while finished < keys.len() {
        match next(&mut accepted) {
            (shard, ToControl::Data(key, id, data)) => tell(&mut accepted[shard], ToShard::Data(key, id, data)),
            (shard, ToControl::Finished(key, id, last)) => {
                tell(&mut accepted[shard], ToShard::Finish(key, id, last));
                finished += 1;
            }
            _ => {}
        }
    }
    let mut answers: HashMap<ConnectionKey, Vec<u8>> = HashMap::new();
    let mut ended = 0;
    while ended < keys.len() {
        match next(&mut dialled) {
            (_, ToControl::Data(key, _, data)) => answers.entry(key).or_default().extend_from_slice(&data),
            (_, ToControl::Finished(key, _, last)) => {
                answers.entry(key).or_default().extend_from_slice(&last);
                ended += 1;
            }
            _ => {}
        }
    }
    assert!(keys.iter().all(|key| answers[key] == key.0.to_string().as_bytes()));
    // One in 128 runs puts all on one shard: ids are random. More connections settle it.
    let mut more = 8;
    while shards.len() < 2 && more < 40 {
        connect(&mut dialled[0], &tls, server.local_addr(), 2 * more + 1);
        connected(&mut dialled);
        *shards.entry(connected(&mut accepted).0).or_insert(0) += 1;
        more += 1;
    }
    assert_eq!(shards.len(), 2, "both shards have connections: {shards:?}");
}

#[test]
fn a_stalled_reader_stops_nobody_and_loses_nothing() {
    if skip() {
        return;
    }
    let tls = tls();
    let (server, mut accepted) = start(Some(&tls), 1, HostKind::Glommio, AppKind::Control);
    let (_client, mut dialled) = start(None, 1, HostKind::Bare, AppKind::Control);
    let key = connect(&mut dialled[0], &tls, server.local_addr(), 1);
    connected(&mut dialled);
    let (_, peer) = connected(&mut accepted);
    let total = 4 << 20;
    let (stalled, working) = (StreamId(0), StreamId(2));
    let (mut credit, mut sent) =
        (HashMap::from([(stalled, HANDOFF_WINDOW), (working, HANDOFF_WINDOW)]), HashMap::new());
    tell(&mut dialled[0], ToShard::Open(key, stalled));
    tell(&mut dialled[0], ToShard::Open(key, working));
    let mut received: HashMap<StreamId, usize> = HashMap::new();
    let mut owed = 0;
    let mut ends = [dialled.remove(0), accepted.remove(0)];
    // The stalled stream's bytes are credited once the working one is through.
    while received.get(&stalled).is_none_or(|bytes| *bytes < total) {
        for (&id, credit) in &mut credit {
            let so_far = sent.entry(id).or_insert(0_usize);
            let len = (*credit).min(total - *so_far).min(32 << 10);
            if len > 0 && ends[0].try_send(ToShard::Data(key, id, Bytes::from(vec![7; len]))).is_ok() {
                *credit -= len;
                *so_far += len;
                ends[0].ring();
            }
        }
        if credit.iter().any(|(id, credit)| *credit > 0 && sent[id] < total) {
            continue;
        }
        match next(&mut ends) {
            (0, ToControl::Credit(_, id, bytes)) => *credit.get_mut(&id).unwrap() += bytes,
            (1, ToControl::Data(_, id, data)) => {
                *received.entry(id).or_insert(0) += data.len();
                let working_is_through = received.get(&working) == Some(&total);
                if id == stalled && !working_is_through {
                    owed += data.len();
                    assert!(owed <= HANDOFF_WINDOW, "no more than the window is handed over");
                } else {
                    tell(&mut ends[1], ToShard::Credit(peer, id, data.len()));
                }
                if working_is_through && owed > 0 {
                    tell(&mut ends[1], ToShard::Credit(peer, stalled, std::mem::take(&mut owed)));
                }
            }
            _ => {}
        }
    }
    assert!(received.values().all(|bytes| *bytes == total), "{received:?}");
}

#[test]
fn echo_shards_send_back_and_end_when_told() {
    if skip() {
        return;
    }
    let tls = tls();
    let (server, none) = start(Some(&tls), 2, HostKind::Glommio, AppKind::Echo);
    assert!(none.is_empty());
    let (client, mut dialled) = start(None, 1, HostKind::Bare, AppKind::Control);
    let key = connect(&mut dialled[0], &tls, server.local_addr(), 1);
    connected(&mut dialled);
    for number in 0..50_u64 {
        let id = StreamId(2 * number);
        let data = Bytes::from(vec![number as u8; 3000]);
        tell(&mut dialled[0], ToShard::Open(key, id));
        tell(&mut dialled[0], ToShard::Data(key, id, data.slice(..1000)));
        tell(&mut dialled[0], ToShard::Finish(key, id, data.slice(1000..)));
        let mut back = Vec::new();
        loop {
            match next(&mut dialled) {
                (_, ToControl::Data(_, from, data)) if from == id => {
                    back.extend_from_slice(&data);
                    tell(&mut dialled[0], ToShard::Credit(key, id, data.len()));
                }
                (_, ToControl::Finished(_, from, last)) if from == id => {
                    back.extend_from_slice(&last);
                    break;
                }
                _ => {}
            }
        }
        assert_eq!(back, data);
    }
    server.shutdown();
    let closed = loop {
        if let (_, ToControl::Closed { reason, .. }) = next(&mut dialled) {
            break reason;
        }
    };
    assert!(matches!(closed, CloseReason::Peer { application: true, .. }), "{closed:?}");
    server.join().unwrap();
    tell(&mut dialled[0], ToShard::Shutdown);
    while !dialled[0].is_closed() {
        dialled[0].prepare_sleep(false);
        dialled[0].awake();
    }
    client.join().unwrap();
}

#[test]
fn a_port_in_use_and_a_dead_server_are_told() {
    if skip() {
        return;
    }
    let tls = tls();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = ShardsConfig {
        listen: taken.local_addr().unwrap(),
        shards: 2,
        cores: Vec::new(),
        spin: Duration::ZERO,
        host: HostKind::Glommio,
        io: IoKind::Uring,
        endpoint: EndpointConfig { server: Some(Arc::clone(&tls.server)), ..EndpointConfig::default() },
        app: AppKind::Control,
        qlog: None,
    };
    let error = Shards::start(&config).expect_err("the port is taken");
    assert!(error.to_string().contains("in use"), "{error}");

    let endpoint = EndpointConfig {
        security: quantum::SecurityConfig {
            handshake_timeout: Duration::from_millis(300),
            ..quantum::SecurityConfig::default()
        },
        ..EndpointConfig::default()
    };
    let client = ShardsConfig { listen: "127.0.0.1:0".parse().unwrap(), shards: 1, endpoint, ..config };
    let (_shards, mut dialled) = Shards::start(&client).unwrap();
    connect(&mut dialled[0], &tls, taken.local_addr().unwrap(), 1);
    let (_, message) = next(&mut dialled);
    assert!(matches!(message, ToControl::Closed { reason: CloseReason::HandshakeTimeout, .. }), "{message:?}");
}
