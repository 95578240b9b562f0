//! Trees of keys: what a file says, over what is the default, under what the environment says.

use serde_json::{Map, Value};

/// How alike two keys are, from 0 to 1, if one is to be offered for the other.
const ALIKE_MIN: f64 = 0.8;

/// The tree of a YAML file; an empty file is an empty one.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let value: Option<Value> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    match value {
        None | Some(Value::Null) => Ok(Value::Object(Map::new())),
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => Err("it has to be a mapping of sections such as Server and Store".to_owned()),
    }
}

/// Takes out keys without a value: a section whose keys are all commented out is no mistake.
pub(super) fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// The first key of `given` that `known` has not, and the known key most like it.
pub(super) fn unknown(given: &Value, known: &Value) -> Option<(String, Option<String>)> {
    let mut names = Vec::new();
    leaves(known, "", &mut |key, _| names.push(key.to_owned()));
    first_unknown(given, known, "").map(|key| {
        let nearest = names.iter().map(|name| (strsim::jaro_winkler(name, &key), name));
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(alike, _)| *alike >= ALIKE_MIN);
        (key, nearest.map(|(_, name)| name.clone()))
    })
}

fn first_unknown(given: &Value, known: &Value, section: &str) -> Option<String> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else { return None };
    given.iter().find_map(|(name, value)| {
        let key = join(section, name);
        known.get(name).map_or(Some(key.clone()), |known| first_unknown(value, known, &key))
    })
}

/// Puts `over` over `under`, section by section.
pub(super) fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

/// Puts what `variables` say over `tree`; gives the keys and the names of the variables that were heeded.
pub(super) fn overlay(
    tree: &mut Value,
    defaults: &Value,
    prefix: &str,
    variables: &[(String, String)],
) -> Vec<(String, String)> {
    let mut heeded = Vec::new();
    leaves(defaults, "", &mut |key, default| {
        let name = variable(prefix, key);
        let Some((_, text)) = variables.iter().find(|(given, _)| *given == name) else { return };
        let value = match default {
            Value::String(_) => Value::String(text.clone()),
            _ => serde_saphyr::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
        };
        let nested =
            key.rsplit('.').fold(value, |value, name| Value::Object(Map::from_iter([(name.to_owned(), value)])));
        merge(tree, nested);
        heeded.push((key.to_owned(), name));
    });
    heeded
}

/// The variables that begin like those of a section but name no key.
pub(super) fn ignored(defaults: &Value, prefix: &str, variables: &[(String, String)]) -> Vec<String> {
    let Value::Object(sections) = defaults else { return Vec::new() };
    let mut known = Vec::new();
    leaves(defaults, "", &mut |key, _| known.push(variable(prefix, key)));
    let of_section = |name: &str| sections.keys().any(|section| name.starts_with(&(variable(prefix, section) + "_")));
    let names = variables.iter().map(|(name, _)| name);
    names.filter(|name| of_section(name) && !known.contains(name)).cloned().collect()
}

fn variable(prefix: &str, key: &str) -> String {
    format!("{prefix}_{}", key.replace('.', "_").to_uppercase())
}

fn leaves<'a>(value: &'a Value, key: &str, leaf: &mut impl FnMut(&str, &'a Value)) {
    let Value::Object(map) = value else { return leaf(key, value) };
    for (name, value) in map {
        leaves(value, &join(key, name), leaf);
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}
