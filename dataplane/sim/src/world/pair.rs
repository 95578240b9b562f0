//! A client and a server over two links, for measuring what the protocol achieves in virtual time.

use std::net::SocketAddr;
use std::time::Duration;

use quantum::{ConnectionHandle, ConnectionRef, Endpoint, EndpointConfig, Event, Time};

use super::endpoints::{DATAGRAM_SIZE, Factory};
use super::{Route, receive};
use crate::{BadLink, Cipher, Datagram, Link, LinkConfig, Rng};

/// Rounds at one moment of virtual time at most: more mean that time stands still.
const ROUNDS_MAX: u32 = 100_000;

/// One end of the connection.
struct End {
    endpoint: Endpoint,
    address: SocketAddr,
    handle: Option<ConnectionHandle>,
}

/// A client, a server and the path between them. Whoever measures plays both applications.
pub struct Pair {
    now: Time,
    /// The client and the server.
    ends: [End; 2],
    /// From the client, and from the server.
    links: [Link<Route>; 2],
    buffer: Vec<u8>,
}

impl Pair {
    /// A client and a server with these settings, connecting, with a path of that kind in each direction.
    ///
    /// # Errors
    /// The link makes no sense.
    pub fn new(link: &LinkConfig, config: &EndpointConfig, seed: u64, cipher: Cipher) -> Result<Self, BadLink> {
        let config = EndpointConfig { datagram_size: DATAGRAM_SIZE as u16, ..config.clone() };
        let buffer = vec![0; config.segments_max * usize::from(config.datagram_size)];
        let mut factory = Factory::with_config(config, Rng::derive(seed, 300), cipher);
        let address = |host| SocketAddr::from(([10, 0, host, 1], 4_433));
        let (client, server) = (address(0), address(1));
        let mut pair = Self {
            now: Time::ZERO + Duration::from_secs(1),
            ends: [(factory.client(), client), (factory.server(), server)].map(|(endpoint, address)| End {
                endpoint,
                address,
                handle: None,
            }),
            links: [Link::new(link, seed.wrapping_add(1))?, Link::new(link, seed.wrapping_add(2))?],
            buffer,
        };
        let options = factory.connect_options(server);
        let handle = pair.ends[0].endpoint.connect(pair.now, options).expect("nothing else is connected");
        pair.ends[0].handle = Some(handle);
        Ok(pair)
    }

    /// The virtual time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// The client's connection.
    ///
    /// # Panics
    /// If it closed.
    pub fn client(&mut self) -> ConnectionRef<'_> {
        self.connection(0).expect("the client's connection lasts")
    }

    /// The server's connection, once the server has heard of it.
    pub fn server(&mut self) -> Option<ConnectionRef<'_>> {
        self.connection(1)
    }

    fn connection(&mut self, end: usize) -> Option<ConnectionRef<'_>> {
        let end = &mut self.ends[end];
        end.endpoint.connection(end.handle?)
    }

    /// Goes to the next moment at which something happens, `until` at the latest. `react` gets the events of the client
    /// (false) and of the server (true), and plays the application.
    pub fn step(&mut self, until: Time, mut react: impl FnMut(&mut Self, bool, Event)) {
        self.settle(&mut react);
        let ends = self.ends.iter_mut().map(|end| end.endpoint.poll_timeout());
        let next = ends.chain(self.links.iter().map(Link::next_time)).flatten().min();
        self.now = next.map_or(until, |next| next.min(until)).max(self.now);
        for (link, to) in [(0, 1), (1, 0)] {
            while let Some(datagram) = self.links[link].poll(self.now) {
                receive(self.now, &mut self.ends[to].endpoint, datagram);
            }
        }
        for end in &mut self.ends {
            if end.endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                end.endpoint.handle_timeout(self.now);
            }
        }
        self.settle(&mut react);
    }

    /// Lets applications and endpoints act until neither has anything more to do at this moment.
    fn settle(&mut self, react: &mut impl FnMut(&mut Self, bool, Event)) {
        for _ in 0..ROUNDS_MAX {
            let mut acted = false;
            for place in 0..2 {
                while let Some((handle, event)) = self.ends[place].endpoint.poll_event() {
                    self.ends[place].handle.get_or_insert(handle);
                    react(self, place == 1, event);
                    acted = true;
                }
                acted |= self.transmit(place);
            }
            if !acted {
                return;
            }
        }
        panic!("time stands still at {:?}", self.now);
    }

    fn transmit(&mut self, place: usize) -> bool {
        let (end, link) = (&mut self.ends[place], &mut self.links[place]);
        let mut sent = false;
        while let Some(transmit) = end.endpoint.poll_transmit(self.now, &mut self.buffer) {
            sent = true;
            let route = Route { from: end.address, to: transmit.remote, ecn: transmit.ecn };
            for segment in self.buffer[..transmit.len].chunks(transmit.segment_size) {
                link.process(self.now, Datagram { payload: segment.to_vec(), meta: route });
            }
        }
        sent
    }
}
