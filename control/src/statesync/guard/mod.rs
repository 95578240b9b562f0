//! Reads a Yjs update (format v1) strictly before the CRDT library sees it.
//!
//! The library reserves memory for counts it reads from the wire, and keeps changes whose dependencies are missing, which later
//! breaks encoding the state. So every count is held against the bytes that remain, only what a document of the type can contain
//! is let through, and every dependency is looked up first.

mod reader;

use std::collections::{HashMap, HashSet};

use yrs::{BranchID, ReadTxn};

use reader::Reader;

use super::items::Root;
use super::places::Place;
use super::text::ROOT;

/// No honest document comes near this clock; beyond it the library's 32-bit sums could overflow.
const CLOCK_MAX: u64 = 1 << 30;
/// Blocks and deleted ranges in one update.
const PARTS_MAX: usize = 20_000;
/// Clients that write in one update.
const CLIENTS_MAX: usize = 1024;
/// Types of one update inside each other: an item, and what its style or text holds. The library deletes by recursion.
const LEVEL_MAX: u8 = 2;

/// Why an update is not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GuardError {
    /// It is no update, or one of another type of document.
    #[error("not a Yjs update of such a document: {0}")]
    Malformed(&'static str),
    /// It builds on changes that the document does not have.
    #[error("clock {clock} of client {client}")]
    MissingDependency {
        /// Who made the first change that is missing.
        client: u64,
        /// Its number.
        clock: u64,
    },
}

/// What the documents of a type hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Grammar<'a> {
    /// One `Y.Text`.
    Text,
    /// A `Y.Map` for each root, of maps with values, maps and texts.
    Items(&'a [Root]),
}

/// A character, mark or value: who made it, and its number among all of that client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) client: u64,
    pub(super) clock: u64,
}

/// What a block says of where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Within {
    /// Characters or marks, in the text at the root.
    Root,
    /// Characters or marks, in what the block with this id made.
    Made(Id),
    /// Characters or marks, in what their neighbours are in; what has a key there, too.
    Neighbours,
    /// It makes a text.
    NewText,
    /// It has nothing to do with a text.
    Elsewhere,
}

/// Characters that were written one after the other, and what the writer had to the left of them and to the right. In items also
/// what is no character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    /// The first of them.
    pub(super) id: Id,
    /// In UTF-16 units; a mark has one.
    pub(super) len: u64,
    pub(super) origin: Option<Id>,
    pub(super) right: Option<Id>,
    pub(super) within: Within,
}

#[derive(Debug)]
struct Block {
    clock: u64,
    len: u64,
    needs: [Option<Id>; 3],
    is_in_text: bool,
    within: Within,
}

/// What an update contains.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// UTF-16 units of all inserted text.
    pub(super) inserted_units: usize,
    /// What blocks of items are in, where they name it, and whether they name a key there.
    pub(super) parents: HashSet<(yrs::ID, bool)>,
    /// What blocks of items were written to the left of.
    pub(super) rights: HashSet<yrs::ID>,
    /// Where blocks of texts were written, and those of keys that cannot be told from them.
    places: Vec<Place>,
    clients: Vec<(u64, Vec<Block>)>,
    deletes: Vec<(Id, u64)>,
}

impl Id {
    fn to_yjs(self) -> yrs::ID {
        yrs::ID::new(yrs::block::ClientID::new(self.client), self.clock as u32)
    }
}

impl Written {
    /// The clock after it.
    pub(super) fn end(&self) -> u64 {
        self.id.clock + self.len
    }

    /// Whether the other goes on where this ends, as if both had been written at once.
    pub(super) fn goes_on_with(&self, next: &Self) -> bool {
        let last = Id { clock: self.end() - 1, ..self.id };
        next.id == Id { clock: self.end(), ..self.id } && next.origin == Some(last) && next.right == self.right
    }

    /// Keeps the first characters and gives the others.
    pub(super) fn cut(&mut self, at: u64) -> Self {
        let id = Id { clock: self.id.clock + at, ..self.id };
        let origin = Some(Id { clock: id.clock - 1, ..id });
        let within = match self.within {
            Within::Root | Within::Made(_) => Within::Neighbours,
            within => within,
        };
        let others = Self { id, len: self.len - at, origin, right: self.right, within };
        self.len = at;
        others
    }
}

impl Block {
    /// What of it is not there yet, if its client's next clock is `have`.
    fn written_from(&self, client: u64, have: u64) -> Option<Written> {
        let [origin, right, _] = self.needs;
        let id = Id { client, clock: self.clock };
        let mut written = Written { id, len: self.len, origin, right, within: self.within };
        if have <= self.clock {
            return Some(written);
        }
        (have < written.end()).then(|| written.cut(have - self.clock))
    }
}

/// Reads `bytes` as one whole update of a document of that grammar.
///
/// # Errors
/// [`GuardError::Malformed`].
pub(super) fn scan(bytes: &[u8], grammar: Grammar<'_>) -> Result<Scan, GuardError> {
    read(Reader { rest: bytes, parts_max: PARTS_MAX }, CLIENTS_MAX, grammar)
}

/// Reads what this server has encoded of a document itself, which may be all of it.
///
/// # Errors
/// [`GuardError::Malformed`].
pub(super) fn scan_own(bytes: &[u8], grammar: Grammar<'_>) -> Result<Scan, GuardError> {
    read(Reader { rest: bytes, parts_max: usize::MAX }, usize::MAX, grammar)
}

fn read(mut reader: Reader<'_>, clients_max: usize, grammar: Grammar<'_>) -> Result<Scan, GuardError> {
    let mut scan = Scan::default();
    let mut seen = HashSet::new();
    let mut parts = 0;
    for _ in 0..reader.count(2)? {
        let blocks = reader.count(2)?;
        parts += blocks;
        reader.limit(parts)?;
        let client = reader.client()?;
        if !seen.insert(client) {
            return Err(malformed("a client appears twice"));
        }
        let mut clock = reader.number(CLOCK_MAX)?;
        let mut list = Vec::with_capacity(blocks.min(1024));
        for _ in 0..blocks {
            let block = reader.block(grammar, clock, &mut scan)?;
            scan.note_place(client, list.last(), &block);
            clock += block.len;
            if clock > CLOCK_MAX {
                return Err(malformed("a clock is out of range"));
            }
            list.push(block);
        }
        if !list.is_empty() {
            scan.clients.push((client, list));
        }
        if scan.clients.len() > clients_max {
            return Err(malformed("more than 1024 clients"));
        }
    }
    for _ in 0..reader.count(2)? {
        let client = reader.client()?;
        let ranges = reader.count(2)?;
        parts += ranges;
        reader.limit(parts)?;
        for _ in 0..ranges {
            let clock = reader.number(CLOCK_MAX)?;
            let len = reader.number(CLOCK_MAX)?;
            scan.deletes.push((Id { client, clock }, len));
        }
    }
    if reader.rest.is_empty() { Ok(scan) } else { Err(malformed("bytes follow the end")) }
}

impl Scan {
    /// Notes where a block was written, unless it goes on where the one before it ends.
    fn note_place(&mut self, client: u64, before: Option<&Block>, block: &Block) {
        let [origin, right, parent] = block.needs;
        let follows = before.is_some_and(|before| {
            let last = Id { client, clock: before.clock + before.len - 1 };
            origin == Some(last) && before.needs[1] == right
        });
        if follows || !block.is_in_text {
            return;
        }
        let parent = parent.map_or_else(|| BranchID::Root(ROOT.into()), |parent| BranchID::Nested(parent.to_yjs()));
        self.places.push(Place { origin: origin.map(Id::to_yjs), right: right.map(Id::to_yjs), parent });
    }

    /// What it deletes, as the first of each range and how many there are.
    pub(super) fn deleted(&self) -> &[(Id, u64)] {
        &self.deletes
    }

    /// Whether every block was written where its neighbours are next to each other; see [`places`](super::places).
    pub(super) fn is_plain(&self, txn: &impl ReadTxn) -> bool {
        self.places.iter().all(|place| place.is_plain(txn) || place.is_of_a_key(txn))
    }

    /// Checks that everything the update builds on is there, given the next clock of each client in the document, and that its
    /// types are not too deep inside each other. Gives what the document does not have yet, in an order in which it can be
    /// applied.
    ///
    /// # Errors
    /// [`GuardError`].
    pub(super) fn check_dependencies(&self, next_clock: impl Fn(u64) -> u32) -> Result<Vec<Written>, GuardError> {
        let mut written = Vec::new();
        let mut next: HashMap<u64, u64> = HashMap::new();
        let clock_of = |next: &mut HashMap<u64, u64>, client: u64| -> u64 {
            *next.entry(client).or_insert_with(|| u64::from(next_clock(client)))
        };
        // Blocks become available client by client; a client waits for the one clock that it needs next.
        let mut cursor = vec![0; self.clients.len()];
        let index: HashMap<u64, usize> =
            self.clients.iter().enumerate().map(|(index, (client, _))| (*client, index)).collect();
        let mut levels: Vec<Vec<u8>> = vec![Vec::new(); self.clients.len()];
        let mut waiting: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut ready: Vec<usize> = (0..self.clients.len()).collect();
        while let Some(at) = ready.pop() {
            let (client, blocks) = &self.clients[at];
            let start = cursor[at];
            while let Some(block) = blocks.get(cursor[at]) {
                let have = clock_of(&mut next, *client);
                if block.clock > have {
                    return Err(missing(Id { client: *client, clock: have }));
                }
                // What the document has already is left out when the update is applied.
                let known = block.clock + block.len <= have;
                let mut lacks = |id: &Id| {
                    let limit = if id.client == *client { block.clock } else { clock_of(&mut next, id.client) };
                    id.clock >= limit
                };
                match block.needs.iter().flatten().find(|id| !known && lacks(id)) {
                    Some(id) if id.client != *client && index.contains_key(&id.client) => {
                        waiting.entry(id.client).or_default().push(at);
                        break;
                    }
                    Some(id) => return Err(missing(*id)),
                    None => {
                        let level = self.level(block, &index, &levels);
                        if level > LEVEL_MAX {
                            return Err(malformed("it has maps or texts inside a style or a text"));
                        }
                        levels[at].push(level);
                        cursor[at] += 1;
                        written.extend(block.written_from(*client, have));
                        next.insert(*client, have.max(block.clock + block.len));
                    }
                }
            }
            if cursor[at] > start {
                ready.extend(waiting.remove(client).unwrap_or_default());
            }
        }
        if let Some(at) = (0..self.clients.len()).find(|at| cursor[*at] < self.clients[*at].1.len()) {
            let (client, blocks) = &self.clients[at];
            return Err(missing(Id { client: *client, clock: blocks[cursor[at]].clock }));
        }
        for (id, len) in &self.deletes {
            if id.clock + len > clock_of(&mut next, id.client) {
                return Err(missing(Id { client: id.client, clock: id.clock }));
            }
        }
        Ok(written)
    }

    /// How many types of this update a block is inside of, given the same of the blocks before it.
    fn level(&self, block: &Block, index: &HashMap<u64, usize>, levels: &[Vec<u8>]) -> u8 {
        let level_of = |id: &Id| {
            let at = *index.get(&id.client)?;
            let before = self.clients[at].1.partition_point(|block| block.clock <= id.clock).checked_sub(1)?;
            levels[at].get(before).copied()
        };
        match &block.needs {
            [_, _, Some(parent)] => level_of(parent).unwrap_or(0) + 1,
            [origin, right, None] => [origin, right].into_iter().flatten().filter_map(level_of).max().unwrap_or(0),
        }
    }
}

fn malformed(what: &'static str) -> GuardError {
    GuardError::Malformed(what)
}

fn missing(id: Id) -> GuardError {
    GuardError::MissingDependency { client: id.client, clock: id.clock }
}
