//! The actor of one document: the only owner of its version, content, description, lock, writers and subscribers.
//!
//! A change is made in memory at once and queued for the store; its answer and its event wait in one line until its group is
//! kept. Reads and subscriptions stand in the same line, so nobody is shown what a crash could still take back.
//!
//! Reading order: this file is the life of the actor; [`apply`] takes operations; [`describe`] changes name, state and metadata;
//! [`conflict`]
//! keeps what could not be merged; [`lock`] is the lock; [`attach`] is who listens; [`load`] brings a document into memory.

mod apply;
mod attach;
mod conflict;
mod describe;
mod load;
mod lock;
mod recent;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use proto::statesync as pb;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use super::content::Content;
use super::model::{ConflictRecord, DocumentRecord, LockRecord, LogRow, Snapshot, Submission};
use super::order::Sessions;
use super::permission;
use super::registry::Shared;
use super::store::{Batch, Durability};
use super::subscription::{Attached, EventSender, Published, Subscribers};
use crate::auth::Asker;
use crate::clock::HybridTime;
use crate::store::StoreError;
use crate::telemetry::{Origin, scope};
use conflict::Conflicts;
use recent::Recent;
use reply::answer;

pub(super) use attach::Attach;
pub(super) use conflict::{Choice, Resolution, Resolved};
pub(super) use lock::LockRequest;
pub(super) use reply::Reply;

/// Operations that wait for the disk; beyond it the document takes no more commands until some are there.
const WAITING_MAX: usize = 8192;
/// The same in bytes of operations.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Commands handled before what they wrote is sent to the disk.
const BATCH_MAX: usize = 256;
/// A snapshot is kept after so many operations or bytes of updates, which bounds the work of loading.
const SNAPSHOT_OPERATIONS: u64 = 1000;
const SNAPSHOT_BYTES: usize = 512 << 10;

/// What the service asks of a document. A reply that is dropped means: ask again, the document is being loaded afresh.
pub(super) enum Command {
    /// Apply an operation.
    Apply(Arc<Submission>, Reply<Applied>),
    /// Read the document.
    Read(Reply<pb::Document>),
    /// Change name, state, metadata or content.
    Update(Arc<pb::Document>, Reply<()>),
    /// Set the state to "deleted", for this user.
    Delete(String, Reply<()>),
    /// Take or renew the lock.
    Lock(LockRequest, Reply<Result<pb::Lock, String>>),
    /// Release the lock of this user.
    Unlock(String, Reply<()>),
    /// Decide a conflict.
    Resolve(Arc<Resolution>, Reply<Resolved>),
    /// The lock that holds.
    LockState(Reply<Option<pb::Lock>>),
    /// Subscribe, or catch up after lagging.
    Attach(Attach, Reply<Attached>),
    /// A subscriber is gone.
    Leave(Uuid),
    /// The store has the document no longer.
    Removed,
    /// End the stream of a subscriber, for this user.
    Unsubscribe(Uuid, String, Reply<()>),
}

/// A command and who asks for it.
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) command: Command,
}

impl Command {
    /// Answers with an error.
    pub(super) fn refuse(self, status: Status) {
        match self {
            Command::Apply(_, reply) => answer(reply, Err(status)),
            Command::Read(reply) => answer(reply, Err(status)),
            Command::Update(_, reply) | Command::Delete(_, reply) | Command::Unlock(_, reply) => {
                answer(reply, Err(status));
            }
            Command::Lock(_, reply) => answer(reply, Err(status)),
            Command::Resolve(_, reply) => answer(reply, Err(status)),
            Command::LockState(reply) => answer(reply, Err(status)),
            Command::Attach(_, reply) => answer(reply, Err(status)),
            Command::Unsubscribe(_, _, reply) => answer(reply, Err(status)),
            Command::Leave(_) | Command::Removed => {}
        }
    }

    /// Its name in traces.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Command::Apply(..) => "apply",
            Command::Read(_) => "read",
            Command::Update(..) => "update",
            Command::Delete(..) => "delete",
            Command::Lock(..) => "lock",
            Command::Unlock(..) => "unlock",
            Command::Resolve(..) => "resolve",
            Command::LockState(_) => "lock state",
            Command::Attach(..) => "attach",
            Command::Leave(_) => "leave",
            Command::Removed => "removed",
            Command::Unsubscribe(..) => "unsubscribe",
        }
    }

    /// Who waits for the answer.
    fn origin(&self) -> Option<&Origin> {
        match self {
            Command::Apply(_, reply) => reply.origin(),
            Command::Read(reply) => reply.origin(),
            Command::Update(_, reply)
            | Command::Delete(_, reply)
            | Command::Unlock(_, reply)
            | Command::Unsubscribe(_, _, reply) => reply.origin(),
            Command::Lock(_, reply) => reply.origin(),
            Command::Resolve(_, reply) => reply.origin(),
            Command::LockState(reply) => reply.origin(),
            Command::Attach(_, reply) => reply.origin(),
            Command::Leave(_) | Command::Removed => None,
        }
    }
}

/// How an operation was accepted.
pub(super) enum Applied {
    /// Just now.
    Now(Arc<Published>),
    /// Earlier, as this version.
    Before(u64),
    /// Not yet: it waits, or waited, in this conflict.
    Waits(Box<ConflictRecord>),
}

/// What is done once everything before it is kept.
enum Waiting {
    Operation(Arc<Published>, Reply<Applied>),
    Event(Arc<Published>),
    Attach(Box<(Attach, Attached)>, EventSender, Reply<Attached>),
    Leave(Uuid, Place),
    Answer(Box<dyn FnOnce() + Send + Sync>),
}

/// Where an event stands: the document's version after it, and its own number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) version: u64,
    pub(super) sequence: u64,
}

/// What was changed in memory and not yet sent to the store.
#[derive(Default)]
struct Unwritten {
    rows: Vec<Arc<LogRow>>,
    described: bool,
    lock: bool,
    conflicts: Vec<ConflictRecord>,
    /// Whether the content has to be kept as a whole, because operations do not lead to it.
    snapshot: bool,
    /// Those of traced calls who changed it.
    origins: Vec<Origin>,
}

impl Unwritten {
    fn is_empty(&self) -> bool {
        self.size() == (0, 0, [false; 3])
    }

    /// Tells whether something was added.
    fn size(&self) -> (usize, usize, [bool; 3]) {
        (self.rows.len(), self.conflicts.len(), [self.described, self.lock, self.snapshot])
    }

    /// Counts an RPC among those that change it; without a change, [`Self::call_off`] takes it back.
    fn call_on(&mut self, origin: Option<&Origin>) -> usize {
        let before = self.origins.len();
        self.origins.extend(origin.filter(|origin| origin.is_traced()).cloned());
        before
    }

    /// Takes RPCs back, up to those there were.
    fn call_off(&mut self, before: usize) {
        self.origins.truncate(before);
    }
}

/// One document in memory.
pub(super) struct DocumentActor {
    record: DocumentRecord,
    content: Content,
    shared: Arc<Shared>,
    sessions: Sessions<(Arc<Submission>, Reply<Applied>)>,
    recent: Recent,
    subscribers: Subscribers,
    conflicts: Conflicts,
    line: Line,
    unwritten: Unwritten,
    unsnapshotted: (u64, usize),
    time: HybridTime,
    sequence: u64,
    /// Whether the end of the lock is still to be told.
    lock_announced: bool,
    /// Set when memory and store may differ: what waits is finished, then the document is loaded afresh.
    retired: bool,
}

/// What waits for the store.
struct Line {
    waiting: VecDeque<(u64, Waiting)>,
    bytes: usize,
    /// Of the batch that is being filled.
    ticket: u64,
    durable: watch::Sender<Durability>,
}

impl Line {
    fn new() -> Self {
        let durable = watch::Sender::new(Durability::default());
        Self { waiting: VecDeque::new(), bytes: 0, ticket: 0, durable }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX && self.bytes < WAITING_BYTES_MAX
    }

    /// Lines up what has to wait for everything that was changed so far; `dirty` tells whether some of it is not yet sent.
    fn push(&mut self, waiting: Waiting, dirty: bool) {
        if let Waiting::Operation(published, _) = &waiting {
            self.bytes += published.bytes();
        }
        self.waiting.push_back((self.ticket + u64::from(dirty), waiting));
    }

    fn pop(&mut self, durable: u64) -> Option<Waiting> {
        let (_, waiting) = self.waiting.pop_front_if(|(ticket, _)| *ticket <= durable)?;
        if let Waiting::Operation(published, _) = &waiting {
            self.bytes -= published.bytes();
        }
        Some(waiting)
    }
}

/// The server's own Yjs client id in a document, the same after a restart.
pub(super) fn yjs_client(doc_id: Uuid) -> u64 {
    u64::from(doc_id.as_u128() as u32 >> 1)
}

impl DocumentActor {
    /// Serves commands until the document is idle, has to be loaded afresh, or nobody can reach it any more.
    pub(super) async fn run(mut self, commands: &mut mpsc::Receiver<Asked>) {
        let mut durable = self.line.durable.subscribe();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut used = Instant::now();
        let idle = self.shared.options.idle_time;
        loop {
            tokio::select! {
                biased;
                _ = durable.changed() => self.settle(&durable.borrow_and_update().clone()),
                command = commands.recv(), if self.takes_commands() => {
                    let Some(command) = command else { break };
                    used = Instant::now();
                    self.handle_batch(command, commands).await;
                }
                _ = tick.tick() => self.expire().await,
            }
            let unused = self.subscribers.is_empty() && !self.sessions.is_holding() && used.elapsed() > idle;
            if self.line.waiting.is_empty() && (self.retired || unused) {
                break;
            }
        }
    }

    fn takes_commands(&self) -> bool {
        !self.retired && self.line.has_room()
    }

    async fn handle_batch(&mut self, first: Asked, commands: &mut mpsc::Receiver<Asked>) {
        self.admit(first).await;
        for _ in 1..BATCH_MAX {
            if !self.takes_commands() {
                break;
            }
            let Ok(asked) = commands.try_recv() else { break };
            self.admit(asked).await;
        }
        self.flush().await;
    }

    async fn flush(&mut self) {
        self.write().await;
        let durable = self.line.durable.borrow().clone();
        self.settle(&durable);
    }

    /// What time alone does.
    async fn expire(&mut self) {
        self.expire_held();
        self.expire_lock();
        self.flush().await;
    }

    /// Does what its asker may ask for.
    async fn admit(&mut self, asked: Asked) {
        let Asked { asker, command } = asked;
        match permission::permits(&self.record, &asker, permission::asked(&command, &self.record)) {
            Ok(()) => self.handle(command).await,
            Err(status) => command.refuse(status),
        }
    }

    /// Does what is asked, for whom it is asked.
    async fn handle(&mut self, command: Command) {
        let origin = command.origin().cloned();
        // Operations may be taken with others that waited for them, each for its own RPC.
        let changes = origin.as_ref().filter(|_| !matches!(command, Command::Apply(..)));
        let (size, before) = (self.unwritten.size(), self.unwritten.call_on(changes));
        scope(origin, self.obey(command)).await;
        if self.unwritten.size() == size {
            self.unwritten.call_off(before);
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(submission, reply) => self.submit(submission, reply).await,
            Command::Read(reply) => {
                let document = self.document(self.content.bytes());
                self.answer_later(reply, document);
            }
            Command::Update(document, reply) => {
                self.update(&document, reply);
                self.write_whole().await;
            }
            Command::Resolve(resolution, reply) => self.resolve(&resolution, reply).await,
            Command::Delete(user_id, reply) => self.delete(user_id, reply),
            Command::Lock(request, reply) => self.lock(request, reply),
            Command::Unlock(user_id, reply) => self.unlock(&user_id, reply),
            Command::LockState(reply) => {
                let lock = self.lock_held().map(|lock| lock.to_proto(self.record.id, crate::clock::now()));
                self.answer_later(reply, lock);
            }
            Command::Attach(attach, reply) => self.attach(attach, reply),
            Command::Leave(subscriber) => self.leave(subscriber),
            // Whoever asks for it next is told that there is none.
            Command::Removed => self.retired = true,
            Command::Unsubscribe(subscriber, user_id, reply) => self.unsubscribe(subscriber, &user_id, reply),
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        self.line.push(waiting, !self.unwritten.is_empty());
    }

    /// Answers once everything up to now is kept. If that fails, the reply is dropped.
    fn answer_later<T: Send + Sync + 'static>(&mut self, reply: Reply<T>, result: T) {
        self.wait(Waiting::Answer(Box::new(move || answer(reply, Ok(result)))));
    }

    /// Publishes an event once everything up to now is kept.
    fn publish_later(&mut self, event: impl FnOnce(&DocumentRecord, Place) -> Published) {
        let place = self.next_place();
        let event = Arc::new(event(&self.record, place));
        self.wait(Waiting::Event(event));
    }

    fn next_place(&mut self) -> Place {
        self.sequence += 1;
        Place { version: self.record.version, sequence: self.sequence }
    }

    /// Sends what was changed to the store if it has to be kept as a whole: operations before and after it are of different kinds, so
    /// none may be between it and the snapshot.
    async fn write_whole(&mut self) {
        if self.unwritten.snapshot {
            self.write().await;
        }
    }

    /// Sends what was changed to the store.
    async fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let unwritten = std::mem::take(&mut self.unwritten);
        let due = self.unsnapshotted.0 >= SNAPSHOT_OPERATIONS || self.unsnapshotted.1 >= SNAPSHOT_BYTES;
        let snapshot = (due && !self.retired || unwritten.snapshot).then(|| self.snapshot());
        if snapshot.is_some() {
            self.unsnapshotted = (0, 0);
        }
        let trim = snapshot.as_ref().and_then(|snapshot| self.trim(snapshot));
        self.line.ticket += 1;
        let batch = Batch {
            doc_id: self.record.id,
            rows: unwritten.rows,
            described: unwritten.described.then(|| Box::new(self.record.clone())),
            lock: self.record.lock.clone().filter(|_| unwritten.lock),
            conflicts: unwritten.conflicts,
            snapshot,
            trim,
            ticket: self.line.ticket,
            durable: self.line.durable.clone(),
            origins: unwritten.origins,
            timer: None,
        };
        if let Err(error) = self.shared.store.submit(batch).await {
            self.line.durable.send_modify(|state| state.failed = Some(error));
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        Snapshot { version: self.record.version, typed: self.content.is_typed(), state: self.content.snapshot() }
    }

    /// The operations that need not be kept beside a snapshot, by the newest of them.
    fn trim(&self, snapshot: &Snapshot) -> Option<u64> {
        let retained = self.shared.options.retained_operations;
        let newest = snapshot.version.checked_sub(retained)?;
        // Version 1 is the creation, which is no row.
        (retained > 0 && newest > 1).then_some(newest)
    }

    /// Answers and publishes, in order, what the store no longer holds back.
    fn settle(&mut self, durable: &Durability) {
        while let Some(waiting) = self.line.pop(durable.ticket) {
            match waiting {
                Waiting::Operation(published, reply) => {
                    counter!("statesync_operations_total").increment(1);
                    self.subscribers.publish(&published);
                    answer(reply, Ok(Applied::Now(published)));
                }
                Waiting::Event(event) => self.subscribers.publish(&event),
                Waiting::Attach(attached, events, reply) => self.settle_attach(*attached, events, reply),
                Waiting::Leave(subscriber, place) => self.settle_leave(subscriber, place),
                Waiting::Answer(answer) => answer(),
            }
        }
        if let Some(error) = &durable.failed {
            self.fail_waiting(error);
        }
    }

    fn fail_waiting(&mut self, error: &StoreError) {
        self.retired = true;
        self.line.bytes = 0;
        for (_, waiting) in self.line.waiting.drain(..) {
            if let Waiting::Operation(_, reply) = waiting {
                answer(reply, Err(crate::status::of_store(error)));
            }
        }
    }

    fn document(&self, content: Bytes) -> pb::Document {
        self.record.to_proto(content, self.subscribers.users())
    }
}
