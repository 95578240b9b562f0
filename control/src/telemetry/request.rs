//! What belongs to one RPC wherever it is worked on: the id that its caller is told and its logs carry, and its place in a trace.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, TraceId};
use opentelemetry_sdk::trace::Span;
use uuid::Uuid;

use super::trace::Tracer;
use crate::clock;

/// The metadata with a request's id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of an id at most; a longer one is not taken.
const ID_BYTES_MAX: usize = 128;

tokio::task_local! {
    /// For whom this task works at the moment.
    static CURRENT: Option<Origin>;
}

/// An RPC, for those who do something for it.
#[derive(Debug, Clone)]
pub struct Origin(Arc<Request>);

#[derive(Debug)]
struct Request {
    /// Characters that need no escape, in text or JSON.
    id: HeaderValue,
    /// That of its caller or its own.
    trace_id: Option<TraceId>,
    /// Where spans for it hang, if its trace is kept.
    place: Option<(Tracer, SpanContext)>,
}

impl Origin {
    /// One that came with `headers`; `place` is that of its own span, if it has one, and `remote` that of its caller's.
    pub(super) fn new(
        headers: &HeaderMap,
        place: Option<(&Tracer, &SpanContext)>,
        remote: Option<&SpanContext>,
    ) -> Self {
        let trace_id = place.map(|(_, own)| own.trace_id()).or(remote.map(SpanContext::trace_id));
        let place = place.filter(|(_, own)| own.is_sampled()).map(|(tracer, own)| (tracer.clone(), own.clone()));
        let id = headers.get(REQUEST_ID).filter(|id| is_id(id.as_bytes())).cloned();
        Self(Arc::new(Request { id: id.unwrap_or_else(fresh_id), trace_id, place }))
    }

    /// For whom this task works, if it works for anybody.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok().flatten()
    }

    /// The id, as the caller is told.
    pub(super) fn id(&self) -> &HeaderValue {
        &self.0.id
    }

    /// Whether its trace is kept.
    pub(crate) fn is_traced(&self) -> bool {
        self.0.place.is_some()
    }

    /// Does some work for it.
    pub(super) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Some(self.clone()), work)
    }

    /// A span below its own, if its trace is kept.
    pub(super) fn span(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
    ) -> Option<Span> {
        let (tracer, place) = self.0.place.as_ref()?;
        Some(tracer.span(name, kind, Some(place.clone()), attributes))
    }
}

/// Does work for `origin`, which all that it leads to, up to the next task, finds.
pub(crate) async fn scope<F: Future>(origin: Option<Origin>, work: F) -> F::Output {
    CURRENT.scope(origin, work).await
}

/// A part of an RPC's work that has a span of its own, if the RPC's trace is kept; it ends with this.
#[derive(Debug, Default)]
pub(crate) struct Step(Option<Box<Span>>);

impl Step {
    /// Begins one for whom this task works, and gives the origin that those have who do the work.
    pub(crate) fn begin(name: &'static str) -> (Self, Option<Origin>) {
        let origin = Origin::current();
        let Some(span) = origin.as_ref().and_then(|origin| origin.span(name, SpanKind::Internal, Vec::new())) else {
            return (Self::default(), origin);
        };
        let inner = origin.map(|origin| {
            let Request { id, trace_id, place } = origin.0.as_ref();
            let place = place.as_ref().map(|(tracer, _)| (tracer.clone(), span.span_context().clone()));
            Origin(Arc::new(Request { id: id.clone(), trace_id: *trace_id, place }))
        });
        (Self(Some(Box::new(span))), inner)
    }

    /// Gives it a better name, which is not asked for if there is no span.
    pub(crate) fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(span) = &mut self.0 {
            span.update_name(name());
        }
    }

    /// Says more about it. `value` is not asked for if there is no span.
    pub(crate) fn note(&mut self, key: &'static str, value: impl FnOnce() -> String) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value()));
        }
    }
}

/// Spans of this name for what is done for several at once: one in the trace of each.
pub(super) fn spans_of(
    origins: &[Origin],
    name: impl Fn() -> String,
    kind: &SpanKind,
    attributes: impl Fn() -> Vec<KeyValue>,
) -> Vec<Span> {
    let traced = origins.iter().filter(|origin| origin.is_traced());
    traced.filter_map(|origin| origin.span(name(), kind.clone(), attributes())).collect()
}

/// Id and trace of whom this task works for.
pub(super) fn with_current<T>(use_them: impl FnOnce(&str, Option<TraceId>) -> T) -> Option<T> {
    let with = |origin: &Option<Origin>| {
        let request = &origin.as_ref()?.0;
        Some(use_them(request.id.to_str().ok()?, request.trace_id))
    };
    CURRENT.try_with(with).ok().flatten()
}

/// Whether an id can stand in a log as it is.
fn is_id(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(is_plain)
}

/// A `UUIDv7`, without asking the kernel for randomness each time.
fn fresh_id() -> HeaderValue {
    let millis = clock::now().0 / 1000;
    let id = uuid::Builder::from_unix_timestamp_millis(millis as u64, &rand::random()).into_uuid();
    let mut text = Uuid::encode_buffer();
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("digits and hyphens can stand in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        Origin::new(&headers, None, None).id().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_plain_id_is_kept_and_another_gets_a_fresh_uuid() {
        for good in ["a", "Root=1-67891233-abcdef01", "0190-7c:a/b+c_d.e@f", &"x".repeat(ID_BYTES_MAX)] {
            assert_eq!(id_of(good.as_bytes()), good);
        }
        for bad in [&b""[..], b"a b", b"a\"b", b"a\tb", b"a,b", b"\xc3\xa4", b"{}", &[b'x'; ID_BYTES_MAX + 1]] {
            let id: Uuid = id_of(bad).parse().unwrap();
            assert_eq!(id.get_version_num(), 7, "{bad:?}");
        }
        assert_ne!(id_of(b""), id_of(b""));
    }

    #[tokio::test]
    async fn who_is_worked_for_is_known_within_the_work_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("one"));
        let origin = Origin::new(&headers, None, None);
        let id = || with_current(|id, trace_id| (id.to_owned(), trace_id));
        assert_eq!(id(), None);
        let within = scope(Some(origin.clone()), async { (id(), tokio::spawn(async move { id() }).await.unwrap()) });
        assert_eq!(within.await, (Some(("one".to_owned(), None)), None));
        assert_eq!(origin.enter(id), Some(("one".to_owned(), None)));
        assert_eq!(id(), None);
    }
}
