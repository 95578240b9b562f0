//! A collector of traces inside the test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control::telemetry::TraceOptions;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::eventually;

/// A span, as far as tests look at it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whose it is (`service.name`).
    pub process: String,
    pub name: String,
    pub kind: SpanKind,
    pub trace_id: String,
    pub span_id: String,
    /// Empty if it is the first of its trace.
    pub parent_id: String,
    pub attributes: Vec<(String, String)>,
    /// Whether its status is that of a failure.
    pub failed: bool,
}

impl Seen {
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

/// Takes OTLP over gRPC and keeps what comes.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        collector
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How services send theirs, without waiting for long.
    pub fn options(&self) -> TraceOptions {
        TraceOptions { batch_time: Duration::from_millis(20), ..TraceOptions::new(self.url(), "") }
    }

    /// All that came so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The span that `is_it`, once it came, within ten seconds.
    pub async fn find(&self, is_it: impl Fn(&Seen) -> bool) -> Seen {
        eventually(Duration::from_secs(10), async || {
            let seen = self.seen();
            seen.iter().find(|span| is_it(span)).cloned().ok_or_else(|| format!("it is not among {seen:#?}"))
        })
        .await
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = attributes(resource.resource.unwrap_or_default().attributes);
            let process = attributes.into_iter().find(|(key, _)| key == "service.name").unwrap_or_default().1;
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.seen.lock().unwrap().push(Seen {
                    process: process.clone(),
                    kind: span.kind(),
                    failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                    name: span.name,
                    trace_id: hex::encode(span.trace_id),
                    span_id: hex::encode(span.span_id),
                    parent_id: hex::encode(span.parent_span_id),
                    attributes: self::attributes(span.attributes),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attributes(pairs: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |pair: KeyValue| match pair.value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => (pair.key, text),
        Some(Value::IntValue(number)) => (pair.key, number.to_string()),
        other => (pair.key, format!("{other:?}")),
    };
    pairs.into_iter().map(text).collect()
}
