use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quantum::{
    Alpn, ConnectOptions, ConnectionHandle, Endpoint, EndpointConfig, Event, GuuidGenerator, Read, Received, Time,
};
use serde_json::Value;

use super::Qlog;

/// Bytes that are sent.
const SIZE: usize = 200_000;
const STEP: Duration = Duration::from_millis(2);

/// The records of a file.
fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read(path).unwrap();
    let records = text.split(|byte| *byte == 0x1e).skip(1);
    records
        .map(|record| serde_json::from_slice(record.strip_suffix(b"\n").expect("a record ends its line")).unwrap())
        .collect()
}

fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, place as u8 + 1], 4_433))
}

/// A client and a server that log into `folder`, and how the client connects.
fn endpoints(folder: &Path) -> ([Endpoint; 2], ConnectOptions) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["server.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
    let der = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = tls.with_single_cert(vec![certificate.der().clone()], der).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let client_tls = rustls::ClientConfig::builder_with_provider(provider);
    let client_tls = client_tls.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let client_tls = client_tls.with_root_certificates(roots).with_no_client_auth();
    let config = EndpointConfig { server: Some(Arc::new(tls)), ..EndpointConfig::default() };
    let client = Endpoint::new(Arc::new(EndpointConfig::default()), [1; 32]);
    let mut ends = [client, Endpoint::new(Arc::new(config), [2; 32])];
    let observer = Arc::new(Qlog::new(folder).unwrap());
    for end in &mut ends {
        end.observe(observer.clone());
    }
    let options = ConnectOptions {
        guuid: GuuidGenerator::new([3; 32]).next(1_735_689_600_000),
        remote: address(1),
        server_name: "server.test".to_owned(),
        alpn: Alpn::Stream,
        tls: Arc::new(client_tls),
    };
    (ends, options)
}

/// Writes when it is connected (the client), reads what comes (the server). Gives the bytes that came.
fn act(place: usize, end: &mut Endpoint, server: &mut Option<ConnectionHandle>) -> usize {
    let mut got = 0;
    while let Some((handle, event)) = end.poll_event() {
        match event {
            Event::Connected { .. } if place == 0 => {
                let mut connection = end.connection(handle).unwrap();
                let id = connection.open().unwrap();
                assert_eq!(connection.write(id, &mut Bytes::from(vec![5; SIZE])), Ok(SIZE));
            }
            Event::Connected { .. } => *server = Some(handle),
            Event::StreamReadable(id) | Event::StreamOpened(id) => {
                while let Read::Data(data) = end.connection(handle).unwrap().read(id, 1 << 16) {
                    got += data.len();
                }
            }
            _ => {}
        }
    }
    got
}

/// A transfer over a path that loses every ninth packet. Gives, for each end, packets sent, received and lost as the connection
/// counted them before it was closed.
fn transfer(folder: &Path) -> [[u64; 3]; 2] {
    let (mut ends, options) = endpoints(folder);
    let mut now = Time::ZERO + Duration::from_secs(1);
    let client = ends[0].connect(now, options).unwrap();
    let (mut server, mut nth, mut got, mut counts) = (None, 0, 0, None);
    let mut buffer = vec![0; 1 << 16];
    let mut under_way: Vec<(usize, Vec<u8>)> = Vec::new();
    for _ in 0..4_000 {
        now += STEP;
        for (to, mut data) in std::mem::take(&mut under_way) {
            let segment_size = data.len();
            let received = Received { remote: address(1 - to), local: None, ecn: 0, segment_size, data: &mut data };
            ends[to].handle_datagram(now, received);
        }
        for (place, end) in ends.iter_mut().enumerate() {
            end.handle_timeout(now);
            got += act(place, end, &mut server);
        }
        if got == SIZE && counts.is_none() {
            let mut count = |place: usize, handle| {
                let stats = ends[place].connection(handle).unwrap().stats();
                [stats.packets_sent, stats.packets_received, stats.packets_lost]
            };
            counts = Some([count(0, client), count(1, server.unwrap())]);
            ends[0].connection(client).unwrap().close(now, 0, b"done");
        }
        for (place, end) in ends.iter_mut().enumerate() {
            while let Some(transmit) = end.poll_transmit(now, &mut buffer) {
                for segment in buffer[..transmit.len].chunks(transmit.segment_size) {
                    nth += 1;
                    if nth % 9 != 0 {
                        under_way.push((1 - place, segment.to_vec()));
                    }
                }
            }
        }
        if ends.iter().all(Endpoint::is_idle) {
            return counts.expect("everything came");
        }
    }
    panic!("{got} bytes came");
}

/// The paths of the finished files, the client's first.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| !path.to_string_lossy().contains("client"));
    files
}

#[test]
fn a_file_is_a_json_text_sequence_whose_counts_are_the_connections() {
    let folder = tempfile::tempdir().unwrap();
    let counts = transfer(folder.path());
    let is_whole =
        |path: &std::path::PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains("connection_closed"));
    // The writer's thread is done soon.
    let found = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let files = files(folder.path());
        files.len() == 2 && files.iter().all(is_whole)
    });
    assert!(found, "{:?}", files(folder.path()));
    for (path, [sent, received, lost]) in files(folder.path()).iter().zip(counts) {
        let records = records(path);
        assert_eq!(records[0]["qlog_format"], "JSON-SEQ");
        let guuid = records[0]["trace"]["common_fields"]["group_id"].as_str().unwrap();
        assert!(path.file_name().unwrap().to_str().unwrap().starts_with(guuid));
        let closed = records.iter().position(|it| it["name"] == "connectivity:connection_closed").unwrap();
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        let mut time = 0.0;
        for record in &records[1..=closed] {
            *seen.entry(record["name"].as_str().unwrap()).or_default() += 1;
            let at = record["time"].as_f64().unwrap();
            assert!(at >= time, "times ascend");
            time = at;
        }
        let is_client = path.to_string_lossy().contains("client");
        assert_eq!(seen["connectivity:connection_started"], 1);
        assert_eq!(seen.get("recovery:packet_lost").copied().unwrap_or(0), lost, "{seen:?}");
        if is_client {
            // It was closed at the moment of its counts. The server goes on until it hears of it.
            assert_eq!(
                (seen["transport:packet_sent"], seen["transport:packet_received"]),
                (sent, received),
                "{seen:?}"
            );
            assert!(lost > 10, "the path loses packets: {lost}");
        } else {
            assert!(seen["transport:packet_sent"] >= sent && seen["transport:packet_received"] > received, "{seen:?}");
        }
        assert!(seen["recovery:metrics_updated"] > if is_client { 5 } else { 1 }, "{seen:?}");
        let stream_bytes: u64 = records
            .iter()
            .filter(|it| it["name"] == "transport:packet_received")
            .flat_map(|it| it["data"]["frames"].as_array().unwrap().clone())
            .filter(|frame| frame["frame_type"] == "stream")
            .map(|frame| frame["length"].as_u64().unwrap())
            .sum();
        assert!(is_client || stream_bytes > 150_000, "{stream_bytes}");
    }
}

#[test]
fn a_folder_that_goes_away_stops_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let path = gone.clone();
    std::fs::remove_dir(&gone).unwrap();
    // The folder is made, and taken away under the writer.
    let observer = Qlog::new(&path).unwrap();
    std::fs::remove_dir(&path).unwrap();
    let log = quantum::Observer::open(&observer, quantum::Guuid([7; 16]), quantum::Side::Client);
    let mut log = log.expect("there is room");
    for _ in 0..10_000 {
        log.record(Time::ZERO, &quantum::LogEvent::PacketLost { number: 5 });
    }
    drop(log);
    assert!(files(folder.path()).is_empty());
}
