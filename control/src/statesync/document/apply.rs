//! Taking operations: each once, in the order of its session, under the version check.

use std::sync::Arc;

use proto::statesync as pb;
use tokio::time::Instant;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{Applied, DocumentActor, Reply, Waiting, answer};
use crate::clock;
use crate::statesync::content::{Applying, Outcome, Refusal, Verdict};
use crate::statesync::model::{ConflictRecord, LogRow, Submission};
use crate::statesync::order::Turn;
use crate::statesync::permission::{self, Right};
use crate::statesync::strategy::Strategy;
use crate::statesync::subscription::Published;
use crate::statesync::text::{Author, Seen};
use crate::status::with_info;
use crate::store::StoreError;

/// An operation that was not refused.
pub(super) enum Accepted {
    /// It made a version; the conflict that it was in, if it was in one.
    Applied(Arc<Published>, Option<Box<ConflictRecord>>),
    /// It waits in a conflict.
    Waits(Box<ConflictRecord>),
}

/// Who made an operation, and what tells a repetition of it.
pub(super) struct RowAuthor {
    pub(super) op_id: Uuid,
    pub(super) session_id: Uuid,
    pub(super) idempotency_key: String,
    pub(super) digest: [u8; 32],
}

impl DocumentActor {
    pub(super) async fn submit(&mut self, submission: Arc<Submission>, reply: Reply<Applied>) {
        match self.earlier_result(&submission).await {
            Ok(None) => {}
            Ok(Some((digest, applied))) if digest == submission.digest => return self.answer_later(reply, applied),
            Ok(Some(_)) => {
                let message = "the operation id or idempotency key was used for different content";
                return answer(reply, Err(with_info(Code::AlreadyExists, message, "OPERATION_EXISTS", &[])));
            }
            Err(error) => return answer(reply, Err(crate::status::of_store(&error))),
        }
        let (session, sequence) = (submission.session_id, submission.operation.session_sequence);
        match self.sessions.turn(session, sequence) {
            Turn::Now => self.apply_and_follow(submission, reply).await,
            Turn::Later => self.hold(submission, reply),
            Turn::Passed(due) => {
                let message = format!("session_sequence {sequence} was used for another operation; {due} is next");
                let metadata = [("next_session_sequence", due.to_string())];
                answer(reply, Err(with_info(Code::AlreadyExists, message, "SEQUENCE_USED", &metadata)));
            }
        }
    }

    fn hold(&mut self, submission: Arc<Submission>, reply: Reply<Applied>) {
        let (session, sequence) = (submission.session_id, submission.operation.session_sequence);
        let bytes = submission.operation.data.len() + 1024;
        match self.sessions.hold(session, sequence, (submission, reply), bytes) {
            Ok(None) => {}
            Ok(Some((_, replaced))) => {
                let message =
                    "the operation was sent again while it waited for earlier ones; the later call has the answer";
                answer(replaced, Err(with_info(Code::Aborted, message, "SENT_AGAIN", &[])));
            }
            Err((_, reply)) => {
                let message = "too many operations wait for earlier ones of their sessions";
                answer(reply, Err(with_info(Code::ResourceExhausted, message, "TOO_MANY_EARLY", &[])));
            }
        }
    }

    pub(super) async fn earlier_result(
        &self,
        submission: &Submission,
    ) -> Result<Option<([u8; 32], Applied)>, StoreError> {
        let (id, key) = (self.record.id, &submission.operation.idempotency_key);
        let known = self.recent.find(submission);
        let found = match known {
            None if submission.is_named() && !self.recent.complete => {
                self.shared.store.find_operation(id, submission.op_id, key).await?
            }
            known => known,
        };
        if let Some((digest, version)) = found {
            return Ok(Some((digest, Applied::Before(version))));
        }
        let pending = self.find_pending(submission).await?;
        Ok(pending.and_then(|record| {
            let digest = record.pending.as_ref()?.digest;
            Some((digest, Applied::Waits(Box::new(record))))
        }))
    }

    /// Applies an operation and those of its session that waited for it.
    async fn apply_and_follow(&mut self, submission: Arc<Submission>, reply: Reply<Applied>) {
        let session = submission.session_id;
        let mut next = Some((submission, reply));
        while let Some((submission, reply)) = next.take() {
            let sequence = submission.operation.session_sequence;
            let before = self.unwritten.call_on(reply.origin());
            // Permissions may have changed while it waited for earlier ones.
            let applied = match permission::permits(&self.record, &submission.asker, Right::Write) {
                Ok(()) => self.apply(&submission, self.strategy(), None).await,
                Err(status) => Err(status),
            };
            match applied {
                Ok(Accepted::Applied(published, conflict)) => {
                    self.sessions.accepted(session, sequence);
                    self.wait(Waiting::Operation(published, reply));
                    if let Some(record) = conflict {
                        self.tell_conflict("conflict_detected", &record);
                        self.tell_conflict("conflict_resolved", &record);
                    }
                    next = self.sessions.take_next(session);
                }
                Ok(Accepted::Waits(record)) => {
                    self.tell_conflict("conflict_detected", &record);
                    self.answer_later(reply, Applied::Waits(record));
                    self.abort_held(session);
                }
                Err(status) => {
                    self.unwritten.call_off(before);
                    answer(reply, Err(status));
                    if sequence > 0 {
                        self.abort_held(session);
                    }
                }
            }
            self.write_whole().await;
            if self.retired {
                // Whoever asked is told to ask again by the dropped reply.
                drop(next.take());
            }
        }
    }

    fn abort_held(&mut self, session: Uuid) {
        for (_, reply) in self.sessions.take_all(session) {
            let message = "an earlier operation of this session was refused";
            answer(reply, Err(with_info(Code::Aborted, message, "EARLIER_OPERATION_REFUSED", &[])));
        }
    }

    /// Applies an operation; `waited` is the version since which it waited for a decision, if it did. Its session was told that it
    /// waits, and goes on without it: what it becomes then is no session's own, and seen by nobody before its version.
    pub(super) async fn apply(
        &mut self,
        submission: &Submission,
        strategy: Strategy,
        waited: Option<u64>,
    ) -> Result<Accepted, Status> {
        self.check_writable(&submission.operation.user_id)?;
        let version = self.record.version + 1;
        let session_id = if waited.is_some() { Uuid::nil() } else { submission.session_id };
        let author = Author { version, session: self.sessions.index(session_id) };
        let seen = Seen {
            version: submission.operation.prev_version,
            session: self.sessions.index(submission.session_id),
            waited: waited.map(|since| (since, version)),
        };
        let (kind, yjs_client) = (&self.record.kind, super::yjs_client(self.record.id));
        let how = Applying { author, seen, strategy, kind, yjs_client };
        let verdict = match self.content.apply(submission, how) {
            Ok(verdict) => verdict,
            Err(refusal) => return Err(self.refused(refusal)),
        };
        self.retired |= self.sessions.is_crowded();
        let mut operation = pb::Operation { id: submission.op_id.to_string(), ..submission.operation.clone() };
        let author = RowAuthor {
            op_id: submission.op_id,
            session_id,
            idempotency_key: submission.operation.idempotency_key.clone(),
            digest: submission.digest,
        };
        let (row, clashes, keep) = match verdict {
            Verdict::Waits(clashes) => return self.keep_waiting(operation, author, &clashes).await,
            Verdict::Applied { outcome, keep, clashes } => {
                if !clashes.is_empty() {
                    operation.status = "resolved".into();
                }
                (self.record_row(operation, author, Some(outcome)), clashes, keep)
            }
            Verdict::Lost(clashes) => {
                operation.status = "rejected".into();
                (self.record_row(operation, author, None), clashes, false)
            }
        };
        let conflict = self.resolved_conflict(&row, &clashes, strategy).await;
        self.unwritten.snapshot |= keep;
        Ok(Accepted::Applied(Arc::new(Published::operation(&row, &self.record.epoch)), conflict))
    }

    /// Makes the next version of the document from an operation that was applied; without an outcome the content stayed.
    pub(super) fn record_row(
        &mut self,
        operation: pb::Operation,
        author: RowAuthor,
        outcome: Option<Outcome>,
    ) -> Arc<LogRow> {
        let version = self.record.version + 1;
        self.time = self.time.next(clock::now());
        self.sequence += 1;
        let quiet = outcome.is_none();
        let outcome = outcome.unwrap_or_else(|| self.content.no_change());
        let status = if operation.status.is_empty() { "applied".into() } else { operation.status.clone() };
        let operation = pb::Operation {
            data: outcome.data,
            encoding: pb::OperationEncoding::Json.into(),
            timestamp: Some(clock::timestamp(self.time.wall())),
            version,
            prev_version: version - 1,
            status,
            ..operation
        };
        self.record.version = version;
        self.record.updated_by.clone_from(&operation.user_id);
        self.record.updated_at = self.time.wall();
        let row = Arc::new(LogRow {
            operation,
            op_id: author.op_id,
            session_id: author.session_id,
            idempotency_key: author.idempotency_key,
            digest: author.digest,
            time: self.time,
            sequence: self.sequence,
            update: outcome.update,
            quiet,
            sent: outcome.sent,
        });
        self.recent.insert(&row);
        self.unsnapshotted.0 += 1;
        self.unsnapshotted.1 += row.update.len().max(row.operation.data.len());
        self.unwritten.rows.push(Arc::clone(&row));
        row
    }

    /// What the client is told; a content that broke is loaded afresh.
    pub(super) fn refused(&mut self, refusal: Refusal) -> Status {
        match refusal {
            Refusal::Status(status) => status,
            Refusal::Broken(what) => {
                tracing::warn!(document = %self.record.id, what, "an operation was refused; loading the document afresh");
                self.retired = true;
                with_info(Code::InvalidArgument, format!("operation.data: {what}"), "OPERATION_BROKEN", &[])
            }
        }
    }

    /// Whether operations may change the document at all.
    pub(super) fn check_writable(&self, user_id: &str) -> Result<(), Status> {
        if self.record.state != "active" {
            return Err(self.not_active());
        }
        self.check_lock(user_id)
    }

    /// What whoever changes a document is told that is archived or deleted.
    pub(super) fn not_active(&self) -> Status {
        let state = &self.record.state;
        let message = format!("the document is {state}; set its state to \"active\" with UpdateDocument to change it");
        with_info(Code::FailedPrecondition, message, "DOCUMENT_NOT_ACTIVE", &[("state", state.clone())])
    }

    pub(super) fn expire_held(&mut self) {
        for ((_, reply), due) in self.sessions.take_expired(Instant::now()) {
            let message = format!("operation {due} of this session did not arrive in time");
            let metadata = [("next_session_sequence", due.to_string())];
            answer(reply, Err(with_info(Code::FailedPrecondition, message, "EARLIER_OPERATION_MISSING", &metadata)));
        }
    }
}
