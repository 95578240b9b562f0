//! One client of a replay: its connection, session, subscription and replica.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proto::session::{CreateSessionRequest, HeartbeatRequest};
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use proto::statesync::{
    ApplyOperationRequest, ApplyOperationResponse, Operation, OperationEvent, SubscribeDocumentRequest,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::Encoding;
use super::operation::{AFTER_KEY, Author, DELETED_KEY, named, operation, span};
use super::reconnect::{Attempts, is_lost};
use super::shared::Shared;
use super::wire::{CALL_TIMEOUT, Dialer, Wire};
use crate::history::Entry;
use crate::replica::{PositionalReplica, Received, Replica, Span, YjsReplica};

/// Operations of a client that are on their way at once. On a 50 ms path 8 reach what causality allows (friendsforever:
/// 102 s with 1, 58 s with 2, 46 s with 4, 44 s with 8, computed from its parents).
const IN_FLIGHT_MAX: usize = 8;
/// Text of one operation; the services take 1 MiB.
const OPERATION_BYTES_MAX: usize = 192 << 10;
/// Patches of one operation: half of the 1000 items that the services take, because others' text can split a deletion.
const OPERATION_PATCHES_MAX: usize = 500;
/// Without any event or answer for so long the replay has failed.
const STALL: Duration = Duration::from_mins(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(20);

/// The sequence of an operation and the version that it made.
type Answer = Pin<Box<dyn Future<Output = (u64, Result<u64, Status>)> + Send>>;

/// Where the subscription stands.
#[derive(Default)]
struct Position {
    epoch: String,
    version: u64,
}

pub(super) struct Client {
    agent: u16,
    shared: Arc<Shared>,
    dialer: Dialer,
    author: Author,
    statesync: StateSyncServiceClient<Wire>,
    events: Streaming<OperationEvent>,
    position: Position,
    replica: Replica,
    /// The next own transaction, in the writer's own count.
    next: u32,
    /// How many transactions of every writer have come in events.
    received: Vec<u32>,
    /// How many operations it has made.
    sequence: u64,
    /// Operations without an answer, by their sequence.
    unanswered: BTreeMap<u64, Operation>,
    answers: FuturesUnordered<Answer>,
    _heartbeat: AbortOnDropHandle<()>,
}

impl Client {
    /// Connects, opens a session and subscribes.
    pub(super) async fn join(agent: u16, shared: Arc<Shared>, dialer: Dialer) -> anyhow::Result<Self> {
        let user = format!("writer-{agent}");
        let (session, heartbeat) = open_session(&dialer, &user).await.context("cannot open a session")?;
        let author = Author { document: shared.document.clone(), user, session };
        let mut statesync = dialer.statesync().await?;
        let mut position = Position::default();
        let events = subscribe(&mut statesync, &author, shared.encoding, &mut position).await?;
        let replica = match shared.encoding {
            Encoding::Yjs => Replica::Yjs(YjsReplica::new(shared.trace.is_basic_plane(), agent)),
            Encoding::Json => Replica::Positional(PositionalReplica::default()),
        };
        Ok(Self {
            agent,
            received: vec![0; usize::from(shared.trace.agents)],
            shared,
            dialer,
            author,
            statesync,
            events,
            position,
            replica,
            next: 0,
            sequence: 0,
            unanswered: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            _heartbeat: heartbeat,
        })
    }

    /// Plays the client's part; gives its number, its text at the end, and the seconds it took.
    pub(super) async fn play(mut self) -> anyhow::Result<(u16, String, f64)> {
        self.shared.start.wait().await;
        self.shared.begin();
        let totals = self.shared.causality.totals();
        while !(self.received == totals && self.unanswered.is_empty()) {
            let due = self.edit_what_may_be()?;
            self.wait(due).await?;
        }
        self.replica.see(&totals)?;
        Ok((self.agent, self.replica.text(), self.shared.elapsed().as_secs_f64()))
    }

    fn own(&self) -> &[u32] {
        let writes = self.agent < self.shared.trace.agents;
        if writes { self.shared.causality.own(self.agent) } else { &[] }
    }

    /// Makes every transaction whose ancestors are here; gives when the next is due if only time holds it back.
    fn edit_what_may_be(&mut self) -> anyhow::Result<Option<Instant>> {
        while self.unanswered.len() < IN_FLIGHT_MAX {
            let Some(first) = self.own().get(self.next as usize).copied() else { return Ok(None) };
            let shared = self.shared.clone();
            let frontier = shared.causality.frontier(first);
            if !self.foreign(frontier).all(|(agent, count)| count <= self.received[agent]) {
                return Ok(None);
            }
            if let Some(due) = shared.due(first).filter(|due| *due > Instant::now()) {
                return Ok(Some(due));
            }
            self.replica.see(frontier)?;
            let span = Span { agent: self.agent, first: self.next, end: self.batch_end(frontier) };
            let transactions = &shared.causality.own(self.agent)[span.first as usize..span.end as usize];
            let patches =
                transactions.iter().flat_map(|transaction| &shared.trace.transactions[*transaction as usize].patches);
            let edited = self.replica.edit(span, patches);
            let mut edit = edited.with_context(|| format!("transactions from {first} on"))?;
            if shared.trace.agents <= 2 {
                // There is no third writer who could need the names.
                (edit.deleted, edit.after) = (String::new(), String::new());
            }
            self.next = span.end;
            self.sequence += 1;
            let sequence = self.sequence;
            let mut operation = operation(&self.author, span, edit, shared.encoding, sequence);
            operation.prev_version = self.position.version;
            shared.sent(first);
            self.send(sequence, operation);
        }
        Ok(None)
    }

    /// The other writers' counts in a frontier.
    fn foreign<'a>(&self, frontier: &'a [u32]) -> impl Iterator<Item = (usize, u32)> + use<'a> {
        let agent = usize::from(self.agent);
        frontier.iter().copied().enumerate().filter(move |(other, _)| *other != agent)
    }

    /// One past the last transaction that may travel with the next one: nothing foreign comes in between, nobody else stops
    /// in between, and it is time for all of them.
    fn batch_end(&self, frontier: &[u32]) -> u32 {
        let (own, causality) = (self.own(), &self.shared.causality);
        let patches_of = |transaction: u32| &self.shared.trace.transactions[transaction as usize].patches;
        let bytes_of =
            |transaction: u32| patches_of(transaction).iter().map(|patch| 48 + 2 * patch.inserted.len()).sum::<usize>();
        let mut end = self.next as usize + 1;
        let (mut bytes, mut patches) = (bytes_of(own[end - 1]), patches_of(own[end - 1]).len());
        while let Some(next) = own.get(end).copied() {
            bytes += bytes_of(next);
            patches += patches_of(next).len();
            let full = bytes > OPERATION_BYTES_MAX || patches > OPERATION_PATCHES_MAX;
            let stops = causality.crosses(own[end - 1]) || full;
            let alone = self.foreign(causality.frontier(next)).eq(self.foreign(frontier));
            if stops || !alone || self.shared.due(next).is_some_and(|due| due > Instant::now()) {
                break;
            }
            end += 1;
        }
        end as u32
    }

    fn send(&mut self, sequence: u64, operation: Operation) {
        self.unanswered.insert(sequence, operation.clone());
        self.shared.record(|| Entry::sent(&operation));
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let mut statesync = self.statesync.clone();
        self.answers.push(Box::pin(async move {
            let request = ApplyOperationRequest { operation: Some(operation) };
            let answer = tokio::time::timeout(CALL_TIMEOUT, statesync.apply_operation(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            let version = |answer: tonic::Response<ApplyOperationResponse>| {
                let answer = answer.into_inner();
                match answer.applied_operation {
                    Some(operation) if answer.success => Ok(operation.version),
                    _ => Err(Status::aborted(answer.error)),
                }
            };
            (sequence, answer.and_then(version))
        }));
    }

    async fn wait(&mut self, due: Option<Instant>) -> anyhow::Result<()> {
        let stall = Instant::now() + STALL;
        let wake = due.map_or(stall, |due| due.min(stall));
        let broken = tokio::select! {
            event = self.events.message() => match event {
                Ok(Some(event)) => return self.handle(event),
                Ok(None) => Status::unavailable("the subscription ended"),
                Err(status) => status,
            },
            Some((sequence, answer)) = self.answers.next(), if !self.answers.is_empty() => match answer {
                Ok(version) => {
                    if let Some(operation) = self.unanswered.remove(&sequence) {
                        self.shared.record(|| Entry::Acknowledged { id: operation.id, version });
                    }
                    return Ok(());
                }
                Err(status) => status,
            },
            () = tokio::time::sleep_until(wake.into()) => {
                ensure!(due.is_some(), "nothing happened for {} s; received {:?}", STALL.as_secs(), self.received);
                return Ok(());
            }
        };
        let lost = is_lost(&broken);
        if !self.shared.resume || !lost {
            return Err(anyhow::Error::new(broken).context(if lost {
                "the connection broke (--resume goes on)"
            } else {
                "refused"
            }));
        }
        self.reconnect(&broken).await
    }

    fn handle(&mut self, event: OperationEvent) -> anyhow::Result<()> {
        ensure!(
            event.snapshot.is_empty() && event.document.is_none(),
            "the server gave the whole state instead of the operations"
        );
        ensure!(event.epoch == self.position.epoch, "the document's epoch changed");
        if event.r#type != "operation_applied" {
            return Ok(());
        }
        let operation = event.operation.context("an event without its operation")?;
        let expected = self.position.version + 1;
        ensure!(event.version == expected, "version {} came, {expected} was due", event.version);
        self.position.version = event.version;
        let (client, version) = (self.agent, event.version);
        self.shared.record(|| Entry::Seen { client, id: operation.id.clone(), version });
        let span = span(&operation)?;
        let known =
            self.received.get_mut(usize::from(span.agent)).context("an operation of a writer that does not exist")?;
        ensure!(
            span.first == *known && span.end > span.first,
            "transactions came out of order: {span:?} after {known}"
        );
        let transactions = self.shared.causality.own(span.agent);
        ensure!(span.end as usize <= transactions.len(), "transactions that do not exist came: {span:?}");
        *known = span.end;
        let own = span.agent == self.agent;
        if own {
            self.shared.progress.inc(u64::from(span.end - span.first));
        } else {
            self.shared.seen(transactions[span.first as usize]);
        }
        let (deleted, after) = (named(&operation, DELETED_KEY), named(&operation, AFTER_KEY));
        self.replica.receive(Received { span, data: operation.data, update: event.update, deleted, after }, own)?;
        Ok(())
    }

    /// Makes the connection again, resumes the subscription where it stood and sends again what had no answer.
    async fn reconnect(&mut self, broken: &Status) -> anyhow::Result<()> {
        self.answers.clear();
        self.shared.reconnections.fetch_add(1, Ordering::Relaxed);
        let mut attempts = Attempts::after(broken);
        while let Err(error) = self.resubscribe().await {
            attempts.failed(error).await?;
        }
        for (sequence, operation) in self.unanswered.clone() {
            self.send(sequence, operation);
        }
        Ok(())
    }

    async fn resubscribe(&mut self) -> anyhow::Result<()> {
        self.statesync = self.dialer.statesync().await?;
        self.events = subscribe(&mut self.statesync, &self.author, self.shared.encoding, &mut self.position).await?;
        Ok(())
    }
}

async fn open_session(dialer: &Dialer, user: &str) -> anyhow::Result<(String, AbortOnDropHandle<()>)> {
    let mut client = dialer.session().await?;
    let request = CreateSessionRequest {
        user_id: user.to_owned(),
        client_ip: "127.0.0.1".to_owned(),
        ..CreateSessionRequest::default()
    };
    let answer = client.create_session(request).await?.into_inner();
    let session = answer.session.context("the answer has no session")?.session_id;
    let session_id = session.clone();
    let dialer = dialer.clone();
    let heartbeat = tokio::spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT_EVERY).await;
            let request = HeartbeatRequest { session_id: session_id.clone(), client_timestamp: None };
            if let Err(status) = client.heartbeat(request).await {
                tracing::warn!(code = ?status.code(), "a heartbeat failed");
                if let Ok(again) = dialer.session().await {
                    client = again;
                }
            }
        }
    });
    Ok((session, AbortOnDropHandle::new(heartbeat)))
}

/// Subscribes from where `position` stands; an empty epoch is the start, at which the document must be empty.
async fn subscribe(
    statesync: &mut StateSyncServiceClient<Wire>,
    author: &Author,
    encoding: Encoding,
    position: &mut Position,
) -> anyhow::Result<Streaming<OperationEvent>> {
    let request = SubscribeDocumentRequest {
        doc_id: author.document.clone(),
        user_id: author.user.clone(),
        session_id: author.session.clone(),
        resume_epoch: position.epoch.clone(),
        resume_version: position.version,
        want_updates: encoding == Encoding::Yjs,
    };
    let mut events = statesync.subscribe_document(request).await.context("cannot subscribe")?.into_inner();
    let first = events.message().await?.context("the subscription ended at once")?;
    if position.epoch.is_empty() {
        let empty = first.document.as_ref().is_none_or(|document| document.content.is_empty());
        ensure!(empty && first.version == 1, "the document is not empty at version 1");
        *position = Position { epoch: first.epoch, version: first.version };
    } else if first.epoch != position.epoch || first.document.is_some() || !first.snapshot.is_empty() {
        bail!("the server could not resume: it gave the whole state at version {}", first.version);
    }
    Ok(events)
}
