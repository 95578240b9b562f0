//! Rate, errors and duration of every RPC, from the status that really went out, and its deadline.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use metrics::{Counter, Gauge, counter, gauge};
use prost::Message;
use tokio::time::Sleep;

use super::durations::Durations;
use super::exposition::{Family, Kind, Value};
use super::request::{self, Origin};
use super::trace::{self, RpcSpan, Tracer};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// gRPC's status codes, by their numbers.
const CODES: [&str; 17] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
const DEADLINE_EXCEEDED: usize = 4;

/// A method of a service. The peer cannot make up new ones.
#[derive(Debug)]
struct Method {
    service: &'static str,
    name: &'static str,
    /// Both.
    path: &'static str,
    took: Durations,
    /// Looked up once: a lookup by labels costs more than the rest of what is measured.
    in_flight: OnceLock<Gauge>,
    /// By code.
    ended: [OnceLock<Counter>; CODES.len()],
}

impl Method {
    const fn new(service: &'static str, name: &'static str, path: &'static str) -> Self {
        let ended = [const { OnceLock::new() }; CODES.len()];
        Self { service, name, path, took: Durations::new(), in_flight: OnceLock::new(), ended }
    }

    fn in_flight(&self) -> &Gauge {
        let Self { service, name, .. } = *self;
        self.in_flight.get_or_init(|| gauge!("grpc_server_in_flight_requests", "service" => service, "method" => name))
    }

    /// How many ended with this code.
    fn ended(&self, code: usize) -> &Counter {
        let Self { service, name, .. } = *self;
        let labels =
            || counter!("grpc_server_requests_total", "service" => service, "method" => name, "code" => CODES[code]);
        self.ended[code].get_or_init(labels)
    }
}

/// All that is called without being there.
static UNKNOWN_METHOD: Method = Method::new("unknown", "unknown", "unknown/unknown");

/// Measures one RPC, traces it if there is a tracer, and gives it an id; a middleware around all services of a server.
pub async fn measure(State(tracer): State<Option<Tracer>>, request: Request, next: Next) -> Response {
    let mut call = Call::start(method_of(request.uri().path()), tracer.as_ref(), &request);
    let deadline = super::deadline::of_request(request.headers());
    let mut expiry = deadline.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    let running = request::scope(Some(call.origin.clone()), next.run(request));
    let mut response = match &mut expiry {
        None => running.await,
        Some(expiry) => tokio::select! {
            biased;
            response = running => response,
            () = expiry => return deadline_response(call),
        },
    };
    response.headers_mut().insert(request::REQUEST_ID, call.origin.id().clone());
    if let Some(code) = response.headers().get(GRPC_STATUS) {
        call.end(code);
    } else if response.status() != http::StatusCode::OK {
        call.end_with(UNKNOWN);
    }
    response.map(|body| Body::new(MeasuredBody { body, call, expiry, ended: false }))
}

fn deadline_response(mut call: Call) -> Response {
    call.end_with(DEADLINE_EXCEEDED);
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().extend(deadline_trailers());
    response.headers_mut().insert(request::REQUEST_ID, call.origin.id().clone());
    response
}

fn deadline_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(CODES[DEADLINE_EXCEEDED]));
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static("the deadline has passed"));
    trailers
}

/// One RPC from its start; dropped without an end, it counts as cancelled.
struct Call {
    method: &'static Method,
    origin: Origin,
    span: Option<RpcSpan>,
    started: Instant,
    ended: bool,
}

impl Call {
    fn start(method: &'static Method, tracer: Option<&Tracer>, request: &Request) -> Self {
        method.in_flight().increment(1);
        let remote = trace::of_headers(request.headers());
        let is_quantum = request.extensions().get::<quantum_grpc::ConnectInfo>().is_some();
        let transport = if is_quantum { "udp" } else { "tcp" };
        let names = [method.path, method.service, method.name];
        let span = tracer.map(|tracer| RpcSpan::served(tracer, names, remote.clone(), transport));
        let place = tracer.zip(span.as_ref().map(RpcSpan::context));
        let origin = Origin::new(request.headers(), place, remote.as_ref());
        Self { method, origin, span, started: Instant::now(), ended: false }
    }

    fn end(&mut self, code: &HeaderValue) {
        // Anything else that a handler might make up is not worth a time series.
        self.end_with(CODES.iter().position(|known| known.as_bytes() == code.as_bytes()).unwrap_or(UNKNOWN));
    }

    fn end_with(&mut self, code: usize) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.method.ended(code).increment(1);
        self.method.in_flight().decrement(1);
        let Method { service, name: method, took, .. } = self.method;
        let (elapsed, number) = (self.started.elapsed(), code as i32);
        let code = CODES[code];
        took.record_of(elapsed, self.span.as_ref().map(RpcSpan::context));
        if tracing::enabled!(tracing::Level::DEBUG) {
            let micros = elapsed.as_micros() as u64;
            self.origin.enter(|| tracing::debug!(service, method, code, micros, "a call has ended"));
        }
        if let Some(span) = &mut self.span {
            span.end(number);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end_with(CANCELLED);
    }
}

/// A response body that is watched for its trailers and cut at the deadline.
struct MeasuredBody {
    body: Body,
    call: Call,
    expiry: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl http_body::Body for MeasuredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        if let Poll::Ready(frame) = this.call.origin.enter(|| Pin::new(&mut this.body).poll_frame(context)) {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        match trailers.get(GRPC_STATUS) {
                            Some(code) => self.call.end(code),
                            None => self.call.end_with(UNKNOWN),
                        }
                    }
                }
                Some(Err(_)) | None => self.call.end_with(UNKNOWN),
            }
            return Poll::Ready(frame);
        }
        if let Some(expiry) = &mut self.expiry
            && expiry.as_mut().poll(context).is_ready()
            && !self.call.ended
        {
            self.ended = true;
            self.body = Body::empty();
            self.call.end_with(DEADLINE_EXCEEDED);
            return Poll::Ready(Some(Ok(Frame::trailers(deadline_trailers()))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long the RPCs took that have ended, by service and method.
pub(super) fn durations() -> Family {
    let help = "From request to status, streams included";
    let family = Family::new("grpc_server_request_duration_seconds", help, Kind::Histogram);
    let methods = methods().values().copied().chain([&UNKNOWN_METHOD]);
    let measured = methods.filter_map(|method| Some((method, method.took.distribution()?)));
    measured.fold(family, |family, (method, took)| {
        family.with(&[("service", method.service), ("method", method.name)], Value::Distribution(took))
    })
}

/// The paths of all methods that are served.
#[cfg(test)]
pub(crate) fn method_paths() -> impl Iterator<Item = String> {
    methods().keys().cloned()
}

fn method_of(path: &str) -> &'static Method {
    methods().get(path).copied().unwrap_or(&UNKNOWN_METHOD)
}

/// All methods that are served, by path.
fn methods() -> &'static BTreeMap<String, &'static Method> {
    static METHODS: OnceLock<BTreeMap<String, &'static Method>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let sets = [
            proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        sets.into_iter().flat_map(methods_in).collect()
    })
}

/// Path and method of all in an encoded descriptor set. They live as long as the process.
fn methods_in(descriptors: &[u8]) -> Vec<(String, &'static Method)> {
    let set = prost_types::FileDescriptorSet::decode(descriptors).unwrap_or_default();
    let mut methods = Vec::new();
    for file in &set.file {
        for described in &file.service {
            let service: &'static str = Box::leak(format!("{}.{}", file.package(), described.name()).into_boxed_str());
            for method in &described.method {
                let path: &'static str = Box::leak(format!("{service}/{}", method.name()).into_boxed_str());
                let name: &'static str = Box::leak(method.name().to_owned().into_boxed_str());
                let method: &'static Method = Box::leak(Box::new(Method::new(service, name, path)));
                methods.push((format!("/{path}"), method));
            }
        }
    }
    methods
}
