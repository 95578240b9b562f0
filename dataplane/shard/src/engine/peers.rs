//! The other shards of a group: packets that came to the wrong one are handed over.
//!
//! The kernel steers datagrams, but one that it merged from several (GRO) may hold packets of several connections, and what
//! ICMP says of a datagram it gives to a socket that it picks by the addresses alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quantum::Received;
use quantum::wire::Header;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::handoff::Doorbell;
use crate::steering::shard_of;
use crate::work::Unreachable;

/// Packets that wait in one direction between two shards at most; one more is dropped like a lost one.
const STRAYS_MAX: usize = 256;

/// What is on its way to the shard of its connection.
#[derive(Debug)]
pub(crate) enum Stray {
    /// A packet.
    Packet { remote: SocketAddr, local: Option<IpAddr>, ecn: u8, data: Vec<u8> },
    /// A packet that its receiver's host refused. The kernel gives these to any socket of the group.
    Refused(Box<Unreachable>),
}

/// Packets handed over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerCounters {
    pub(crate) sent: u64,
    pub(crate) dropped: u64,
}

/// The way to another shard.
struct Peer {
    sender: Producer<Stray>,
    doorbell: Arc<Doorbell>,
    /// Something was sent since it was rung.
    to_ring: bool,
}

/// The ways between a shard and the others of its group.
pub(crate) struct Peers {
    index: usize,
    secret: u64,
    /// By index; none for the shard itself.
    others: Vec<Option<Peer>>,
    receivers: Vec<Consumer<Stray>>,
    counters: PeerCounters,
}

impl Peers {
    /// The ways between all shards with these doorbells.
    pub(crate) fn group(doorbells: &[Arc<Doorbell>], secret: u64) -> Vec<Self> {
        let mut group: Vec<Self> = (0..doorbells.len())
            .map(|index| Self {
                index,
                secret,
                others: Vec::new(),
                receivers: Vec::new(),
                counters: PeerCounters::default(),
            })
            .collect();
        for from in 0..doorbells.len() {
            for (to, doorbell) in doorbells.iter().enumerate() {
                if from == to {
                    group[from].others.push(None);
                    continue;
                }
                let (sender, receiver) = RingBuffer::new(STRAYS_MAX);
                group[from].others.push(Some(Peer { sender, doorbell: Arc::clone(doorbell), to_ring: false }));
                group[to].receivers.push(receiver);
            }
        }
        group
    }

    /// A shard without others.
    pub(crate) fn alone() -> Self {
        Self { index: 0, secret: 0, others: Vec::new(), receivers: Vec::new(), counters: PeerCounters::default() }
    }

    /// Gives a datagram to `take`, but for the packets of other shards' connections, which go there.
    pub(crate) fn route(&mut self, received: Received<'_>, take: &mut dyn FnMut(Received<'_>)) {
        let is_single = self.others.len() < 2;
        let Received { remote, local, ecn, segment_size, data } = received;
        if is_single || data.chunks(segment_size).all(|segment| self.owner(segment) == self.index) {
            take(Received { remote, local, ecn, segment_size, data });
            return;
        }
        for segment in data.chunks_mut(segment_size) {
            let owner = self.owner(segment);
            if owner == self.index {
                take(Received { remote, local, ecn, segment_size: segment.len(), data: segment });
            } else {
                self.send(owner, Stray::Packet { remote, local, ecn, data: segment.to_vec() });
            }
        }
    }

    /// Gives a refused packet to `take`, or to the shard of its connection.
    pub(crate) fn route_refused(&mut self, refused: Unreachable, take: &mut dyn FnMut(Unreachable)) {
        let owner = if self.others.len() < 2 { self.index } else { self.owner(refused.quoted()) };
        if owner == self.index {
            take(refused);
        } else {
            self.send(owner, Stray::Refused(Box::new(refused)));
        }
    }

    fn owner(&self, segment: &[u8]) -> usize {
        let guuid = Header::peek_guuid(segment);
        guuid.map_or(self.index, |guuid| shard_of(guuid.as_bytes(), self.secret, self.others.len()))
    }

    fn send(&mut self, owner: usize, stray: Stray) {
        let Some(peer) = self.others.get_mut(owner).and_then(Option::as_mut) else { return };
        if peer.sender.push(stray).is_ok() {
            peer.to_ring = true;
            self.counters.sent += 1;
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Tells the shards that something was sent to.
    pub(crate) fn ring(&mut self) {
        for peer in self.others.iter_mut().flatten() {
            if std::mem::take(&mut peer.to_ring) {
                peer.doorbell.ring();
            }
        }
    }

    /// The next packet that another shard handed over.
    pub(crate) fn take(&mut self) -> Option<Stray> {
        self.receivers.iter_mut().find_map(|receiver| receiver.pop().ok())
    }

    /// Whether nothing waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.receivers.iter().all(Consumer::is_empty)
    }

    /// What was handed over.
    pub(crate) fn counters(&self) -> PeerCounters {
        self.counters
    }
}
