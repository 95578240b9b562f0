//! A bad network between the document service and PostgreSQL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::statesync as pb;

use super::postgres_documents::{History, writers};
use crate::common::fault::{Fault, FaultProxy};
use crate::common::outage::{Calls, RECOVERY, timed};
use crate::common::*;

/// Calls in a row that have to succeed: over every connection.
const IN_A_ROW: u32 = 10;

/// Documents in a PostgreSQL behind a network that can be made bad.
async fn behind_a_network() -> Option<(World, FaultProxy)> {
    let postgres = PostgresServer::start().await?;
    let network = FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], postgres.options().port))).await;
    let port = network.address.port();
    let through = |up: &mut control::up::UpOptions| {
        let options = up.postgres.as_mut().unwrap();
        (options.port, options.statement_timeout) = (port, Duration::from_secs(2));
    };
    Some((World::on_postgres_at(postgres, through).await, network))
}

/// Documents can be made and listed again within the time that recovery may take.
async fn recovers(client: &mut Documents) {
    let mut succeeded = 0;
    let works = async || {
        let create = pb::CreateDocumentRequest {
            name: "a document".into(),
            r#type: "text".into(),
            created_by: "ada".into(),
            ..Default::default()
        };
        let created = client.create_document(timed(create)).await;
        let listed = client.list_documents(timed(pb::ListDocumentsRequest::default())).await;
        succeeded = if created.is_ok() && listed.is_ok() { succeeded + 1 } else { 0 };
        if succeeded >= IN_A_ROW { Ok(()) } else { Err(format!("{created:?}, {:?}", listed.err())) }
    };
    eventually(RECOVERY, works).await;
}

/// Writers write while the fault comes and goes: all are told in time, nothing that was acknowledged is lost or done twice, and
/// everything works again soon after its end.
async fn outlives(fault: Fault) {
    let Some((mut world, network)) = behind_a_network().await else { return };
    let (address, metrics) = (world.running.statesync_addr, world.running.statesync_metrics_addr);
    let history = Arc::new(History::of(Calls::of_bad_network()));
    let writers = writers(address, &history).await;
    let works = async || recovers(&mut world.documents).await;
    history.calls.outlive_fault((&network, fault), metrics, works).await;
    history.calls.end(writers).await;
    history.check(&mut world.documents).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_a_network_that_is_late_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::Delay(Duration::from_millis(1500))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_a_black_hole_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_half_open_connections_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::HalfOpen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_resets_fails_calls_in_time_and_loses_nothing() {
    outlives(Fault::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_behind_a_slow_network_is_slow_and_refuses_nothing() {
    let Some((mut world, network)) = behind_a_network().await else { return };
    // The writers have their documents.
    let history = Arc::new(History::default());
    let writers = writers(world.running.statesync_addr, &history).await;
    network.set(Fault::Delay(Duration::from_millis(30)));
    history.calls.until_acknowledged(40, Duration::from_secs(30)).await;
    network.set(Fault::None);
    history.calls.end(writers).await;
    history.check(&mut world.documents).await;
    assert_eq!(history.calls.refused(), 0);
}
