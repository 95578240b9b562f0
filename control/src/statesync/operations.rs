//! Operations as they come in and what is answered: one in a call, or many in a stream.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use proto::statesync as pb;
use proto::statesync::apply_operations_response::Outcome;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::document::{Applied, Asked, Command, Reply};
use super::model::{ConflictRecord, Submission};
use super::registry::{ATTEMPTS, Registry, reloading};
use crate::auth::Asker;
use crate::status::{invalid, of_store, with_info};
use crate::telemetry::{Origin, Step};

/// Operations of a stream, and bytes of their data, that have no answer yet; with more the stream is not read.
const UNANSWERED_MAX: usize = 256;
const UNANSWERED_BYTES_MAX: usize = 8 << 20;

/// What the caller of `ApplyOperations` reads.
pub(super) type OutcomeStream = Pin<Box<dyn Stream<Item = Result<pb::ApplyOperationsResponse, Status>> + Send>>;

/// Checks an operation, and that it is its caller's.
pub(super) async fn check_operation(operation: Option<pb::Operation>, asker: &Asker) -> Result<Submission, Status> {
    let mut operation = operation.ok_or_else(|| invalid("operation", "is required"))?;
    asker.acts_as("operation.user_id", &mut operation.user_id)?;
    let submission = Submission::check(Some(operation))?;
    asker.acts_in("operation.session_id", &submission.operation.session_id).await?;
    Ok(Submission { asker: asker.clone(), ..submission })
}

/// The answer for an operation that is kept until somebody decides, or was.
pub(super) fn waiting(record: &ConflictRecord) -> pb::ApplyOperationResponse {
    let operation = record.conflict.ops.last();
    if operation.is_some_and(|operation| operation.status == "resolved") {
        // What it became is in the log no longer.
        let applied_operation = record.conflict.resolved_op.clone();
        return pb::ApplyOperationResponse { success: true, applied_operation, error: String::new() };
    }
    let error = if record.is_resolved() {
        format!("conflict {} was decided against the operation", record.id)
    } else {
        format!("the operation waits in conflict {}; ResolveConflict decides it", record.id)
    };
    pb::ApplyOperationResponse { success: false, applied_operation: operation.cloned(), error }
}

/// The answer for an operation that was not refused.
///
/// # Errors
/// `UNAVAILABLE` if the store does not say what was applied earlier.
pub(super) async fn response(
    registry: &Registry,
    doc_id: Uuid,
    applied: Applied,
) -> Result<pb::ApplyOperationResponse, Status> {
    let applied_operation = match applied {
        Applied::Waits(record) => return Ok(waiting(&record)),
        Applied::Now(published) => published.applied_operation().cloned(),
        Applied::Before(version) => {
            registry.store().operation(doc_id, version).await.map_err(|error| of_store(&error))?
        }
    };
    Ok(pb::ApplyOperationResponse { success: true, applied_operation, error: String::new() })
}

/// What becomes of operations, in their order, until the stream of them ends or the server stops.
pub(super) fn outcomes(
    registry: Arc<Registry>,
    asker: Asker,
    mut requests: impl Stream<Item = Result<pb::ApplyOperationsRequest, Status>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<pb::ApplyOperationsResponse, Status>> + Send {
    let stop = registry.stop_token();
    let mut line = Line::new(registry, asker);
    // What the stream ends with, once all that came before is answered.
    let mut end = None;
    async_stream::stream! {
        loop {
            tokio::select! {
                biased;
                () = line.wait(), if !line.entries.is_empty() => {
                    if let Some(outcome) = line.settle().await {
                        yield Ok(pb::ApplyOperationsResponse { outcome: Some(outcome) });
                    }
                }
                () = stop.cancelled(), if end.is_none() => end = Some(Err(stopping())),
                request = requests.next(), if end.is_none() && line.has_room() => match request {
                    Some(Ok(request)) => line.take(request.operation).await,
                    Some(Err(status)) => end = Some(Err(status)),
                    None => end = Some(Ok(())),
                },
                else => break,
            }
        }
        if let Some(Err(status)) = end {
            yield Err(status);
        }
    }
}

fn stopping() -> Status {
    let message = "the server is shutting down; send what has no answer again, with the same operation ids";
    with_info(Code::Unavailable, message, "STOPPING", &[])
}

/// Operations without an answer, oldest first.
struct Line {
    registry: Arc<Registry>,
    asker: Asker,
    entries: VecDeque<Entry>,
    bytes: usize,
    lanes: HashMap<Uuid, Lane>,
    /// How often the first was sent again.
    attempts: usize,
}

/// One of them.
struct Entry {
    /// None if it was no operation.
    submission: Option<Arc<Submission>>,
    state: State,
    step: (Step, Option<Origin>),
}

/// How far an operation has come.
enum State {
    /// Its document has not got it, or has left memory with it.
    Unsent,
    /// Its document has it.
    Sent(oneshot::Receiver<Result<Applied, Status>>),
    /// What became of it is known.
    Known(Result<Applied, Status>),
}

/// The operations in the line that are one document's.
struct Lane {
    /// Where the document takes them; none once it has left memory. Those that come then wait for those before them, which are
    /// sent again first.
    document: Option<mpsc::Sender<Asked>>,
    count: usize,
}

impl Entry {
    fn doc_id(&self) -> Option<Uuid> {
        self.submission.as_ref().map(|submission| submission.doc_id)
    }

    fn bytes(&self) -> usize {
        self.submission.as_ref().map_or(0, |submission| submission.operation.data.len())
    }

    /// Gives it to its document; false if that is leaving memory.
    async fn send(&mut self, document: &mpsc::Sender<Asked>, asker: &Asker) -> bool {
        let Some(submission) = &self.submission else { return true };
        let (reply, answer) = Reply::channel(self.step.1.clone());
        let command = Command::Apply(Arc::clone(submission), reply);
        let is_sent = document.send(Asked { asker: asker.clone(), command }).await.is_ok();
        self.state = if is_sent { State::Sent(answer) } else { State::Unsent };
        is_sent
    }

    /// Waits for the answer, if it is sent, and gives up waiting if its document leaves memory.
    async fn wait(&mut self) {
        if let State::Sent(answer) = &mut self.state {
            self.state = answer.await.map_or(State::Unsent, State::Known);
        }
    }
}

impl Line {
    fn new(registry: Arc<Registry>, asker: Asker) -> Self {
        Self { registry, asker, entries: VecDeque::new(), bytes: 0, lanes: HashMap::new(), attempts: 0 }
    }

    fn has_room(&self) -> bool {
        self.entries.len() < UNANSWERED_MAX && self.bytes < UNANSWERED_BYTES_MAX
    }

    /// Sends an operation to its document, after those that came before.
    async fn take(&mut self, operation: Option<pb::Operation>) {
        let step = Step::begin("document apply");
        let (submission, state) = match check_operation(operation, &self.asker).await {
            Ok(submission) => (Some(Arc::new(submission)), State::Unsent),
            Err(status) => (None, State::Known(Err(status))),
        };
        let mut entry = Entry { submission, state, step };
        if let Some(id) = entry.doc_id() {
            entry.step.0.note("aetherflow.document.id", || id.to_string());
            self.bytes += entry.bytes();
            let lane = self.lanes.entry(id).or_insert_with(|| {
                // Without one it is refused when its turn comes.
                let document = self.registry.document(id, entry.step.1.as_ref()).ok();
                Lane { document, count: 0 }
            });
            lane.count += 1;
            if let Some(document) = &lane.document
                && !entry.send(document, &self.asker).await
            {
                lane.document = None;
            }
        }
        self.entries.push_back(entry);
    }

    /// Waits until what became of the first operation is known, or it has to be sent again.
    async fn wait(&mut self) {
        if let Some(first) = self.entries.front_mut() {
            first.wait().await;
        }
    }

    /// Takes the first operation out of the line and gives what became of it; if it has to be sent again, does that.
    async fn settle(&mut self) -> Option<Outcome> {
        let mut first = self.entries.pop_front()?;
        let State::Known(known) = std::mem::replace(&mut first.state, State::Unsent) else {
            self.entries.push_front(first);
            self.send_again().await;
            return None;
        };
        self.attempts = 0;
        self.leave(&first);
        let answered = match known {
            Ok(applied) => response(&self.registry, first.doc_id().unwrap_or_default(), applied).await,
            Err(status) => Err(status),
        };
        Some(match answered {
            Ok(answer) => Outcome::Answer(Box::new(answer)),
            Err(status) => Outcome::Refusal(refusal(&status)),
        })
    }

    fn leave(&mut self, entry: &Entry) {
        self.bytes -= entry.bytes();
        let Some(id) = entry.doc_id() else { return };
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.count -= 1;
            if lane.count == 0 {
                self.lanes.remove(&id);
            }
        }
    }

    /// The document of the first operation has left memory: gives it what it has not answered again, in order.
    async fn send_again(&mut self) {
        let Some(id) = self.entries.front().and_then(Entry::doc_id) else { return };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(left) = lane.document.take() {
            self.registry.forget(id, &left);
        }
        let found = self.registry.document(id, None);
        for (place, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.doc_id() == Some(id)) {
            // What it answered before it left stays answered.
            entry.wait().await;
            if !matches!(entry.state, State::Unsent) {
                continue;
            }
            // Those behind the first are only as often unlucky as it is.
            self.attempts += usize::from(place == 0);
            match &found {
                Err(status) => entry.state = State::Known(Err(status.clone())),
                Ok(_) if self.attempts >= ATTEMPTS => entry.state = State::Known(Err(reloading())),
                Ok(document) => {
                    if !entry.send(document, &self.asker).await {
                        return;
                    }
                }
            }
        }
        lane.document = found.ok();
    }
}

fn refusal(status: &Status) -> pb::OperationRefusal {
    let info = status.get_details_error_info();
    let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
    pb::OperationRefusal { code: status.code().into(), message: status.message().to_owned(), reason, metadata }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::stream;
    use proto::statesync::state_sync_service_server::StateSyncService;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::statesync::registry::DocumentOptions;
    use crate::statesync::{MemoryDocuments, StateSyncServer};

    /// Documents in memory, and the id of an empty text.
    async fn text() -> (Arc<Registry>, String) {
        let store = Arc::new(MemoryDocuments::default());
        let (options, stop) = (DocumentOptions::default(), CancellationToken::new());
        let server = StateSyncServer::new(store.clone(), options, stop.clone());
        let request = pb::CreateDocumentRequest {
            name: "a".into(),
            r#type: "text".into(),
            created_by: "ada".into(),
            ..Default::default()
        };
        let created = server.create_document(tonic::Request::new(request)).await.unwrap().into_inner();
        (Registry::new(store, options, stop), created.document.unwrap().id)
    }

    fn insertion(doc_id: &str, session: Uuid, pos: usize, ins: &str) -> pb::Operation {
        pb::Operation {
            doc_id: doc_id.into(),
            user_id: "ada".into(),
            session_id: session.to_string(),
            r#type: "text".into(),
            data: format!(r#"{{"pos": {pos}, "ins": "{ins}"}}"#).into(),
            prev_version: 1,
            ..Default::default()
        }
    }

    /// The version that an operation made, unless it was refused.
    fn version(outcome: Outcome) -> Option<u64> {
        match outcome {
            Outcome::Answer(answer) => Some(answer.applied_operation.unwrap().version),
            Outcome::Refusal(_) => None,
        }
    }

    #[tokio::test]
    async fn what_a_document_left_memory_with_is_sent_again_in_its_order() {
        let (registry, doc_id) = text().await;
        let id = Uuid::try_parse(&doc_id).unwrap();
        let session = Uuid::now_v7();
        let insert = |pos, letter| Some(insertion(&doc_id, session, pos, letter));
        let mut line = Line::new(Arc::clone(&registry), Asker::default());
        let (sender, mut document) = mpsc::channel(8);
        line.lanes.insert(id, Lane { document: Some(sender), count: 0 });
        for (pos, letter) in [(0, "a"), (1, "b"), (1, "c")] {
            line.take(insert(pos, letter)).await;
        }
        drop(document.recv().await);
        document.recv().await.unwrap().command.refuse(Status::aborted("no"));
        drop(document);
        line.take(insert(2, "d")).await;
        let mut told = Vec::new();
        while !line.entries.is_empty() {
            line.wait().await;
            told.extend(line.settle().await.map(version));
        }
        assert_eq!(told, [Some(2), None, Some(3), Some(4)]);
        assert!(line.lanes.is_empty() && line.bytes == 0);
        let read = registry.ask(id, &Asker::default(), Command::Read).await.unwrap();
        assert_eq!(read.content, "acd");
    }

    #[tokio::test]
    async fn no_more_is_read_than_may_wait_for_answers() {
        let (registry, id) = text().await;
        for (bytes, expected) in [(1, UNANSWERED_MAX), (UNANSWERED_BYTES_MAX / 16, 16)] {
            let (read, text) = (Arc::new(AtomicUsize::new(0)), "x".repeat(bytes));
            let (id, counted) = (id.clone(), Arc::clone(&read));
            let requests = stream::repeat_with(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                // Each waits for one of its session that never comes.
                let operation = pb::Operation { session_sequence: 2, ..insertion(&id, Uuid::now_v7(), 0, &text) };
                Ok(pb::ApplyOperationsRequest { operation: Some(operation) })
            });
            let mut outcomes = Box::pin(outcomes(Arc::clone(&registry), Asker::default(), requests));
            assert!(tokio::time::timeout(Duration::from_millis(300), outcomes.next()).await.is_err());
            assert_eq!(read.load(Ordering::Relaxed), expected);
        }
    }
}
