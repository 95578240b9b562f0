//! Recent history as spans, so that a position in an earlier state, as one writer saw it, can be found in the text of today.
//!
//! The document is a sequence of spans, deleted ones included while some base version in the window may still see them. A span
//! knows the version and session that inserted it and those that deleted it; whether it was visible after version P plus the
//! later operations of session S follows from that alone. Spans lie in chunks that know their visible length and what the last
//! few changes did to it, so that nearly every chunk is skipped whole.

use smallvec::SmallVec;

use super::chunk::{CHUNK_SPANS_MAX, Chunk, Span};
use super::view::{Seen, View};
use super::{Author, Edit};

/// Sessions are numbered per document, from 1.
pub type SessionIndex = u32;

/// How many versions back a base may be.
const VERSIONS_MAX: u64 = 65_536;
/// How many spans are kept; when there are more, the oldest half of the window is given up.
const SPANS_MAX: usize = 200_000;

/// A place between two units: `offset` units into a span.
#[derive(Debug, Clone, Copy)]
struct Gap {
    chunk: usize,
    span: usize,
    offset: u32,
    /// The same place in the text of today.
    here: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Window {
    chunks: Vec<Chunk>,
    floor: u64,
    visible: usize,
    compacted_spans: usize,
    span_count: usize,
    last: (u64, SessionIndex),
    last_of_others: u64,
}

impl Window {
    pub(super) fn new(length: usize, version: u64) -> Self {
        let whole = Span { len: length as u32, version: 0, session: 0, deletes: SmallVec::new() };
        let chunk = Chunk::of(if length > 0 { vec![whole] } else { Vec::new() });
        Self {
            span_count: chunk.spans.len(),
            chunks: vec![chunk],
            floor: version,
            visible: length,
            compacted_spans: 1,
            last: (version, 0),
            last_of_others: 0,
        }
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn visible(&self) -> usize {
        self.visible
    }

    /// The view of `session` at `version`; the latest one if nobody else wrote since.
    pub(super) fn view(&self, version: u64, session: SessionIndex) -> View {
        let by_others = if self.last.1 == session { self.last_of_others } else { self.last.0 };
        if by_others <= version { View::Latest } else { View::Of(Seen::of(version, session)) }
    }

    pub(super) fn length(&self, view: View) -> usize {
        match view {
            View::Latest => self.visible,
            View::Of(_) => self.chunks.iter().map(|chunk| chunk.length(view)).sum(),
        }
    }

    /// Where `pos` of `view` is in the text of today; `None` if it is outside.
    pub(super) fn locate(&self, pos: u32, view: View) -> Option<usize> {
        match view {
            View::Latest => Some(pos as usize),
            View::Of(_) => self.gap(pos, view).map(|gap| gap.here),
        }
    }

    /// Applies an edit that was written in `view` and returns what it does to the text of today, in order.
    pub(super) fn apply(&mut self, edit: &Edit, view: View, author: Author) -> Result<Vec<Edit>, &'static str> {
        let gap = self.gap(edit.pos, view).ok_or("a position is outside the window")?;
        let ins_units = edit.ins_units() as u32;
        let mut placed = Vec::new();
        if ins_units > 0 {
            placed.push(Edit { pos: gap.here as u32, del: 0, ins: edit.ins.clone() });
        }
        // The units to delete come after the inserted ones in every view.
        let gap = self.insert(gap, ins_units, author);
        if edit.del > 0 {
            self.delete(gap, edit.del, (view, author), &mut placed)?;
        }
        Ok(placed)
    }

    /// Ends one operation.
    pub(super) fn finish(&mut self, author: Author) {
        if self.last.1 != author.session {
            self.last_of_others = self.last.0;
        }
        self.last = (author.version, author.session);
        if self.span_count > 2 * self.compacted_spans + 4096 {
            self.compact(author.version.saturating_sub(VERSIONS_MAX));
            if self.span_count > SPANS_MAX {
                self.compact(u64::midpoint(self.floor, author.version));
            }
            self.compacted_spans = self.span_count;
        }
    }

    /// The place of `pos`: after the unit before it and after what the view knows to be deleted there, but before what others
    /// have inserted there.
    fn gap(&self, pos: u32, view: View) -> Option<Gap> {
        let mut left = pos as usize;
        let mut here = 0;
        let mut chunk_at = 0;
        while let Some(chunk) = self.chunks.get(chunk_at) {
            let length = chunk.length(view);
            if left <= length {
                break;
            }
            left -= length;
            here += chunk.visible;
            chunk_at += 1;
        }
        let mut last = Gap { chunk: 0, span: 0, offset: 0, here };
        while let Some(chunk) = self.chunks.get(chunk_at) {
            for (span_at, span) in chunk.spans.iter().enumerate() {
                let visible = span.visible_in(view);
                if left == 0 && (visible || !view.knows(span.version, span.session)) {
                    return Some(Gap { chunk: chunk_at, span: span_at, offset: 0, here });
                }
                if visible {
                    if left < span.len as usize {
                        here += if span.visible_now() > 0 { left } else { 0 };
                        return Some(Gap { chunk: chunk_at, span: span_at, offset: left as u32, here });
                    }
                    left -= span.len as usize;
                }
                here += span.visible_now() as usize;
            }
            last = Gap { chunk: chunk_at, span: chunk.spans.len(), offset: 0, here };
            chunk_at += 1;
        }
        (left == 0).then_some(last)
    }

    /// What `edit` of `view` replaces, as a range of the text of today with all that others wrote into it since; `None` if it
    /// replaces nothing.
    pub(super) fn extent(&self, edit: &Edit, view: View) -> Option<(u32, u32)> {
        let (start, end) = (edit.pos, edit.pos + edit.del);
        let (mut seen, mut here, mut extent) = (0, 0, None);
        for span in self.chunks.iter().flat_map(|chunk| &chunk.spans) {
            if span.visible_in(view) {
                let (first, last) = (start.max(seen), end.min(seen + span.len));
                if first < last {
                    let place = |unit: u32| if span.visible_now() > 0 { here + unit - seen } else { here };
                    let from = extent.map_or_else(|| place(first), |(from, _)| from);
                    extent = Some((from, place(last)));
                }
                seen += span.len;
                if seen >= end {
                    break;
                }
            }
            here += span.visible_now();
        }
        extent
    }

    /// The versions that `view` does not know and that touched what `edit` touches: deleted the same units, wrote between them, or
    /// deleted what is on both sides of an insert. Two inserts at one place do not touch each other.
    pub(super) fn overlap(&self, edit: &Edit, view: View) -> Vec<u64> {
        let (start, end) = (edit.pos, edit.pos + edit.del);
        let mut found = Vec::new();
        let unknown = |deletes: &SmallVec<[(u64, SessionIndex); 1]>| {
            let unknown = deletes.iter().filter(|(version, session)| !view.knows(*version, *session));
            unknown.map(|(version, _)| *version).collect::<Vec<_>>()
        };
        let (mut seen, mut before) = (0, Vec::new());
        for span in self.chunks.iter().flat_map(|chunk| &chunk.spans) {
            if span.visible_in(view) {
                let deleted = unknown(&span.deletes);
                let inside = start.max(seen) < end.min(seen + span.len) || seen < start && start < seen + span.len;
                if inside && (edit.del > 0 || !deleted.is_empty()) {
                    found.extend_from_slice(&deleted);
                } else if edit.del == 0 && start == seen {
                    found.extend(deleted.iter().filter(|version| before.contains(*version)));
                }
                seen += span.len;
                before = deleted;
                if seen > end {
                    break;
                }
            } else if start < seen && seen < end && !view.knows(span.version, span.session) {
                found.push(span.version);
            }
        }
        found
    }

    /// Inserts a span and returns the place after it.
    fn insert(&mut self, gap: Gap, len: u32, author: Author) -> Gap {
        if len == 0 {
            return gap;
        }
        let inserted = Span { len, version: author.version, session: author.session, deletes: SmallVec::new() };
        let chunk = &mut self.chunks[gap.chunk];
        let mut at = gap.span;
        if gap.offset > 0 {
            let tail = chunk.spans[at].split(gap.offset);
            at += 1;
            chunk.spans.insert(at, tail);
            self.span_count += 1;
        }
        chunk.spans.insert(at, inserted);
        chunk.changed(author, len as i32, 0);
        self.visible += len as usize;
        self.span_count += 1;
        let after = Gap { chunk: gap.chunk, span: at + 1, offset: 0, here: gap.here + len as usize };
        self.split_chunk(after)
    }

    /// Marks `del` units of the view from `gap` on as deleted and adds to `placed` what that removes today.
    fn delete(&mut self, gap: Gap, del: u32, by: (View, Author), placed: &mut Vec<Edit>) -> Result<(), &'static str> {
        let (view, author) = by;
        let Gap { mut chunk, mut span, mut offset, mut here } = gap;
        let mut left = del;
        while left > 0 {
            let at = self.chunks.get_mut(chunk).ok_or("a deletion is outside the window")?;
            if span >= at.spans.len() {
                (chunk, span, offset) = (chunk + 1, 0, 0);
                continue;
            }
            if !at.spans[span].visible_in(view) {
                here += at.spans[span].visible_now() as usize;
                span += 1;
                continue;
            }
            if offset > 0 {
                let tail = at.spans[span].split(offset);
                at.spans.insert(span + 1, tail);
                self.span_count += 1;
                (span, offset) = (span + 1, 0);
            }
            if at.spans[span].len > left {
                let tail = at.spans[span].split(left);
                at.spans.insert(span + 1, tail);
                self.span_count += 1;
            }
            left -= at.spans[span].len;
            let visible = at.delete(span, author);
            if visible > 0 {
                self.visible -= visible as usize;
                place_deletion(placed, here as u32, visible);
            }
            span += 1;
            if at.spans.len() > 2 * CHUNK_SPANS_MAX {
                let next = self.split_chunk(Gap { chunk, span, offset: 0, here });
                (chunk, span) = (next.chunk, next.span);
            }
        }
        if let Some(chunk_left) = self.chunks.get(chunk)
            && chunk_left.spans.len() > CHUNK_SPANS_MAX
        {
            self.split_chunk(Gap { chunk, span, offset: 0, here });
        }
        Ok(())
    }

    /// Like [`apply`](Self::apply), but what an edit replaces goes with everything that others wrote into it since. What its own
    /// writer wrote there while it waited stays.
    pub(super) fn overwrite(&mut self, edit: &Edit, view: View, author: Author) -> Result<Vec<Edit>, &'static str> {
        // Where nothing is left to replace, what is inserted stays where its author has it, among what else is gone.
        let Some((start, end)) = self.extent(edit, view).filter(|(start, end)| start < end) else {
            return self.apply(edit, view, author);
        };
        self.delete_again(edit, view, author);
        let replaced = self.without_meanwhile((start, end), view);
        let first = replaced.first().copied().filter(|(from, _)| *from == start);
        let mut placed = Vec::new();
        // From the end on, so that the places before stay where they are.
        for &(from, to) in replaced[usize::from(first.is_some())..].iter().rev() {
            let edit = Edit { pos: from, del: to - from, ins: String::new() };
            placed.extend(self.apply(&edit, View::Latest, author)?);
        }
        let edit = Edit { pos: start, del: first.map_or(0, |(from, to)| to - from), ins: edit.ins.clone() };
        placed.extend(self.apply(&edit, View::Latest, author)?);
        Ok(placed)
    }

    /// A range of the text of today without what the writer of an edit that waited wrote into it meanwhile.
    fn without_meanwhile(&self, range: (u32, u32), view: View) -> Vec<(u32, u32)> {
        let mut pieces: Vec<(u32, u32)> = Vec::new();
        let mut here = 0;
        for span in self.chunks.iter().flat_map(|chunk| &chunk.spans) {
            let (from, to) = (range.0.max(here), range.1.min(here + span.visible_now()));
            here += span.visible_now();
            if from >= to || view.wrote_meanwhile(span.version, span.session) {
                continue;
            }
            match pieces.last_mut() {
                Some(last) if last.1 == from => last.1 = to,
                _ => pieces.push((from, to)),
            }
        }
        pieces
    }

    /// Notes that `author` deletes what `edit` of `view` deletes and others have deleted already: in the author's own view it
    /// is gone from then on. The text of today stays as it is.
    fn delete_again(&mut self, edit: &Edit, view: View, author: Author) {
        let (start, end) = (edit.pos, edit.pos + edit.del);
        let mut seen = 0;
        for chunk in &mut self.chunks {
            let mut at = 0;
            while let Some(span) = chunk.spans.get_mut(at) {
                if seen >= end {
                    return;
                }
                if !span.visible_in(view) {
                    at += 1;
                    continue;
                }
                if seen + span.len <= start || span.visible_now() > 0 {
                    seen += span.len;
                    at += 1;
                    continue;
                }
                // Cut to what is inside, and look at the pieces one by one.
                let cut = if seen < start { start - seen } else { end - seen };
                if cut < span.len {
                    let tail = span.split(cut);
                    chunk.spans.insert(at + 1, tail);
                    self.span_count += 1;
                    continue;
                }
                seen += span.len;
                chunk.delete(at, author);
                at += 1;
            }
        }
    }

    /// Splits the chunk of `gap` if it is too large; returns where `gap` is then.
    fn split_chunk(&mut self, gap: Gap) -> Gap {
        let chunk = &mut self.chunks[gap.chunk];
        if chunk.spans.len() <= CHUNK_SPANS_MAX {
            return gap;
        }
        let middle = chunk.spans.len() / 2;
        let tail = Chunk::of(chunk.spans.split_off(middle));
        chunk.recount();
        self.chunks.insert(gap.chunk + 1, tail);
        if gap.span >= middle { Gap { chunk: gap.chunk + 1, span: gap.span - middle, ..gap } } else { gap }
    }

    /// Raises the floor: what was deleted by then goes, what was inserted by then is told apart no longer.
    pub(super) fn compact(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        let mut spans: Vec<Span> = Vec::with_capacity(self.span_count);
        for mut span in self.chunks.drain(..).flat_map(|chunk| chunk.spans) {
            if span.deletes.iter().any(|(version, _)| *version <= floor) {
                continue;
            }
            if span.version <= floor {
                (span.version, span.session) = (0, 0);
            }
            match spans.last_mut() {
                Some(last)
                    if (last.version, last.session, &last.deletes) == (span.version, span.session, &span.deletes) =>
                {
                    last.len += span.len;
                }
                _ => spans.push(span),
            }
        }
        self.span_count = spans.len();
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(CHUNK_SPANS_MAX / 2));
            self.chunks.push(Chunk::of(spans));
            spans = rest;
        }
        if self.chunks.is_empty() {
            self.chunks.push(Chunk::default());
        }
    }
}

/// A deletion next to the insert or the deletion before it belongs to it.
fn place_deletion(placed: &mut Vec<Edit>, pos: u32, del: u32) {
    if let Some(last) = placed.last_mut()
        && last.pos + last.ins_units() as u32 == pos
    {
        last.del += del;
        return;
    }
    placed.push(Edit { pos, del, ins: String::new() });
}
