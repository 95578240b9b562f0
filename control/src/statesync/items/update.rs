//! Yjs updates of whiteboards, canvases and sheets.
//!
//! What it writes into texts is held against the order of all their characters (`text/flat.rs`). Then an update is tried on a copy: what it would make of each item it touches is checked like any operation and read as
//! changes, which are the JSON form of the operation. A copy on which one failed is thrown away.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Map as JsonMap, Value};
use yrs::block::ClientID;
use yrs::branch::BranchPtr;
use yrs::types::{Event, Events, PathSegment, TypeRef};
use yrs::updates::decoder::Decode;
use yrs::{
    Assoc, BranchID, DeepObservable, Doc, GetString, Map, MapRef, Out, ReadTxn, StateVector, StickyIndex, Text,
    TextRef, Transact, TransactionMut, Update,
};

use super::change::{Action, CHANGES_MAX, Change, ItemId, ItemsError, Root, check_id, check_keys, invalid};
use super::json::{json_of_items, json_of_key};
use super::{Clash, ItemsEngine, new_doc};
use crate::statesync::guard::{Grammar, GuardError, Scan, Written, scan};
use crate::statesync::text::{
    Author, EDITS_MAX, Edit, Misplaced, Seen, TEXT_UNITS_MAX, difference, edits_of_delta, splice, splits_pair,
};

/// The name of the observers on a copy.
const OBSERVER: &str = "items";

/// The items that an update touches, with what it does to the text of each, as far as the library tells.
type Touches = BTreeMap<ItemId, Vec<Edit>>;

/// The same items once more.
pub(super) struct Replica {
    doc: Doc,
    roots: Vec<(Root, MapRef)>,
}

/// An item as it is read.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shape {
    set: JsonMap<String, Value>,
    style: JsonMap<String, Value>,
    text: String,
}

/// What an update did on a copy.
struct Tried {
    copy: Replica,
    changes: Vec<Change>,
    /// The items that it touched, as it made them.
    shapes: Vec<(ItemId, Option<Shape>)>,
}

impl From<GuardError> for ItemsError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Malformed(_) => Self::Invalid(error.to_string()),
            GuardError::MissingDependency { .. } => Self::MissingDependency(error.to_string()),
        }
    }
}

impl Replica {
    /// A replica with this state.
    fn new(kind: &[Root], yjs_client: u64, state: &[u8]) -> Result<Self, ItemsError> {
        let (doc, roots) = new_doc(kind, yjs_client);
        apply(&mut doc.transact_mut(), state)?;
        Ok(Self { doc, roots })
    }

    /// Applies an update that the items themselves have; tells whether it could.
    pub(super) fn follow(&self, update: &[u8]) -> bool {
        let applied = catch_unwind(AssertUnwindSafe(|| apply(&mut self.doc.transact_mut(), update)));
        matches!(applied, Ok(Ok(())))
    }

    /// Applies an update that was scanned; gives what it touched. `fits` tells that its characters are known to be in their places.
    fn try_update(&self, update: &[u8], scanned: &Scan, fits: bool) -> Result<Touches, ItemsError> {
        let touches = Arc::new(Mutex::new(Touches::new()));
        for (root, map) in &self.roots {
            let (root, sink) = (*root, Arc::clone(&touches));
            map.observe_deep(OBSERVER, move |txn: &TransactionMut<'_>, events: &Events<'_>| {
                // A transaction that fails is committed all the same; a second failure then would end the process.
                if std::thread::panicking() {
                    return;
                }
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                for event in events.iter() {
                    note(event, root, txn, &mut sink);
                }
            });
        }
        let roots: Vec<Root> = self.roots.iter().map(|(root, _)| *root).collect();
        let is_plain = fits || scanned.is_plain(&self.doc.transact());
        let applied = {
            let mut txn = self.doc.transact_mut();
            apply(&mut txn, update)
                .and_then(|()| check_places(scanned, &txn))
                .and_then(|()| check_encoding(&txn, &roots))
        };
        for (_, map) in &self.roots {
            map.unobserve_deep(OBSERVER);
        }
        applied?;
        if !is_plain && !self.is_same_in_every_replica(&roots)? {
            return Err(invalid(Misplaced::NotAdjacent.to_string()));
        }
        let touches = std::mem::take(&mut *touches.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(touches)
    }

    /// Whether a replica that gets all at once comes to the same.
    fn is_same_in_every_replica(&self, kind: &[Root]) -> Result<bool, ItemsError> {
        let state = self.doc.transact().encode_diff_v1(&StateVector::default());
        let latecomer = Self::new(kind, self.doc.client_id().get(), &state)?;
        Ok(self.content() == latecomer.content())
    }

    fn content(&self) -> Vec<Value> {
        let txn = self.doc.transact();
        self.roots.iter().map(|(_, map)| json_of_items(map, &txn)).collect()
    }

    fn shape(&self, item: &ItemId) -> Result<Option<Shape>, ItemsError> {
        shape_of(&self.roots, item, &self.doc.transact())
    }
}

fn apply(txn: &mut TransactionMut<'_>, update: &[u8]) -> Result<(), ItemsError> {
    let decoded = Update::decode_v1(update).map_err(|error| invalid(error.to_string()))?;
    txn.apply_update(decoded).map_err(|_| ItemsError::Broken("an update does not apply"))?;
    if txn.store().pending_update().is_some() || txn.store().pending_ds().is_some() {
        return Err(ItemsError::Broken("an update left changes pending"));
    }
    Ok(())
}

/// Checks what the library takes as it comes: only a text has content without a key, and no content with one; what was written
/// to the left of something is in a text. A block that got its key from a neighbour in another type would take it to those
/// that are later written beside it.
fn check_places(scanned: &Scan, txn: &impl ReadTxn) -> Result<(), ItemsError> {
    let is_text = |branch: BranchPtr| *branch.type_ref() == TypeRef::Text;
    for (parent, has_key) in &scanned.parents {
        let parent = BranchID::Nested(*parent).get_branch(txn);
        if parent.is_some_and(|parent| is_text(parent) == *has_key) {
            return Err(invalid("the keys of an item are in a map, its characters in a text".to_owned()));
        }
    }
    for right in &scanned.rights {
        let place = StickyIndex::from_id(*right, Assoc::After).get_offset(txn);
        if place.is_some_and(|place| !is_text(place.branch)) {
            return Err(invalid("only what is in a text has a neighbour to the right".to_owned()));
        }
    }
    Ok(())
}

/// Checks that what is logged of the update can be read again.
fn check_encoding(txn: &TransactionMut<'_>, roots: &[Root]) -> Result<(), ItemsError> {
    scan(&txn.encode_update_v1(), Grammar::Items(roots))?;
    Ok(())
}

/// Notes the items of a root that an event is about: those whose entry changed, or the one in which something did.
fn note(event: &Event, root: Root, txn: &TransactionMut<'_>, touches: &mut Touches) {
    let path = event.path();
    match (path.front(), path.get(1), event) {
        (Some(PathSegment::Key(id)), Some(PathSegment::Key(key)), Event::Text(text)) if **key == *"text" => {
            touches.insert(ItemId { root, id: id.to_string() }, edits_of_delta(text.delta(txn)));
        }
        (Some(PathSegment::Key(id)), _, _) => {
            touches.entry(ItemId { root, id: id.to_string() }).or_default();
        }
        (None, _, Event::Map(entries)) => {
            for id in entries.keys(txn).keys() {
                touches.entry(ItemId { root, id: id.to_string() }).or_default();
            }
        }
        _ => {}
    }
}

/// The item as it is, if there is one.
fn shape_of(roots: &[(Root, MapRef)], item: &ItemId, txn: &impl ReadTxn) -> Result<Option<Shape>, ItemsError> {
    let Some((_, root)) = roots.iter().find(|(root, _)| *root == item.root) else { return Ok(None) };
    let map = match root.get(txn, &item.id) {
        None => return Ok(None),
        Some(Out::YMap(map)) => map,
        Some(_) => return Err(invalid(format!("{item} is no map: an item is a Y.Map"))),
    };
    check_id(&item.id)?;
    let mut shape = Shape::default();
    for (key, value) in map.iter(txn) {
        match (key, value) {
            ("text", Out::YText(text)) => shape.text = text_of(item, &text, txn)?,
            ("style", Out::YMap(style)) => shape.style = style_of(item, &style, txn)?,
            (key, Out::Any(value)) => shape.set.extend(json_of_key(&value).map(|value| (key.to_owned(), value))),
            (key, _) => {
                let what = "only \"style\", a Y.Map, and \"text\", a Y.Text, are shared types inside an item";
                return Err(invalid(format!("{item}/{key}: {what}")));
            }
        }
    }
    check_keys(&shape.set)?;
    check_keys(&shape.style)?;
    Ok(Some(shape))
}

fn text_of(item: &ItemId, text: &TextRef, txn: &impl ReadTxn) -> Result<String, ItemsError> {
    let (read, units) = (text.get_string(txn), text.len(txn) as usize);
    if read.encode_utf16().count() != units {
        return Err(invalid(format!("{item}/text holds something else than text")));
    }
    if units > TEXT_UNITS_MAX {
        return Err(ItemsError::Full("a text may have 1,048,576 UTF-16 units"));
    }
    Ok(read)
}

fn style_of(item: &ItemId, style: &MapRef, txn: &impl ReadTxn) -> Result<JsonMap<String, Value>, ItemsError> {
    let mut keys = JsonMap::new();
    for (key, value) in style.iter(txn) {
        let Out::Any(value) = value else {
            return Err(invalid(format!("{item}/style/{key} is a shared type; styles are plain values")));
        };
        keys.extend(json_of_key(&value).map(|value| (key.to_owned(), value)));
    }
    Ok(keys)
}

/// What makes the one of the other; nothing if they are alike.
fn change_between(item: &ItemId, before: Option<Shape>, after: Option<Shape>, told: Vec<Edit>) -> Option<Change> {
    let changed = |action, set, style, text| Change { item: item.clone(), action, set, style, text };
    match (before, after) {
        (None, None) => None,
        (Some(_), None) => Some(changed(Action::Delete, JsonMap::new(), JsonMap::new(), Vec::new())),
        (None, Some(after)) => {
            let text = difference(&[], &after.text).into_iter().collect();
            Some(changed(Action::Create, after.set, after.style, text))
        }
        (Some(before), Some(after)) if before == after => None,
        (Some(before), Some(after)) => {
            let text = edits_between(&before.text, &after.text, told);
            let (set, style) = (keys_between(before.set, after.set), keys_between(before.style, after.style));
            Some(changed(Action::Change, set, style, text))
        }
    }
}

/// The keys whose values differ, with what they are to be; null for those that are gone.
fn keys_between(before: JsonMap<String, Value>, mut after: JsonMap<String, Value>) -> JsonMap<String, Value> {
    for (key, old) in before {
        if after.get(&key).is_some_and(|new| *new == old) {
            after.remove(&key);
        } else if !after.contains_key(&key) {
            after.insert(key, Value::Null);
        }
    }
    after
}

/// The edits that make the one text of the other: those that the library told, if they do.
fn edits_between(before: &str, after: &str, told: Vec<Edit>) -> Vec<Edit> {
    let units: Vec<u16> = before.encode_utf16().collect();
    if told.len() <= EDITS_MAX && edited(&units, &told).is_some_and(|text| text == after) {
        return told;
    }
    difference(&units, after).into_iter().collect()
}

/// A text after edits, if they fit it.
fn edited(units: &[u16], edits: &[Edit]) -> Option<String> {
    let mut units = units.to_vec();
    for edit in edits {
        let (start, end) = (edit.pos as usize, edit.pos as usize + edit.del as usize);
        if end > units.len() || splits_pair(&units, start) || splits_pair(&units, end) {
            return None;
        }
        splice(&mut units, edit);
    }
    String::from_utf16(&units).ok()
}

impl ItemsEngine {
    /// Merges a Yjs update of a client. Gives the changes that it makes, the writes since `base` (0: not told) that it did not
    /// know and won over, and the update.
    ///
    /// # Errors
    /// [`ItemsError`]; after any but [`ItemsError::Broken`] the items are as before.
    pub(in crate::statesync) fn apply_update(
        &mut self,
        bytes: &Bytes,
        base: u64,
        author: Author,
    ) -> Result<(Vec<Change>, Vec<Clash>, Bytes), ItemsError> {
        self.check_room(bytes.len())?;
        let scanned = scan(bytes, Grammar::Items(&self.roots()))?;
        let known = self.doc.transact().state_vector();
        let blocks = scanned.check_dependencies(|client| known.get(&ClientID::new(client)))?;
        let fits = self.check_neighbours(&blocks)?;
        let tried = self.try_on_copy(bytes, &scanned, fits)?;
        let mut clashes = Vec::new();
        // What came before the history cannot be told any more.
        if base > 0 && base >= self.touched.floor() {
            for change in &tried.changes {
                self.clashes_of(change, Seen::of(base, author.session), &mut clashes);
            }
        }
        for change in &tried.changes {
            self.track_text(change, Seen::of(author.version - 1, author.session), author)
                .map_err(|_| ItemsError::Broken("the history of a text does not take an update"))?;
        }
        let update = self.merge(bytes)?;
        for (item, shape) in &tried.shapes {
            if self.shape(item)? != *shape {
                return Err(ItemsError::Broken("an update did something else than when it was tried"));
            }
        }
        self.touched.write(&tried.changes, author);
        self.state_bytes_estimate += update.len();
        self.copy = Some(tried.copy);
        self.follow(&update);
        Ok((tried.changes, clashes, update.into()))
    }

    /// Checks that what an update writes into texts was written beside what its writer had next to each other. Tells whether it could
    /// be checked: with a history that is too large it cannot.
    fn check_neighbours(&mut self, blocks: &[Written]) -> Result<bool, ItemsError> {
        let (roots, doc) = (self.roots(), &self.doc);
        let state = || doc.transact().encode_diff_v1(&StateVector::default());
        match self.shadow.check(blocks, Grammar::Items(&roots), state) {
            Some(checked) => checked.map(|()| true).map_err(|misplaced| invalid(misplaced.to_string())),
            None => Ok(false),
        }
    }

    /// What the update would change. The copy is with what is given back, or gone.
    fn try_on_copy(&mut self, bytes: &[u8], scanned: &Scan, fits: bool) -> Result<Tried, ItemsError> {
        let copy = self.copy.take();
        let tried = catch_unwind(AssertUnwindSafe(|| -> Result<(Replica, Touches), ItemsError> {
            let copy = if let Some(copy) = copy {
                copy
            } else {
                let state = self.doc.transact().encode_diff_v1(&StateVector::default());
                Replica::new(&self.roots(), self.doc.client_id().get(), &state)?
            };
            let touches = copy.try_update(bytes, scanned, fits)?;
            Ok((copy, touches))
        }));
        let (copy, touches) = match tried {
            Ok(Ok(tried)) => tried,
            // What breaks the copy has not reached the items.
            Ok(Err(ItemsError::Broken(what))) => return Err(invalid(what.to_owned())),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(invalid("the update cannot be applied".to_owned())),
        };
        if touches.len() > CHANGES_MAX {
            return Err(invalid(format!("an operation may change {CHANGES_MAX} items, this one {}", touches.len())));
        }
        let (mut changes, mut shapes) = (Vec::new(), Vec::new());
        for (item, told) in touches {
            let (before, after) = (self.shape(&item)?, copy.shape(&item)?);
            changes.extend(change_between(&item, before, after.clone(), told));
            shapes.push((item, after));
        }
        self.check_moves(&changes)?;
        Ok(Tried { copy, changes, shapes })
    }

    /// Applies an update that has been tried; gives it as the document has it.
    fn merge(&self, bytes: &[u8]) -> Result<Vec<u8>, ItemsError> {
        let merged = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = self.doc.transact_mut();
            apply(&mut txn, bytes).map(|()| txn.encode_update_v1())
        }));
        let Ok(Ok(update)) = merged else { return Err(ItemsError::Broken("an update failed that had been tried")) };
        if scan(&update, Grammar::Items(&self.roots())).is_err() {
            return Err(ItemsError::Broken("an update does not re-encode"));
        }
        Ok(update)
    }

    fn shape(&self, item: &ItemId) -> Result<Option<Shape>, ItemsError> {
        let shape = shape_of(&self.roots, item, &self.doc.transact());
        shape.map_err(|_| ItemsError::Broken("an item is not what it has to be"))
    }

    /// Checks that the new parents form a tree with the others.
    fn check_moves(&self, changes: &[Change]) -> Result<(), ItemsError> {
        let moved = changes.iter().filter_map(|change| {
            let parent = match (change.action, change.set.get("parent")) {
                (Action::Delete, _) => None,
                (_, Some(parent)) => parent.as_str(),
                _ => return None,
            };
            Some((change.item.id.as_str(), parent))
        });
        let parents: HashMap<&str, Option<&str>> = moved.collect();
        parents.keys().try_for_each(|id| self.check_tree(id, &parents))
    }
}
