//! The commands that are clients: `call` and `proxy`.

use proto::statesync as pb;
use uuid::Uuid;

use crate::common::commands::*;
use crate::common::*;

#[tokio::test]
async fn calls_are_made_by_name_over_every_transport() {
    if !has_shards() {
        return;
    }
    let world = World::start().await;
    let address = world.running.session_addr.to_string();
    let pin = format!("--pin={}", world.running.fingerprint);
    let ca = format!("--ca={}", world.data.path().join("cert.pem").display());
    let service = "session.SessionService";
    for how in [&["--insecure-loopback"][..], &[&pin], &[&ca], &["--transport=tcp"], &[&pin, "--transport=auto"]] {
        let with = |rest: &[&str]| [how, &[&address], rest].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
        let run = async |rest: &[&str], input: &str| {
            let args = with(rest);
            call(&args.iter().map(String::as_str).collect::<Vec<_>>(), input).await
        };
        let listed = run(&["list"], "").await;
        assert!(listed.status.success() && said(&listed).contains(service), "{how:?}: {}", said(&listed));
        let listed = run(&["list", service], "").await;
        assert!(said(&listed).contains(&format!("{service}/Heartbeat\n")), "{}", said(&listed));
        let create = format!("{service}/CreateSession");
        let created = run(&[&create, "-"], r#"{"user_id": "ada", "clientIp": "::1", "client_port": 7}"#).await;
        assert!(created.status.success(), "{how:?}: {}", said(&created));
        let created: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap();
        let id = created["session"]["sessionId"].as_str().unwrap();
        let get = format!("{service}/GetSession");
        let got = run(&[&get, &format!("{{\"session_id\": \"{id}\"}}")], "").await;
        let got: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
        for field in ["sessionId", "userId", "connectionId", "clientIp", "clientPort", "createdAt", "expiresAt"] {
            assert_eq!(got["session"][field], created["session"][field], "{field}");
        }
        let missing = run(&[&get, &format!("{{\"session_id\": \"{}\"}}", Uuid::now_v7())], "").await;
        assert_eq!(missing.status.code(), Some(64 + 5), "{}", said(&missing));
        assert!(said(&missing).contains("NOT_FOUND"), "{}", said(&missing));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_said_with_its_remedy() {
    let world = World::start().await;
    let address = world.running.session_addr.to_string();
    let service = "session.SessionService";
    let create = format!("{service}/CreateSession");
    for (args, code, words) in [
        (vec![address.as_str(), "list"], 2, "--pin FINGERPRINT"),
        (vec!["--transport=tcp", "nowhere", "list"], 2, "HOST:PORT"),
        (vec!["--transport=tcp", &address, "Heartbeat"], 2, "package.Service/Method"),
        (vec!["--transport=tcp", &address, "no.Service/Method"], 2, "the server knows no no.Service"),
        (vec!["--transport=tcp", &address, &create, "{\"x\": 1}"], 2, "describe session.CreateSessionRequest"),
        (vec!["--transport=tcp", &address, &create, "{}"], 64 + 3, "INVALID_ARGUMENT"),
        (vec!["--transport=tcp", &address, "--timeout=-1", &create], 2, "2.5"),
        (vec!["--transport=tcp", "127.0.0.1:1", "list"], 64 + 14, "UNAVAILABLE"),
    ] {
        let output = call(&args, "").await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{args:?}: {}", said(&output));
    }
}

#[tokio::test]
async fn an_ordinary_client_reaches_the_server_through_the_proxy() {
    if !has_shards() {
        return;
    }
    let world = World::start().await;
    let pin = format!("--pin={}", world.running.fingerprint);
    let (mut child, address) = proxy(&world.running.statesync_addr.to_string(), &[&pin]).await;
    let mut client = documents(address.parse().unwrap()).await;
    let doc_id = create_text(&mut client, "").await;
    let mut events = subscribe(&mut client, subscription(&doc_id, "bob")).await;
    let session = Uuid::now_v7();
    for version in 1..=50 {
        let applied = apply(&mut client, insertion(&doc_id, session, version, 0, "x")).await.unwrap();
        assert_eq!(next_operation(&mut events).await.operation.unwrap(), applied);
    }
    assert_eq!(text(&mut client, &doc_id).await, "x".repeat(50));
    let missing = pb::GetDocumentRequest { doc_id: Uuid::now_v7().to_string() };
    let status = client.get_document(missing).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::NotFound, "DOCUMENT_NOT_FOUND"));
    let mut late = tonic::Request::new(subscription(&doc_id, "cy"));
    late.set_timeout(std::time::Duration::from_millis(300));
    let mut ended = client.subscribe_document(late).await.unwrap().into_inner();
    let status = end(&mut ended).await;
    assert!(matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{status:?}");
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), child.wait()).await;
    assert!(ended.expect("it ends within five seconds with a stream open").unwrap().success());
}
