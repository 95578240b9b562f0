//! Clients, a server and the network between them on one virtual clock.

mod checks;
mod endpoints;
mod observer;
mod pair;
mod scenario;
mod trace;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use quantum::{Endpoint, EndpointStats, Received, Time};

pub use pair::Pair;
pub use scenario::Scenario;

use crate::app::{Client, Fault, Server};
use crate::{Cipher, Datagram, Link, LinkStats};
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

/// An endpoint and its application.
struct Node<A> {
    endpoint: Endpoint,
    address: SocketAddr,
    app: A,
    /// Probe timeouts of each connection so far.
    probe_timeouts: BTreeMap<quantum::ConnectionHandle, u64>,
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
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 4_433));
        let mut endpoints = endpoints::Factory::new(scenario.seed, cipher);
        let mut clients = Vec::new();
        for (plan, host) in scenario.plans.iter().zip(1..) {
            let options = endpoints.connect_options(address);
            clients.push(Node {
                endpoint: endpoints.client(),
                address: SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), 5_000)),
                app: Client::new(plan.clone(), options),
                probe_timeouts: BTreeMap::new(),
            });
        }
        let known = clients.iter().zip(&scenario.plans).map(|(node, plan)| (node.address, plan.clone())).collect();
        Ok(Self {
            now: Time::ZERO,
            clients,
            server: Node {
                endpoint: endpoints.server(),
                address,
                app: Server::new(known),
                probe_timeouts: BTreeMap::new(),
            },
            network: Network {
                up: link(&scenario.up, 1)?,
                down: link(&scenario.down, 2)?,
                trace: TraceHash::new(cipher),
                observer: (cipher == Cipher::Null).then(|| Observer::new(endpoints.config())),
            },
            limits: Limits::new(endpoints.config(), scenario.plans.len()),
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
            self.handle_timeouts();
            self.deliver();
        }
        self.server.app.check_end().map_err(|fault| at(self.now, fault))?;
        Ok(Outcome {
            trace_hash: self.network.trace.value(),
            duration: self.now - Time::ZERO,
            bytes: self.clients.iter().map(|node| node.app.bytes_checked()).sum(),
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
                acted |= node.app.act(self.now, &mut node.endpoint)?;
                acted |= transmit(self.now, node, &mut self.buffer, &self.limits, |route, segment| {
                    self.network.send(self.now, Direction::Up, route, segment)
                })?;
            }
            acted |= self.server.app.act(self.now, &mut self.server.endpoint)?;
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
        let links = [up.next_time(), down.next_time(), self.server.endpoint.poll_timeout()];
        let clients = self.clients.iter_mut().flat_map(|node| [node.endpoint.poll_timeout(), node.app.next_time()]);
        clients.chain(links).flatten().min()
    }

    fn handle_timeouts(&mut self) {
        let now = self.now;
        let clients = self.clients.iter_mut().map(|node| &mut node.endpoint);
        for endpoint in clients.chain([&mut self.server.endpoint]) {
            if endpoint.poll_timeout().is_some_and(|due| due <= now) {
                endpoint.handle_timeout(now);
            }
        }
    }

    /// Hands over what has arrived. Datagrams to addresses where nobody is are lost.
    fn deliver(&mut self) {
        while let Some(datagram) = self.network.up.poll(self.now) {
            receive(self.now, &mut self.server.endpoint, datagram);
        }
        while let Some(datagram) = self.network.down.poll(self.now) {
            if let Some(node) = self.clients.iter_mut().find(|node| node.address == datagram.meta.to) {
                receive(self.now, &mut node.endpoint, datagram);
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
    while let Some(transmit) = node.endpoint.poll_transmit(now, buffer) {
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
