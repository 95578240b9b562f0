//! What a scrape costs when there is much to count. Alone in its process, whose metrics are those of all its tests.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::prometheus::{PROTOBUF, scrape};
use common::*;
use futures_util::{StreamExt, stream};
use proto::session as session_pb;
use proto::statesync as pb;
use uuid::Uuid;

/// Of sessions, of documents and of subscribers.
const MANY: usize = 1_000;
/// Calls at once.
const AT_ONCE: usize = 32;
/// Scrapes of each kind.
const SCRAPES: usize = 20;

/// So many sessions, and so many documents, each with an operation and a subscriber, whose streams these are.
async fn populate(world: &World, count: usize) -> Vec<tonic::Streaming<pb::OperationEvent>> {
    let populated = (0..count).map(|number| {
        let (mut sessions, mut documents) = (world.sessions.clone(), world.documents.clone());
        async move {
            let user = format!("user {number}");
            let create = session_pb::CreateSessionRequest {
                user_id: user.clone(),
                client_ip: "127.0.0.1".into(),
                ..Default::default()
            };
            let session = sessions.create_session(create).await.unwrap().into_inner().session.unwrap();
            let heartbeat =
                session_pb::HeartbeatRequest { session_id: session.session_id.clone(), client_timestamp: None };
            sessions.heartbeat(heartbeat).await.unwrap();
            let doc_id = create_text(&mut documents, "").await;
            let session: Uuid = session.session_id.parse().unwrap();
            apply(&mut documents, insertion(&doc_id, session, 1, 0, "x")).await.unwrap();
            let mut events = subscribe(&mut documents, subscription(&doc_id, &user)).await;
            next(&mut events).await;
            events
        }
    });
    stream::iter(populated).buffer_unordered(AT_ONCE).collect().await
}

/// Name and labels of every series, without the values.
fn series(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_of_everything_add_no_series_and_a_scrape_stays_short() {
    let world = World::start().await;
    let address = world.running.statesync_metrics_addr;
    let first = populate(&world, 1).await;
    let few = series(&scrape(address).await);
    let many = populate(&world, MANY).await;
    let text = scrape(address).await;
    for (name, value) in [
        ("session_active", MANY + 1),
        ("statesync_documents_total", MANY + 1),
        ("statesync_subscribers_active", MANY + 1),
        ("statesync_operations_total", MANY + 1),
    ] {
        assert!(text.lines().any(|line| line == format!("{name} {value}")), "{name} is not {value} in\n{text}");
    }
    let added: Vec<_> = series(&text).difference(&few).cloned().collect();
    assert!(added.is_empty(), "series of one session or document: {added:?}");
    let mut took = Vec::new();
    for accept in ["text/plain", PROTOBUF].into_iter().cycle().take(2 * SCRAPES) {
        let start = Instant::now();
        let (head, body) = http_get_as(address, "/metrics", accept).await.unwrap();
        took.push(start.elapsed());
        assert!(head.contains(" 200 ") && body.len() > 1_000, "{head}");
    }
    took.sort();
    let (median, longest) = (took[SCRAPES], took[2 * SCRAPES - 1]);
    println!("{} series, {} bytes as text: a scrape takes {median:?}, at most {longest:?}", few.len(), text.len());
    // The median, as whatever else the machine does falls on some of them.
    assert!(median < Duration::from_millis(100), "{took:?}");
    drop((first, many));
    world.running.shutdown().await;
}
