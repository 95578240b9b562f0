//! The layer around all services of a server: nobody gets in unknown, and nobody stays longer than their credentials.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quantum_grpc::status_trailers;
use tonic::Status;

use super::{Authenticator, Caller, audit};

/// What anybody may call. Health is for probes, which have no credentials. Reflection tells what the published .proto files tell,
/// and lets clients find out how to send credentials.
const OPEN: [&str; 3] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// Lets a call in if its caller is known, who is then among the request's extensions.
pub(crate) async fn authenticate(
    State(authenticator): State<Arc<Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if OPEN.iter().any(|open| path.starts_with(open)) {
        return next.run(request).await;
    }
    let caller = match authenticator.caller(request.headers(), path).await {
        Ok(caller) => caller,
        Err(denial) => {
            audit::denied("", path, denial.reason);
            return denial.status.into_http();
        }
    };
    if let Err(denial) = authenticator.limit(&caller, path) {
        caller.denied(denial.reason);
        return denial.status.into_http();
    }
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    response.map(|body| Body::new(GuardedBody { body, guard: Some((authenticator, caller)), over: None, ended: false }))
}

/// A response that ends when its caller's credentials do.
struct GuardedBody {
    body: Body,
    /// Taken when the response first has to be waited for: most are complete at once.
    guard: Option<(Arc<Authenticator>, Caller)>,
    over: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
    ended: bool,
}

impl GuardedBody {
    /// Whether the credentials are over, and how that is told.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        let Some(over) = &mut self.over else { return Poll::Pending };
        let status = std::task::ready!(over.as_mut().poll(context));
        self.over = None;
        self.ended = true;
        // What made the stream is dropped at once.
        self.body = Body::empty();
        Poll::Ready(Frame::trailers(status_trailers(&status)))
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // First, so that a stream that always has something to say ends as well.
        if let Poll::Ready(trailers) = self.poll_over(context) {
            return Poll::Ready(Some(Ok(trailers)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if let Some((authenticator, caller)) = self.guard.take() {
            self.over = Some(Box::pin(authenticator.until_over(caller)));
            return self.poll_over(context).map(|trailers| Some(Ok(trailers)));
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
