//! Traces, as a collector gets them, and what logs and metrics say of them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use control::telemetry::TraceOptions;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use proto::session as pb;
use proto::session::session_service_client::SessionServiceClient;
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::{Code, Request};
use uuid::Uuid;

use crate::common::collector::{Collector, Seen};
use crate::common::commands::*;
use crate::common::prometheus::scrape;
use crate::common::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER_TRACE: &str = "5bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A request whose caller is a span of `trace`, kept (`01`) or not (`00`).
fn called<T>(message: T, trace: &str, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{trace}-{SPAN}-{flags}").parse().unwrap());
    request
}

fn stats() -> pb::GetStatsRequest {
    pb::GetStatsRequest {}
}

fn creation() -> pb::CreateSessionRequest {
    pb::CreateSessionRequest {
        user_id: "ada".into(),
        client_ip: "::1".into(),
        client_port: 7,
        ..pb::CreateSessionRequest::default()
    }
}

async fn traced_world(tracing: TraceOptions) -> World {
    World::start_with(|up| up.tracing = Some(tracing)).await
}

/// Each is the parent of the next, in one trace, and the first has none.
fn assert_chain(chain: &[&Seen]) {
    assert_eq!(chain[0].parent_id, "", "{chain:#?}");
    for pair in chain.windows(2) {
        assert_eq!((&pair[1].trace_id, &pair[1].parent_id), (&pair[0].trace_id, &pair[0].span_id), "{chain:#?}");
    }
}

fn rpc_of(span: &Seen) -> [&str; 4] {
    ["rpc.system", "rpc.service", "rpc.method", "rpc.grpc.status_code"].map(|key| span.attribute(key))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_through_the_proxy_over_quantum_is_one_tree_down_to_the_disk() {
    if !has_shards() {
        return;
    }
    let collector = Collector::start().await;
    let mut world = traced_world(collector.options()).await;
    let doc_id = create_text(&mut world.documents, "").await;
    let url = collector.url();
    let to = world.running.statesync_addr.to_string();
    let (_proxy, address) = proxy(&to, &["--insecure-loopback", "--trace", &url]).await;
    let service = "aetherflow.statesync.StateSyncService";
    let operation = serde_json::json!({"operation": {
        "doc_id": doc_id,
        "user_id": "ada",
        "session_id": Uuid::now_v7().to_string(),
        "type": "text",
        "prev_version": 1,
        "data": BASE64.encode(r#"{"pos": 0, "ins": "x"}"#),
    }});
    let method = format!("{service}/ApplyOperation");
    let args = ["--transport=tcp", "--trace", &url, &address, &method, &operation.to_string()];
    let applied = call(&args, "").await;
    assert!(applied.status.success(), "{}", said(&applied));

    let client = collector.find(|span| span.process == "aetherflow-call").await;
    assert!(said(&applied).contains(&client.trace_id), "{}", said(&applied));
    let of_trace = |process: &'static str, name: &'static str| {
        let (trace_id, collector) = (client.trace_id.clone(), &collector);
        async move {
            let is_it = |span: &Seen| span.trace_id == trace_id && span.process == process && span.name.ends_with(name);
            collector.find(is_it).await
        }
    };
    let forwarded = of_trace("aetherflow-proxy", "/ApplyOperation").await;
    let served = of_trace("statesync-service", "/ApplyOperation").await;
    let document = of_trace("statesync-service", "document apply").await;
    let load = of_trace("statesync-service", "sqlite load").await;
    let commit = of_trace("statesync-service", "sqlite commit").await;
    assert_chain(&[&client, &forwarded, &served, &document, &commit]);
    assert_eq!(load.parent_id, document.span_id);
    for rpc in [&client, &forwarded, &served] {
        assert_eq!(rpc.name, method);
        assert_eq!(rpc_of(rpc), ["grpc", service, "ApplyOperation", "0"]);
    }
    assert_eq!([client.kind, forwarded.kind, served.kind], [SpanKind::Client, SpanKind::Client, SpanKind::Server]);
    assert_eq!((served.attribute("network.transport"), document.kind), ("udp", SpanKind::Internal));
    assert_eq!(document.attribute("aetherflow.document.id"), doc_id);
    assert_eq!((commit.attribute("db.system.name"), commit.attribute("db.operation.name")), ("sqlite", "commit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_over_tcp_is_one_tree_and_failures_are_told_apart() {
    let collector = Collector::start().await;
    let mut world = traced_world(collector.options()).await;
    let (address, url) = (world.running.session_addr.to_string(), collector.url());
    let method = "session.SessionService/CreateSession";
    let json = r#"{"user_id": "ada", "client_ip": "::1", "client_port": 7}"#;
    let created = call(&["--transport=tcp", "--trace", &url, &address, method, json], "").await;
    assert!(created.status.success(), "{}", said(&created));
    let client = collector.find(|span| span.process == "aetherflow-call").await;
    let named = |name: &'static str| {
        let trace_id = client.trace_id.clone();
        move |span: &Seen| span.trace_id == trace_id && span.process == "session-service" && span.name == name
    };
    let served = collector.find(named(method)).await;
    let insert = collector.find(named("sqlite insert")).await;
    assert_chain(&[&client, &served, &insert]);
    assert_eq!((served.attribute("network.transport"), served.failed), ("tcp", false));

    // What is the caller's mistake is no failure of the server's.
    let status = world.sessions.create_session(called(pb::CreateSessionRequest::default(), TRACE, "01")).await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    let refused = collector.find(|span| span.trace_id == TRACE).await;
    assert_eq!((refused.parent_id.as_str(), refused.failed), (SPAN, false));
    assert_eq!(rpc_of(&refused)[3], "3");
    let wrong = call(&["--transport=tcp", "--trace", &url, &address, method, "{}"], "").await;
    assert_eq!(wrong.status.code(), Some(64 + 3), "{}", said(&wrong));
    let failed = collector.find(|span| span.process == "aetherflow-call" && span.failed).await;
    assert_eq!(rpc_of(&failed)[3], "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_share_a_commit_have_it_each_in_its_own_trace() {
    let collector = Collector::start().await;
    let mut world = traced_world(collector.options()).await;
    let doc_id = create_text(&mut world.documents, "").await;
    let traces: Vec<String> = (1..=20_u128).map(|id| format!("{id:032x}")).collect();
    let applied = traces.iter().map(|trace| {
        let (mut documents, session) = (world.documents.clone(), Uuid::now_v7());
        let operation = insertion(&doc_id, session, 1, 0, "x");
        let request = called(proto::statesync::ApplyOperationRequest { operation: Some(operation) }, trace, "01");
        async move { documents.apply_operation(request).await.unwrap() }
    });
    futures_util::future::join_all(applied).await;
    world.running.shutdown().await;
    let seen = collector.seen();
    for trace in &traces {
        let commits: Vec<_> =
            seen.iter().filter(|span| &span.trace_id == trace && span.name == "sqlite commit").collect();
        assert_eq!(commits.len(), 1, "{commits:#?}");
        let document = seen.iter().find(|span| span.span_id == commits[0].parent_id).unwrap();
        assert_eq!((document.name.as_str(), &document.trace_id), ("document apply", trace));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_begins_here_is_sampled_and_what_the_caller_decided_stands() {
    let collector = Collector::start().await;
    let mut world = traced_world(TraceOptions { sample_rate: 0.0, ..collector.options() }).await;
    for _ in 0..20 {
        world.sessions.create_session(creation()).await.unwrap();
        world.sessions.create_session(called(creation(), TRACE, "00")).await.unwrap();
    }
    world.sessions.create_session(called(creation(), OTHER_TRACE, "01")).await.unwrap();
    world.running.shutdown().await;
    let seen = collector.seen();
    assert!(seen.len() >= 2, "the call that was asked for, and its store: {seen:#?}");
    assert!(seen.iter().all(|span| span.trace_id == OTHER_TRACE), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_traceparent_is_ignored() {
    let collector = Collector::start().await;
    let mut world = traced_world(collector.options()).await;
    let hostile = [
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("01-{TRACE}-{SPAN}-01-{}", "x".repeat(4000)),
        "'; DROP TABLE spans; --".to_owned(),
    ];
    for parent in &hostile {
        let mut request = Request::new(stats());
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        request.metadata_mut().insert("tracestate", "\u{1b}[2J=".replace('\u{1b}', "!").parse().unwrap());
        world.sessions.get_stats(request).await.unwrap();
    }
    let mut twice = called(stats(), TRACE, "01");
    twice.metadata_mut().append("traceparent", format!("00-{OTHER_TRACE}-{SPAN}-01").parse().unwrap());
    world.sessions.get_stats(twice).await.unwrap();
    world.running.shutdown().await;
    let served: Vec<Seen> = collector.seen().into_iter().filter(|span| span.kind == SpanKind::Server).collect();
    assert_eq!(served.len(), hostile.len() + 1);
    for span in served {
        assert_eq!(span.parent_id, "", "{span:?}");
        assert!(![TRACE, OTHER_TRACE].contains(&span.trace_id.as_str()), "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_slows_no_call_and_stops_no_shutdown() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Connections are made and nothing is ever read.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [refusing, silent.local_addr().unwrap()] {
        let options = TraceOptions {
            batch_time: Duration::from_millis(1),
            queue: 8,
            ..TraceOptions::new(format!("http://{address}"), "")
        };
        let mut world = traced_world(options).await;
        let mut took = Vec::new();
        for _ in 0..500 {
            let started = Instant::now();
            world.sessions.get_stats(stats()).await.unwrap();
            took.push(started.elapsed());
        }
        took.sort();
        println!("{address}: median {:?}, longest {:?}", took[250], took[499]);
        assert!(took[250] < Duration::from_millis(20), "{took:?}");
        let started = Instant::now();
        world.running.shutdown().await;
        println!("the shutdown took {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durations_have_examples_of_kept_traces_and_the_build_is_told() {
    let collector = Collector::start().await;
    let mut world = traced_world(collector.options()).await;
    let (kept, dropped) = (format!("{:032x}", 0x00ab_cdef), format!("{:032x}", 0x00fe_dcba));
    let listing = pb::ListSessionsRequest::default;
    world.sessions.list_sessions(called(listing(), &kept, "01")).await.unwrap();
    world.sessions.list_sessions(called(listing(), &dropped, "00")).await.unwrap();
    let open = "application/openmetrics-text; version=1.0.0";
    // A call is counted when its trailers leave, which may be after the client has them.
    let (head, metrics) = eventually(Duration::from_secs(10), async || {
        let (head, body) = http_get_as(world.running.session_metrics_addr, "/metrics", open).await.unwrap();
        let metrics = String::from_utf8(body).unwrap();
        if metrics.contains(&kept) { Ok((head, metrics)) } else { Err(metrics) }
    })
    .await;
    assert!(head.contains(&format!("content-type: {open}; charset=utf-8")) && metrics.ends_with("# EOF\n"), "{head}");
    assert!(!metrics.contains(&dropped));
    let line = metrics.lines().find(|line| line.contains(&kept)).unwrap();
    assert!(line.starts_with("grpc_server_request_duration_seconds_bucket{"), "{line}");
    assert!(line.contains("method=\"ListSessions\"") && line.contains(" # {trace_id=\""), "{line}");
    assert!(metrics.contains("\n# TYPE grpc_server_requests counter\n"));

    let text = scrape(world.running.session_metrics_addr).await;
    assert!(!text.contains("trace_id="), "the plain format has no place for them");
    let build = text.lines().find(|line| line.starts_with("aetherflow_build_info{")).unwrap();
    assert!(build.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")) && build.ends_with("} 1"));
    assert!(build.contains("commit=\"") && build.contains("rustc=\"1."), "{build}");
}

#[tokio::test]
async fn lines_of_an_rpc_carry_its_ids_and_its_caller_is_told_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = aetherflow();
    command.arg("session").current_dir(folder.path()).env_remove("RUST_LOG");
    for (key, value) in [
        ("SERVER_PORT", "0"),
        ("METRICS_ENABLE", "false"),
        ("QUANTUM_ENABLE", "false"),
        ("STORE_TYPE", "memory"),
        ("LOG_LEVEL", "info,control::telemetry=debug"),
    ] {
        command.env(format!("AETHERFLOW_{key}"), value);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = said.next_line().await.unwrap().expect("it says where it listens");
        if let Some((_, url)) = line.split_once("gRPC over TCP  ") {
            break url.to_owned();
        }
    };
    let mut logs = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut ended = async || -> serde_json::Value {
        let next = async {
            loop {
                let line = logs.next_line().await.unwrap().expect("the service goes on");
                let line: serde_json::Value = serde_json::from_str(&line).expect("each line is an object");
                if line["message"] == "a call has ended" {
                    return line;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.expect("a line comes in time")
    };
    let mut sessions = SessionServiceClient::connect(address).await.unwrap();

    let mut request = called(stats(), TRACE, "00");
    request.metadata_mut().insert("x-request-id", "mine:1".parse().unwrap());
    let answer = sessions.get_stats(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine:1");
    let line = ended().await;
    assert_eq!((&line["request_id"], &line["trace_id"]), (&"mine:1".into(), &TRACE.into()), "{line}");
    assert_eq!((&line["method"], &line["code"]), (&"GetStats".into(), &"0".into()), "{line}");

    let mut request = Request::new(pb::CreateSessionRequest::default());
    request.metadata_mut().insert("x-request-id", "not {mine}".parse().unwrap());
    let status = sessions.create_session(request).await.unwrap_err();
    let id: Uuid = status.metadata().get("x-request-id").unwrap().to_str().unwrap().parse().unwrap();
    let line = ended().await;
    assert_eq!((id.get_version_num(), &line["request_id"]), (7, &id.to_string().into()), "{line}");
    assert!(line.get("trace_id").is_none(), "nobody traces it: {line}");
}
