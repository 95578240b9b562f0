//! Many connections between two endpoints in virtual time, with real handshakes and keys.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quantum::{
    Alpn, ConnectOptions, ConnectionHandle, Endpoint, EndpointConfig, Event, GuuidGenerator, Read, Received,
    SecurityConfig, Time,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const NAME: &str = "server.test";
const DELAY: Duration = Duration::from_millis(10);
/// Rounds until nothing is under way at most.
const ROUNDS_MAX: usize = 100;

/// A server, a client, and what is under way between them.
pub(crate) struct Crowd {
    pub(crate) now: Time,
    pub(crate) server: Endpoint,
    pub(crate) client: Endpoint,
    /// The client's connections.
    pub(crate) connections: Vec<ConnectionHandle>,
    /// Real time that the server took since it was last asked.
    pub(crate) server_took: Duration,
    ids: GuuidGenerator,
    tls: Arc<rustls::ClientConfig>,
    buffer: Vec<u8>,
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4_433))
}

fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let certificate: CertificateDer<'static> = certificate.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = [&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_protocol_versions(&versions).unwrap().with_no_client_auth();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server.with_single_cert(vec![certificate], key).unwrap()), Arc::new(client))
}

impl Crowd {
    /// Two endpoints for up to `connections_max` connections, not one yet. Only the server keeps connections alive.
    pub(crate) fn new(connections_max: usize) -> Self {
        let (server, client) = tls();
        let security = SecurityConfig { handshakes_without_cookie: connections_max, ..Default::default() };
        let config = EndpointConfig { connections_max, security, ..Default::default() };
        let server = EndpointConfig { server: Some(server), ..config.clone() };
        let buffer = vec![0; 1 << 17];
        Self {
            now: Time::from_nanos(1_000_000_000_000),
            server: Endpoint::new(Arc::new(server), [1; 32]),
            client: Endpoint::new(Arc::new(EndpointConfig { keepalive: None, ..config }), [2; 32]),
            connections: Vec::new(),
            server_took: Duration::ZERO,
            ids: GuuidGenerator::new([3; 32]),
            tls: client,
            buffer,
        }
    }

    /// Connects `count` at one moment and waits until all are.
    pub(crate) fn connect(&mut self, count: usize) {
        for _ in 0..count {
            let options = ConnectOptions {
                guuid: self.ids.next(1_735_689_600_000),
                remote: address(1),
                server_name: NAME.to_owned(),
                alpn: Alpn::Stream,
                tls: Arc::clone(&self.tls),
            };
            self.connections.push(self.client.connect(self.now, options).unwrap());
        }
        self.settle();
        let stats = (self.server.stats(), self.client.stats());
        assert_eq!((stats.0.connections, stats.0.handshakes), (self.connections.len() as u64, 0));
    }

    /// Every connection sends one message on a stream of its own; both ends forget it.
    pub(crate) fn use_each(&mut self, message: &'static [u8]) {
        for handle in self.connections.clone() {
            let mut connection = self.client.connection(handle).unwrap();
            let stream = connection.open().unwrap();
            connection.write(stream, &mut Bytes::from_static(message)).unwrap();
            connection.finish(stream).unwrap();
        }
        self.settle();
    }

    /// Lets packets travel until none is under way.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let to_server = transmits(&mut self.client, self.now, &mut self.buffer);
            let begun = Instant::now();
            let to_client = transmits(&mut self.server, self.now, &mut self.buffer);
            self.server_took += begun.elapsed();
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            self.now += DELAY;
            take(&mut self.client, self.now, (address(1), to_client));
            let begun = Instant::now();
            take(&mut self.server, self.now, (address(2), to_server));
            self.server_took += begun.elapsed();
        }
        panic!("packets go on and on");
    }

    /// Lets the time pass. Gives the longest real time that the server took at one moment.
    pub(crate) fn rest(&mut self, duration: Duration) -> Duration {
        let end = self.now + duration;
        let mut longest = Duration::ZERO;
        while let Some(next) = [self.server.poll_timeout(), self.client.poll_timeout()].into_iter().flatten().min() {
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            let before = self.server_took;
            let begun = Instant::now();
            self.server.handle_timeout(self.now);
            self.server_took += begun.elapsed();
            self.client.handle_timeout(self.now);
            self.settle();
            longest = longest.max(self.server_took.saturating_sub(before));
        }
        self.now = self.now.max(end);
        longest
    }
}

/// Every datagram that the endpoint wants to send.
fn transmits(endpoint: &mut Endpoint, now: Time, buffer: &mut [u8]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while let Some(transmit) = endpoint.poll_transmit(now, buffer) {
        datagrams.extend(buffer[..transmit.len].chunks(transmit.segment_size).map(<[u8]>::to_vec));
    }
    datagrams
}

/// Takes datagrams in, reads what can be read and finishes what the peer finished.
fn take(endpoint: &mut Endpoint, now: Time, (remote, datagrams): (SocketAddr, Vec<Vec<u8>>)) {
    for mut data in datagrams {
        let segment_size = data.len();
        endpoint.handle_datagram(now, Received { remote, local: None, ecn: 0, segment_size, data: &mut data });
    }
    while let Some((handle, event)) = endpoint.poll_event() {
        let (Event::StreamReadable(stream) | Event::StreamOpened(stream)) = event else {
            assert!(!matches!(event, Event::Closed(_)), "{event:?}");
            continue;
        };
        let mut connection = endpoint.connection(handle).unwrap();
        loop {
            match connection.read(stream, usize::MAX) {
                Read::Data(_) => {}
                Read::Finished => {
                    let _ = connection.finish(stream);
                    break;
                }
                Read::Blocked | Read::Reset(_) => break,
            }
        }
    }
}
