//! Documents: creating them, and operations on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use bytes::Bytes;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use proto::statesync::{
    ApplyOperationRequest, ApplyOperationResponse, CreateDocumentRequest, Document, GetDocumentRequest,
    GetStatsRequest, Operation,
};
use uuid::Uuid;

use super::closed::{Caller, Pace, Workload};
use crate::replay::wire::Wire;

/// After so many operations a document makes way for a fresh one. A text's history may have 3 MiB, of which a letter
/// takes some 20 bytes, and the service knows 65,536 operation ids without asking its store.
const GENERATION_OPERATIONS: u64 = 50_000;
/// The same at a steady rate, which is to find the service in a steady state: documents come and go within minutes, not hours.
const PACED_GENERATION_OPERATIONS: u64 = 5_000;
/// More operations a second than this would fill the last of a document's successors.
const OPERATIONS_PER_S_MAX: f64 = 100_000.0;
/// The version of a document that nobody has changed.
const FIRST_VERSION: u64 = 1;

/// The generated client.
pub(super) type Client = StateSyncServiceClient<Wire>;

/// Documents that are created and left alone.
pub(super) struct Creations {
    /// How many there were at the beginning.
    before: u64,
    created: AtomicU64,
}

impl Creations {
    /// Beside the documents that there are.
    ///
    /// # Errors
    /// If the service refuses.
    pub(super) async fn prepare(wire: &Wire) -> anyhow::Result<Self> {
        Ok(Self { before: total(&mut Client::new(wire.clone())).await?, created: AtomicU64::new(0) })
    }
}

impl Workload for Creations {
    type Client = Client;

    fn client(&self, wire: Wire) -> Client {
        Client::new(wire)
    }

    async fn call(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let name = format!("document {} of {}", caller.calls, caller.number);
        let document = create(client, name.clone(), Bytes::new()).await?;
        ensure!(document.name == name, "a document named {} came for {name}", document.name);
        ensure!(document.version == FIRST_VERSION, "a document starts at version {}", document.version);
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn check(&self, wire: Wire) -> anyhow::Result<()> {
        let expected = self.before + self.created.load(Ordering::Relaxed);
        let found = total(&mut Client::new(wire)).await?;
        ensure!(found == expected, "the service has {found} documents of {expected} that it acknowledged");
        Ok(())
    }
}

/// Operations on a number of documents in turn.
pub(super) struct Operations {
    slots: Vec<Slot>,
    /// Operations insert at places 0 to this; so long is each text in the beginning.
    spread: usize,
}

/// A document and those that take its place when it has had its share of operations.
struct Slot {
    chosen: AtomicU64,
    /// The share of each.
    operations: u64,
    generations: Vec<Arc<Kept>>,
}

/// A document and what was acknowledged of it.
pub(super) struct Kept {
    id: String,
    /// Acknowledged operations, and the sum and the largest of their versions.
    applied: AtomicU64,
    version_sum: AtomicU64,
    version_max: AtomicU64,
}

impl Slot {
    /// The document of the next operation.
    fn next(&self) -> &Arc<Kept> {
        let generation = self.chosen.fetch_add(1, Ordering::Relaxed) / self.operations;
        &self.generations[(generation as usize).min(self.generations.len() - 1)]
    }
}

impl Kept {
    fn new(id: String) -> Self {
        let version_max = AtomicU64::new(FIRST_VERSION);
        Self { id, applied: AtomicU64::new(0), version_sum: AtomicU64::new(0), version_max }
    }

    /// An operation was acknowledged as this version.
    pub(super) fn acknowledged(&self, version: u64) {
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.version_sum.fetch_add(version, Ordering::Relaxed);
        self.version_max.fetch_max(version, Ordering::Relaxed);
    }

    /// Whether a document at `version` with so many letters inserted is what was acknowledged: versions 2, 3, 4, ...,
    /// each once.
    fn check(&self, version: u64, letters: u64) -> anyhow::Result<()> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (applied, sum, max) = (read(&self.applied), read(&self.version_sum), read(&self.version_max));
        let id = &self.id;
        ensure!(
            version == FIRST_VERSION + applied,
            "document {id} has version {version} after {applied} acknowledged operations"
        );
        // The sum of 2 to applied + 1.
        let is_dense = max == version && sum == applied * (applied + 3) / 2;
        ensure!(is_dense, "the acknowledged versions of document {id} are not 2 to {version}, each once");
        ensure!(letters == applied, "document {id} has {letters} letters of {applied} acknowledged operations");
        Ok(())
    }
}

impl Operations {
    /// Creates `documents` documents and their successors.
    ///
    /// # Errors
    /// If the service refuses.
    pub(super) async fn prepare(documents: usize, spread: usize, pace: Pace, wire: &Wire) -> anyhow::Result<Self> {
        let mut client = Client::new(wire.clone());
        let per_s = pace.rate.unwrap_or(OPERATIONS_PER_S_MAX);
        let operations = if pace.rate.is_some() { PACED_GENERATION_OPERATIONS } else { GENERATION_OPERATIONS };
        let most = per_s * (pace.warmup + pace.measured).as_secs_f64() / documents as f64;
        let generations = 1 + (most / operations as f64).ceil() as usize;
        let content = Bytes::from(vec![b'.'; spread]);
        let mut slots = Vec::with_capacity(documents);
        for slot in 0..documents {
            let mut kept = Vec::with_capacity(generations);
            for generation in 0..generations {
                let name = format!("document {slot}, {generation}");
                kept.push(Arc::new(Kept::new(create(&mut client, name, content.clone()).await?.id)));
            }
            slots.push(Slot { chosen: AtomicU64::new(0), operations, generations: kept });
        }
        Ok(Self { slots, spread })
    }

    /// The caller's next operation and its document.
    pub(super) fn next(&self, caller: &Caller) -> (Arc<Kept>, Operation) {
        let document = self.slots[((caller.number + caller.calls) % self.slots.len() as u64) as usize].next();
        // Two primes: callers begin far from each other, and none stays where it was.
        let place = (caller.number * 104_729 + caller.calls * 7919) % self.spread as u64;
        let operation = Operation {
            doc_id: document.id.clone(),
            session_id: caller.session.clone(),
            prev_version: document.version_max.load(Ordering::Relaxed),
            ..edit(format!("{{\"pos\":{place},\"ins\":\"x\"}}"))
        };
        (Arc::clone(document), operation)
    }
}

impl Workload for Operations {
    type Client = Client;

    fn client(&self, wire: Wire) -> Client {
        Client::new(wire)
    }

    async fn call(&self, client: &mut Client, caller: &Caller) -> anyhow::Result<()> {
        let (document, operation) = self.next(caller);
        document.acknowledged(apply(client, operation).await?);
        Ok(())
    }

    async fn check(&self, wire: Wire) -> anyhow::Result<()> {
        let mut client = Client::new(wire);
        for slot in &self.slots {
            for document in &slot.generations {
                let request = GetDocumentRequest { doc_id: document.id.clone() };
                let found = client.get_document(request).await?.into_inner();
                let found = found.document.context("the answer has no document")?;
                let letters = found.content.len().checked_sub(self.spread).context("the document has lost text")?;
                document.check(found.version, letters as u64)?;
            }
        }
        Ok(())
    }
}

/// Creates a text document.
///
/// # Errors
/// If the service refuses.
pub(super) async fn create(client: &mut Client, name: String, content: Bytes) -> anyhow::Result<Document> {
    let request = CreateDocumentRequest {
        name,
        r#type: "text".to_owned(),
        created_by: "writer".to_owned(),
        content,
        ..CreateDocumentRequest::default()
    };
    let answer = client.create_document(request).await?.into_inner();
    answer.document.context("the answer has no document")
}

/// How many documents there are.
async fn total(client: &mut Client) -> anyhow::Result<u64> {
    let answer = client.get_stats(GetStatsRequest {}).await?.into_inner();
    let total = answer.stats.context("the answer has no statistics")?.total_documents;
    u64::try_from(total).context("the service has a negative number of documents")
}

/// An operation on a text with an id of its own, as a client sends that may have to send it again.
pub(super) fn edit(data: String) -> Operation {
    Operation {
        id: Uuid::now_v7().to_string(),
        user_id: "writer".to_owned(),
        r#type: "text".to_owned(),
        data: data.into(),
        ..Operation::default()
    }
}

/// Sends an operation; gives the version that it was acknowledged as.
///
/// # Errors
/// If it was refused, waits in a conflict, or another came back.
pub(super) async fn apply(client: &mut Client, operation: Operation) -> anyhow::Result<u64> {
    let id = operation.id.clone();
    let answer = client.apply_operation(ApplyOperationRequest { operation: Some(operation) }).await?.into_inner();
    version(answer, &id)
}

/// The version that an operation was acknowledged as.
///
/// # Errors
/// If it waits in a conflict, or another came back.
pub(super) fn version(answer: ApplyOperationResponse, id: &str) -> anyhow::Result<u64> {
    ensure!(answer.success, "the operation was not applied: {}", answer.error);
    let applied = answer.applied_operation.context("the answer has no operation")?;
    ensure!(applied.id == id, "operation {} came for {id}", applied.id);
    Ok(applied.version)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::{Kept, Slot};

    #[test]
    fn versions_that_are_missing_or_twice_there_are_found() {
        let acknowledged = |versions: &[u64]| {
            let document = Kept::new("a".to_owned());
            for version in versions {
                document.acknowledged(*version);
            }
            document
        };
        assert!(acknowledged(&[]).check(1, 0).is_ok());
        assert!(acknowledged(&[3, 2, 4]).check(4, 3).is_ok());
        for (versions, version, letters) in
            [(&[2, 3][..], 4, 2), (&[2, 4], 3, 2), (&[2, 2, 4], 4, 3), (&[2, 3], 3, 3), (&[], 2, 1)]
        {
            assert!(acknowledged(versions).check(version, letters).is_err(), "{versions:?} at {version}");
        }
    }

    #[test]
    fn a_document_makes_way_for_the_next_one_and_the_last_one_stays() {
        let generations = ["a", "b"].map(|id| Arc::new(Kept::new(id.to_owned()))).into();
        let slot = Slot { chosen: AtomicU64::new(9), operations: 10, generations };
        assert_eq!([slot.next(), slot.next()].map(|document| document.id.as_str()), ["a", "b"]);
        slot.chosen.fetch_add(30, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(slot.next().id, "b");
    }
}
