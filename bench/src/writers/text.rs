//! A text as a writer holds it, and random edits of it.

use anyhow::Context;
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One unit of UTF-16, two units, and two or three bytes in UTF-8.
const LETTERS: [char; 16] = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', ' ', ' ', 'ä', 'é', '中', '🦀'];
/// Where writers meet: half of the edits are in so many characters from the start.
const CROWDED: usize = 40;

/// An edit of a text: `Operation.data` of a text operation, or one of its items. Counts UTF-16 units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Edit {
    pub(super) pos: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) del: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) ins: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The edits of an operation's data.
pub(super) fn edits(data: &Value) -> anyhow::Result<Vec<Edit>> {
    let list = if data.is_array() { data.clone() } else { Value::Array(vec![data.clone()]) };
    serde_json::from_value(list).with_context(|| format!("{data} is no text operation"))
}

/// The character before which `units` UTF-16 units stand; none if that is outside of the text or inside of a character.
pub(super) fn index(text: impl Iterator<Item = char>, units: u32) -> Option<usize> {
    let mut left = units as usize;
    for (index, letter) in text.enumerate() {
        if left == 0 {
            return Some(index);
        }
        left = left.checked_sub(letter.len_utf16())?;
        if left == 0 {
            return Some(index + 1);
        }
    }
    (left == 0).then_some(0)
}

fn units(text: &[char]) -> u32 {
    text.iter().map(|letter| letter.len_utf16() as u32).sum()
}

/// Makes an edit.
pub(super) fn apply(text: &mut Vec<char>, edit: &Edit) -> anyhow::Result<()> {
    let outside = || format!("{edit:?} is outside of a text of {} characters", text.len());
    let start = index(text.iter().copied(), edit.pos).with_context(outside)?;
    let deleted = index(text[start..].iter().copied(), edit.del).with_context(outside)?;
    text.splice(start..start + deleted, edit.ins.chars());
    Ok(())
}

/// Makes a random edit and says which: an insertion, a deletion, or both.
pub(super) fn edit(text: &mut Vec<char>, random: &mut StdRng) -> Edit {
    let room = if random.random_bool(0.5) { text.len().min(CROWDED) } else { text.len() };
    let at = random.random_range(0..=room);
    let deleted = if random.random_bool(0.45) { random.random_range(1..=6).min(text.len() - at) } else { 0 };
    let inserted: String = if deleted == 0 || random.random_bool(0.4) {
        (0..random.random_range(1..=5)).map(|_| LETTERS[random.random_range(0..LETTERS.len())]).collect()
    } else {
        String::new()
    };
    let edit = Edit { pos: units(&text[..at]), del: units(&text[at..at + deleted]), ins: inserted };
    text.splice(at..at + deleted, edit.ins.chars());
    edit
}

/// Makes a random operation on the text and gives its type and data. `edits_max`: how many edits it may have.
pub(super) fn operation(text: &mut Vec<char>, edits_max: usize, random: &mut StdRng) -> (&'static str, Value) {
    if !text.is_empty() && random.random_bool(0.1) {
        let at = random.random_range(0..text.len());
        let marked = random.random_range(1..=5).min(text.len() - at);
        let style = json!({"bold": random.random_bool(0.5)});
        return ("style", json!({"pos": units(&text[..at]), "len": units(&text[at..at + marked]), "style": style}));
    }
    let count = if edits_max > 1 && random.random_bool(0.2) { edits_max } else { 1 };
    let edits: Vec<Edit> = (0..count).map(|_| edit(text, random)).collect();
    let kind = match &edits[..] {
        [edit] if edit.ins.is_empty() => "delete",
        [edit] if edit.del == 0 => "insert",
        _ => "text",
    };
    let data = serde_json::to_value(&edits).expect("numbers and strings are always JSON");
    (kind, if count == 1 { data[0].clone() } else { data })
}
