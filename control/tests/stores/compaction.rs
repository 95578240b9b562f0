//! Logs that are cut behind their snapshots, on every store.

use control::store::StoreKind;
use control::up::UpOptions;
use proto::statesync as pb;
use tonic::Code;
use uuid::Uuid;

use crate::common::*;

/// How many operations the documents of these tests keep at least.
const RETAINED: u64 = 100;
/// More than the operations after which a snapshot is kept, of which a part is cut.
const WRITTEN: usize = 1200;
const WRITERS: usize = 8;

fn short(options: &mut UpOptions) {
    options.documents.retained_operations = RETAINED;
}

#[tokio::test]
async fn memory_keeps_no_more_of_a_log_than_it_is_told() {
    let world = World::start_with(|options| {
        options.document_store = StoreKind::Memory;
        short(options);
    });
    Box::pin(a_log_is_cut_behind_its_snapshot(world.await, false)).await;
}

#[tokio::test]
async fn sqlite_keeps_no_more_of_a_log_than_it_is_told() {
    Box::pin(a_log_is_cut_behind_its_snapshot(World::start_with(short).await, true)).await;
}

#[tokio::test]
async fn postgres_keeps_no_more_of_a_log_than_it_is_told() {
    let Some(world) = World::on_postgres_with(short).await else { return };
    Box::pin(a_log_is_cut_behind_its_snapshot(world, true)).await;
}

/// Has several write one letter after the other into a text.
pub(crate) async fn write(client: &Documents, doc_id: &str) {
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (mut client, doc_id) = (client.clone(), doc_id.to_owned());
        writers.spawn(async move {
            let session = Uuid::now_v7();
            for _ in 0..WRITTEN / WRITERS {
                apply(&mut client, insertion(&doc_id, session, 1, 0, "x")).await.unwrap();
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
}

async fn history(client: &mut Documents, doc_id: &str) -> Vec<pb::Operation> {
    let request = pb::GetOperationHistoryRequest { doc_id: doc_id.into(), limit: 10_000 };
    client.get_operation_history(request).await.unwrap().into_inner().operations
}

async fn a_log_is_cut_behind_its_snapshot(mut world: World, survives: bool) {
    let doc_id = create_text(&mut world.documents, "").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "ada")).await;
    let epoch = next(&mut events).await.epoch;
    drop(events);
    write(&world.documents, &doc_id).await;
    let document = get(&mut world.documents, &doc_id).await;
    assert_eq!((document.version, document.content.len()), (1 + WRITTEN as u64, WRITTEN));
    is_cut(&mut world.documents, &document, &epoch).await;
    if !survives {
        return;
    }
    let mut world = world.restart().await;
    assert_eq!(get(&mut world.documents, &doc_id).await.content, document.content);
    is_cut(&mut world.documents, &document, &epoch).await;
    // Who writes from what is gone is told where the document is.
    let session = Uuid::now_v7();
    let status = apply(&mut world.documents, insertion(&doc_id, session, 2, 0, "y")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "VERSION_TOO_OLD"));
    let applied = apply(&mut world.documents, insertion(&doc_id, session, document.version, 0, "y")).await.unwrap();
    assert_eq!(applied.version, document.version + 1);
}

/// The newest operations are there without a gap, the oldest are not; who resumes from one of those gets the state.
async fn is_cut(client: &mut Documents, document: &pb::Document, epoch: &str) {
    let mut versions: Vec<u64> =
        history(client, &document.id).await.iter().map(|operation| operation.version).collect();
    versions.sort_unstable();
    let kept = versions.len() as u64;
    assert!((RETAINED..WRITTEN as u64 / 2).contains(&kept), "{kept} operations");
    assert_eq!(versions, (document.version - kept + 1..=document.version).collect::<Vec<_>>());
    let stats = client.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner().stats.unwrap();
    assert_eq!(stats.total_operations, WRITTEN as i64, "what was cut counts");
    for (have, gets_state) in [(2, true), (document.version - 1, false)] {
        let resumed = pb::SubscribeDocumentRequest {
            resume_epoch: epoch.to_owned(),
            resume_version: have,
            ..subscription(&document.id, "ada")
        };
        let mut events = subscribe(client, resumed).await;
        let mut event = next(&mut events).await;
        while event.version < document.version {
            event = next(&mut events).await;
        }
        assert_eq!(event.document.is_some(), gets_state, "from version {have}: {event:?}");
        if let Some(state) = event.document {
            assert_eq!(state.content, document.content);
        }
    }
}
