//! The items of a whiteboard, a canvas or a sheet as a writer holds them, and random changes of them.

use std::collections::BTreeMap;

use anyhow::Context;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

use super::text::{self, Edit};

/// The keys by which a change names its item, and the roots in which those items are.
const ROOTS: [(&str, &str); 4] = [("id", "elements"), ("cell", "cells"), ("row", "rows"), ("col", "cols")];
/// Fields of a change that are keys of the item.
const OWN_KEYS: [&str; 7] = ["pos", "z", "parent", "index", "size", "width", "height"];
/// Elements that are there from the start. Only they are parents, and only of those after them: parents stay a tree.
const FIRST_ELEMENTS: usize = 6;
/// Elements of which all writers know the names before they are there: several make the same one.
const SHARED_ELEMENTS: usize = 12;
/// Rows and columns of a sheet.
const SIDE: usize = 4;
/// More elements than that are not made.
const ELEMENTS_MAX: usize = 30;

/// What an operation does to one item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) root: &'static str,
    pub(super) id: String,
    pub(super) set: Map<String, Value>,
    pub(super) style: Map<String, Value>,
    pub(super) text: Vec<Edit>,
}

/// The changes of an operation's data.
pub(super) fn changes(data: &Value) -> anyhow::Result<Vec<Change>> {
    let list = data.as_array().map_or_else(|| std::slice::from_ref(data), Vec::as_slice);
    list.iter().map(|one| change(one).with_context(|| format!("{one} is no change of an item"))).collect()
}

fn change(data: &Value) -> Option<Change> {
    let fields = data.as_object()?;
    let (key, root) = *ROOTS.iter().find(|(key, _)| fields.contains_key(*key))?;
    let object = |key: &str| fields.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut set = object("set");
    let own = OWN_KEYS.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone())));
    set.extend(own);
    let text = fields.get("text").map_or_else(|| Ok(Vec::new()), text::edits).ok()?;
    Some(Change { root, id: fields.get(key)?.as_str()?.to_owned(), set, style: object("style"), text })
}

/// Items by root and id.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Items(BTreeMap<&'static str, BTreeMap<String, Map<String, Value>>>);

impl Items {
    /// What a document of this type starts with.
    pub(super) fn initial(kind: &str) -> Self {
        let mut items = Self::default();
        let mut put = |root: &'static str, id: String, item: Value| {
            let item = item.as_object().cloned().unwrap_or_default();
            items.0.entry(root).or_default().insert(id, item);
        };
        if kind == "sheet" {
            for number in 0..SIDE {
                put("rows", format!("r{number}"), json!({"index": format!("a{number}")}));
                put("cols", format!("c{number}"), json!({"index": format!("a{number}")}));
                put("cells", format!("r0:c{number}"), json!({"v": 0}));
            }
        } else {
            for number in 0..FIRST_ELEMENTS {
                put("elements", format!("e{number}"), json!({"x": 0, "y": 0}));
            }
        }
        items
    }

    /// As `Document.content` has them: without the styles and texts that are empty.
    pub(super) fn content(&self) -> Value {
        let mut shown = self.0.clone();
        for item in shown.values_mut().flat_map(BTreeMap::values_mut) {
            item.retain(|key, value| match key.as_str() {
                "style" => value.as_object().is_none_or(|style| !style.is_empty()),
                "text" => value.as_str().is_none_or(|text| !text.is_empty()),
                _ => true,
            });
        }
        json!(shown)
    }

    /// Makes an operation's changes.
    pub(super) fn apply(&mut self, kind: &str, changes: &[Change]) -> anyhow::Result<()> {
        for change in changes {
            let root = self.0.entry(change.root).or_default();
            if kind == "delete" {
                root.remove(&change.id);
                continue;
            }
            let item = root.entry(change.id.clone()).or_default();
            write_keys(item, &change.set);
            if !change.style.is_empty() {
                let style = item.entry("style").or_insert_with(|| json!({}));
                write_keys(style.as_object_mut().context("a style is an object")?, &change.style);
            }
            if !change.text.is_empty() {
                let held = item.get("text").and_then(Value::as_str).unwrap_or_default();
                let mut held: Vec<char> = held.chars().collect();
                for edit in &change.text {
                    text::apply(&mut held, edit)?;
                }
                item.insert("text".into(), Value::String(held.into_iter().collect()));
            }
        }
        Ok(())
    }

    /// Calls `with` for every item.
    pub(super) fn each(&self, mut with: impl FnMut(&'static str, &str)) {
        for (&root, items) in &self.0 {
            for id in items.keys() {
                with(root, id);
            }
        }
    }

    fn has(&self, root: &str, id: &str) -> bool {
        self.0.get(root).is_some_and(|items| items.contains_key(id))
    }

    fn ids(&self, root: &str) -> Vec<String> {
        self.0.get(root).into_iter().flat_map(|items| items.keys().cloned()).collect()
    }

    fn text_of(&self, root: &str, id: &str) -> Vec<char> {
        let item = self.0.get(root).and_then(|items| items.get(id));
        item.and_then(|item| item.get("text")).and_then(Value::as_str).unwrap_or_default().chars().collect()
    }

    /// A random operation on what is here: its type and data. `number` is different in every call; the operation is not made.
    pub(super) fn operation(&self, number: u32, random: &mut StdRng) -> (&'static str, Value) {
        if self.0.contains_key("cells") { self.of_a_sheet(number, random) } else { self.of_a_board(number, random) }
    }

    fn of_a_board(&self, number: u32, random: &mut StdRng) -> (&'static str, Value) {
        let ids = self.ids("elements");
        let chance = random.random_range(0..100);
        let shared = format!("s{}", random.random_range(0..SHARED_ELEMENTS));
        if chance < 6 && !self.has("elements", &shared) {
            return ("create", json!({"id": shared, "set": {"x": number}}));
        }
        let Some(id) = ids.choose(random).filter(|_| chance >= 12 || ids.len() >= ELEMENTS_MAX) else {
            return ("create", json!({"id": format!("n{number}"), "set": {"x": number}, "pos": [number, 0.5]}));
        };
        match chance {
            0..50 => ("update", self.update(id, number, random)),
            50..65 => ("move", json!({"id": id, "pos": [number, 1], "z": format!("a{number}")})),
            65..70 => match parent(id, random) {
                Some(parent) => ("move", json!({"id": id, "parent": parent})),
                None => ("move", json!({"id": id, "pos": [number, 2]})),
            },
            70..78 => ("resize", json!({"id": id, "size": [number, 7.5]})),
            78..86 => ("style", json!({"id": id, "style": {"color": number}})),
            // A name that comes back is of another element, whose text a writer with an old base cannot place.
            86..95 if !id.starts_with('s') => ("text", json!({"id": id, "text": self.edit("elements", id, random)})),
            86..95 => ("style", json!({"id": id, "style": {"color": null, "width": number}})),
            _ => ("delete", json!({"id": id})),
        }
    }

    /// One or two keys of one or two elements.
    fn update(&self, id: &str, number: u32, random: &mut StdRng) -> Value {
        let keys = ["x", "y", "label"];
        let one = |id: &str, random: &mut StdRng| {
            let value = if random.random_bool(0.1) { Value::Null } else { json!(number) };
            let mut set = Map::from_iter([(keys[random.random_range(0..keys.len())].to_owned(), value)]);
            if random.random_bool(0.2) {
                set.insert(keys[random.random_range(0..keys.len())].to_owned(), json!(number));
            }
            json!({"id": id, "set": set})
        };
        let first = one(id, random);
        let others: Vec<String> = self.ids("elements").into_iter().filter(|other| other != id).collect();
        match others.choose(random) {
            Some(other) if random.random_bool(0.15) => json!([first, one(other, random)]),
            _ => first,
        }
    }

    fn of_a_sheet(&self, number: u32, random: &mut StdRng) -> (&'static str, Value) {
        let place = |random: &mut StdRng| random.random_range(0..SIDE);
        let (row, col) = (place(random), place(random));
        let cell = format!("r{row}:c{col}");
        if !self.has("cells", &cell) {
            return ("create", json!({"cell": cell, "set": {"v": number}}));
        }
        match random.random_range(0..100) {
            0..50 => ("update", json!({"cell": cell, "set": {"v": number}})),
            50..65 => ("update", json!({"cell": cell, "set": {"f": format!("=A{number}")}})),
            65..75 => ("style", json!({"cell": cell, "style": {"bold": random.random_bool(0.5)}})),
            75..82 => ("resize", json!([{"row": format!("r{row}"), "height": number}])),
            82..88 => ("resize", json!({"col": format!("c{col}"), "width": number})),
            88..92 => ("move", json!({"row": format!("r{row}"), "index": format!("a{number}")})),
            // The cells of the first row stay, so that their texts have one history.
            92..96 if row == 0 => ("text", json!({"cell": cell, "text": self.edit("cells", &cell, random)})),
            _ if row == 0 => ("update", json!({"cell": cell, "set": {"v": number, "f": null}})),
            _ => ("delete", json!({"cell": cell})),
        }
    }

    fn edit(&self, root: &str, id: &str, random: &mut StdRng) -> Edit {
        text::edit(&mut self.text_of(root, id), random)
    }
}

/// One of the first elements, before `id`.
fn parent(id: &str, random: &mut StdRng) -> Option<String> {
    let number = id.strip_prefix('e').and_then(|number| number.parse().ok()).unwrap_or(FIRST_ELEMENTS);
    (number > 0).then(|| format!("e{}", random.random_range(0..number)))
}

fn write_keys(item: &mut Map<String, Value>, keys: &Map<String, Value>) {
    for (key, value) in keys {
        if value.is_null() {
            item.remove(key);
        } else {
            item.insert(key.clone(), value.clone());
        }
    }
}
