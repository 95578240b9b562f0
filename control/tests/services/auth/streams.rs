//! Streams end when what let their callers in does.

use std::time::{Duration, Instant};

use proto::session as session_pb;
use proto::statesync as pb;
use quantum_grpc::Transport;
use tonic::{Code, Request, Response, Status, Streaming};

use super::*;
use crate::common::{end, insertion, next, next_operation, subscription};

over_each_transport! {
    a_stream_ends_with_its_token_though_it_is_busy,
    a_stream_ends_with_the_session_that_opened_it,
    a_stream_ends_when_its_reader_may_no_longer_read,
}

/// What a stream ends with, in time.
async fn ended(mut events: Streaming<pb::OperationEvent>) -> (Code, String) {
    let status = tokio::time::timeout(Duration::from_secs(30), end(&mut events)).await.expect("the stream ends");
    refused::<()>(Err(status), &["ada", "bob"])
}

async fn opened(
    guarded: &mut Guarded,
    request: Request<pb::SubscribeDocumentRequest>,
) -> Streaming<pb::OperationEvent> {
    let mut events = guarded.documents.subscribe_document(request).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.r#type, "user_joined");
    events
}

async fn a_stream_ends_with_its_token_though_it_is_busy(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let document = guarded.document("ada", pb::Permissions::default()).await;
    let (session, _) = guarded.session("ada", 600).await;
    let end = unix_now() + 6;
    let quiet = bearing(&token_until("ada", end), subscription(&document.id, ""));
    let quiet = opened(&mut guarded, quiet).await;
    let busy = bearing(&token_until("ada", end), subscription(&document.id, "ada"));
    let mut busy = opened(&mut guarded, busy).await;
    let lasting = by("ada", subscription(&document.id, "ada"));
    let mut lasting = opened(&mut guarded, lasting).await;
    let session = session.session_id.parse().unwrap();
    let (mut client, id) = (guarded.documents.clone(), document.id.clone());
    let writer = tokio::spawn(async move {
        for version in 1.. {
            let apply = pb::ApplyOperationRequest { operation: Some(insertion(&id, session, version, 0, "x")) };
            client.apply_operation(by("ada", apply)).await.unwrap();
        }
    });
    for _ in 0..3 {
        next_operation(&mut busy).await;
    }
    let expired = is(Code::Unauthenticated, "TOKEN_EXPIRED");
    assert_eq!(ended(busy).await, expired);
    assert!(unix_now() >= end, "it was valid until then");
    assert_eq!(ended(quiet).await, expired);
    for _ in 0..3 {
        next_operation(&mut lasting).await;
    }
    writer.abort();
}

async fn a_stream_ends_with_the_session_that_opened_it(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let document = guarded.document("ada", pb::Permissions::default()).await;
    let (short, short_token) = guarded.session("ada", 2).await;
    let (long, long_token) = guarded.session("ada", 600).await;
    let in_short = in_session(&short.session_id, &short_token, subscription(&document.id, ""));
    let in_short = opened(&mut guarded, in_short).await;
    let in_long = in_session(&long.session_id, &long_token, subscription(&document.id, ""));
    let in_long = opened(&mut guarded, in_long).await;
    let over = is(Code::Unauthenticated, "SESSION_TOKEN_INVALID");
    assert_eq!(ended(in_short).await, over);
    let delete = session_pb::DeleteSessionRequest { session_id: long.session_id, ..Default::default() };
    guarded.sessions.delete_session(by("ada", delete)).await.unwrap();
    let closed = Instant::now();
    assert_eq!(ended(in_long).await, over);
    assert!(closed.elapsed() < Duration::from_secs(20));
}

async fn a_stream_ends_when_its_reader_may_no_longer_read(transport: Transport) {
    let Some(mut guarded) = Guarded::start(transport, rules()).await else { return };
    let shared = pb::Permissions { viewers: vec!["bob".into(), "cy".into()], ..Default::default() };
    let document = guarded.document("ada", shared).await;
    let mut bobs = opened(&mut guarded, by("bob", subscription(&document.id, "bob"))).await;
    let mut cys = opened(&mut guarded, by("cy", subscription(&document.id, "cy"))).await;
    let metadata = pb::Metadata {
        permissions: Some(pb::Permissions { viewers: vec!["cy".into()], ..Default::default() }),
        description: "words that are not for him".into(),
        ..Default::default()
    };
    let changed = pb::Document { id: document.id.clone(), version: 1, metadata: Some(metadata), ..Default::default() };
    let update = pb::UpdateDocumentRequest { document: Some(changed) };
    guarded.documents.update_document(by("ada", update)).await.unwrap();
    let last = loop {
        match tokio::time::timeout(Duration::from_secs(30), bobs.message()).await.expect("the stream ends") {
            Ok(Some(event)) => assert!(event.document.is_none(), "he is shown no more of it: {event:?}"),
            Ok(None) => panic!("it ends with a status"),
            Err(status) => break Err::<Response<()>, Status>(status),
        }
    };
    assert_eq!(refused(last, &["words"]), is(Code::NotFound, "DOCUMENT_NOT_FOUND"));
    loop {
        if let Some(document) = next(&mut cys).await.document {
            assert_eq!(document.metadata.unwrap().description, "words that are not for him");
            break;
        }
    }
}
