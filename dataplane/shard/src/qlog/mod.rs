//! qlog: one file per connection with what happened on it, for tools that draw it (draft-ietf-quic-qlog-main-schema).
//!
//! Shards only format; a thread of its own writes. Everything is bounded: files open at once, bytes of a file, and what waits to be
//! written. What exceeds a bound is left out, which is logged once, and no connection ever waits for a disk.

mod record;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use quantum::{ConnectionLog, Guuid, LogEvent, Observer, Side, Time};

/// Files open at once at most; connections beyond it are not logged.
const FILES_MAX: usize = 512;
/// Bytes of one file at most: about a hundred thousand packets.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// A connection hands over so many bytes at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that wait to be written, at most.
const CHUNKS_MAX: usize = 1024;

/// Writes a log for each connection into a folder: the observer of endpoints.
#[derive(Debug)]
pub struct Qlog {
    folder: PathBuf,
    to_writer: SyncSender<Job>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the logs of all connections share.
#[derive(Debug, Default)]
struct Shared {
    files: AtomicUsize,
    next: AtomicU64,
    /// It was said that something is left out.
    told: AtomicBool,
}

impl Shared {
    fn tell(&self, what: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(what, "qlog is incomplete");
        }
    }
}

/// What the writer's thread does.
#[derive(Debug)]
enum Job {
    Open(u64, PathBuf),
    Append(u64, Vec<u8>),
    Close(u64),
    /// Nothing comes after it.
    End,
}

impl Qlog {
    /// Logs into `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made, or the writer's thread cannot be started.
    pub fn new(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let shared = Arc::new(Shared::default());
        let (to_writer, jobs) = sync_channel(CHUNKS_MAX);
        let tells = Arc::clone(&shared);
        let writer = std::thread::Builder::new().name("qlog".to_owned()).spawn(move || write(&jobs, &tells))?;
        Ok(Self { folder: folder.to_owned(), to_writer, shared, writer: Some(writer) })
    }
}

impl Drop for Qlog {
    /// Waits until what was handed over is written.
    fn drop(&mut self) {
        if self.to_writer.send(Job::End).is_ok()
            && let Some(writer) = self.writer.take()
        {
            let _ = writer.join();
        }
    }
}

impl Observer for Qlog {
    fn open(&self, guuid: Guuid, side: Side) -> Option<Box<dyn ConnectionLog>> {
        let shared = &self.shared;
        if shared.files.fetch_add(1, Ordering::Relaxed) >= FILES_MAX {
            shared.files.fetch_sub(1, Ordering::Relaxed);
            shared.tell("too many connections at once");
            return None;
        }
        let file = shared.next.fetch_add(1, Ordering::Relaxed);
        // Both ends may be in one process, or log into one folder.
        let role = if side == Side::Client { "client" } else { "server" };
        let path = self.folder.join(format!("{guuid}.{role}.sqlog"));
        let mut log = FileLog {
            file,
            to_writer: self.to_writer.clone(),
            shared: Arc::clone(shared),
            text: Vec::with_capacity(CHUNK_BYTES + 4096),
            written: 0,
            is_full: false,
            started: None,
            metrics: record::Metrics::default(),
        };
        log.send(Job::Open(file, path));
        record::header(&mut log.text, guuid, role);
        Some(Box::new(log))
    }
}

/// The log of one connection.
#[derive(Debug)]
struct FileLog {
    file: u64,
    to_writer: SyncSender<Job>,
    shared: Arc<Shared>,
    text: Vec<u8>,
    /// Bytes handed over.
    written: u64,
    /// Its file is as long as it may be.
    is_full: bool,
    /// When its first event was: the origin of its times.
    started: Option<Time>,
    /// What was told of recovery: only what changes is told again.
    metrics: record::Metrics,
}

impl FileLog {
    fn send(&self, job: Job) {
        match self.to_writer.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.shared.tell("the disk does not keep up"),
            Err(TrySendError::Disconnected(_)) => self.shared.tell("its writer ended"),
        }
    }

    fn hand_over(&mut self) {
        let chunk = std::mem::replace(&mut self.text, Vec::with_capacity(CHUNK_BYTES + 4096));
        self.written += chunk.len() as u64;
        self.send(Job::Append(self.file, chunk));
    }
}

impl ConnectionLog for FileLog {
    fn record(&mut self, now: Time, event: &LogEvent<'_>) {
        if self.is_full {
            return;
        }
        let since = now.saturating_since(*self.started.get_or_insert(now));
        record::event(&mut self.text, since, event, &mut self.metrics);
        if self.written + self.text.len() as u64 > FILE_BYTES_MAX {
            self.is_full = true;
            self.shared.tell("the log of a connection is as long as it may be");
        }
        if self.text.len() >= CHUNK_BYTES || matches!(event, LogEvent::Closed(_)) {
            self.hand_over();
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.hand_over();
        }
        self.send(Job::Close(self.file));
        self.shared.files.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer's thread.
fn write(jobs: &Receiver<Job>, shared: &Shared) {
    let mut files: HashMap<u64, File> = HashMap::new();
    while let Ok(job) = jobs.recv() {
        let outcome = match job {
            Job::Open(file, path) => File::create(path).map(|opened| drop(files.insert(file, opened))),
            Job::Append(file, chunk) => files.get_mut(&file).map_or(Ok(()), |opened| opened.write_all(&chunk)),
            Job::Close(file) => {
                files.remove(&file);
                Ok(())
            }
            Job::End => return,
        };
        if let Err(error) = outcome {
            shared.tell(&error.to_string());
        }
        // A close that found the queue full was not heard.
        if files.len() > 2 * FILES_MAX {
            files.clear();
        }
    }
}
