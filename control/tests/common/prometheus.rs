//! A real Prometheus of a test's own, and scrapes.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::commands::path;
use super::eventually;

/// The `Accept` of a scrape that takes native histograms.
pub const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Ends with this.
pub struct Prometheus {
    child: Child,
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
        Some(Self { child, address })
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
        let answer = http_fetch(self.address, &format!("/api/v1/{endpoint}?query={encoded}{more}"), "*/*").await;
        let (head, body) = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| format!("{error}: {head}"))
    }

    /// The value of a query, once it has one, within half a minute.
    pub async fn value(&self, query: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = self.query(query).await;
            if let Some(value) = answer.iter().flatten().find_map(|series| series["value"][1].as_str()) {
                return value.to_owned();
            }
            assert!(Instant::now() < deadline, "{query} has no value: {answer:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head and the body of what is at `path`. In HTTP/1.0, in which no body comes in chunks.
pub async fn http_fetch(address: SocketAddr, path: &str, accept: &str) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |end| end + 4);
    let body = answer.split_off(end);
    Ok((String::from_utf8_lossy(&answer).into_owned(), body))
}

/// The metrics as text.
pub async fn scrape(address: SocketAddr) -> String {
    let (head, body) = http_fetch(address, "/metrics", "text/plain").await.unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    String::from_utf8(body).unwrap()
}
