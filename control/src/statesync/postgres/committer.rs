//! The writers: each commits everything that waits for it in one transaction, and heals its connection by itself.
//!
//! A document is always with the same writer, so its writes stay in order. While one group waits for the server's disk, the next one
//! gathers, and the other writers go on.
//!
//! A commit whose answer was lost may have been done or not. Before anything of it is tried again the server is asked, and the
//! guard of each write ([`super::group`]) keeps a transaction that is still under way there from being done beside its repetition.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::failure::Failure;
use super::group::Group;
use super::options::PostgresOptions;
use super::read;
use crate::statesync::write::Write;
use crate::store::{CommitterStats, StoreError};

/// Writes that wait for one writer; when it is full, senders wait too.
const QUEUE: usize = 4096;
/// The most writes and the most bytes in one transaction.
const GROUP_WRITES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 8 << 20;

/// The sending ends of the writers.
pub(super) struct Committer {
    queues: Vec<mpsc::Sender<Write>>,
    stats: Arc<CommitterStats>,
}

impl Committer {
    /// Starts `writers` of them; each connects when it has something to write. The task ends, with everything written, when this is
    /// gone.
    pub(super) fn start(options: &PostgresOptions, writers: usize) -> (Self, JoinHandle<()>) {
        let stats = Arc::new(CommitterStats::default());
        let (mut queues, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..writers {
            let (queue, waiting) = mpsc::channel(QUEUE);
            let writer = Writer {
                options: options.connect_options(options.statement_timeout),
                connect_timeout: options.connect_timeout,
                limit: options.statement_timeout,
                connection: None,
                stats: Arc::clone(&stats),
            };
            queues.push(queue);
            tasks.push(tokio::spawn(writer.run(waiting)));
        }
        let ended = tokio::spawn(async move { drop(futures_util::future::join_all(tasks).await) });
        (Self { queues, stats }, ended)
    }

    /// Queues a write; [`Write::finish`] is called when it is kept, or never will be.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if its writer is gone.
    pub(super) async fn submit(&self, write: Write) -> Result<(), StoreError> {
        let queue = &self.queues[self.place(write.doc_id())];
        queue.send(write).await.map_err(|_| StoreError::Closed)
    }

    /// The writer of a document. The last bits of an id are random.
    fn place(&self, doc_id: Uuid) -> usize {
        (doc_id.as_u128() % self.queues.len() as u128) as usize
    }

    /// Whether all writers still run.
    pub(super) fn is_running(&self) -> bool {
        self.queues.iter().all(|queue| !queue.is_closed())
    }

    /// What was committed so far.
    pub(super) fn stats(&self) -> &CommitterStats {
        &self.stats
    }
}

struct Writer {
    options: PgConnectOptions,
    connect_timeout: Duration,
    /// How long a transaction may take.
    limit: Duration,
    connection: Option<PgConnection>,
    stats: Arc<CommitterStats>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Write>) {
        while let Some(first) = waiting.recv().await {
            let mut bytes = first.size();
            let mut group = vec![first];
            while group.len() < GROUP_WRITES_MAX && bytes < GROUP_BYTES_MAX {
                let Ok(write) = waiting.try_recv() else { break };
                bytes += write.size();
                group.push(write);
            }
            self.commit(refuse_void(group)).await;
        }
    }

    /// Commits a group as a whole. If that fails for a reason that one write may be to blame for, or nobody knows whether it was
    /// done, its writes are looked at one by one.
    async fn commit(&mut self, group: Vec<Write>) {
        if group.is_empty() {
            return;
        }
        let mut asked = false;
        let mut outcome = self.attempt(&group, &mut asked).await;
        if matches!(outcome, Err(Failure::Lost(_))) && !asked {
            // A connection that was lost since the last group: nothing was done yet.
            outcome = self.attempt(&group, &mut asked).await;
        }
        match outcome {
            Ok(()) => {
                self.count(&group);
                for write in group {
                    write.finish(Ok(()));
                }
            }
            Err(failure @ Failure::Silent(_)) => fail_all(group, failure),
            Err(failure @ Failure::Lost(_)) if !asked => fail_all(group, failure),
            Err(failure) => {
                tracing::warn!(
                    ?failure,
                    writes = group.len(),
                    "a group commit failed; looking at its writes one by one"
                );
                self.settle_all(group, matches!(failure, Failure::Lost(_))).await;
            }
        }
    }

    /// Commits the writes of a group each by itself; `unknown` tells whether they may have been committed before.
    async fn settle_all(&mut self, group: Vec<Write>, unknown: bool) {
        let mut waiting = group.into_iter();
        while let Some(write) = waiting.next() {
            if is_void(&write) {
                write.finish(Err(after_failure()));
                continue;
            }
            match self.settle(&write, unknown).await {
                Ok(()) => {
                    self.count(std::slice::from_ref(&write));
                    write.finish(Ok(()));
                }
                Err(failure @ (Failure::Lost(_) | Failure::Silent(_))) => {
                    // The others would only wait for the same.
                    return fail_all(std::iter::once(write).chain(waiting).collect(), failure);
                }
                Err(failure) => {
                    let error = StoreError::from(failure);
                    tracing::error!(%error, "a write failed");
                    write.finish(Err(error));
                }
            }
        }
    }

    async fn settle(&mut self, write: &Write, unknown: bool) -> Result<(), Failure> {
        if unknown && self.is_kept(write).await? {
            return Ok(());
        }
        let outcome = self.attempt(std::slice::from_ref(write), &mut false).await;
        // What was under way may have been done in the meantime.
        if unknown && matches!(outcome, Err(Failure::Stale)) && self.is_kept(write).await? {
            return Ok(());
        }
        outcome
    }

    /// Whether a write that may have been committed is there.
    async fn is_kept(&mut self, write: &Write) -> Result<bool, Failure> {
        let limit = self.limit;
        let connection = self.connected().await?;
        let answer = tokio::time::timeout(limit, is_there(connection, write)).await;
        let answer = answer.unwrap_or(Err(Failure::Silent(limit)));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Commits `writes` in one transaction; `asked` becomes true once the server has been asked to commit.
    async fn attempt(&mut self, writes: &[Write], asked: &mut bool) -> Result<(), Failure> {
        let limit = self.limit;
        let connection = self.connected().await?;
        let outcome = tokio::time::timeout(limit, transact(connection, writes, asked)).await;
        let outcome = outcome.unwrap_or(Err(Failure::Silent(limit)));
        if matches!(outcome, Err(Failure::Lost(_) | Failure::Silent(_))) {
            // Dropped, it is closed; the server takes back what was not committed.
            self.connection = None;
        }
        outcome
    }

    /// The connection, made if there is none.
    async fn connected(&mut self) -> Result<&mut PgConnection, Failure> {
        if self.connection.is_none() {
            let connected = tokio::time::timeout(self.connect_timeout, self.options.connect()).await;
            let Ok(connected) = connected else { return Err(Failure::Silent(self.connect_timeout)) };
            let connection = connected.map_err(|error| Failure::Lost(format!("cannot connect: {error}")))?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    fn count(&self, writes: &[Write]) {
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats.operations.fetch_add(writes.iter().map(Write::count).sum(), Ordering::Relaxed);
    }
}

async fn transact(connection: &mut PgConnection, writes: &[Write], asked: &mut bool) -> Result<(), Failure> {
    let mut transaction = connection.begin().await?;
    if let Err(failure) = Group::of(writes).write(&mut transaction).await {
        // At once, so that it holds nobody up. On a connection that is lost there is nothing to take back.
        let _ = transaction.rollback().await;
        return Err(failure);
    }
    *asked = true;
    Ok(transaction.commit().await?)
}

/// One that makes no version is said not to be there: it may be done twice without harm.
async fn is_there(connection: &mut PgConnection, write: &Write) -> Result<bool, Failure> {
    match write {
        Write::Create(record, _) => read::exists(connection, record.id).await,
        Write::Batch(batch) => {
            let Some(last) = batch.rows.last() else { return Ok(false) };
            let found = read::operation_id(connection, batch.doc_id, last.operation.version).await?;
            Ok(found == Some(last.op_id))
        }
    }
}

fn is_void(write: &Write) -> bool {
    matches!(write, Write::Batch(batch) if batch.is_void())
}

fn after_failure() -> StoreError {
    StoreError::Failed("an earlier write of the document failed".to_owned())
}

/// Leaves out what follows a failed write of its document: its document is loaded afresh.
fn refuse_void(group: Vec<Write>) -> Vec<Write> {
    let (void, kept): (Vec<_>, Vec<_>) = group.into_iter().partition(is_void);
    for write in void {
        write.finish(Err(after_failure()));
    }
    kept
}

fn fail_all(group: Vec<Write>, failure: Failure) {
    let error = StoreError::from(failure);
    tracing::error!(%error, writes = group.len(), "writes failed");
    for write in group {
        write.finish(Err(error.clone()));
    }
}
