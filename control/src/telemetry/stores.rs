//! How long stores take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Status};
use opentelemetry_sdk::trace::Span;

use super::durations::Durations;
use super::exposition::{Family, Kind, Value};
use super::request::{Origin, spans_of};
use crate::store::StoreKind;

/// What is asked of a store. A closed set: each is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreCall {
    /// A session is stored.
    Insert,
    /// A session is read.
    Get,
    /// A session is changed.
    Update,
    /// A session is heard of.
    Heartbeat,
    /// A session gets another token.
    RotateToken,
    /// A session's connection has ended.
    Disconnect,
    /// A session is removed.
    Delete,
    /// Sessions or documents are listed.
    List,
    /// Everything is counted.
    Counts,
    /// Expired sessions, or documents that were deleted long ago, are removed.
    Sweep,
    /// Readiness is asked for.
    Check,
    /// A document is stored.
    Create,
    /// What happened to a document, from its submission until it is kept: the wait for other writes is part of it.
    Commit,
    /// A document is loaded.
    Load,
    /// Operations of a document are read.
    Log,
    /// An operation that comes again is looked for.
    Find,
    /// Conflicts of a document are read.
    Conflicts,
}

impl StoreCall {
    const ALL: [Self; 17] = [
        Self::Insert,
        Self::Get,
        Self::Update,
        Self::Heartbeat,
        Self::RotateToken,
        Self::Disconnect,
        Self::Delete,
        Self::List,
        Self::Counts,
        Self::Sweep,
        Self::Check,
        Self::Create,
        Self::Commit,
        Self::Load,
        Self::Log,
        Self::Find,
        Self::Conflicts,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Get => "get",
            Self::Update => "update",
            Self::Heartbeat => "heartbeat",
            Self::RotateToken => "rotate_token",
            Self::Disconnect => "disconnect",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Counts => "counts",
            Self::Sweep => "sweep",
            Self::Check => "check",
            Self::Create => "create",
            Self::Commit => "commit",
            Self::Load => "load",
            Self::Log => "log",
            Self::Find => "find",
            Self::Conflicts => "conflicts",
        }
    }
}

/// By store, then by call, in the order of their `ALL`.
static CALLS: [[Calls; StoreCall::ALL.len()]; StoreKind::ALL.len()] =
    [const { [const { Calls { took: Durations::new(), failures: AtomicU64::new(0) } }; StoreCall::ALL.len()] };
        StoreKind::ALL.len()];

/// Calls of one kind that have ended.
#[derive(Debug)]
struct Calls {
    took: Durations,
    failures: AtomicU64,
}

/// A call under way. What is dropped without an end, as by a caller who is gone, is not counted.
#[derive(Debug)]
pub struct StoreTimer {
    store: StoreKind,
    call: StoreCall,
    started: Instant,
    /// One in each trace of those whom it is for.
    spans: Vec<Span>,
}

impl StoreTimer {
    /// Starts a call's time, for whom this task works.
    pub fn start(store: StoreKind, call: StoreCall) -> Self {
        Self::start_for(store, call, Origin::current().as_slice())
    }

    /// Starts the time of a call that several wait for.
    pub fn start_for(store: StoreKind, call: StoreCall, origins: &[Origin]) -> Self {
        let kind = match store {
            StoreKind::Memory | StoreKind::Sqlite => SpanKind::Internal,
            StoreKind::Redis | StoreKind::Postgres => SpanKind::Client,
        };
        let attributes = || {
            let mut attributes =
                vec![KeyValue::new("db.system.name", store.system()), KeyValue::new("db.operation.name", call.name())];
            if origins.len() > 1 {
                attributes.push(KeyValue::new("db.operation.batch.size", origins.len() as i64));
            }
            attributes
        };
        let name = || format!("{} {}", store.name(), call.name());
        let spans = spans_of(origins, name, &kind, attributes);
        Self { store, call, started: Instant::now(), spans }
    }

    /// Counts it with its outcome, which it gives back.
    ///
    /// # Errors
    /// Those of the call.
    pub fn end<T, E>(mut self, result: Result<T, E>) -> Result<T, E> {
        let calls = &CALLS[self.store as usize][self.call as usize];
        calls.took.record(self.started.elapsed());
        if result.is_err() {
            calls.failures.fetch_add(1, Ordering::Relaxed);
            self.spans.iter_mut().for_each(|span| span.set_status(Status::error("the store failed")));
        }
        result
    }
}

/// Durations and failures of the calls so far. A call that has ended has both, so that its first failure is an increase.
pub(super) fn families() -> [Family; 2] {
    let help = "How long calls of a store took; commit is from submission until it is kept";
    let mut took = Family::new("store_operation_duration_seconds", help, Kind::Histogram);
    let mut failed = Family::new("store_operation_failures_total", "Calls of a store that failed", Kind::Counter);
    for (store, calls) in StoreKind::ALL.iter().zip(&CALLS) {
        for (call, calls) in StoreCall::ALL.iter().zip(calls) {
            if let Some(distribution) = calls.took.distribution() {
                let labels = [("store", store.name()), ("operation", call.name())];
                took = took.with(&labels, Value::Distribution(distribution));
                failed = failed.with(&labels, Value::Number(calls.failures.load(Ordering::Relaxed) as f64));
            }
        }
    }
    [took, failed]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_store_and_call_has_a_place_of_its_own() {
        assert!(StoreKind::ALL.iter().enumerate().all(|(place, store)| *store as usize == place));
        assert!(StoreCall::ALL.iter().enumerate().all(|(place, call)| *call as usize == place));
    }
}
