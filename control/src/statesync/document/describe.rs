//! Changing what a document is called, its state and its metadata, under the same version line as its content.

use std::sync::Arc;

use aws_lc_rs::digest;
use prost::Message;
use tonic::Status;
use uuid::Uuid;

use super::apply::RowAuthor;
use super::{Bytes, DocumentActor, Reply, answer, pb};
use crate::statesync::content::{self, Applying, Outcome};
use crate::statesync::permission;
use crate::statesync::subscription::Published;
use crate::statesync::text::{Author, Seen};
use crate::status::invalid;

impl DocumentActor {
    /// Changes what `wanted` names; empty fields stay.
    pub(super) fn update(&mut self, wanted: &pb::Document, reply: Reply<()>) {
        match self.try_update(wanted) {
            Ok(()) => self.answer_later(reply, ()),
            Err(status) => answer(reply, Err(status)),
        }
    }

    /// Sets the state to "deleted". Deleting twice is no error.
    pub(super) fn delete(&mut self, user_id: String, reply: Reply<()>) {
        if self.record.state == "deleted" {
            return self.answer_later(reply, ());
        }
        if let Err(status) = self.check_lock(&user_id) {
            return answer(reply, Err(status));
        }
        "deleted".clone_into(&mut self.record.state);
        self.describe(user_id, None);
        self.answer_later(reply, ());
    }

    fn try_update(&mut self, wanted: &pb::Document) -> Result<(), Status> {
        self.check_lock(&wanted.updated_by)?;
        let current = self.record.version;
        if wanted.version != current {
            return Err(content::version_refusal(wanted.version, current));
        }
        for (field, wanted, have) in [
            ("document.type", &wanted.r#type, &self.record.kind),
            ("document.created_by", &wanted.created_by, &self.record.created_by),
        ] {
            if !wanted.is_empty() && wanted != have {
                return Err(invalid(field, "cannot be changed; leave it empty or send what GetDocument gave"));
            }
        }
        let state = if wanted.state.is_empty() { &self.record.state } else { &wanted.state };
        // Only together with becoming active again may the rest change.
        if self.record.state != "active" && state != "active" {
            return Err(self.not_active());
        }
        let state = state.clone();
        let outcome = if wanted.content.is_empty() || wanted.content == self.content.bytes() {
            None
        } else {
            Some(self.replace_content(&wanted.content)?)
        };
        self.record.state = state;
        if !wanted.name.is_empty() {
            self.record.name.clone_from(&wanted.name);
        }
        if let Some(metadata) = &wanted.metadata {
            let permissions = self.record.metadata.permissions.take();
            self.record.metadata = metadata.clone();
            match &mut self.record.metadata.permissions {
                // Nobody could change the permissions of a document without an owner.
                Some(given) if given.owner.is_empty() => given.owner = permissions.unwrap_or_default().owner,
                Some(_) => {}
                none => *none = permissions,
            }
            let record = &self.record;
            self.subscribers.cut_off(|attach| permission::may_read(record, &attach.asker));
        }
        self.describe(wanted.updated_by.clone(), outcome);
        Ok(())
    }

    fn replace_content(&mut self, content: &Bytes) -> Result<Outcome, Status> {
        let session = self.sessions.index(Uuid::nil());
        let author = Author { version: self.record.version + 1, session };
        let (strategy, seen) = (self.strategy(), Seen::of(self.record.version, session));
        let how =
            Applying { author, seen, strategy, kind: &self.record.kind, yjs_client: super::yjs_client(self.record.id) };
        match self.content.replace(content, how) {
            Ok((outcome, keep)) => {
                self.unwritten.snapshot |= keep;
                Ok(outcome)
            }
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Records what was changed as a version, and shows everybody the document.
    fn describe(&mut self, user_id: String, outcome: Option<Outcome>) {
        let op_id = Uuid::now_v7();
        let operation = pb::Operation {
            id: op_id.to_string(),
            doc_id: self.record.id.to_string(),
            session_id: Uuid::nil().to_string(),
            user_id,
            r#type: "update".into(),
            ..Default::default()
        };
        let digest = digest::digest(&digest::SHA256, &operation.encode_to_vec());
        let digest = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let author = RowAuthor { op_id, session_id: Uuid::nil(), idempotency_key: String::new(), digest };
        let row = self.record_row(operation, author, outcome);
        self.record.described_version = self.record.version;
        self.unwritten.described = true;
        let snapshot = if self.subscribers.want_updates() && self.content.is_typed() {
            self.content.snapshot()
        } else {
            Bytes::new()
        };
        let document = self.document(self.content.bytes());
        let event = Published::whole(&row, document, (snapshot, &self.record.epoch));
        self.wait(super::Waiting::Event(Arc::new(event)));
    }
}
