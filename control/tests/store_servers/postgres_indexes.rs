//! Every index is there for a query, and every query of one document finds its rows by an index.

use std::collections::BTreeSet;
use std::time::Duration;

use control::statesync::{
    Batch, ConflictFilter, DocumentFilter, DocumentRecord, DocumentStore, Durability, PostgresDocuments, Purged,
};
use sqlx::Row;
use tokio::sync::watch;
use uuid::Uuid;

use crate::common::*;

/// Enough of everything that an index is worth its while: 20,000 documents, 20 of them with 1000 operations, four with 5000
/// conflicts of which ten wait.
const PLENTY: &str = "
INSERT INTO documents SELECT gen_random_uuid(), 'd', 'text', 'active', 1001, 'e', 'user ' || n % 1000,
    now() + n * interval '1 second', 'u', now(), ''::bytea, 1, false FROM generate_series(1, 20000) AS n;
INSERT INTO snapshots SELECT id, 1, false, ''::bytea FROM documents;
INSERT INTO readers SELECT created_by, id FROM documents;
INSERT INTO operations SELECT d.id, v, gen_random_uuid(), gen_random_uuid(), 0, 'key ' || v, sha256(v::text::bytea), 0, v,
    ''::bytea, ''::bytea, NULL, NULL, false
    FROM (SELECT id FROM documents ORDER BY created_at LIMIT 20) AS d, generate_series(2, 1001) AS v;
INSERT INTO conflicts SELECT gen_random_uuid(), d.id, now() + n * interval '1 second',
    CASE WHEN n % 500 = 0 THEN NULL ELSE now() END, ''::bytea, gen_random_uuid(), 'key ' || n, sha256(n::text::bytea)
    FROM (SELECT id FROM documents ORDER BY created_at LIMIT 4) AS d, generate_series(1, 5000) AS n;
ANALYZE;
";
const INDEXES: [&str; 14] = [
    "documents_pkey",
    "documents_by_creation",
    "documents_by_creator",
    "documents_deleted",
    "snapshots_pkey",
    "operations_pkey",
    "operations_by_id",
    "operations_by_key",
    "readers_pkey",
    "readers_by_document",
    "conflicts_by_document",
    "conflicts_waiting",
    "conflicts_by_operation",
    "conflicts_by_key",
];

async fn ask_everything(documents: &PostgresDocuments, id: Uuid) {
    let all = DocumentFilter { limit: 50, ..Default::default() };
    assert_eq!(documents.list(&all).await.unwrap().1, 20_000);
    let by_creator = DocumentFilter { created_by: "user 7".into(), ..all.clone() };
    assert_eq!(documents.list(&by_creator).await.unwrap().0.len(), 20);
    let readable = DocumentFilter { user_id: "user 8".into(), ..all };
    assert_eq!(documents.list(&readable).await.unwrap().0.len(), 20);
    assert_eq!(documents.operations_after(id, 900).await.unwrap().len(), 101);
    assert_eq!(documents.newest_rows(id, (100, 1 << 20)).await.unwrap(), Some(901));
    assert_eq!(documents.operations_last(id, 10).await.unwrap().len(), 10);
    assert!(documents.operation(id, 500).await.unwrap().is_some());
    let nobody = Uuid::now_v7();
    assert_eq!(documents.find_operation(id, nobody, "key 70").await.unwrap().map(|found| found.1), Some(70));
    assert!(documents.find_operation(id, nobody, "").await.unwrap().is_none());
    let page = ConflictFilter { unresolved_only: false, offset: 0, limit: 50 };
    let (conflicts, total) = documents.conflicts(id, page).await.unwrap();
    assert_eq!((conflicts.len(), total), (50, 5000));
    let (waiting, total) = documents.conflicts(id, ConflictFilter { unresolved_only: true, ..page }).await.unwrap();
    assert_eq!((waiting.len(), total), (10, 10));
    assert!(documents.conflict(id, waiting[0].id).await.unwrap().is_some());
    let pending = waiting[0].pending.as_ref().unwrap();
    let found = documents.find_pending(id, pending.op_id, "").await.unwrap();
    assert_eq!(found.map(|record| record.id), Some(waiting[0].id));
    let found = documents.find_pending(id, nobody, &pending.idempotency_key).await.unwrap();
    assert_eq!(found.map(|record| record.id), Some(waiting[0].id));
    assert_eq!(documents.purge(control::clock::now()).await.unwrap(), Purged::default());
}

/// Gives the document other readers.
async fn describe(documents: &PostgresDocuments, record: DocumentRecord) {
    let durable = watch::Sender::new(Durability::default());
    let mut kept = durable.subscribe();
    let batch = Batch {
        doc_id: record.id,
        rows: Vec::new(),
        described: Some(Box::new(record)),
        lock: None,
        conflicts: Vec::new(),
        snapshot: None,
        trim: None,
        ticket: 1,
        durable,
        origins: Vec::new(),
        timer: None,
    };
    documents.submit(batch).await.unwrap();
    let state = kept.wait_for(|state| state.ticket == 1 || state.failed.is_some()).await.unwrap().clone();
    assert!(state.failed.is_none(), "{state:?}");
}

#[tokio::test]
async fn every_index_is_used_by_the_query_that_it_is_for() {
    let Some(postgres) = PostgresServer::start().await else { return };
    let (documents, committer) = PostgresDocuments::open(&postgres.options()).await.unwrap();
    let mut admin = postgres.connect().await;
    sqlx::raw_sql(PLENTY).execute(&mut admin).await.unwrap();
    sqlx::raw_sql("SELECT pg_stat_reset()").execute(&mut admin).await.unwrap();
    let oldest = sqlx::query_scalar("SELECT id FROM documents ORDER BY created_at, id LIMIT 1");
    let id: Uuid = oldest.fetch_one(&mut admin).await.unwrap();
    ask_everything(&documents, id).await;
    describe(&documents, documents.document(id).await.unwrap().unwrap()).await;
    // A process that ends says what it did.
    drop(documents);
    committer.await.unwrap();
    eventually(Duration::from_secs(20), async || {
        let query = "SELECT indexrelname::text AS name FROM pg_stat_user_indexes WHERE idx_scan > 0";
        let rows = sqlx::query(query).fetch_all(&mut admin).await.unwrap();
        let used: BTreeSet<String> = rows.iter().map(|row| row.get("name")).collect();
        let unused: Vec<_> = INDEXES.into_iter().filter(|index| !used.contains(*index)).collect();
        if unused.is_empty() { Ok(()) } else { Err(format!("no query uses {unused:?}")) }
    })
    .await;
    let read: i64 = sqlx::query_scalar("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'operations'")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(read, 0, "the logs of all documents were read for one");
}
