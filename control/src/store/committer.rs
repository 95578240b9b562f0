//! One writer per database, which commits everything that is waiting in one transaction.
//!
//! While one commit waits for the disk, the next group gathers; so the disk is synced once per group, not once per write, and
//! nobody waits for a timer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Database, StoreError};

/// Writes that wait; when it is full, senders wait too.
const QUEUE: usize = 4096;
/// The most writes and the most bytes in one transaction.
const GROUP_WRITES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Probes that wait; when it is full, who sends one waits too.
const PROBES: usize = 1;

/// Who wants to know whether the database takes writes.
type Asker = oneshot::Sender<Result<(), StoreError>>;

/// A write that can share a transaction with others.
pub trait GroupWrite: Send + Sync + 'static {
    /// What the write found or made.
    type Output: Send;
    /// Roughly how many bytes it writes.
    fn bytes(&self) -> usize;
    /// How many operations of clients it stands for.
    fn operations(&self) -> u64;
    /// Does the write inside the transaction that `connection` has open.
    fn write<'a>(
        &'a self,
        connection: &'a mut SqliteConnection,
    ) -> impl Future<Output = Result<Self::Output, sqlx::Error>> + Send + 'a;
    /// Does the writes of a group inside that transaction, as if one after the other.
    fn write_group<'a>(
        group: &'a [Self],
        connection: &'a mut SqliteConnection,
    ) -> impl Future<Output = Result<Vec<Self::Output>, sqlx::Error>> + Send + 'a
    where
        Self: Sized,
    {
        async move {
            let mut outputs = Vec::with_capacity(group.len());
            for write in group {
                outputs.push(write.write(connection).await?);
            }
            Ok(outputs)
        }
    }
    /// Is called once it is on disk, or never will be.
    fn done(self, result: Result<Self::Output, StoreError>);
}

/// Counts what the committer did.
#[derive(Debug, Default)]
pub struct CommitterStats {
    /// Transactions committed, each with one sync of the log.
    pub commits: AtomicU64,
    /// Operations in them.
    pub operations: AtomicU64,
}

/// The sending end of a database's writer.
#[derive(Debug)]
pub struct Committer<W> {
    queue: mpsc::Sender<W>,
    probes: mpsc::Sender<Asker>,
    stats: Arc<CommitterStats>,
}

impl<W> Clone for Committer<W> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), probes: self.probes.clone(), stats: Arc::clone(&self.stats) }
    }
}

impl<W: GroupWrite> Committer<W> {
    /// Starts the writer of `database`. The task ends, with everything written, when all clones are gone.
    ///
    /// # Errors
    /// [`StoreError::Open`] if it cannot connect.
    pub async fn start(database: &Database) -> Result<(Self, JoinHandle<()>), StoreError> {
        let connection = database.connect_writer().await?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (probes, asked) = mpsc::channel(PROBES);
        let stats = Arc::new(CommitterStats::default());
        let writer = Writer { connection, database: database.clone(), stats: Arc::clone(&stats) };
        let task = tokio::spawn(writer.run(waiting, asked));
        Ok((Self { queue, probes, stats }, task))
    }

    /// Queues a write; its [`GroupWrite::done`] is called when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the writer is gone.
    pub async fn submit(&self, write: W) -> Result<(), StoreError> {
        self.queue.send(write).await.map_err(|_| StoreError::Closed)
    }

    /// Writes something that changes nothing, as a write is written, to see whether the database takes writes.
    ///
    /// # Errors
    /// What a write would fail with.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let (asker, answer) = oneshot::channel();
        self.probes.send(asker).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// What was committed so far.
    pub fn stats(&self) -> &CommitterStats {
        &self.stats
    }
}

/// What the task that writes has.
struct Writer {
    connection: SqliteConnection,
    database: Database,
    stats: Arc<CommitterStats>,
}

impl Writer {
    async fn run<W: GroupWrite>(mut self, mut waiting: mpsc::Receiver<W>, mut asked: mpsc::Receiver<Asker>) {
        loop {
            tokio::select! {
                first = waiting.recv() => match first {
                    Some(first) => self.write(group(first, &mut waiting)).await,
                    None => return,
                },
                Some(asker) = asked.recv() => {
                    let probed = self.probe().await;
                    // Whoever asked may have stopped waiting.
                    let _ = asker.send(probed);
                }
            }
        }
    }

    async fn write<W: GroupWrite>(&mut self, mut group: Vec<W>) {
        match commit(&mut self.connection, &group).await {
            Ok(outputs) => {
                count(&self.stats, &group);
                group.drain(..).zip(outputs).for_each(|(write, output)| write.done(Ok(output)));
            }
            Err(error) => {
                tracing::warn!(%error, writes = group.len(), "a group commit failed; committing its writes one by one");
                self.reconnect().await;
                commit_singly(&mut self.connection, &mut group, &self.stats).await;
            }
        }
    }

    async fn probe(&mut self) -> Result<(), StoreError> {
        let probed = write_header(&mut self.connection).await;
        if probed.is_err() {
            self.reconnect().await;
        }
        probed.map_err(StoreError::from)
    }

    /// A connection that failed may fail for ever.
    async fn reconnect(&mut self) {
        if let Ok(fresh) = self.database.connect_writer().await {
            self.connection = fresh;
        }
    }
}

/// `first` and what waits after it, as far as one transaction may go.
fn group<W: GroupWrite>(first: W, waiting: &mut mpsc::Receiver<W>) -> Vec<W> {
    let mut bytes = first.bytes();
    let mut group = vec![first];
    while group.len() < GROUP_WRITES_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(write) = waiting.try_recv() else { break };
        bytes += write.bytes();
        group.push(write);
    }
    group
}

/// Writes the number of the schema again, which is on the file's first page.
async fn write_header(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let written = write_schema_again(connection).await;
    if written.is_err() {
        // The error that matters is the first.
        let _ = sqlx::query("ROLLBACK").execute(connection).await;
    }
    written
}

async fn write_schema_again(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let schema: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let again = format!("PRAGMA user_version = {schema}");
    sqlx::query(sqlx::AssertSqlSafe(again)).execute(&mut *connection).await?;
    sqlx::query("COMMIT").execute(connection).await.map(drop)
}

/// One bad write must not fail the others in its group.
async fn commit_singly<W: GroupWrite>(connection: &mut SqliteConnection, group: &mut Vec<W>, stats: &CommitterStats) {
    for write in group.drain(..) {
        let result = commit(connection, std::slice::from_ref(&write)).await;
        match &result {
            Ok(_) => count(stats, std::slice::from_ref(&write)),
            Err(error) => tracing::error!(%error, "a write failed"),
        }
        let output = result.map(|mut outputs| outputs.pop().expect("one write has one output"));
        write.done(output.map_err(StoreError::from));
    }
}

fn count<W: GroupWrite>(stats: &CommitterStats, group: &[W]) {
    stats.commits.fetch_add(1, Ordering::Relaxed);
    stats.operations.fetch_add(group.iter().map(GroupWrite::operations).sum(), Ordering::Relaxed);
}

async fn commit<W: GroupWrite>(connection: &mut SqliteConnection, group: &[W]) -> Result<Vec<W::Output>, sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let result = write_all(connection, group).await;
    if result.is_err() {
        // The error that matters is the first; a transaction that SQLite already rolled back has nothing to roll back.
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    }
    result
}

async fn write_all<W: GroupWrite>(
    connection: &mut SqliteConnection,
    group: &[W],
) -> Result<Vec<W::Output>, sqlx::Error> {
    let outputs = W::write_group(group, connection).await?;
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok(outputs)
}
