//! One measurement of calls: a service of its own, connections, calls, and what is true in the end.

use std::path::Path;
use std::sync::Arc;

use super::args::ServicesArgs;
use super::catalogue::{Catalogue, DocumentCall};
use super::closed::{self, Measured, Pace, Workload};
use super::dial::Dialer;
use super::documents::{Creations, Operations};
use super::pipelined;
use super::plan::Step;
use super::process;
use super::report::{Cell, Cost, Latency};
use super::scenario::Scenario;
use super::server::{Server, Setup};
use super::sessions::{SessionCall, Sessions};
use super::stores::Space;
use super::watch::Watch;
use crate::load::{self, Meters};
use crate::replay::wire::Wire;

/// The documents of `apply-100`.
const HUNDRED: usize = 100;

/// A service that is running, and who calls it.
pub(super) struct CallSite<'a> {
    pub(super) step: Step,
    pub(super) server: &'a Server,
    pub(super) space: &'a Space,
    pub(super) wires: &'a [Wire],
    pub(super) pace: Pace,
    /// Operations insert at places 0 to this.
    pub(super) spread: usize,
}

/// Calls of one kind over so many connections to a service of their own, whose data are in `space`.
///
/// # Errors
/// If they cannot begin. What fails later is in the result.
pub(super) async fn measure(
    args: &ServicesArgs,
    data: &Path,
    dialer: &Dialer,
    (step, space): (Step, &Space),
) -> anyhow::Result<Cell> {
    let folder = tempfile::tempdir_in(data)?;
    let server = Server::start(&Setup::new(step.scenario.service(), space), folder.path())?;
    let wires = dialer.wires(&server.target, step.connections.unwrap_or(1)).await?;
    let pace = Pace {
        in_flight: args.in_flight(step.scenario),
        warmup: args.warmup(),
        measured: args.measured(),
        rate: step.scenario.rate(step.store),
    };
    CallSite { step, server: &server, space, wires: &wires, pace, spread: args.spread }.measure().await
}

impl CallSite<'_> {
    /// Prepares, calls and checks.
    ///
    /// # Errors
    /// If what is needed cannot be prepared.
    pub(super) async fn measure(&self) -> anyhow::Result<Cell> {
        let (wire, pace, spread) = (&self.wires[0], self.pace, self.spread);
        let callers = self.wires.len() * pace.in_flight;
        let sessions = async |call| Sessions::prepare(call, wire).await;
        let catalogue = async |call| Catalogue::prepare(call, callers, wire).await;
        let operations = async |documents| Operations::prepare(documents, spread, pace, wire).await;
        Ok(match self.step.scenario {
            Scenario::SessionCreate => self.call(sessions(SessionCall::Create).await?).await,
            Scenario::SessionGet => self.call(sessions(SessionCall::Get).await?).await,
            Scenario::SessionHeartbeat => self.call(sessions(SessionCall::Heartbeat).await?).await,
            Scenario::SessionUpdate => self.call(sessions(SessionCall::Update).await?).await,
            Scenario::SessionDelete => self.call(sessions(SessionCall::Delete).await?).await,
            Scenario::SessionList => self.call(sessions(SessionCall::List).await?).await,
            Scenario::DocumentCreate => self.call(Creations::prepare(wire).await?).await,
            Scenario::DocumentGet => self.call(catalogue(DocumentCall::Get).await?).await,
            Scenario::DocumentList => self.call(catalogue(DocumentCall::List).await?).await,
            Scenario::DocumentUpdate => self.call(catalogue(DocumentCall::Update).await?).await,
            Scenario::DocumentLock => self.call(catalogue(DocumentCall::Lock).await?).await,
            Scenario::ApplyOne => self.call(operations(1).await?).await,
            Scenario::ApplySingle | Scenario::ApplyHundred | Scenario::ApplyPaced => {
                self.call(operations(HUNDRED).await?).await
            }
            Scenario::StreamOne => self.stream(operations(1).await?).await,
            Scenario::StreamHundred => self.stream(operations(HUNDRED).await?).await,
            Scenario::FanOut | Scenario::EditToSubscriber => {
                unreachable!("streams are no calls: they are measured on their own")
            }
        })
    }

    /// Makes the calls and compares what the service holds with what it acknowledged.
    async fn call(&self, workload: impl Workload) -> Cell {
        let workload = Arc::new(workload);
        let measured = closed::run(&workload, self.wires, &self.pace, self.watch()).await;
        self.checked(workload.as_ref(), measured).await
    }

    /// As [`Self::call`], in streams.
    async fn stream(&self, operations: Operations) -> Cell {
        let operations = Arc::new(operations);
        let measured = pipelined::run(&operations, self.wires, &self.pace, self.watch()).await;
        self.checked(operations.as_ref(), measured).await
    }

    fn watch(&self) -> Watch {
        let meters = Meters::new(load::Wire::of_interfaces(self.server.target.address.ip()), Some(self.server.id()));
        Watch::new(meters, self.space.server)
    }

    async fn checked(&self, workload: &impl Workload, measured: Measured) -> Cell {
        let resident_bytes = process::resident_bytes(self.server.id());
        let checked = workload.check(self.wires[0].clone()).await;
        let answered = measured.histogram.len();
        let seconds = self.pace.measured.as_secs_f64();
        Cell {
            scenario: self.step.scenario.name(),
            store: self.step.store.name(),
            transport: self.step.transport.name(),
            connections: self.wires.len(),
            in_flight: self.pace.in_flight,
            rate: self.pace.rate,
            answered,
            errors: measured.errors,
            seconds,
            per_s: answered as f64 / seconds,
            latency: Latency::from(&measured.histogram),
            cost: Cost { server_resident_bytes: resident_bytes, ..Cost::new(&measured.spent, answered) },
            failure: measured.first_error.or_else(|| Some(format!("{:#}", checked.err()?))),
        }
    }
}
