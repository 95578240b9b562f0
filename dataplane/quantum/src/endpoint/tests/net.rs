//! Endpoints on a network of virtual time, with a hook that sees every segment and may drop, copy, change or delay it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::wire::{Epoch, Flags, FrameWriter, Header};
use crate::{
    Alpn, CloseReason, ConnectOptions, ConnectionHandle, Endpoint, EndpointConfig, Event, FecConfig, FecMode, Guuid,
    GuuidGenerator, Read, Received, StreamId, Time, Transmit,
};

/// Where the clock stands at first: long after its origin, as outside of tests.
pub(super) const START: Time = Time::from_nanos(1_000_000_000_000);
/// From one end to the other.
pub(super) const DELAY: Duration = Duration::from_millis(10);
/// Both ways.
pub(super) const RTT: Duration = Duration::from_millis(20);
/// The place of the server in [`Net::nodes`].
pub(super) const SERVER: usize = 0;
/// The place of the first client.
pub(super) const CLIENT: usize = 1;
const NAME: &str = "server.test";
/// Transmits of one endpoint at one moment at most: more mean that it goes on without end.
const TRANSMITS_MAX: usize = 10_000;

/// A packet on its way.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) data: Vec<u8>,
    /// How long it takes.
    pub(super) delay: Duration,
}

impl Segment {
    pub(super) fn is_to_server(&self) -> bool {
        self.to == address(SERVER)
    }

    pub(super) fn header(&self) -> Header {
        Header::decode(&self.data).expect("endpoints send packets").0
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.header().epoch
    }

    pub(super) fn has(&self, flags: Flags) -> bool {
        self.header().flags.contains(flags)
    }
}

/// Sees every segment; what it gives travels on.
pub(super) type Hook = Box<dyn FnMut(Segment) -> Vec<Segment>>;

/// An endpoint at an address.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) events: Vec<(ConnectionHandle, Event)>,
}

/// Endpoints and the packets between them.
pub(super) struct Net {
    pub(super) now: Time,
    pub(super) nodes: Vec<Node>,
    pub(super) hook: Hook,
    /// Every segment that was sent, before the hook saw it.
    pub(super) log: Vec<(Time, Segment)>,
    /// Moments at which something was due.
    pub(super) moments: u64,
    under_way: BTreeMap<(Time, u64), Segment>,
    sequence: u64,
    ids: GuuidGenerator,
    buffer: Vec<u8>,
}

/// The address of the node at that place.
pub(super) fn address(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, place as u8 + 1], 4_433))
}

/// A certificate and its key.
pub(super) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A certificate for [`NAME`] and as many other names.
pub(super) fn make_identity(other_names: usize) -> Identity {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let names = (0..other_names).map(|nth| format!("another-name-of-the-server-{nth}.test"));
    let names: Vec<String> = names.chain([NAME.to_owned()]).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

/// The usual certificate, made once.
pub(super) fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| make_identity(0))
}

pub(super) fn server_tls((certificate, key): &Identity) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate.clone()], key.clone_key()).unwrap())
}

/// A client that trusts the server's certificate, or none. Its key share is a post-quantum one.
pub(super) fn client_tls(trusts: bool) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if trusts {
        roots.add(identity().0.clone()).unwrap();
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != rustls::NamedGroup::X25519MLKEM768);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The settings of tests: those that a server has by default, but without forward error correction, so that packets can be
/// counted.
pub(super) fn config() -> EndpointConfig {
    EndpointConfig { fec: FecConfig { mode: FecMode::Off, ..FecConfig::default() }, ..with_fec() }
}

/// With forward error correction, as by default.
pub(super) fn with_fec() -> EndpointConfig {
    EndpointConfig { node_key: [7; 32], ..EndpointConfig::default() }
}

pub(super) fn server_endpoint(config: &EndpointConfig) -> Endpoint {
    let config = EndpointConfig { server: Some(server_tls(identity())), ..config.clone() };
    Endpoint::new(Arc::new(config), [1; 32])
}

impl Net {
    /// A server and a client of equal settings, not connected.
    pub(super) fn new(config: &EndpointConfig) -> Self {
        let mut net = Self {
            now: START,
            nodes: Vec::new(),
            hook: Box::new(|segment| vec![segment]),
            log: Vec::new(),
            moments: 0,
            under_way: BTreeMap::new(),
            sequence: 0,
            ids: GuuidGenerator::new([3; 32]),
            buffer: vec![0; 1 << 20],
        };
        net.add(server_endpoint(config));
        net.add(Endpoint::new(Arc::new(config.clone()), [2; 32]));
        net
    }

    /// A server and a client that are connected, nothing being under way.
    pub(super) fn connected(config: &EndpointConfig) -> (Self, ConnectionHandle, ConnectionHandle) {
        let mut net = Self::new(config);
        let client = net.connect(CLIENT);
        net.run_for(RTT * 5);
        let server = net.server_handle().expect("the server has the connection");
        assert!(net.is_connected(CLIENT) && net.nodes[CLIENT].endpoint.connection(client).is_some());
        (net, client, server)
    }

    /// Adds an endpoint at the next address.
    pub(super) fn add(&mut self, endpoint: Endpoint) -> usize {
        self.nodes.push(Node { address: address(self.nodes.len()), endpoint, events: Vec::new() });
        self.nodes.len() - 1
    }

    /// What a client has to trust.
    pub(super) fn roots() -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(identity().0.clone()).unwrap();
        roots
    }

    pub(super) fn next_guuid(&mut self) -> Guuid {
        self.ids.next(1_735_689_600_000)
    }

    pub(super) fn options(&mut self) -> ConnectOptions {
        ConnectOptions {
            guuid: self.next_guuid(),
            remote: address(SERVER),
            server_name: NAME.to_owned(),
            alpn: Alpn::Stream,
            tls: client_tls(true),
        }
    }

    /// The client's endpoint begins anew with a server that knows nothing, or only what `tls` does.
    pub(super) fn restart_server(&mut self, config: &EndpointConfig, tls: &Arc<rustls::ServerConfig>) {
        let config = EndpointConfig { server: Some(Arc::clone(tls)), ..config.clone() };
        self.nodes[SERVER].endpoint = Endpoint::new(Arc::new(config), [9; 32]);
        self.nodes[SERVER].events.clear();
    }

    /// Connects the client at that place with the usual options.
    pub(super) fn connect(&mut self, place: usize) -> ConnectionHandle {
        let options = self.options();
        self.nodes[place].endpoint.connect(self.now, options).unwrap()
    }

    /// The server's only connection, which the application has heard of.
    pub(super) fn server_handle(&self) -> Option<ConnectionHandle> {
        let mut connected = self.nodes[SERVER].events.iter().filter(|event| matches!(event.1, Event::Connected { .. }));
        connected.next().map(|event| event.0)
    }

    pub(super) fn is_connected(&self, place: usize) -> bool {
        self.nodes[place].events.iter().any(|event| matches!(event.1, Event::Connected { .. }))
    }

    /// Why the node's connection closed.
    pub(super) fn closed(&self, place: usize) -> Option<CloseReason> {
        self.nodes[place].events.iter().find_map(|event| match &event.1 {
            Event::Closed(reason) => Some(reason.clone()),
            _ => None,
        })
    }

    /// Lets a segment travel as if it had been sent.
    pub(super) fn inject(&mut self, segment: Segment) {
        self.sequence += 1;
        self.under_way.insert((self.now + segment.delay, self.sequence), segment);
    }

    /// Hands a datagram to a node at once. What it answers stays in it.
    pub(super) fn hand(&mut self, place: usize, from: SocketAddr, data: &[u8]) {
        let mut data = data.to_vec();
        let received = Received { remote: from, local: None, ecn: 0, segment_size: data.len(), data: &mut data };
        self.nodes[place].endpoint.handle_datagram(self.now, received);
    }

    /// Lets everything happen that has its time within `duration`.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Goes on until the condition holds, or for `most` at most; whether it held.
    pub(super) fn wait_for(&mut self, most: Duration, condition: impl FnMut(&mut Self) -> bool) -> bool {
        self.run_until(self.now + most, condition)
    }

    fn run_until(&mut self, end: Time, mut condition: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.settle();
            if condition(self) {
                return true;
            }
            match self.next_time() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => return false,
            }
            self.moments += 1;
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let segment = entry.remove();
                if let Some(place) = self.nodes.iter().position(|node| node.address == segment.to) {
                    self.hand(place, segment.from, &segment.data);
                }
            }
        }
    }

    fn next_time(&mut self) -> Option<Time> {
        let timers = self.nodes.iter_mut().filter_map(|node| node.endpoint.poll_timeout());
        timers.chain(self.under_way.keys().map(|key| key.0).next()).min()
    }

    /// Does what is due, takes packets and events out of every endpoint, and checks what always holds.
    fn settle(&mut self) {
        for place in 0..self.nodes.len() {
            let endpoint = &mut self.nodes[place].endpoint;
            if endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                endpoint.handle_timeout(self.now);
            }
            self.transmit(place);
            let node = &mut self.nodes[place];
            while let Some(event) = node.endpoint.poll_event() {
                node.events.push(event);
            }
            let next = node.endpoint.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "the timers of node {place} spin: {next:?}, {:?}",
                self.now
            );
        }
    }

    fn transmit(&mut self, place: usize) {
        let segments_max = self.nodes[place].endpoint.config.segments_max;
        let from = self.nodes[place].address;
        for _ in 0..TRANSMITS_MAX {
            let Some(transmit) = self.nodes[place].endpoint.poll_transmit(self.now, &mut self.buffer) else { return };
            check_batch(&transmit, segments_max);
            let segments: Vec<Vec<u8>> =
                self.buffer[..transmit.len].chunks(transmit.segment_size).map(<[u8]>::to_vec).collect();
            for data in segments {
                let segment = Segment { from, to: transmit.remote, data, delay: DELAY };
                self.log.push((self.now, segment.clone()));
                for segment in (self.hook)(segment) {
                    self.inject(segment);
                }
            }
        }
        panic!("node {place} sends without end at one moment");
    }

    /// Everything that can be read of the stream.
    pub(super) fn read(&mut self, place: usize, handle: ConnectionHandle, id: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        let Some(mut connection) = self.nodes[place].endpoint.connection(handle) else { return all };
        while let Read::Data(data) = connection.read(id, usize::MAX) {
            all.extend_from_slice(&data);
        }
        all
    }

    /// Opens a stream and writes to it as much as is taken.
    pub(super) fn write(&mut self, place: usize, handle: ConnectionHandle, data: &[u8]) -> StreamId {
        let mut connection = self.nodes[place].endpoint.connection(handle).unwrap();
        let id = connection.open().unwrap();
        connection.write(id, &mut Bytes::copy_from_slice(data)).unwrap();
        id
    }

    /// Sends a message from the client to the server and tells whether it came.
    pub(super) fn delivers(&mut self, client: ConnectionHandle, server: ConnectionHandle) -> bool {
        let id = self.write(CLIENT, client, b"still here");
        let mut got = Vec::new();
        self.wait_for(Duration::from_secs(5), |net| {
            got.extend(net.read(SERVER, server, id));
            got == b"still here"
        })
    }
}

/// What holds for every batch: segments of one size but the last, no more than allowed, within what UDP carries.
fn check_batch(transmit: &Transmit, segments_max: usize) {
    assert!(transmit.len > 0 && transmit.len <= 65_507, "{transmit:?}");
    assert!((1..=transmit.len).contains(&transmit.segment_size), "{transmit:?}");
    assert!(transmit.len.div_ceil(transmit.segment_size) <= segments_max, "{transmit:?}");
}

/// The frames that `write` writes.
pub(super) fn frames(write: impl FnOnce(&mut FrameWriter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 1_100];
    let mut writer = FrameWriter::new(&mut buffer);
    write(&mut writer);
    let written = writer.written();
    buffer.truncate(written);
    buffer
}
