//! Two endpoints back to back in virtual time, on buffers that are made once: what is allocated, or counted in instructions,
//! is the packet path's.
#![expect(clippy::unwrap_used, reason = "for tests and benches alone")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quantum::{
    Alpn, ConnectOptions, ConnectionHandle, ConnectionRef, Endpoint, EndpointConfig, Event, FecConfig, FecMode,
    GuuidGenerator, PathConfig, Read, Received, StreamId, Time,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// From one end to the other.
const DELAY: Duration = Duration::from_millis(1);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4_433);
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4_434);
const NAME: &str = "server.test";
/// What is written at once in bulk.
static CHUNK: Bytes = Bytes::from_static(&[0x5a; 64 << 10]);
static MESSAGE: Bytes = Bytes::from_static(&[0xa5; 256]);

/// What the applications do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// The client writes as much as it may.
    Bulk,
    /// The client writes 256 bytes every 5 ms, and the server sends them back.
    Messages,
}

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) load: Load,
    pub(crate) fec: FecMode,
    /// One packet of so many is lost in each direction; none if it is zero.
    pub(crate) loses_every: u64,
    /// UDP payload of a full packet.
    pub(crate) datagram_size: u16,
}

/// One transmit on its way.
struct Flight {
    at: Time,
    segment_size: usize,
    data: Vec<u8>,
    len: usize,
}

struct End {
    endpoint: Endpoint,
    address: SocketAddr,
    handle: Option<ConnectionHandle>,
    stream: Option<StreamId>,
    /// What it has sent and is under way.
    wire: VecDeque<Flight>,
    /// Packets that left it.
    sent: u64,
}

/// The two ends.
pub(crate) struct BackToBack {
    setup: Setup,
    now: Time,
    ends: [End; 2],
    /// Buffers for transmits.
    free: Vec<Vec<u8>>,
    buffer_len: usize,
    next_message_at: Time,
    unwritten: Bytes,
    /// Bytes that the server's application read, or the client's with [`Load::Messages`].
    pub(crate) read_bytes: u64,
}

fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let (certificate, key) = identity();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = [&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_protocol_versions(&versions).unwrap().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
    (Arc::new(server), Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}

impl BackToBack {
    /// Two ends that have connected, with one stream open.
    pub(crate) fn new(setup: Setup) -> Self {
        let (server, client) = tls();
        let config = EndpointConfig {
            fec: FecConfig { mode: setup.fec, ..FecConfig::default() },
            path: PathConfig {
                datagram_size: setup.datagram_size,
                datagram_size_max: setup.datagram_size,
                ..PathConfig::default()
            },
            ..EndpointConfig::default()
        };
        let buffer_len = config.segments_max * usize::from(setup.datagram_size);
        let end = |server, address, seed| End {
            endpoint: Endpoint::new(Arc::new(EndpointConfig { server, ..config.clone() }), [seed; 32]),
            address,
            handle: None,
            stream: None,
            wire: VecDeque::with_capacity(1 << 12),
            sent: 0,
        };
        let now = Time::from_nanos(1_000_000_000);
        let mut pair = Self {
            setup,
            now,
            ends: [end(None, CLIENT, 1), end(Some(server), SERVER, 2)],
            free: Vec::with_capacity(1 << 12),
            buffer_len,
            next_message_at: now,
            unwritten: CHUNK.clone(),
            read_bytes: 0,
        };
        let options = ConnectOptions {
            guuid: GuuidGenerator::new([3; 32]).next(1_735_689_600_000),
            remote: SERVER,
            server_name: NAME.to_owned(),
            alpn: Alpn::Stream,
            tls: client,
        };
        pair.ends[0].handle = Some(pair.ends[0].endpoint.connect(now, options).unwrap());
        while pair.ends[0].stream.is_none() {
            pair.step();
        }
        pair
    }

    /// Packets that left either end.
    pub(crate) fn packets(&self) -> u64 {
        self.ends[0].sent + self.ends[1].sent
    }

    /// Symbols that restored something at either end.
    pub(crate) fn restored(&mut self) -> u64 {
        (0..2).map(|place| self.connection(place).map_or(0, |connection| connection.stats().fec.recovered)).sum()
    }

    /// Goes on until so many more packets have left.
    pub(crate) fn run(&mut self, packets: u64) {
        let until = self.packets() + packets;
        while self.packets() < until {
            self.step();
        }
    }

    fn connection(&mut self, place: usize) -> Option<ConnectionRef<'_>> {
        let end = &mut self.ends[place];
        end.endpoint.connection(end.handle?)
    }

    fn step(&mut self) {
        self.act();
        for place in 0..2 {
            while self.transmit(place) {}
        }
        let sends = self.setup.load == Load::Messages && self.ends[0].stream.is_some();
        let next_message = sends.then_some(self.next_message_at);
        let timeouts = self.ends.iter_mut().filter_map(|end| end.endpoint.poll_timeout());
        let mut next = timeouts.chain(next_message).min().unwrap();
        for end in &self.ends {
            next = end.wire.front().map_or(next, |flight| flight.at.min(next));
        }
        self.now = next.max(self.now);
        for place in 0..2 {
            self.deliver(place);
            let end = &mut self.ends[place];
            if end.endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                end.endpoint.handle_timeout(self.now);
            }
        }
    }

    fn transmit(&mut self, place: usize) -> bool {
        let mut data = self.free.pop().unwrap_or_else(|| vec![0; self.buffer_len]);
        let end = &mut self.ends[place];
        let Some(transmit) = end.endpoint.poll_transmit(self.now, &mut data) else {
            self.free.push(data);
            return false;
        };
        end.sent += transmit.len.div_ceil(transmit.segment_size) as u64;
        let at = self.now + DELAY;
        end.wire.push_back(Flight { at, segment_size: transmit.segment_size, data, len: transmit.len });
        true
    }

    /// Takes in what end `place` has sent and has arrived.
    fn deliver(&mut self, place: usize) {
        while self.ends[place].wire.front().is_some_and(|flight| flight.at <= self.now) {
            let mut flight = self.ends[place].wire.pop_front().unwrap();
            let (remote, first) = (self.ends[place].address, self.ends[place].sent);
            let to = &mut self.ends[1 - place].endpoint;
            let received = |data, segment_size| Received { remote, local: None, ecn: 0, segment_size, data };
            let every = self.setup.loses_every;
            if every == 0 {
                to.handle_datagram(self.now, received(&mut flight.data[..flight.len], flight.segment_size));
            } else {
                for (nth, segment) in flight.data[..flight.len].chunks_mut(flight.segment_size).enumerate() {
                    let len = segment.len();
                    // Numbers as good as any: they are the same in every run.
                    let number = (first + nth as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                    if !number.is_multiple_of(every) || to.stats().handshakes > 0 {
                        to.handle_datagram(self.now, received(segment, len));
                    }
                }
            }
            self.free.push(flight.data);
            self.act();
        }
    }

    /// Both applications do what they have to.
    fn act(&mut self) {
        for place in 0..2 {
            while let Some((handle, event)) = self.ends[place].endpoint.poll_event() {
                self.ends[place].handle.get_or_insert(handle);
                match event {
                    Event::Connected { .. } if place == 0 => {
                        let opened = self.connection(0).unwrap().open();
                        self.ends[0].stream = Some(opened.unwrap());
                    }
                    Event::StreamOpened(id) => self.ends[place].stream = Some(id),
                    Event::StreamReadable(_) => self.read(place),
                    Event::Closed(reason) => panic!("{reason:?}"),
                    _ => {}
                }
            }
        }
        let Some(id) = self.ends[0].stream else { return };
        match self.setup.load {
            Load::Bulk => while self.write(0, id) {},
            Load::Messages if self.next_message_at <= self.now => {
                self.next_message_at = self.now + Duration::from_millis(5);
                let taken = self.connection(0).unwrap().write(id, &mut MESSAGE.clone());
                assert_eq!(taken, Ok(MESSAGE.len()), "there is room");
            }
            Load::Messages => {}
        }
    }

    /// Writes in bulk; whether all of a chunk was taken.
    fn write(&mut self, place: usize, id: StreamId) -> bool {
        let mut chunk = std::mem::take(&mut self.unwritten);
        self.connection(place).unwrap().write(id, &mut chunk).unwrap();
        let all = chunk.is_empty();
        self.unwritten = if all { CHUNK.clone() } else { chunk };
        all
    }

    fn read(&mut self, place: usize) {
        let Some(id) = self.ends[place].stream else { return };
        let is_last = self.setup.load == Load::Bulk || place == 0;
        loop {
            let Read::Data(mut data) = self.connection(place).unwrap().read(id, usize::MAX) else { return };
            if is_last {
                self.read_bytes += data.len() as u64;
            } else {
                self.connection(place).unwrap().write(id, &mut data).unwrap();
            }
        }
    }
}
