//! The engine of whiteboards, canvases and sheets: items of keys, with a style and a text each, in a Yjs document.
//!
//! Every item is a `Y.Map` in its root map, every key one value in it, `style` a `Y.Map` and `text` a `Y.Text` inside, so that
//! writers of different keys do not touch each other. [`change`] reads and writes the JSON form of operations, [`json`] that of
//! items; [`update`] merges what Yjs clients send; [`touched`] tells which writes an operation did not know.

mod change;
mod json;
mod touched;
mod update;

#[cfg(test)]
mod nested_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde_json::{Map as JsonMap, Value};
use yrs::updates::decoder::Decode;
use yrs::{
    Any, Doc, GetString, Map, MapPrelim, MapRef, OffsetKind, Options, Out, ReadTxn, StateVector, Text, TextPrelim,
    TextRef, Transact, TransactionMut, Update,
};

use change::{Action, ItemId, invalid};
pub(super) use change::{Change, ItemsError, Parsed, Root, encode, encode_each, parse, parse_content};
use json::{any_of_json, json_of_items};
use touched::{Part, Touched};
use update::Replica;

use super::guard::Grammar;
use super::text::{Author, Edit, STATE_BYTES_MAX, Seen, Shadow, TextError, Track};

/// The Yjs document of these roots.
fn new_doc(roots: &[Root], yjs_client: u64) -> (Doc, Vec<(Root, MapRef)>) {
    let mut options = Options::with_client_id(yrs::block::ClientID::new(yjs_client));
    options.offset_kind = OffsetKind::Utf16;
    let doc = Doc::with_options(options);
    let roots = roots.iter().map(|root| (*root, doc.get_or_insert_map(root.name()))).collect();
    (doc, roots)
}

/// A write that an operation did not know and that touched what it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clash {
    /// The version of that write.
    pub(super) version: u64,
    /// What both touched.
    pub(super) place: String,
    /// Whether the earlier write wins whatever the strategy: it deleted the item.
    pub(super) deletion: bool,
}

/// Items in memory.
pub(super) struct ItemsEngine {
    doc: Doc,
    roots: Vec<(Root, MapRef)>,
    touched: Touched,
    /// Nested texts that somebody edited since the document was loaded.
    texts: HashMap<ItemId, Track>,
    /// Another replica, on which updates of clients are tried; of documents that get any.
    copy: Option<Replica>,
    /// The order of all characters of all texts, of such documents.
    shadow: Shadow,
    state_bytes_estimate: usize,
}

impl ItemsEngine {
    /// Items of a document of this type, from `state`, a Yjs update of everything (empty: none). History starts at `version`.
    ///
    /// # Errors
    /// [`ItemsError::Broken`] if the state cannot be read.
    pub(super) fn restore(kind: &str, yjs_client: u64, state: &[u8], version: u64) -> Result<Self, ItemsError> {
        let (doc, roots) = new_doc(Root::of(kind), yjs_client);
        let (touched, texts) = (Touched::new(version), HashMap::new());
        let shadow = Shadow::default();
        let mut engine = Self { doc, roots, touched, texts, copy: None, shadow, state_bytes_estimate: 0 };
        if !state.is_empty() {
            engine.replay(state)?;
        }
        Ok(engine)
    }

    /// Applies a logged update while a document is being loaded.
    ///
    /// # Errors
    /// [`ItemsError::Broken`] if the update cannot be read.
    pub(super) fn replay(&mut self, update: &[u8]) -> Result<(), ItemsError> {
        let decoded = Update::decode_v1(update).map_err(|_| ItemsError::Broken("a logged update does not decode"))?;
        let applied = self.doc.transact_mut().apply_update(decoded);
        applied.map_err(|_| ItemsError::Broken("a logged update does not apply"))?;
        self.state_bytes_estimate += update.len();
        self.shadow = Shadow::Unneeded;
        Ok(())
    }

    /// Gives the engine the history after version `floor`; an operation without changes is one that replaced everything.
    pub(super) fn restore_history(&mut self, floor: u64, log: impl Iterator<Item = (Author, Option<Vec<Change>>)>) {
        self.touched = Touched::new(floor);
        for (author, changes) in log {
            match changes {
                Some(changes) => self.touched.write(&changes, author),
                None => self.touched.write_everything(author),
            }
        }
    }

    /// The roots of the document.
    pub(super) fn roots(&self) -> Vec<Root> {
        self.roots.iter().map(|(root, _)| *root).collect()
    }

    /// The whole state as a Yjs update, format v1.
    pub(super) fn state(&mut self) -> Vec<u8> {
        let state = self.doc.transact().encode_diff_v1(&StateVector::default());
        self.state_bytes_estimate = state.len();
        state
    }

    /// The items as canonical JSON: keys in order.
    pub(super) fn content(&self) -> Vec<u8> {
        let txn = self.doc.transact();
        let roots: BTreeMap<&str, Value> =
            self.roots.iter().map(|(root, map)| (root.name(), json_of_items(map, &txn))).collect();
        serde_json::to_vec(&roots).expect("JSON values always serialise")
    }

    /// The writes that the writer of `changes` had not seen and that touched what they touch.
    ///
    /// # Errors
    /// [`ItemsError`] if the changes cannot be applied at all.
    pub(super) fn clashes(&self, changes: &[Change], seen: Seen) -> Result<Vec<Clash>, ItemsError> {
        if seen.version < self.touched.floor() {
            return Err(ItemsError::TooOld(self.touched.floor()));
        }
        self.check(changes, seen)?;
        let mut clashes = Vec::new();
        for change in changes {
            self.clashes_of(change, seen, &mut clashes);
        }
        Ok(clashes)
    }

    fn clashes_of(&self, change: &Change, seen: Seen, clashes: &mut Vec<Clash>) {
        let item = &change.item;
        let unknown = |part: Part| self.touched.unknown(item, part, seen);
        let mut clash = |part: Part, place: String, deletion: bool| {
            if let Some(version) = unknown(part) {
                clashes.push(Clash { version, place, deletion });
            }
        };
        let exists = self.exists(item);
        match change.action {
            Action::Delete if exists => clash(Part::Anything, item.to_string(), false),
            Action::Delete => {}
            Action::Create if exists => clash(Part::Existence, item.to_string(), false),
            Action::Change if !exists => clash(Part::Existence, item.to_string(), true),
            Action::Create | Action::Change => {
                for key in change.set.keys() {
                    clash(Part::Key(key.clone()), format!("{item}/{key}"), false);
                }
                for key in change.style.keys() {
                    clash(Part::Style(key.clone()), format!("{item}/style/{key}"), false);
                }
            }
        }
    }

    /// Applies changes from which those of items that others deleted have been left out.
    ///
    /// # Errors
    /// [`ItemsError`]; after any but [`ItemsError::Broken`] the items are as before.
    pub(super) fn apply(
        &mut self,
        changes: Vec<Change>,
        seen: Seen,
        author: Author,
    ) -> Result<(Vec<Change>, Bytes), ItemsError> {
        let bytes = self.check(&changes, seen)?;
        self.check_room(bytes)?;
        let (changes, update) = catch_unwind(AssertUnwindSafe(|| self.write(changes, seen, author)))
            .map_err(|_| ItemsError::Broken("the CRDT failed on an operation"))??;
        self.touched.write(&changes, author);
        self.state_bytes_estimate += update.len();
        self.copy = self.copy.take().filter(|copy| copy.follow(&update));
        self.follow(&update);
        Ok((changes, update.into()))
    }

    /// Has the order of all characters follow an update that the document has.
    fn follow(&mut self, update: &[u8]) {
        let roots = self.roots();
        self.shadow.follow(update, Grammar::Items(&roots));
    }

    /// Replaces all items.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(super) fn replace(&mut self, items: Vec<Change>, author: Author) -> Result<Bytes, ItemsError> {
        self.check_forest(&items)?;
        self.check_room(items.iter().map(size).sum())?;
        (self.copy, self.shadow) = (None, Shadow::Unneeded);
        let replaced = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = self.doc.transact_mut();
            for (_, map) in &self.roots {
                map.clear(&mut txn);
            }
            drop(txn);
            self.texts.clear();
            self.write(items, Seen::of(author.version - 1, author.session), author).map(drop)
        }));
        replaced.map_err(|_| ItemsError::Broken("the CRDT failed on a replacement"))??;
        self.touched.write_everything(author);
        Ok(self.state().into())
    }

    /// Checks that the parents of items that replace all others form a tree.
    ///
    /// # Errors
    /// [`ItemsError::Invalid`].
    pub(super) fn check_forest(&self, items: &[Change]) -> Result<(), ItemsError> {
        let parents: HashMap<&str, Option<&str>> =
            items.iter().map(|item| (item.item.id.as_str(), item.set.get("parent").and_then(Value::as_str))).collect();
        items.iter().try_for_each(|item| self.check_tree(&item.item.id, &parents))
    }

    fn check_room(&mut self, bytes: usize) -> Result<(), ItemsError> {
        if self.state_bytes_estimate + bytes > STATE_BYTES_MAX {
            // The estimate only grows; deletions give room back.
            self.state();
        }
        if self.state_bytes_estimate + bytes > STATE_BYTES_MAX {
            return Err(ItemsError::Full("its items and their history may have 3 MiB"));
        }
        Ok(())
    }

    /// Checks that all changes can be applied one after the other; returns roughly the bytes that they add.
    fn check(&self, changes: &[Change], seen: Seen) -> Result<usize, ItemsError> {
        let mut made: HashMap<&ItemId, bool> = HashMap::new();
        let mut parents: HashMap<&str, Option<&str>> = HashMap::new();
        let mut edited: HashSet<&ItemId> = HashSet::new();
        let mut bytes = 0;
        for change in changes {
            let item = &change.item;
            let unknown = self.touched.unknown(item, Part::Existence, seen).is_some();
            let exists = made.get(item).copied().unwrap_or_else(|| self.exists(item));
            match change.action {
                Action::Create if exists && (!unknown || made.contains_key(item)) => {
                    return Err(ItemsError::Exists(item.to_string()));
                }
                Action::Change | Action::Delete if !exists && (!unknown || made.contains_key(item)) => {
                    return Err(ItemsError::Missing(item.to_string()));
                }
                _ => {}
            }
            made.insert(item, change.action != Action::Delete);
            if let Some(parent) = change.set.get("parent") {
                parents.insert(&item.id, parent.as_str());
                self.check_tree(&item.id, &parents)?;
            }
            if !change.text.is_empty() && exists {
                if !edited.insert(item) {
                    return Err(invalid(format!("{item}: an operation edits a text once, with a list of edits")));
                }
                self.check_text(change, seen)?;
            }
            bytes += size(change);
        }
        Ok(bytes)
    }

    /// Parents form a tree: going up from an item never comes back to it.
    fn check_tree(&self, id: &str, parents: &HashMap<&str, Option<&str>>) -> Result<(), ItemsError> {
        let txn = self.doc.transact();
        let mut seen = HashSet::from([id.to_owned()]);
        let mut at = id.to_owned();
        loop {
            let above = match parents.get(at.as_str()) {
                Some(parent) => parent.map(str::to_owned),
                None => self.item(&ItemId { root: Root::Elements, id: at }, &txn).and_then(|map| {
                    match map.get(&txn, "parent") {
                        Some(Out::Any(Any::String(parent))) => Some(parent.to_string()),
                        _ => None,
                    }
                }),
            };
            let Some(above) = above else { return Ok(()) };
            if !seen.insert(above.clone()) {
                return Err(invalid(format!("elements/{id}: that parent would make a circle; parents form a tree")));
            }
            at = above;
        }
    }

    fn check_text(&self, change: &Change, seen: Seen) -> Result<(), ItemsError> {
        let fresh;
        let track = if let Some(track) = self.texts.get(&change.item) {
            track
        } else {
            fresh = self.load_text(&change.item);
            &fresh
        };
        let view = track.view(seen).map_err(of_text)?;
        track.check(&change.text, view).map(drop).map_err(of_text)
    }

    /// A nested text whose history starts where somebody last wrote it.
    fn load_text(&self, item: &ItemId) -> Track {
        let txn = self.doc.transact();
        let text = self.item(item, &txn).and_then(|map| nested_text(&map, &txn));
        let text = text.map_or_else(String::new, |text| text.get_string(&txn));
        Track::new(&text, self.touched.last(item, Part::Text))
    }

    /// The text of an item that the author makes. Whoever makes one may go on from a base at which it was not there, unless others had
    /// one of that name.
    fn new_text(&self, item: &ItemId, author: Author) -> Track {
        let floor = self.touched.floor();
        let is_known = self.touched.unknown(item, Part::Anything, Seen::of(floor, author.session)).is_some();
        Track::new("", if is_known { author.version - 1 } else { floor })
    }

    fn write(
        &mut self,
        mut changes: Vec<Change>,
        seen: Seen,
        author: Author,
    ) -> Result<(Vec<Change>, Vec<u8>), ItemsError> {
        for change in &mut changes {
            change.text = self.track_text(change, seen, author)?;
        }
        let mut txn = self.doc.transact_mut();
        for change in &changes {
            let Some((_, root)) = self.roots.iter().find(|(root, _)| *root == change.item.root) else { continue };
            write_change(change, root, &mut txn);
        }
        let update = txn.encode_update_v1();
        Ok((changes, update))
    }

    /// Takes the edits of a change into the history of the item's text. Gives what they do to the text of today.
    fn track_text(&mut self, change: &Change, seen: Seen, author: Author) -> Result<Vec<Edit>, ItemsError> {
        let exists = self.exists(&change.item);
        if change.action == Action::Delete || !exists {
            self.texts.remove(&change.item);
        }
        if change.text.is_empty() {
            return Ok(Vec::new());
        }
        if !self.texts.contains_key(&change.item) {
            let track = if exists { self.load_text(&change.item) } else { self.new_text(&change.item, author) };
            self.texts.insert(change.item.clone(), track);
        }
        let track = self.texts.get_mut(&change.item).expect("it was just inserted");
        if !exists {
            let view = track.view(Seen::of(author.version - 1, author.session)).map_err(of_text)?;
            return track.place(&change.text, view, author).map_err(of_text);
        }
        if seen.waited.is_some() {
            return track.decide(&change.text, seen, author, false).map_err(of_text);
        }
        let view = track.view(seen).map_err(of_text)?;
        track.place(&change.text, view, author).map_err(of_text)
    }

    fn exists(&self, item: &ItemId) -> bool {
        self.item(item, &self.doc.transact()).is_some()
    }

    fn item(&self, item: &ItemId, txn: &impl ReadTxn) -> Option<MapRef> {
        let (_, root) = self.roots.iter().find(|(root, _)| *root == item.root)?;
        match root.get(txn, &item.id) {
            Some(Out::YMap(map)) => Some(map),
            _ => None,
        }
    }
}

/// Roughly the bytes that a change adds to the state.
fn size(change: &Change) -> usize {
    64 + change.item.id.len() + encode(std::slice::from_ref(change)).len()
}

fn of_text(error: TextError) -> ItemsError {
    match error {
        TextError::Invalid(message) | TextError::MissingDependency(message) => {
            invalid(format!("text: {}", message.trim_start_matches("data: ")))
        }
        TextError::TooOld(floor) => ItemsError::TooOld(floor),
        TextError::Full(what) => ItemsError::Full(what),
        TextError::Broken(what) => ItemsError::Broken(what),
    }
}

fn write_change(change: &Change, root: &MapRef, txn: &mut TransactionMut<'_>) {
    if change.action == Action::Delete {
        root.remove(txn, &change.item.id);
        return;
    }
    let item = match root.get(txn, &change.item.id) {
        Some(Out::YMap(map)) => map,
        _ => root.insert(txn, change.item.id.as_str(), MapPrelim::default()),
    };
    write_keys(&change.set, &item, txn);
    if !change.style.is_empty() {
        let style = match item.get(txn, "style") {
            Some(Out::YMap(map)) => map,
            _ => item.insert(txn, "style", MapPrelim::default()),
        };
        write_keys(&change.style, &style, txn);
    }
    if !change.text.is_empty() {
        let text = match nested_text(&item, txn) {
            Some(text) => text,
            None => item.insert(txn, "text", TextPrelim::new("")),
        };
        for edit in &change.text {
            if edit.del > 0 {
                text.remove_range(txn, edit.pos, edit.del);
            }
            if !edit.ins.is_empty() {
                text.insert(txn, edit.pos, &edit.ins);
            }
        }
    }
}

fn write_keys(keys: &JsonMap<String, Value>, map: &MapRef, txn: &mut TransactionMut<'_>) {
    for (key, value) in keys {
        if value.is_null() {
            map.remove(txn, key);
        } else {
            map.insert(txn, key.as_str(), any_of_json(value));
        }
    }
}

fn nested_text(item: &MapRef, txn: &impl ReadTxn) -> Option<TextRef> {
    match item.get(txn, "text") {
        Some(Out::YText(text)) => Some(text),
        _ => None,
    }
}
