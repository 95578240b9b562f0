//! Reads a Yjs update (format v1) strictly before the CRDT library sees it.
//!
//! The library reserves memory for counts it reads from the wire, and keeps changes whose dependencies are missing, which later
//! breaks encoding the state. So every count is held against the bytes that remain, only what a `Y.Text` root can contain is
//! let through, and every dependency is looked up first.

use std::collections::HashMap;

use super::{ROOT, TextError};

const GC: u8 = 0;
const DELETED: u8 = 1;
const STRING: u8 = 4;
const FORMAT: u8 = 6;
const HAS_PARENT_SUB: u8 = 0x20;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_ORIGIN: u8 = 0x80;
/// Client ids are 53-bit numbers, safe in JavaScript.
const CLIENT_MAX: u64 = (1 << 53) - 1;
/// No honest document comes near this clock; beyond it the library's 32-bit sums could overflow.
const CLOCK_MAX: u64 = 1 << 30;
/// Blocks and deleted ranges in one update.
const PARTS_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    client: u64,
    clock: u64,
}

#[derive(Debug)]
struct Block {
    clock: u64,
    len: u64,
    needs: [Option<Id>; 2],
}

/// What an update contains.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// UTF-16 units of all inserted text.
    pub(super) inserted_units: usize,
    clients: Vec<(u64, Vec<Block>)>,
    deletes: Vec<(Id, u64)>,
}

/// Reads `bytes` as one whole update.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan, TextError> {
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
            let block = reader.block(clock, &mut scan.inserted_units)?;
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
    /// Checks that everything the update builds on is there, given the next clock of each client in the document.
    pub(super) fn check_dependencies(&self, next_clock: impl Fn(u64) -> u32) -> Result<(), TextError> {
        let mut next: HashMap<u64, u64> = HashMap::new();
        let clock_of = |next: &mut HashMap<u64, u64>, client: u64| -> u64 {
            *next.entry(client).or_insert_with(|| u64::from(next_clock(client)))
        };
        // Blocks become available client by client; a client waits for the one clock that it needs next.
        let mut cursor = vec![0; self.clients.len()];
        let index: HashMap<u64, usize> =
            self.clients.iter().enumerate().map(|(index, (client, _))| (*client, index)).collect();
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
}

fn malformed(what: &str) -> TextError {
    TextError::Invalid(format!("data: not a Yjs update of a text document: {what}"))
}

fn missing(id: Id) -> TextError {
    TextError::MissingDependency(format!("clock {} of client {}", id.clock, id.client))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, TextError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| malformed("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// A LEB128 number of at most 64 bits, as lib0 writes it.
    fn number(&mut self, max: u64) -> Result<u64, TextError> {
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
    fn count(&mut self, bytes_each: usize) -> Result<usize, TextError> {
        let count = self.number(u64::from(u32::MAX))? as usize;
        if count > self.rest.len() / bytes_each {
            return Err(malformed("a count is larger than the bytes that follow"));
        }
        Ok(count)
    }

    #[expect(clippy::unused_self, reason = "reads as the other checks do")]
    fn limit(&self, parts: usize) -> Result<(), TextError> {
        if parts > PARTS_MAX { Err(malformed("more than 20,000 blocks and ranges")) } else { Ok(()) }
    }

    fn client(&mut self) -> Result<u64, TextError> {
        self.number(CLIENT_MAX)
    }

    fn id(&mut self) -> Result<Id, TextError> {
        Ok(Id { client: self.client()?, clock: self.number(CLOCK_MAX)? })
    }

    fn string(&mut self) -> Result<&'a str, TextError> {
        let len = self.count(1)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| malformed("a string is not UTF-8"))
    }

    fn block(&mut self, clock: u64, inserted_units: &mut usize) -> Result<Block, TextError> {
        let info = self.byte()?;
        if info & 0x1F == GC {
            return Err(malformed("it has collected structs, which a text never has"));
        }
        let origin = if info & HAS_ORIGIN != 0 { Some(self.id()?) } else { None };
        let right = if info & HAS_RIGHT_ORIGIN != 0 { Some(self.id()?) } else { None };
        if origin.is_none() && right.is_none() {
            if self.number(1)? != 1 || self.string()? != ROOT {
                return Err(malformed("only the root type \"content\" may be written"));
            }
            if info & HAS_PARENT_SUB != 0 {
                return Err(malformed("a text has no keys"));
            }
        }
        let len = match info & 0x1F {
            DELETED => self.number(CLOCK_MAX)?,
            STRING => {
                let units = self.string()?.encode_utf16().count();
                *inserted_units += units;
                units as u64
            }
            FORMAT => {
                self.string()?;
                let value = self.string()?;
                serde_json::from_str::<serde::de::IgnoredAny>(value).map_err(|_| malformed("a mark is not JSON"))?;
                1
            }
            _ => return Err(malformed("a text holds text and marks only")),
        };
        if len == 0 {
            return Err(malformed("a block is empty"));
        }
        Ok(Block { clock, len, needs: [origin, right] })
    }
}
