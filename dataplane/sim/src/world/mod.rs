//! Clients, a server and the network between them on one virtual clock.

mod checks;
mod duel;
mod endpoints;
mod incident;
mod observer;
mod pair;
mod scenario;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use quantum::{Endpoint, EndpointStats, Received, Time};

pub use duel::Duel;
pub use incident::{Incident, IncidentKind};
pub use pair::Pair;
pub use scenario::Scenario;

use crate::app::{Client, Fault, Server};
use crate::{Cipher, Datagram, Link, LinkStats, Meta};
use checks::{Connections, Limits};
use observer::Observer;
use trace::TraceHash;

/// No scenario lasts longer, in virtual time.
const DURATION_MAX: Duration = Duration::from_mins(15);
/// Rounds at one moment of virtual time at most: more mean that time stands still.
const ROUNDS_MAX: u32 = 100_000;
/// Which of the two links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up = 0,
    Down = 1,
}

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// How long it took, in virtual time.
    pub duration: Duration,
    /// Payload bytes that clients got back.
    pub bytes: u64,
    /// Clients whose connection ended in silence before they were done.
    pub clients_cut_off: u64,
    /// Times that the server followed a client to another address.
    pub migrations: u64,
    /// Addresses that changed and clocks that jumped while the world went on.
    pub incidents: u64,
    /// What the server counted.
    pub server: EndpointStats,
    /// What the path to the server did.
    pub up: LinkStats,
    /// What the path to the clients did.
    pub down: LinkStats,
}

/// Addresses of a datagram in the virtual network.
#[derive(Clone, Copy, Debug)]
struct Route {
    from: SocketAddr,
    to: SocketAddr,
    ecn: u8,
}

impl Meta for Route {
    fn ecn(&self) -> u8 {
        self.ecn
    }

    fn set_ecn(&mut self, ecn: u8) {
        self.ecn = ecn;
    }
}

/// An endpoint and its application.
struct Node<A> {
    endpoint: Endpoint,
    address: SocketAddr,
    /// How far its clock is ahead of the world's.
    ahead: Duration,
    app: A,
    /// Probe timeouts of each connection so far.
    probe_timeouts: BTreeMap<quantum::ConnectionHandle, u64>,
    /// Times that the peer of each connection was followed to another address.
    migrations: BTreeMap<quantum::ConnectionHandle, u64>,
}

impl<A> Node<A> {
    fn new(endpoint: Endpoint, address: SocketAddr, app: A) -> Self {
        Self {
            endpoint,
            address,
            ahead: Duration::ZERO,
            app,
            probe_timeouts: BTreeMap::new(),
            migrations: BTreeMap::new(),
        }
    }

    /// What its clock says at a moment of the world.
    fn local(&self, now: Time) -> Time {
        now + self.ahead
    }

    /// The moment of the world at which its clock says that.
    fn global(&self, local: Time) -> Time {
        Time::ZERO + (local - (Time::ZERO + self.ahead))
    }
}

/// What lies between the endpoints.
struct Network {
    up: Link<Route>,
    down: Link<Route>,
    trace: TraceHash,
    /// There if packets can be read.
    observer: Option<Observer>,
}

impl Network {
    /// Takes a packet from an endpoint.
    fn send(&mut self, now: Time, direction: Direction, route: Route, segment: &[u8]) -> Result<(), Fault> {
        self.trace.packet(now, direction, segment);
        if let Some(observer) = &mut self.observer {
            observer.packet(direction, segment)?;
        }
        let link = if direction == Direction::Up { &mut self.up } else { &mut self.down };
        link.process(now, Datagram { payload: segment.to_vec(), meta: route });
        Ok(())
    }
}

/// A virtual world.
pub struct World {
    now: Time,
    clients: Vec<Node<Client>>,
    server: Node<Server>,
    network: Network,
    limits: Limits,
    /// What is yet to befall the endpoints.
    incidents: VecDeque<Incident>,
    incidents_over: u64,
    /// Connections may end in silence before their clients are done.
    may_end_in_silence: bool,
    buffer: Vec<u8>,
}

impl World {
    /// The world of a scenario, before anything has happened in it.
    ///
    /// # Errors
    /// The scenario's links make no sense, or a connection cannot be started.
    pub fn new(scenario: &Scenario, cipher: Cipher) -> Result<Self, Fault> {
        let link = |config, purpose| {
            Link::new(config, scenario.seed.wrapping_add(purpose)).map_err(|bad| Fault::new(bad.to_string()))
        };
        let address = SocketAddr::from((Ipv4Addr::new(10, 1, 0, 1), 4_433));
        let may_end_in_silence = scenario.may_end_in_silence();
        let mut endpoints = endpoints::Factory::new(scenario, cipher);
        let mut clients = Vec::new();
        for (plan, host) in scenario.plans.iter().zip(1..) {
            let options = endpoints.connect_options(address);
            let home = SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), 5_000));
            let app = Client::new(plan.clone(), options, may_end_in_silence);
            clients.push(Node::new(endpoints.client(), home, app));
        }
        let server = Server::new(scenario.plans.clone());
        Ok(Self {
            now: Time::ZERO,
            clients,
            server: Node::new(endpoints.server(), address, server),
            network: Network {
                up: link(&scenario.up, 1)?,
                down: link(&scenario.down, 2)?,
                trace: TraceHash::new(cipher),
                observer: (cipher == Cipher::Null).then(|| Observer::new(endpoints.config())),
            },
            limits: Limits::new(endpoints.config(), scenario.plans.len()),
            incidents: scenario.incidents.iter().copied().collect(),
            incidents_over: 0,
            may_end_in_silence,
            buffer: vec![0; endpoints.buffer_len()],
        })
    }

    /// Lets everything happen until every connection is gone.
    ///
    /// # Errors
    /// What went wrong, and when.
    pub fn run(mut self) -> Result<Outcome, Fault> {
        let at = |now: Time, fault: Fault| Fault::new(format!("at {now:?}: {fault}"));
        loop {
            self.settle().map_err(|fault| at(self.now, fault))?;
            if self.is_over() {
                break;
            }
            let Some(next) = self.next_time() else {
                return Err(at(self.now, Fault::new("nothing will ever happen again, and connections are left")));
            };
            self.now = self.now.max(next);
            if self.now > Time::ZERO + DURATION_MAX {
                return Err(at(self.now, Fault::new(format!("it does not end; waiting: {}", self.waiting()))));
            }
            self.befall();
            self.handle_timeouts();
            self.deliver();
        }
        self.server.app.check_end(self.may_end_in_silence).map_err(|fault| at(self.now, fault))?;
        Ok(Outcome {
            trace_hash: self.network.trace.value(),
            duration: self.now - Time::ZERO,
            bytes: self.clients.iter().map(|node| node.app.bytes_checked()).sum(),
            clients_cut_off: self.clients.iter().filter(|node| node.app.is_cut_off()).count() as u64,
            incidents: self.incidents_over,
            migrations: self.server.migrations.values().sum(),
            server: self.server.endpoint.stats(),
            up: self.network.up.stats().clone(),
            down: self.network.down.stats().clone(),
        })
    }

    /// Lets applications and endpoints act until neither has anything more to do at this moment.
    fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..ROUNDS_MAX {
            let mut acted = false;
            for node in &mut self.clients {
                acted |= node.app.act(node.local(self.now), &mut node.endpoint)?;
                acted |= transmit(self.now, node, &mut self.buffer, &self.limits, |route, segment| {
                    self.network.send(self.now, Direction::Up, route, segment)
                })?;
            }
            acted |= self.server.app.act(&mut self.server.endpoint)?;
            acted |= transmit(self.now, &mut self.server, &mut self.buffer, &self.limits, |route, segment| {
                self.network.send(self.now, Direction::Down, route, segment)
            })?;
            if !acted {
                return Ok(());
            }
        }
        Err(Fault::new("time stands still: endpoints go on without end at one moment"))
    }

    fn next_time(&mut self) -> Option<Time> {
        let Network { up, down, .. } = &self.network;
        let server = self.server.endpoint.poll_timeout().map(|due| self.server.global(due));
        let others = [up.next_time(), down.next_time(), server, self.incidents.front().map(|incident| incident.at)];
        let clients = self.clients.iter_mut().flat_map(|node| {
            let due = [node.endpoint.poll_timeout(), node.app.next_time()];
            due.map(|due| due.map(|due| node.global(due)))
        });
        clients.chain(others).flatten().min()
    }

    /// Lets happen to the endpoints what is due.
    fn befall(&mut self) {
        while let Some(incident) = self.incidents.front().filter(|incident| incident.at <= self.now).copied() {
            self.incidents.pop_front();
            self.incidents_over += 1;
            match incident.kind {
                IncidentKind::Rebind { client, host } => {
                    if !self.server.app.knows(client) {
                        // A handshake stays where it began (RFC 9000 section 9).
                        self.may_end_in_silence = true;
                        self.clients[client].app.allow_silence();
                    }
                    let address = &mut self.clients[client].address;
                    address.set_port(address.port() + 1);
                    if let (true, IpAddr::V4(ip)) = (host, address.ip()) {
                        // The last byte goes on telling which client it is.
                        let [a, b, network, host] = ip.octets();
                        address.set_ip(Ipv4Addr::new(a, b, network + 1, host).into());
                    }
                }
                IncidentKind::ClockStep { client: Some(client) } => self.clients[client].ahead += Incident::CLOCK_STEP,
                IncidentKind::ClockStep { client: None } => self.server.ahead += Incident::CLOCK_STEP,
            }
        }
    }

    fn handle_timeouts(&mut self) {
        for node in &mut self.clients {
            handle_timeout(self.now, node);
        }
        handle_timeout(self.now, &mut self.server);
    }

    /// Hands over what has arrived. Datagrams to addresses where nobody is are lost.
    fn deliver(&mut self) {
        while let Some(datagram) = self.network.up.poll(self.now) {
            receive(self.server.local(self.now), &mut self.server.endpoint, datagram);
        }
        while let Some(datagram) = self.network.down.poll(self.now) {
            if let Some(node) = self.clients.iter_mut().find(|node| node.address == datagram.meta.to) {
                receive(node.local(self.now), &mut node.endpoint, datagram);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.clients.iter().all(|node| node.app.is_over() && node.endpoint.is_idle()) && self.server.endpoint.is_idle()
    }

    /// What clients still wait for, for people.
    fn waiting(&self) -> String {
        let waiting: Vec<String> = self.clients.iter().map(|node| node.app.waiting()).collect();
        waiting.join("; ")
    }
}

fn handle_timeout<A>(now: Time, node: &mut Node<A>) {
    let local = node.local(now);
    if node.endpoint.poll_timeout().is_some_and(|due| due <= local) {
        node.endpoint.handle_timeout(local);
    }
}

/// Sends what the endpoint has to send, and checks it; whether there was anything.
fn transmit<A: Connections>(
    now: Time,
    node: &mut Node<A>,
    buffer: &mut [u8],
    limits: &Limits,
    mut send: impl FnMut(Route, &[u8]) -> Result<(), Fault>,
) -> Result<bool, Fault> {
    let before = checks::in_flight(node);
    let mut sent = false;
    while let Some(transmit) = node.endpoint.poll_transmit(node.local(now), buffer) {
        sent = true;
        let data = buffer.get(..transmit.len).ok_or_else(|| Fault::new("more was sent than the buffer holds"))?;
        limits.check_transmit(&transmit)?;
        let route = Route { from: node.address, to: transmit.remote, ecn: transmit.ecn };
        data.chunks(transmit.segment_size).try_for_each(|segment| send(route, segment))?;
    }
    limits.check_connections(node, before)?;
    Ok(sent)
}

fn receive(now: Time, endpoint: &mut Endpoint, mut datagram: Datagram<Route>) {
    let Route { from, to, ecn } = datagram.meta;
    let segment_size = datagram.payload.len();
    let local: Option<IpAddr> = Some(to.ip());
    endpoint.handle_datagram(now, Received { remote: from, local, ecn, segment_size, data: &mut datagram.payload });
}
