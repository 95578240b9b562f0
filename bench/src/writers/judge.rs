//! Somebody who decides conflicts while others write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use proto::statesync::{Conflict, ListConflictsRequest, ResolveConflictRequest};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tonic::Code;

use super::Shared;
use crate::replay::wire::Wire;

/// Between two decisions.
const PAUSE: Duration = Duration::from_millis(400);
/// Conflicts of one document that are looked at, and how many of them are decided then.
const LOOKED_AT: i32 = 20;
const DECIDED: usize = 4;
/// How often the operation that waits wins, where it can.
const WAITING_WINS_PERCENT: u32 = 70;

/// Decides conflicts of the documents whose conflicts wait, until nobody writes any more.
pub(super) async fn judge(
    shared: Arc<Shared>,
    mut statesync: StateSyncServiceClient<Wire>,
    seed: u64,
) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    // Everybody has subscribed.
    shared.start.wait().await;
    let end = shared.end();
    while Instant::now() < end {
        for target in shared.targets.iter().filter(|target| target.rule == "manual") {
            let request = ListConflictsRequest {
                doc_id: target.id.clone(),
                unresolved_only: true,
                limit: LOOKED_AT,
                ..ListConflictsRequest::default()
            };
            let page = statesync.list_conflicts(request).await.context("cannot list conflicts")?.into_inner();
            let chosen: Vec<&Conflict> = page.conflicts.choose_multiple(&mut random, DECIDED).collect();
            for conflict in chosen {
                let waiting_wins = target.is_judged && random.random_range(0..100) < WAITING_WINS_PERCENT;
                decide(&mut statesync, conflict, waiting_wins).await?;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn decide(
    statesync: &mut StateSyncServiceClient<Wire>,
    conflict: &Conflict,
    waiting_wins: bool,
) -> anyhow::Result<()> {
    let side = if waiting_wins { conflict.ops.last() } else { conflict.ops.first() };
    let request = ResolveConflictRequest {
        conflict_id: conflict.id.clone(),
        doc_id: conflict.doc_id.clone(),
        user_id: "judge".to_owned(),
        operation_id: side.context("a conflict without operations")?.id.clone(),
        ..ResolveConflictRequest::default()
    };
    match statesync.resolve_conflict(request).await {
        Ok(_) => Ok(()),
        // The writer has done by now what it wanted to do: make an item that is there, or change one that is gone.
        Err(status) if matches!(status.code(), Code::AlreadyExists | Code::NotFound) => Ok(()),
        Err(status) => Err(anyhow::Error::new(status).context("cannot decide a conflict")),
    }
}
