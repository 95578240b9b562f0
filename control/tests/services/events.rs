//! What subscribers see: order, resuming, lagging, both encodings.

use proto::statesync as pb;
use tonic::Code;
use uuid::Uuid;

use crate::common::yjs::{Peer, yjs};
use crate::common::*;

/// Applies the JSON form of an event to UTF-16 units.
fn follow(units: &mut Vec<u16>, event: &pb::OperationEvent) {
    let data = &event.operation.as_ref().unwrap().data;
    let edits = match control::statesync::text::decode_payload(data).unwrap() {
        control::statesync::text::Payload::Edits(edits) => edits,
        control::statesync::text::Payload::Replace(text) => panic!("an event carries edits, not {text:?}"),
    };
    for edit in edits {
        let start = edit.pos as usize;
        units.splice(start..start + edit.del as usize, edit.ins.encode_utf16());
    }
}

#[tokio::test]
async fn a_subscriber_gets_a_private_welcome_with_the_state_then_everything_in_order() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "start").await;
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    let welcome = next(&mut events).await;
    assert_eq!((welcome.r#type.as_str(), welcome.version), ("user_joined", 1));
    assert!(Uuid::try_parse(&welcome.id).is_ok() && !welcome.epoch.is_empty());
    assert_eq!(welcome.document.unwrap().content.as_ref(), b"start");
    let joined = next(&mut events).await;
    assert_eq!((joined.r#type.as_str(), joined.user_id.as_str()), ("user_joined", "bob"));
    assert!(joined.document.is_none() && joined.sequence > welcome.sequence);
    let session = Uuid::now_v7();
    let mut sequence = joined.sequence;
    for index in 0..5_u64 {
        apply(&mut world.documents, insertion(&doc_id, session, index + 1, 0, "x")).await.unwrap();
        let event = next(&mut events).await;
        assert_eq!(
            (event.r#type.as_str(), event.version, event.sequence),
            ("operation_applied", index + 2, sequence + 1)
        );
        sequence = event.sequence;
    }
    assert_eq!(get(&mut world.documents, &doc_id).await.active_users, ["bob"]);
    // A second stream comes and goes; the first one hears of both.
    let mut other = subscribe(&mut world.documents, subscription(&doc_id, "carol")).await;
    next(&mut other).await;
    assert_eq!(next(&mut events).await.user_id, "carol");
    drop(other);
    let left = next(&mut events).await;
    assert_eq!((left.r#type.as_str(), left.user_id.as_str()), ("user_left", "carol"));
}

#[tokio::test]
async fn a_stream_of_an_unknown_document_is_not_found() {
    let mut world = World::start().await;
    let request = subscription(&Uuid::now_v7().to_string(), "bob");
    assert_eq!(world.documents.subscribe_document(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn json_and_yjs_writers_and_readers_agree() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "x😀y").await;
    let wants = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(&doc_id, "yjs") };
    let mut updates = subscribe(&mut world.documents, wants).await;
    let mut plain = subscribe(&mut world.documents, subscription(&doc_id, "json")).await;
    let replica = Peer::new(42);
    let welcome = next(&mut updates).await;
    assert!(welcome.document.unwrap().content.is_empty());
    replica.receive(&welcome.snapshot);
    let mut units: Vec<u16> = next(&mut plain).await.document.unwrap().content.to_vec().utf8_units();
    let (json, crdt) = (Uuid::now_v7(), Uuid::now_v7());
    for round in 0..20 {
        let update = replica.insert(round, "é");
        apply(&mut world.documents, yjs(&doc_id, crdt, update)).await.unwrap();
        let typed = operation(&doc_id, json, 1, &format!(r#"[{{"pos": {round}, "ins": "j"}}]"#));
        apply(&mut world.documents, typed).await.unwrap();
        for _ in 0..2 {
            let event = next_operation(&mut updates).await;
            assert!(!event.update.is_empty());
            replica.receive(&event.update);
            let event = next_operation(&mut plain).await;
            assert!(event.update.is_empty());
            follow(&mut units, &event);
        }
    }
    let server = text(&mut world.documents, &doc_id).await;
    assert_eq!(replica.content(), server);
    assert_eq!(String::from_utf16(&units).unwrap(), server);
    assert_eq!(server.chars().filter(|letter| *letter == 'j').count(), 20);
    // An update whose predecessor the server never saw is refused, and the document goes on.
    let stray = Peer::new(43);
    stray.insert(0, "lost");
    let status = apply(&mut world.documents, yjs(&doc_id, crdt, stray.insert(4, "later"))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "MISSING_DEPENDENCY"));
    let bomb = apply(&mut world.documents, yjs(&doc_id, crdt, vec![0x80, 0x80, 0x80, 0x80, 0x01])).await.unwrap_err();
    expect_invalid(&bomb, "operation.data");
    let world_text = text(&mut world.documents, &doc_id).await;
    let mut world = world.restart().await;
    assert_eq!(text(&mut world.documents, &doc_id).await, world_text);
}

trait Utf8Units {
    fn utf8_units(&self) -> Vec<u16>;
}

impl Utf8Units for Vec<u8> {
    fn utf8_units(&self) -> Vec<u16> {
        String::from_utf8(self.clone()).unwrap().encode_utf16().collect()
    }
}

#[tokio::test]
async fn a_stream_resumes_where_it_ended_even_on_a_restarted_server() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let session = Uuid::now_v7();
    let mut events = subscribe(&mut world.documents, subscription(&doc_id, "bob")).await;
    let epoch = next(&mut events).await.epoch;
    for index in 0..30_u64 {
        apply(&mut world.documents, insertion(&doc_id, session, index + 1, index as usize, "a")).await.unwrap();
    }
    let mut last = 0;
    for _ in 0..10 {
        last = next_operation(&mut events).await.version;
    }
    drop(events);
    let mut world = world.restart().await;
    apply(&mut world.documents, insertion(&doc_id, session, 31, 0, "b")).await.unwrap();
    let resume = pb::SubscribeDocumentRequest {
        resume_epoch: epoch.clone(),
        resume_version: last,
        want_updates: true,
        ..subscription(&doc_id, "bob")
    };
    let mut events = subscribe(&mut world.documents, resume).await;
    let welcome = next(&mut events).await;
    assert!(welcome.document.is_none(), "a resumed stream needs no state");
    assert_eq!((welcome.version, &welcome.epoch), (last, &epoch));
    for version in last + 1..=32 {
        let event = next_operation(&mut events).await;
        assert_eq!(event.version, version);
        assert!(!event.update.is_empty());
    }
    apply(&mut world.documents, insertion(&doc_id, session, 32, 0, "c")).await.unwrap();
    assert_eq!(next_operation(&mut events).await.version, 33);
    // An epoch that is not this document's, or a version that is ahead, gets the state.
    for (epoch, version) in [("another".to_owned(), 3), (epoch, 999)] {
        let resume = pb::SubscribeDocumentRequest {
            resume_epoch: epoch,
            resume_version: version,
            ..subscription(&doc_id, "bob")
        };
        let welcome = next(&mut subscribe(&mut world.documents, resume).await).await;
        assert_eq!(welcome.version, 33);
        assert!(welcome.document.unwrap().content.starts_with(b"cba"));
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_delays_nobody_and_catches_up_without_a_gap() {
    const OPERATIONS: u64 = 4000;
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    // A small window, so that what this client does not read soon stays with the server.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", world.running.statesync_addr)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    let mut slow_client = Documents::new(endpoint.connect().await.unwrap());
    let mut slow = subscribe(&mut slow_client, subscription(&doc_id, "slow")).await;
    let mut slow_units = next(&mut slow).await.document.unwrap().content.to_vec().utf8_units();
    let mut fast = subscribe(&mut world.documents, subscription(&doc_id, "fast")).await;
    next(&mut fast).await;
    let payload = "p".repeat(64);
    let session = Uuid::now_v7();
    let mut calls = tokio::task::JoinSet::new();
    for sequence in 1..=OPERATIONS {
        let operation = insertion(&doc_id, session, 1, 0, &payload);
        let operation = pb::Operation { session_sequence: sequence, ..operation };
        let mut client = world.documents.clone();
        calls.spawn(async move { apply(&mut client, operation).await });
        if sequence % 500 == 0 {
            while let Some(applied) = calls.join_next().await {
                applied.unwrap().unwrap();
            }
        }
    }
    for version in 2..=OPERATIONS + 1 {
        assert_eq!(next_operation(&mut fast).await.version, version);
    }
    let (mut version, mut lagged) = (1, false);
    while version < OPERATIONS + 1 {
        let event = next(&mut slow).await;
        lagged |= event.lagged;
        if let Some(document) = &event.document {
            slow_units = document.content.to_vec().utf8_units();
            version = event.version;
        } else if event.operation.is_some() {
            version += 1;
            assert_eq!(event.version, version, "no operation is missing");
            follow(&mut slow_units, &event);
        }
    }
    assert!(lagged, "the queue of the subscriber that does not read overflowed");
    assert_eq!(String::from_utf16(&slow_units).unwrap(), text(&mut world.documents, &doc_id).await);
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_with_deadline_exceeded() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let mut request = tonic::Request::new(subscription(&doc_id, "bob"));
    request.set_timeout(std::time::Duration::from_millis(300));
    let mut events = world.documents.subscribe_document(request).await.unwrap().into_inner();
    next(&mut events).await;
    next(&mut events).await;
    let ended =
        tokio::time::timeout(std::time::Duration::from_secs(10), events.message()).await.expect("it ends in time");
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_update_that_splits_a_character_is_refused_and_the_document_goes_on() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "😀").await;
    let wants = pb::SubscribeDocumentRequest { want_updates: true, ..subscription(&doc_id, "yjs") };
    let snapshot = next(&mut subscribe(&mut world.documents, wants).await).await.snapshot;
    // One client, one block, then the client id of the text: a number of lib0.
    let server: Vec<u8> = snapshot[2..]
        .iter()
        .scan(true, |more, byte| {
            more.then(|| {
                *more = *byte >= 0x80;
                *byte
            })
        })
        .collect();
    let mut update = vec![1, 1, 9, 0, 0xC4];
    for clock in [0, 1] {
        update.extend(&server);
        update.push(clock);
    }
    update.extend([1, b'x', 0]);
    let session = Uuid::now_v7();
    let status = apply(&mut world.documents, yjs(&doc_id, session, update)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "OPERATION_BROKEN"));
    apply(&mut world.documents, insertion(&doc_id, session, 1, 2, "!")).await.unwrap();
    assert_eq!(text(&mut world.documents, &doc_id).await, "😀!");
}

#[tokio::test]
async fn a_stream_of_operations_ends_with_the_server_and_what_it_answered_stays() {
    let mut world = World::start().await;
    let doc_id = create_text(&mut world.documents, "").await;
    let (requests, sent) = tokio::sync::mpsc::channel(8);
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut answers = world.documents.apply_operations(sent).await.unwrap().into_inner();
    let session = Uuid::now_v7();
    for (pos, letter) in ["a", "b", "c"].into_iter().enumerate() {
        let operation = Some(insertion(&doc_id, session, 1, pos, letter));
        requests.send(pb::ApplyOperationsRequest { operation }).await.unwrap();
        assert!(answers.message().await.unwrap().unwrap().outcome.is_some());
    }
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), answers.message());
    let (told, mut world) = tokio::join!(told, world.restart());
    let status = told.unwrap().unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STOPPING"));
    assert_eq!(text(&mut world.documents, &doc_id).await, "abc");
}
