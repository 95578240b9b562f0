//! The services over Quantum, with the generated clients.

use std::time::{Duration, Instant};

use proto::session as session_pb;
use proto::session::session_service_client::SessionServiceClient;
use proto::statesync as pb;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use quantum_grpc::{Channel, ClientConfig, Verify};
use tonic::Code;
use uuid::Uuid;

use crate::common::*;

async fn channel(address: std::net::SocketAddr, verify: Verify) -> Channel {
    Channel::connect(&address.to_string(), ClientConfig::new(verify)).await.unwrap()
}

#[tokio::test]
async fn both_services_answer_over_quantum_and_tcp_alike() {
    if !has_shards() {
        return;
    }
    let mut world = World::start().await;
    let pin = Verify::Pin(world.running.fingerprint.clone());
    let mut sessions = SessionServiceClient::new(channel(world.running.session_addr, pin.clone()).await);
    let mut documents = StateSyncServiceClient::new(channel(world.running.statesync_addr, pin).await);
    let mut request = session_pb::CreateSessionRequest { user_id: "ada".into(), ..Default::default() };
    request.client_ip = "127.0.0.1".into();
    request.client_port = 4242;
    let session = sessions.create_session(request).await.unwrap().into_inner().session.unwrap();
    let request = session_pb::GetSessionRequest { session_id: session.session_id.clone() };
    let read = world.sessions.get_session(request).await.unwrap().into_inner().session.unwrap();
    // Its statistics are its connection's, which has carried something since.
    assert_eq!(session_pb::Session { stats: session.stats, ..read }, session);

    let doc_id = create_text(&mut world.documents, "ab").await;
    let mut events = documents.subscribe_document(subscription(&doc_id, "bob")).await.unwrap().into_inner();
    let operation = insertion(&doc_id, Uuid::now_v7(), 1, 1, "-");
    let request = pb::ApplyOperationRequest { operation: Some(operation) };
    let applied = documents.apply_operation(request).await.unwrap().into_inner().applied_operation.unwrap();
    assert_eq!(applied.version, 2);
    assert_eq!(next_operation(&mut events).await.operation.unwrap(), applied);
    assert_eq!(text(&mut world.documents, &doc_id).await, "a-b");
    let missing = pb::GetDocumentRequest { doc_id: Uuid::now_v7().to_string() };
    let over_quantum = documents.get_document(missing.clone()).await.unwrap_err();
    let over_tcp = world.documents.get_document(missing).await.unwrap_err();
    assert_eq!(over_quantum.code(), Code::NotFound);
    assert_eq!((over_quantum.message(), over_quantum.details()), (over_tcp.message(), over_tcp.details()));
}

#[tokio::test]
async fn a_wrong_fingerprint_is_refused() {
    if !has_shards() {
        return;
    }
    let world = World::start().await;
    let verify = Verify::Pin("00".repeat(32));
    let refused = Channel::connect(&world.running.session_addr.to_string(), ClientConfig::new(verify)).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_shutdown_takes_less_than_five_seconds_with_streams_open() {
    if !has_shards() {
        return;
    }
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let channel = channel(world.running.statesync_addr, Verify::InsecureLoopback).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut client = StateSyncServiceClient::new(channel.clone());
        let mut events = client.subscribe_document(subscription(&doc_id, "bob")).await.unwrap().into_inner();
        next(&mut events).await;
        streams.push(events);
    }
    let World { running, data: _data, .. } = world;
    let started = Instant::now();
    running.shutdown().await;
    println!("the shutdown took {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
    for events in &mut streams {
        assert_eq!(end(events).await.code(), Code::Unavailable);
    }
}
