//! Writers who make random operations of every type on documents of every type at once, from states that they read a while
//! ago, and an account of what became of each operation.
//!
//! The account knows nothing of the server's code: it makes the log again by the rules of documents, letter by letter and key
//! by key, and holds the log, the conflicts and the content against that.

mod account;
mod book;
mod client;
mod held;
mod items;
mod judge;
mod reference;
#[cfg(test)]
mod tests;
mod text;
mod touched;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use proto::statesync::{CreateDocumentRequest, GetDocumentRequest, ListConflictsRequest, Metadata};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;
use tokio::sync::{Barrier, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::history::{Entry, Logged, Recorder};
use crate::replay::ReplayTransport;
use crate::replay::wire::{Dialer, Wire, verify};
use account::Tally;
use book::{Book, Sent, Told};
use client::Client;
use held::Content;

const EXAMPLES: &str = "\
Six documents: texts that merge, where the last one wins, and where somebody decides; a whiteboard (the last one wins), a canvas \
(merge) and a sheet (somebody decides, and does). Every writer makes operations on all of them, one at a time on each, from a \
state that it read up to some seconds ago, and sends some of them twice.

Exit code 0: all replicas and the server are equal in the end, and every operation is accounted for: applied as the rules of \
documents say, in a conflict exactly where it touches what its writer did not know, or refused with a reason. 1: not so.

Examples:
  aetherflow-bench writers --to 127.0.0.1:9002 --transport tcp-grpc --seconds 60
  aetherflow-bench writers --to 127.0.0.1:9002 --transport quantum-grpc --insecure-loopback \\
      --seed 7";

/// The documents: type, and the rule where operations overlap.
const DOCUMENTS: [(&str, &str); 6] = [
    ("text", "merge"),
    ("text", "lww"),
    ("text", "manual"),
    ("whiteboard", "lww"),
    ("canvas", "merge"),
    ("sheet", "manual"),
];
/// Entries of one page of conflicts.
const PAGE: i32 = 1000;

/// Arguments of `writers`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct WritersArgs {
    /// The statesync service, HOST:PORT
    #[arg(long, value_name = "STATESYNC")]
    pub to: String,
    /// What carries the calls
    #[arg(long, value_enum)]
    pub transport: ReplayTransport,
    /// Quantum: the server's certificate, or its issuer's, in a PEM file
    #[arg(long, value_name = "FILE", group = "verification")]
    pub ca: Option<PathBuf>,
    /// Quantum: the SHA-256 of the server's public key, which `aetherflow up` prints
    #[arg(long, value_name = "HEX", group = "verification")]
    pub pin: Option<String>,
    /// Quantum: do not verify the server; only for a server on loopback
    #[arg(long, group = "verification")]
    pub insecure_loopback: bool,
    /// How many write
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub writers: u16,
    /// How long they write
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,
    /// Seed of what they write [default: a random one, which is printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// What came of it; its JSON form is the last line of standard output.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What they wrote follows from it, and from when they heard of each other.
    pub seed: u64,
    /// What carried the calls.
    pub transport: &'static str,
    /// Operations that were sent.
    pub operations: usize,
    /// What became of them, document by document.
    documents: BTreeMap<String, Tally>,
    /// Broken connections that were made again.
    pub reconnections: u64,
    /// What cannot be.
    pub violations: Vec<String>,
}

/// One of the documents.
#[derive(Debug, Clone)]
struct Target {
    id: String,
    kind: &'static str,
    rule: &'static str,
    /// Whether somebody decides for operations that waited, too, while their writers go on.
    is_judged: bool,
}

/// What the writers share. Never content: that goes through the server.
struct Shared {
    targets: Vec<Target>,
    /// One for each writer.
    sessions: Vec<Uuid>,
    writing_time: Duration,
    /// The writers of all documents and who judges begin together.
    start: Barrier,
    started: OnceLock<Instant>,
    /// Hears from everybody who has stopped writing.
    idle: mpsc::Sender<()>,
    numbers: AtomicU32,
    reconnections: AtomicU64,
    histories: Vec<Recorder>,
    sent: Vec<Mutex<Vec<Sent>>>,
}

impl Shared {
    fn end(&self) -> Instant {
        *self.started.get_or_init(Instant::now) + self.writing_time
    }

    fn next_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn count_reconnection(&self) {
        self.reconnections.fetch_add(1, Ordering::Relaxed);
    }

    fn record(&self, target: usize, entry: Entry) {
        self.histories[target].record(entry);
    }

    /// Keeps what is about to be sent; gives its place.
    fn note(&self, target: usize, sent: Sent) -> usize {
        let mut list = self.sent[target].lock().unwrap_or_else(PoisonError::into_inner);
        list.push(sent);
        list.len() - 1
    }

    fn told(&self, target: usize, index: usize, told: Told) {
        self.sent[target].lock().unwrap_or_else(PoisonError::into_inner)[index].told = told;
    }
}

/// Runs `writers`.
///
/// # Errors
/// If a writer meets a failure that it cannot get over.
pub fn run(args: &WritersArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args))?;
    // Connections close in the background; nothing of the result depends on them.
    runtime.shutdown_timeout(Duration::from_millis(200));
    for violation in &outcome.violations {
        eprintln!("{violation}");
    }
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Lets everybody write against running services, and accounts for what they wrote.
///
/// # Errors
/// If a writer meets a failure that it cannot get over.
pub async fn play(args: &WritersArgs) -> anyhow::Result<Outcome> {
    let seed = args.seed.unwrap_or_else(rand::random);
    eprintln!("seed {seed}");
    let verify = verify(args.transport, args.ca.as_ref(), args.pin.as_ref(), args.insecure_loopback)?;
    let dialer = Dialer::new(&args.to, None, args.transport, verify)?;
    let mut statesync = dialer.statesync().await?;
    let targets = create(&mut statesync).await?;
    let clients = usize::from(args.writers) * targets.len();
    let (idle, mut idles) = mpsc::channel(clients);
    let shared = Arc::new(Shared {
        sessions: (0..args.writers).map(|_| Uuid::now_v7()).collect(),
        writing_time: Duration::from_secs(args.seconds),
        start: Barrier::new(clients + 1),
        started: OnceLock::new(),
        idle,
        numbers: AtomicU32::new(0),
        reconnections: AtomicU64::new(0),
        histories: targets.iter().map(|_| Recorder::default()).collect(),
        sent: targets.iter().map(|_| Mutex::default()).collect(),
        targets,
    });
    let until = watch::Sender::new(None);
    let mut tasks = start(&shared, &dialer, (args.writers, seed), &until).await?;
    let judge = AbortOnDropHandle::new(tokio::spawn(judge::judge(Arc::clone(&shared), statesync.clone(), seed)));
    for _ in 0..clients {
        tokio::select! {
            idle = idles.recv() => idle.context("nobody writes")?,
            // Nobody is through before it is told where the end is.
            Some(ended) = tasks.join_next() => drop(ended.context("a writer panicked")??),
        }
    }
    judge.await.context("the judge panicked")??;
    let mut books = Vec::new();
    for target in 0..shared.targets.len() {
        books.push(book(&shared, target, &mut statesync).await?);
    }
    until.send_replace(Some(books.iter().map(|(version, _)| *version).collect()));
    let mut contents = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        contents.push(ended.context("a writer panicked")??);
    }
    for (target, (_, book)) in books.iter_mut().enumerate() {
        book.log = dialer.log(&shared.targets[target].id).await.context("cannot read the log back")?;
    }
    let books: Vec<Book> = books.into_iter().map(|(_, book)| book).collect();
    Ok(judge_books(&shared, &books, &contents, (seed, args.transport.name())))
}

/// Makes the documents.
async fn create(statesync: &mut StateSyncServiceClient<Wire>) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for (kind, rule) in DOCUMENTS {
        let properties = [("conflict_resolution".to_owned(), rule.to_owned())].into();
        let content = match Content::initial(kind) {
            Content::Text(_) => String::new(),
            Content::Items(items) => items.content().to_string(),
        };
        let request = CreateDocumentRequest {
            name: format!("a {kind} under {rule}"),
            r#type: kind.to_owned(),
            created_by: "writer-0".to_owned(),
            content: content.into_bytes().into(),
            metadata: Some(Metadata { properties, ..Metadata::default() }),
        };
        let answer = statesync.create_document(request).await?.into_inner();
        let id = answer.document.context("the answer has no document")?.id;
        // What is decided for a text operation lands in a text that its writer has gone on from; cells have no such places.
        targets.push(Target { id, kind, rule, is_judged: kind == "sheet" });
    }
    Ok(targets)
}

/// Subscribes everybody to everything; each writer has one connection.
async fn start(
    shared: &Arc<Shared>,
    dialer: &Dialer,
    (writers, seed): (u16, u64),
    until: &watch::Sender<Option<Vec<u64>>>,
) -> anyhow::Result<JoinSet<anyhow::Result<(usize, Content)>>> {
    let mut clients = Vec::new();
    for writer in 0..writers {
        let connection = dialer.statesync().await.with_context(|| format!("writer {writer}"))?;
        for target in 0..shared.targets.len() {
            let stream = u64::from(writer) * shared.targets.len() as u64 + target as u64;
            let random = StdRng::seed_from_u64(seed.wrapping_add(1 + stream));
            let (shared, dialer) = (Arc::clone(shared), dialer.clone());
            let client = Client::join((writer, target), shared, dialer, connection.clone(), random).await;
            clients.push((writer, target, client.with_context(|| format!("writer {writer}, document {target}"))?));
        }
    }
    let mut tasks = JoinSet::new();
    for (writer, target, client) in clients {
        let until = until.subscribe();
        tasks.spawn(async move {
            let played = client.play(until).await;
            played.with_context(|| format!("writer {writer}, document {target}"))
        });
    }
    Ok(tasks)
}

/// What the server has of a document, and its version; the log is read later.
async fn book(
    shared: &Shared,
    target: usize,
    statesync: &mut StateSyncServiceClient<Wire>,
) -> anyhow::Result<(u64, Book)> {
    let doc_id = shared.targets[target].id.clone();
    let answer = statesync.get_document(GetDocumentRequest { doc_id: doc_id.clone() }).await?.into_inner();
    let document = answer.document.context("the answer has no document")?;
    let mut conflicts = Vec::new();
    loop {
        let offset = conflicts.len() as i32;
        let request = ListConflictsRequest { doc_id: doc_id.clone(), unresolved_only: false, offset, limit: PAGE };
        let page = statesync.list_conflicts(request).await?.into_inner();
        ensure!(page.total as usize >= conflicts.len(), "there are {} conflicts, fewer than were listed", page.total);
        if page.conflicts.is_empty() {
            break;
        }
        conflicts.extend(page.conflicts);
    }
    let sent = shared.sent[target].lock().unwrap_or_else(PoisonError::into_inner).clone();
    let target = shared.targets[target].clone();
    Ok((document.version, Book { target, sent, log: Vec::new(), conflicts, content: document.content }))
}

/// Holds the replicas, the histories and the accounts together.
fn judge_books(
    shared: &Shared,
    books: &[Book],
    contents: &[(usize, Content)],
    (seed, transport): (u64, &'static str),
) -> Outcome {
    let (mut documents, mut violations) = (BTreeMap::new(), Vec::new());
    for (target, book) in books.iter().enumerate() {
        let name = format!("{} ({})", book.target.kind, book.target.rule);
        let verdict = shared.histories[target].verdict(&Logged::of_events(&book.log));
        let (tally, mut found) = account::account(book);
        found.extend(verdict.violations);
        let differ = contents.iter().filter(|(of, content)| *of == target && !content.is(&book.content)).count();
        if differ > 0 {
            found.push(format!("{differ} replicas differ from the server's content"));
        }
        violations.extend(found.into_iter().map(|violation| format!("{name}: {violation}")));
        documents.insert(name, tally);
    }
    Outcome {
        seed,
        transport,
        operations: books.iter().map(|book| book.sent.len()).sum(),
        documents,
        reconnections: shared.reconnections.load(Ordering::Relaxed),
        violations,
    }
}
