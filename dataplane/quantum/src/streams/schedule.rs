//! Who is next: streams in line for their turn in a packet.

use std::collections::BTreeMap;

use crate::StreamId;

/// Bytes of a stream's turn for each unit of its weight. With the default weight a turn is about a packet's worth: not less, or
/// many streams with much to send would cut each other into small frames; not more, or a small message would wait behind
/// them.
const TURN_BYTES: u64 = 300;
/// A turn of so many bytes or more is not cut short at its end: what it took too much counts in the next one.
pub(super) const TURN_BYTES_WHOLE: u64 = 4 * TURN_BYTES;
/// Of so many bytes in a row of urgent streams, while others wait, the next packet begins with the others: they have at least a
/// sixteenth of what leaves.
pub(super) const URGENT_RUN_BYTES: u64 = 15 * 1200;

/// Which of a connection's streams are sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    /// Latency class: goes before streams that are not, as long as these keep a sixteenth of the bytes. Its packets have the
    /// flag URG.
    pub urgent: bool,
    /// A stream sends so many times 300 bytes, then the next one of its class has its turn: 1 to 64, others count as the
    /// nearest of these.
    pub weight: u8,
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgent: false, weight: 4 }
    }
}

impl Priority {
    /// Latency class, with the usual weight.
    pub const URGENT: Self = Self { urgent: true, weight: 4 };
    /// Behind everything that is not told otherwise: a quarter of its bytes.
    pub const BACKGROUND: Self = Self { urgent: false, weight: 1 };

    /// Bytes of a turn.
    pub(super) fn turn_bytes(self) -> u64 {
        TURN_BYTES * u64::from(self.weight.clamp(1, 64))
    }
}

/// A stream's place in one line: its class and ticket; none if it does not wait there.
#[derive(Debug, Default)]
pub(super) struct Place(Option<(bool, u64)>);

/// Streams in line, by class in the order in which they joined. Each is there at most once, and leaves wherever it stands, so
/// the line never holds more than the streams that want something.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Not urgent, and urgent.
    waiting: [BTreeMap<u64, StreamId>; 2],
    tickets: u64,
}

impl Line {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(BTreeMap::is_empty)
    }

    /// Whether somebody of that class waits.
    pub(super) fn has(&self, urgent: bool) -> bool {
        !self.waiting[usize::from(urgent)].is_empty()
    }

    /// Whether more than one of that class waits.
    pub(super) fn has_several(&self, urgent: bool) -> bool {
        self.waiting[usize::from(urgent)].len() > 1
    }

    /// Who of that class is next.
    pub(super) fn first(&self, urgent: bool) -> Option<StreamId> {
        self.waiting[usize::from(urgent)].first_key_value().map(|(_, id)| *id)
    }

    /// Puts the stream at the end of its class if it wants to wait and does not, takes it out if it does not want to.
    pub(super) fn set(&mut self, id: StreamId, place: &mut Place, urgent: bool, wants: bool) {
        match place.0 {
            None if wants => {
                place.0 = Some((urgent, self.tickets));
                self.waiting[usize::from(urgent)].insert(self.tickets, id);
                self.tickets += 1;
            }
            Some((class, ticket)) if !wants => {
                self.waiting[usize::from(class)].remove(&ticket);
                place.0 = None;
            }
            _ => {}
        }
    }

    /// Moves the stream to the end of that class if it waits.
    pub(super) fn requeue(&mut self, id: StreamId, place: &mut Place, urgent: bool) {
        let waits = place.0.is_some();
        self.set(id, place, urgent, false);
        self.set(id, place, urgent, waits);
    }
}
