//! The documents in memory, and how to reach one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

use super::document::{Asked, Command, DocumentActor, Reply};
use super::store::DocumentStore;
use crate::auth::Asker;
use crate::clock::UnixMicros;
use crate::status::{not_found, of_store, with_info};
use crate::store::StoreError;
use crate::telemetry::{Origin, Step, scope};

/// Commands that wait for one document; when it is full, callers wait.
const COMMANDS: usize = 256;
/// Documents in memory at once.
const DOCUMENTS_MAX: usize = 10_000;
/// How often a command is sent again to a document that was just being unloaded.
pub(super) const ATTEMPTS: usize = 8;

/// How long a deleted document can be had back, unless somebody says otherwise.
pub(crate) const PURGE_DELETED_AFTER: Duration = Duration::from_hours(30 * 24);

/// How documents behave.
#[derive(Debug, Clone, Copy)]
pub struct DocumentOptions {
    /// How long a lock holds unless it is renewed.
    pub lock_timeout: Duration,
    /// How long a document that nobody uses stays in memory.
    pub idle_time: Duration,
    /// False: every conflict waits for somebody to decide it.
    pub auto_resolve_conflicts: bool,
    /// How many of its newest operations a document keeps at least, once a snapshot stands for the others; 0: all.
    pub retained_operations: u64,
    /// How long a deleted document can be had back before it is removed for good; zero: for ever.
    pub purge_deleted_after: Duration,
}

impl Default for DocumentOptions {
    fn default() -> Self {
        let (lock_timeout, idle_time) = (Duration::from_secs(30), Duration::from_mins(1));
        let purge_deleted_after = PURGE_DELETED_AFTER;
        Self { lock_timeout, idle_time, auto_resolve_conflicts: true, retained_operations: 0, purge_deleted_after }
    }
}

/// What all documents have in common.
pub(super) struct Shared {
    /// Where they are kept.
    pub(super) store: Arc<dyn DocumentStore>,
    /// How they behave.
    pub(super) options: DocumentOptions,
    /// Open subscriptions.
    pub(super) subscribers: AtomicU64,
}

/// Finds or starts the actor of a document.
pub(super) struct Registry {
    shared: Arc<Shared>,
    documents: Mutex<HashMap<Uuid, mpsc::Sender<Asked>>>,
    stop: CancellationToken,
}

impl Registry {
    /// No documents in memory. Streams end when `stop` is cancelled.
    pub(super) fn new(store: Arc<dyn DocumentStore>, options: DocumentOptions, stop: CancellationToken) -> Arc<Self> {
        let shared = Arc::new(Shared { store, options, subscribers: AtomicU64::new(0) });
        Arc::new(Self { shared, documents: Mutex::new(HashMap::new()), stop })
    }

    /// Where the documents are kept.
    pub(super) fn store(&self) -> &dyn DocumentStore {
        self.shared.store.as_ref()
    }

    /// How many subscriptions are open.
    pub(super) fn subscribers(&self) -> u64 {
        self.shared.subscribers.load(Ordering::Relaxed)
    }

    /// Ends the streams when cancelled.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Sends a command to a document for `asker` and waits for the answer.
    ///
    /// # Errors
    /// What the document answers; `NOT_FOUND` if there is none, or none that the asker may know of.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        id: Uuid,
        asker: &Asker,
        command: impl Fn(Reply<T>) -> Command,
    ) -> Result<T, Status> {
        let (mut step, origin) = Step::begin("document");
        step.note("aetherflow.document.id", || id.to_string());
        for _ in 0..ATTEMPTS {
            let (reply, answer) = Reply::channel(origin.clone());
            let command = command(reply);
            step.rename(|| format!("document {}", command.name()));
            let document = self.document(id, origin.as_ref())?;
            if document.send(Asked { asker: asker.clone(), command }).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
            // The actor has left, or is about to: its entry is gone or will be replaced.
            self.forget(id, &document);
        }
        Err(reloading())
    }

    /// Lets every document go; what they wrote is with the store.
    pub(super) fn close(&self) {
        self.lock().clear();
    }

    /// Tells a document, if it is in memory, that a subscriber is gone.
    pub(super) async fn leave(&self, id: Uuid, subscriber: Uuid) {
        // A document that is just leaving memory has no subscribers left to tell.
        self.tell(id, Command::Leave(subscriber)).await;
    }

    /// Removes for good what was deleted so long before `now` that nobody can have it back; gives how many documents.
    ///
    /// # Errors
    /// [`StoreError`]; what was not done is done the next time.
    pub(super) async fn purge(&self, now: UnixMicros) -> Result<usize, StoreError> {
        let after = self.shared.options.purge_deleted_after;
        if after.is_zero() {
            return Ok(0);
        }
        let before = UnixMicros(now.0.saturating_sub(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)));
        let mut removed = 0;
        loop {
            let step = self.store().purge(before).await?;
            removed += step.documents.len();
            for id in step.documents {
                self.tell(id, Command::Removed).await;
            }
            if !step.more || self.stop.is_cancelled() {
                return Ok(removed);
            }
        }
    }

    /// Sends a document something that needs no answer, if it is in memory.
    async fn tell(&self, id: Uuid, command: Command) {
        let document = self.lock().get(&id).cloned();
        if let Some(document) = document {
            // One that is just leaving memory need not know.
            let _ = document.send(Asked { asker: Asker::default(), command }).await;
        }
    }

    /// The document, loaded for `origin` if it is not in memory.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if it is not, and too many others are.
    pub(super) fn document(self: &Arc<Self>, id: Uuid, origin: Option<&Origin>) -> Result<mpsc::Sender<Asked>, Status> {
        let mut documents = self.lock();
        if let Some(document) = documents.get(&id)
            && !document.is_closed()
        {
            return Ok(document.clone());
        }
        if documents.len() >= DOCUMENTS_MAX {
            return Err(with_info(Code::ResourceExhausted, "too many documents are in use", "TOO_MANY_DOCUMENTS", &[]));
        }
        let (sender, commands) = mpsc::channel(COMMANDS);
        documents.insert(id, sender.clone());
        let load = scope(origin.cloned(), DocumentActor::load(Arc::clone(&self.shared), id));
        tokio::spawn(run(Arc::clone(self), id, (sender.downgrade(), commands), load));
        Ok(sender)
    }

    /// A document is no longer where commands were sent to it.
    pub(super) fn forget(&self, id: Uuid, document: &mpsc::Sender<Asked>) {
        let mut documents = self.lock();
        if documents.get(&id).is_some_and(|known| known.same_channel(document) && known.is_closed()) {
            documents.remove(&id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, mpsc::Sender<Asked>>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody is told who has found the document leaving memory again and again.
pub(super) fn reloading() -> Status {
    with_info(Code::Unavailable, "the document is being loaded; try again", "DOCUMENT_RELOADING", &[])
}

/// The life of one document in memory. The receiver is closed before the entry goes, so an actor that is loaded next can never
/// run beside this one: what reaches this one is dropped unseen, and asked again.
async fn run(
    registry: Arc<Registry>,
    id: Uuid,
    (sender, mut commands): (mpsc::WeakSender<Asked>, mpsc::Receiver<Asked>),
    load: impl Future<Output = Result<Option<DocumentActor>, StoreError>>,
) {
    match load.await {
        Ok(Some(actor)) => actor.run(&mut commands).await,
        Ok(None) => refuse(&mut commands, &not_found("document", &id.to_string())),
        Err(error) => refuse(&mut commands, &of_store(&error)),
    }
    commands.close();
    if let Some(sender) = sender.upgrade() {
        registry.forget(id, &sender);
    }
}

fn refuse(commands: &mut mpsc::Receiver<Asked>, status: &Status) {
    commands.close();
    while let Ok(asked) = commands.try_recv() {
        asked.command.refuse(status.clone());
    }
}
