//! The binary: keys that are replaced while it runs, tokens from the command line, services of their own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proto::session as session_pb;
use proto::session::session_service_client::SessionServiceClient;
use proto::statesync as pb;
use tonic::Code;

use super::*;
use crate::common::commands::{AETHERFLOW, call, proxy, said};
use crate::common::process::Process;
use crate::common::service::ServiceProcess;
use crate::common::{self, documents, end, eventually, free_base, insertion, next, subscription};

fn keys(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(id, secret)| format!("{{Id: {id}, Secret: \"{secret}\"}}")).collect();
    format!(
        "Store: {{Type: sqlite}}\nAuth: {{Enabled: true, Keys: [{}], RateLimit: {{Enable: false}}}}\n",
        keys.join(", ")
    )
}

const OLD: &str = "the secret that was there before, of some length";
const NEW: &str = "the secret that follows it, also of some length";

#[tokio::test]
async fn keys_are_replaced_while_the_service_runs() {
    let mut service =
        ServiceProcess::start("statesync", &(keys(&[("old", OLD)]) + "SessionService: {Target: \"\"}\n")).await;
    let claims = serde_json::json!({"sub": "ada", "exp": unix_now() + 600});
    let (old, new) = (signed("old", OLD, &claims), signed("new", NEW, &claims));
    let mut client = documents(service.address).await;
    let list = pb::ListDocumentsRequest::default;
    client.list_documents(bearing(&old, list())).await.unwrap();
    assert_eq!(refused(client.list_documents(bearing(&new, list())).await, &[OLD, NEW, &new]).0, Code::Unauthenticated);
    let create = pb::CreateDocumentRequest { name: "n".into(), r#type: "text".into(), ..Default::default() };
    let document = client.create_document(bearing(&old, create)).await.unwrap().into_inner().document.unwrap();
    let subscribe = |token: &str| bearing(token, subscription(&document.id, ""));
    let mut of_old = client.subscribe_document(subscribe(&old)).await.unwrap().into_inner();
    next(&mut of_old).await;
    // Both for a while: nobody is thrown out.
    service.reconfigure(&(keys(&[("old", OLD), ("new", NEW)]) + "SessionService: {Target: \"\"}\n"));
    eventually(Duration::from_secs(20), async || client.list_documents(bearing(&new, list())).await).await;
    client.list_documents(bearing(&old, list())).await.unwrap();
    let mut of_new = client.subscribe_document(subscribe(&new)).await.unwrap().into_inner();
    next(&mut of_new).await;
    // A configuration that cannot be used changes nothing.
    service.reconfigure("Auth: {Enabled: true, Keys: [{Id: old, SecretFile: /nonexistent}]}\n");
    service.logs("not reloaded; all stays as it was").await;
    client.list_documents(bearing(&old, list())).await.unwrap();
    service.reconfigure(&(keys(&[("new", NEW)]) + "SessionService: {Target: \"\"}\n"));
    let status = tokio::time::timeout(Duration::from_secs(20), end(&mut of_old)).await.expect("its key is gone");
    assert_eq!(refused::<()>(Err(status), &[OLD, NEW]), is(Code::Unauthenticated, "TOKEN_INVALID"));
    let said = refused(client.list_documents(bearing(&old, list())).await, &[OLD, NEW, &old]);
    assert_eq!(said, is(Code::Unauthenticated, "TOKEN_INVALID"));
    client.list_documents(bearing(&new, list())).await.unwrap();
    service.kill();
}

#[tokio::test]
async fn services_of_their_own_ask_each_other_for_sessions() {
    let auth = keys(&[("test", SECRET)]);
    let sessions = ServiceProcess::start("session", &auth).await;
    let target = format!("{auth}SessionService: {{Target: \"{}\"}}\n", sessions.address);
    let statesync = ServiceProcess::start("statesync", &target).await;
    let mut session_client = SessionServiceClient::connect(format!("http://{}", sessions.address)).await.unwrap();
    let mut client = documents(statesync.address).await;
    let mut open = async |user: &str| {
        let request = session_pb::CreateSessionRequest { client_ip: "::1".into(), ..Default::default() };
        let answer = session_client.create_session(by(user, request)).await.unwrap().into_inner();
        (answer.session.unwrap().session_id, answer.token)
    };
    let ((adas, adas_token), (bobs, bobs_token)) = (open("ada").await, open("bob").await);
    let create = pb::CreateDocumentRequest { name: "n".into(), r#type: "text".into(), ..Default::default() };
    let id = client.create_document(by("ada", create)).await.unwrap().into_inner().document.unwrap().id;
    let operation = |session: &str, version| pb::ApplyOperationRequest {
        operation: Some(insertion(&id, session.parse().unwrap(), version, 0, "x")),
    };
    client.apply_operation(by("ada", operation(&adas, 1))).await.unwrap();
    let foreign = client.apply_operation(by("ada", operation(&bobs, 2))).await;
    assert_eq!(refused(foreign, &["bob"]), is(Code::NotFound, "SESSION_NOT_FOUND"));
    client.apply_operation(in_session(&adas, &adas_token, operation(&adas, 2))).await.unwrap();
    // Nor after it was looked up with the right token, or without one.
    for (session, token) in [(&adas, &bobs_token), (&bobs, &adas_token), (&adas, &"x".to_owned())] {
        let wrong = client.apply_operation(in_session(session, token, operation(session, 3))).await;
        assert_eq!(refused(wrong, &[token]), is(Code::Unauthenticated, "SESSION_TOKEN_INVALID"));
    }
    drop(sessions);
    let unknown = uuid::Uuid::now_v7().to_string();
    let status = client.apply_operation(by("ada", operation(&unknown, 3))).await;
    assert_eq!(refused(status, &[]), is(Code::Unavailable, "SESSIONS_UNAVAILABLE"));
}

/// `aetherflow up --auth`; ends with this.
struct Up {
    _process: Process,
    base: u16,
}

impl Up {
    async fn start(folder: &Path) -> Self {
        let base = free_base();
        let file = |name| std::fs::File::create(folder.join(name)).unwrap();
        let mut command = Command::new(AETHERFLOW);
        command.args(["up", "--auth", "--ports", &base.to_string()]).current_dir(folder).env("NO_COLOR", "1");
        let process = Process::start(command.stdin(Stdio::null()).stdout(file("said")).stderr(file("logs")));
        documents(([127, 0, 0, 1], base + 2).into()).await;
        Self { _process: process, base }
    }

    fn address(&self, offset: u16) -> String {
        format!("127.0.0.1:{}", self.base + offset)
    }
}

/// Runs `aetherflow token`.
fn issued(key_file: &Path, rest: &[&str]) -> String {
    let output = Command::new(AETHERFLOW).arg("token").arg("--key-file").arg(key_file).args(rest).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn tokens_come_from_the_command_line_and_what_is_denied_is_written_down() {
    if !has_shards() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let up = Up::start(folder).await;
    // It says so once all of it is up.
    eventually(Duration::from_secs(10), async || {
        let announced = std::fs::read_to_string(folder.join("said")).unwrap();
        let is_told = announced.contains("aetherflow token --key-file data/auth.key --sub USER");
        if is_told { Ok(()) } else { Err(announced) }
    })
    .await;
    let secret_file = folder.join("data/auth.key");
    assert_eq!(std::fs::metadata(&secret_file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&secret_file).unwrap();
    let token = issued(&secret_file, &["--sub", "ada", "--ttl", "5m"]);
    let token_file = folder.join("token");
    std::fs::write(&token_file, format!("{token}\n")).unwrap();
    let (address, list) = (up.address(1), "session.SessionService/ListSessions");
    let token_file = format!("--token-file={}", token_file.display());
    let with_token = format!("--token={token}");
    for transport in ["--insecure-loopback", "--transport=tcp"] {
        for credentials in [&token_file, &with_token] {
            let output = call(&[transport, credentials, &address, list], "").await;
            assert!(output.status.success(), "{transport}: {}", said(&output));
        }
        let output = call(&[transport, &address, list], "").await;
        assert_eq!(output.status.code(), Some(64 + 16), "{}", said(&output));
        let listed = call(&[transport, &address, "list"], "").await;
        assert!(said(&listed).contains("session.SessionService"), "reflection is open: {}", said(&listed));
    }
    let plain = call(&["--transport=tcp", &with_token, "192.0.2.1:9001", list], "").await;
    assert_eq!(plain.status.code(), Some(2));
    assert!(said(&plain).contains("plain text") && !said(&plain).contains(&token), "{}", said(&plain));

    // Through a proxy go a client's own token, or the proxy's.
    let documents_at = up.address(2);
    for connect in [&["--insecure-loopback"][..], &["--insecure-loopback", &token_file]] {
        let (_proxy, address) = proxy(&documents_at, connect).await;
        let mut client = documents(address.parse().unwrap()).await;
        let list = pb::ListDocumentsRequest::default;
        client.list_documents(bearing(&token, list())).await.unwrap();
        assert_eq!(client.list_documents(list()).await.is_ok(), connect.len() == 2);
        let forged = client.list_documents(bearing("forged", list())).await;
        assert_eq!(refused(forged, &[]).0, Code::Unauthenticated);
    }
    let other = pb::ListDocumentsRequest { user_id: "somebody else".into(), ..Default::default() };
    let mut client = documents(documents_at.parse().unwrap()).await;
    assert_eq!(refused(client.list_documents(bearing(&token, other)).await, &[]).0, Code::PermissionDenied);
    let logs = std::fs::read_to_string(folder.join("logs")).unwrap();
    let audit: Vec<_> = logs.lines().filter(|line| line.contains("audit") && line.contains("denied")).collect();
    for parts in [
        ["caller=\"\"", "/session.SessionService/ListSessions", "CREDENTIALS_MISSING"],
        ["caller=\"\"", "/aetherflow.statesync.StateSyncService/ListDocuments", "TOKEN_MALFORMED"],
        ["caller=\"ada\"", "/aetherflow.statesync.StateSyncService/ListDocuments", "ANOTHER_USER"],
    ] {
        let found = audit.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line has {parts:?}: {logs}");
    }
    assert!(!logs.contains(&token) && !logs.contains(secret.trim()) && !logs.contains("forged"), "{logs}");
}

#[tokio::test]
async fn an_ed25519_issuer_needs_no_shared_secret() {
    let folder = tempfile::tempdir().unwrap();
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let pem = |name: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::prelude::BASE64_STANDARD.encode(der);
        let path = folder.path().join(name.to_lowercase());
        std::fs::write(&path, format!("-----BEGIN {name} KEY-----\n{text}\n-----END {name} KEY-----\n")).unwrap();
        path
    };
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let public = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &public].concat();
    let (private, public) = (pem("PRIVATE", pair.to_pkcs8v1().unwrap().as_ref()), pem("PUBLIC", &public));
    let config = format!(
        "Auth: {{Enabled: true, Issuer: me, Keys: [{{Id: ed, Algorithm: EdDSA, PublicKeyFile: {}}}]}}\n",
        public.display()
    );
    let service = ServiceProcess::start("session", &config).await;
    let mut client = SessionServiceClient::connect(format!("http://{}", service.address)).await.unwrap();
    let token = issued(&private, &["--key-id", "ed", "--sub", "ada", "--issuer", "me"]);
    let list = session_pb::ListSessionsRequest::default;
    client.list_sessions(bearing(&token, list())).await.unwrap();
    let other = issued(&private, &["--key-id", "ed", "--sub", "ada"]);
    let said = refused(client.list_sessions(bearing(&other, list())).await, &[&other]);
    assert_eq!(said, is(Code::Unauthenticated, "TOKEN_INVALID"));
    // `config check` finds what start-up would.
    let file = folder.path().join("session.yaml");
    std::fs::write(&file, config.replace("ed, Alg", "ed, Secret: s, Alg")).unwrap();
    let check = Command::new(AETHERFLOW).args(["config", "check"]).arg(&file).output().unwrap();
    assert!(
        !check.status.success() && common::commands::said(&check).contains("Auth.Keys"),
        "{}",
        common::commands::said(&check)
    );
}
