//! Sessions and the connections that they come in by.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::commands::{call, proxy, said};
use crate::common::*;
use control::session::OnDisconnect;
use control::up::UpOptions;
use proto::session::session_service_client::SessionServiceClient;
use proto::session::{self as pb, SessionState};
use quantum_grpc::{Channel, ClientConfig, Endpoint, EndpointOptions, Verify};
use tonic::{Code, Status};
use uuid::Uuid;

/// A client that vanished without a word is noticed after this.
const IDLE_TIME: Duration = Duration::from_millis(1500);
/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);

fn create(user_id: &str) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest { user_id: user_id.into(), client_ip: "127.0.0.1".into(), ..Default::default() }
}

fn get(id: &str) -> pb::GetSessionRequest {
    pb::GetSessionRequest { session_id: id.into() }
}

fn beat(id: &str) -> pb::HeartbeatRequest {
    pb::HeartbeatRequest { session_id: id.into(), client_timestamp: None }
}

async fn read(sessions: &mut Sessions, id: &str) -> Result<pb::Session, Status> {
    Ok(sessions.get_session(get(id)).await?.into_inner().session.unwrap())
}

/// Waits until a session is in this state.
async fn becomes(sessions: &mut Sessions, id: &str, state: SessionState) -> pb::Session {
    let look = async || {
        let session = read(sessions, id).await.unwrap();
        if session.state() == state { Ok(session) } else { Err(format!("{session:?}")) }
    };
    eventually(PATIENCE, look).await
}

/// A client over a connection of its own.
fn over_quantum(address: SocketAddr) -> (Channel, SessionServiceClient<Channel>) {
    let endpoint = Endpoint::client(&EndpointOptions::default()).unwrap();
    let config = ClientConfig::new(Verify::InsecureLoopback);
    let channel = Channel::connect_lazy(endpoint, &address.to_string(), config);
    (channel.clone(), SessionServiceClient::new(channel))
}

async fn over_tcp(address: SocketAddr) -> Sessions {
    SessionServiceClient::connect(format!("http://{address}")).await.unwrap()
}

#[tokio::test]
async fn a_session_over_quantum_has_the_id_and_the_statistics_of_its_connection() {
    if !has_shards() {
        return;
    }
    let mut world = World::start().await;
    let (channel, mut client) = over_quantum(world.running.session_addr);
    let created = client.create_session(create("ada")).await.unwrap().into_inner().session.unwrap();
    let connection = channel.connection().await.unwrap();
    assert_eq!(created.connection_id, Uuid::from_bytes(connection.guuid().0).to_string());
    assert_eq!(created.connection_id.parse::<Uuid>().unwrap().get_version_num(), 7);
    let second = client.create_session(create("bob")).await.unwrap().into_inner().session.unwrap();
    assert_eq!(second.connection_id, created.connection_id, "two sessions of one connection");

    let first = client.get_session(get(&created.session_id)).await.unwrap().into_inner().session.unwrap();
    let before = first.stats.unwrap();
    assert!(before.packets_sent > 0 && before.bytes_sent > before.packets_sent, "{before:?}");
    assert!(before.packets_received > 0 && before.bytes_received > before.packets_received, "{before:?}");
    assert!((1..1000).contains(&before.current_rtt_ms), "{before:?}");
    for _ in 0..50 {
        client.heartbeat(beat(&created.session_id)).await.unwrap();
    }
    // Whoever reads sees them, and a list does too; they are a tenth of a second old at most.
    let has_them = async || {
        let stats = read(&mut world.sessions, &created.session_id).await.unwrap().stats.unwrap();
        if stats.packets_received >= before.packets_received + 25 { Ok(stats) } else { Err(format!("{stats:?}")) }
    };
    let after = eventually(PATIENCE, has_them).await;
    assert!(after.bytes_sent > before.bytes_sent && after.bytes_received > before.bytes_received, "{after:?}");
    let listed = world.sessions.list_sessions(pb::ListSessionsRequest::default()).await.unwrap().into_inner();
    for session in &listed.sessions {
        assert!(session.stats.unwrap().packets_received >= after.packets_received, "{session:?}");
    }
    // What the server received the client sent.
    let of_client = connection.statistics().await.unwrap();
    assert!(after.packets_received <= of_client.packets_sent && after.bytes_received <= of_client.bytes_sent);

    connection.close(0, b"");
    let idle = becomes(&mut world.sessions, &created.session_id, SessionState::Idle).await;
    becomes(&mut world.sessions, &second.session_id, SessionState::Idle).await;
    let kept = idle.stats.unwrap();
    assert!(kept.packets_received >= after.packets_received && kept.bytes_sent >= after.bytes_sent, "{kept:?}");
    assert_eq!((idle.connection_id, idle.expires_at.is_some()), (created.connection_id, true));
    let again = read(&mut world.sessions, &created.session_id).await.unwrap();
    assert_eq!(again.stats.unwrap(), kept, "they are kept as they were in the end");
}

#[tokio::test]
async fn a_session_through_a_proxy_idles_when_the_proxy_is_killed() {
    if !has_shards() {
        return;
    }
    let short = |up: &mut UpOptions| up.quantum.as_mut().unwrap().protocol.idle_timeout = IDLE_TIME;
    let mut world = World::start_with(short).await;
    let address = world.running.session_addr.to_string();
    let (mut process, at) = proxy(&address, &["--insecure-loopback"]).await;
    let mut ids = Vec::new();
    for user in ["ada", "bob"] {
        let mut client = over_tcp(at.parse().unwrap()).await;
        ids.push(client.create_session(create(user)).await.unwrap().into_inner().session.unwrap());
    }
    assert_eq!(ids[0].connection_id, ids[1].connection_id, "the connection of both is the proxy's");
    // The proxy keeps its connection alive, although its clients are gone.
    let quiet = Instant::now() + 2 * IDLE_TIME;
    while Instant::now() < quiet {
        assert_eq!(read(&mut world.sessions, &ids[0].session_id).await.unwrap().state(), SessionState::Active);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = read(&mut world.sessions, &ids[0].session_id).await.unwrap().stats.unwrap();
    process.start_kill().unwrap();
    process.wait().await.unwrap();
    for session in &ids {
        let idle = becomes(&mut world.sessions, &session.session_id, SessionState::Idle).await;
        assert!(idle.stats.unwrap().packets_received >= before.packets_received, "{idle:?}");
    }
    world.sessions.heartbeat(beat(&ids[0].session_id)).await.unwrap();
    let woken = read(&mut world.sessions, &ids[0].session_id).await.unwrap();
    assert_eq!(woken.state(), SessionState::Active, "it was heard of over another connection");
}

#[tokio::test]
async fn a_session_over_tcp_idles_with_its_client_and_keeps_what_that_reported() {
    let mut world = World::start().await;
    let address = world.running.session_addr;
    let mut client = over_tcp(address).await;
    let created = client.create_session(create("ada")).await.unwrap().into_inner().session.unwrap();
    assert_eq!(created.connection_id.parse::<Uuid>().unwrap().get_version_num(), 7);
    let other = client.create_session(create("ada")).await.unwrap().into_inner().session.unwrap();
    assert_ne!(created.connection_id, other.connection_id, "a fresh id for each");
    let stats = pb::SessionStats { packets_sent: 7, ..Default::default() };
    let update =
        pb::UpdateSessionRequest { session_id: created.session_id.clone(), stats: Some(stats), ..Default::default() };
    client.update_session(update).await.unwrap();
    drop(client);
    let idle = becomes(&mut world.sessions, &created.session_id, SessionState::Idle).await;
    assert_eq!(idle.stats.unwrap(), stats);
    becomes(&mut world.sessions, &other.session_id, SessionState::Idle).await;
    let counts = world.sessions.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner();
    assert_eq!((counts.total, counts.active, counts.idle), (2, 0, 2));

    // A process that has ended.
    let request = r#"{"user_id": "ada", "client_ip": "127.0.0.1"}"#;
    let method = "session.SessionService/CreateSession";
    let made = call(&["--transport=tcp", &address.to_string(), method, request], "").await;
    assert!(made.status.success(), "{}", said(&made));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    becomes(&mut world.sessions, made["session"]["sessionId"].as_str().unwrap(), SessionState::Idle).await;
}

#[tokio::test]
async fn a_session_that_was_heard_of_by_another_connection_does_not_end_with_its_own() {
    if !has_shards() {
        return;
    }
    let mut world = World::start().await;
    let (channel, mut client) = over_quantum(world.running.session_addr);
    let mut ids = Vec::new();
    for user in ["stays", "moves", "returns"] {
        let session = client.create_session(create(user)).await.unwrap().into_inner().session.unwrap();
        ids.push(session.session_id);
    }
    world.sessions.heartbeat(beat(&ids[1])).await.unwrap();
    world.sessions.heartbeat(beat(&ids[2])).await.unwrap();
    client.heartbeat(beat(&ids[2])).await.unwrap();
    let closing = pb::UpdateSessionRequest {
        session_id: ids[2].clone(),
        state: SessionState::Disconnecting.into(),
        ..Default::default()
    };
    client.update_session(closing).await.unwrap();
    channel.connection().await.unwrap().close(0, b"");
    becomes(&mut world.sessions, &ids[0], SessionState::Idle).await;
    // All of a connection's sessions have its last statistics; they are written at once.
    let same = async || {
        let mut kept = Vec::new();
        for id in &ids {
            kept.push(read(&mut world.sessions, id).await.unwrap());
        }
        let alike = kept.iter().all(|session| session.stats == kept[0].stats);
        if alike { Ok(kept) } else { Err(format!("{kept:?}")) }
    };
    let kept = eventually(PATIENCE, same).await;
    assert!(kept[0].stats.unwrap().packets_sent > 0);
    assert_eq!(kept[1].state(), SessionState::Active);
    assert_eq!(kept[2].state(), SessionState::Disconnecting, "what its client said stands");
}

#[tokio::test]
async fn the_end_of_a_connection_ends_its_sessions_where_that_is_configured() {
    let mut world = World::start_with(|up| up.on_disconnect = OnDisconnect::End).await;
    let mut client = over_tcp(world.running.session_addr).await;
    let created = client.create_session(create("ada")).await.unwrap().into_inner().session.unwrap();
    let own = world.sessions.create_session(create("bob")).await.unwrap().into_inner().session.unwrap();
    drop(client);
    let gone = async || read(&mut world.sessions, &created.session_id).await.err().ok_or("it is still there");
    assert_eq!(eventually(PATIENCE, gone).await.code(), Code::NotFound);
    assert_eq!(read(&mut world.sessions, &own.session_id).await.unwrap().state(), SessionState::Active);
}

#[tokio::test]
async fn the_end_of_a_connection_leaves_its_sessions_where_that_is_configured() {
    if !has_shards() {
        return;
    }
    let mut world = World::start_with(|up| up.on_disconnect = OnDisconnect::Keep).await;
    let (channel, mut client) = over_quantum(world.running.session_addr);
    let created = client.create_session(create("ada")).await.unwrap().into_inner().session.unwrap();
    let connection = channel.connection().await.unwrap();
    connection.close(0, b"");
    connection.closed().await;
    // Whether an end that changes nothing to be seen has been dealt with, nobody says: it takes a few milliseconds.
    let mut seen = 0;
    let unchanged = async || {
        seen +=
            u32::from(read(&mut world.sessions, &created.session_id).await.unwrap().state() == SessionState::Active);
        if seen >= 50 { Ok(()) } else { Err("it was looked at too seldom") }
    };
    eventually(PATIENCE, unchanged).await;
    // What the connection had done is in the store.
    let mut world = world.restart().await;
    let found = read(&mut world.sessions, &created.session_id).await.unwrap();
    assert_eq!(found.state(), SessionState::Active);
    assert!(found.stats.unwrap().packets_sent > 0, "{found:?}");
}

#[tokio::test]
async fn a_service_that_stops_leaves_its_sessions_as_they_are() {
    let mut world = World::start().await;
    let created = world.sessions.create_session(create("ada")).await.unwrap().into_inner().session.unwrap();
    let mut world = world.restart().await;
    assert_eq!(read(&mut world.sessions, &created.session_id).await.unwrap(), created);
}
