//! Which parts of items were written when and by whom: what the server's conflicts are held against.

use std::collections::HashMap;

use super::items::Change;
use super::reference::Seen;

/// A part of an item, in words.
type Place = (&'static str, String, String);

const EXISTENCE: &str = "existence";
const ANYTHING: &str = "anything";

/// Every write of every part.
#[derive(Debug, Default)]
pub(super) struct Touched {
    writes: HashMap<Place, Vec<(u64, u16)>>,
    /// The items that were there from the start, made, and not deleted.
    existing: HashMap<(&'static str, String), bool>,
}

/// What an operation did not know and touches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// Whether the item is gone: then the change is dropped.
    pub(super) deletion: bool,
}

impl Touched {
    /// An item that was there from the start.
    pub(super) fn exists_from_start(&mut self, root: &'static str, id: &str) {
        self.existing.insert((root, id.to_owned()), true);
    }

    fn exists(&self, change: &Change) -> bool {
        self.existing.get(&(change.root, change.id.clone())).copied().unwrap_or(false)
    }

    fn is_unknown(&self, change: &Change, part: &str, seen: Seen) -> bool {
        let writes = self.writes.get(&(change.root, change.id.clone(), part.to_owned()));
        writes.is_some_and(|writes| writes.iter().any(|write| !seen.knows(*write)))
    }

    /// What a change touches of the writes that its writer did not know, if anything.
    pub(super) fn clash(&self, kind: &str, change: &Change, seen: Seen) -> Option<Clash> {
        let exists = self.exists(change);
        let unknown = |part: &str| self.is_unknown(change, part, seen);
        let (clashes, deletion) = match kind {
            "delete" => (exists && unknown(ANYTHING), false),
            "create" if exists => (unknown(EXISTENCE), false),
            "create" => (self.keys_are_unknown(change, seen), false),
            _ if !exists => (unknown(EXISTENCE), true),
            _ => (self.keys_are_unknown(change, seen), false),
        };
        clashes.then_some(Clash { deletion })
    }

    fn keys_are_unknown(&self, change: &Change, seen: Seen) -> bool {
        parts(change).iter().any(|part| self.is_unknown(change, part, seen))
    }

    /// Notes what an operation changed.
    pub(super) fn write(&mut self, kind: &str, changes: &[Change], by: (u64, u16)) {
        for change in changes {
            let mut parts = parts(change);
            parts.push(ANYTHING.to_owned());
            if kind == "create" || kind == "delete" {
                parts.push(EXISTENCE.to_owned());
            }
            for part in parts {
                self.writes.entry((change.root, change.id.clone(), part)).or_default().push(by);
            }
            self.existing.insert((change.root, change.id.clone()), kind != "delete");
        }
    }
}

/// The keys and marks that a change writes. Edits of its text merge, and clash with nothing.
fn parts(change: &Change) -> Vec<String> {
    let keys = change.set.keys().map(|key| format!("key {key}"));
    keys.chain(change.style.keys().map(|key| format!("style {key}"))).collect()
}
