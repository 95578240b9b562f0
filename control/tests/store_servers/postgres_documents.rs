//! The document service on a PostgreSQL that is killed, stopped, shared, and of another version.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::statesync::PostgresDocuments;
use proto::statesync as pb;
use tokio::task::JoinSet;
use tonic::Code;
use uuid::Uuid;

use crate::common::commands::{AETHERFLOW, said};
use crate::common::outage::{Calls, RECOVERY, kills, refused, timed};
use crate::common::service::ServiceProcess;
use crate::common::*;

const DOCUMENTS: usize = 4;
const WRITERS: usize = 8;

/// What writers were told.
#[derive(Default)]
pub(super) struct History {
    pub(super) calls: Calls,
    /// The versions that were acknowledged, by document.
    versions: Mutex<BTreeMap<String, BTreeSet<u64>>>,
}

impl History {
    /// Of these calls.
    pub(super) fn of(calls: Calls) -> Self {
        Self { calls, ..Self::default() }
    }

    /// Applies an operation, however often it is refused; gives its version.
    async fn apply(&self, client: &Documents, operation: pb::Operation) -> u64 {
        let doc_id = operation.doc_id.clone();
        let request = pb::ApplyOperationRequest { operation: Some(operation) };
        let apply = || {
            let (mut client, request) = (client.clone(), timed(request.clone()));
            async move { client.apply_operation(request).await }
        };
        let version = self.calls.acknowledged(apply).await.into_inner().applied_operation.unwrap().version;
        let mut versions = self.versions.lock().unwrap();
        assert!(versions.entry(doc_id).or_default().insert(version), "version {version} was given twice");
        version
    }

    /// Every acknowledged operation made one version and one letter, and nothing else did.
    pub(super) async fn check(&self, client: &mut Documents) {
        let acknowledged = self.versions.lock().unwrap().clone();
        for (doc_id, versions) in acknowledged {
            let document = get(client, &doc_id).await;
            assert_eq!(versions, (2..=document.version).collect::<BTreeSet<_>>(), "lost or doubled in {doc_id}");
            assert_eq!(document.content.len(), versions.len());
        }
    }
}

/// Writes one letter after the other until it is told to stop, each of them until it is acknowledged.
async fn write(client: Documents, doc_id: String, history: Arc<History>) {
    let (session, mut base) = (Uuid::now_v7(), 1);
    while history.calls.go_on() {
        let id = Uuid::now_v7().to_string();
        base = history.apply(&client, pb::Operation { id, ..insertion(&doc_id, session, base, 0, "x") }).await;
    }
}

pub(super) async fn writers(address: SocketAddr, history: &Arc<History>) -> JoinSet<()> {
    let mut doc_ids = Vec::new();
    for _ in 0..DOCUMENTS {
        doc_ids.push(create_text(&mut documents(address).await, "").await);
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let doc_id = doc_ids[writer % DOCUMENTS].clone();
        writers.spawn(write(documents(address).await, doc_id, Arc::clone(history)));
    }
    writers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_once_after_postgres_was_killed_in_the_middle_of_writes() {
    let Some(postgres) = PostgresServer::alone().await else { return };
    let mut world = World::on_postgres_at(postgres, |_| {}).await;
    let postgres = world.postgres.take().unwrap();
    let history = Arc::new(History::default());
    let writers = writers(world.running.statesync_addr, &history).await;
    for _ in 1..=kills() {
        history.calls.until_kill().await;
        postgres.kill();
        history.calls.until_refused().await;
        postgres.restart().await;
        history.calls.recover().await;
    }
    history.calls.end(writers).await;
    history.check(&mut world.documents).await;
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_once_after_the_service_was_killed_in_the_middle_of_writes() {
    let Some(postgres) = PostgresServer::start().await else { return };
    let mut service = ServiceProcess::start("statesync", &postgres.section()).await;
    let history = Arc::new(History::of(Calls::of_dying_service()));
    let writers = writers(service.address, &history).await;
    history.calls.outlive(&mut service).await;
    history.calls.end(writers).await;
    history.check(&mut documents(service.address).await).await;
}

/// What every call that needs the store is told while it is down: the codes, each within the deadline.
async fn refusals(client: &mut Documents, doc_id: &str) -> Vec<Code> {
    let create = pb::CreateDocumentRequest {
        name: "a document".into(),
        r#type: "text".into(),
        created_by: "ada".into(),
        ..Default::default()
    };
    let apply = pb::ApplyOperationRequest { operation: Some(insertion(doc_id, Uuid::now_v7(), 1, 0, "y")) };
    vec![
        refused(client.create_document(timed(create))).await,
        refused(client.apply_operation(timed(apply))).await,
        refused(client.list_documents(timed(pb::ListDocumentsRequest::default()))).await,
        refused(client.get_stats(timed(pb::GetStatsRequest {}))).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_down_calls_fail_in_time_and_the_service_recovers_by_itself() {
    let Some(postgres) = PostgresServer::alone().await else { return };
    let mut world = World::on_postgres_at(postgres, |_| {}).await;
    let doc_id = create_text(&mut world.documents, "").await;
    is_ready_within(world.running.statesync_metrics_addr, RECOVERY).await;
    world.postgres.as_ref().unwrap().kill();
    assert_eq!(refusals(&mut world.documents, &doc_id).await, [Code::Unavailable; 4]);
    let answer = http_get(world.running.statesync_metrics_addr, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    world.postgres.as_ref().unwrap().restart().await;
    is_ready_within(world.running.statesync_metrics_addr, RECOVERY).await;
    let history = History::default();
    tokio::time::timeout(RECOVERY, history.apply(&world.documents, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")))
        .await
        .unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, "x", "what was refused was not done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_falls_silent_fails_calls_in_time_and_is_used_again_when_it_speaks() {
    let Some(postgres) = PostgresServer::alone().await else { return };
    let hasty = |up: &mut control::up::UpOptions| {
        let options = up.postgres.as_mut().unwrap();
        (options.connect_timeout, options.statement_timeout) = (Duration::from_millis(500), Duration::from_secs(1));
    };
    let mut world = World::on_postgres_at(postgres, hasty).await;
    let doc_id = create_text(&mut world.documents, "").await;
    let history = History::default();
    let session = Uuid::now_v7();
    history.apply(&world.documents, insertion(&doc_id, session, 1, 0, "x")).await;
    world.postgres.as_ref().unwrap().signal_all("-STOP");
    let codes = refusals(&mut world.documents, &doc_id).await;
    world.postgres.as_ref().unwrap().signal_all("-CONT");
    assert_eq!(codes, [Code::Unavailable; 4]);
    let operation = insertion(&doc_id, session, 2, 0, "x");
    tokio::time::timeout(RECOVERY, history.apply(&world.documents, operation)).await.unwrap();
    is_ready_within(world.running.statesync_metrics_addr, RECOVERY).await;
}

#[tokio::test]
async fn connections_that_the_server_ends_between_calls_fail_no_call() {
    let Some(mut world) = World::on_postgres().await else { return };
    let doc_id = create_text(&mut world.documents, "").await;
    let mut admin = world.postgres.as_ref().unwrap().connect().await;
    for round in 0..3 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = 'aetherflow' AND datname = current_database()";
        let ended: i64 = sqlx::query_scalar(end).fetch_one(&mut admin).await.unwrap();
        assert!(ended > 0);
        let operation = insertion(&doc_id, Uuid::now_v7(), 1 + round, 0, "x");
        apply(&mut world.documents, operation).await.unwrap();
        create_text(&mut world.documents, "").await;
        let listed = world.documents.list_documents(pb::ListDocumentsRequest::default()).await.unwrap();
        assert_eq!(u64::from(listed.into_inner().total.unsigned_abs()), 2 + round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_calls_gets_no_more_connections_than_the_options_allow() {
    let Some(mut world) = World::on_postgres().await else { return };
    let postgres = world.postgres.as_ref().unwrap();
    let mut admin = postgres.connect().await;
    create_text(&mut world.documents, "").await;
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let mut client = world.documents.clone();
        calls.spawn(async move {
            for _ in 0..50 {
                client.list_documents(pb::ListDocumentsRequest::default()).await.unwrap();
                create_text(&mut client, "").await;
            }
        });
    }
    let mut most = 0;
    while !calls.is_empty() {
        let query = "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = 'aetherflow' AND datname = current_database()";
        let connections: i64 = sqlx::query_scalar(query).fetch_one(&mut admin).await.unwrap();
        most = most.max(connections);
        while let Some(ended) = calls.try_join_next() {
            ended.unwrap();
        }
    }
    let allowed = i64::from(postgres.options().connections);
    assert!((3..=allowed).contains(&most), "{most} connections of {allowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_on_one_database_never_make_one_version_twice() {
    let Some(mut first) = World::on_postgres().await else { return };
    let options = first.postgres.as_ref().unwrap().options();
    let second = World::start_with(|up| {
        (up.document_store, up.postgres) = (control::store::StoreKind::Postgres, Some(options));
    });
    let second = second.await;
    let doc_id = create_text(&mut first.documents, "").await;
    let history = Arc::new(History::default());
    let mut writers = JoinSet::new();
    for client in [first.documents.clone(), second.documents.clone()] {
        let (doc_id, history) = (doc_id.clone(), Arc::clone(&history));
        writers.spawn(async move {
            let session = Uuid::now_v7();
            for _ in 0..15 {
                let id = Uuid::now_v7().to_string();
                history.apply(&client, pb::Operation { id, ..insertion(&doc_id, session, 1, 0, "x") }).await;
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    // Whoever looks afresh sees what both wrote.
    let third = World::start_with(|up| {
        let options = first.postgres.as_ref().unwrap().options();
        (up.document_store, up.postgres) = (control::store::StoreKind::Postgres, Some(options));
    });
    history.check(&mut third.await.documents).await;
}

fn aetherflow(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(AETHERFLOW);
    command.args(arguments).args(["-f", "config.yaml"]).current_dir(folder).output().unwrap()
}

/// The steps of the schema, as they are told of.
const STEPS: [&str; 3] = ["1 documents", "2 waiting since", "3 deleted documents"];

#[tokio::test]
async fn the_schema_goes_up_and_down_and_a_later_one_is_refused() {
    let Some(postgres) = PostgresServer::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let ports = "Server:\n  Port: 0\nMetrics:\n  Port: 0\nQuantum:\n  Enable: false\n";
    std::fs::write(folder.path().join("config.yaml"), format!("{ports}{}", postgres.section())).unwrap();
    let migrate = |what: &str| {
        let arguments: Vec<&str> = ["migrate"].into_iter().chain(what.split(' ')).collect();
        let output = aetherflow(&arguments, folder.path());
        (output.status.success(), said(&output))
    };
    let expect = |what: &str, line: &str| {
        let (succeeded, said) = migrate(what);
        assert!(succeeded && said.contains(line), "{what}: {said}");
    };
    expect("status", "1 documents: to be taken");
    expect("down", "nothing to do");
    expect("up", "1 documents: taken");
    expect("up", "nothing to do");
    expect("status", "1 documents: taken 2");
    for step in STEPS.iter().skip(1).rev() {
        expect("down", &format!("{step}: taken back"));
        expect("status", &format!("{step}: to be taken"));
    }
    let (_, said_up) = migrate("up");
    assert!(STEPS[1..].iter().all(|step| said_up.contains(&format!("{step}: taken"))), "{said_up}");
    let mut admin = postgres.connect().await;
    let known = STEPS.len();
    let later = format!("INSERT INTO aetherflow_migrations (version, name) VALUES ({}, 'of tomorrow')", known + 1);
    sqlx::raw_sql(sqlx::AssertSqlSafe(later)).execute(&mut admin).await.unwrap();
    expect("status", &format!("{} of tomorrow: taken 2", known + 1));
    for what in ["up", "down"] {
        let (succeeded, said) = migrate(what);
        let refused = format!("its schema {} is of a later AetherFlow; this one knows {known}", known + 1);
        assert!(!succeeded && said.contains(&refused), "{said}");
    }
    let service = aetherflow(&["statesync"], folder.path());
    assert!(!service.status.success() && said(&service).contains("later AetherFlow"), "{}", said(&service));
    let sooner = "DELETE FROM aetherflow_migrations WHERE name = 'of tomorrow'";
    sqlx::raw_sql(sooner).execute(&mut admin).await.unwrap();
    for step in STEPS.iter().skip(1).rev() {
        expect("down", &format!("{step}: taken back"));
    }
    // Nobody loses documents by a command too many.
    let document = "INSERT INTO documents VALUES ('01900000-0000-7000-8000-000000000000', 'a', 'text', 'active', 1, 'e', 'ada', now(), \
                    'ada', now(), '', 1, false)";
    sqlx::raw_sql(document).execute(&mut admin).await.unwrap();
    let (succeeded, said) = migrate("down");
    assert!(!succeeded && said.contains("there are 1: add --delete-documents"), "{said}");
    expect("status", "1 documents: taken 2");
    expect("down --delete-documents", "1 documents: taken back");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(left, 1, "only the list of the steps is left");
    expect("status", "1 documents: to be taken");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_with_what_to_do() {
    let Some(postgres) = PostgresServer::start().await else { return };
    let mut options = postgres.options();
    options.database = "nowhere".to_owned();
    let message = PostgresDocuments::open(&options).await.err().unwrap().to_string();
    assert!(message.contains("/nowhere") && message.contains("createdb"), "{message}");
    options.port = 1;
    let message = PostgresDocuments::open(&options).await.err().unwrap().to_string();
    assert!(message.contains("Store.Postgres.Host"), "{message}");
}
