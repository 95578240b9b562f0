//! The order of all characters that a text ever had, or each of several texts in one document, deleted ones among them.
//!
//! Replicas agree on a text if each block was written where some honest replica could have written it: its neighbours were next to
//! each other for one that had what the writer had (YATA, Nicolaescu et al. 2016, needs no more). The least that the
//! writer had is the block before, both neighbours, and all that those were written after. So a block fits if none of that is
//! between its neighbours; what is there was then written at the same time. An honest writer's blocks always fit: whatever
//! the server has between them, that writer did not have.
//!
//! Of several texts, one that was deleted with its item is forgotten: nobody sees what is written into it.
//!
//! What is visible does not tell: deleted characters all have one place there. So this follows the document with ids alone,
//! in runs of them, and puts each block where the CRDT library does. A run takes as
//! much memory as any other, whatever length its writer claims.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::statesync::guard::{Grammar, Id, Within, Written, scan_own};

/// The most runs a flat may have: a state of 3 MiB has hardly more blocks. A run takes about 170 bytes.
const RUNS_MAX: usize = 1 << 19;
/// The most runs that are looked at for one update. A block takes at most each run twice; more in one update are not refused
/// unless what several clients wrote at the same time comes back at once.
const STEPS_MAX: usize = 1 << 21;
/// Writers whose knowledge is kept while one update is looked at.
const WRITERS_MAX: usize = 16;

/// Why a block cannot have been written where it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::statesync) enum Misplaced {
    /// What is to the left of it comes after what is to the right.
    #[error("it names neighbours in the wrong order")]
    WrongOrder,
    /// Its writer had something between the two.
    #[error("it was written beside what was never next to each other")]
    NotAdjacent,
    /// It takes too long to tell.
    #[error("too much in it was written at the same time as others wrote: send it in smaller updates")]
    TooMuch,
}

/// Whether a document has a flat.
#[derive(Default)]
pub(in crate::statesync) enum Shadow {
    /// Nobody sent a Yjs update yet.
    #[default]
    Unneeded,
    /// It is where the document is.
    Follows(Box<Flat>),
    /// It would be too large.
    Impossible,
}

/// All characters in their order.
#[derive(Default)]
pub(in crate::statesync) struct Flat {
    runs: Vec<Run>,
    /// The first run of each text that has any.
    first: HashMap<Within, usize>,
    /// The runs by their first ids.
    by_id: BTreeMap<(u64, u64), usize>,
    /// The texts that were made and are not deleted, but for that at the root.
    texts: BTreeSet<Id>,
    /// The next clock of each client.
    clocks: HashMap<u64, u64>,
    /// What an update that is only tried has done so far.
    tried: Option<Vec<Step>>,
    /// How often neighbours were not next to each other.
    #[cfg(test)]
    pub(super) searches: usize,
}

/// Characters that follow each other in their client's clock and in the text, each but the first written after the one before, all
/// with the same right neighbour.
#[derive(Debug)]
struct Run {
    written: Written,
    before: Option<usize>,
    after: Option<usize>,
}

/// What can be undone.
enum Step {
    /// A run that was added last.
    Added,
    /// The last run was cut off from the one before it in the text.
    Cut,
    /// A run has so many more characters.
    Extended(usize, u64),
    /// A text was made.
    Text(Id),
}

/// Between two characters: a run, and how many of its characters are before the place. None: the end.
type Gap = Option<(usize, u64)>;

/// What a writer must have had: the next clock of each client.
type Known = HashMap<u64, u64>;

/// While an update is checked: how many more runs may be looked at, and what writers must have had.
struct Search {
    steps: usize,
    writers: HashMap<u64, Known>,
}

impl Shadow {
    /// Checks blocks that the document does not have, in an order in which they can be applied, before it has them. Not at all
    /// if there can be no flat. `state` gives the document's state.
    ///
    /// # Errors
    /// [`Misplaced`].
    pub(in crate::statesync) fn check(
        &mut self,
        blocks: &[Written],
        grammar: Grammar<'_>,
        state: impl FnOnce() -> Vec<u8>,
    ) -> Option<Result<(), Misplaced>> {
        if let Self::Unneeded = self {
            *self = Flat::of(&state(), grammar).map_or(Self::Impossible, |flat| Self::Follows(Box::new(flat)));
        }
        let Self::Follows(flat) = self else { return None };
        let checked = flat.check(blocks);
        if checked.is_none() {
            *self = Self::Impossible;
        }
        checked
    }

    /// Follows an update that the document has.
    pub(in crate::statesync) fn follow(&mut self, update: &[u8], grammar: Grammar<'_>) {
        if let Self::Follows(flat) = self
            && flat.follow(update, grammar).is_none()
        {
            // The next update of a client tries it from the state.
            *self = Self::Unneeded;
        }
    }
}

impl Flat {
    /// The flat of a document with this state, if it is not too large.
    pub(in crate::statesync) fn of(state: &[u8], grammar: Grammar<'_>) -> Option<Self> {
        let mut flat = Self::default();
        flat.follow(state, grammar)?;
        Some(flat)
    }

    /// The characters and marks of the text at the root in their order: the first of each run, and how many there are.
    pub(super) fn root_runs(&self) -> impl Iterator<Item = (Id, u64)> {
        let first = self.first.get(&Within::Root).copied();
        let runs = std::iter::successors(first, |run| self.runs[*run].after).map(|run| &self.runs[run].written);
        runs.map(|run| (run.id, run.len))
    }

    /// Follows an update that the document has; nothing if it cannot.
    fn follow(&mut self, update: &[u8], grammar: Grammar<'_>) -> Option<()> {
        let scan = scan_own(update, grammar).ok()?;
        // Clocks have 30 bits.
        let next_clock = |client: u64| self.clocks.get(&client).map_or(0, |next| *next as u32);
        for block in scan.check_dependencies(next_clock).ok()? {
            let next = self.clocks.entry(block.id.client).or_default();
            *next = (*next).max(block.end());
            self.integrate(block)?;
        }
        for (id, len) in scan.deleted() {
            let end = Id { clock: id.clock + len, ..*id };
            let deleted: Vec<Id> = self.texts.range(*id..end).copied().collect();
            for text in deleted {
                self.forget(text);
            }
        }
        Some(())
    }

    /// Takes a text out. Its runs stay where they are, which nothing leads to.
    fn forget(&mut self, text: Id) {
        self.texts.remove(&text);
        let mut next = self.first.remove(&Within::Made(text));
        while let Some(run) = next {
            let Id { client, clock } = self.runs[run].written.id;
            self.by_id.remove(&(client, clock));
            next = self.runs[run].after;
        }
    }

    /// Checks that blocks were written where they say, unless the flat gets too large; afterwards it is as before.
    ///
    /// # Errors
    /// [`Misplaced`].
    fn check(&mut self, blocks: &[Written]) -> Option<Result<(), Misplaced>> {
        let Some((last, others)) = blocks.split_last() else { return Some(Ok(())) };
        self.tried = Some(Vec::new());
        let mut search = Search { steps: STEPS_MAX, writers: HashMap::new() };
        let tried = others.iter().try_for_each(|block| match self.check_block(block, &mut search) {
            Ok(()) => self.integrate(*block).ok_or(None),
            Err(misplaced) => Err(Some(misplaced)),
        });
        let checked = match tried {
            Ok(()) => Some(self.check_block(last, &mut search)),
            Err(misplaced) => misplaced.map(Err),
        };
        self.undo();
        checked
    }

    fn check_block(&mut self, block: &Written, search: &mut Search) -> Result<(), Misplaced> {
        let Some(text) = self.text_of(block)? else { return Ok(()) };
        let start = self.first.get(&text).map(|first| (*first, 0));
        let from = block.origin.map_or(Some(start), |origin| self.gap_after(origin));
        let to = block.right.map_or(Some(None), |right| self.find(right).map(Some));
        // The dependencies were checked, so both are there.
        let (Some(from), Some(to)) = (from, to) else { return Err(Misplaced::NotAdjacent) };
        if from == to || self.goes_on(block) {
            return Ok(());
        }
        #[cfg(test)]
        {
            self.searches += 1;
        }
        let Search { steps, writers } = search;
        if writers.len() >= WRITERS_MAX && !writers.contains_key(&block.id.client) {
            writers.clear();
        }
        let known = writers.entry(block.id.client).or_default();
        let own = block.id.clock.checked_sub(1).map(|clock| Id { clock, ..block.id });
        for id in [own, block.origin, block.right].into_iter().flatten() {
            self.learn(id, known, steps)?;
        }
        self.check_between(from, to, known, steps)
    }

    /// The text that a block is in; none if it is in something else, or in a text that was deleted.
    ///
    /// # Errors
    /// [`Misplaced`] if its neighbours are not in the same.
    fn text_of(&self, block: &Written) -> Result<Option<Within>, Misplaced> {
        let of = |id: Id| self.find(id).map(|(run, _)| self.runs[run].written.within);
        match block.within {
            Within::Root => Ok(Some(Within::Root)),
            Within::Made(text) => Ok(self.texts.contains(&text).then_some(block.within)),
            Within::NewText | Within::Elsewhere => Ok(None),
            Within::Neighbours => match (block.origin.map(of), block.right.map(of)) {
                (Some(left), Some(right)) if left != right => Err(Misplaced::NotAdjacent),
                (Some(text), _) | (None, Some(text)) => Ok(text),
                (None, None) => Ok(None),
            },
        }
    }

    /// Whether a block goes on where its client's block before ends, with the same right neighbour. What is between them came
    /// after that block, or was not known to its writer.
    fn goes_on(&self, block: &Written) -> bool {
        block.origin.is_some_and(|origin| {
            let is_before = origin.client == block.id.client && origin.clock + 1 == block.id.clock;
            is_before && self.find(origin).is_some_and(|(run, _)| self.runs[run].written.right == block.right)
        })
    }

    /// Adds a character to what a writer must have had, and all that was written before it.
    fn learn(&self, id: Id, known: &mut Known, steps: &mut usize) -> Result<(), Misplaced> {
        let mut todo = vec![id];
        while let Some(id) = todo.pop() {
            let next = known.entry(id.client).or_default();
            let had = std::mem::replace(next, (*next).max(id.clock + 1));
            // What a run's first character was written beside, the others were too, but for each other.
            for (_, index) in self.by_id.range((id.client, had)..(id.client, (id.clock + 1).max(had))) {
                spend(steps)?;
                let Written { origin, right, .. } = self.runs[*index].written;
                let is_new = |id: &Id| known.get(&id.client).is_none_or(|next| *next <= id.clock);
                todo.extend([origin, right].into_iter().flatten().filter(is_new));
            }
        }
        Ok(())
    }

    /// Checks that nothing that the writer had is between two places, and that they are in this order.
    fn check_between(&self, from: Gap, to: Gap, known: &Known, steps: &mut usize) -> Result<(), Misplaced> {
        let mut place = from;
        while place != to {
            spend(steps)?;
            let Some((run, offset)) = place else { return Err(Misplaced::WrongOrder) };
            let Id { client, clock } = self.runs[run].written.id;
            if known.get(&client).is_some_and(|next| *next > clock + offset) {
                return Err(Misplaced::NotAdjacent);
            }
            place = match to {
                Some((last, end)) if last == run && end > offset => to,
                _ => self.runs[run].after.map(|after| (after, 0)),
            };
        }
        Ok(())
    }

    /// The run that a character is in, and how many of the run are before it.
    fn find(&self, id: Id) -> Option<(usize, u64)> {
        let (_, index) = self.by_id.range((id.client, 0)..=(id.client, id.clock)).next_back()?;
        let run = &self.runs[*index].written;
        (id.clock < run.end()).then(|| (*index, id.clock - run.id.clock))
    }

    fn gap_after(&self, id: Id) -> Option<Gap> {
        let (run, offset) = self.find(id)?;
        let is_inside = offset + 1 < self.runs[run].written.len;
        Some(if is_inside { Some((run, offset + 1)) } else { self.runs[run].after.map(|after| (after, 0)) })
    }

    /// Puts a block where the CRDT library does, if it is in a text; nothing if what it depends on is not there or the flat is full.
    fn integrate(&mut self, block: Written) -> Option<()> {
        if block.within == Within::NewText && self.texts.insert(block.id) {
            self.note(Step::Text(block.id));
        }
        let Some(within) = self.text_of(&block).ok()? else { return Some(()) };
        let block = Written { within, ..block };
        // To the right first: a run keeps its index for what is before a cut.
        let right = match block.right {
            Some(id) => Some(self.cut_before(id)?),
            None => None,
        };
        let left = match block.origin {
            Some(id) => Some(self.cut_after(id)?),
            None => None,
        };
        let left = self.settle(&block, left, right);
        if let Some(left) = left.filter(|left| self.runs[*left].written.goes_on_with(&block)) {
            self.runs[left].written.len += block.len;
            self.note(Step::Extended(left, block.len));
            return Some(());
        }
        if self.runs.len() >= RUNS_MAX {
            return None;
        }
        let after = left.map_or_else(|| self.first.get(&within).copied(), |left| self.runs[left].after);
        self.link(Run { written: block, before: left, after });
        self.note(Step::Added);
        Some(())
    }

    /// What a block comes after, of all that was written between the same neighbours at the same time: the integration of YATA
    /// as Yjs has it.
    fn settle(&self, block: &Written, left: Option<usize>, right: Option<usize>) -> Option<usize> {
        let mut settled = left;
        let mut next = left.map_or_else(|| self.first.get(&block.within).copied(), |left| self.runs[left].after);
        if next == right {
            return settled;
        }
        let (mut passed, mut conflicting) = (HashSet::new(), HashSet::new());
        while let Some(index) = next.filter(|next| Some(*next) != right) {
            passed.insert(index);
            conflicting.insert(index);
            let other = &self.runs[index].written;
            if other.origin == block.origin {
                if other.id.client < block.id.client {
                    settled = next;
                    conflicting.clear();
                } else if other.right == block.right {
                    break;
                }
            } else {
                let Some((origin, _)) = other.origin.and_then(|origin| self.find(origin)) else { break };
                if !passed.contains(&origin) {
                    break;
                }
                if !conflicting.contains(&origin) {
                    settled = next;
                    conflicting.clear();
                }
            }
            next = self.runs[index].after;
        }
        settled
    }

    /// The run that starts with a character.
    fn cut_before(&mut self, id: Id) -> Option<usize> {
        let (run, offset) = self.find(id)?;
        if offset == 0 { Some(run) } else { self.cut(run, offset) }
    }

    /// The run that ends with a character.
    fn cut_after(&mut self, id: Id) -> Option<usize> {
        let (run, offset) = self.find(id)?;
        if offset + 1 < self.runs[run].written.len {
            self.cut(run, offset + 1)?;
        }
        Some(run)
    }

    /// Cuts a run in two; gives the second, unless the flat is full.
    fn cut(&mut self, run: usize, offset: u64) -> Option<usize> {
        if self.runs.len() >= RUNS_MAX {
            return None;
        }
        let after = self.runs[run].after;
        let within = self.runs[run].written.within;
        let cut = Written { within, ..self.runs[run].written.cut(offset) };
        let index = self.link(Run { written: cut, before: Some(run), after });
        self.note(Step::Cut);
        Some(index)
    }

    fn link(&mut self, run: Run) -> usize {
        let index = self.runs.len();
        match run.before {
            Some(before) => self.runs[before].after = Some(index),
            None => self.set_first(run.written.within, Some(index)),
        }
        if let Some(after) = run.after {
            self.runs[after].before = Some(index);
        }
        self.by_id.insert((run.written.id.client, run.written.id.clock), index);
        self.runs.push(run);
        index
    }

    /// All ids of the text at the root in their order.
    #[cfg(test)]
    pub(super) fn ids(&self) -> Vec<(u64, u64)> {
        self.root_runs().flat_map(|(id, len)| (id.clock..id.clock + len).map(move |clock| (id.client, clock))).collect()
    }

    /// All ids of each text in their order.
    #[cfg(test)]
    pub(in crate::statesync) fn ids_by_text(&self) -> HashMap<Within, Vec<(u64, u64)>> {
        let ids = |first: usize| -> Vec<(u64, u64)> {
            let runs =
                std::iter::successors(Some(first), |run| self.runs[*run].after).map(|run| &self.runs[run].written);
            runs.flat_map(|run| (run.id.clock..run.end()).map(|clock| (run.id.client, clock))).collect()
        };
        self.first.iter().map(|(text, first)| (*text, ids(*first))).collect()
    }

    fn set_first(&mut self, text: Within, first: Option<usize>) {
        match first {
            Some(first) => self.first.insert(text, first),
            None => self.first.remove(&text),
        };
    }

    fn note(&mut self, step: Step) {
        if let Some(tried) = &mut self.tried {
            tried.push(step);
        }
    }

    /// Undoes what was tried, the last first, so that the runs to remove are the last ones.
    fn undo(&mut self) {
        for step in self.tried.take().unwrap_or_default().into_iter().rev() {
            match step {
                Step::Text(id) => {
                    self.texts.remove(&id);
                }
                Step::Extended(run, len) => self.runs[run].written.len -= len,
                Step::Added | Step::Cut => {
                    let Run { written, before, after } = self.runs.pop().expect("the step added one");
                    self.by_id.remove(&(written.id.client, written.id.clock));
                    match before {
                        Some(before) => self.runs[before].after = after,
                        None => self.set_first(written.within, after),
                    }
                    if let Some(after) = after {
                        self.runs[after].before = before;
                    }
                    if let (Step::Cut, Some(before)) = (step, before) {
                        self.runs[before].written.len += written.len;
                    }
                }
            }
        }
    }
}

fn spend(steps: &mut usize) -> Result<(), Misplaced> {
    *steps = steps.checked_sub(1).ok_or(Misplaced::TooMuch)?;
    Ok(())
}
