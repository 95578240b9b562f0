//! Neighbouring spans of a window, and how long they are in the eyes of one writer without looking at each.

use smallvec::SmallVec;

use super::Author;
use super::view::View;
use super::window::SessionIndex;

/// How many spans a chunk has before it is split.
pub(super) const CHUNK_SPANS_MAX: usize = 64;
/// How many changes a chunk remembers; with more it forgets the older half.
const CHUNK_CHANGES_MAX: usize = 16;

/// Units that one operation inserted, and what became of them.
#[derive(Debug, Clone)]
pub(super) struct Span {
    /// UTF-16 units.
    pub(super) len: u32,
    /// The version that inserted it.
    pub(super) version: u64,
    /// Who made that.
    pub(super) session: SessionIndex,
    /// Versions that deleted it, and who made them.
    pub(super) deletes: SmallVec<[(u64, SessionIndex); 1]>,
}

impl Span {
    /// Whether the view has it.
    pub(super) fn visible_in(&self, view: View) -> bool {
        view.knows(self.version, self.session)
            && !self.deletes.iter().any(|(version, session)| view.knows(*version, *session))
    }

    /// How many units the text of today has of it.
    pub(super) fn visible_now(&self) -> u32 {
        if self.deletes.is_empty() { self.len } else { 0 }
    }

    /// The last version that somebody else than `session` made who touched it.
    fn touched_by_others(&self, session: SessionIndex) -> u64 {
        let others = |(version, other)| if other == session { 0 } else { version };
        self.deletes.iter().map(|delete| others(*delete)).fold(others((self.version, self.session)), u64::max)
    }

    /// Cuts it after `at` units; gives the rest.
    pub(super) fn split(&mut self, at: u32) -> Span {
        let mut tail = self.clone();
        tail.len = self.len - at;
        self.len = at;
        tail
    }
}

/// What an operation did to the visible length of a chunk.
#[derive(Debug, Clone, Copy)]
struct Change {
    by: Author,
    units: i32,
    /// The last version of others that had touched the same span.
    after: u64,
}

/// Spans beside each other.
#[derive(Debug, Default, Clone)]
pub(super) struct Chunk {
    /// In the order of the text, deleted ones included.
    pub(super) spans: Vec<Span>,
    /// Units that the text of today has of it.
    pub(super) visible: usize,
    version_max: u64,
    /// All changes after the version `known_from`, oldest first.
    changes: Vec<Change>,
    known_from: u64,
}

impl Chunk {
    /// One of these.
    pub(super) fn of(spans: Vec<Span>) -> Self {
        let mut chunk = Self { spans, ..Self::default() };
        chunk.recount();
        chunk
    }

    /// Units that the view has of it.
    pub(super) fn length(&self, view: View) -> usize {
        let quick = self.length_by_changes(view);
        #[cfg(test)]
        assert!(quick.is_none_or(|length| length == self.length_by_spans(view)), "{self:?} in {view:?}");
        quick.unwrap_or_else(|| self.length_by_spans(view))
    }

    fn length_by_spans(&self, view: View) -> usize {
        self.spans.iter().filter(|span| span.visible_in(view)).map(|span| span.len as usize).sum()
    }

    /// The length of today without the changes that the view does not know. None where that is not the whole truth: where the view
    /// goes further back than is remembered, or its own session has changed what it does not know.
    fn length_by_changes(&self, view: View) -> Option<usize> {
        let seen = match view {
            View::Of(seen) if self.version_max > seen.version => seen,
            View::Latest | View::Of(_) => return Some(self.visible),
        };
        if seen.version < self.known_from || seen.waited.is_some() {
            return None;
        }
        let mut unknown = 0;
        for change in self.changes.iter().rev().take_while(|change| change.by.version > seen.version) {
            if change.by.session != seen.session {
                unknown += i64::from(change.units);
            } else if change.after > seen.version {
                return None;
            }
        }
        usize::try_from(self.visible as i64 - unknown).ok()
    }

    /// The visible length has changed by so many units.
    pub(super) fn changed(&mut self, by: Author, units: i32, after: u64) {
        if self.changes.len() == CHUNK_CHANGES_MAX {
            self.known_from = self.changes[CHUNK_CHANGES_MAX / 2 - 1].by.version;
            self.changes.drain(..CHUNK_CHANGES_MAX / 2);
        }
        self.changes.push(Change { by, units, after });
        self.visible = self.visible.saturating_add_signed(units as isize);
        self.version_max = by.version;
    }

    /// Marks a span as deleted; gives the units of today that go with that.
    pub(super) fn delete(&mut self, at: usize, by: Author) -> u32 {
        let span = &mut self.spans[at];
        let (visible, after) = (span.visible_now(), span.touched_by_others(by.session));
        span.deletes.push((by.version, by.session));
        self.changed(by, -(visible as i32), after);
        visible
    }

    /// Its spans are no longer those it knew.
    pub(super) fn recount(&mut self) {
        self.visible = self.spans.iter().map(|span| span.visible_now() as usize).sum();
        let touched = |span: &Span| span.deletes.iter().map(|(version, _)| *version).fold(span.version, u64::max);
        self.version_max = self.spans.iter().map(touched).max().unwrap_or(0);
        self.changes.clear();
        self.known_from = self.version_max;
    }
}
