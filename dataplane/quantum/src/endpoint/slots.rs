//! Where an endpoint keeps its connections, and how it finds them.

use std::collections::HashMap;

use super::ConnectionHandle;
use crate::connection::Connection;
use crate::{Guuid, Side, Time, TrafficStats};

/// A connection and what the endpoint has noted about it.
pub(super) struct Slot {
    pub(super) connection: Connection,
    /// When the endpoint's clock rings for it.
    pub(super) scheduled: Option<Time>,
    /// It is in the queue of those that may have something to send.
    pub(super) wants_transmit: bool,
    /// It is in the queue of those that may have events.
    pub(super) has_events: bool,
    /// It counts as a half-open handshake: it is a client's that never was connected, one that failed included.
    pub(super) is_half_open: bool,
    /// What it has added to the endpoint's traffic.
    accounted: TrafficStats,
}

impl Slot {
    /// Adds what has changed since the last time to the endpoint's traffic.
    pub(super) fn account(&mut self, total: &mut TrafficStats) {
        let now = self.connection.traffic();
        total.replace(&self.accounted, &now);
        self.accounted = now;
    }

    /// The same for the last time: what was sent stays counted, what is in flight or allowed goes with the connection.
    pub(super) fn retire(&mut self, total: &mut TrafficStats) {
        self.account(total);
        let left = TrafficStats { window_bytes: 0, in_flight_bytes: 0, ..self.accounted };
        total.replace(&self.accounted, &left);
        self.accounted = left;
    }
}

/// Connections by handle and by id.
#[derive(Default)]
pub(super) struct Slots {
    places: Vec<Place>,
    free: Vec<u32>,
    by_guuid: HashMap<Guuid, ConnectionHandle>,
    half_open: usize,
}

/// A place for a connection. Its generation makes handles unique.
#[derive(Default)]
struct Place {
    generation: u32,
    slot: Option<Box<Slot>>,
}

impl ConnectionHandle {
    const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }

    const fn index(self) -> usize {
        self.0 as u32 as usize
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Slots {
    /// Connections that exist.
    pub(super) fn len(&self) -> usize {
        self.by_guuid.len()
    }

    /// Half-open handshakes of clients.
    pub(super) fn half_open(&self) -> usize {
        self.half_open
    }

    /// Takes a connection in.
    pub(super) fn insert(&mut self, connection: Connection) -> ConnectionHandle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        let handle = ConnectionHandle::new(index, place.generation);
        self.by_guuid.insert(connection.id().guuid, handle);
        let is_half_open = connection.id().side == Side::Server && !connection.is_open();
        self.half_open += usize::from(is_half_open);
        place.slot = Some(Box::new(Slot {
            connection,
            scheduled: None,
            wants_transmit: false,
            has_events: false,
            is_half_open,
            accounted: TrafficStats::default(),
        }));
        handle
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, handle: ConnectionHandle) -> Option<Box<Slot>> {
        let place = self.places.get_mut(handle.index()).filter(|place| place.generation == handle.generation())?;
        let slot = place.slot.take()?;
        // A generation that would come round again retires its place.
        if let Some(next) = place.generation.checked_add(1) {
            place.generation = next;
            self.free.push(handle.index() as u32);
        }
        self.by_guuid.remove(&slot.connection.id().guuid);
        self.half_open -= usize::from(slot.is_half_open);
        if self.by_guuid.is_empty() {
            self.by_guuid.shrink_to(64);
        }
        Some(slot)
    }

    /// The handshake of a half-open connection is over.
    pub(super) fn on_handshake_over(&mut self, handle: ConnectionHandle) {
        if let Some(slot) = self.slot(handle)
            && slot.is_half_open
        {
            slot.is_half_open = false;
            self.half_open -= 1;
        }
    }

    /// The connection with that id.
    pub(super) fn find(&self, guuid: Guuid) -> Option<ConnectionHandle> {
        self.by_guuid.get(&guuid).copied()
    }

    /// The slot of that name.
    pub(super) fn slot(&mut self, handle: ConnectionHandle) -> Option<&mut Slot> {
        let place = self.places.get_mut(handle.index()).filter(|place| place.generation == handle.generation())?;
        place.slot.as_deref_mut()
    }

    /// The connection of that name.
    pub(super) fn get(&self, handle: ConnectionHandle) -> Option<&Connection> {
        let place = self.places.get(handle.index()).filter(|place| place.generation == handle.generation())?;
        Some(&place.slot.as_deref()?.connection)
    }

    /// The connection of that name.
    pub(super) fn get_mut(&mut self, handle: ConnectionHandle) -> Option<&mut Connection> {
        Some(&mut self.slot(handle)?.connection)
    }

    /// All connections, in the order of their places.
    pub(super) fn handles(&self) -> Vec<ConnectionHandle> {
        let occupied = |(index, place): (usize, &Place)| {
            place.slot.as_ref().map(|_| ConnectionHandle::new(index as u32, place.generation))
        };
        self.places.iter().enumerate().filter_map(occupied).collect()
    }
}
