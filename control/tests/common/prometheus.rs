//! A real Prometheus of a test's own, and scrapes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::commands::path;
use super::process::Process;
use super::{eventually, http_get_as};

/// The `Accept` of a scrape that takes native histograms.
pub const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Ends with this.
pub struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// One that keeps its data in this folder and does as this configuration says; none if it is not installed.
    pub fn start(data: &Path, config: &str, flags: &[&str]) -> Option<Self> {
        let file = data.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("prometheus")
            .env("PATH", path())
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { _process: Process(child), address })
    }

    /// The series that a query gives; an error says what it answered.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let json = self.ask("query", query, "").await?;
        let series = json["data"]["result"].as_array().cloned();
        series.ok_or_else(|| json.to_string())
    }

    /// The trace that is the example of a query's series, once there is one, within half a minute.
    pub async fn example(&self, query: &str) -> String {
        eventually(Duration::from_secs(30), async || {
            let json = self.ask("query_exemplars", query, "&start=0&end=9999999999").await?;
            let trace_id = json.pointer("/data/0/exemplars/0/labels/trace_id").and_then(Value::as_str);
            trace_id.map(str::to_owned).ok_or_else(|| json.to_string())
        })
        .await
    }

    async fn ask(&self, endpoint: &str, query: &str, more: &str) -> Result<Value, String> {
        let encoded = query.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"));
        let answer = http_get_as(self.address, &format!("/api/v1/{endpoint}?query={encoded}{more}"), "*/*").await;
        let (head, body) = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| format!("{error}: {head}"))
    }

    /// The value of a query, once it has one, within half a minute.
    pub async fn value(&self, query: &str) -> String {
        eventually(Duration::from_secs(30), async || {
            let answer = self.query(query).await?;
            let value = answer.iter().find_map(|series| series["value"][1].as_str());
            value.map(str::to_owned).ok_or_else(|| format!("{query} has no value: {answer:?}"))
        })
        .await
    }
}

/// The metrics as text.
pub async fn scrape(address: SocketAddr) -> String {
    let (head, body) = http_get_as(address, "/metrics", "text/plain").await.unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    String::from_utf8(body).unwrap()
}
