//! A bad network between the session service and Redis.

use std::sync::Arc;
use std::time::Duration;

use control::session::RedisOptions;
use proto::session as pb;

use super::redis_sessions::{History, create, recovers, writers};
use crate::common::fault::{Fault, FaultProxy};
use crate::common::outage::{Calls, DEADLINE, RECOVERY, timed};
use crate::common::*;

/// Sessions in a Redis behind a network that can be made bad, over as many connections as by default.
async fn behind_a_network() -> Option<(World, FaultProxy)> {
    let redis = RedisServer::start().await?;
    let network = FaultProxy::start(redis.address).await;
    let (address, response_timeout) = (network.address.to_string(), Duration::from_secs(1));
    let options = RedisOptions { address, response_timeout, connections: 10, ..redis.options() };
    Some((World::on_redis_at(redis, options).await, network))
}

/// Writers write while the fault comes and goes: all are told in time, nothing that was acknowledged is lost or done twice, and
/// everything works again soon after its end.
async fn outlives(fault: Fault) {
    let Some((mut world, network)) = behind_a_network().await else { return };
    let (address, metrics) = (world.running.session_addr, world.running.session_metrics_addr);
    let history = Arc::new(History::of(Calls::of_bad_network()));
    let created = world.sessions.create_session(create("ada", 0)).await.unwrap().into_inner().session.unwrap();
    history.knows(&created.session_id);
    let writers = writers(address, &history).await;
    let works = async || recovers(&mut world, &created.session_id).await;
    history.calls.outlive_fault((&network, fault), metrics, works).await;
    history.calls.end(writers).await;
    history.check(&mut world.sessions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_behind_a_network_that_is_late_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::Delay(Duration::from_millis(1500))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_behind_a_black_hole_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_behind_half_open_connections_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::HalfOpen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_behind_resets_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_behind_a_slow_network_is_slow_and_refuses_nothing() {
    let Some((mut world, network)) = behind_a_network().await else { return };
    network.set(Fault::Delay(Duration::from_millis(50)));
    let history = Arc::new(History::default());
    let writers = writers(world.running.session_addr, &history).await;
    history.calls.until_acknowledged(50, Duration::from_secs(30)).await;
    network.set(Fault::None);
    history.calls.end(writers).await;
    history.check(&mut world.sessions).await;
    assert_eq!(history.calls.refused(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_connection_during_a_fault_reaches_redis_after_it() {
    let Some((mut world, network)) = behind_a_network().await else { return };
    let mut client = sessions(world.running.session_addr).await;
    let created = client.create_session(create("ada", 0)).await.unwrap().into_inner().session.unwrap();
    network.set(Fault::HalfOpen);
    is_unready_within(world.running.session_metrics_addr, 2 * DEADLINE).await;
    drop(client);
    // Until what is to be written has been tried over a connection that nothing comes of.
    is_unready_within(world.running.session_metrics_addr, DEADLINE).await;
    network.set(Fault::None);
    let request = pb::GetSessionRequest { session_id: created.session_id };
    let idle = async || match world.sessions.get_session(timed(request.clone())).await {
        Ok(found) if found.get_ref().session.as_ref().unwrap().state() == pb::SessionState::Idle => Ok(()),
        found => Err(format!("{found:?}")),
    };
    eventually(RECOVERY, idle).await;
}
