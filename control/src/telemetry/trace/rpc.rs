//! The span of an RPC, at its server or at its client, by the semantic conventions for gRPC.

use std::borrow::Cow;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, Status};
use opentelemetry_sdk::trace::Span;

use super::{Tracer, context};

/// Bytes of a path that are told of.
const PATH_BYTES_MAX: usize = 256;
const CANCELLED: i32 = 1;

/// An RPC under way. Dropped without an end, it was cancelled.
#[derive(Debug)]
pub(crate) struct RpcSpan {
    span: Box<Span>,
    is_server: bool,
    ended: bool,
}

impl RpcSpan {
    /// One of this name, service and method that is served: a child of its caller's span, if there is one.
    pub(in crate::telemetry) fn served(
        tracer: &Tracer,
        [name, service, method]: [&'static str; 3],
        caller: Option<SpanContext>,
        transport: &'static str,
    ) -> Self {
        let mut attributes = attributes(service.into(), method.into());
        attributes.push(KeyValue::new("network.transport", transport));
        attributes.push(KeyValue::new("network.protocol.name", if transport == "udp" { "quantum" } else { "http" }));
        let span = tracer.span(name, SpanKind::Server, caller, attributes);
        Self { span: Box::new(span), is_server: true, ended: false }
    }

    /// One that is sent to `path` with `headers`: a child of the span that they name, if they name one, and in its place.
    pub(crate) fn sent(tracer: &Tracer, path: &str, headers: &mut HeaderMap) -> Self {
        let path = path.get(..PATH_BYTES_MAX).unwrap_or(path).trim_start_matches('/');
        let (service, method) = path.rsplit_once('/').unwrap_or((path, ""));
        let attributes = attributes(service.to_owned().into(), method.to_owned().into());
        let span = tracer.span(path.to_owned(), SpanKind::Client, context::of_headers(headers), attributes);
        context::put(span.span_context(), headers);
        Self { span: Box::new(span), is_server: false, ended: false }
    }

    /// Where it stands.
    pub(crate) fn context(&self) -> &SpanContext {
        self.span.span_context()
    }

    /// Ends it with a numeric gRPC status; the first end counts.
    pub(crate) fn end(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // A server has not failed by telling a client of its mistake.
        let failed = if self.is_server { matches!(code, 2 | 4 | 12..=15) } else { code != 0 };
        if failed {
            self.span.set_status(Status::error(tonic::Code::from(code).description()));
        }
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
        self.span.end();
    }
}

impl Drop for RpcSpan {
    fn drop(&mut self) {
        self.end(CANCELLED);
    }
}

fn attributes(service: Cow<'static, str>, method: Cow<'static, str>) -> Vec<KeyValue> {
    vec![
        KeyValue::new("rpc.system", "grpc"),
        KeyValue::new("rpc.service", service),
        KeyValue::new("rpc.method", method),
    ]
}
