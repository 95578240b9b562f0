//! The actor of one document: the only owner of its version, content, writers and subscribers.
//!
//! An operation is applied in memory at once and queued for the disk; its answer and its event wait in one line until its group
//! is on disk. Reads and new subscriptions stand in the same line, so nobody is shown what a crash could still take back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use proto::statesync as pb;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::{Code, Status};
use uuid::Uuid;

use super::content::{Content, Refusal};
use super::model::{DocumentRecord, Durability, LogRow, Submission};
use super::order::{Sessions, Turn};
use super::store::{DocumentStore, Write};
use super::subscription::{Attached, EventSender, Published, Subscribers};
use super::text::Author;
use crate::clock::{self, HybridTime};
use crate::status::with_info;
use crate::store::StoreError;

/// Operations that wait for the disk; beyond it the document takes no more commands until some are there.
const WAITING_MAX: usize = 8192;
/// The same in bytes of operations.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Commands handled before what they wrote is sent to the disk.
const BATCH_MAX: usize = 256;
/// A snapshot is kept after so many operations or bytes of updates, which bounds the work of loading.
const SNAPSHOT_OPERATIONS: u64 = 1000;
const SNAPSHOT_BYTES: usize = 512 << 10;
/// Rows of history read when a document is loaded, for JSON operations with an older base and for repeated ids.
const LOADED_ROWS: u32 = 16_384;
const LOADED_BYTES: u64 = 16 << 20;
/// Repeated operation ids known without asking the disk.
const RECENT_MAX: usize = 65_536;
/// A document that nobody uses leaves memory after this time.
const IDLE_TIME: Duration = Duration::from_mins(1);
/// Event numbers skipped when a document is loaded, more than it had events that are not in the log.
const SEQUENCE_SKIP: u64 = 1 << 20;
/// A subscriber that missed more operations than this gets the state instead.
const REPLAY_MAX: u64 = 10_000;

/// The answer to a command.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Status>>;

/// What the service asks of a document. A reply that is dropped means: ask again, the document is being loaded afresh.
pub(super) enum Command {
    /// Apply an operation.
    Apply(Arc<Submission>, Reply<Applied>),
    /// Read the document.
    Read(Reply<pb::Document>),
    /// Subscribe, or catch up after lagging.
    Attach(Attach, Reply<Attached>),
    /// A subscriber is gone.
    Leave(Uuid),
}

/// How an operation was accepted.
pub(super) enum Applied {
    /// Just now.
    Now(Arc<Published>),
    /// Earlier, as this version.
    Before(u64),
}

/// A wish to receive events.
#[derive(Debug, Clone)]
pub(super) struct Attach {
    /// The subscriber.
    pub subscriber: Uuid,
    /// Whose it is.
    pub user_id: String,
    /// Whether it wants Yjs updates and states.
    pub want_updates: bool,
    /// The epoch and version it has.
    pub resume: Option<(String, u64)>,
    /// Whether it was subscribed before and fell behind.
    pub again: bool,
}

/// What stands in the line behind the disk.
enum Waiting {
    Operation(Arc<Published>, Reply<Applied>),
    Repeated(u64, Reply<Applied>),
    Read(pb::Document, Reply<pb::Document>),
    Attach(Attach, Attached, EventSender, Reply<Attached>),
    Event(Arc<Published>),
}

/// Accepted operations by id and key.
#[derive(Default)]
struct Recent {
    by_id: HashMap<Uuid, ([u8; 32], u64)>,
    by_key: HashMap<String, ([u8; 32], u64)>,
    order: VecDeque<(Uuid, String)>,
    complete: bool,
}

impl Recent {
    fn insert(&mut self, row: &LogRow) {
        let result = (row.digest, row.operation.version);
        self.by_id.insert(row.op_id, result);
        if !row.idempotency_key.is_empty() {
            self.by_key.insert(row.idempotency_key.clone(), result);
        }
        self.order.push_back((row.op_id, row.idempotency_key.clone()));
        if self.order.len() > RECENT_MAX {
            self.complete = false;
            let (id, key) = self.order.pop_front().expect("it was just found longer than its limit");
            self.by_id.remove(&id);
            self.by_key.remove(&key);
        }
    }

    fn find(&self, submission: &Submission) -> Option<([u8; 32], u64)> {
        let by_key = self.by_key.get(&submission.operation.idempotency_key);
        by_key.or_else(|| self.by_id.get(&submission.op_id)).copied()
    }
}

/// One document in memory.
pub(super) struct DocumentActor {
    record: DocumentRecord,
    content: Content,
    store: DocumentStore,
    sessions: Sessions<(Arc<Submission>, Reply<Applied>)>,
    recent: Recent,
    subscribers: Subscribers,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    durable: watch::Sender<Durability>,
    unwritten: Vec<Arc<LogRow>>,
    unsnapshotted: (u64, usize),
    time: HybridTime,
    sequence: u64,
    /// Set when memory and disk may differ: what waits is finished, then the document is loaded afresh.
    retired: bool,
}

/// The server's own Yjs client id in a document, the same after a restart.
pub(super) fn yjs_client(doc_id: Uuid) -> u64 {
    u64::from(doc_id.as_u128() as u32 >> 1)
}

impl DocumentActor {
    /// Loads a document; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn load(store: DocumentStore, id: Uuid) -> Result<Option<Self>, StoreError> {
        let Some(record) = store.document(id).await? else { return Ok(None) };
        let oldest = store.newest_rows(id, (LOADED_ROWS, LOADED_BYTES)).await?.unwrap_or(record.version);
        // Version 1 is the creation, which is no row.
        let floor = oldest.min(record.snapshot_version).max(1);
        let mut log = Vec::new();
        while log.last().map_or(floor, |row: &LogRow| row.operation.version) < record.version {
            let page = store.operations_after(id, log.last().map_or(floor, |row| row.operation.version)).await?;
            if page.is_empty() {
                return Err(StoreError::Corrupt(format!("the log of document {id} has gaps")));
            }
            log.extend(page);
        }
        log.retain(|row| row.operation.version <= record.version);
        let mut sessions = Sessions::new();
        let mut recent = Recent { complete: floor <= 1, ..Recent::default() };
        for row in &log {
            sessions.accepted(row.session_id, row.operation.session_sequence);
            recent.insert(row);
        }
        let content = Content::restore(&record, yjs_client(id), &log);
        let mut content = content.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let indices: Vec<u32> = log.iter().map(|row| sessions.index(row.session_id)).collect();
        let first = log.first().map_or(0, |row| row.operation.version);
        content.restore_window(floor, &log, |row| indices[(row.operation.version - first) as usize]);
        let newest = log.last();
        Ok(Some(Self {
            durable: watch::Sender::new(Durability { version: record.version, failed: None }),
            unsnapshotted: (record.version - record.snapshot_version, 0),
            time: newest.map_or(HybridTime::default(), |row| row.time),
            sequence: newest.map_or(0, |row| (row.sequence / SEQUENCE_SKIP + 1) * SEQUENCE_SKIP),
            record,
            content,
            store,
            sessions,
            recent,
            subscribers: Subscribers::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            unwritten: Vec::new(),
            retired: false,
        }))
    }

    /// Serves commands until the document is idle, has to be loaded afresh, or nobody can reach it any more.
    pub(super) async fn run(mut self, commands: &mut mpsc::Receiver<Command>) {
        let mut durable = self.durable.subscribe();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut used = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = durable.changed() => self.settle(&durable.borrow_and_update().clone()),
                command = commands.recv(), if self.takes_commands() => {
                    let Some(command) = command else { break };
                    used = Instant::now();
                    self.handle_batch(command, commands).await;
                }
                _ = tick.tick() => self.expire_held(),
            }
            let unused = self.subscribers.is_empty() && !self.sessions.is_holding() && used.elapsed() > IDLE_TIME;
            if self.waiting.is_empty() && (self.retired || unused) {
                break;
            }
        }
    }

    fn takes_commands(&self) -> bool {
        !self.retired && self.waiting.len() < WAITING_MAX && self.waiting_bytes < WAITING_BYTES_MAX
    }

    async fn handle_batch(&mut self, first: Command, commands: &mut mpsc::Receiver<Command>) {
        self.handle(first).await;
        for _ in 1..BATCH_MAX {
            if !self.takes_commands() {
                break;
            }
            let Ok(command) = commands.try_recv() else { break };
            self.handle(command).await;
        }
        self.write().await;
        let durable = self.durable.borrow().clone();
        self.settle(&durable);
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Apply(submission, reply) => self.submit(submission, reply).await,
            Command::Read(reply) => {
                let document = self.document(self.content.bytes());
                self.waiting.push_back(Waiting::Read(document, reply));
            }
            Command::Attach(attach, reply) => self.attach(attach, reply),
            Command::Leave(subscriber) => {
                if let Some(user_id) = self.subscribers.remove(subscriber) {
                    self.announce("user_left", &user_id);
                }
            }
        }
    }

    async fn submit(&mut self, submission: Arc<Submission>, reply: Reply<Applied>) {
        match self.earlier_result(&submission).await {
            Ok(None) => {}
            Ok(Some((digest, version))) if digest == submission.digest => {
                self.waiting.push_back(Waiting::Repeated(version, reply));
                return;
            }
            Ok(Some(_)) => {
                let message = "the operation id or idempotency key was used for different content";
                answer(reply, Err(with_info(Code::AlreadyExists, message, "OPERATION_EXISTS", &[])));
                return;
            }
            Err(error) => return answer(reply, Err(crate::status::of_store(&error))),
        }
        let (session, sequence) = (submission.session_id, submission.operation.session_sequence);
        match self.sessions.turn(session, sequence) {
            Turn::Now => self.apply_and_follow(submission, reply),
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

    async fn earlier_result(&self, submission: &Submission) -> Result<Option<([u8; 32], u64)>, StoreError> {
        let key = &submission.operation.idempotency_key;
        let known = self.recent.find(submission);
        if known.is_some() || self.recent.complete || !submission.id_given && key.is_empty() {
            return Ok(known);
        }
        self.store.find_operation(self.record.id, submission.op_id, key).await
    }

    /// Applies an operation and those of its session that waited for it.
    fn apply_and_follow(&mut self, submission: Arc<Submission>, reply: Reply<Applied>) {
        let session = submission.session_id;
        let mut next = Some((submission, reply));
        while let Some((submission, reply)) = next.take() {
            match self.apply(&submission) {
                Ok(published) => {
                    self.sessions.accepted(session, submission.operation.session_sequence);
                    self.waiting_bytes += published.bytes();
                    self.waiting.push_back(Waiting::Operation(published, reply));
                    next = self.sessions.take_next(session);
                }
                Err(status) => {
                    answer(reply, Err(status));
                    if submission.operation.session_sequence > 0 {
                        self.abort_held(session);
                    }
                }
            }
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

    fn apply(&mut self, submission: &Submission) -> Result<Arc<Published>, Status> {
        let version = self.record.version + 1;
        let author = Author { version, session: self.sessions.index(submission.session_id) };
        let outcome = match self.content.apply(submission, author) {
            Ok(outcome) => outcome,
            Err(Refusal::Status(status)) => return Err(status),
            Err(Refusal::Broken(what)) => {
                tracing::warn!(document = %self.record.id, what, "an operation was refused; loading the document afresh");
                self.retired = true;
                return Err(with_info(
                    Code::InvalidArgument,
                    format!("operation.data: {what}"),
                    "OPERATION_BROKEN",
                    &[],
                ));
            }
        };
        self.retired |= self.sessions.is_crowded();
        self.time = self.time.next(clock::now());
        self.sequence += 1;
        let operation = pb::Operation {
            id: submission.op_id.to_string(),
            data: outcome.data,
            encoding: pb::OperationEncoding::Json.into(),
            timestamp: Some(clock::timestamp(self.time.wall())),
            version,
            prev_version: version - 1,
            status: "applied".into(),
            ..submission.operation.clone()
        };
        self.record.version = version;
        self.record.updated_by.clone_from(&operation.user_id);
        self.record.updated_at = self.time.wall();
        let row = Arc::new(LogRow {
            operation,
            op_id: submission.op_id,
            session_id: submission.session_id,
            idempotency_key: submission.operation.idempotency_key.clone(),
            digest: submission.digest,
            time: self.time,
            sequence: self.sequence,
            update: outcome.update,
            sent: outcome.sent,
        });
        self.recent.insert(&row);
        self.unsnapshotted.0 += 1;
        self.unsnapshotted.1 += row.update.len().max(row.operation.data.len());
        self.unwritten.push(Arc::clone(&row));
        Ok(Arc::new(Published::operation(&row, &self.record.epoch)))
    }

    /// Sends what was applied to the disk.
    async fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let due = self.unsnapshotted.0 >= SNAPSHOT_OPERATIONS || self.unsnapshotted.1 >= SNAPSHOT_BYTES;
        let snapshot = (due && !self.retired).then(|| (self.record.version, self.content.snapshot()));
        if snapshot.is_some() {
            self.unsnapshotted = (0, 0);
        }
        let rows = std::mem::take(&mut self.unwritten);
        let write = Write::Append { doc_id: self.record.id, rows, snapshot, durable: self.durable.clone() };
        if let Err(error) = self.store.submit(write).await {
            self.durable.send_modify(|state| state.failed = Some(error));
        }
    }

    /// Answers and publishes, in order, what the disk no longer holds back.
    fn settle(&mut self, durable: &Durability) {
        while let Some(front) = self.waiting.front() {
            if let Waiting::Operation(published, _) = front
                && published.version() > durable.version
            {
                break;
            }
            match self.waiting.pop_front().expect("its front was just seen") {
                Waiting::Operation(published, reply) => {
                    counter!("statesync_operations_total").increment(1);
                    self.waiting_bytes -= published.bytes();
                    self.subscribers.publish(&published);
                    answer(reply, Ok(Applied::Now(published)));
                }
                Waiting::Repeated(version, reply) => answer(reply, Ok(Applied::Before(version))),
                Waiting::Read(document, reply) => answer(reply, Ok(document)),
                Waiting::Attach(attach, attached, events, reply) => {
                    self.subscribers.insert(attach, events);
                    answer(reply, Ok(attached));
                }
                Waiting::Event(event) => self.subscribers.publish(&event),
            }
        }
        if let Some(error) = &durable.failed {
            self.fail_waiting(error);
        }
    }

    fn fail_waiting(&mut self, error: &StoreError) {
        self.retired = true;
        for waiting in self.waiting.drain(..) {
            if let Waiting::Operation(_, reply) = waiting {
                answer(reply, Err(crate::status::of_store(error)));
            }
        }
    }

    fn attach(&mut self, attach: Attach, reply: Reply<Attached>) {
        let version = self.record.version;
        let can_replay = attach.resume.as_ref().is_some_and(|(epoch, have)| {
            *epoch == self.record.epoch && *have >= 1 && *have <= version && version - have <= REPLAY_MAX
        });
        let (mut document, mut snapshot) = (None, Bytes::new());
        if !can_replay {
            let typed = attach.want_updates && self.content.is_typed();
            if typed {
                snapshot = self.content.snapshot();
            }
            document = Some(self.document(if typed { Bytes::new() } else { self.content.bytes() }));
        }
        let (sender, events) = Subscribers::queue();
        let epoch = self.record.epoch.clone();
        let attached = Attached { epoch, version, sequence: self.sequence, document, snapshot, events };
        let joined = (!attach.again).then(|| attach.user_id.clone());
        self.waiting.push_back(Waiting::Attach(attach, attached, sender, reply));
        if let Some(user_id) = joined {
            self.announce("user_joined", &user_id);
        }
    }

    fn announce(&mut self, kind: &'static str, user_id: &str) {
        self.sequence += 1;
        let event = Published::presence(kind, user_id, (&self.record, self.sequence));
        self.waiting.push_back(Waiting::Event(Arc::new(event)));
    }

    fn document(&self, content: Bytes) -> pb::Document {
        self.record.to_proto(content, self.subscribers.users())
    }

    fn expire_held(&mut self) {
        for ((_, reply), due) in self.sessions.take_expired(Instant::now()) {
            let message = format!("operation {due} of this session did not arrive in time");
            let metadata = [("next_session_sequence", due.to_string())];
            answer(reply, Err(with_info(Code::FailedPrecondition, message, "EARLIER_OPERATION_MISSING", &metadata)));
        }
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, Status>) {
    // Whoever asked may have given up; what was done stays done.
    drop(reply.send(result));
}
