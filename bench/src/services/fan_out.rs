//! Fan-out: one document with many streams of events, one writer at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use proto::statesync::{Operation, OperationEvent, SubscribeDocumentRequest};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tonic::Streaming;
use uuid::Uuid;

use super::closed::Recorder;
use super::dial::{Dialer, Target};
use super::documents::{self, Client};
use super::watch::{Spent, Watch};
use crate::load::pace;
use crate::replay::wire::Wire;

/// How long after the last operation its events may come.
const LATE_EVENTS: Duration = Duration::from_secs(10);
/// What a stream that is not read is filled with: more than its flow control, the service's send buffers and its queue
/// of 4 MiB take. One replaces the other, so the document stays small.
const FILLING_BYTES: usize = 64 << 10;
const FILLINGS: usize = 112;
/// Flow control, what the service's transport keeps for sending, and its queue.
const BUFFERS_BYTES: usize = (256 << 10) + (1 << 20) + (4 << 20);
const _: () = assert!(FILLINGS * FILLING_BYTES > BUFFERS_BYTES + BUFFERS_BYTES / 4, "a stream may not be full");
/// The first operation is due so long after the readers begin, so that it is not late.
const AHEAD: Duration = Duration::from_millis(20);
/// Characters of the document while it is measured.
const CHARACTERS: usize = 100;

/// How many read what comes how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) subscribers: usize,
    /// That carry the streams.
    pub(super) connections: usize,
    /// Operations per second.
    pub(super) rate: f64,
    /// Seconds.
    pub(super) warmup: f64,
    pub(super) seconds: f64,
    /// Whether so much is sent before that streams that are not read are full.
    pub(super) is_filled: bool,
}

/// What every round has in common.
pub(super) struct Site<'a> {
    pub(super) shape: Shape,
    pub(super) dialer: &'a Dialer,
    pub(super) target: &'a Target,
    pub(super) watch: Watch,
}

/// What a round came to, or several together.
pub(super) struct Round {
    /// Nanoseconds from when an operation was due to each stream that reads it; not of those of the warm-up.
    pub(super) latencies: Histogram<u64>,
    /// Events of operations that should have come, and that came, those of the warm-up too.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// Times that a stream that is read was told that it lagged.
    pub(super) lagged: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) client_cpu_s: f64,
    pub(super) server_cpu_s: Option<f64>,
    pub(super) store_cpu_s: Option<f64>,
}

impl Round {
    /// This and another one.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.latencies += other.latencies;
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lagged += other.lagged;
        self.errors += other.errors;
        self.first_error = self.first_error.or(other.first_error);
        self.client_cpu_s += other.client_cpu_s;
        let sum = |one: Option<f64>, other: Option<f64>| one.zip(other).map(|(one, other)| one + other);
        self.server_cpu_s = sum(self.server_cpu_s, other.server_cpu_s);
        self.store_cpu_s = sum(self.store_cpu_s, other.store_cpu_s);
        self
    }
}

/// The writer's operations and what became of them.
struct Edits {
    /// When the first is due.
    start: Instant,
    rate: f64,
    count: usize,
    /// So many of the first are not counted.
    warmup: usize,
    /// The document's version before the first of them.
    version: u64,
    recorder: Recorder,
    delivered: AtomicU64,
    lagged: AtomicU64,
}

impl Edits {
    fn new(shape: &Shape, version: u64) -> Self {
        let rate = shape.rate;
        let warmup = (rate * shape.warmup).round() as usize;
        Self {
            start: Instant::now() + AHEAD,
            rate,
            count: warmup + ((rate * shape.seconds).round() as usize).max(1),
            warmup,
            version,
            recorder: Recorder::new(),
            delivered: AtomicU64::new(0),
            lagged: AtomicU64::new(0),
        }
    }

    fn due(&self, edit: usize) -> Instant {
        self.start + Duration::from_secs_f64(edit as f64 / self.rate)
    }

    /// The edit's event came to a reader.
    fn received(&self, reader: usize, edit: usize) {
        let latency_ns = self.due(edit).elapsed().as_nanos() as u64;
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if edit >= self.warmup {
            self.recorder.took(reader as u64, latency_ns);
        }
    }

    fn came_to(&self, readers: usize, spent: &Spent) -> Round {
        let (errors, first_error) = self.recorder.errors();
        Round {
            latencies: self.recorder.latencies(),
            expected: (readers * self.count) as u64,
            delivered: self.delivered.load(Ordering::Relaxed),
            lagged: self.lagged.load(Ordering::Relaxed),
            errors,
            first_error,
            client_cpu_s: spent.meter.cpu_s,
            server_cpu_s: spent.meter.server_cpu_s,
            store_cpu_s: spent.store_cpu_s,
        }
    }
}

/// One round on a fresh document, `stalled` of whose streams are never read.
///
/// # Errors
/// If it cannot begin. What fails later is in the round.
pub(super) async fn measure(site: &Site<'_>, stalled: usize) -> anyhow::Result<Round> {
    let shape = &site.shape;
    let wires = site.dialer.wires(site.target, shape.connections).await?;
    let writer = site.dialer.wires(site.target, 1).await?.remove(0);
    let mut writer = Client::new(writer);
    let content = Bytes::from(vec![b'.'; CHARACTERS]);
    let created = documents::create(&mut writer, "read by many".to_owned(), content).await?;
    let document = created.id;
    let wire = |number: usize| wires[number % wires.len()].clone();
    // Kept until the end, and never read.
    let mut unread = Vec::with_capacity(stalled);
    for number in 0..stalled {
        unread.push(subscribe(wire(number), &document).await?);
    }
    let mut version = created.version;
    if shape.is_filled {
        version = fill(&mut writer, &document).await.context("the streams that are not read cannot be filled")?;
    }
    let mut streams = Vec::with_capacity(shape.subscribers - stalled);
    for number in stalled..shape.subscribers {
        let mut events = subscribe(wire(number), &document).await?;
        let first = events.message().await?.context("the stream ended at once")?;
        ensure!(first.version == version, "a stream began at version {} of {version}", first.version);
        streams.push(events);
    }
    let before = site.watch.read();
    let edits = Arc::new(Edits::new(shape, version));
    let count = streams.len();
    let mut readers = JoinSet::new();
    for (number, events) in streams.into_iter().enumerate() {
        readers.spawn(read(events, number, Arc::clone(&edits)));
    }
    write(writer, document, &edits).await?;
    let all_read = async {
        while let Some(ended) = readers.join_next().await {
            ended.expect("a reader does not panic");
        }
    };
    let in_time = tokio::time::timeout(LATE_EVENTS, all_read).await;
    let spent = site.watch.read().since(&before);
    if in_time.is_err() {
        for _ in 0..readers.len() {
            let late = LATE_EVENTS.as_secs();
            edits.recorder.failed(&anyhow::anyhow!("events are missing {late} s after the last operation"));
        }
        readers.shutdown().await;
    }
    drop(unread);
    Ok(edits.came_to(count, &spent))
}

/// Opens a stream of a document's events. All are one user's: nobody is told that another one came.
async fn subscribe(wire: Wire, document: &str) -> anyhow::Result<Streaming<OperationEvent>> {
    let request = SubscribeDocumentRequest {
        doc_id: document.to_owned(),
        user_id: "reader".to_owned(),
        ..SubscribeDocumentRequest::default()
    };
    Ok(Client::new(wire).subscribe_document(request).await.context("cannot subscribe")?.into_inner())
}

/// Sends so much that the streams of those who do not read are full; gives the document's version after it.
async fn fill(writer: &mut Client, document: &str) -> anyhow::Result<u64> {
    let session = Uuid::now_v7().to_string();
    let (mut version, mut length) = (1, CHARACTERS);
    for filling in 1..=FILLINGS {
        let next = if filling == FILLINGS { CHARACTERS } else { FILLING_BYTES };
        let data = format!("{{\"pos\":0,\"del\":{length},\"ins\":\"{}\"}}", ".".repeat(next));
        let operation = Operation {
            doc_id: document.to_owned(),
            session_id: session.clone(),
            prev_version: version,
            ..documents::edit(data)
        };
        let applied = documents::apply(writer, operation).await?;
        ensure!(applied == version + 1, "version {applied} came after {version}");
        (version, length) = (applied, next);
    }
    Ok(version)
}

/// Sends the operations when they are due, whatever became of those before, and waits for all answers.
async fn write(writer: Client, document: String, edits: &Arc<Edits>) -> anyhow::Result<()> {
    let (runtime, sent) = (Handle::current(), Arc::clone(edits));
    // On a thread that may sleep: the runtime's timer counts in milliseconds.
    let sending = tokio::task::spawn_blocking(move || send(&writer, &document, &sent, &runtime));
    let mut answers = sending.await.context("the writer panicked")?;
    while let Some(answer) = answers.join_next().await {
        if let Err(error) = answer.context("a call panicked")? {
            edits.recorder.failed(&error);
        }
    }
    Ok(())
}

/// Blocks until the last operation is sent; gives the calls.
fn send(writer: &Client, document: &str, edits: &Arc<Edits>, runtime: &Handle) -> JoinSet<anyhow::Result<()>> {
    let session = Uuid::now_v7().to_string();
    let mut answers = JoinSet::new();
    pace::prepare_thread();
    for edit in 0..edits.count {
        let operation = Operation {
            doc_id: document.to_owned(),
            session_id: session.clone(),
            prev_version: edits.version,
            session_sequence: edit as u64 + 1,
            ..documents::edit(format!("{{\"pos\":{},\"ins\":\"x\"}}", edit % CHARACTERS))
        };
        let (mut writer, edits) = (writer.clone(), Arc::clone(edits));
        pace::sleep_until(edits.due(edit));
        let call = async move {
            let applied = documents::apply(&mut writer, operation).await?;
            let expected = edits.version + edit as u64 + 1;
            ensure!(applied == expected, "operation {edit} became version {applied}, not {expected}");
            anyhow::Ok(())
        };
        answers.spawn_on(call, runtime);
    }
    answers
}

/// Reads a stream until every operation has come.
async fn read(events: Streaming<OperationEvent>, reader: usize, edits: Arc<Edits>) {
    if let Err(error) = follow(events, reader, &edits).await {
        edits.recorder.failed(&error);
    }
}

async fn follow(mut events: Streaming<OperationEvent>, reader: usize, edits: &Edits) -> anyhow::Result<()> {
    for edit in 0..edits.count {
        let operation = loop {
            let event = events.message().await?.context("the stream ended")?;
            if event.lagged {
                edits.lagged.fetch_add(1, Ordering::Relaxed);
                ensure!(event.document.is_none(), "the whole state came instead of the operations");
            }
            if let Some(operation) = event.operation {
                break operation;
            }
        };
        let expected = edits.version + edit as u64 + 1;
        ensure!(operation.version == expected, "version {} came, {expected} was due", operation.version);
        ensure!(operation.session_sequence == edit as u64 + 1, "operation {} came as {expected}", operation.id);
        edits.received(reader, edit);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Round;
    use crate::load::histogram;

    fn round(latency_ns: u64, delivered: u64) -> Round {
        let mut latencies = histogram();
        latencies.saturating_record(latency_ns);
        let (expected, lagged, errors, first_error) = (delivered, 1, 0, None);
        let (client_cpu_s, server_cpu_s, store_cpu_s) = (0.25, Some(0.5), None);
        Round { latencies, expected, delivered, lagged, errors, first_error, client_cpu_s, server_cpu_s, store_cpu_s }
    }

    #[test]
    fn rounds_are_put_together() {
        let both = round(1_000, 10).with(Round { first_error: Some("a".to_owned()), ..round(2_000, 20) });
        assert_eq!((both.latencies.len(), both.expected, both.delivered, both.lagged), (2, 30, 30, 2));
        assert_eq!((both.first_error.as_deref(), both.server_cpu_s), (Some("a"), Some(1.0)));
        assert!((both.client_cpu_s - 0.5).abs() < f64::EPSILON);
    }
}
