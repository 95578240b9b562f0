//! Scrapes: by a real Prometheus, with native histograms, and under load.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::process::Process;
use common::*;
use proto::session as session_pb;
use uuid::Uuid;

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A Prometheus that scrapes one address every second; ends with this.
struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// None if it is not installed.
    fn start(data: &Path, scraped: SocketAddr) -> Option<Self> {
        let config = data.join("prometheus.yml");
        let scrape = format!(
            "scrape_configs: [{{job_name: aetherflow, scrape_interval: 1s, static_configs: [{{targets: ['{scraped}']}}]}}]\n"
        );
        std::fs::write(&config, scrape).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=native-histograms")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { _process: Process(child), address })
    }

    /// The value of a query, once it has one, within half a minute.
    async fn value(&self, query: &str) -> String {
        let look = async || {
            let (_, body) = http_get_as(self.address, &format!("/api/v1/query?query={query}"), "*/*")
                .await
                .map_err(|error| error.to_string())?;
            let body = String::from_utf8_lossy(&body).into_owned();
            // It may come in chunks, whose lengths stand around it.
            let json = body.find('{').zip(body.rfind('}')).map_or("", |(start, end)| &body[start..=end]);
            let json: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
            let value = json["data"]["result"][0]["value"][1].as_str();
            value.map(str::to_owned).ok_or_else(|| format!("{query} has no value: {body}"))
        };
        eventually(Duration::from_secs(30), look).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_has_native_histograms_of_rpcs() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    for version in 1..=10 {
        let insertion = insertion(&doc_id, Uuid::now_v7(), version, 0, "x");
        apply(&mut world.documents, insertion).await.unwrap();
    }
    let (head, _) = http_get_as(world.running.statesync_metrics_addr, "/metrics", PROTOBUF).await.unwrap();
    assert!(head.contains(&format!("content-type: {PROTOBUF}")), "{head}");
    let (head, text) = http_get_as(world.running.statesync_metrics_addr, "/metrics", "text/plain").await.unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(String::from_utf8(text).unwrap().contains("grpc_server_request_duration_seconds_bucket{"));
    let data = tempfile::tempdir().unwrap();
    let Some(prometheus) = Prometheus::start(data.path(), world.running.statesync_metrics_addr) else {
        println!("NOT CHECKED: native histograms by Prometheus, which is not installed (Debian: prometheus)");
        return;
    };
    // `histogram_count` and the like are of native histograms alone.
    let operations = "grpc_server_request_duration_seconds%7Bmethod%3D%22ApplyOperation%22%7D";
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
