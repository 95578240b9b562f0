//! `aetherflow proxy --early-data`: what goes with the first packets of a connection that is made again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use control::up::{Ports, Running, UpOptions, start};
use proto::session::GetStatsRequest;
use proto::session::session_service_client::SessionServiceClient;
use quantum_grpc::EndpointOptions;

use crate::common::commands::*;
use crate::common::*;

/// A server whose end was told is connected to again at once; a machine may be busy.
const RETURN_TIME: Duration = Duration::from_secs(30);

/// The services, with early data, at these ports.
async fn serve(data: &Path, base: u16) -> Running {
    let mut quantum = EndpointOptions::default();
    quantum.protocol.security.early_data = true;
    start(UpOptions { ports: Ports::Base(base), quantum: Some(quantum), ..UpOptions::new(data) }).await.unwrap()
}

/// Calls a method without side effects through the proxy until it is answered.
async fn ask(client: &mut Sessions) {
    eventually(RETURN_TIME, async || client.get_stats(GetStatsRequest {}).await).await;
}

/// Whether a proxy with these options sends early data to a server that was started again, as its logs say.
async fn sends_early_data(options: &[&str]) -> bool {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = free_base();
    let server = serve(data.path(), base).await;
    let (address, pin) = (server.session_addr.to_string(), format!("--pin={}", server.fingerprint));
    let qlog = format!("--qlog={}", logs.path().display());
    let (mut child, proxy) = proxy(&address, &[&[pin.as_str(), qlog.as_str()][..], options].concat()).await;
    let mut client = SessionServiceClient::connect(format!("http://{proxy}")).await.unwrap();
    // The ticket comes after the handshake; the second answer is sure to come after it.
    ask(&mut client).await;
    ask(&mut client).await;
    server.shutdown().await;
    let server = serve(data.path(), base).await;
    ask(&mut client).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().await.unwrap().success());
    server.shutdown().await;
    let logs: Vec<_> = std::fs::read_dir(logs.path()).unwrap().map(|log| log.unwrap().path()).collect();
    assert!(logs.len() >= 2, "it connected again: {logs:?}");
    logs.iter().any(|log| std::fs::read_to_string(log).unwrap().contains("0RTT"))
}

#[tokio::test]
async fn a_proxy_sends_early_data_only_if_it_was_told_to() {
    if !has_shards() {
        return;
    }
    assert!(sends_early_data(&["--early-data"]).await);
    assert!(!sends_early_data(&[]).await);
}

#[tokio::test]
async fn early_data_is_refused_where_the_handshake_is_waited_for() {
    let mut command = aetherflow();
    command.args(["proxy", "--listen=127.0.0.1:0", "--to=127.0.0.1:1", "--early-data", "--insecure-loopback"]);
    let output = command.arg("--transport=auto").output().await.unwrap();
    assert!(!output.status.success() && said(&output).contains("--transport quantum"), "{}", said(&output));
}
