//! What positions in an older state mean today, letter by letter and without any shortcut: what the server is held against.
//!
//! Every letter that ever was stays in its place, with who inserted and who deleted it. Whether a writer saw it follows from
//! the version that the writer had read and from what it wrote itself.

use anyhow::{Context, ensure};

use super::text::{self, Edit};

/// A version and its writer.
type Write = (u64, u16);

/// A state as a writer saw it: after the version `base`, plus its own later operations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) base: u64,
    pub(super) writer: u16,
}

impl Seen {
    pub(super) fn knows(self, (version, writer): Write) -> bool {
        version <= self.base || writer == self.writer
    }
}

#[derive(Debug)]
struct Letter {
    char: char,
    inserted: Write,
    deleted: Vec<Write>,
}

impl Letter {
    fn is_in(&self, seen: Seen) -> bool {
        seen.knows(self.inserted) && !self.deleted.iter().any(|deleted| seen.knows(*deleted))
    }
}

/// A text that starts empty.
#[derive(Debug, Default)]
pub(super) struct Reference(Vec<Letter>);

impl Reference {
    /// The text of today.
    pub(super) fn text(&self) -> String {
        self.0.iter().filter(|letter| letter.deleted.is_empty()).map(|letter| letter.char).collect()
    }

    fn visible(&self, seen: Seen) -> Vec<usize> {
        (0..self.0.len()).filter(|index| self.0[*index].is_in(seen)).collect()
    }

    /// The letters that the writer saw, and which of them the edit deletes.
    fn range(&self, edit: &Edit, seen: Seen) -> anyhow::Result<(Vec<usize>, std::ops::Range<usize>)> {
        let visible = self.visible(seen);
        let letters: Vec<char> = visible.iter().map(|index| self.0[*index].char).collect();
        let start = text::index(letters.iter().copied(), edit.pos);
        let start = start.with_context(|| format!("{edit:?} starts outside of what its writer saw"))?;
        let deleted = text::index(letters[start..].iter().copied(), edit.del);
        let deleted = deleted.with_context(|| format!("{edit:?} ends outside of what its writer saw"))?;
        Ok((visible, start..start + deleted))
    }

    /// Makes an edit beside what others did: it deletes what its writer meant, and inserts between the letters between which
    /// the writer stood, before what others have inserted there.
    pub(super) fn merge(&mut self, edit: &Edit, seen: Seen, by: Write) -> anyhow::Result<()> {
        let (visible, range) = self.range(edit, seen)?;
        let mut at = if range.start == 0 { 0 } else { visible[range.start - 1] + 1 };
        // Over what the writer knows to be gone.
        while self.0.get(at).is_some_and(|letter| seen.knows(letter.inserted) && !letter.is_in(seen)) {
            at += 1;
        }
        for index in &visible[range] {
            self.0[*index].deleted.push(by);
        }
        self.insert(at, &edit.ins, by);
        Ok(())
    }

    /// Makes an edit that wins over what others did to its range: everything in there goes.
    pub(super) fn overwrite(&mut self, edit: &Edit, seen: Seen, by: Write) -> anyhow::Result<()> {
        let (visible, range) = self.range(edit, seen)?;
        let meant = &visible[range];
        let (Some(first), Some(last)) = (meant.first().copied(), meant.last().copied()) else {
            return self.merge(edit, seen, by);
        };
        // Nothing is left of the range: the writer's text stays where the writer has it.
        if self.0[first..=last].iter().all(|letter| !letter.deleted.is_empty()) {
            return self.merge(edit, seen, by);
        }
        let mut at = first;
        while self.0.get(at).is_some_and(|letter| !letter.deleted.is_empty()) {
            at += 1;
        }
        for index in first..=last {
            let letter = &mut self.0[index];
            if letter.deleted.is_empty() || meant.contains(&index) {
                letter.deleted.push(by);
            }
        }
        self.insert(at, &edit.ins, by);
        Ok(())
    }

    fn insert(&mut self, at: usize, text: &str, by: Write) {
        let letters = text.chars().map(|char| Letter { char, inserted: by, deleted: Vec::new() });
        self.0.splice(at..at, letters);
    }

    /// Whether the edit touches what others did without its writer's knowledge: they deleted the same letters, wrote between
    /// them, or one of them deleted what is on both sides of an insertion.
    pub(super) fn overlaps(&self, edit: &Edit, seen: Seen) -> anyhow::Result<bool> {
        let (visible, range) = self.range(edit, seen)?;
        let unknown = |index: usize| self.0[index].deleted.iter().filter(move |deleted| !seen.knows(**deleted));
        let meant = &visible[range.clone()];
        let (Some(first), Some(last)) = (meant.first(), meant.last()) else {
            let (Some(left), Some(right)) = (range.start.checked_sub(1), visible.get(range.start)) else {
                return Ok(false);
            };
            let left = visible[left];
            return Ok(unknown(left).any(|deleted| unknown(*right).any(|other| other.0 == deleted.0)));
        };
        let deleted_too = meant.iter().any(|index| unknown(*index).next().is_some());
        let written_into = (*first..*last).any(|index| !seen.knows(self.0[index].inserted));
        Ok(deleted_too || written_into)
    }

    /// Checks that nothing is there that should not be.
    pub(super) fn check(&self, found: &str) -> anyhow::Result<()> {
        let expected = self.text();
        ensure!(expected == found, "the text is {found:?}, and by the rules it is {expected:?}");
        Ok(())
    }
}
