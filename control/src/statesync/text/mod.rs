//! The text engine: one `Y.Text` named "content", edited by JSON operations and by Yjs updates alike.
//!
//! Three views of the same text are kept in step: the CRDT (what is persisted), its UTF-16 units (what is read and checked
//! against), and a window of recent history (what a JSON position is resolved in). While edits come as JSON there is a fourth:
//! which character of the CRDT stands where, so that it is not searched. Once a client sent a Yjs update, there is
//! another: the order of all characters, deleted ones among them, which tells whether its blocks fit.

mod chunk;
mod edit;
mod flat;
#[cfg(test)]
mod flat_tests;
#[cfg(test)]
mod fuzz_tests;
mod layout;
#[cfg(test)]
mod layout_tests;
mod mark;
#[cfg(test)]
pub(super) mod mutation_tests;
mod track;
mod view;
#[cfg(test)]
mod waiting_tests;
mod window;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use yrs::types::Delta;
use yrs::types::text::TextEvent;
use yrs::updates::decoder::Decode;
use yrs::{
    Any, Doc, GetString, Observable, OffsetKind, Options, Out, ReadTxn, StateVector, Text, TextRef, Transact, Update,
};

pub(super) use edit::{EDITS_MAX, difference};
pub use edit::{Edit, Payload, decode_payload, encode_edits};
pub(super) use flat::{Flat, Misplaced, Shadow};
use layout::{Layout, Whereabouts};
pub(super) use mark::Mark;
pub(super) use track::{Track, splice, splits_pair};
pub(super) use view::Seen;
use view::View;
pub use window::SessionIndex;
use window::Window;

use super::guard::{Grammar, GuardError, Id, Scan, Written, scan, scan_own};

/// The name of the root type: a public contract with every Yjs client.
pub const ROOT: &str = "content";
/// The most UTF-16 units a text may have. With it a document, in UTF-8, fits a default gRPC message of 4 MiB.
pub const TEXT_UNITS_MAX: usize = 1 << 20;
/// The most bytes a document's CRDT state may have, for the same reason.
pub const STATE_BYTES_MAX: usize = 3 << 20;

/// Why an operation on a text was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// The payload breaks a rule that the message names.
    #[error("{0}")]
    Invalid(String),
    /// An update builds on changes that the document does not have.
    #[error("the update builds on changes that this document does not have: {0}")]
    MissingDependency(String),
    /// The text or its history would become too large.
    #[error("the document is full: {0}")]
    Full(&'static str),
    /// The base version is not in the window any more.
    #[error("prev_version is older than the retained log, which starts at version {0}")]
    TooOld(u64),
    /// The engine's state can no longer be trusted; it has to be rebuilt from disk.
    #[error("the document has to be reloaded: {0}")]
    Broken(&'static str),
}

impl From<GuardError> for TextError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Malformed(_) => Self::Invalid(format!("data: {error}")),
            GuardError::MissingDependency { .. } => Self::MissingDependency(error.to_string()),
        }
    }
}

/// What an applied operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The edits, relative to the state before the operation.
    pub edits: Vec<Edit>,
    /// The same as a Yjs update, format v1.
    pub update: Bytes,
}

/// Where an operation stands: the version it makes and who wrote it.
#[derive(Debug, Clone, Copy)]
pub struct Author {
    /// The version that the document has after the operation.
    pub version: u64,
    /// The writer.
    pub session: SessionIndex,
}

/// An accepted operation as the log has it.
#[derive(Debug, Clone)]
pub struct Logged {
    /// The version it made and its writer.
    pub author: Author,
    /// The edits relative to the state before it.
    pub placed: Vec<Edit>,
    /// The base and the edits as they were sent, if they differ.
    pub sent: Option<(u64, Vec<Edit>)>,
    /// Whether what was sent went over what others had written into its range.
    pub overwrote: bool,
}

/// One text document in memory.
pub struct TextEngine {
    doc: Doc,
    text: TextRef,
    track: Track,
    state_bytes_estimate: usize,
    whereabouts: Whereabouts,
    shadow: Shadow,
}

impl TextEngine {
    /// Restores a text from `state`, a Yjs update of everything (empty: an empty text), at `version`. `yjs_client` is the
    /// server's own client id in this document.
    ///
    /// # Errors
    /// [`TextError::Broken`] if the state cannot be read.
    pub fn restore(yjs_client: u64, state: &[u8], version: u64) -> Result<Self, TextError> {
        let mut options = Options::with_client_id(yrs::block::ClientID::new(yjs_client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let text = doc.get_or_insert_text(ROOT);
        let track = Track::new("", version);
        let whereabouts = Whereabouts::Known(Layout::new(Id { client: yjs_client, clock: 0 }));
        let mut engine = Self { doc, text, track, state_bytes_estimate: 0, whereabouts, shadow: Shadow::Unneeded };
        if !state.is_empty() {
            engine.replay(state)?;
        }
        engine.finish_restore(version);
        Ok(engine)
    }

    /// Applies a logged update while a document is being loaded.
    ///
    /// # Errors
    /// [`TextError::Broken`] if the update cannot be read.
    pub fn replay(&mut self, update: &[u8]) -> Result<(), TextError> {
        let update_len = update.len();
        let update = Update::decode_v1(update).map_err(|_| TextError::Broken("a logged update does not decode"))?;
        self.doc
            .transact_mut()
            .apply_update(update)
            .map_err(|_| TextError::Broken("a logged update does not apply"))?;
        self.state_bytes_estimate += update_len;
        self.whereabouts.forget();
        self.shadow = Shadow::Unneeded;
        Ok(())
    }

    /// Ends loading at `version`: the units are read from the CRDT and the window starts here.
    pub fn finish_restore(&mut self, version: u64) {
        self.track = Track::new(&self.text.get_string(&self.doc.transact()), version);
    }

    /// Rebuilds the window from logged edits, oldest first, so that JSON operations with an older base can be placed. If the log
    /// does not lead to the text, the window stays as it is and starts here.
    pub fn restore_window(&mut self, floor: u64, log: &[Logged]) {
        let grown = |edit: &Edit| edit.ins_units() as i64 - i64::from(edit.del);
        let grown: i64 = log.iter().flat_map(|logged| &logged.placed).map(grown).sum();
        let Ok(length) = usize::try_from(self.track.units.len() as i64 - grown) else { return };
        let mut window = Window::new(length, floor);
        for logged in log {
            // What was sent says more than what became of it: also which units were deleted that others had deleted already.
            let (view, edits, overwrote) = match &logged.sent {
                Some((base, edits)) if *base >= floor => {
                    (window.view(*base, logged.author.session), edits, logged.overwrote)
                }
                _ => (View::Latest, &logged.placed, false),
            };
            let apply = if overwrote { Window::overwrite } else { Window::apply };
            if edits.iter().any(|edit| apply(&mut window, edit, view, logged.author).is_err()) {
                return;
            }
            window.finish(logged.author);
        }
        if window.visible() == self.track.units.len() {
            self.track.window = window;
        }
    }

    /// The text in UTF-8.
    pub fn content(&self) -> String {
        self.track.content()
    }

    /// The whole state as a Yjs update, format v1.
    pub fn state(&self) -> Vec<u8> {
        self.doc.transact().encode_diff_v1(&StateVector::default())
    }

    /// Tells the engine how large its state really is, after [`state`](Self::state) was taken.
    pub fn set_state_bytes(&mut self, bytes: usize) {
        self.state_bytes_estimate = bytes;
    }

    /// The oldest version that a JSON operation may name as its base.
    pub fn floor(&self) -> u64 {
        self.track.window.floor()
    }

    /// Applies edits whose positions refer to the state after `prev_version` plus the writer's own later operations.
    ///
    /// # Errors
    /// [`TextError`]; after any but [`TextError::Broken`] the text is as before.
    pub fn apply_edits(&mut self, edits: &[Edit], prev_version: u64, author: Author) -> Result<Change, TextError> {
        let view = self.track.view(Seen::of(prev_version, author.session))?;
        self.check_state_quota(self.track.check(edits, view)?)?;
        let placed = self.track.place(edits, view, author)?;
        let update = self.write_crdt(&placed)?;
        Ok(Change { edits: placed, update })
    }

    /// The versions of others since `prev_version` that touched what `edits` touch.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn overlaps(&self, edits: &[Edit], prev_version: u64, author: Author) -> Result<Vec<u64>, TextError> {
        let view = self.track.view(Seen::of(prev_version, author.session))?;
        self.track.check(edits, view)?;
        self.track.overlaps(edits, view, author)
    }

    /// Like [`apply_edits`](Self::apply_edits), but what an edit replaces goes with everything that others wrote into it since.
    ///
    /// # Errors
    /// As [`apply_edits`](Self::apply_edits).
    pub fn overwrite(&mut self, edits: &[Edit], prev_version: u64, author: Author) -> Result<Change, TextError> {
        let view = self.track.view(Seen::of(prev_version, author.session))?;
        self.check_state_quota(self.track.check(edits, view)?)?;
        let placed = self.track.overwrite(edits, view, author)?;
        let update = self.write_crdt(&placed)?;
        Ok(Change { edits: placed, update })
    }

    /// Applies edits that waited for a decision: what they replace goes with everything that others wrote into it since. Gives the
    /// versions that they go over, too.
    ///
    /// # Errors
    /// As [`apply_edits`](Self::apply_edits).
    pub(super) fn decide(
        &mut self,
        edits: &[Edit],
        seen: Seen,
        author: Author,
    ) -> Result<(Change, Vec<u64>), TextError> {
        let view = self.track.view(seen)?;
        self.check_state_quota(self.track.check(edits, view)?)?;
        let over = self.track.overlaps(edits, view, Author { session: seen.session, ..author })?;
        let placed = self.track.decide(edits, seen, author, !over.is_empty())?;
        let update = self.write_crdt(&placed)?;
        Ok((Change { edits: placed, update }, over))
    }

    /// Puts marks on a range, which stays where its characters are; returns where that is now, and the Yjs update.
    ///
    /// # Errors
    /// As [`apply_edits`](Self::apply_edits).
    pub(super) fn mark(&mut self, mark: Mark, prev_version: u64, author: Author) -> Result<(Mark, Bytes), TextError> {
        let view = self.track.view(Seen::of(prev_version, author.session))?;
        let range = Edit { pos: mark.pos, del: mark.len, ins: String::new() };
        self.track.check(std::slice::from_ref(&range), view)?;
        self.check_state_quota(mark.encode().len() + 64)?;
        let (start, end) = self.track.window.extent(&range, view).unwrap_or_default();
        let placed = Mark { pos: start, len: end - start, ..mark };
        if placed.len > 0 {
            self.whereabouts = Whereabouts::Never;
        }
        let update = catch_unwind(AssertUnwindSafe(|| {
            let mut txn = self.doc.transact_mut();
            if placed.len > 0 {
                self.text.format(&mut txn, placed.pos, placed.len, placed.attributes());
            }
            txn.encode_update_v1()
        }))
        .map_err(|_| TextError::Broken("the CRDT failed on a mark"))?;
        self.track.window.finish(author);
        self.state_bytes_estimate += update.len();
        self.shadow.follow(&update, Grammar::Text);
        Ok((placed, update.into()))
    }

    /// Replaces the whole text.
    ///
    /// # Errors
    /// As [`apply_edits`](Self::apply_edits).
    pub fn replace(&mut self, content: &str, author: Author) -> Result<Change, TextError> {
        let edits: Vec<Edit> = edit::difference(&self.track.units, content).into_iter().collect();
        self.apply_edits(&edits, author.version - 1, author)
    }

    /// Merges a Yjs update of a client.
    ///
    /// # Errors
    /// [`TextError`]; after any but [`TextError::Broken`] the text is as before.
    pub fn apply_update(&mut self, bytes: &[u8], author: Author) -> Result<Change, TextError> {
        self.check_state_quota(bytes.len())?;
        let scan = scan(bytes, Grammar::Text)?;
        let known = self.doc.transact().state_vector();
        let blocks = scan.check_dependencies(|client| known.get(&yrs::block::ClientID::new(client)))?;
        if self.track.units.len() + scan.inserted_units > TEXT_UNITS_MAX {
            return Err(TextError::Full("a text may have 1,048,576 UTF-16 units"));
        }
        self.check_places(bytes, &scan, &blocks)?;
        self.whereabouts.forget();
        let (update, edits) = catch_unwind(AssertUnwindSafe(|| self.merge(bytes)))
            .map_err(|_| TextError::Broken("the CRDT failed on an update"))??;
        for edit in &edits {
            let end = edit.pos as usize + edit.del as usize;
            if end > self.track.units.len()
                || splits_pair(&self.track.units, edit.pos as usize)
                || splits_pair(&self.track.units, end)
            {
                return Err(TextError::Broken("an update splits a surrogate pair"));
            }
            self.track.window.apply(edit, View::Latest, author).map_err(TextError::Broken)?;
            splice(&mut self.track.units, edit);
        }
        self.track.window.finish(author);
        self.state_bytes_estimate += update.len();
        self.shadow.follow(&update, Grammar::Text);
        Ok(Change { edits, update: update.into() })
    }

    /// Checks that what an update writes was written beside what its writer had next to each other: otherwise replicas would
    /// come to different texts, at once or with a later update.
    fn check_places(&mut self, update: &[u8], scan: &Scan, blocks: &[Written]) -> Result<(), TextError> {
        let invalid = |what: &dyn Display| TextError::Invalid(format!("data: {what}"));
        let doc = &self.doc;
        let state = || doc.transact().encode_diff_v1(&StateVector::default());
        match self.shadow.check(blocks, Grammar::Text, state) {
            Some(checked) => checked.map_err(|misplaced| invalid(&misplaced)),
            // With a history this large, what was deleted is not told apart.
            None if scan.is_plain(&self.doc.transact()) || self.is_same_in_every_replica(update) => Ok(()),
            None => Err(invalid(&Misplaced::NotAdjacent)),
        }
    }

    /// Tries whether a replica that gets all at once comes to the same text as one that gets the update now.
    fn is_same_in_every_replica(&self, update: &[u8]) -> bool {
        let tried = catch_unwind(AssertUnwindSafe(|| -> Result<bool, TextError> {
            let client = self.doc.client_id().get();
            let mut follower = Self::restore(client, &self.state(), 0)?;
            follower.replay(update)?;
            let latecomer = Self::restore(client, &follower.state(), 0)?;
            let read = |engine: &Self| engine.text.get_string(&engine.doc.transact());
            Ok(read(&follower) == read(&latecomer))
        }));
        matches!(tried, Ok(Ok(true)))
    }

    fn merge(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Vec<Edit>), TextError> {
        let update = Update::decode_v1(bytes).map_err(|error| TextError::Invalid(format!("data: {error}")))?;
        let edits = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&edits);
        self.text.observe("edits", move |txn, event: &TextEvent| {
            sink.lock().expect("no holder panics").extend(edits_of_delta(event.delta(txn)));
        });
        let encoded = {
            let mut txn = self.doc.transact_mut();
            txn.apply_update(update).map_err(|_| TextError::Broken("an update does not apply"))?;
            if txn.store().pending_update().is_some() || txn.store().pending_ds().is_some() {
                return Err(TextError::Broken("an update left changes pending"));
            }
            txn.encode_update_v1()
        };
        self.text.unobserve("edits");
        scan(&encoded, Grammar::Text).map_err(|_| TextError::Broken("an update does not re-encode"))?;
        let edits = std::mem::take(&mut *edits.lock().expect("no holder panics"));
        Ok((encoded, edits))
    }

    fn write_crdt(&mut self, edits: &[Edit]) -> Result<Bytes, TextError> {
        let failed = TextError::Broken("the CRDT failed on an edit");
        let update = match self.lay_out(edits) {
            Some(update) => match catch_unwind(AssertUnwindSafe(|| self.integrate(&update))) {
                Ok(true) => update,
                _ => return Err(failed),
            },
            None => catch_unwind(AssertUnwindSafe(|| self.walk(edits))).map_err(|_| failed)?,
        };
        self.state_bytes_estimate += update.len();
        self.shadow.follow(&update, Grammar::Text);
        Ok(update.into())
    }

    /// The update that makes edits, if it is known which characters are at their places.
    fn lay_out(&mut self, edits: &[Edit]) -> Option<Vec<u8>> {
        if self.whereabouts.is_due() {
            self.whereabouts = self.survey();
        }
        let Whereabouts::Known(layout) = &mut self.whereabouts else { return None };
        let update = layout.edit(edits);
        if update.is_none() {
            self.whereabouts.forget();
        }
        update
    }

    /// Looks at the whole state for where everything is.
    fn survey(&self) -> Whereabouts {
        let txn = self.doc.transact();
        let client = self.doc.client_id();
        let next = Id { client: client.get(), clock: u64::from(txn.state_vector().get(&client)) };
        let state = txn.encode_diff_v1(&StateVector::default());
        let known = || {
            let (scan, flat) = (scan_own(&state, Grammar::Text).ok()?, Flat::of(&state, Grammar::Text)?);
            let layout = Layout::of(flat.root_runs(), scan.deleted(), next);
            // Marks have places, too, and no length.
            (layout.len() == u64::from(self.text.len(&txn))).then_some(layout)
        };
        known().map_or(Whereabouts::Never, Whereabouts::Known)
    }

    /// Applies an update of our own; whether it went in whole, and everything is where it is thought to be.
    fn integrate(&self, update: &[u8]) -> bool {
        let Ok(update) = Update::decode_v1(update) else { return false };
        let mut txn = self.doc.transact_mut();
        let is_applied = txn.apply_update(update).is_ok();
        let is_whole = txn.store().pending_update().is_none() && txn.store().pending_ds().is_none();
        let known = if let Whereabouts::Known(layout) = &self.whereabouts { layout.len() } else { return false };
        is_applied && is_whole && known == u64::from(self.text.len(&txn))
    }

    /// Makes edits by the library's own search for their places.
    fn walk(&self, edits: &[Edit]) -> Vec<u8> {
        let mut txn = self.doc.transact_mut();
        for edit in edits {
            if edit.del > 0 {
                self.text.remove_range(&mut txn, edit.pos, edit.del);
            }
            if !edit.ins.is_empty() {
                self.text.insert(&mut txn, edit.pos, &edit.ins);
            }
        }
        txn.encode_update_v1()
    }

    fn check_state_quota(&self, more: usize) -> Result<(), TextError> {
        if self.state_bytes_estimate + more > STATE_BYTES_MAX {
            return Err(TextError::Full("its history may have 3 MiB"));
        }
        Ok(())
    }
}

/// What a change of a text does to it, as the CRDT library tells it.
pub(super) fn edits_of_delta(delta: &[Delta]) -> Vec<Edit> {
    let mut edits: Vec<Edit> = Vec::new();
    let mut pos = 0;
    // Whether the last edit ends where the next delta starts, so that a deletion belongs to it.
    let mut open = false;
    for part in delta {
        match part {
            Delta::Retain(len, _) => {
                pos += len;
                open = false;
            }
            Delta::Deleted(len) => match edits.last_mut() {
                Some(last) if open => last.del += len,
                _ => {
                    edits.push(Edit { pos, del: *len, ins: String::new() });
                    open = true;
                }
            },
            Delta::Inserted(Out::Any(Any::String(inserted)), _) => {
                match edits.last_mut() {
                    Some(last) if open => last.ins.push_str(inserted),
                    _ => edits.push(Edit { pos, del: 0, ins: inserted.to_string() }),
                }
                open = true;
                pos += inserted.encode_utf16().count() as u32;
            }
            Delta::Inserted(_, _) => {}
        }
    }
    edits
}
