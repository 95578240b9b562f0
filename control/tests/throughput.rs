//! How many operations a second one document takes, each acknowledged after it is on disk.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use common::*;
use proto::statesync as pb;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;
use uuid::Uuid;

const WRITERS: usize = 2;
const OPERATIONS: u64 = 5000;
const IN_FLIGHT: usize = 256;

/// Two writers type ahead at scattered places of a text of 21,000 characters, neither seeing the other: the worst case for the
/// search of positions. Two subscribers read every event.
#[tokio::test(flavor = "multi_thread")]
async fn one_document_takes_operations_of_two_writers_quickly() {
    let world = World::start().await;
    let mut client = world.documents.clone();
    let doc_id = create_text(&mut client, &"lorem ipsum dolor sit ".repeat(955)).await;
    let mut readers = tokio::task::JoinSet::new();
    for user in ["bob", "carol"] {
        let mut client = documents(world.running.statesync_addr).await;
        let mut events = subscribe(&mut client, subscription(&doc_id, user)).await;
        readers.spawn(async move {
            let mut version = 1;
            while version < 1 + WRITERS as u64 * OPERATIONS {
                let event = next(&mut events).await;
                assert!(event.document.is_none() || version == 1, "nobody lags so far that the log is not enough");
                version = version.max(event.version);
            }
        });
    }
    let commits = world.running.document_commits().commits.load(Ordering::Relaxed);
    let (started, worked) = (Instant::now(), processor_seconds());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = documents(world.running.statesync_addr).await;
        writers.spawn(write(client, doc_id.clone(), writer));
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
    let (seconds, worked) = (started.elapsed().as_secs_f64(), processor_seconds() - worked);
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    let operations = WRITERS as u64 * OPERATIONS;
    let commits = world.running.document_commits().commits.load(Ordering::Relaxed) - commits;
    let rate = operations as f64 / seconds;
    println!(
        "{operations} operations in {seconds:.2} s: {rate:.0}/s in {commits} commits, {worked:.2} s of processors"
    );
    assert_eq!(get(&mut client, &doc_id).await.version, 1 + operations);
    // Of processors, so that a busy machine passes, and several times of what it takes: a search that grew with the history would not.
    let each = worked / operations as f64;
    assert!(each < 0.005, "an operation costs {:.2} ms", each * 1e3);
}

/// What this process, services and clients, has used of processors so far.
fn processor_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 * 1e-9
}

async fn write(client: Documents, doc_id: String, writer: usize) {
    let session = Uuid::now_v7();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut calls = tokio::task::JoinSet::new();
    for sequence in 1..=OPERATIONS {
        let permit = Arc::clone(&room).acquire_owned().await.unwrap();
        // Typing, and every 20 operations a jump elsewhere.
        let pos = (sequence as usize / 20 * 7919 + writer * 104_729) % 20_000 + sequence as usize % 20;
        let operation = insertion(&doc_id, session, 1, pos, "x");
        let operation = pb::Operation { session_sequence: sequence, ..operation };
        let mut client = client.clone();
        calls.spawn(async move {
            apply(&mut client, operation).await.unwrap();
            drop(permit);
        });
        while let Some(applied) = calls.try_join_next() {
            applied.unwrap();
        }
    }
    while let Some(applied) = calls.join_next().await {
        applied.unwrap();
    }
}
