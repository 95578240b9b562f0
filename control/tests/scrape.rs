//! Scrapes: by a real Prometheus, with native histograms, and under load.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::time::{Duration, Instant};

use common::prometheus::{PROTOBUF, Prometheus, http_fetch, scrape};
use common::*;
use proto::session as session_pb;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_has_native_histograms_of_rpcs() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    for version in 1..=10 {
        let insertion = insertion(&doc_id, Uuid::now_v7(), version, 0, "x");
        apply(&mut world.documents, insertion).await.unwrap();
    }
    let scraped = world.running.statesync_metrics_addr;
    let (head, _) = http_fetch(scraped, "/metrics", PROTOBUF).await.unwrap();
    assert!(head.contains(&format!("content-type: {PROTOBUF}")), "{head}");
    assert!(scrape(scraped).await.contains("grpc_server_request_duration_seconds_bucket{"));
    let data = tempfile::tempdir().unwrap();
    let config = format!(
        "scrape_configs: [{{job_name: aetherflow, scrape_interval: 1s, static_configs: [{{targets: ['{scraped}']}}]}}]\n"
    );
    let Some(prometheus) = Prometheus::start(data.path(), &config, &["--enable-feature=native-histograms"]) else {
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
        let (_, body) = http_fetch(world.running.statesync_metrics_addr, "/metrics", accept).await.unwrap();
        took.push(start.elapsed());
        assert!(body.len() > 1_000);
    }
    load.iter().for_each(tokio::task::JoinHandle::abort);
    took.sort();
    println!("a scrape under load: median {:?}, longest {:?}", took[20], took[39]);
    assert!(took[20] < Duration::from_millis(100), "{took:?}");
    world.running.shutdown().await;
}
