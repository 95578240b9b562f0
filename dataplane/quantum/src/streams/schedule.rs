//! Who is next: streams in line for their turn in a packet.

use std::collections::BTreeMap;

use crate::StreamId;

/// A stream's place in one line; none if it does not wait there.
#[derive(Debug, Default)]
pub(super) struct Place(Option<u64>);

/// Streams in line, in the order in which they joined. Each is there at most once, and leaves wherever it stands, so the
/// line never holds more than the streams that want something. Keyed by ticket: a stream's class (URG) would be the ticket's
/// high bits.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: BTreeMap<u64, StreamId>,
    tickets: u64,
}

impl Line {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Who is next.
    pub(super) fn first(&self) -> Option<StreamId> {
        self.waiting.first_key_value().map(|(_, id)| *id)
    }

    /// Puts the stream at the end if it wants to wait and does not, takes it out if it does not want to.
    pub(super) fn set(&mut self, id: StreamId, place: &mut Place, wants: bool) {
        match place.0 {
            None if wants => {
                place.0 = Some(self.tickets);
                self.waiting.insert(self.tickets, id);
                self.tickets += 1;
            }
            Some(ticket) if !wants => {
                self.waiting.remove(&ticket);
                place.0 = None;
            }
            _ => {}
        }
    }

    /// Moves the stream to the end if it waits.
    pub(super) fn requeue(&mut self, id: StreamId, place: &mut Place) {
        let waits = place.0.is_some();
        self.set(id, place, false);
        self.set(id, place, waits);
    }
}
