//! Services started by configuration files, with TLS on TCP too.

use std::path::Path;
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::common::commands::{AETHERFLOW, said};
use crate::common::has_shards;

/// A program that runs a service, what it said when it was up, and its folder.
struct Service {
    child: Child,
    said: String,
    folder: TempDir,
}

impl Service {
    /// Starts `program` with `arguments` in a folder in which `file` is `config.yaml`.
    async fn start(program: &str, arguments: &[&str], file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), file).unwrap();
        Self::start_in(folder, program, arguments).await
    }

    async fn start_in(folder: TempDir, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).args(["-f", "config.yaml"]).current_dir(folder.path()).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("fingerprint") {
            said += &lines.next_line().await.unwrap().expect("it starts");
            said.push('\n');
        }
        Self { child, said, folder }
    }

    /// What follows `words` in the line that has them.
    fn after(&self, words: &str) -> &str {
        self.said.lines().find_map(|line| line.split_once(words)).expect("it says so").1.trim()
    }

    fn address(&self) -> &str {
        self.after("gRPC over TCP").split_once("://").unwrap().1
    }

    /// Ends it as an operator would; gives its folder.
    async fn stop(mut self) -> TempDir {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(self.child.wait().await.unwrap().success());
        self.folder
    }
}

async fn run(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(AETHERFLOW);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.output().await.unwrap()
}

const FREE_PORTS: &str = "Server:\n  Port: 0\nMetrics:\n  Port: 0\n  Path: /m\n";

#[tokio::test]
async fn both_services_run_by_themselves_as_their_files_say() {
    if !has_shards() {
        return;
    }
    for (program, command, service) in [
        (AETHERFLOW, Some("session"), "session.SessionService"),
        (AETHERFLOW, Some("statesync"), "aetherflow.statesync.StateSyncService"),
        (env!("CARGO_BIN_EXE_session-service"), None, "session.SessionService"),
        (env!("CARGO_BIN_EXE_statesync-service"), None, "aetherflow.statesync.StateSyncService"),
    ] {
        let arguments: Vec<_> = command.into_iter().collect();
        let running = Service::start(program, &arguments, FREE_PORTS).await;
        let (address, pin) = (running.address(), running.after("public key)"));
        for transport in [["--transport=tcp", "--pin", pin], ["--transport=quantum", "--pin", pin]] {
            let listed = run(&[&["call"], &transport[..], &[address, "list"]].concat(), running.folder.path()).await;
            assert!(said(&listed).contains(service), "{}", said(&listed));
        }
        assert!(running.after("metrics ").ends_with("/m"));
        assert!(running.folder.path().join("data/cert.pem").exists());
        running.stop().await;
    }
}

#[tokio::test]
async fn connections_are_logged_into_the_folder_of_the_file() {
    if !has_shards() {
        return;
    }
    let file = format!("{FREE_PORTS}Quantum:\n  Qlog: logs/qlog\n");
    for service in ["session", "statesync"] {
        let running = Service::start(AETHERFLOW, &[service], &file).await;
        let listed = run(&["call", "--insecure-loopback", running.address(), "list"], running.folder.path()).await;
        assert!(listed.status.success(), "{}", said(&listed));
        let folder = running.stop().await;
        let logs: Vec<_> = std::fs::read_dir(folder.path().join("logs/qlog")).unwrap().collect();
        assert_eq!(logs.len(), 1, "{service}: {logs:?}");
        assert!(std::fs::read_to_string(logs[0].as_ref().unwrap().path()).unwrap().contains("packet_received"));
    }
}

#[tokio::test]
async fn both_services_share_a_data_directory_but_no_two_of_a_kind() {
    let first = Service::start(AETHERFLOW, &["session"], FREE_PORTS).await;
    let folder = first.folder.path();
    let second = run(&["session", "-f", "config.yaml"], folder).await;
    assert!(!second.status.success() && said(&second).contains("in use by another"), "{}", said(&second));
    let data = format!("{FREE_PORTS}\n").replace("Server:\n", &format!("Server:\n  Data: {}/data\n", folder.display()));
    let other = Service::start(AETHERFLOW, &["statesync"], &data).await;
    assert_eq!(first.after("public key)"), other.after("public key)"), "one node, one key");
    other.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn tcp_is_encrypted_where_a_certificate_is_configured() {
    let first = Service::start(AETHERFLOW, &["statesync"], FREE_PORTS).await;
    assert!(first.said.contains("http://127.0.0.1"), "{}", first.said);
    let folder = first.stop().await;
    let tls = "Server:\n  Port: 0\n  TLS:\n    Cert: data/cert.pem\n    Key: data/key.pem\nMetrics:\n  Enable: false\n\
               Quantum:\n  Enable: false\n";
    std::fs::write(folder.path().join("config.yaml"), tls).unwrap();
    let running = Service::start_in(folder, AETHERFLOW, &["statesync"]).await;
    assert!(running.said.contains("https://") && !running.said.contains("quantum"), "{}", running.said);
    let (address, pin) = (running.address(), running.after("public key)"));
    let folder = running.folder.path();
    for how in [&["--pin", pin][..], &["--ca", "data/cert.pem"], &["--insecure-loopback"]] {
        let listed = run(&[&["call", "--transport=tcp", "--tls"], how, &[address, "list"]].concat(), folder).await;
        assert!(listed.status.success() && said(&listed).contains("StateSyncService"), "{how:?}: {}", said(&listed));
    }
    let wrong = "00".repeat(32);
    let refused = run(&["call", "--transport=tcp", "--tls", "--pin", &wrong, address, "list"], folder).await;
    assert_eq!(refused.status.code(), Some(64 + 14), "{}", said(&refused));
    let plain = run(&["call", "--transport=tcp", address, "list"], folder).await;
    assert!(!plain.status.success(), "{}", said(&plain));
    let unverified = run(&["call", "--transport=tcp", "--tls", address, "list"], folder).await;
    assert!(!unverified.status.success() && said(&unverified).contains("--pin FINGERPRINT"), "{}", said(&unverified));
    running.stop().await;
}

#[tokio::test]
async fn clients_without_a_certificate_are_refused_where_one_is_asked_for() {
    let first = Service::start(AETHERFLOW, &["session"], FREE_PORTS).await;
    let folder = first.stop().await;
    let stranger = Service::start(AETHERFLOW, &["session"], FREE_PORTS).await.stop().await;
    let strangers = ["cert", "key"].map(|name| format!("--{name}={}/data/{name}.pem", stranger.path().display()));
    let quantum = has_shards();
    let tls = format!(
        "Server:\n  Port: 0\n  TLS: {{Cert: data/cert.pem, Key: data/key.pem, ClientCA: data/cert.pem}}\n\
         Metrics:\n  Port: 0\nQuantum:\n  Enable: {quantum}\n"
    );
    std::fs::write(folder.path().join("config.yaml"), tls).unwrap();
    let running = Service::start_in(folder, AETHERFLOW, &["session"]).await;
    let (address, folder) = (running.address(), running.folder.path());
    let over_quantum = quantum.then_some(&["--transport=quantum"][..]);
    for over in over_quantum.into_iter().chain([&["--transport=tcp", "--tls"][..]]) {
        let call = async |own: &[&str]| {
            let arguments = [&["call", "--insecure-loopback"][..], over, own, &[address, "list"]].concat();
            run(&arguments, folder).await
        };
        for own in [&[][..], &[strangers[0].as_str(), strangers[1].as_str()]] {
            let refused = call(own).await;
            assert_eq!(refused.status.code(), Some(64 + 14), "{over:?}: {}", said(&refused));
        }
        let taken = call(&["--cert=data/cert.pem", "--key=data/key.pem"]).await;
        assert!(taken.status.success(), "{over:?}: {}", said(&taken));
    }
    running.stop().await;
}

#[tokio::test]
async fn a_file_is_checked_without_starting_anything() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("session.yaml", "Store:\n  Redis:\n    Password: secret\n");
    write("bad-statesync.yaml", "Manager:\n  LockTimout: 3s\n");
    write("other.yaml", "");
    let good = run(&["config", "check", "session.yaml"], folder.path()).await;
    assert!(good.status.success() && said(&good) == "session.yaml: good\n", "{}", said(&good));
    let printed = run(&["config", "check", "--print", "session.yaml"], folder.path()).await;
    assert!(said(&printed).contains("Port: 9001") && !said(&printed).contains("secret"), "{}", said(&printed));
    let bad = run(&["config", "check", "bad-statesync.yaml"], folder.path()).await;
    let words = "bad-statesync.yaml: there is no key Manager.LockTimout; is Manager.LockTimeout meant?";
    assert!(!bad.status.success() && said(&bad).contains(words), "{}", said(&bad));
    let which = run(&["config", "check", "other.yaml"], folder.path()).await;
    assert!(!which.status.success() && said(&which).contains("--service"), "{}", said(&which));
    let told = run(&["config", "check", "--service=session", "other.yaml"], folder.path()).await;
    assert!(told.status.success(), "{}", said(&told));
    assert!(!folder.path().join("data").exists());
}

#[tokio::test]
async fn a_public_address_without_authentication_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), "Server:\n  Host: 0.0.0.0\n  Port: 0\n").unwrap();
    let refused = run(&["session", "-f", "s.yaml"], folder.path()).await;
    assert!(!refused.status.success() && said(&refused).contains("Auth.AllowAnonymous"), "{}", said(&refused));
    let missing = run(&["session", "-f", "none.yaml"], folder.path()).await;
    assert!(!missing.status.success() && said(&missing).contains("none.yaml"), "{}", said(&missing));
    let both = run(&["up", "--cores", "0,1"], folder.path()).await;
    assert!(!both.status.success() && said(&both).contains("one for each"), "{}", said(&both));
}
