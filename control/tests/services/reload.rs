//! SIGHUP on a real service: what changes at once, and what it says of the rest.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proto::session as pb;

use crate::common::commands::AETHERFLOW;
use crate::common::process::Process;
use crate::common::{eventually, sessions};

fn start(folder: &Path) -> Process {
    let logs = std::fs::File::create(folder.join("logs")).unwrap();
    let mut command = Command::new(AETHERFLOW);
    command.args(["session", "-f", "session.yaml"]).current_dir(folder).env_remove("RUST_LOG");
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(logs))
}

/// Waits for a line that has all of `parts`.
async fn logged(folder: &Path, parts: &[&str]) {
    eventually(Duration::from_secs(20), async || {
        let logs = std::fs::read_to_string(folder.join("logs")).unwrap();
        let found = logs.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        if found { Ok(()) } else { Err(format!("no line has {parts:?}: {logs}")) }
    })
    .await;
}

#[tokio::test]
async fn the_level_of_the_logs_changes_at_once_and_other_keys_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let configure = |level: &str, store: &str| {
        let file = format!(
            "Server: {{Port: {}, Data: data}}\nMetrics: {{Port: 0}}\nQuantum: {{Enable: false}}\n\
             Log: {{Level: {level}, Format: json}}\nStore: {{Type: {store}}}\n",
            address.port()
        );
        std::fs::write(folder.join("session.yaml"), file).unwrap();
    };
    configure("info", "sqlite");
    let service = start(folder);
    logged(folder, &["authentication is off"]).await;
    let mut client = sessions(address).await;
    let mut session = async || {
        let request =
            pb::CreateSessionRequest { user_id: "ada".into(), client_ip: "192.0.2.7".into(), ..Default::default() };
        let session_id = client.create_session(request).await.unwrap().into_inner().session.unwrap().session_id;
        let request = pb::DeleteSessionRequest { session_id: session_id.clone(), reason: String::new() };
        client.delete_session(request).await.unwrap();
        session_id
    };
    let quiet = session().await;
    configure("debug", "memory");
    service.signal("-HUP");
    logged(folder, &["\"level\":\"WARN\"", "Store.Type", "takes a restart"]).await;
    logged(folder, &["\"level\":\"INFO\"", "reloaded: the level of the logs"]).await;
    let loud = session().await;
    logged(folder, &["\"level\":\"DEBUG\"", "a session was closed", &loud]).await;
    let logs = std::fs::read_to_string(folder.join("logs")).unwrap();
    assert!(!logs.contains(&quiet), "info has no line for a session");
    std::fs::write(folder.join("session.yaml"), "Log: {Level: 7}\nServre: {}\n").unwrap();
    service.signal("-HUP");
    logged(folder, &["\"level\":\"ERROR\"", "not reloaded", "Servre"]).await;
    session().await;
}
