//! Deadlines: `grpc-timeout` enforced, the same over Quantum and over TCP.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// The header that carries a call's deadline.
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The longest deadline that is waited for: the largest that `grpc-timeout` can say is many years, more than a timer takes.
const TIMEOUT_MAX: Duration = Duration::from_hours(365 * 24);

/// What `grpc-timeout` asks for: at most 8 digits and a unit (gRPC over HTTP/2, section "Requests"). A value that is
/// not one is ignored, as other servers do.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(timeout.min(TIMEOUT_MAX))
}

/// The status of a call whose time is up.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("the call's deadline has passed")
}

/// A point in time to be awaited, or none.
#[derive(Debug)]
pub(crate) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    pub(crate) fn at(instant: Option<Instant>) -> Self {
        Self(instant.map(|instant| Box::pin(tokio::time::sleep_until(instant))))
    }

    /// Whether it has passed; registers for it if not. The clock decides, not the timer wheel: whoever else waits for the
    /// same deadline must not find it passed earlier.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            None => Poll::Pending,
            Some(sleep) if sleep.deadline() <= Instant::now() => Poll::Ready(()),
            Some(sleep) => sleep.as_mut().poll(cx),
        }
    }

    pub(crate) async fn passed(&mut self) {
        std::future::poll_fn(|cx| self.poll_passed(cx)).await;
    }
}

/// A layer that answers `DEADLINE_EXCEEDED` once `grpc-timeout` has passed and drops what it wraps: the handlers of a tonic
/// server, or the calls of a tonic channel. tonic's own answer is CANCELLED, and it lets a streaming response go on.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let deadline = grpc_timeout(request.headers()).map(|timeout| Instant::now() + timeout);
        DeadlineFuture { inner: Some(Box::pin(self.inner.call(request))), deadline: Some(Deadline::at(deadline)) }
    }
}

/// The future of [`DeadlineService`].
#[derive(Debug)]
pub struct DeadlineFuture<F> {
    inner: Option<Pin<Box<F>>>,
    deadline: Option<Deadline>,
}

impl<F, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Before the inner service: tonic's own timers answer CANCELLED for the same deadline.
        if self.deadline.as_mut().is_some_and(|deadline| deadline.poll_passed(cx).is_ready()) {
            self.inner = None;
            return Poll::Ready(Ok(deadline_exceeded().into_http()));
        }
        let inner = self.inner.as_mut().expect("a future is not polled after its end");
        if let Poll::Ready(result) = inner.as_mut().poll(cx) {
            self.inner = None;
            let deadline = self.deadline.take().expect("taken at the end only");
            return Poll::Ready(result.map(|response| {
                let until =
                    |body| if deadline.0.is_some() { Body::new(DeadlineBody::new(body, deadline)) } else { body };
                response.map(until)
            }));
        }
        Poll::Pending
    }
}

/// A response body that ends with `DEADLINE_EXCEEDED` once the deadline has passed.
#[derive(Debug)]
struct DeadlineBody {
    inner: Option<Body>,
    deadline: Deadline,
}

impl DeadlineBody {
    fn new(inner: Body, deadline: Deadline) -> Self {
        Self { inner: Some(inner), deadline }
    }
}

impl http_body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.deadline.poll_passed(cx).is_pending() {
            return Poll::Pending;
        }
        self.inner = None;
        Poll::Ready(Some(Ok(Frame::trailers(status_trailers(&deadline_exceeded())))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

/// A status as the trailers of a response.
pub fn status_trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if status.add_header(&mut trailers).is_err() {
        // The status carries a message or metadata that no header can: its code goes alone.
        trailers.clear();
        trailers.insert("grpc-status", (status.code() as i32).into());
    }
    trailers
}
