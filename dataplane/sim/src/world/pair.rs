//! Clients and servers, a pair for each flow, over two links that all share: for measuring what the protocol achieves in virtual
//! time.

use std::net::SocketAddr;
use std::time::Duration;

use quantum::{ConnectOptions, ConnectionHandle, ConnectionRef, Endpoint, EndpointConfig, Event, RecoveryStats, Time};

use super::endpoints::Factory;
use super::{Route, receive};
use crate::{BadLink, Cipher, Datagram, Link, LinkConfig, LinkStats, Rng};

/// Rounds at one moment of virtual time at most: more mean that time stands still.
const ROUNDS_MAX: u32 = 100_000;

/// One end of a connection.
struct End {
    endpoint: Endpoint,
    address: SocketAddr,
    handle: Option<ConnectionHandle>,
}

/// Pairs of a client and a server, and the path between them. Whoever measures plays the applications.
pub struct Pair {
    now: Time,
    /// The client and the server of each flow in turn.
    ends: Vec<End>,
    /// How each client connects; taken when it does.
    options: Vec<Option<ConnectOptions>>,
    /// From the clients, and from the servers.
    links: [Link<Route>; 2],
    buffer: Vec<u8>,
}

impl Pair {
    /// A client and a server with these settings, connecting, with a path of that kind in each direction.
    ///
    /// # Errors
    /// The link makes no sense.
    pub fn new(link: &LinkConfig, config: &EndpointConfig, seed: u64, cipher: Cipher) -> Result<Self, BadLink> {
        let mut pair = Self::sharing(link, std::slice::from_ref(config), seed, cipher)?;
        pair.connect(0);
        Ok(pair)
    }

    /// A client and a server for each of the settings, none of them connecting yet, which share one path in each direction.
    ///
    /// # Errors
    /// The link makes no sense.
    pub fn sharing(link: &LinkConfig, configs: &[EndpointConfig], seed: u64, cipher: Cipher) -> Result<Self, BadLink> {
        let (mut ends, mut options, mut buffer_len) = (Vec::new(), Vec::new(), 0);
        for (config, flow) in configs.iter().zip(0_u8..) {
            let mut factory = Factory::with_config(config.clone(), Rng::derive(seed, 300 + u64::from(flow)), cipher);
            buffer_len = buffer_len.max(factory.buffer_len());
            let [client, server] = [0, 1].map(|host| SocketAddr::from(([10, flow, host, 1], 4_433)));
            for (endpoint, address) in [(factory.client(), client), (factory.server(), server)] {
                ends.push(End { endpoint, address, handle: None });
            }
            options.push(Some(factory.connect_options(server)));
        }
        Ok(Self {
            now: Time::ZERO + Duration::from_secs(1),
            ends,
            options,
            links: [Link::new(link, seed.wrapping_add(1))?, Link::new(link, seed.wrapping_add(2))?],
            buffer: vec![0; buffer_len],
        })
    }

    /// Starts the connection of a flow.
    ///
    /// # Panics
    /// If it was started before.
    pub fn connect(&mut self, flow: usize) {
        let options = self.options[flow].take().expect("a flow connects once");
        let client = &mut self.ends[2 * flow];
        let handle = client.endpoint.connect(self.now, options).expect("nothing else is connected");
        client.handle = Some(handle);
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
        self.client_of(0)
    }

    /// The connection of a flow's client.
    ///
    /// # Panics
    /// If it closed.
    pub fn client_of(&mut self, flow: usize) -> ConnectionRef<'_> {
        self.connection(2 * flow).expect("the client's connection lasts")
    }

    /// The server's connection, once the server has heard of it.
    pub fn server(&mut self) -> Option<ConnectionRef<'_>> {
        self.server_of(0)
    }

    /// The connection of a flow's server, once that has heard of it.
    pub fn server_of(&mut self, flow: usize) -> Option<ConnectionRef<'_>> {
        self.connection(2 * flow + 1)
    }

    /// How long what was lost was missing: at the client, and at the server.
    pub fn recoveries(&self) -> [RecoveryStats; 2] {
        [0, 1].map(|end| self.ends[end].endpoint.timings().read().recovery)
    }

    fn connection(&mut self, end: usize) -> Option<ConnectionRef<'_>> {
        let end = &mut self.ends[end];
        end.endpoint.connection(end.handle?)
    }

    /// Both directions drop larger datagrams from here on, if they had a limit before.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.links.iter_mut().for_each(|link| link.set_mtu(mtu));
    }

    /// Both directions have this rate from here on.
    pub fn set_rate(&mut self, bits_per_s: u64) {
        self.links.iter_mut().for_each(|link| link.set_rate(bits_per_s));
    }

    /// Both directions have this delay from here on.
    pub fn set_delay(&mut self, delay: Duration) {
        self.links.iter_mut().for_each(|link| link.set_delay(delay));
    }

    /// Bytes that wait on the way from the clients.
    pub fn queued_bytes(&self) -> u64 {
        self.links[0].queued_bytes()
    }

    /// What the path from the clients has done so far.
    pub const fn link_stats(&self) -> &LinkStats {
        self.links[0].stats()
    }

    /// What the path to the clients has done so far.
    pub const fn link_stats_to_clients(&self) -> &LinkStats {
        self.links[1].stats()
    }

    /// Goes to the next moment at which something happens, `until` at the latest. `react` gets the events of the client
    /// (false) and of the server (true), and plays the application.
    pub fn step(&mut self, until: Time, mut react: impl FnMut(&mut Self, bool, Event)) {
        self.step_all(until, |pair, (_, is_server), event| react(pair, is_server, event));
    }

    /// The same for several flows: `react` gets the flow too.
    pub fn step_all(&mut self, until: Time, mut react: impl FnMut(&mut Self, (usize, bool), Event)) {
        self.settle(&mut react);
        let ends = self.ends.iter_mut().map(|end| end.endpoint.poll_timeout());
        let next = ends.chain(self.links.iter().map(Link::next_time)).flatten().min();
        self.now = next.map_or(until, |next| next.min(until)).max(self.now);
        for link in &mut self.links {
            while let Some(datagram) = link.poll(self.now) {
                let to = self.ends.iter_mut().find(|end| end.address == datagram.meta.to);
                if let Some(end) = to {
                    receive(self.now, &mut end.endpoint, datagram);
                }
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
    fn settle(&mut self, react: &mut impl FnMut(&mut Self, (usize, bool), Event)) {
        for _ in 0..ROUNDS_MAX {
            let mut acted = false;
            for place in 0..self.ends.len() {
                while let Some((handle, event)) = self.ends[place].endpoint.poll_event() {
                    self.ends[place].handle.get_or_insert(handle);
                    react(self, (place / 2, place % 2 == 1), event);
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
        let (end, link) = (&mut self.ends[place], &mut self.links[place % 2]);
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
