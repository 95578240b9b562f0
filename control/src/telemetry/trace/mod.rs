//! Traces, in OpenTelemetry's terms: a span for each RPC, below it those of what it waited for; sent by OTLP over gRPC.
//!
//! Reading order: this file starts and ends it; [`context`] is how a trace crosses processes; [`rpc`] is the span of a call;
//! [`export`] is how spans leave. Nothing of it runs, and no span is made, unless it is asked for.

mod context;
mod export;
mod rpc;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer as _, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanExporter as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) use context::of_headers;
pub(crate) use rpc::RpcSpan;

/// At the end, spans that have not left may take so long to do so.
const FLUSH_TIME: Duration = Duration::from_millis(800);
/// Spans that wait to be sent, unless something else is asked for.
const QUEUE: usize = 2048;

/// How traces are made and where they go.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceOptions {
    /// The collector: `http://HOST:PORT` of OTLP over gRPC.
    pub endpoint: String,
    /// Whose spans these are (`service.name`).
    pub service_name: String,
    /// Where it runs (`deployment.environment.name`); empty: nothing is said.
    pub environment: String,
    /// The share of the traces begun here that is kept, from 0 to 1. One that a caller began is kept if the caller keeps it.
    pub sample_rate: f64,
    /// How long an ended span waits for others to be sent with.
    pub batch_time: Duration,
    /// Ended spans that wait at most; others are lost.
    pub queue: usize,
}

impl TraceOptions {
    /// Every trace, to this collector.
    pub fn new(endpoint: impl Into<String>, service_name: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            service_name: service_name.into(),
            environment: String::new(),
            sample_rate: 1.0,
            batch_time: Duration::from_secs(1),
            queue: QUEUE,
        }
    }
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send traces to {endpoint}: {source}")]
pub struct TraceError {
    endpoint: String,
    source: ExporterBuildError,
}

/// Makes spans and sends them in the background.
#[derive(Debug, Clone)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tracer: SdkTracer,
    stop: CancellationToken,
    sending: Mutex<Option<JoinHandle<()>>>,
}

impl Tracer {
    /// To be called within a tokio runtime. The collector need not be there.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn start(options: &TraceOptions) -> Result<Self, TraceError> {
        let exporter =
            SpanExporter::builder().with_tonic().with_endpoint(&options.endpoint).with_timeout(export::EXPORT_TIME);
        let exporter = exporter.build().map_err(|source| TraceError { endpoint: options.endpoint.clone(), source });
        let mut exporter = exporter?;
        let resource = resource(options);
        exporter.set_resource(&resource);
        let stop = CancellationToken::new();
        let (queue, sending) = export::queue(exporter, options.queue, options.batch_time, stop.clone());
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(options.sample_rate)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let sending = Mutex::new(Some(tokio::spawn(sending.run())));
        Ok(Self(Arc::new(Shared { tracer: provider.tracer("aetherflow"), stop, sending })))
    }

    /// Sends what has ended and ends, within 0.8 seconds.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        let sending = self.0.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut sending) = sending else { return };
        if tokio::time::timeout(FLUSH_TIME, &mut sending).await.is_err() {
            sending.abort();
            tracing::warn!("the last spans of traces were lost: the collector did not take them in time");
        }
    }

    /// A span that begins, below `parent` or as a trace of its own.
    pub(super) fn span(
        &self,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Option<SpanContext>,
        attributes: Vec<KeyValue>,
    ) -> Span {
        let context = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
        self.0.tracer.build_with_context(builder, &context)
    }
}

fn resource(options: &TraceOptions) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", options.service_name.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    if !options.environment.is_empty() {
        attributes.push(KeyValue::new("deployment.environment.name", options.environment.clone()));
    }
    Resource::builder_empty().with_attributes(attributes).build()
}

/// Whether traces can be sent there.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let wrong = |what: &str| {
        format!(
            "{endpoint:?} {what}: give http://HOST:PORT of a collector that takes OTLP over gRPC, such as \
             http://localhost:4317"
        )
    };
    let uri: http::Uri = endpoint.parse().map_err(|_| wrong("is no address"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(wrong("is encrypted, which this version cannot send to")),
        _ => return Err(wrong("is no address")),
    }
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("lacks a host or a port"));
    }
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err(wrong("has a path, which gRPC has not"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_a_port_and_nothing_else() {
        for good in ["http://localhost:4317", "http://127.0.0.1:4317/", "http://[::1]:1"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for wrong in [
            "",
            "localhost",
            "localhost:4317",
            "http://localhost",
            "http://:4317",
            "http://localhost:0",
            "http://localhost:99999",
            "https://localhost:4317",
            "grpc://localhost:4317",
            "http://localhost:14268/api/traces",
            "http://localhost:4317/?a=b",
        ] {
            let said = check_endpoint(wrong).unwrap_err();
            assert!(said.contains("http://localhost:4317"), "{wrong}: {said}");
        }
    }
}
