//! The JSON form of operations on whiteboards, canvases and sheets: what each changes of which item.

use serde_json::{Map, Value, json};

use crate::statesync::text::{Edit, Payload, decode_payload, encode_edits};

/// Changes in one operation.
pub(super) const CHANGES_MAX: usize = 10_000;
const ID_BYTES_MAX: usize = 255;
const KEY_BYTES_MAX: usize = 128;

/// What an operation on items can break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::statesync) enum ItemsError {
    /// The payload breaks a rule that the message names.
    #[error("{0}")]
    Invalid(String),
    /// An item that the operation changes does not exist.
    #[error("{0} does not exist; create it first")]
    Missing(String),
    /// An item that the operation creates exists.
    #[error("{0} exists; change it with an operation of type \"update\"")]
    Exists(String),
    /// An update builds on changes that the document does not have.
    #[error("the update builds on changes that this document does not have: {0}")]
    MissingDependency(String),
    /// The base version is not known any more.
    #[error("prev_version is older than the retained log, which starts at version {0}")]
    TooOld(u64),
    /// The document would become too large.
    #[error("the document is full: {0}")]
    Full(&'static str),
    /// The engine's state can no longer be trusted; it has to be rebuilt from disk.
    #[error("the document has to be reloaded: {0}")]
    Broken(&'static str),
}

/// A root of the Yjs document: a public contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::statesync) enum Root {
    Elements,
    Cells,
    Rows,
    Cols,
}

impl Root {
    /// The roots of a type of document.
    pub(in crate::statesync) fn of(kind: &str) -> &'static [Root] {
        if kind == "sheet" { &[Root::Cells, Root::Rows, Root::Cols] } else { &[Root::Elements] }
    }

    /// Its name in the Yjs document and in the content.
    pub(in crate::statesync) fn name(self) -> &'static str {
        match self {
            Root::Elements => "elements",
            Root::Cells => "cells",
            Root::Rows => "rows",
            Root::Cols => "cols",
        }
    }

    /// The key that names one of its items in an operation.
    fn item_key(self) -> &'static str {
        match self {
            Root::Elements => "id",
            Root::Cells => "cell",
            Root::Rows => "row",
            Root::Cols => "col",
        }
    }
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::statesync) struct ItemId {
    pub(in crate::statesync) root: Root,
    pub(in crate::statesync) id: String,
}

impl std::fmt::Display for ItemId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.root.name(), self.id)
    }
}

/// Whether a change makes an item, changes one, or takes one away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::statesync) enum Action {
    Create,
    Change,
    Delete,
}

/// What an operation does to one item.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::statesync) struct Change {
    pub(in crate::statesync) item: ItemId,
    pub(in crate::statesync) action: Action,
    /// Keys to set; null removes one.
    pub(in crate::statesync) set: Map<String, Value>,
    /// The same in the submap `style`.
    pub(in crate::statesync) style: Map<String, Value>,
    /// Edits of the nested text.
    pub(in crate::statesync) text: Vec<Edit>,
}

impl Change {
    /// The item as conflicts name it.
    pub(in crate::statesync) fn item(&self) -> String {
        self.item.to_string()
    }
}

/// What the data of a JSON operation means.
#[derive(Debug, PartialEq)]
pub(in crate::statesync) enum Parsed {
    /// Typed: changes of items, all of them or none.
    Changes(Vec<Change>),
    /// Anything else replaces the whole content.
    Replace,
}

/// The key that says what a change does, if that differs from what the operation does.
const OP_KEY: &str = "op";

/// Keys that have their own place in an operation, and the operation types that are about them.
const OWN_KEYS: [(&str, &[&str]); 8] = [
    ("pos", &["move"]),
    ("z", &["move"]),
    ("parent", &["move"]),
    ("index", &["move"]),
    ("size", &["resize"]),
    ("width", &["resize"]),
    ("height", &["resize"]),
    ("set", &["update"]),
];

/// Reads the data of an operation of `op_type` on a document with these roots.
///
/// # Errors
/// [`ItemsError::Invalid`] for data that names an item and breaks a rule.
pub(in crate::statesync) fn parse(op_type: &str, roots: &[Root], data: &[u8]) -> Result<Parsed, ItemsError> {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return Ok(Parsed::Replace) };
    let names_item = |value: &Value| roots.iter().any(|root| value.get(root.item_key()).is_some_and(Value::is_string));
    let list = match value {
        Value::Array(list) if list.iter().any(names_item) => list,
        value if names_item(&value) => vec![value],
        _ => return Ok(Parsed::Replace),
    };
    if list.len() > CHANGES_MAX {
        return Err(invalid(format!("an operation may have {CHANGES_MAX} changes, this one has {}", list.len())));
    }
    list.into_iter().map(|value| change(op_type, roots, value)).collect::<Result<_, _>>().map(Parsed::Changes)
}

fn change(op_type: &str, roots: &[Root], value: Value) -> Result<Change, ItemsError> {
    let Value::Object(mut fields) = value else { return Err(invalid("every change of a list is an object".into())) };
    let named: Vec<Root> = roots.iter().copied().filter(|root| fields.contains_key(root.item_key())).collect();
    let [root] = named[..] else {
        let keys: Vec<_> = roots.iter().map(|root| root.item_key()).collect();
        return Err(invalid(format!("a change names one item, by one of {}", keys.join(", "))));
    };
    let id = match fields.remove(root.item_key()) {
        Some(Value::String(id)) if check_id(&id).is_ok() => id,
        _ => return Err(invalid(format!("{} is a text of 1 to {ID_BYTES_MAX} bytes", root.item_key()))),
    };
    let own_type = match fields.remove(OP_KEY) {
        None => None,
        Some(Value::String(own)) if ["create", "update", "delete"].contains(&own.as_str()) => Some(own),
        Some(_) => return Err(invalid(format!("{id}: \"{OP_KEY}\" is create, update or delete"))),
    };
    let op_type = own_type.as_deref().unwrap_or(op_type);
    let action = match op_type {
        "create" => Action::Create,
        "delete" => Action::Delete,
        _ => Action::Change,
    };
    let fits = |(key, types): &(&str, &[&str])| types.contains(&op_type) && fields.contains_key(*key);
    let about = match op_type {
        "create" | "delete" => true,
        "style" => fields.contains_key("style"),
        "text" | "insert" => fields.contains_key("text"),
        "update" => !fields.is_empty(),
        _ => OWN_KEYS.iter().any(fits),
    };
    if !about || action == Action::Delete && !fields.is_empty() {
        return Err(invalid(format!("{id}: the change has not the fields of an operation of type \"{op_type}\"")));
    }
    let mut set = object(&mut fields, "set")?;
    let style = object(&mut fields, "style")?;
    let text = text(&mut fields)?;
    for (key, value) in fields {
        if !OWN_KEYS.iter().any(|(own, _)| *own == key) {
            return Err(invalid(format!("\"{key}\" is no field of a change; keys of the item belong into \"set\"")));
        }
        set.insert(key, value);
    }
    check_keys(&set)?;
    check_keys(&style)?;
    Ok(Change { item: ItemId { root, id }, action, set, style, text })
}

fn object(fields: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, ItemsError> {
    match fields.remove(key) {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(invalid(format!("\"{key}\" is an object of keys and values"))),
    }
}

/// Edits, or a text that stands for its insertion.
fn text(fields: &mut Map<String, Value>) -> Result<Vec<Edit>, ItemsError> {
    match fields.remove("text") {
        None => Ok(Vec::new()),
        Some(Value::String(ins)) => Ok(vec![Edit { pos: 0, del: 0, ins }]),
        Some(value) => match decode_payload(value.to_string().as_bytes()) {
            Ok(Payload::Edits(edits)) => Ok(edits),
            Ok(Payload::Replace(_)) => Err(invalid("\"text\" is {\"pos\", \"del\", \"ins\"} or a list of them".into())),
            Err(error) => Err(invalid(error.to_string().trim_start_matches("data: ").to_owned())),
        },
    }
}

/// Checks the id of an item.
pub(super) fn check_id(id: &str) -> Result<(), ItemsError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(invalid(format!("the id of an item is a text of 1 to {ID_BYTES_MAX} bytes")));
    }
    Ok(())
}

pub(super) fn check_keys(keys: &Map<String, Value>) -> Result<(), ItemsError> {
    for (key, value) in keys {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(invalid(format!("a key has 1 to {KEY_BYTES_MAX} bytes")));
        }
        let right = value.is_null()
            || match key.as_str() {
                "style" | "text" => return Err(invalid(format!("\"{key}\" has its own field beside \"set\""))),
                "pos" | "size" => {
                    value.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_number))
                }
                "parent" => value.as_str().is_some_and(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX),
                "z" | "index" => value.as_str().is_some_and(|index| index.len() <= ID_BYTES_MAX),
                "width" | "height" => value.is_number(),
                _ => true,
            };
        if !right {
            return Err(invalid(format!(
                "\"{key}\" is null or, for pos and size, two numbers; for parent, z and index, a text; for width and height, a number"
            )));
        }
    }
    Ok(())
}

/// Writes changes as the data of an operation: one as an object, several (or none) as a list.
pub(in crate::statesync) fn encode(changes: &[Change]) -> Vec<u8> {
    let encoded: Vec<Value> = changes.iter().map(encode_one).collect();
    match <[Value; 1]>::try_from(encoded) {
        Ok([one]) => one.to_string().into_bytes(),
        Err(list) => Value::Array(list).to_string().into_bytes(),
    }
}

/// The same of changes that are not all of the operation's type: each says what it does.
pub(in crate::statesync) fn encode_each(changes: &[Change]) -> Vec<u8> {
    let encoded = changes.iter().map(|change| {
        let mut fields = encode_one(change);
        let op = match change.action {
            Action::Create => "create",
            Action::Change => "update",
            Action::Delete => "delete",
        };
        fields[OP_KEY] = json!(op);
        fields
    });
    Value::Array(encoded.collect()).to_string().into_bytes()
}

fn encode_one(change: &Change) -> Value {
    let mut fields = Map::new();
    fields.insert(change.item.root.item_key().into(), json!(change.item.id));
    let mut set = change.set.clone();
    // A key that is called "set" stays in there.
    for (key, _) in OWN_KEYS.iter().filter(|(key, _)| *key != "set") {
        if let Some(value) = set.remove(*key) {
            fields.insert((*key).into(), value);
        }
    }
    if !set.is_empty() {
        fields.insert("set".into(), Value::Object(set));
    }
    if !change.style.is_empty() {
        fields.insert("style".into(), Value::Object(change.style.clone()));
    }
    if !change.text.is_empty() {
        let edits = serde_json::from_slice(&encode_edits(&change.text)).expect("edits were just written as JSON");
        fields.insert("text".into(), edits);
    }
    Value::Object(fields)
}

/// Reads typed content, `{"elements": {"id": {...}}}` or the like with the roots of the type, as the creation of all its items;
/// `None` if it is something else.
pub(in crate::statesync) fn parse_content(roots: &[Root], content: &[u8]) -> Option<Vec<Change>> {
    let Ok(Value::Object(mut content)) = serde_json::from_slice::<Value>(content) else { return None };
    let mut changes = Vec::new();
    let mut any = false;
    for root in roots {
        let Some(items) = content.remove(root.name()) else { continue };
        any = true;
        let Value::Object(items) = items else { return None };
        for (id, item) in items {
            let Value::Object(mut set) = item else { return None };
            let style = object(&mut set, "style").ok()?;
            let text = text(&mut set).ok()?;
            check_keys(&set).ok()?;
            check_keys(&style).ok()?;
            check_id(&id).ok()?;
            changes.push(Change { item: ItemId { root: *root, id }, action: Action::Create, set, style, text });
        }
    }
    (any && content.is_empty()).then_some(changes)
}

pub(super) fn invalid(message: String) -> ItemsError {
    ItemsError::Invalid(message)
}
