//! Writes that touched what their writers did not know: what is recorded of them, and how somebody decides.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::counter;
use prost::Message;
use tonic::{Code, Status};
use uuid::Uuid;

use super::apply::{Accepted, RowAuthor};
use super::{Applied, Bytes, ConflictRecord, DocumentActor, LogRow, Reply, Waiting, answer, pb};
use crate::clock::{self, timestamp};
use crate::statesync::items::Clash;
use crate::statesync::model::{Pending, Submission};
use crate::statesync::store::{ConflictFilter, DocumentStore};
use crate::statesync::strategy::{Rule, Strategy};
use crate::statesync::subscription::Published;
use crate::status::{invalid, not_found, of_store, with_info};
use crate::store::StoreError;

/// Operations of one document that wait for a decision.
const WAITING_MAX: usize = 1000;
/// The same in bytes of their conflicts.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// Earlier operations named in one conflict, and the bytes of data that they are named with; the history has the rest.
const OPERATIONS_MAX: usize = 16;
const OPERATIONS_BYTES_MAX: usize = 256 << 10;
/// How long a decided conflict is remembered without asking the store: longer than a write takes to get there.
const DECIDED_TIME_US: i64 = 60_000_000;
/// Who resolves when a rule does.
const SERVER: &str = "server";

/// The conflicts of a document in which operations wait, and those decided since it was loaded.
#[derive(Default)]
pub(super) struct Conflicts {
    by_id: HashMap<Uuid, ConflictRecord>,
    /// Whether the store has others.
    more: bool,
}

impl Conflicts {
    /// What waits in the store.
    pub(super) async fn load(store: &dyn DocumentStore, id: Uuid) -> Result<Self, StoreError> {
        let mut conflicts = Self::default();
        loop {
            let offset = conflicts.by_id.len() as u32;
            let filter = ConflictFilter { unresolved_only: true, offset, limit: WAITING_MAX as u32 };
            let (records, _) = store.conflicts(id, filter).await?;
            if records.is_empty() {
                break;
            }
            conflicts.by_id.extend(records.into_iter().map(|record| (record.id, record)));
        }
        let (_, total) = store.conflicts(id, ConflictFilter::default()).await?;
        conflicts.more = total > conflicts.by_id.len() as u64;
        Ok(conflicts)
    }

    /// How many wait, and the bytes of their conflicts.
    fn waiting(&self) -> (usize, usize) {
        let waiting = self.by_id.values().filter(|record| !record.is_resolved());
        waiting.fold((0, 0), |(count, bytes), record| (count + 1, bytes + record.conflict.encoded_len()))
    }

    /// Keeps a decided conflict in mind, and forgets those that the store has had for long.
    fn decided(&mut self, record: ConflictRecord) {
        let old = clock::now().0 - DECIDED_TIME_US;
        let was_decided_before =
            |record: &ConflictRecord| record.conflict.resolved_at.is_some_and(|time| clock::of_timestamp(time).0 < old);
        self.by_id.retain(|_, record| !was_decided_before(record));
        self.by_id.insert(record.id, record);
        self.more = true;
    }
}

/// A decision.
#[derive(Debug)]
pub(in crate::statesync) struct Resolution {
    /// Of this conflict.
    pub(in crate::statesync) conflict_id: Uuid,
    /// By this user.
    pub(in crate::statesync) user_id: String,
    /// For one side, or for something else.
    pub(in crate::statesync) choice: Choice,
}

/// What wins.
#[derive(Debug)]
pub(in crate::statesync) enum Choice {
    /// The operation with this id.
    Side(Uuid),
    /// An operation made for it.
    Merged(Box<Submission>),
}

/// A decided conflict and the operation that the decision applied, if it applied one.
pub(in crate::statesync) type Resolved = (pb::Conflict, Option<pb::Operation>);

/// What came of a decision.
enum Decision {
    /// It was made; with what was applied by it.
    Now(Box<ConflictRecord>, Option<Arc<Published>>),
    /// It had been made.
    Before(Box<Resolved>),
}

impl DocumentActor {
    pub(super) fn strategy(&self) -> Strategy {
        Strategy::of(&self.record, self.shared.options.auto_resolve_conflicts)
    }

    /// The conflict in which an operation waits or waited that has the id or the key of this one.
    pub(super) async fn find_pending(&self, submission: &Submission) -> Result<Option<ConflictRecord>, StoreError> {
        let (op_id, key) = (submission.op_id, submission.operation.idempotency_key.as_str());
        let is_it = |pending: &Pending| pending.op_id == op_id || !key.is_empty() && pending.idempotency_key == key;
        // A call whose answer was lost with its document comes again under the id that it was given here. What it left is known
        // then: it waits.
        let known = self.conflicts.by_id.values().find(|record| record.pending.as_ref().is_some_and(is_it));
        if known.is_some() || !self.conflicts.more || !submission.is_named() {
            return Ok(known.cloned());
        }
        self.shared.store.find_pending(self.record.id, op_id, key).await
    }

    /// Records that an operation won or lost by the document's rule. Nothing is lost: the conflict has both sides.
    pub(super) async fn resolved_conflict(
        &mut self,
        row: &LogRow,
        clashes: &[Clash],
        strategy: Strategy,
    ) -> Option<Box<ConflictRecord>> {
        if clashes.is_empty() || strategy.decided {
            return None;
        }
        let mut ops = self.operations(clashes, row.operation.version).await;
        let lost = row.operation.status == "rejected";
        let resolved_op = if lost { ops.last().cloned() } else { Some(row.operation.clone()) };
        ops.push(row.operation.clone());
        let mut conflict = self.conflict(ops, clashes, strategy.rule);
        SERVER.clone_into(&mut conflict.resolved_by);
        conflict.resolved_op = resolved_op;
        conflict.resolved_at = row.operation.timestamp;
        let record = self.record_conflict(conflict, None);
        self.conflicts.more = true;
        Some(record)
    }

    /// Keeps an operation until somebody decides.
    pub(super) async fn keep_waiting(
        &mut self,
        operation: pb::Operation,
        author: RowAuthor,
        clashes: &[Clash],
    ) -> Result<Accepted, Status> {
        let now = clock::now();
        let waiting =
            pb::Operation { status: "conflict".into(), timestamp: Some(timestamp(now)), version: 0, ..operation };
        let mut ops = self.operations(clashes, self.record.version + 1).await;
        ops.push(waiting);
        let conflict = self.conflict(ops, clashes, Rule::Manual);
        let RowAuthor { op_id, idempotency_key, digest, .. } = author;
        let pending = Pending { op_id, idempotency_key, digest, since: Some(self.record.version) };
        let (count, bytes) = self.conflicts.waiting();
        if count >= WAITING_MAX || bytes + conflict.encoded_len() > WAITING_BYTES_MAX {
            let message = format!("{count} operations wait for a decision; decide some with ResolveConflict first");
            return Err(with_info(Code::ResourceExhausted, message, "TOO_MANY_CONFLICTS", &[]));
        }
        let record = self.record_conflict(conflict, Some(pending));
        self.conflicts.by_id.insert(record.id, ConflictRecord::clone(&record));
        Ok(Accepted::Waits(record))
    }

    /// Publishes what happened to a conflict.
    pub(super) fn tell_conflict(&mut self, kind: &'static str, record: &ConflictRecord) {
        let conflict = record.conflict.clone();
        self.publish_later(|document, place| Published::conflict(kind, conflict, (document, place)));
    }

    /// Decides a conflict. The same decision once more gives what the first one gave.
    pub(super) async fn resolve(&mut self, resolution: &Resolution, reply: Reply<Resolved>) {
        let (mut record, published) = match self.try_resolve(resolution).await {
            Ok(Decision::Now(record, published)) => (*record, published),
            Ok(Decision::Before(resolved)) => return self.answer_later(reply, *resolved),
            Err(status) => return answer(reply, Err(status)),
        };
        let applied = published.as_ref().and_then(|published| published.applied_operation().cloned());
        record.conflict.resolution = Rule::Manual.name().into();
        record.conflict.resolved_by.clone_from(&resolution.user_id);
        record.conflict.resolved_at = Some(timestamp(clock::now()));
        self.conflicts.decided(record.clone());
        self.unwritten.conflicts.push(record.clone());
        if let Some(published) = published {
            self.wait(Waiting::Event(published));
            counter!("statesync_operations_total").increment(1);
        }
        self.tell_conflict("conflict_resolved", &record);
        self.answer_later(reply, (record.conflict, applied));
        self.write_whole().await;
    }

    async fn try_resolve(&mut self, resolution: &Resolution) -> Result<Decision, Status> {
        let mut record = self.known_conflict(resolution.conflict_id).await?;
        if record.is_resolved() {
            return self.decided_before(resolution, &record).await;
        }
        self.check_writable(&resolution.user_id)?;
        let waiting = record.conflict.ops.last().cloned().unwrap_or_default();
        let of_side;
        let (chosen, waited) = match &resolution.choice {
            Choice::Merged(submission) => {
                self.check_merged(submission).await?;
                (submission.as_ref(), None)
            }
            Choice::Side(side) if waiting.id == side.to_string() => {
                of_side = waiting_submission(&record, waiting, &resolution.user_id)?;
                // One that waits since before this was kept is taken to have seen all that its session wrote.
                let since = record.pending.as_ref().and_then(|pending| pending.since).unwrap_or(u64::MAX);
                (&of_side, Some(since))
            }
            Choice::Side(side) => {
                let chosen = record.conflict.ops.iter().find(|operation| operation.id == side.to_string()).cloned();
                let Some(chosen) = chosen else {
                    let message = "is none of the operations of this conflict; ListConflicts shows them";
                    return Err(invalid("operation_id", message));
                };
                record.conflict.resolved_op = Some(chosen);
                set_status(&mut record, "rejected");
                return Ok(Decision::Now(Box::new(record), None));
            }
        };
        let decided = Strategy { rule: Rule::Lww, chosen: true, decided: true };
        match self.apply(chosen, decided, waited).await? {
            Accepted::Applied(published, _) => {
                record.conflict.resolved_op = published.applied_operation().cloned();
                let made = record.conflict.resolved_op.as_ref().map_or("", |operation| operation.status.as_str());
                let won = waited.is_some() && made != "rejected";
                set_status(&mut record, if won { "resolved" } else { "rejected" });
                Ok(Decision::Now(Box::new(record), Some(published)))
            }
            Accepted::Waits(_) => Err(Status::internal("a decision cannot wait for another")),
        }
    }

    /// What a decision gave when it was made for the first time.
    async fn decided_before(&self, resolution: &Resolution, record: &ConflictRecord) -> Result<Decision, Status> {
        let conflict = &record.conflict;
        let refused = || {
            let message = format!("the conflict was resolved by {}", conflict.resolved_by);
            with_info(Code::FailedPrecondition, message, "CONFLICT_RESOLVED", &[])
        };
        let is_its = record.pending.is_some() && conflict.resolved_by == resolution.user_id;
        let winner = conflict.resolved_op.as_ref().filter(|_| is_its).ok_or_else(refused)?;
        let (is_same, applied) = match &resolution.choice {
            Choice::Side(side) => {
                let is_of = |operation: &pb::Operation| operation.id == side.to_string();
                let is_waiting = conflict.ops.last().is_some_and(is_of);
                (is_of(winner) && conflict.ops.iter().any(is_of), is_waiting)
            }
            Choice::Merged(submission) => {
                let earlier = self.earlier_result(submission).await.map_err(|error| of_store(&error))?;
                let is_winner = |(digest, applied): ([u8; 32], Applied)| {
                    digest == submission.digest
                        && matches!(applied, Applied::Before(version) if version == winner.version)
                };
                (earlier.is_some_and(is_winner), true)
            }
        };
        if !is_same {
            return Err(refused());
        }
        Ok(Decision::Before(Box::new((conflict.clone(), applied.then(|| winner.clone())))))
    }

    async fn check_merged(&self, submission: &Submission) -> Result<(), Status> {
        if self.earlier_result(submission).await.map_err(|error| of_store(&error))?.is_some() {
            let message = "its id or idempotency key was used for another operation";
            return Err(with_info(Code::AlreadyExists, message, "OPERATION_EXISTS", &[]));
        }
        let (base, current) = (submission.operation.prev_version, self.record.version);
        if base == current { Ok(()) } else { Err(crate::statesync::content::version_refusal(base, current)) }
    }

    async fn known_conflict(&self, id: Uuid) -> Result<ConflictRecord, Status> {
        let known = self.conflicts.by_id.get(&id).cloned();
        let record = match known {
            Some(record) => Some(record),
            None => self.shared.store.conflict(self.record.id, id).await.map_err(|error| of_store(&error))?,
        };
        record.ok_or_else(|| not_found("conflict", &id.to_string()))
    }

    /// The operations that made the versions of `clashes`, of which those not yet kept are in the line.
    async fn operations(&self, clashes: &[Clash], before: u64) -> Vec<pb::Operation> {
        let mut versions: Vec<u64> =
            clashes.iter().map(|clash| clash.version).filter(|version| *version < before).collect();
        versions.sort_unstable();
        versions.dedup();
        let (mut operations, mut bytes) = (Vec::new(), 0);
        for version in versions.into_iter().rev().take(OPERATIONS_MAX) {
            let in_line = self.line.waiting.iter().find_map(|(_, waiting)| match waiting {
                Waiting::Operation(published, _) | Waiting::Event(published) if published.version() == version => {
                    published.applied_operation().cloned()
                }
                _ => None,
            });
            let operation = match in_line {
                Some(operation) => Some(operation),
                // A change of the description stands in the line only as a document; a store that fails fails the write anyway.
                None => self.shared.store.operation(self.record.id, version).await.unwrap_or_default(),
            };
            let Some(mut operation) = operation else { continue };
            bytes += operation.data.len();
            if bytes > OPERATIONS_BYTES_MAX {
                operation.data = Bytes::new();
            }
            operations.push(operation);
        }
        operations.reverse();
        operations
    }

    fn conflict(&self, ops: Vec<pb::Operation>, clashes: &[Clash], rule: Rule) -> pb::Conflict {
        let mut places: Vec<&str> = clashes.iter().map(|clash| clash.place.as_str()).collect();
        places.sort_unstable();
        places.dedup();
        places.truncate(8);
        let how = if clashes.iter().any(|clash| clash.deletion) {
            "deleted by one and changed by another"
        } else {
            "written by both"
        };
        pb::Conflict {
            id: Uuid::now_v7().to_string(),
            doc_id: self.record.id.to_string(),
            ops,
            resolution: rule.name().into(),
            description: format!("{} {how}", places.join(", ")),
            ..Default::default()
        }
    }

    fn record_conflict(&mut self, conflict: pb::Conflict, pending: Option<Pending>) -> Box<ConflictRecord> {
        counter!("statesync_conflicts_total").increment(1);
        let id = conflict.id.parse().expect("it was made from a UUID");
        let record = ConflictRecord { id, created_at: clock::now(), conflict, pending };
        self.unwritten.conflicts.push(record.clone());
        Box::new(record)
    }
}

/// The operation that waits in a conflict, as `user_id` submits it: whoever decides stands for it, whoever wrote it.
fn waiting_submission(record: &ConflictRecord, waiting: pb::Operation, user_id: &str) -> Result<Submission, Status> {
    let mut submission = Submission::check(Some(pb::Operation { status: String::new(), ..waiting }))?;
    user_id.clone_into(&mut submission.operation.user_id);
    submission.operation.session_sequence = 0;
    if let Some(pending) = &record.pending {
        submission.digest = pending.digest;
    }
    Ok(submission)
}

fn set_status(record: &mut ConflictRecord, status: &str) {
    if let Some(waiting) = record.conflict.ops.last_mut() {
        status.clone_into(&mut waiting.status);
    }
}
