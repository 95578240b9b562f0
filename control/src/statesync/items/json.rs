//! Values, and items as they are read, in JSON.

use std::collections::HashMap;

use serde_json::{Map as JsonMap, Value};
use yrs::{Any, GetString, Map, MapRef, Out, ReadTxn};

/// Numbers are what JavaScript has: 64-bit floating point.
pub(super) fn any_of_json(value: &Value) -> Any {
    match value {
        Value::Null => Any::Null,
        Value::Bool(value) => Any::Bool(*value),
        Value::Number(value) => Any::Number(value.as_f64().unwrap_or_default().into()),
        Value::String(value) => Any::String(value.as_str().into()),
        Value::Array(list) => Any::Array(list.iter().map(any_of_json).collect()),
        Value::Object(map) => {
            let map: HashMap<String, Any> = map.iter().map(|(key, value)| (key.clone(), any_of_json(value))).collect();
            Any::Map(map.into())
        }
    }
}

fn json_of_any(value: &Any) -> Value {
    match value {
        Any::Null | Any::Undefined => Value::Null,
        Any::Bool(value) => Value::Bool(*value),
        Any::Number(yrs::Number::Int(value)) => Value::from(*value),
        Any::Number(yrs::Number::Float(value)) => json_of_number(*value),
        Any::String(value) => Value::String(value.to_string()),
        Any::Buffer(value) => Value::Array(value.iter().map(|byte| Value::from(*byte)).collect()),
        Any::Array(list) => Value::Array(list.iter().map(json_of_any).collect()),
        Any::Map(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), json_of_any(value))).collect()),
    }
}

/// A whole number without a fraction, as JavaScript writes it.
fn json_of_number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        return Value::from(value as i64);
    }
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The value of a key; a null is none, as in an operation.
pub(super) fn json_of_key(value: &Any) -> Option<Value> {
    match value {
        Any::Null | Any::Undefined => None,
        value => Some(json_of_any(value)),
    }
}

/// The items of a root; what JSON operations cannot tell from what is not there is left out.
pub(super) fn json_of_items(root: &MapRef, txn: &impl ReadTxn) -> Value {
    let items = root.iter(txn).filter_map(|(id, item)| match item {
        Out::YMap(item) => Some((id.to_owned(), json_of_item(&item, txn))),
        _ => None,
    });
    Value::Object(items.collect())
}

/// An item; a style or a text that is empty is left out, as operations do.
fn json_of_item(item: &MapRef, txn: &impl ReadTxn) -> Value {
    let keys = item.iter(txn).filter_map(|(key, value)| {
        let value = match value {
            Out::Any(value) => json_of_key(&value),
            Out::YText(text) => Some(text.get_string(txn)).filter(|text| !text.is_empty()).map(Value::String),
            Out::YMap(style) => json_of_style(&style, txn),
            _ => None,
        };
        Some((key.to_owned(), value?))
    });
    Value::Object(keys.collect())
}

fn json_of_style(style: &MapRef, txn: &impl ReadTxn) -> Option<Value> {
    let keys = style.iter(txn).filter_map(|(key, value)| match value {
        Out::Any(value) => Some((key.to_owned(), json_of_key(&value)?)),
        _ => None,
    });
    let keys: JsonMap<String, Value> = keys.collect();
    (!keys.is_empty()).then_some(Value::Object(keys))
}
