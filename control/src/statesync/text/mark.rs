//! Marks on a range of a text: the JSON form of a style operation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use yrs::Any;
use yrs::types::Attrs;

use super::TextError;

const MARKS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;

/// Sets marks on `len` UTF-16 units at `pos`; null takes a mark away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::statesync) struct Mark {
    pub(super) pos: u32,
    pub(super) len: u32,
    pub(super) style: Map<String, Value>,
}

impl Mark {
    /// Reads the data of a style operation on a text.
    ///
    /// # Errors
    /// [`TextError::Invalid`].
    pub(in crate::statesync) fn decode(data: &[u8]) -> Result<Self, TextError> {
        let invalid = |what: String| TextError::Invalid(format!("data: not a style operation on a text: {what}"));
        let mark: Self = serde_json::from_slice(data)
            .map_err(|error| invalid(format!("{error}; it is {{\"pos\", \"len\", \"style\": {{name: value}}}}")))?;
        if mark.style.is_empty() || mark.style.len() > MARKS_MAX {
            return Err(invalid(format!("it has 1 to {MARKS_MAX} marks")));
        }
        for (name, value) in &mark.style {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(invalid(format!("a mark's name has 1 to {NAME_BYTES_MAX} bytes")));
            }
            if value.is_object() || value.is_array() {
                return Err(invalid("a mark is null, true, false, a number or a text".into()));
            }
        }
        if mark.pos.checked_add(mark.len).is_none() {
            return Err(invalid("pos + len is out of range".into()));
        }
        Ok(mark)
    }

    /// Writes it as the data of an operation.
    pub(in crate::statesync) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and JSON values always serialise")
    }

    pub(super) fn attributes(&self) -> Attrs {
        let value = |value: &Value| match value {
            Value::Bool(value) => Any::Bool(*value),
            Value::Number(value) => Any::Number(value.as_f64().unwrap_or_default().into()),
            Value::String(value) => Any::String(value.as_str().into()),
            _ => Any::Null,
        };
        self.style.iter().map(|(name, mark)| (name.as_str().into(), value(mark))).collect()
    }
}
