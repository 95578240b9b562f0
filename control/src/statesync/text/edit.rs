//! The JSON form of a text operation.

use serde::{Deserialize, Serialize};

use super::TextError;

/// The most edits in one operation: each costs a search of the text.
pub(in crate::statesync) const EDITS_MAX: usize = 10_000;

/// Deletes `del` UTF-16 units at `pos`, then inserts `ins` there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// In UTF-16 units.
    #[serde(default)]
    pub pos: u32,
    /// In UTF-16 units.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub del: u32,
    /// The text to insert.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ins: String,
}

impl Edit {
    /// The length of the inserted text in UTF-16 units.
    pub fn ins_units(&self) -> usize {
        self.ins.encode_utf16().count()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(del: &u32) -> bool {
    *del == 0
}

/// What the data of a JSON operation on a text means.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// Typed: edits, each applied to the result of those before it.
    Edits(Vec<Edit>),
    /// Anything else replaces the whole content.
    Replace(String),
}

/// Reads the data of a JSON operation.
///
/// # Errors
/// [`TextError::Invalid`] for data that means to be a typed payload and is malformed, and for data that is not UTF-8.
pub fn decode_payload(data: &[u8]) -> Result<Payload, TextError> {
    let text =
        std::str::from_utf8(data).map_err(|_| TextError::Invalid("data: a text document's content is UTF-8".into()))?;
    let invalid = |error: &serde_json::Error| TextError::Invalid(format!("data: not a valid text operation: {error}"));
    let start = text.trim_start().as_bytes().first().copied();
    let edits = match start {
        Some(b'{') => serde_json::from_str(text).map(|edit: Edit| vec![edit]),
        Some(b'[') => serde_json::from_str(text),
        _ => return Ok(Payload::Replace(text.to_owned())),
    };
    match edits {
        Ok(edits) if edits.len() > EDITS_MAX => Err(TextError::Invalid(format!(
            "data: an operation may have {EDITS_MAX} edits, this one has {}",
            edits.len()
        ))),
        Ok(edits) => Ok(Payload::Edits(edits)),
        // A mistyped operation must not wipe the document.
        Err(error) if ["\"pos\"", "\"del\"", "\"ins\""].iter().any(|key| text.contains(key)) => Err(invalid(&error)),
        Err(_) => Ok(Payload::Replace(text.to_owned())),
    }
}

/// Writes edits as the data of an operation: one as an object, several (or none) as a list.
pub fn encode_edits(edits: &[Edit]) -> Vec<u8> {
    let encoded = match edits {
        [edit] => serde_json::to_vec(edit),
        edits => serde_json::to_vec(edits),
    };
    encoded.expect("numbers and strings always serialise")
}

/// The one edit that turns `units` into `content`, which leaves alone what both have at their ends.
pub(in crate::statesync) fn difference(units: &[u16], content: &str) -> Option<Edit> {
    let wanted: Vec<u16> = content.encode_utf16().collect();
    let mut start = units.iter().zip(&wanted).take_while(|(have, want)| have == want).count();
    if start > 0 && (0xD800..0xDC00).contains(&wanted[start - 1]) {
        start -= 1;
    }
    let mut end =
        units[start..].iter().rev().zip(wanted[start..].iter().rev()).take_while(|(have, want)| have == want).count();
    if end > 0 && (0xDC00..0xE000).contains(&wanted[wanted.len() - end]) {
        end -= 1;
    }
    let del = units.len() - start - end;
    let ins = String::from_utf16_lossy(&wanted[start..wanted.len() - end]);
    (del > 0 || !ins.is_empty()).then_some(Edit { pos: start as u32, del: del as u32, ins })
}
