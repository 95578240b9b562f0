//! One writer of one document: it makes random operations on what it has read, one at a time, and follows the document.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proto::statesync::state_sync_service_client::StateSyncServiceClient;
use proto::statesync::{
    ApplyOperationRequest, ApplyOperationResponse, Operation, OperationEvent, SubscribeDocumentRequest,
};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::Shared;
use super::book::{Sent, Told};
use super::held::{Content, Held};
use crate::history::Entry;
use crate::replay::reconnect::{Attempts, is_lost};
use crate::replay::wire::{CALL_TIMEOUT, Dialer, Wire};

/// A person's time between two operations, in milliseconds.
const THINK_MS: std::ops::Range<u64> = 100..500;
/// How often an operation is sent again although it was answered.
const REPEAT_PERCENT: u32 = 5;
/// So long after the end of writing everything has come to everybody.
const PATIENCE: Duration = Duration::from_mins(2);

type Answer = Pin<Box<dyn Future<Output = Result<ApplyOperationResponse, Status>> + Send>>;

/// The versions to which every document has come in the end; none while anybody writes.
pub(super) type Until = watch::Receiver<Option<Vec<u64>>>;

/// An operation on its way.
struct OnItsWay {
    operation: Operation,
    /// Its place among those that were sent.
    index: usize,
    /// The first answer, if it was sent again for a second one.
    told: Option<Told>,
}

pub(super) struct Client {
    writer: u16,
    /// Which of the documents.
    target: usize,
    shared: Arc<Shared>,
    dialer: Dialer,
    statesync: StateSyncServiceClient<Wire>,
    events: Streaming<OperationEvent>,
    epoch: String,
    /// The last version whose event has come.
    version: u64,
    held: Held,
    on_its_way: Option<OnItsWay>,
    answers: FuturesUnordered<Answer>,
    random: StdRng,
}

impl Client {
    /// Subscribes to the document, which nobody has written yet. `who` is the writer and which of the documents.
    pub(super) async fn join(
        who: (u16, usize),
        shared: Arc<Shared>,
        dialer: Dialer,
        mut statesync: StateSyncServiceClient<Wire>,
        random: StdRng,
    ) -> anyhow::Result<Self> {
        let (writer, target) = who;
        let request = SubscribeDocumentRequest {
            doc_id: shared.targets[target].id.clone(),
            user_id: user(writer),
            ..SubscribeDocumentRequest::default()
        };
        let mut events = statesync.subscribe_document(request).await.context("cannot subscribe")?.into_inner();
        let first = events.message().await?.context("the subscription ended at once")?;
        ensure!(first.version == 1, "somebody has written the document already");
        let held = Held::new(shared.targets[target].kind);
        let (epoch, version, answers) = (first.epoch, first.version, FuturesUnordered::new());
        Ok(Self {
            writer,
            target,
            shared,
            dialer,
            statesync,
            events,
            epoch,
            version,
            held,
            on_its_way: None,
            answers,
            random,
        })
    }

    /// Writes until the time is over, then follows until everything has come; gives which document it is and its content.
    pub(super) async fn play(mut self, mut until: Until) -> anyhow::Result<(usize, Content)> {
        self.shared.start.wait().await;
        let end = self.shared.end();
        let mut due = self.next_due();
        let mut is_writing = true;
        loop {
            if is_writing && self.on_its_way.is_none() && Instant::now() >= end {
                is_writing = false;
                self.shared.idle.send(()).await.context("nobody waits for the end")?;
            }
            let last = until.borrow().as_ref().map(|versions| versions[self.target]);
            if let Some(last) = last.filter(|last| self.version >= *last) {
                return Ok((self.target, self.held.finish(last)?));
            }
            tokio::select! {
                event = self.events.message() => match event {
                    Ok(Some(event)) => self.heard(event)?,
                    Ok(None) => self.reconnect(&Status::unavailable("the subscription ended")).await?,
                    Err(status) => self.reconnect(&status).await?,
                },
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => {
                    self.answered(answer).await?;
                    due = self.next_due();
                }
                () = tokio::time::sleep_until(due.min(end).into()), if is_writing && self.on_its_way.is_none() => {
                    if due <= Instant::now() {
                        self.write()?;
                    }
                }
                changed = until.changed(), if !is_writing => changed.context("nobody says where the end is")?,
                () = tokio::time::sleep_until((end + PATIENCE).into()) => {
                    bail!("it stands at version {} {} s after the end", self.version, PATIENCE.as_secs());
                }
            }
        }
    }

    fn next_due(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.random.random_range(THINK_MS))
    }

    /// Makes an operation and sends it.
    fn write(&mut self) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        let target = &shared.targets[self.target];
        let (base, kind, data) = self.held.operation(target, shared.next_number(), &mut self.random)?;
        let operation = Operation {
            id: Uuid::now_v7().to_string(),
            doc_id: target.id.clone(),
            user_id: user(self.writer),
            session_id: shared.sessions[usize::from(self.writer)].to_string(),
            r#type: kind.to_owned(),
            data: data.to_string().into_bytes().into(),
            prev_version: base,
            ..Operation::default()
        };
        shared.record(self.target, Entry::sent(&operation));
        let sent = Sent { id: operation.id.clone(), writer: self.writer, base, kind, data, told: Told::Nothing };
        let index = shared.note(self.target, sent);
        self.send(operation.clone());
        self.on_its_way = Some(OnItsWay { operation, index, told: None });
        Ok(())
    }

    fn send(&mut self, operation: Operation) {
        let mut statesync = self.statesync.clone();
        self.answers.push(Box::pin(async move {
            let request = ApplyOperationRequest { operation: Some(operation) };
            let answer = tokio::time::timeout(CALL_TIMEOUT, statesync.apply_operation(request)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
            answer.map(tonic::Response::into_inner)
        }));
    }

    fn heard(&mut self, event: OperationEvent) -> anyhow::Result<()> {
        ensure!(
            event.snapshot.is_empty() && event.document.is_none() && event.epoch == self.epoch,
            "the server gave the whole state in place of the operations"
        );
        if event.r#type != "operation_applied" {
            return Ok(());
        }
        let id = event.operation.as_ref().context("an event without its operation")?.id.clone();
        self.shared.record(self.target, Entry::Seen { client: self.writer, id, version: event.version });
        ensure!(event.version == self.version + 1, "version {} came after {}", event.version, self.version);
        self.version = event.version;
        self.held.receive(event);
        Ok(())
    }

    async fn answered(&mut self, answer: Result<ApplyOperationResponse, Status>) -> anyhow::Result<()> {
        let told = match answer {
            Ok(answer) => told(answer)?,
            Err(status) if is_lost(&status) => return self.reconnect(&status).await,
            Err(status) => Told::Refused(format!("{:?}: {}", status.code(), status.message())),
        };
        let Some(mut sent) = self.on_its_way.take() else { bail!("an answer to nothing") };
        let id = sent.operation.id.clone();
        self.shared.record(
            self.target,
            match &told {
                Told::Applied { version, .. } => Entry::Acknowledged { id: id.clone(), version: *version },
                Told::Waits => Entry::Waits { id: id.clone() },
                Told::Nothing | Told::Refused(_) => Entry::Refused { id: id.clone() },
            },
        );
        if let Some(first) = &sent.told {
            // What waited may have been decided in between.
            let decided = *first == Told::Waits && matches!(told, Told::Applied { .. });
            ensure!(*first == told || decided, "operation {id} was answered {first:?}, and then {told:?}");
        } else if !matches!(told, Told::Refused(_)) && self.random.random_range(0..100) < REPEAT_PERCENT {
            self.send(sent.operation.clone());
            sent.told = Some(told);
            self.on_its_way = Some(sent);
            return Ok(());
        }
        match &told {
            Told::Applied { version, .. } => self.held.made(*version),
            _ => self.held.undo(),
        }
        self.shared.told(self.target, sent.index, told);
        Ok(())
    }

    /// Makes the connection again, resumes the subscription where it stood and sends again what had no answer.
    async fn reconnect(&mut self, broken: &Status) -> anyhow::Result<()> {
        ensure!(is_lost(broken), "refused: {broken}");
        self.answers.clear();
        self.shared.count_reconnection();
        let mut attempts = Attempts::after(broken);
        while let Err(error) = self.resubscribe().await {
            attempts.failed(error).await?;
        }
        if let Some(operation) = self.on_its_way.as_ref().map(|sent| sent.operation.clone()) {
            self.send(operation);
        }
        Ok(())
    }

    async fn resubscribe(&mut self) -> anyhow::Result<()> {
        self.statesync = self.dialer.statesync().await?;
        let request = SubscribeDocumentRequest {
            doc_id: self.shared.targets[self.target].id.clone(),
            user_id: user(self.writer),
            resume_epoch: self.epoch.clone(),
            resume_version: self.version,
            ..SubscribeDocumentRequest::default()
        };
        let mut events = self.statesync.subscribe_document(request).await?.into_inner();
        let first = events.message().await?.context("the subscription ended at once")?;
        ensure!(first.document.is_none() && first.epoch == self.epoch, "the server could not resume");
        self.events = events;
        Ok(())
    }
}

fn user(writer: u16) -> String {
    format!("writer-{writer}")
}

/// What an answer says of the operation.
fn told(answer: ApplyOperationResponse) -> anyhow::Result<Told> {
    let operation = answer.applied_operation.context("an answer without the operation")?;
    Ok(match (answer.success, operation.status.as_str()) {
        (true, status @ ("applied" | "resolved" | "rejected")) => {
            Told::Applied { version: operation.version, status: status.to_owned() }
        }
        // Waiting, or decided against.
        (false, "conflict" | "rejected") => Told::Waits,
        (success, status) => bail!("an operation was answered with success {success} and status {status:?}"),
    })
}
