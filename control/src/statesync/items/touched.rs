//! Who wrote what of the items last, so that a write from an older base is held against the writes it did not know.

use std::collections::HashMap;

use super::change::{Change, ItemId};
use crate::statesync::text::{Author, Seen, SessionIndex};

/// Places remembered; beyond it the past is forgotten, and older bases are refused.
const PLACES_MAX: usize = 200_000;

/// A part of an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// Whether it exists.
    Existence,
    /// Anything of it.
    Anything,
    /// One key.
    Key(String),
    /// One key of its style.
    Style(String),
    /// Its text.
    Text,
}

/// The last write, and the last one of another session than that.
#[derive(Debug, Clone, Copy, Default)]
struct Writes {
    last: (u64, SessionIndex),
    last_of_others: u64,
}

impl Writes {
    fn write(&mut self, author: Author) {
        if self.last.1 != author.session {
            self.last_of_others = self.last.0;
        }
        self.last = (author.version, author.session);
    }

    /// The last write that a writer had not seen.
    fn unknown(&self, seen: Seen) -> Option<u64> {
        let is_own = self.last.1 == seen.session && seen.knows(self.last.0, self.last.1);
        let last = if is_own { self.last_of_others } else { self.last.0 };
        (last > seen.version).then_some(last)
    }
}

/// The last writes of every place.
#[derive(Debug)]
pub(super) struct Touched {
    places: HashMap<(ItemId, Part), Writes>,
    everything: Writes,
    floor: u64,
}

impl Touched {
    /// Knows of nothing before `floor`.
    pub(super) fn new(floor: u64) -> Self {
        Self { places: HashMap::new(), everything: Writes::default(), floor }
    }

    /// The oldest base that can be judged.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The last write to a part that a writer had not seen.
    pub(super) fn unknown(&self, item: &ItemId, part: Part, seen: Seen) -> Option<u64> {
        let at_place = self.places.get(&(item.clone(), part)).and_then(|writes| writes.unknown(seen));
        at_place.max(self.everything.unknown(seen))
    }

    /// The version that last wrote a part.
    pub(super) fn last(&self, item: &ItemId, part: Part) -> u64 {
        let at_place = self.places.get(&(item.clone(), part)).map_or(0, |writes| writes.last.0);
        at_place.max(self.everything.last.0).max(self.floor)
    }

    /// Records changes.
    pub(super) fn write(&mut self, changes: &[Change], author: Author) {
        if self.places.len() > PLACES_MAX {
            *self = Self::new(author.version - 1);
        }
        for change in changes {
            let mut parts = vec![Part::Anything];
            if change.action != super::change::Action::Change {
                parts.push(Part::Existence);
            }
            parts.extend(change.set.keys().cloned().map(Part::Key));
            parts.extend(change.style.keys().cloned().map(Part::Style));
            if !change.text.is_empty() {
                parts.push(Part::Text);
            }
            for part in parts {
                self.places.entry((change.item.clone(), part)).or_default().write(author);
            }
        }
    }

    /// Records that the whole content was replaced.
    pub(super) fn write_everything(&mut self, author: Author) {
        self.everything.write(author);
    }
}
