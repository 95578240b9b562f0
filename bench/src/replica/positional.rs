//! A text whose characters remember who wrote and who deleted them, so that any subset of the operations can be looked at.
//!
//! Three views of the same characters are needed to speak JSON positions exactly: what the editor has seen (a transaction of
//! a trace refers to exactly its ancestors), what the server had before an operation (events refer to that), and everything
//! here (what the editor sends refers to what it has received plus its own operations).

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Edit, Received, ReplicaError, Span};
use crate::trace::Patch;

/// The editor has seen the operation.
const SEEN: u8 = 1;
/// The server's event of the operation has arrived.
const CONFIRMED: u8 = 2;
/// Set for every operation.
const HELD: u8 = 4;

const NOT_DELETED: u32 = u32::MAX;
const OPERATIONS_MAX: u32 = 1 << 24;
/// Runs of deleted characters of one operation.
const RUNS_MAX: usize = 1 << 16;

#[derive(Clone, Copy)]
struct Character {
    letter: char,
    writer: u32,
    /// Which of its writer's characters it is.
    offset: u32,
    /// A set of operations, or [`NOT_DELETED`].
    deleters: u32,
}

/// Operations that deleted the same characters.
struct DeleterSet {
    operations: Vec<u32>,
    flags: u8,
}

struct Operation {
    span: Span,
    flags: u8,
    /// The set of this operation alone.
    deleter_set: u32,
    /// Characters that it inserted.
    inserted: u32,
}

/// The name of the place before everything.
const START: &str = "^";
/// The name of the operation's own last character.
const SAME: &str = "=";

/// What an edit names beside its positions. Positions cannot tell places apart between which the server has nothing left;
/// a third writer, who has not seen that it is gone, must.
#[derive(Default)]
struct Names {
    deleted: Vec<Run>,
    after: Vec<String>,
}

/// Characters of one operation, from `offset` to `end` of those that it inserted.
struct Run {
    agent: u16,
    first: u32,
    offset: u32,
    end: u32,
}

impl std::fmt::Display for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}:{}:{}", self.agent, self.first, self.offset, self.end)
    }
}

impl Run {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
        let agent = u16::try_from(numbers.next()??).ok()?;
        let run = Self { agent, first: numbers.next()??, offset: numbers.next()??, end: numbers.next()?? };
        numbers.next().is_none().then_some(run)
    }
}

/// One item of `Operation.data` in encoding JSON.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(default)]
struct Item {
    pos: u32,
    #[serde(skip_serializing_if = "is_zero")]
    del: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    ins: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Items {
    Many(Vec<Item>),
    One(Item),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The characters and the operations that made them.
#[derive(Default)]
pub struct PositionalReplica {
    characters: Vec<Character>,
    operations: Vec<Operation>,
    deleter_sets: Vec<DeleterSet>,
    /// The sets of more than one operation.
    joint_sets: Vec<u32>,
    /// Operations by their writer and first transaction.
    numbers: HashMap<(u16, u32), u32>,
    unseen: Vec<u32>,
    /// The own operations whose event has not come: from their first transaction to their number.
    unconfirmed: HashMap<u32, u32>,
}

impl std::fmt::Debug for PositionalReplica {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PositionalReplica").field("operations", &self.operations.len()).finish_non_exhaustive()
    }
}

impl PositionalReplica {
    /// Makes one edit on top of what the editor has seen; gives a list of JSON items whose positions refer to everything here.
    ///
    /// # Errors
    /// If a patch lies outside the text.
    pub fn edit<'a>(&mut self, span: Span, patches: impl Iterator<Item = &'a Patch>) -> Result<Edit, ReplicaError> {
        let operation = self.add(span, SEEN | HELD)?;
        self.unconfirmed.insert(span.first, operation);
        let (mut items, mut names) = (Vec::new(), Names::default());
        for patch in patches {
            self.patch(operation, patch, &mut items, &mut names)?;
        }
        let data = Bytes::from(serde_json::to_vec(&items).expect("numbers and strings are always JSON"));
        let deleted: Vec<String> = names.deleted.iter().map(Run::to_string).collect();
        Ok(Edit { data, deleted: deleted.join(","), after: names.after.join(",") })
    }

    /// Applies an operation as the server applied it: positions refer to what the server had before it.
    ///
    /// # Errors
    /// If it is not the JSON form of a text operation or lies outside the text.
    pub fn receive(&mut self, received: &Received, own: bool) -> Result<(), ReplicaError> {
        if own {
            let operation = self.unconfirmed.remove(&received.span.first);
            let operation =
                operation.ok_or_else(|| ReplicaError::Operation("an operation came back twice".to_owned()))?;
            self.set_flags(operation, CONFIRMED);
            return Ok(());
        }
        let items: Items =
            serde_json::from_slice(&received.data).map_err(|error| ReplicaError::Operation(error.to_string()))?;
        let items = match items {
            Items::Many(items) => items,
            Items::One(item) => vec![item],
        };
        let operation = self.add(received.span, CONFIRMED | HELD)?;
        self.unseen.push(operation);
        let inserts = items.iter().filter(|item| !item.ins.is_empty()).count();
        let mut after: Vec<&str> = received.after.split(',').filter(|name| !name.is_empty()).collect();
        if after.len() != inserts && !after.is_empty() {
            return Err(ReplicaError::Operation(format!("{inserts} insertions and {} names", after.len())));
        }
        after.reverse();
        for item in items {
            let fault =
                || ReplicaError::Operation(format!("position {} with {} deleted is past the end", item.pos, item.del));
            let mut at = self.find_utf16(item.pos).ok_or_else(fault)?;
            self.delete_utf16(operation, at, item.del).ok_or_else(fault)?;
            if let Some(name) = after.pop_if(|_| !item.ins.is_empty()) {
                let astray = || ReplicaError::Operation(format!("position {} is not after {name}", item.pos));
                at = self.find_after(operation, name, at).ok_or_else(astray)?;
            }
            self.insert(operation, at, &item.ins);
        }
        self.delete_runs(operation, &received.deleted)
    }

    /// Lets the editor see the operations within the frontier.
    pub fn see(&mut self, frontier: &[u32]) {
        let unseen = std::mem::take(&mut self.unseen);
        let within = |span: Span| span.end <= frontier[usize::from(span.agent)];
        for operation in unseen {
            if within(self.operations[operation as usize].span) {
                self.set_flags(operation, SEEN);
            } else {
                self.unseen.push(operation);
            }
        }
    }

    /// The text that the editor sees.
    pub fn text(&self) -> String {
        self.characters
            .iter()
            .filter(|character| self.visible(character, SEEN))
            .map(|character| character.letter)
            .collect()
    }

    fn add(&mut self, span: Span, flags: u8) -> Result<u32, ReplicaError> {
        let operation = self.operations.len() as u32;
        if operation >= OPERATIONS_MAX {
            return Err(ReplicaError::Full(OPERATIONS_MAX));
        }
        let deleter_set = self.deleter_sets.len() as u32;
        self.deleter_sets.push(DeleterSet { operations: vec![operation], flags });
        self.operations.push(Operation { span, flags, deleter_set, inserted: 0 });
        self.numbers.insert((span.agent, span.first), operation);
        Ok(operation)
    }

    fn set_flags(&mut self, operation: u32, flags: u8) {
        let entry = &mut self.operations[operation as usize];
        entry.flags |= flags;
        self.deleter_sets[entry.deleter_set as usize].flags |= flags;
        for joint in &self.joint_sets {
            let set = &mut self.deleter_sets[*joint as usize];
            if set.operations.contains(&operation) {
                set.flags |= flags;
            }
        }
    }

    fn visible(&self, character: &Character, view: u8) -> bool {
        self.operations[character.writer as usize].flags & view != 0
            && (character.deleters == NOT_DELETED || self.deleter_sets[character.deleters as usize].flags & view == 0)
    }

    /// One patch of a trace: counts in code points of what the editor sees, writes items that count UTF-16 units of
    /// everything here. Characters of others between those deleted, which the editor does not see, stay: they split an item.
    fn patch(
        &mut self,
        operation: u32,
        patch: &Patch,
        items: &mut Vec<Item>,
        names: &mut Names,
    ) -> Result<(), ReplicaError> {
        let past_end = || ReplicaError::PastEnd { position: patch.position, deleted: patch.deleted };
        let (mut at, mut seen, mut start) = (0, 0, 0);
        while seen < patch.position {
            let character = *self.characters.get(at).ok_or_else(past_end)?;
            seen += u32::from(self.visible(&character, SEEN));
            start += self.utf16_if(&character, HELD);
            at += 1;
        }
        let (mut index, mut left, mut position, mut run) = (at, patch.deleted, start, 0);
        let mut deletions = Vec::new();
        while left > 0 {
            let character = *self.characters.get(index).ok_or_else(past_end)?;
            let held = self.utf16_if(&character, HELD);
            if self.visible(&character, SEEN) {
                left -= 1;
                run += held;
                self.delete(operation, index);
                self.note_deleted(names, &character);
            } else if held > 0 {
                flush(&mut deletions, position, &mut run);
                position += held;
            }
            index += 1;
        }
        flush(&mut deletions, position, &mut run);
        match deletions.as_mut_slice() {
            // One deletion that starts where the text goes in: one item says both.
            [item] if item.pos == start => item.ins.clone_from(&patch.inserted),
            _ if patch.inserted.is_empty() => {}
            _ => deletions.push(Item { pos: start, del: 0, ins: patch.inserted.clone() }),
        }
        items.append(&mut deletions);
        if !patch.inserted.is_empty() {
            self.note_after(names, operation, at);
        }
        self.insert(operation, at, &patch.inserted);
        Ok(())
    }

    fn utf16_if(&self, character: &Character, view: u8) -> u32 {
        if self.visible(character, view) { character.letter.len_utf16() as u32 } else { 0 }
    }

    /// The index right after so many UTF-16 units of what the server has confirmed.
    fn find_utf16(&self, position: u32) -> Option<usize> {
        let (mut at, mut left) = (0, position);
        while left > 0 {
            left = left.checked_sub(self.utf16_if(self.characters.get(at)?, CONFIRMED))?;
            at += 1;
        }
        Some(at)
    }

    fn delete_utf16(&mut self, operation: u32, at: usize, count: u32) -> Option<()> {
        let (mut index, mut left) = (at, count);
        while left > 0 {
            let units = self.utf16_if(self.characters.get(index)?, CONFIRMED);
            left = left.checked_sub(units)?;
            if units > 0 {
                self.delete(operation, index);
            }
            index += 1;
        }
        Some(())
    }

    /// Deletes what the writer deleted by name. An event shows only what an operation changed when the server came to it:
    /// not what another writer had deleted before. A third one that has seen this operation but not that other must still
    /// see these characters gone.
    fn delete_runs(&mut self, operation: u32, deleted: &str) -> Result<(), ReplicaError> {
        for (count, text) in deleted.split(',').filter(|text| !text.is_empty()).enumerate() {
            let run = Run::parse(text).filter(|_| count < RUNS_MAX);
            let run = run.ok_or_else(|| ReplicaError::Operation(format!("{text:?} names no characters")))?;
            let Some(writer) = self.numbers.get(&(run.agent, run.first)).copied() else {
                return Err(ReplicaError::Operation(format!("{text:?} names characters that have not come")));
            };
            for index in 0..self.characters.len() {
                let character = &self.characters[index];
                if character.writer == writer && (run.offset..run.end).contains(&character.offset) {
                    self.delete(operation, index);
                }
            }
        }
        Ok(())
    }

    /// Adds the character before `at` to the names of those after which text goes in.
    fn note_after(&self, names: &mut Names, operation: u32, at: usize) {
        let name = match at.checked_sub(1).map(|before| self.characters[before]) {
            None => START.to_owned(),
            Some(before)
                if before.writer == operation && before.offset + 1 == self.operations[operation as usize].inserted =>
            {
                SAME.to_owned()
            }
            Some(before) => {
                let span = self.operations[before.writer as usize].span;
                Run { agent: span.agent, first: span.first, offset: before.offset, end: before.offset + 1 }.to_string()
            }
        };
        names.after.push(name);
    }

    /// The index after the named character. It has to lie where the position says: nothing that the server had stands between.
    fn find_after(&self, operation: u32, name: &str, at: usize) -> Option<usize> {
        let (writer, offset) = match name {
            START => return (at == 0).then_some(0),
            SAME => (operation, self.operations[operation as usize].inserted.checked_sub(1)?),
            name => {
                let run = Run::parse(name)?;
                (*self.numbers.get(&(run.agent, run.first))?, run.offset)
            }
        };
        let hidden = self.characters[at..].iter().take_while(|character| !self.visible(character, CONFIRMED)).count();
        let named = |character: &Character| character.writer == writer && character.offset == offset;
        let found = (at.saturating_sub(1)..at + hidden).find(|index| named(&self.characters[*index]));
        found.map(|index| index + 1)
    }

    /// Adds a character to the names of those deleted.
    fn note_deleted(&self, names: &mut Names, character: &Character) {
        let span = self.operations[character.writer as usize].span;
        let offset = character.offset;
        match names.deleted.last_mut() {
            Some(run) if (run.agent, run.first, run.end) == (span.agent, span.first, offset) => run.end += 1,
            _ => names.deleted.push(Run { agent: span.agent, first: span.first, offset, end: offset + 1 }),
        }
    }

    fn delete(&mut self, operation: u32, index: usize) {
        let alone = self.operations[operation as usize].deleter_set;
        let before = self.characters[index].deleters;
        if before != NOT_DELETED && self.deleter_sets[before as usize].operations.contains(&operation) {
            return;
        }
        self.characters[index].deleters = if before == NOT_DELETED { alone } else { self.joined(before, operation) };
    }

    /// The set of operations `before` and one more. Rare: two writers deleted the same character.
    fn joined(&mut self, before: u32, operation: u32) -> u32 {
        let mut operations = self.deleter_sets[before as usize].operations.clone();
        operations.push(operation);
        if let Some(last) =
            self.joint_sets.last().filter(|last| self.deleter_sets[**last as usize].operations == operations)
        {
            return *last;
        }
        let flags = self.deleter_sets[before as usize].flags | self.operations[operation as usize].flags;
        self.deleter_sets.push(DeleterSet { operations, flags });
        let set = self.deleter_sets.len() as u32 - 1;
        self.joint_sets.push(set);
        set
    }

    fn insert(&mut self, operation: u32, at: usize, text: &str) {
        let writer = &mut self.operations[operation as usize];
        let entry = |letter| {
            let offset = writer.inserted;
            writer.inserted += 1;
            Character { letter, writer: operation, offset, deleters: NOT_DELETED }
        };
        self.characters.splice(at..at, text.chars().map(entry));
    }
}

fn flush(deletions: &mut Vec<Item>, position: u32, run: &mut u32) {
    if *run > 0 {
        deletions.push(Item { pos: position, del: std::mem::take(run), ins: String::new() });
    }
}
