//! The writers of one document: their numbers, and operations that arrived before their turn.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::text::SessionIndex;

/// How long an operation waits for those before it.
pub(super) const HOLD_TIME: Duration = Duration::from_secs(10);
/// Operations that wait, over all sessions of a document.
const HELD_MAX: usize = 8192;
/// Bytes of data that wait.
const HELD_BYTES_MAX: usize = 32 << 20;
/// Sessions of one document in memory; beyond it the document is loaded afresh, with recent ones only.
const SESSIONS_MAX: usize = 100_000;

/// When an operation is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now.
    Now,
    /// After others of its session.
    Later,
    /// Its number was used already; the session is due this number.
    Passed(u64),
}

struct Session<T> {
    index: SessionIndex,
    next: u64,
    held: BTreeMap<u64, Held<T>>,
}

struct Held<T> {
    item: T,
    bytes: usize,
    deadline: Instant,
}

/// Sessions and what they wait for.
pub(super) struct Sessions<T> {
    by_id: HashMap<Uuid, Session<T>>,
    held: usize,
    held_bytes: usize,
}

impl<T> Sessions<T> {
    /// No sessions.
    pub(super) fn new() -> Self {
        Self { by_id: HashMap::new(), held: 0, held_bytes: 0 }
    }

    /// The number of a session in this document, from 1.
    pub(super) fn index(&mut self, id: Uuid) -> SessionIndex {
        self.session(id).index
    }

    /// Whether more sessions were seen than are worth their memory.
    pub(super) fn is_crowded(&self) -> bool {
        self.by_id.len() > SESSIONS_MAX
    }

    /// Whether anything waits.
    pub(super) fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// When the operation with `sequence` is due; 0 is always due.
    pub(super) fn turn(&mut self, id: Uuid, sequence: u64) -> Turn {
        let next = self.session(id).next;
        match sequence {
            0 => Turn::Now,
            _ if sequence == next => Turn::Now,
            _ if sequence > next => Turn::Later,
            _ => Turn::Passed(next),
        }
    }

    /// Records that the operation with `sequence` was accepted.
    pub(super) fn accepted(&mut self, id: Uuid, sequence: u64) {
        if sequence > 0 {
            let session = self.session(id);
            session.next = session.next.max(sequence + 1);
        }
    }

    /// Keeps an operation until its turn, in place of an earlier one with its number, which it returns.
    ///
    /// # Errors
    /// The operation itself if there is no room.
    pub(super) fn hold(&mut self, id: Uuid, sequence: u64, item: T, bytes: usize) -> Result<Option<T>, T> {
        if self.held >= HELD_MAX || self.held_bytes + bytes > HELD_BYTES_MAX {
            return Err(item);
        }
        self.held += 1;
        self.held_bytes += bytes;
        let held = Held { item, bytes, deadline: Instant::now() + HOLD_TIME };
        let replaced = self.session(id).held.insert(sequence, held);
        Ok(replaced.map(|replaced| self.release(replaced)))
    }

    /// The operation whose turn it is now.
    pub(super) fn take_next(&mut self, id: Uuid) -> Option<T> {
        let session = self.by_id.get_mut(&id)?;
        let held = session.held.remove(&session.next)?;
        Some(self.release(held))
    }

    /// Everything that waits in a session.
    pub(super) fn take_all(&mut self, id: Uuid) -> Vec<T> {
        let Some(session) = self.by_id.get_mut(&id) else { return Vec::new() };
        let held = std::mem::take(&mut session.held);
        held.into_values().map(|held| self.release(held)).collect()
    }

    /// Everything that waited too long, with the number that its session is due.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<(T, u64)> {
        let mut expired = Vec::new();
        for session in self.by_id.values_mut().filter(|session| !session.held.is_empty()) {
            let due = session.next;
            expired.extend(session.held.extract_if(.., |_, held| held.deadline <= now).map(|(_, held)| (held, due)));
        }
        expired.into_iter().map(|(held, due)| (self.release(held), due)).collect()
    }

    fn release(&mut self, held: Held<T>) -> T {
        self.held -= 1;
        self.held_bytes -= held.bytes;
        held.item
    }

    fn session(&mut self, id: Uuid) -> &mut Session<T> {
        let index = self.by_id.len() as SessionIndex + 1;
        self.by_id.entry(id).or_insert_with(|| Session { index, next: 1, held: BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_a_session_come_out_in_the_order_of_their_numbers() {
        let mut sessions = Sessions::new();
        let id = Uuid::now_v7();
        assert_eq!(sessions.turn(id, 2), Turn::Later);
        assert_eq!(sessions.hold(id, 3, "c", 1), Ok(None));
        assert_eq!(sessions.hold(id, 2, "lost", 1), Ok(None));
        assert_eq!(sessions.hold(id, 2, "b", 1), Ok(Some("lost")));
        assert!(sessions.take_next(id).is_none());
        assert_eq!(sessions.turn(id, 1), Turn::Now);
        sessions.accepted(id, 1);
        assert_eq!(sessions.take_next(id), Some("b"));
        sessions.accepted(id, 2);
        assert_eq!(sessions.take_next(id), Some("c"));
        sessions.accepted(id, 3);
        assert_eq!(sessions.turn(id, 2), Turn::Passed(4));
        assert!(!sessions.is_holding());
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut sessions = Sessions::new();
        let id = Uuid::now_v7();
        for sequence in 0..HELD_MAX as u64 {
            assert_eq!(sessions.hold(id, sequence + 2, (), 1), Ok(None));
        }
        assert_eq!(sessions.hold(id, 1 << 40, (), 1), Err(()));
        assert_eq!(sessions.take_all(id).len(), HELD_MAX);
        assert_eq!(sessions.hold(id, 2, (), HELD_BYTES_MAX + 1), Err(()));
    }
}
