//! Which character of the CRDT stands at each position of a text, so that an edit's place is found without a walk through all
//! blocks before it.
//!
//! Only what is visible has positions: runs of characters whose ids follow each other, in chunks that know their length. What was
//! deleted between two of them is known by the last of it: what is inserted there comes after it, as the CRDT library has it.
//! An edit is written as the Yjs update that the library would make of it. Marks and the updates of clients are not followed: then
//! the library walks for a while, until a walk for each edit would take longer than looking at the whole state once.

use std::collections::BTreeMap;

use yrs::encoding::write::Write;

use super::{Edit, ROOT};
use crate::statesync::guard::Id;

/// A chunk of more runs is split.
const CHUNK_RUNS_MAX: usize = 64;
/// The state is looked at after so many edits that were walked for.
const WALKS_MAX: u32 = 128;
/// A block of the format v1: a string, with what is to the left of it and to the right.
const STRING: u8 = 4;
const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;

/// What is known of a text.
#[derive(Debug)]
pub(super) enum Whereabouts {
    /// All.
    Known(Layout),
    /// Nothing, for so many edits by now.
    Unknown(u32),
    /// Nothing that is of use: the text has marks.
    Never,
}

/// All visible characters in their order, and who writes the next ones.
#[derive(Debug)]
pub(super) struct Layout {
    /// The last of what was deleted before the first of them.
    head: Option<Id>,
    chunks: Vec<Chunk>,
    len: u64,
    /// The id of the next character that is written here.
    next: Id,
}

#[derive(Debug, Default)]
struct Chunk {
    runs: Vec<Run>,
    len: u64,
}

/// Characters that follow each other in the text as their ids do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    id: Id,
    len: u64,
    /// The last of what was deleted between it and the next run.
    gap: Option<Id>,
}

/// What an inserted text was written between.
struct Between {
    left: Option<Id>,
    right: Option<Id>,
}

impl Whereabouts {
    /// What is known once somebody else has changed the text.
    pub(super) fn forget(&mut self) {
        if !matches!(self, Self::Never) {
            *self = Self::Unknown(0);
        }
    }

    /// Whether it is time to look at the state; counts an edit.
    pub(super) fn is_due(&mut self) -> bool {
        match self {
            Self::Unknown(edits) => {
                *edits += 1;
                *edits > WALKS_MAX
            }
            Self::Known(_) | Self::Never => false,
        }
    }
}

impl Layout {
    /// An empty text, in which `next` is the next character that is written here.
    pub(super) fn new(next: Id) -> Self {
        Self { head: None, chunks: Vec::new(), len: 0, next }
    }

    /// A text of these characters: `runs` has all, in their order, `deleted` those of them that were deleted.
    pub(super) fn of(runs: impl Iterator<Item = (Id, u64)>, deleted: &[(Id, u64)], next: Id) -> Self {
        let deleted: BTreeMap<Id, u64> = deleted.iter().map(|(id, len)| (*id, id.clock + len)).collect();
        let mut layout = Self::new(next);
        for (mut id, len) in runs {
            let end = id.clock + len;
            while id.clock < end {
                let last = deleted.range(..=id).next_back().filter(|(first, _)| first.client == id.client);
                let (until, is_deleted) = match last {
                    Some((_, until)) if *until > id.clock => (*until, true),
                    _ => {
                        let first = deleted.range(id..Id { clock: end, ..id }).next();
                        (first.map_or(end, |(first, _)| first.clock), false)
                    }
                };
                let len = until.min(end) - id.clock;
                layout.push(id, len, is_deleted);
                id.clock += len;
            }
        }
        layout
    }

    /// UTF-16 units.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Makes edits, each of the text as those before it leave it, and gives the Yjs update (format v1) that makes them in the
    /// document. Nothing if one is outside the text; then the layout is of no use any more.
    pub(super) fn edit(&mut self, edits: &[Edit]) -> Option<Vec<u8>> {
        let start = self.next;
        let (mut blocks, mut count, mut deleted) = (Vec::new(), 0_u32, Vec::new());
        for edit in edits {
            self.delete(edit.pos.into(), edit.del.into(), &mut deleted)?;
            if edit.ins.is_empty() {
                continue;
            }
            let (id, len) = (self.next, edit.ins_units() as u64);
            let between = self.insert(edit.pos.into(), id, len)?;
            self.next.clock += len;
            write_block(&mut blocks, &between, &edit.ins);
            count += 1;
        }
        let mut update = Vec::with_capacity(blocks.len() + 16 * deleted.len() + 32);
        update.write_var(u32::from(count > 0));
        if count > 0 {
            update.write_var(count);
            update.write_var(start.client);
            update.write_var(start.clock);
            update.write_all(&blocks);
        }
        write_deleted(&mut update, deleted);
        Some(update)
    }

    /// Adds what comes after all others.
    fn push(&mut self, id: Id, len: u64, is_deleted: bool) {
        if is_deleted {
            let last = Id { clock: id.clock + len - 1, ..id };
            *self.gap_before(self.chunks.len(), 0) = Some(last);
            return;
        }
        self.len += len;
        if self.chunks.last().is_none_or(|chunk| chunk.runs.len() >= CHUNK_RUNS_MAX / 2) {
            self.chunks.push(Chunk::default());
        }
        let at = self.chunks.len() - 1;
        let before = self.chunks[at].runs.last_mut();
        if let Some(before) = before.filter(|before| before.is_followed_by(id)) {
            before.len += len;
        } else {
            self.chunks[at].runs.push(Run { id, len, gap: None });
        }
        self.chunks[at].len += len;
    }

    /// The run that the character at `pos` is in, and how many of the run are before it.
    fn find(&self, pos: u64) -> Option<(usize, usize, u64)> {
        let mut before = pos;
        for (chunk_at, chunk) in self.chunks.iter().enumerate() {
            if before >= chunk.len {
                before -= chunk.len;
                continue;
            }
            for (run_at, run) in chunk.runs.iter().enumerate() {
                if before < run.len {
                    return Some((chunk_at, run_at, before));
                }
                before -= run.len;
            }
        }
        None
    }

    /// The gap before a run, which may be the one after the last.
    fn gap_before(&mut self, chunk: usize, run: usize) -> &mut Option<Id> {
        let (chunk, runs) = if run > 0 { (Some(chunk), run) } else { (chunk.checked_sub(1), usize::MAX) };
        let Some(chunk) = chunk.and_then(|chunk| self.chunks.get_mut(chunk)) else { return &mut self.head };
        // No chunk is empty.
        let last = runs.min(chunk.runs.len()) - 1;
        &mut chunk.runs[last].gap
    }

    /// Writes a text at `pos`; gives what it is written between, or nothing if that is outside.
    fn insert(&mut self, pos: u64, id: Id, len: u64) -> Option<Between> {
        let inserted = Run { id, len, gap: None };
        let Some(last) = pos.checked_sub(1) else {
            let right = self.chunks.first().map(|chunk| chunk.runs[0].id);
            if self.chunks.is_empty() {
                self.chunks.push(Chunk::default());
            }
            self.insert_run(0, 0, inserted);
            return Some(Between { left: self.head, right });
        };
        let (chunk_at, run_at, offset) = self.find(last)?;
        let after_chunk = self.chunks.get(chunk_at + 1).map(|chunk| chunk.runs[0].id);
        let runs = &mut self.chunks[chunk_at].runs;
        let after = runs.get(run_at + 1).map(|run| run.id).or(after_chunk);
        let run = &mut runs[run_at];
        if offset + 1 < run.len {
            let tail = run.cut(offset + 1);
            let between = Between { left: Some(run.last()), right: Some(tail.id) };
            runs.insert(run_at + 1, tail);
            self.insert_run(chunk_at, run_at + 1, inserted);
            return Some(between);
        }
        let between = Between { left: Some(run.gap.unwrap_or(run.last())), right: after };
        if run.is_followed_by(id) {
            run.len += len;
            self.chunks[chunk_at].len += len;
            self.len += len;
        } else {
            self.insert_run(chunk_at, run_at + 1, inserted);
        }
        Some(between)
    }

    fn insert_run(&mut self, chunk_at: usize, run_at: usize, run: Run) {
        self.len += run.len;
        let chunk = &mut self.chunks[chunk_at];
        chunk.len += run.len;
        chunk.runs.insert(run_at, run);
        self.split_if_large(chunk_at);
    }

    fn split_if_large(&mut self, at: usize) {
        let chunk = &mut self.chunks[at];
        if chunk.runs.len() <= CHUNK_RUNS_MAX {
            return;
        }
        let runs = chunk.runs.split_off(chunk.runs.len() / 2);
        let len: u64 = runs.iter().map(|run| run.len).sum();
        chunk.len -= len;
        self.chunks.insert(at + 1, Chunk { runs, len });
    }

    /// Deletes `len` units from `pos` on and adds them to `deleted`; nothing if there are not so many.
    fn delete(&mut self, pos: u64, len: u64, deleted: &mut Vec<(Id, u64)>) -> Option<()> {
        let mut left = len;
        while left > 0 {
            let (chunk_at, run_at, offset) = self.find(pos)?;
            let chunk = &mut self.chunks[chunk_at];
            let run = &mut chunk.runs[run_at];
            let len = left.min(run.len - offset);
            let mut gone = if offset > 0 { run.cut(offset) } else { *run };
            let rest = (len < gone.len).then(|| gone.cut(len));
            deleted.push((gone.id, len));
            chunk.len -= len;
            self.len -= len;
            left -= len;
            let gap = gone.gap.unwrap_or(gone.last());
            if offset > 0 {
                run.gap = Some(gap);
                if let Some(rest) = rest {
                    chunk.runs.insert(run_at + 1, rest);
                    self.split_if_large(chunk_at);
                }
                continue;
            }
            match rest {
                Some(rest) => *run = rest,
                None => {
                    chunk.runs.remove(run_at);
                }
            }
            let is_empty = chunk.runs.is_empty();
            *self.gap_before(chunk_at, run_at) = Some(gap);
            if is_empty {
                self.chunks.remove(chunk_at);
            }
        }
        Some(())
    }

    /// The next character, what was deleted before all others, then each run with the gap after it.
    #[cfg(test)]
    pub(super) fn runs(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut runs: Vec<Run> = Vec::new();
        for run in self.chunks.iter().flat_map(|chunk| &chunk.runs) {
            match runs.last_mut() {
                Some(before) if before.is_followed_by(run.id) => {
                    (before.len, before.gap) = (before.len + run.len, run.gap);
                }
                _ => runs.push(*run),
            }
        }
        (self.next, self.head, runs)
    }
}

impl Run {
    fn last(&self) -> Id {
        Id { clock: self.id.clock + self.len - 1, ..self.id }
    }

    /// Whether a character right behind it goes on where it ends.
    fn is_followed_by(&self, id: Id) -> bool {
        self.gap.is_none() && id == Id { clock: self.id.clock + self.len, ..self.id }
    }

    /// Keeps the first characters and gives the others.
    fn cut(&mut self, at: u64) -> Self {
        let tail = Self { id: Id { clock: self.id.clock + at, ..self.id }, len: self.len - at, gap: self.gap };
        (self.len, self.gap) = (at, None);
        tail
    }
}

fn write_id(update: &mut Vec<u8>, id: Id) {
    update.write_var(id.client);
    update.write_var(id.clock);
}

fn write_block(update: &mut Vec<u8>, between: &Between, text: &str) {
    let Between { left, right } = *between;
    let flag = |id: Option<Id>, flag: u8| if id.is_some() { flag } else { 0 };
    update.write_u8(STRING | flag(left, HAS_ORIGIN) | flag(right, HAS_RIGHT_ORIGIN));
    for id in [left, right].into_iter().flatten() {
        write_id(update, id);
    }
    if left.is_none() && right.is_none() {
        // What it is in: a root, by its name.
        update.write_var(1_u32);
        update.write_string(ROOT);
    }
    update.write_string(text);
}

/// The ranges of each client, in order and none beside another.
fn write_deleted(update: &mut Vec<u8>, mut deleted: Vec<(Id, u64)>) {
    deleted.sort_unstable();
    let mut clients: Vec<(u64, Vec<(u64, u64)>)> = Vec::new();
    for (id, len) in deleted {
        if clients.last().is_none_or(|(client, _)| *client != id.client) {
            clients.push((id.client, Vec::new()));
        }
        let (_, ranges) = clients.last_mut().expect("there is one now");
        match ranges.last_mut() {
            Some((clock, before)) if *clock + *before == id.clock => *before += len,
            _ => ranges.push((id.clock, len)),
        }
    }
    update.write_var(clients.len() as u32);
    for (client, ranges) in clients {
        update.write_var(client);
        update.write_var(ranges.len() as u32);
        for (clock, len) in ranges {
            update.write_var(clock);
            update.write_var(len);
        }
    }
}
