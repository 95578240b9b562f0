//! Operations in streams: one stream on each connection, with so many operations on their way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use proto::statesync::apply_operations_response::Outcome;
use proto::statesync::{ApplyOperationsRequest, ApplyOperationsResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use super::closed::{Caller, LATE_ANSWERS, Measured, Pace, Recorder};
use super::documents::{Client, Kept, Operations};
use super::watch::Watch;
use crate::load::Window;
use crate::replay::wire::Wire;

/// An operation on its way.
struct Sent {
    id: String,
    document: Arc<Kept>,
    at: Instant,
}

/// Operations over `wires` for as long as `pace` says.
pub(super) async fn run(operations: &Arc<Operations>, wires: &[Wire], pace: &Pace, watch: Watch) -> Measured {
    let window = Window::new(pace.warmup, pace.measured);
    let spent = std::thread::spawn(move || {
        let (before, after) = window.read(|| watch.read());
        after.since(&before)
    });
    let recorder = Arc::new(Recorder::new());
    let mut streams = JoinSet::new();
    for (number, wire) in wires.iter().enumerate() {
        let session = Uuid::now_v7().to_string();
        let caller = Caller { number: number as u64, calls: 0, session, subject: String::new() };
        let (operations, client, recorder) = (Arc::clone(operations), Client::new(wire.clone()), Arc::clone(&recorder));
        let in_flight = pace.in_flight;
        streams.spawn(async move {
            if let Err(error) = keep_sending(&operations, client, caller, (in_flight, window), &recorder).await {
                recorder.failed(&error);
            }
        });
    }
    let all_ended = async {
        while let Some(ended) = streams.join_next().await {
            ended.expect("a stream does not panic");
        }
    };
    if tokio::time::timeout_at((window.end + LATE_ANSWERS).into(), all_ended).await.is_err() {
        for _ in 0..streams.len() {
            recorder.failed(&anyhow::anyhow!("no answer within {} s", LATE_ANSWERS.as_secs()));
        }
        streams.shutdown().await;
    }
    let spent = spent.join().expect("reading the meters does not panic");
    let (errors, first_error) = recorder.errors();
    Measured { histogram: recorder.latencies(), errors, first_error, spent }
}

/// Keeps `in_flight` operations on their way until the window ends, then waits for the answers.
async fn keep_sending(
    operations: &Operations,
    mut client: Client,
    mut caller: Caller,
    (in_flight, window): (usize, Window),
    recorder: &Recorder,
) -> anyhow::Result<()> {
    let (sender, requests) = mpsc::channel(in_flight);
    let mut answers = client.apply_operations(ReceiverStream::new(requests)).await?.into_inner();
    let mut sender = Some(sender);
    let mut sent = VecDeque::with_capacity(in_flight);
    loop {
        while let Some(open) = sender.as_ref().filter(|_| sent.len() < in_flight) {
            let at = Instant::now();
            if at >= window.end {
                sender = None;
                break;
            }
            let (document, operation) = operations.next(&caller);
            caller.calls += 1;
            sent.push_back(Sent { id: operation.id.clone(), document, at });
            open.send(ApplyOperationsRequest { operation: Some(operation) }).await.context("the stream ended")?;
        }
        let Some(first) = sent.pop_front() else {
            ensure!(answers.message().await?.is_none(), "an answer came for nothing");
            return Ok(());
        };
        let answer = answers.message().await?.context("the stream ended")?;
        first.document.acknowledged(version(answer, &first.id)?);
        if first.at >= window.begin {
            recorder.took(caller.number, first.at.elapsed().as_nanos() as u64);
        }
    }
}

/// The version that an operation was acknowledged as.
fn version(answer: ApplyOperationsResponse, id: &str) -> anyhow::Result<u64> {
    match answer.outcome.context("the answer says nothing")? {
        Outcome::Answer(answer) => super::documents::version(*answer, id),
        Outcome::Refusal(refusal) => bail!("operation {id} was refused: {}", refusal.message),
    }
}
