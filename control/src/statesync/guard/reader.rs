//! Reads the parts of an update, each count and number held against its bounds.

use super::{Block, CLOCK_MAX, Grammar, GuardError, Id, Scan, Within, malformed};
use crate::statesync::text::ROOT;

const GC: u8 = 0;
const DELETED: u8 = 1;
const STRING: u8 = 4;
const FORMAT: u8 = 6;
const TYPE: u8 = 7;
const ANY: u8 = 8;
const MAP: u64 = 1;
const TEXT: u64 = 2;
const HAS_PARENT_SUB: u8 = 0x20;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_ORIGIN: u8 = 0x80;
/// Whole numbers, client ids among them, have 53 bits, which JavaScript can tell apart.
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Lists and objects of one value inside each other.
const DEPTH_MAX: usize = 32;
/// Bytes of a key or an id.
const KEY_BYTES_MAX: usize = 255;

pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
    /// The most blocks and deleted ranges.
    pub(super) parts_max: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, GuardError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| malformed("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// A LEB128 number of at most 64 bits, as lib0 writes it.
    pub(super) fn number(&mut self, max: u64) -> Result<u64, GuardError> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return if value <= max { Ok(value) } else { Err(malformed("a number is out of range")) };
            }
        }
        Err(malformed("a number is too long"))
    }

    /// A count of things that take at least `bytes_each`.
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, GuardError> {
        let count = self.number(u64::from(u32::MAX))? as usize;
        if count > self.rest.len() / bytes_each {
            return Err(malformed("a count is larger than the bytes that follow"));
        }
        Ok(count)
    }

    pub(super) fn limit(&self, parts: usize) -> Result<(), GuardError> {
        if parts > self.parts_max { Err(malformed("more than 20,000 blocks and ranges")) } else { Ok(()) }
    }

    pub(super) fn client(&mut self) -> Result<u64, GuardError> {
        self.number(INTEGER_MAX)
    }

    fn id(&mut self) -> Result<Id, GuardError> {
        Ok(Id { client: self.client()?, clock: self.number(CLOCK_MAX)? })
    }

    fn string(&mut self) -> Result<&'a str, GuardError> {
        let len = self.count(1)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| malformed("a string is not UTF-8"))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], GuardError> {
        if len > self.rest.len() {
            return Err(malformed("it ends early"));
        }
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn block(&mut self, grammar: Grammar<'_>, clock: u64, scan: &mut Scan) -> Result<Block, GuardError> {
        let info = self.byte()?;
        if info == GC {
            if let Grammar::Text = grammar {
                return Err(malformed("it has collected structs, which a text never has"));
            }
            let len = self.number(CLOCK_MAX)?;
            if len == 0 {
                return Err(malformed("a block is empty"));
            }
            return Ok(Block { clock, len, needs: [None; 3], is_in_text: false, within: Within::Elsewhere });
        }
        let (kind, has_key) = (info & 0x1F, info & HAS_PARENT_SUB != 0);
        let origin = if info & HAS_ORIGIN != 0 { Some(self.id()?) } else { None };
        let right = if info & HAS_RIGHT_ORIGIN != 0 { Some(self.id()?) } else { None };
        let named = origin.is_none() && right.is_none();
        let parent = if named { self.parent(grammar, has_key)? } else { None };
        let (len, within) = match grammar {
            Grammar::Text => {
                let within = if named { Within::Root } else { Within::Neighbours };
                (self.text_content(kind, &mut scan.inserted_units)?, within)
            }
            Grammar::Items(_) => {
                check_place(kind, right.is_some(), named.then_some(has_key))?;
                scan.parents.extend(parent.map(|parent| (parent.to_yjs(), has_key)));
                scan.rights.extend(right.map(Id::to_yjs));
                let (len, is_new_text) = self.items_content(kind, &mut scan.inserted_units)?;
                let within = match parent {
                    _ if is_new_text => Within::NewText,
                    _ if matches!(kind, TYPE | ANY) => Within::Elsewhere,
                    // Whether it has a key is not told by the block itself then, whatever it says.
                    _ if !named => Within::Neighbours,
                    Some(parent) if !has_key => Within::Made(parent),
                    _ => Within::Elsewhere,
                };
                (len, within)
            }
        };
        if len == 0 {
            return Err(malformed("a block is empty"));
        }
        let is_in_text = !matches!(kind, TYPE | ANY) && !has_key;
        Ok(Block { clock, len, needs: [origin, right, parent], is_in_text, within })
    }

    /// What a block is in, if it does not follow from its neighbours and is no root: what another block made.
    fn parent(&mut self, grammar: Grammar<'_>, has_key: bool) -> Result<Option<Id>, GuardError> {
        let is_root = self.number(1)? == 1;
        let parent = match grammar {
            Grammar::Text => {
                if !is_root || self.string()? != ROOT {
                    return Err(malformed("only the root type \"content\" may be written"));
                }
                if has_key {
                    return Err(malformed("a text has no keys"));
                }
                None
            }
            Grammar::Items(roots) if is_root => {
                let name = self.string()?;
                if !roots.iter().any(|root| root.name() == name) {
                    return Err(malformed("it writes a root type that documents of this type do not have"));
                }
                if !has_key {
                    return Err(malformed("a root of items has keys"));
                }
                None
            }
            Grammar::Items(_) => Some(self.id()?),
        };
        if has_key && self.string()?.len() > KEY_BYTES_MAX {
            return Err(malformed("a key is longer than 255 bytes"));
        }
        Ok(parent)
    }

    /// How many units the content of a block in a text has.
    fn text_content(&mut self, kind: u8, inserted_units: &mut usize) -> Result<u64, GuardError> {
        match kind {
            DELETED => self.number(CLOCK_MAX),
            STRING => {
                let units = self.string()?.encode_utf16().count();
                *inserted_units += units;
                Ok(units as u64)
            }
            FORMAT => {
                self.string()?;
                let value = self.string()?;
                serde_json::from_str::<serde::de::IgnoredAny>(value).map_err(|_| malformed("a mark is not JSON"))?;
                Ok(1)
            }
            _ => Err(malformed("a text holds text and marks only")),
        }
    }

    /// The same of a block among items, or in the text of one; and whether it makes a text.
    fn items_content(&mut self, kind: u8, inserted_units: &mut usize) -> Result<(u64, bool), GuardError> {
        match kind {
            DELETED | STRING | FORMAT => Ok((self.text_content(kind, inserted_units)?, false)),
            TYPE => match self.number(u64::from(u8::MAX))? {
                MAP => Ok((1, false)),
                TEXT => Ok((1, true)),
                _ => Err(malformed("items hold maps and texts, no other types")),
            },
            ANY => {
                if self.number(1)? != 1 {
                    return Err(malformed("a key has one value"));
                }
                self.value(0)?;
                Ok((1, false))
            }
            _ => Err(malformed("items hold values, maps and texts only")),
        }
    }

    /// A value of any type that JSON has, as lib0 writes it.
    fn value(&mut self, depth: usize) -> Result<(), GuardError> {
        if depth > DEPTH_MAX {
            return Err(malformed("a value has more than 32 levels"));
        }
        match self.byte()? {
            // null, false, true.
            126 | 121 | 120 => {}
            125 => self.integer()?,
            124 => {
                let bytes = self.bytes(4)?.try_into().expect("it has four");
                finite(f64::from(f32::from_be_bytes(bytes)))?;
            }
            123 => {
                let bytes = self.bytes(8)?.try_into().expect("it has eight");
                finite(f64::from_be_bytes(bytes))?;
            }
            119 => {
                self.string()?;
            }
            118 => {
                for _ in 0..self.count(2)? {
                    self.string()?;
                    self.value(depth + 1)?;
                }
            }
            117 => {
                for _ in 0..self.count(1)? {
                    self.value(depth + 1)?;
                }
            }
            _ => return Err(malformed("a value is of a type that JSON does not have")),
        }
        Ok(())
    }

    /// A signed number of at most 53 bits: six bits and a sign, then seven bits at a time.
    fn integer(&mut self) -> Result<(), GuardError> {
        let mut byte = self.byte()?;
        let mut value = u64::from(byte & 0x3F);
        for shift in (6..55).step_by(7) {
            if byte < 0x80 {
                break;
            }
            byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
        }
        if byte < 0x80 && value <= INTEGER_MAX { Ok(()) } else { Err(malformed("a number is out of range")) }
    }
}

/// Values and types are under a key, which has no neighbour to the right; characters and marks are not.
fn check_place(kind: u8, has_right: bool, has_key: Option<bool>) -> Result<(), GuardError> {
    let fits = match kind {
        TYPE | ANY => !has_right && has_key != Some(false),
        STRING | FORMAT => has_key != Some(true),
        _ => true,
    };
    if fits { Ok(()) } else { Err(malformed("a text holds text and marks only, and what has keys holds neither")) }
}

fn finite(number: f64) -> Result<(), GuardError> {
    if number.is_finite() { Ok(()) } else { Err(malformed("a number is not finite")) }
}
