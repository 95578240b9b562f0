//! A Yjs document that takes in what others did when, and only when, it is told to.

use std::collections::VecDeque;

use bytes::Bytes;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Doc, GetString, OffsetKind, Options, ReadTxn, Text, TextRef, Transact, Update};

use super::{Edit, Received, ReplicaError};
use crate::trace::Patch;

/// A Yjs document and the updates that its editor has not seen yet.
pub struct YjsReplica {
    doc: Doc,
    text: TextRef,
    unseen: VecDeque<Received>,
    basic_plane: bool,
}

impl std::fmt::Debug for YjsReplica {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("YjsReplica").field("unseen", &self.unseen.len()).finish_non_exhaustive()
    }
}

impl YjsReplica {
    /// An empty document of writer `agent`. `basic_plane`: all text of the session is one UTF-16 unit a character.
    pub fn new(basic_plane: bool, agent: u16) -> Self {
        // Where two writers insert at one place, Yjs puts the smaller client id first and the recorded sessions the lower agent;
        // with random ids friendsforever ended in its endContent every other time.
        let client = u64::from(agent) + 1;
        let mut options = Options::with_client_id(yrs::block::ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let text = doc.get_or_insert_text("content");
        Self { doc, text, unseen: VecDeque::new(), basic_plane }
    }

    /// Makes one edit in one Yjs transaction; gives its update.
    ///
    /// # Errors
    /// If a patch lies outside the text.
    pub fn edit<'a>(&mut self, patches: impl Iterator<Item = &'a Patch>) -> Result<Edit, ReplicaError> {
        let mut transaction = self.doc.transact_mut();
        for patch in patches {
            let past_end = ReplicaError::PastEnd { position: patch.position, deleted: patch.deleted };
            let end = patch.position.checked_add(patch.deleted);
            let (start, deleted) = if self.basic_plane {
                end.filter(|end| *end <= self.text.len(&transaction)).ok_or(past_end)?;
                (patch.position, patch.deleted)
            } else {
                let text = self.text.get_string(&transaction);
                let start = utf16_offset(&text, patch.position).ok_or(past_end)?;
                let past_end = ReplicaError::PastEnd { position: patch.position, deleted: patch.deleted };
                let end = end.and_then(|end| utf16_offset(&text, end)).ok_or(past_end)?;
                (start, end - start)
            };
            if deleted > 0 {
                self.text.remove_range(&mut transaction, start, deleted);
            }
            if !patch.inserted.is_empty() {
                self.text.insert(&mut transaction, start, &patch.inserted);
            }
        }
        let deleted = match transaction.delete_set() {
            none if none.is_empty() => String::new(),
            // An update without structs: their number, 0, then what is deleted.
            some => format!("00{}", hex::encode(some.encode_v1())),
        };
        Ok(Edit { data: Bytes::from(transaction.encode_update_v1()), deleted, after: String::new() })
    }

    /// Keeps an operation of another writer.
    pub fn receive(&mut self, received: Received) {
        self.unseen.push_back(received);
    }

    /// Takes in the updates within the frontier.
    ///
    /// # Errors
    /// If an update cannot be applied.
    pub fn see(&mut self, frontier: &[u32]) -> Result<(), ReplicaError> {
        let within = |received: &Received| received.span.end <= frontier[usize::from(received.span.agent)];
        if !self.unseen.iter().any(within) {
            return Ok(());
        }
        let (now, later) = self.unseen.drain(..).partition(within);
        self.unseen = later;
        let now: VecDeque<Received> = now;
        let mut transaction = self.doc.transact_mut();
        let fault = |error: &dyn std::fmt::Display| ReplicaError::Operation(error.to_string());
        for received in now {
            let deleted = hex::decode(&received.deleted).map_err(|error| fault(&error))?;
            for bytes in [received.update.as_ref(), &deleted].into_iter().filter(|bytes| !bytes.is_empty()) {
                let update = Update::decode_v1(bytes).map_err(|error| fault(&error))?;
                transaction.apply_update(update).map_err(|error| fault(&error))?;
            }
        }
        if transaction.store().pending_update().is_some() || transaction.store().pending_ds().is_some() {
            return Err(ReplicaError::Operation("a Yjs update builds on changes that have not come".to_owned()));
        }
        Ok(())
    }

    /// The text.
    pub fn text(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }
}

/// The UTF-16 offset of a code point.
fn utf16_offset(text: &str, position: u32) -> Option<u32> {
    let mut characters = text.chars();
    let mut offset = 0;
    for _ in 0..position {
        offset += characters.next()?.len_utf16() as u32;
    }
    Some(offset)
}
