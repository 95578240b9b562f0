//! The real binary: killed, interrupted, misconfigured, and called from Python.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proto::session as session_pb;
use proto::statesync as pb;
use tonic::Code;
use uuid::Uuid;

use crate::common::commands::{has_python, path, said};
use crate::common::process::{UpProcess, up};
use crate::common::*;

/// Runs the binary until it ends by itself and returns what it said.
fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    let mut doc_id = String::new();
    for round in 0..3 {
        let server = UpProcess::start(data.path());
        let mut client = documents(server.address(2)).await;
        if round == 0 {
            doc_id = create_text(&mut client, "").await;
        }
        let request = pb::GetOperationHistoryRequest { doc_id: doc_id.clone(), limit: 1000 };
        let history = client.get_operation_history(request).await.unwrap().into_inner().operations;
        for (id, version) in &acknowledged {
            let found = history.iter().find(|operation| operation.id == *id);
            assert_eq!(found.map(|operation| operation.version), Some(*version), "an acknowledged operation is gone");
        }
        let document = get(&mut client, &doc_id).await;
        assert_eq!(document.version, 1 + history.len() as u64);
        assert_eq!(document.content.len(), history.len(), "every operation inserted one letter");
        // Many writers at once; the server dies in the middle of them.
        let (results, mut answers) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..16 {
            let (mut client, doc_id, results) = (client.clone(), doc_id.clone(), results.clone());
            tokio::spawn(async move {
                let session = Uuid::now_v7();
                let base = document.version;
                for index in 0.. {
                    let operation = insertion(&doc_id, session, base, index, "x");
                    let Ok(applied) = apply(&mut client, operation).await else { return };
                    if results.send((applied.id, applied.version)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        for _ in 0..200 {
            acknowledged.push(answers.recv().await.expect("operations are acknowledged"));
        }
        server.process.signal("-KILL");
        while let Some(answer) = answers.recv().await {
            acknowledged.push(answer);
        }
    }
    println!("{} operations were acknowledged before three kills", acknowledged.len());
    let server = UpProcess::start(data.path());
    let mut client = documents(server.address(2)).await;
    let newest = acknowledged.iter().map(|(_, version)| *version).max().unwrap();
    assert!(get(&mut client, &doc_id).await.version >= newest);
}

#[tokio::test]
async fn locks_descriptions_and_sessions_are_there_after_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let (mut names, mut sessions_left, mut fencing): (HashMap<String, String>, Vec<String>, u64) = Default::default();
    let mut locked: Option<String> = None;
    for round in 0..3 {
        let server = UpProcess::start(data.path());
        let mut client = documents(server.address(2)).await;
        let mut sessions = sessions(server.address(1)).await;
        for (doc_id, name) in &names {
            assert_eq!(get(&mut client, doc_id).await.name, *name);
        }
        let listed = sessions.list_sessions(session_pb::ListSessionsRequest::default()).await.unwrap().into_inner();
        let listed: Vec<_> = listed.sessions.into_iter().map(|session| session.session_id).collect();
        assert_eq!(listed, sessions_left, "what was created is there, what was deleted is not");
        if let Some(doc_id) = locked.take() {
            let lock = client.is_locked(pb::IsLockedRequest { doc_id }).await.unwrap().into_inner().lock.unwrap();
            assert_eq!((lock.user_id.as_str(), lock.fencing), ("holder", fencing));
        }
        for index in 0..5 {
            let doc_id = create_text(&mut client, "").await;
            let name = format!("round {round}, document {index}");
            let document = pb::Document { name: name.clone(), ..get(&mut client, &doc_id).await };
            client.update_document(pb::UpdateDocumentRequest { document: Some(document) }).await.unwrap();
            names.insert(doc_id.clone(), name);
            let created = session_pb::CreateSessionRequest {
                user_id: "ada".into(),
                client_ip: "127.0.0.1".into(),
                ..Default::default()
            };
            let created = sessions.create_session(created).await.unwrap().into_inner().session.unwrap().session_id;
            if index % 2 == 0 {
                let delete = session_pb::DeleteSessionRequest { session_id: created, reason: String::new() };
                sessions.delete_session(delete).await.unwrap();
            } else {
                sessions_left.push(created);
            }
            let lock =
                pb::AcquireLockRequest { doc_id: doc_id.clone(), user_id: "holder".into(), ..Default::default() };
            fencing = client.acquire_lock(lock).await.unwrap().into_inner().lock.unwrap().fencing;
            locked = Some(doc_id);
        }
        server.process.signal("-KILL");
    }
}

#[tokio::test]
async fn typed_content_and_waiting_conflicts_are_there_after_kill_9() {
    let data = tempfile::tempdir().unwrap();
    let server = UpProcess::start(data.path());
    let mut client = documents(server.address(2)).await;
    let properties = [("conflict_resolution".to_owned(), "manual".to_owned())].into();
    let request = pb::CreateDocumentRequest {
        name: "a board".into(),
        r#type: "whiteboard".into(),
        created_by: "ada".into(),
        metadata: Some(pb::Metadata { properties, ..Default::default() }),
        ..Default::default()
    };
    let doc_id = client.create_document(request).await.unwrap().into_inner().document.unwrap().id;
    let (ada, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let board = |session, base, kind: &str, data: &str| pb::ApplyOperationRequest {
        operation: Some(pb::Operation { r#type: kind.into(), ..operation(&doc_id, session, base, data) }),
    };
    // The blank board becomes typed, and stays so.
    client.apply_operation(board(ada, 1, "create", r#"{"id": "e"}"#)).await.unwrap();
    client.apply_operation(board(ada, 2, "update", r#"{"id": "e", "set": {"x": 1}}"#)).await.unwrap();
    let mut waits = board(bob, 2, "update", r#"{"id": "e", "set": {"x": 2}}"#);
    waits.operation.as_mut().unwrap().idempotency_key = "key".into();
    let waiting = client.apply_operation(waits.clone()).await.unwrap().into_inner();
    assert!(!waiting.success);
    server.process.signal("-KILL");

    let server = UpProcess::start(data.path());
    let mut client = documents(server.address(2)).await;
    assert_eq!(text(&mut client, &doc_id).await, r#"{"elements":{"e":{"x":1}}}"#);
    assert_eq!(client.apply_operation(waits).await.unwrap().into_inner(), waiting, "a retry finds it waiting");
    // What was written before the kill is still held against a base older than it, and disjoint writes still merge.
    let overlaps = board(Uuid::now_v7(), 2, "update", r#"{"id": "e", "set": {"x": 3}}"#);
    assert!(!client.apply_operation(overlaps).await.unwrap().into_inner().success);
    let disjoint = board(Uuid::now_v7(), 2, "update", r#"{"id": "e", "set": {"y": 3}}"#);
    assert!(client.apply_operation(disjoint).await.unwrap().into_inner().success);
    let list = pb::ListConflictsRequest { doc_id: doc_id.clone(), unresolved_only: true, ..Default::default() };
    let conflicts = client.list_conflicts(list.clone()).await.unwrap().into_inner().conflicts;
    assert_eq!(conflicts.len(), 2);
    let decision = pb::ResolveConflictRequest {
        conflict_id: conflicts[0].id.clone(),
        doc_id: doc_id.clone(),
        user_id: "judge".into(),
        operation_id: waiting.applied_operation.unwrap().id,
        ..Default::default()
    };
    client.resolve_conflict(decision).await.unwrap();
    server.process.signal("-KILL");

    let server = UpProcess::start(data.path());
    let mut client = documents(server.address(2)).await;
    assert_eq!(text(&mut client, &doc_id).await, r#"{"elements":{"e":{"x":2,"y":3}}}"#);
    assert_eq!(client.list_conflicts(list).await.unwrap().into_inner().total, 1);
}

#[tokio::test]
async fn an_interrupt_ends_it_within_five_seconds_with_streams_open() {
    for signal in ["-INT", "-TERM"] {
        let data = tempfile::tempdir().unwrap();
        let mut server = UpProcess::start(data.path());
        let mut client = documents(server.address(2)).await;
        let doc_id = create_text(&mut client, "").await;
        let mut streams = Vec::new();
        for _ in 0..10 {
            let mut events = subscribe(&mut client, subscription(&doc_id, "bob")).await;
            next(&mut events).await;
            streams.push(events);
        }
        let started = Instant::now();
        server.process.signal(signal);
        let ended = async || server.process.0.try_wait().unwrap().ok_or("it still runs");
        let status = eventually(Duration::from_secs(5), ended).await;
        println!("{signal} ended it in {:?}", started.elapsed());
        assert!(status.success(), "{status}");
        for events in &mut streams {
            assert_eq!(end(events).await.code(), Code::Unavailable);
        }
    }
}

#[tokio::test]
async fn readiness_and_metrics_tell_the_truth() {
    let data = tempfile::tempdir().unwrap();
    let server = UpProcess::start(data.path());
    let mut client = documents(server.address(2)).await;
    let doc_id = create_text(&mut client, "").await;
    apply(&mut client, insertion(&doc_id, Uuid::now_v7(), 1, 0, "x")).await.unwrap();
    let missing = pb::GetDocumentRequest { doc_id: Uuid::now_v7().to_string() };
    client.get_document(missing).await.unwrap_err();
    for offset in [101, 102] {
        assert!(http_get(server.address(offset), "/readyz").await.starts_with("HTTP/1.0 200"));
        assert!(http_get(server.address(offset), "/healthz").await.starts_with("HTTP/1.0 200"));
    }
    let metrics = http_get(server.address(102), "/metrics").await;
    let service = "service=\"aetherflow.statesync.StateSyncService\"";
    for line in [
        format!("grpc_server_requests_total{{{service},method=\"ApplyOperation\",code=\"0\"}} 1"),
        format!("grpc_server_requests_total{{{service},method=\"GetDocument\",code=\"5\"}} 1"),
        format!("grpc_server_request_duration_seconds_count{{{service},method=\"CreateDocument\"}} 1"),
        format!("grpc_server_in_flight_requests{{{service},method=\"ApplyOperation\"}} 0"),
        "statesync_operations_total 1".to_owned(),
        "statesync_documents_total 1".to_owned(),
        "quantum_recovery_seconds_bucket{by=\"fec\",le=\"0.01\"} 0".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    use std::io::Write;
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = checker else {
        println!("NOT CHECKED: the metrics by promtool, which is not installed (Debian: prometheus)");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let server = UpProcess::start(data.path());
    let mut client = documents(server.address(2)).await;
    let doc_id = create_text(&mut client, "").await;
    let mut events = subscribe(&mut client, subscription(&doc_id, "bob")).await;
    next(&mut events).await;
    let missing = pb::GetDocumentRequest { doc_id: Uuid::now_v7().to_string() };
    client.get_document(missing).await.unwrap_err();
    let mut sessions = sessions(server.address(1)).await;
    sessions.get_stats(session_pb::GetStatsRequest {}).await.unwrap();
    let metrics = http_get(server.address(102), "/metrics").await;
    let (_, body) = metrics.split_once("\r\n\r\n").unwrap();
    for name in [
        "session_total",
        "session_active",
        "session_heartbeat_total",
        "statesync_documents_total",
        "statesync_documents_purged_total",
        "statesync_operations_total",
        "statesync_conflicts_total",
        "statesync_subscribers_active",
        "grpc_server_requests_total",
        "grpc_server_request_duration_seconds_bucket",
        "grpc_server_in_flight_requests",
        "quantum_fec_recoveries_total",
        "quantum_fec_protected_total",
        "quantum_fec_repairs_sent_total",
        "quantum_fec_recoveries_by_peers_total",
        "quantum_fec_repairs_received_total",
        "quantum_fec_repairs_wasted_total",
        "quantum_retransmissions_total",
        "quantum_recovery_seconds_bucket",
    ] {
        assert!(body.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{body}");
    }
    checker.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{body}", said(&output));
}

#[tokio::test]
async fn the_fingerprint_stays_and_its_certificate_is_in_the_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let mut fingerprints = Vec::new();
    for _ in 0..2 {
        let running = control::up::start(control::up::UpOptions::new(data.path())).await.unwrap();
        fingerprints.push(running.fingerprint.clone());
        running.shutdown().await;
    }
    assert_eq!(fingerprints[0].len(), 64);
    assert_eq!(fingerprints[0], fingerprints[1]);
    let certificate = std::fs::read_to_string(data.path().join("cert.pem")).unwrap();
    assert!(certificate.contains("BEGIN CERTIFICATE"));
}

#[test]
fn what_prevents_a_start_is_said_with_its_remedy() {
    let data = tempfile::tempdir().unwrap();
    let base = free_base();
    let taken = TcpListener::bind(("127.0.0.1", base + 1)).unwrap();
    let said = refused(up(data.path(), base));
    assert!(said.contains("--ports BASE") && said.contains("session gRPC"), "{said}");
    drop(taken);

    let mut public = up(data.path(), base);
    public.args(["--bind", "0.0.0.0"]);
    let said = refused(public);
    assert!(said.contains("--allow-anonymous"), "{said}");

    let said = refused(up(data.path(), 65_500));
    assert!(said.contains("65433"), "{said}");

    let file = data.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = refused(up(&file, base));
    assert!(said.contains("--data DIR"), "{said}");
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let _server = UpProcess::start(data.path());
    let said = refused(up(data.path(), free_base()));
    assert!(said.contains("in use by another aetherflow process"), "{said}");
}

#[tokio::test]
async fn a_plain_python_client_works_by_reflection() {
    if !has_python() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = UpProcess::start(data.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let mut client = tokio::process::Command::new("python");
    client.arg(script).args([1, 2].map(|offset| server.address(offset).to_string()));
    let output = client.env("PATH", path()).output().await.unwrap();
    println!("{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
}
