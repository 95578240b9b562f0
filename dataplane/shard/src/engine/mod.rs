//! What a shard does: the protocol's endpoint between a port and an application.

mod control;
mod echo;
mod peers;
mod stats;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use quantum::{ConnectionHandle, Endpoint, Event, Received, Time};

pub(crate) use control::ControlApp;
pub(crate) use echo::EchoApp;
pub(crate) use peers::{Peers, Stray};
pub use stats::ShardStats;
pub(crate) use stats::StatsCell;

use crate::handoff::Doorbell;
use crate::work::{Port, Turn, Work};

/// Counters are published at most so often.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);
/// A shard that was asked to end does so after this, whatever its peers do.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The application of a shard's connections.
pub(crate) trait App {
    /// Something happened on a connection.
    fn on_event(&mut self, now: Time, endpoint: &mut Endpoint, handle: ConnectionHandle, event: Event);

    /// Does what others have asked for. True if there was anything.
    fn poll(&mut self, now: Time, endpoint: &mut Endpoint) -> bool;

    /// Whether the shard is to end.
    fn wants_shutdown(&self) -> bool;

    /// The shard is about to sleep. False if there is something to do.
    fn prepare_sleep(&mut self) -> bool;

    /// The shard is awake.
    fn awake(&mut self);
}

/// One shard's work.
pub(crate) struct Shard<A> {
    endpoint: Endpoint,
    app: A,
    peers: Peers,
    doorbell: Arc<Doorbell>,
    stats: Arc<StatsCell>,
    published_at: Time,
    /// When it ends at the latest, once it was asked to.
    ends_by: Option<Time>,
}

impl<A: App> Shard<A> {
    pub(crate) fn new(
        endpoint: Endpoint,
        app: A,
        peers: Peers,
        doorbell: Arc<Doorbell>,
        stats: Arc<StatsCell>,
    ) -> Self {
        Self { endpoint, app, peers, doorbell, stats, published_at: Time::ZERO, ends_by: None }
    }

    fn receive(&mut self, now: Time, port: &mut dyn Port) -> bool {
        let (endpoint, peers, mut worked) = (&mut self.endpoint, &mut self.peers, false);
        let more = port.receive(&mut |received| {
            worked = true;
            peers.route(received, &mut |received| endpoint.handle_datagram(now, received));
        });
        while let Some(refused) = port.unreachable() {
            worked = true;
            peers.route_refused(refused, &mut |refused| {
                endpoint.handle_unreachable(now, refused.remote, refused.quoted());
            });
        }
        while let Some(stray) = peers.take() {
            worked = true;
            match stray {
                Stray::Packet { remote, local, ecn, mut data } => {
                    let segment_size = data.len();
                    endpoint.handle_datagram(now, Received { remote, local, ecn, segment_size, data: &mut data });
                }
                Stray::Refused(refused) => endpoint.handle_unreachable(now, refused.remote, refused.quoted()),
            }
        }
        peers.ring();
        worked || more
    }

    fn tell_events(&mut self, now: Time) -> bool {
        let mut worked = false;
        while let Some((handle, event)) = self.endpoint.poll_event() {
            worked = true;
            self.app.on_event(now, &mut self.endpoint, handle, event);
        }
        worked
    }

    fn transmit(&mut self, now: Time, port: &mut dyn Port) -> bool {
        let mut worked = false;
        while let Some(buffer) = port.send_buffer() {
            let Some(transmit) = self.endpoint.poll_transmit(now, buffer) else { break };
            port.send(&transmit);
            worked = true;
        }
        worked
    }

    fn end_if_asked(&mut self, now: Time) -> bool {
        if self.ends_by.is_none() && self.app.wants_shutdown() {
            self.endpoint.close(now, 0, b"the endpoint shuts down");
            self.ends_by = Some(now + SHUTDOWN_TIMEOUT);
        }
        self.ends_by.is_some_and(|ends_by| self.endpoint.is_idle() || ends_by <= now)
    }

    fn publish(&mut self, now: Time, port: &dyn Port, force: bool) {
        if force || self.published_at + PUBLISH_INTERVAL <= now {
            self.published_at = now;
            self.stats.publish(&port.counters(), &self.endpoint.stats(), self.peers.counters());
        }
    }
}

impl<A: App> Work for Shard<A> {
    fn turn(&mut self, port: &mut dyn Port) -> Turn {
        let now = port.now();
        let mut worked = self.receive(now, port);
        if self.endpoint.poll_timeout().is_some_and(|due| due <= now) {
            self.endpoint.handle_timeout(now);
            worked = true;
        }
        worked |= self.tell_events(now);
        worked |= self.app.poll(now, &mut self.endpoint);
        let done = self.end_if_asked(now);
        worked |= self.tell_events(now);
        worked |= self.transmit(port.now(), port);
        self.publish(now, port, done);
        let ends_by = self.ends_by;
        let deadline = self.endpoint.poll_timeout().into_iter().chain(ends_by).min();
        Turn { worked, deadline, done }
    }

    fn prepare_park(&mut self) -> bool {
        self.doorbell.prepare_sleep();
        self.app.prepare_sleep() && self.peers.is_quiet()
    }

    fn woke(&mut self) {
        self.doorbell.awake();
        self.app.awake();
        self.stats.woke();
    }
}
