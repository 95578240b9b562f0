//! The actor alone, on documents in memory.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use tonic::Code;

use super::*;
use crate::clock::{self, UnixMicros};
use crate::statesync::memory::MemoryDocuments;
use crate::statesync::registry::DocumentOptions;
use crate::statesync::sqlite::SqliteDocuments;
use crate::statesync::store::{ConflictFilter, DocumentStore};

/// A board on which somebody decides.
const BOARD: &[u8] = br#"{"elements":{"e":{"x":0}}}"#;

fn shared_on(store: Arc<dyn DocumentStore>) -> Arc<Shared> {
    Arc::new(Shared { store, options: DocumentOptions::default(), subscribers: AtomicU64::new(0) })
}

async fn load(shared: &Arc<Shared>, id: Uuid) -> DocumentActor {
    DocumentActor::load(Arc::clone(shared), id).await.unwrap().unwrap()
}

async fn create(shared: &Arc<Shared>) -> Uuid {
    let id = Uuid::now_v7();
    let properties = HashMap::from([("conflict_resolution".to_owned(), "manual".to_owned())]);
    let record = DocumentRecord {
        id,
        name: "a board".into(),
        kind: "canvas".into(),
        state: "active".into(),
        version: 1,
        epoch: "epoch".into(),
        created_by: "ada".into(),
        created_at: clock::now(),
        updated_by: "ada".into(),
        updated_at: clock::now(),
        metadata: pb::Metadata { properties, ..Default::default() },
        described_version: 1,
        lock: None,
        snapshot: Content::initial_snapshot("canvas", &Bytes::from_static(BOARD), yjs_client(id)).unwrap(),
    };
    shared.store.create(record).await.unwrap();
    id
}

/// An operation from version 1, by a session of its own.
fn submission(doc_id: Uuid, data: &str) -> Arc<Submission> {
    let operation = pb::Operation {
        doc_id: doc_id.to_string(),
        user_id: "ada".into(),
        session_id: Uuid::now_v7().to_string(),
        r#type: "update".into(),
        data: data.as_bytes().to_vec().into(),
        prev_version: 1,
        ..Default::default()
    };
    Arc::new(Submission::check(Some(operation)).unwrap())
}

async fn apply(actor: &mut DocumentActor, submission: &Arc<Submission>) -> Applied {
    let (reply, answer) = Reply::channel(None);
    actor.handle(Command::Apply(Arc::clone(submission), reply)).await;
    actor.flush().await;
    let Ok(applied) = answer.await.unwrap() else { panic!("it was refused") };
    applied
}

/// The conflict in which it waits.
async fn waits(actor: &mut DocumentActor, submission: &Arc<Submission>) -> ConflictRecord {
    match apply(actor, submission).await {
        Applied::Waits(record) => *record,
        Applied::Now(_) | Applied::Before(_) => panic!("it was applied"),
    }
}

async fn resolve(actor: &mut DocumentActor, conflict_id: Uuid, choice: Choice) -> Result<Resolved, Status> {
    let (reply, answer) = Reply::channel(None);
    let resolution = Arc::new(Resolution { conflict_id, user_id: "judge".into(), choice });
    actor.handle(Command::Resolve(resolution, reply)).await;
    actor.flush().await;
    answer.await.unwrap()
}

async fn conflicts(shared: &Arc<Shared>, id: Uuid) -> Vec<ConflictRecord> {
    let filter = ConflictFilter { limit: 100, ..Default::default() };
    shared.store.conflicts(id, filter).await.unwrap().0
}

/// A board on which somebody wrote what others did not know.
async fn with_a_write() -> (Arc<Shared>, Uuid, DocumentActor) {
    let shared = shared_on(Arc::new(MemoryDocuments::default()));
    let id = create(&shared).await;
    let mut actor = load(&shared, id).await;
    apply(&mut actor, &submission(id, WRITE)).await;
    (shared, id, actor)
}

const WRITE: &str = r#"{"id": "e", "set": {"x": 1}}"#;
const OVERWRITE: &str = r#"{"id": "e", "set": {"x": 2}}"#;
const BOTH: &str = r#"{"id": "e", "set": {"x": 12}}"#;

#[tokio::test]
async fn an_operation_without_a_name_that_waits_is_known_to_a_document_that_is_loaded_afresh() {
    let (shared, id, mut actor) = with_a_write().await;
    let waiting = submission(id, OVERWRITE);
    assert!(!waiting.is_named());
    let first = waits(&mut actor, &waiting).await;
    // Its answer was lost with the actor, so the registry asks the next one.
    let again = waits(&mut load(&shared, id).await, &waiting).await;
    assert_eq!((again.id, conflicts(&shared, id).await.len()), (first.id, 1));
}

#[tokio::test]
async fn what_a_decision_applies_and_that_it_was_made_are_kept_together() {
    let (shared, id, mut actor) = with_a_write().await;
    // It is no typed content, so the document has to be kept as a whole.
    let whole = submission(id, "no board at all");
    let conflict = waits(&mut actor, &whole).await;
    let (reply, _answer) = Reply::channel(None);
    let choice = Choice::Side(whole.op_id);
    let resolution = Arc::new(Resolution { conflict_id: conflict.id, user_id: "judge".into(), choice });
    actor.handle(Command::Resolve(resolution, reply)).await;
    // If everything ended here, as far as the store has it, nobody could decide for the same again.
    let record = shared.store.document(id).await.unwrap().unwrap();
    assert_eq!((record.version, record.snapshot.typed), (3, false));
    assert!(conflicts(&shared, id).await[0].is_resolved());
}

#[tokio::test]
async fn a_decision_that_comes_again_is_answered_as_before_and_another_one_refused() {
    let (shared, id, mut actor) = with_a_write().await;
    let waiting = submission(id, OVERWRITE);
    let conflict = waits(&mut actor, &waiting).await;
    let first = resolve(&mut actor, conflict.id, Choice::Side(waiting.op_id)).await.unwrap();
    assert_eq!(resolve(&mut actor, conflict.id, Choice::Side(waiting.op_id)).await.unwrap(), first);
    // After the document was loaded afresh, too.
    let mut actor = load(&shared, id).await;
    assert_eq!(resolve(&mut actor, conflict.id, Choice::Side(waiting.op_id)).await.unwrap(), first);
    assert_eq!((actor.record.version, first.1.unwrap().version), (3, 3));
    let rival = first.0.ops[0].id.parse().unwrap();
    let refused = resolve(&mut actor, conflict.id, Choice::Side(rival)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_merged_operation_that_decided_is_taken_once() {
    let (_, id, mut actor) = with_a_write().await;
    let conflict = waits(&mut actor, &submission(id, OVERWRITE)).await;
    let session_id = Uuid::now_v7().to_string();
    let merged = |key: &str, data: &str| {
        let operation = pb::Operation {
            doc_id: id.to_string(),
            user_id: "judge".into(),
            session_id: session_id.clone(),
            r#type: "update".into(),
            data: data.as_bytes().to_vec().into(),
            prev_version: 2,
            idempotency_key: key.into(),
            ..Default::default()
        };
        Choice::Merged(Box::new(Submission::check(Some(operation)).unwrap()))
    };
    let first = resolve(&mut actor, conflict.id, merged("key", BOTH)).await.unwrap();
    assert_eq!(resolve(&mut actor, conflict.id, merged("key", BOTH)).await.unwrap(), first);
    for choice in [merged("key", WRITE), merged("", BOTH), merged("another", BOTH)] {
        let refused = resolve(&mut actor, conflict.id, choice).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    assert_eq!(actor.record.version, 3);
}

#[tokio::test]
async fn an_operation_that_was_decided_for_is_told_so_when_the_log_has_it_no_longer() {
    let (_, id, mut actor) = with_a_write().await;
    let waiting = submission(id, OVERWRITE);
    let conflict = waits(&mut actor, &waiting).await;
    resolve(&mut actor, conflict.id, Choice::Side(waiting.op_id)).await.unwrap();
    actor.recent = Recent::new(false);
    let told = crate::statesync::operations::waiting(&waits(&mut actor, &waiting).await);
    assert_eq!((told.success, told.applied_operation.map(|operation| operation.version)), (true, Some(3)));
}

/// Waits until what the actor has sent to the store is kept, or failed.
async fn written(actor: &mut DocumentActor) -> Durability {
    actor.flush().await;
    let mut durable = actor.line.durable.subscribe();
    let is_over = |state: &Durability| state.ticket == actor.line.ticket || state.failed.is_some();
    let written = tokio::time::timeout(Duration::from_secs(10), durable.wait_for(is_over)).await;
    written.expect("the store answers in time").unwrap().clone()
}

#[tokio::test]
async fn who_would_have_a_document_back_that_is_just_removed_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("documents.db");
    let (sqlite, _) = SqliteDocuments::open(&file, crate::store::Durability::System).await.unwrap();
    let stores: [Arc<dyn DocumentStore>; 2] = [Arc::new(MemoryDocuments::default()), Arc::new(sqlite)];
    for store in stores {
        let shared = shared_on(store);
        let id = create(&shared).await;
        let mut actor = load(&shared, id).await;
        actor.handle(Command::Delete("ada".into(), Reply::channel(None).0)).await;
        assert!(written(&mut actor).await.failed.is_none());
        let purged = shared.store.purge(UnixMicros(i64::MAX)).await.unwrap();
        assert_eq!((purged.documents, purged.more), (vec![id], false));
        let again = pb::Document {
            id: id.to_string(),
            state: "active".into(),
            updated_by: "ada".into(),
            version: 2,
            ..Default::default()
        };
        actor.handle(Command::Update(Arc::new(again), Reply::channel(None).0)).await;
        assert!(written(&mut actor).await.failed.is_some());
        assert!(shared.store.document(id).await.unwrap().is_none());
        assert!(shared.store.operations_after(id, 0).await.unwrap().is_empty());
    }
}
