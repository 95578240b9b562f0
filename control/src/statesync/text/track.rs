//! A text as it is read and as positions in it are resolved: its UTF-16 units and the window of its recent history.

use super::view::{Seen, View};
use super::window::Window;
use super::{Author, Edit, TEXT_UNITS_MAX, TextError};

/// Units and window, kept in step.
#[derive(Debug, Clone)]
pub(in crate::statesync) struct Track {
    pub(super) units: Vec<u16>,
    pub(super) window: Window,
}

impl Track {
    /// A text whose history starts at `version`.
    pub(in crate::statesync) fn new(text: &str, version: u64) -> Self {
        let units: Vec<u16> = text.encode_utf16().collect();
        let window = Window::new(units.len(), version);
        Self { units, window }
    }

    /// The text in UTF-8.
    pub(super) fn content(&self) -> String {
        String::from_utf16_lossy(&self.units)
    }

    /// What a writer had seen, as a state of the text.
    pub(in crate::statesync) fn view(&self, seen: Seen) -> Result<View, TextError> {
        if seen.version < self.window.floor() {
            return Err(TextError::TooOld(self.window.floor()));
        }
        Ok(if seen.waited.is_some() { View::Of(seen) } else { self.window.view(seen.version, seen.session) })
    }

    /// Checks that all edits fit the text and returns roughly the bytes that they add to its history.
    pub(in crate::statesync) fn check(&self, edits: &[Edit], view: View) -> Result<usize, TextError> {
        let mut length = self.window.length(view) as u64;
        let mut grown = self.units.len() as u64;
        let mut bytes = 0;
        for edit in edits {
            let (pos, del) = (u64::from(edit.pos), u64::from(edit.del));
            if pos + del > length {
                return Err(TextError::Invalid(format!(
                    "data: position {pos} with {del} deleted is outside the text of {length} UTF-16 units"
                )));
            }
            length = length - del + edit.ins_units() as u64;
            grown += edit.ins_units() as u64;
            bytes += edit.ins.len() + 32;
        }
        if grown > TEXT_UNITS_MAX as u64 {
            return Err(TextError::Full("a text may have 1,048,576 UTF-16 units"));
        }
        if let Some(first) = edits.first() {
            self.check_surrogates(first, view)?;
        }
        Ok(bytes)
    }

    /// Applies edits and returns what they do to the text of today, in order.
    pub(in crate::statesync) fn place(
        &mut self,
        edits: &[Edit],
        view: View,
        author: Author,
    ) -> Result<Vec<Edit>, TextError> {
        self.place_each(edits, view, author, Window::apply)
    }

    /// Like [`place`](Self::place), but what an edit replaces goes with everything that others wrote into it since.
    pub(super) fn overwrite(&mut self, edits: &[Edit], view: View, author: Author) -> Result<Vec<Edit>, TextError> {
        self.place_each(edits, view, author, Window::overwrite)
    }

    /// Applies edits that waited for a decision; `overwrites` tells whether they go over what others wrote into their ranges.
    /// Their writer does not have them, so they count as what they do to the text of today, by `author`.
    pub(in crate::statesync) fn decide(
        &mut self,
        edits: &[Edit],
        seen: Seen,
        author: Author,
        overwrites: bool,
    ) -> Result<Vec<Edit>, TextError> {
        let view = self.view(seen)?;
        // Only among themselves, on a copy, are they their writer's: each refers to the result of those before it.
        let (mut trial, writer) = (self.clone(), Author { session: seen.session, ..author });
        let placed =
            if overwrites { trial.overwrite(edits, view, writer)? } else { trial.place(edits, view, writer)? };
        for edit in &placed {
            self.window.apply(edit, View::Latest, author).map_err(TextError::Broken)?;
            splice(&mut self.units, edit);
        }
        self.window.finish(author);
        Ok(placed)
    }

    fn place_each(
        &mut self,
        edits: &[Edit],
        view: View,
        author: Author,
        apply: impl Fn(&mut Window, &Edit, View, Author) -> Result<Vec<Edit>, &'static str>,
    ) -> Result<Vec<Edit>, TextError> {
        let mut placed = Vec::with_capacity(edits.len());
        for (index, edit) in edits.iter().enumerate() {
            let broken =
                |error| if index == 0 { error } else { TextError::Broken("an edit after the first was refused") };
            let before = placed.len();
            self.check_surrogates(edit, view).map_err(broken)?;
            placed.extend(apply(&mut self.window, edit, view, author).map_err(TextError::Broken)?);
            for edit in &placed[before..] {
                splice(&mut self.units, edit);
            }
        }
        self.window.finish(author);
        Ok(placed)
    }

    /// The versions of others that the view does not know and that touched what `edits` touch.
    pub(super) fn overlaps(&self, edits: &[Edit], view: View, author: Author) -> Result<Vec<u64>, TextError> {
        let mut found = match edits {
            [edit] => self.window.overlap(edit, view),
            edits => {
                // Each edit refers to the result of those before it, which only a copy may have applied.
                let mut trial = self.clone();
                let mut found = Vec::new();
                for edit in edits {
                    found.extend(trial.window.overlap(edit, view));
                    trial.window.apply(edit, view, author).map_err(TextError::Broken)?;
                }
                found
            }
        };
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The ends of `edit` must not fall between the halves of a pair, where the text still has that place.
    fn check_surrogates(&self, edit: &Edit, view: View) -> Result<(), TextError> {
        for pos in [edit.pos, edit.pos + edit.del] {
            if let Some(here) = self.window.locate(pos, view)
                && splits_pair(&self.units, here)
            {
                return Err(TextError::Invalid(format!("data: position {pos} is inside a surrogate pair")));
            }
        }
        Ok(())
    }
}

/// Whether a position is between the halves of a surrogate pair.
pub(in crate::statesync) fn splits_pair(units: &[u16], pos: usize) -> bool {
    pos > 0 && pos < units.len() && (0xD800..0xDC00).contains(&units[pos - 1]) && (0xDC00..0xE000).contains(&units[pos])
}

/// Applies an edit that fits.
pub(in crate::statesync) fn splice(units: &mut Vec<u16>, edit: &Edit) {
    let start = edit.pos as usize;
    units.splice(start..start + edit.del as usize, edit.ins.encode_utf16());
}
