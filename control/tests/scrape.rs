//! Scrapes: by a real Prometheus, with native histograms, and under load.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::prometheus::{PROTOBUF, Prometheus, scrape};
use common::*;
use control::telemetry::TraceOptions;
use proto::session as session_pb;
use proto::statesync as pb;
use uuid::Uuid;

/// Has a Prometheus scrape this address every second.
fn config(scraped: SocketAddr) -> String {
    format!(
        "scrape_configs: [{{job_name: aetherflow, scrape_interval: 1s, static_configs: [{{targets: ['{scraped}']}}]}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_has_native_histograms_of_rpcs() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    for version in 1..=10 {
        let insertion = insertion(&doc_id, Uuid::now_v7(), version, 0, "x");
        apply(&mut world.documents, insertion).await.unwrap();
    }
    let scraped = world.running.statesync_metrics_addr;
    let (head, _) = http_get_as(scraped, "/metrics", PROTOBUF).await.unwrap();
    assert!(head.contains(&format!("content-type: {PROTOBUF}")), "{head}");
    assert!(scrape(scraped).await.contains("grpc_server_request_duration_seconds_bucket{"));
    let data = tempfile::tempdir().unwrap();
    let features = ["--enable-feature=native-histograms"];
    let Some(prometheus) = Prometheus::start(data.path(), &config(scraped), &features) else {
        println!("NOT CHECKED: native histograms by Prometheus, which is not installed (Debian: prometheus)");
        return;
    };
    // `histogram_count` and the like are of native histograms alone.
    let operations = "grpc_server_request_duration_seconds{method=\"ApplyOperation\"}";
    assert_eq!(prometheus.value(&format!("histogram_count({operations})")).await, "10");
    let p90: f64 = prometheus.value(&format!("histogram_quantile(0.9,{operations})")).await.parse().unwrap();
    assert!(p90 > 0.0 && p90 < 5.0, "{p90} s");
    assert_eq!(prometheus.value("statesync_operations_total").await, "10", "counters come along");
    assert_eq!(prometheus.value("quantum_connections").await, "0", "and gauges");
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_has_the_traces_of_calls() {
    // Nobody takes the traces: that they are kept is enough.
    let tracing = TraceOptions::new("http://127.0.0.1:9", "");
    let mut world = World::start_with(|up| up.tracing = Some(tracing)).await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = tonic::Request::new(pb::ListDocumentsRequest::default());
    let parent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    world.documents.list_documents(request).await.unwrap();
    let scraped = world.running.statesync_metrics_addr;
    let took = "grpc_server_request_duration_seconds";
    // Over OpenMetrics, which has classic histograms, and over protobuf.
    for (features, series) in
        [("exemplar-storage", format!("{took}_bucket")), ("exemplar-storage,native-histograms", took.to_owned())]
    {
        let data = tempfile::tempdir().unwrap();
        let features = format!("--enable-feature={features}");
        let Some(prometheus) = Prometheus::start(data.path(), &config(scraped), &[&features]) else {
            println!("NOT CHECKED: examples by Prometheus, which is not installed (Debian: prometheus)");
            return;
        };
        assert_eq!(prometheus.example(&format!("{series}{{method=\"ListDocuments\"}}")).await, trace_id);
        assert_eq!(prometheus.value("aetherflow_build_info").await, "1");
        assert_ne!(prometheus.value("sum(grpc_server_requests_total)").await, "0");
    }
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_under_load_takes_less_than_a_tenth_of_a_second() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let (documents, sessions) = (world.documents.clone(), world.sessions.clone());
    let load: Vec<_> = (0..32)
        .map(|_| {
            let (mut documents, mut sessions, doc_id) = (documents.clone(), sessions.clone(), doc_id.clone());
            tokio::spawn(async move {
                loop {
                    get(&mut documents, &doc_id).await;
                    sessions.get_stats(session_pb::GetStatsRequest {}).await.unwrap();
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for accept in ["text/plain", PROTOBUF].into_iter().cycle().take(40) {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let start = Instant::now();
        let (_, body) = http_get_as(world.running.statesync_metrics_addr, "/metrics", accept).await.unwrap();
        took.push(start.elapsed());
        assert!(body.len() > 1_000);
    }
    load.iter().for_each(tokio::task::JoinHandle::abort);
    took.sort();
    println!("a scrape under load: median {:?}, longest {:?}", took[20], took[39]);
    assert!(took[20] < Duration::from_millis(100), "{took:?}");
    world.running.shutdown().await;
}
