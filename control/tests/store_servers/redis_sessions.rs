//! Sessions in Redis: what becomes of them when it or the service dies, falls silent or forgets, and what it may not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control::session::{RedisOptions, RedisSessions};
use proto::session as pb;
use tokio::task::JoinSet;
use tonic::Code;

use crate::common::outage::{Calls, RECOVERY, kills, refused, timed};
use crate::common::service::ServiceProcess;
use crate::common::*;

const WRITERS: usize = 8;

pub(super) fn create(user_id: &str, timeout_seconds: u32) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest {
        user_id: user_id.into(),
        client_ip: "192.0.2.7".into(),
        client_port: 4242,
        timeout_seconds,
        ..Default::default()
    }
}

/// What writers were told.
#[derive(Default)]
pub(super) struct History {
    pub(super) calls: Calls,
    /// The acknowledged keys of each session that was acknowledged, or none if its end was.
    sessions: Mutex<BTreeMap<String, Option<BTreeSet<String>>>>,
    /// Creations of which nobody knows what became.
    unknown: AtomicU64,
}

impl History {
    /// Of these calls.
    pub(super) fn of(calls: Calls) -> Self {
        Self { calls, ..Self::default() }
    }

    /// A session that nobody writes.
    pub(super) fn knows(&self, session_id: &str) {
        self.sessions.lock().unwrap().insert(session_id.to_owned(), Some(BTreeSet::new()));
    }

    /// Everything acknowledged is there, nothing else but what nobody knows of, and the indexes know it all.
    pub(super) async fn check(&self, client: &mut Sessions) {
        let known = self.sessions.lock().unwrap().clone();
        let mut kept = 0;
        for (session_id, keys) in &known {
            let request = pb::GetSessionRequest { session_id: session_id.clone() };
            let found = client.get_session(request).await;
            let Some(keys) = keys else {
                assert_eq!(found.unwrap_err().code(), Code::NotFound, "{session_id} came back");
                continue;
            };
            let found: BTreeSet<String> = found.unwrap().into_inner().session.unwrap().metadata.into_keys().collect();
            assert!(keys.is_subset(&found), "{session_id} has {found:?} of {keys:?}");
            kept += 1;
        }
        let (mut listed, mut total) = (BTreeSet::new(), 1);
        for page in 1.. {
            let request = pb::ListSessionsRequest { page, page_size: 1000, ..Default::default() };
            let answer = client.list_sessions(request).await.unwrap().into_inner();
            total = u64::from(answer.total);
            if answer.sessions.is_empty() {
                break;
            }
            listed.extend(answer.sessions.into_iter().map(|session| session.session_id));
        }
        assert_eq!(total, listed.len() as u64, "a total that is not what is listed");
        let unknown = self.unknown.load(Ordering::Relaxed);
        assert!((kept..=kept + unknown).contains(&total), "{total} listed, {kept} known, {unknown} unknown");
        let stats = client.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner();
        assert_eq!(stats.total, total);
        println!("{kept} sessions kept of {}, {unknown} creations unknown, {total} listed", known.len());
    }
}

/// Opens sessions, changes each some times, and ends every third, each step until it is acknowledged.
async fn write(mut client: Sessions, user_id: String, history: Arc<History>) {
    for round in 0.. {
        if !history.calls.go_on() {
            return;
        }
        let creation = client.create_session(timed(create(&user_id, 0)));
        let Some(created) = history.calls.heard(creation).await else {
            history.unknown.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let session_id = created.into_inner().session.unwrap().session_id;
        history.sessions.lock().unwrap().insert(session_id.clone(), Some(BTreeSet::new()));
        for key in ["a", "b", "c"] {
            let request = pb::UpdateSessionRequest {
                session_id: session_id.clone(),
                metadata: [(key.to_owned(), user_id.clone())].into(),
                ..Default::default()
            };
            let update = || {
                let (mut client, request) = (client.clone(), timed(request.clone()));
                async move { client.update_session(request).await }
            };
            history.calls.acknowledged(update).await;
            history.sessions.lock().unwrap().get_mut(&session_id).unwrap().as_mut().unwrap().insert(key.to_owned());
        }
        if round % 3 == 0 {
            let request = pb::DeleteSessionRequest { session_id: session_id.clone(), reason: String::new() };
            let delete = || {
                let (mut client, request) = (client.clone(), timed(request.clone()));
                async move {
                    match client.delete_session(request).await {
                        // An earlier attempt was done.
                        Err(status) if status.code() == Code::NotFound => Ok(()),
                        ended => ended.map(|_| ()),
                    }
                }
            };
            history.calls.acknowledged(delete).await;
            history.sessions.lock().unwrap().insert(session_id, None);
        }
    }
}

pub(super) async fn writers(address: std::net::SocketAddr, history: &Arc<History>) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = sessions(address).await;
        writers.spawn(write(client, format!("writer-{writer}"), Arc::clone(history)));
    }
    writers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_once_after_redis_was_killed_in_the_middle_of_writes() {
    let Some(mut world) = World::on_redis().await else { return };
    let mut redis = world.redis.take().unwrap();
    let history = Arc::new(History::default());
    let writers = writers(world.running.session_addr, &history).await;
    for _ in 1..=kills() {
        history.calls.until_kill().await;
        redis.kill();
        history.calls.until_refused().await;
        redis.restart().await;
        history.calls.recover().await;
    }
    history.calls.end(writers).await;
    history.check(&mut world.sessions).await;
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_once_after_the_service_was_killed_in_the_middle_of_writes() {
    let Some(redis) = RedisServer::start().await else { return };
    let mut service = ServiceProcess::start("session", &redis.section()).await;
    let history = Arc::new(History::of(Calls::of_dying_service()));
    let writers = writers(service.address, &history).await;
    history.calls.outlive(&mut service).await;
    history.calls.end(writers).await;
    history.check(&mut sessions(service.address).await).await;
}

/// What calls are told while Redis does not answer, each within the deadline.
async fn refusals(client: &mut Sessions, session_id: &str) -> Vec<Code> {
    let session_id = session_id.to_owned();
    let get = pb::GetSessionRequest { session_id: session_id.clone() };
    let heartbeat = pb::HeartbeatRequest { session_id, client_timestamp: None };
    vec![
        refused(client.create_session(timed(create("ada", 0)))).await,
        refused(client.get_session(timed(get))).await,
        refused(client.heartbeat(timed(heartbeat))).await,
        refused(client.list_sessions(timed(pb::ListSessionsRequest::default()))).await,
        refused(client.get_stats(timed(pb::GetStatsRequest {}))).await,
    ]
}

/// A session is heard of again within the time that recovery may take.
pub(super) async fn recovers(world: &mut World, session_id: &str) {
    let deadline = Instant::now() + RECOVERY;
    let request = pb::HeartbeatRequest { session_id: session_id.to_owned(), client_timestamp: None };
    while let Err(status) = world.sessions.heartbeat(timed(request.clone())).await {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(Instant::now() < deadline, "{status:?}");
    }
    is_ready_within(world.running.session_metrics_addr, RECOVERY).await;
    // Over every connection: none of them fails any more.
    let deadline = Instant::now() + RECOVERY;
    let mut succeeded = 0;
    while succeeded < 20 {
        assert!(Instant::now() < deadline, "some calls still fail");
        let answer = world.sessions.heartbeat(timed(request.clone())).await;
        succeeded = if answer.is_ok() { succeeded + 1 } else { 0 };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_calls_fail_in_time_and_the_service_recovers_by_itself() {
    let Some(mut world) = World::on_redis().await else { return };
    let created = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner().session.unwrap();
    let metrics = world.running.session_metrics_addr;
    let ready = is_ready_within(metrics, RECOVERY).await;
    assert!(!ready.contains("warning"), "{ready}");
    world.redis.as_mut().unwrap().kill();
    assert_eq!(refusals(&mut world.sessions, &created.session_id).await, [Code::Unavailable; 5]);
    let answer = http_get(metrics, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.0 503") && answer.contains("Redis"), "{answer}");
    world.redis.as_mut().unwrap().restart().await;
    recovers(&mut world, &created.session_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_falls_silent_fails_calls_in_time_and_is_used_again_when_it_speaks() {
    let Some(redis) = RedisServer::start().await else { return };
    let options = RedisOptions { response_timeout: Duration::from_secs(1), ..redis.options() };
    let mut world = World::on_redis_at(redis, options).await;
    let created = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner().session.unwrap();
    world.redis.as_ref().unwrap().signal("-STOP");
    let codes = refusals(&mut world.sessions, &created.session_id).await;
    world.redis.as_ref().unwrap().signal("-CONT");
    assert_eq!(codes, [Code::Unavailable; 5]);
    recovers(&mut world, &created.session_id).await;
}

#[tokio::test]
async fn connections_that_redis_closes_or_refuses_are_made_again() {
    let Some(mut world) = World::on_redis().await else { return };
    let created = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner().session.unwrap();
    let redis = world.redis.as_ref().unwrap();
    // It refuses every connection but the one that says so.
    let mut tell = redis.connect();
    tell("CONFIG SET maxclients 1");
    tell("CLIENT KILL TYPE normal");
    let request = pb::GetSessionRequest { session_id: created.session_id.clone() };
    let deadline = Instant::now() + RECOVERY;
    while world.sessions.get_session(timed(request.clone())).await.is_ok() {
        assert!(Instant::now() < deadline, "calls succeed over connections that were closed");
    }
    tell("CONFIG SET maxclients 1000");
    drop(tell);
    recovers(&mut world, &created.session_id).await;
}

#[tokio::test]
async fn readiness_warns_where_a_crash_would_lose_what_was_acknowledged() {
    let Some(world) = World::on_redis().await else { return };
    world.redis.as_ref().unwrap().tell("CONFIG SET appendonly no");
    let answer = http_get(world.running.session_metrics_addr, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("warning: ") && answer.contains("appendonly"), "{answer}");
}

#[tokio::test]
async fn many_sessions_that_expire_at_once_are_counted_no_longer() {
    let Some(mut world) = World::on_redis().await else { return };
    let kept = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner().session.unwrap();
    let mut creations = JoinSet::new();
    for user in 0..600 {
        let mut client = world.sessions.clone();
        creations.spawn(async move { client.create_session(create(&format!("user {user}"), 2)).await.unwrap() });
    }
    while let Some(created) = creations.join_next().await {
        created.unwrap();
    }
    eventually(Duration::from_secs(30), async || {
        let stats = world.sessions.get_stats(pb::GetStatsRequest {}).await.unwrap().into_inner();
        if (stats.total, stats.active) == (1, 1) { Ok(()) } else { Err(format!("{stats:?}")) }
    })
    .await;
    let listed = world.sessions.list_sessions(pb::ListSessionsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.sessions, [kept]);
    // Of each session, nothing is left under any name.
    let redis = world.redis.as_ref().unwrap();
    eventually(Duration::from_secs(30), async || {
        let keys = redis.ask("DBSIZE");
        // The one that lives, its connection, its user, its state, all, by expiry.
        if keys <= 6 { Ok(()) } else { Err(format!("{keys} keys")) }
    })
    .await;
}

#[tokio::test]
async fn the_time_that_redis_takes_is_measured() {
    let Some(mut world) = World::on_redis().await else { return };
    world.sessions.create_session(create("ada", 0)).await.unwrap();
    let metrics = http_get(world.running.session_metrics_addr, "/metrics").await;
    let line = "store_operation_duration_seconds_count{store=\"redis\",operation=\"insert\"}";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn what_another_program_keeps_under_the_same_names_is_left_alone() {
    let Some(redis) = RedisServer::start().await else { return };
    redis.tell("SADD sessions:all x");
    let error = RedisSessions::connect(&redis.options()).await.err().expect("it is a set of another program");
    assert!(error.to_string().contains("Store.Redis.KeyPrefix"), "{error}");
    let options = RedisOptions { key_prefix: "aetherflow:".to_owned(), ..redis.options() };
    RedisSessions::connect(&options).await.unwrap();
}
