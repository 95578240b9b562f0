//! Events and those who read them.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use metrics::gauge;
use prost::Message;
use proto::statesync as pb;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use super::document::{Attach, Command, Place};
use super::events::Event;
use super::model::{DocumentRecord, LockRecord, LogRow};
use super::registry::{Registry, Shared};
use crate::clock;
use crate::status::{of_store, with_info};

/// Events, and bytes in them, that wait for one subscriber; with more the subscriber has lagged.
const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 4 << 20;

/// An event as the document gives it to its subscribers, which share it.
#[derive(Debug)]
pub(super) struct Published {
    event: pb::OperationEvent,
    update: Bytes,
    /// As it is sent: without its Yjs update, and with it.
    encoded: [OnceLock<Vec<u8>>; 2],
}

impl Published {
    fn new(event: pb::OperationEvent, update: Bytes) -> Self {
        Self { event, update, encoded: Default::default() }
    }

    /// The event of an accepted operation.
    pub(super) fn operation(row: &LogRow, epoch: &str) -> Self {
        let event = pb::OperationEvent {
            id: row.operation.id.clone(),
            r#type: "operation_applied".into(),
            doc_id: row.operation.doc_id.clone(),
            user_id: row.operation.user_id.clone(),
            timestamp: row.operation.timestamp,
            sequence: row.sequence,
            epoch: epoch.to_owned(),
            version: row.operation.version,
            operation: Some(row.operation.clone()),
            ..Default::default()
        };
        Self::new(event, row.update.clone())
    }

    /// Somebody came or went.
    pub(super) fn presence(kind: &str, attach: &Attach, at: (&DocumentRecord, Place)) -> Self {
        let mut event = event_at(kind, at);
        event.user_id.clone_from(&attach.user_id);
        event.data.insert("subscriber_id".into(), attach.subscriber.to_string());
        if !attach.session_id.is_empty() {
            event.data.insert("session_id".into(), attach.session_id.clone());
        }
        Self::new(event, Bytes::new())
    }

    /// The lock was taken or freed.
    pub(super) fn lock(kind: &str, lock: &LockRecord, at: (&DocumentRecord, Place)) -> Self {
        let mut event = event_at(kind, at);
        event.user_id.clone_from(&lock.user_id);
        event.data.insert("lock_id".into(), lock.id.to_string());
        event.data.insert("fencing".into(), lock.fencing.to_string());
        if lock.expires_at.0 > 0 {
            event.data.insert("expires_at_unix_ms".into(), (lock.expires_at.0 / 1000).to_string());
        }
        Self::new(event, Bytes::new())
    }

    /// A conflict was found or decided.
    pub(super) fn conflict(kind: &str, conflict: pb::Conflict, at: (&DocumentRecord, Place)) -> Self {
        let mut event = event_at(kind, at);
        if let Some(operation) = conflict.ops.last() {
            event.user_id.clone_from(&operation.user_id);
        }
        event.conflict = Some(conflict);
        Self::new(event, Bytes::new())
    }

    /// The document changed in a way that operations do not tell. `state` is its Yjs state, if anybody wants it, and its epoch.
    pub(super) fn whole(row: &LogRow, document: pb::Document, state: (Bytes, &str)) -> Self {
        let Self { mut event, .. } = Self::operation(row, state.1);
        event.r#type = "document_updated".into();
        event.operation = None;
        event.document = Some(document);
        event.snapshot = state.0;
        Self::new(event, Bytes::new())
    }

    /// Whether it leads from one version to the next, or to a version as a whole.
    fn makes_version(&self) -> bool {
        self.event.operation.is_some() || self.event.document.is_some()
    }

    /// The document's version after it.
    pub(super) fn version(&self) -> u64 {
        self.event.version
    }

    /// Roughly the memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let data = self.event.operation.as_ref().map_or(0, |operation| operation.data.len());
        let content = self.event.document.as_ref().map_or(0, |document| document.content.len());
        512 + self.update.len() + data + content + self.event.snapshot.len()
    }

    /// The operation in it, if it is of one.
    pub(super) fn applied_operation(&self) -> Option<&pb::Operation> {
        self.event.operation.as_ref()
    }

    /// As whoever wants Yjs updates gets it, or anybody else.
    pub(super) fn encoded(&self, want_updates: bool) -> &[u8] {
        self.encoded[usize::from(want_updates)].get_or_init(|| self.to_event(want_updates).encode_to_vec())
    }

    fn to_event(&self, want_updates: bool) -> pb::OperationEvent {
        let mut event = self.event.clone();
        if !want_updates {
            event.snapshot = Bytes::new();
        } else if event.snapshot.is_empty() {
            event.update = self.update.clone();
        } else if let Some(document) = &mut event.document {
            document.content = Bytes::new();
        }
        event
    }
}

fn event_at(kind: &str, at: (&DocumentRecord, Place)) -> pb::OperationEvent {
    let (record, place) = at;
    pb::OperationEvent {
        id: Uuid::now_v7().to_string(),
        r#type: kind.to_owned(),
        doc_id: record.id.to_string(),
        timestamp: Some(clock::timestamp(clock::now())),
        sequence: place.sequence,
        epoch: record.epoch.clone(),
        version: place.version,
        ..Default::default()
    }
}

/// Where a subscriber starts.
#[derive(Debug)]
pub(super) struct Attached {
    /// The version line.
    pub epoch: String,
    /// The version that the first of `events` follows.
    pub version: u64,
    /// The number of the event before the first of `events`.
    pub sequence: u64,
    /// The state, unless the log has everything the subscriber misses.
    pub document: Option<pb::Document>,
    /// The state as a Yjs update, if wanted.
    pub snapshot: Bytes,
    /// What happens from then on. It ends when the subscriber has lagged.
    pub events: EventReceiver,
}

/// The sending end of a subscriber's queue, which knows how much is in it.
#[derive(Debug)]
pub(super) struct EventSender {
    queue: mpsc::Sender<Arc<Published>>,
    bytes: Arc<AtomicUsize>,
}

impl EventSender {
    /// Queues an event if there is room; one event fits an empty queue, however large it is.
    fn send(&self, event: &Arc<Published>) -> bool {
        if self.bytes.load(Ordering::Relaxed) > QUEUE_BYTES {
            return false;
        }
        self.bytes.fetch_add(event.bytes(), Ordering::Relaxed);
        self.queue.try_send(Arc::clone(event)).is_ok()
    }
}

/// The receiving end of a subscriber's queue.
#[derive(Debug)]
pub(super) struct EventReceiver {
    queue: mpsc::Receiver<Arc<Published>>,
    bytes: Arc<AtomicUsize>,
}

impl EventReceiver {
    async fn recv(&mut self) -> Option<Arc<Published>> {
        let event = self.queue.recv().await?;
        self.bytes.fetch_sub(event.bytes(), Ordering::Relaxed);
        Some(event)
    }
}

struct Subscriber {
    attach: Attach,
    /// None while the subscriber lags.
    events: Option<EventSender>,
}

/// The subscribers of one document.
pub(super) struct Subscribers {
    subscribers: HashMap<Uuid, Subscriber>,
    shared: Arc<Shared>,
}

impl Subscribers {
    /// None yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { subscribers: HashMap::new(), shared }
    }

    /// A queue for one subscriber.
    pub(super) fn queue() -> (EventSender, EventReceiver) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let bytes = Arc::new(AtomicUsize::new(0));
        (EventSender { queue: sender, bytes: Arc::clone(&bytes) }, EventReceiver { queue: receiver, bytes })
    }

    /// Adds a subscriber, or gives one that lagged a queue again.
    pub(super) fn insert(&mut self, attach: Attach, events: EventSender) {
        let id = attach.subscriber;
        let subscriber = Subscriber { attach, events: Some(events) };
        if self.subscribers.insert(id, subscriber).is_none() {
            self.shared.subscribers.fetch_add(1, Ordering::Relaxed);
            gauge!("statesync_subscribers_active").increment(1);
        }
    }

    /// Takes their queues from those of whom `may_stay` says no: when they ask for more, they are told.
    pub(super) fn cut_off(&mut self, may_stay: impl Fn(&Attach) -> bool) {
        for subscriber in self.subscribers.values_mut().filter(|subscriber| !may_stay(&subscriber.attach)) {
            subscriber.events = None;
        }
    }

    /// Removes a subscriber and says what it was.
    pub(super) fn remove(&mut self, subscriber: Uuid) -> Option<Attach> {
        let removed = self.subscribers.remove(&subscriber)?;
        self.shared.subscribers.fetch_sub(1, Ordering::Relaxed);
        gauge!("statesync_subscribers_active").decrement(1);
        Some(removed.attach)
    }

    /// One subscriber.
    pub(super) fn get(&self, subscriber: Uuid) -> Option<&Attach> {
        self.subscribers.get(&subscriber).map(|subscriber| &subscriber.attach)
    }

    /// Whether a user has a stream open.
    pub(super) fn has_user(&self, user_id: &str) -> bool {
        self.subscribers.values().any(|subscriber| subscriber.attach.user_id == user_id)
    }

    /// Whether anybody wants Yjs states.
    pub(super) fn want_updates(&self) -> bool {
        self.subscribers.values().any(|subscriber| subscriber.attach.want_updates)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// The users, each once.
    pub(super) fn users(&self) -> Vec<String> {
        let mut users: Vec<String> =
            self.subscribers.values().map(|subscriber| subscriber.attach.user_id.clone()).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Gives an event to every subscriber and waits for none.
    pub(super) fn publish(&mut self, event: &Arc<Published>) {
        for subscriber in self.subscribers.values_mut() {
            let Some(events) = &subscriber.events else { continue };
            if !events.send(event) {
                subscriber.events = None;
            }
        }
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.shared.subscribers.fetch_sub(self.subscribers.len() as u64, Ordering::Relaxed);
        gauge!("statesync_subscribers_active").decrement(self.subscribers.len() as f64);
    }
}

/// Tells the document when the stream ends, however it ends.
struct LeaveGuard {
    registry: Arc<Registry>,
    doc_id: Uuid,
    subscriber: Uuid,
}

impl Drop for LeaveGuard {
    fn drop(&mut self) {
        let (registry, doc_id, subscriber) = (Arc::clone(&self.registry), self.doc_id, self.subscriber);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { registry.leave(doc_id, subscriber).await });
        }
    }
}

/// What one subscriber reads.
pub(super) struct Subscription {
    doc_id: Uuid,
    attach: Attach,
    registry: Arc<Registry>,
    stop: CancellationToken,
    attached: Attached,
    /// The version of the last event given out.
    version: u64,
    replay: VecDeque<pb::OperationEvent>,
    _leave: LeaveGuard,
}

impl Subscription {
    /// Subscribes; the first event is the welcome.
    ///
    /// # Errors
    /// The status that ends the call.
    pub(super) async fn start(
        registry: Arc<Registry>,
        doc_id: Uuid,
        attach: Attach,
    ) -> Result<(Self, pb::OperationEvent), Status> {
        // The guard is there first: a call that is given up while it subscribes leaves nobody behind.
        let leave = LeaveGuard { registry: Arc::clone(&registry), doc_id, subscriber: attach.subscriber };
        let attached = registry.ask(doc_id, &attach.asker, |reply| Command::Attach(attach.clone(), reply)).await?;
        let stop = registry.stop_token();
        let mut subscription =
            Self { doc_id, attach, registry, stop, attached, version: 0, replay: VecDeque::new(), _leave: leave };
        let welcome = subscription.starting_event(false);
        Ok((subscription, welcome))
    }

    /// The next event; none once the subscription was ended by its user.
    ///
    /// # Errors
    /// The status that ends the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Status> {
        loop {
            if let Some(event) = self.next_missed().await? {
                return Ok(Some(Event::Own(Box::new(event))));
            }
            let event = tokio::select! {
                // A stream that has much to read sees the end of the server when it has read it.
                biased;
                event = self.attached.events.recv() => event,
                () = self.stop.cancelled() => return Err(stopping()),
            };
            let Some(event) = event else {
                if self.attach.ended.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                return self.catch_up().await.map(|event| Some(Event::Own(Box::new(event))));
            };
            // The replay or the state had it already.
            if event.makes_version() && event.version() <= self.version {
                continue;
            }
            self.version = event.version().max(self.version);
            return Ok(Some(Event::Shared(event, self.attach.want_updates)));
        }
    }

    /// The next operation between what the subscriber has and where its queue starts.
    async fn next_missed(&mut self) -> Result<Option<pb::OperationEvent>, Status> {
        if self.version >= self.attached.version {
            return Ok(None);
        }
        if self.replay.is_empty() {
            let rows = self
                .registry
                .store()
                .operations_after(self.doc_id, self.version)
                .await
                .map_err(|error| of_store(&error))?;
            if rows.first().is_none_or(|row| row.operation.version != self.version + 1) {
                // The log was cut behind a snapshot: only the state leads on.
                return self.start_over().await.map(Some);
            }
            let epoch = &self.attached.epoch;
            let events = rows.into_iter().filter(|row| row.operation.version <= self.attached.version);
            self.replay =
                events.map(|row| Published::operation(&row, epoch).to_event(self.attach.want_updates)).collect();
        }
        let Some(event) = self.replay.pop_front() else {
            return Err(with_info(Code::DataLoss, "the log has a gap; subscribe afresh", "LOG_GAP", &[]));
        };
        self.version = event.version;
        Ok(Some(event))
    }

    /// From where the subscriber is.
    async fn catch_up(&mut self) -> Result<pb::OperationEvent, Status> {
        self.attach_again(Some((self.attached.epoch.clone(), self.version))).await
    }

    /// From the state.
    async fn start_over(&mut self) -> Result<pb::OperationEvent, Status> {
        self.attach_again(None).await
    }

    async fn attach_again(&mut self, resume: Option<(String, u64)>) -> Result<pb::OperationEvent, Status> {
        self.attach = Attach { resume, again: true, ..self.attach.clone() };
        let attach = self.attach.clone();
        self.replay.clear();
        let asked = self.registry.ask(self.doc_id, &attach.asker, |reply| Command::Attach(attach.clone(), reply));
        self.attached = tokio::select! {
            attached = asked => attached?,
            () = self.stop.cancelled() => return Err(stopping()),
        };
        Ok(self.starting_event(true))
    }

    /// The event that says where the stream stands, with the state if operations alone do not lead there.
    fn starting_event(&mut self, lagged: bool) -> pb::OperationEvent {
        let document = self.attached.document.take();
        let have = self.attach.resume.as_ref().map_or(0, |(_, version)| *version);
        self.version = if document.is_some() { self.attached.version } else { have };
        pb::OperationEvent {
            id: self.attach.subscriber.to_string(),
            r#type: if lagged { "document_updated".into() } else { "user_joined".into() },
            doc_id: self.doc_id.to_string(),
            user_id: self.attach.user_id.clone(),
            document,
            timestamp: Some(clock::timestamp(clock::now())),
            sequence: self.attached.sequence,
            epoch: self.attached.epoch.clone(),
            version: self.version,
            snapshot: std::mem::take(&mut self.attached.snapshot),
            lagged,
            ..Default::default()
        }
    }
}

fn stopping() -> Status {
    with_info(
        Code::Unavailable,
        "the server is shutting down; subscribe again with the last epoch and version",
        "STOPPING",
        &[],
    )
}
