//! Sessions in Redis: what becomes of them when it dies, and what it may not hold.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use control::session::{RedisOptions, RedisSessions};
use proto::session as pb;
use tonic::Code;

/// Until connections are made again, on a machine that is busy.
const RETURN_TIME: Duration = Duration::from_mins(1);

#[tokio::test]
async fn an_acknowledged_session_survives_the_death_of_redis() {
    let Some(mut world) = World::on_redis().await else { return };
    let request = pb::CreateSessionRequest {
        user_id: "ada".into(),
        client_ip: "192.0.2.7".into(),
        client_port: 4242,
        ..pb::CreateSessionRequest::default()
    };
    let created = world.sessions.create_session(request).await.unwrap().into_inner().session.unwrap();
    let redis = world.redis.as_mut().unwrap();
    redis.kill();
    let request = pb::GetSessionRequest { session_id: created.session_id.clone() };
    let status = world.sessions.get_session(request.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    redis.restart().await;
    let deadline = Instant::now() + RETURN_TIME;
    let found = loop {
        match world.sessions.get_session(request.clone()).await {
            Ok(answer) => break answer.into_inner().session.unwrap(),
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(found, created);
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
