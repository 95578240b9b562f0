//! Reads a Yjs update (format v1) strictly before the CRDT library sees it.
//!
//! The library reserves memory for counts it reads from the wire, and keeps changes whose dependencies are missing, which later
//! breaks encoding the state. So every count is held against the bytes that remain, only what a document of the type can contain
//! is let through, and every dependency is looked up first.

use std::collections::{HashMap, HashSet};

use yrs::{BranchID, ReadTxn};

use super::items::Root;
use super::places::Place;
use super::text::ROOT;

const GC: u8 = 0;
const DELETED: u8 = 1;
const STRING: u8 = 4;
const FORMAT: u8 = 6;
const TYPE: u8 = 7;
const ANY: u8 = 8;
const MAP: u64 = 1;
const TEXT: u64 = 2;
const HAS_PARENT_SUB: u8 = 0x20;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_ORIGIN: u8 = 0x80;
/// Whole numbers, client ids among them, have 53 bits, which JavaScript can tell apart.
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// No honest document comes near this clock; beyond it the library's 32-bit sums could overflow.
const CLOCK_MAX: u64 = 1 << 30;
/// Blocks and deleted ranges in one update.
const PARTS_MAX: usize = 20_000;
/// Lists and objects of one value inside each other.
const DEPTH_MAX: usize = 32;
/// Bytes of a key or an id.
const KEY_BYTES_MAX: usize = 255;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    client: u64,
    clock: u64,
}

#[derive(Debug)]
struct Block {
    clock: u64,
    len: u64,
    needs: [Option<Id>; 3],
    is_in_text: bool,
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

/// Reads `bytes` as one whole update of a document of that grammar.
///
/// # Errors
/// [`GuardError::Malformed`].
pub(super) fn scan(bytes: &[u8], grammar: Grammar<'_>) -> Result<Scan, GuardError> {
    let mut reader = Reader { rest: bytes };
    let mut scan = Scan::default();
    let mut parts = 0;
    for _ in 0..reader.count(2)? {
        let blocks = reader.count(2)?;
        parts += blocks;
        reader.limit(parts)?;
        let client = reader.client()?;
        if scan.clients.iter().any(|(seen, _)| *seen == client) {
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
        if scan.clients.len() > 1024 {
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

    /// Whether every block was written where its neighbours are next to each other; see [`places`](super::places).
    pub(super) fn is_plain(&self, txn: &impl ReadTxn) -> bool {
        self.places.iter().all(|place| place.is_plain(txn) || place.is_of_a_key(txn))
    }

    /// Checks that everything the update builds on is there, given the next clock of each client in the document, and that its
    /// types are not too deep inside each other.
    ///
    /// # Errors
    /// [`GuardError`].
    pub(super) fn check_dependencies(&self, next_clock: impl Fn(u64) -> u32) -> Result<(), GuardError> {
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
        Ok(())
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

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, GuardError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| malformed("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// A LEB128 number of at most 64 bits, as lib0 writes it.
    fn number(&mut self, max: u64) -> Result<u64, GuardError> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return if value <= max { Ok(value) } else { Err(malformed("a number is out of range")) };
            }
        }
        Err(malformed("a number is too long"))
    }

    /// A count of things that take at least `bytes_each`.
    fn count(&mut self, bytes_each: usize) -> Result<usize, GuardError> {
        let count = self.number(u64::from(u32::MAX))? as usize;
        if count > self.rest.len() / bytes_each {
            return Err(malformed("a count is larger than the bytes that follow"));
        }
        Ok(count)
    }

    #[expect(clippy::unused_self, reason = "reads as the other checks do")]
    fn limit(&self, parts: usize) -> Result<(), GuardError> {
        if parts > PARTS_MAX { Err(malformed("more than 20,000 blocks and ranges")) } else { Ok(()) }
    }

    fn client(&mut self) -> Result<u64, GuardError> {
        self.number(INTEGER_MAX)
    }

    fn id(&mut self) -> Result<Id, GuardError> {
        Ok(Id { client: self.client()?, clock: self.number(CLOCK_MAX)? })
    }

    fn string(&mut self) -> Result<&'a str, GuardError> {
        let len = self.count(1)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| malformed("a string is not UTF-8"))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], GuardError> {
        if len > self.rest.len() {
            return Err(malformed("it ends early"));
        }
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(bytes)
    }

    fn block(&mut self, grammar: Grammar<'_>, clock: u64, scan: &mut Scan) -> Result<Block, GuardError> {
        let info = self.byte()?;
        if info == GC {
            if let Grammar::Text = grammar {
                return Err(malformed("it has collected structs, which a text never has"));
            }
            let len = self.number(CLOCK_MAX)?;
            if len == 0 {
                return Err(malformed("a block is empty"));
            }
            return Ok(Block { clock, len, needs: [None; 3], is_in_text: false });
        }
        let (kind, has_key) = (info & 0x1F, info & HAS_PARENT_SUB != 0);
        let origin = if info & HAS_ORIGIN != 0 { Some(self.id()?) } else { None };
        let right = if info & HAS_RIGHT_ORIGIN != 0 { Some(self.id()?) } else { None };
        let named = origin.is_none() && right.is_none();
        let parent = if named { self.parent(grammar, has_key)? } else { None };
        let len = match grammar {
            Grammar::Text => self.text_content(kind, &mut scan.inserted_units)?,
            Grammar::Items(_) => {
                check_place(kind, right.is_some(), named.then_some(has_key))?;
                scan.parents.extend(parent.map(|parent| (parent.to_yjs(), has_key)));
                scan.rights.extend(right.map(Id::to_yjs));
                self.items_content(kind, &mut scan.inserted_units)?
            }
        };
        if len == 0 {
            return Err(malformed("a block is empty"));
        }
        Ok(Block { clock, len, needs: [origin, right, parent], is_in_text: !matches!(kind, TYPE | ANY) && !has_key })
    }

    /// What a block is in, if it does not follow from its neighbours and is no root: what another block made.
    fn parent(&mut self, grammar: Grammar<'_>, has_key: bool) -> Result<Option<Id>, GuardError> {
        let is_root = self.number(1)? == 1;
        let parent = match grammar {
            Grammar::Text => {
                if !is_root || self.string()? != ROOT {
                    return Err(malformed("only the root type \"content\" may be written"));
                }
                if has_key {
                    return Err(malformed("a text has no keys"));
                }
                None
            }
            Grammar::Items(roots) if is_root => {
                let name = self.string()?;
                if !roots.iter().any(|root| root.name() == name) {
                    return Err(malformed("it writes a root type that documents of this type do not have"));
                }
                if !has_key {
                    return Err(malformed("a root of items has keys"));
                }
                None
            }
            Grammar::Items(_) => Some(self.id()?),
        };
        if has_key && self.string()?.len() > KEY_BYTES_MAX {
            return Err(malformed("a key is longer than 255 bytes"));
        }
        Ok(parent)
    }

    /// How many units the content of a block in a text has.
    fn text_content(&mut self, kind: u8, inserted_units: &mut usize) -> Result<u64, GuardError> {
        match kind {
            DELETED => self.number(CLOCK_MAX),
            STRING => {
                let units = self.string()?.encode_utf16().count();
                *inserted_units += units;
                Ok(units as u64)
            }
            FORMAT => {
                self.string()?;
                let value = self.string()?;
                serde_json::from_str::<serde::de::IgnoredAny>(value).map_err(|_| malformed("a mark is not JSON"))?;
                Ok(1)
            }
            _ => Err(malformed("a text holds text and marks only")),
        }
    }

    /// The same of a block among items, or in the text of one.
    fn items_content(&mut self, kind: u8, inserted_units: &mut usize) -> Result<u64, GuardError> {
        match kind {
            DELETED | STRING | FORMAT => self.text_content(kind, inserted_units),
            TYPE => match self.number(u64::from(u8::MAX))? {
                MAP | TEXT => Ok(1),
                _ => Err(malformed("items hold maps and texts, no other types")),
            },
            ANY => {
                if self.number(1)? != 1 {
                    return Err(malformed("a key has one value"));
                }
                self.value(0)?;
                Ok(1)
            }
            _ => Err(malformed("items hold values, maps and texts only")),
        }
    }

    /// A value of any type that JSON has, as lib0 writes it.
    fn value(&mut self, depth: usize) -> Result<(), GuardError> {
        if depth > DEPTH_MAX {
            return Err(malformed("a value has more than 32 levels"));
        }
        match self.byte()? {
            // null, false, true.
            126 | 121 | 120 => {}
            125 => self.integer()?,
            124 => {
                let bytes = self.bytes(4)?.try_into().expect("it has four");
                finite(f64::from(f32::from_be_bytes(bytes)))?;
            }
            123 => {
                let bytes = self.bytes(8)?.try_into().expect("it has eight");
                finite(f64::from_be_bytes(bytes))?;
            }
            119 => {
                self.string()?;
            }
            118 => {
                for _ in 0..self.count(2)? {
                    self.string()?;
                    self.value(depth + 1)?;
                }
            }
            117 => {
                for _ in 0..self.count(1)? {
                    self.value(depth + 1)?;
                }
            }
            _ => return Err(malformed("a value is of a type that JSON does not have")),
        }
        Ok(())
    }

    /// A signed number of at most 53 bits: six bits and a sign, then seven bits at a time.
    fn integer(&mut self) -> Result<(), GuardError> {
        let mut byte = self.byte()?;
        let mut value = u64::from(byte & 0x3F);
        for shift in (6..55).step_by(7) {
            if byte < 0x80 {
                break;
            }
            byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
        }
        if byte < 0x80 && value <= INTEGER_MAX { Ok(()) } else { Err(malformed("a number is out of range")) }
    }
}

/// Values and types are under a key, which has no neighbour to the right; characters and marks are not.
fn check_place(kind: u8, has_right: bool, has_key: Option<bool>) -> Result<(), GuardError> {
    let fits = match kind {
        TYPE | ANY => !has_right && has_key != Some(false),
        STRING | FORMAT => has_key != Some(true),
        _ => true,
    };
    if fits { Ok(()) } else { Err(malformed("a text holds text and marks only, and what has keys holds neither")) }
}

fn finite(number: f64) -> Result<(), GuardError> {
    if number.is_finite() { Ok(()) } else { Err(malformed("a number is not finite")) }
}
