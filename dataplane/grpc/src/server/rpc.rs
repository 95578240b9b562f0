//! One RPC: stream -> request -> service -> response -> stream.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body::{Body as _, Frame};
use quantum::Priority;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use super::{ConnectInfo, ServerConnection};
use crate::deadline::{Deadline, deadline_exceeded, grpc_timeout, status_trailers};
use crate::fec::Fec;
use crate::mapping::{
    BlockReader, Encoder, MappingError, RequestHead, ResponseHead, TAIL_MARKER, Ticket, encode_plain, frame_block,
    tail_fields,
};
use crate::outbound::{Outbound, UploadError};
use crate::priority;
use crate::stream::{CODE_STATUS_BASE, QuantumStream, ReceiveHalf, StreamError};

/// A request's messages as they come from the stream. Dropped before their end, it stops the upload.
#[derive(Debug)]
struct RequestBody {
    receive: ReceiveHalf,
    ended: bool,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let chunk = ready!(self.receive.poll_chunk(cx));
        self.ended = !matches!(chunk, Some(Ok(_)));
        Poll::Ready(chunk.map(|chunk| match chunk {
            Ok(chunk) => Ok(Frame::data(chunk)),
            Err(StreamError::ConnectionLost(reason)) => Err(Status::unavailable(reason.to_string())),
            Err(error) => Err(Status::cancelled(error.to_string())),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// How far a response has been written.
#[derive(Debug, Default)]
struct Progress {
    head: Option<Ticket>,
}

/// Serves one stream until its response is written or nobody wants it any more.
pub(super) async fn serve_stream<S>(connection: Arc<ServerConnection>, stream: QuantumStream, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<tonic::codegen::StdError> + Send,
    S::Future: Send + 'static,
{
    let (receive, send) = stream.into_split();
    let mut out = Outbound::new(send);
    let watch = out.watch();
    tokio::select! {
        biased;
        // The caller is gone: the handler's future is dropped here.
        _ = watch.over() => out.reset(CODE_STATUS_BASE + Code::Cancelled as u64),
        () = serve_rpc(&connection, receive, &mut out, service) => {}
    }
}

/// Answers a stream that is not served.
pub(super) fn refuse(stream: QuantumStream, status: &Status) {
    let (_receive, send) = stream.into_split();
    end(&mut Outbound::new(send), &Progress::default(), status);
}

async fn serve_rpc<S>(connection: &ServerConnection, mut receive: ReceiveHalf, out: &mut Outbound, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Error: Into<tonic::codegen::StdError> + Send,
    S::Future: Send + 'static,
{
    let read = tokio::time::timeout(connection.options.head_timeout, read_head(connection, &mut receive));
    let head = match read.await {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => return end(out, &Progress::default(), &Status::cancelled("the request ended before its head")),
        Ok(Err(status)) => return end(out, &Progress::default(), &status),
        Err(_) => return end(out, &Progress::default(), &Status::deadline_exceeded("the request's head did not come")),
    };
    let mut deadline = Deadline::at(grpc_timeout(&head.headers).map(|timeout| Instant::now() + timeout));
    if let Some(priority) = priority::of_headers(&head.headers) {
        out.set_priority(priority);
    }
    if let Some(fec) = Fec::of_headers(&head.headers) {
        out.set_fec(fec);
    }
    let is_early = connection.connection.is_early() && !connection.options.idempotent.contains(head.path.path());
    if is_early && let Err(error) = connection.connection.connected().await {
        return end(out, &Progress::default(), &Status::unavailable(error.to_string()));
    }
    let request = to_request(connection, head, receive);
    let mut progress = Progress::default();
    let answered = tokio::select! {
        biased;
        result = answer(service, request, &connection.responses, out, &mut progress) => Some(result),
        () = deadline.passed() => None,
    };
    match answered {
        Some(Ok(())) => {
            if let Some(ticket) = progress.head.take() {
                ticket.leave_to_peer();
            }
        }
        Some(Err(UploadError::Stream)) => out.reset(CODE_STATUS_BASE + Code::Cancelled as u64),
        Some(Err(UploadError::Body(status))) => end(out, &progress, &status),
        None => end(out, &progress, &deadline_exceeded()),
    }
}

/// Reads the head. `None`: the stream ended before it.
async fn read_head(connection: &ServerConnection, receive: &mut ReceiveHalf) -> Result<Option<RequestHead>, Status> {
    let mut reader = BlockReader::new(connection.options.head_bytes_max);
    loop {
        let Some(mut chunk) = receive.chunk().await.map_err(|error| Status::cancelled(error.to_string()))? else {
            return Ok(None);
        };
        let Some(block) = reader.push(&mut chunk).map_err(|error| mapping_status(&error))? else { continue };
        if !chunk.is_empty() {
            receive.unread(chunk);
        }
        let (fields, defined) = connection.requests.decode(block).map_err(|error| mapping_status(&error))?;
        let _ = defined; // The response that follows says that the definition was decoded.
        let head = RequestHead::from_fields(fields).map_err(|error| mapping_status(&error))?;
        for &acknowledgement in &head.acknowledgements {
            connection.responses.acknowledge(acknowledgement);
        }
        return Ok(Some(head));
    }
}

fn mapping_status(error: &MappingError) -> Status {
    match error {
        MappingError::TooLarge(_) | MappingError::TooManyFields => Status::resource_exhausted(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

fn to_request(connection: &ServerConnection, head: RequestHead, receive: ReceiveHalf) -> Request<Body> {
    let mut request = Request::new(Body::new(RequestBody { receive, ended: false }));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from(head.path);
    *request.headers_mut() = head.headers;
    let headers = request.headers_mut();
    headers.entry(TE).or_insert(HeaderValue::from_static("trailers"));
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
    let peer = &connection.connection;
    let remote = peer.remote_addr();
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo { remote, guuid: peer.guuid(), connection: connection.monitor.clone() });
    extensions.insert(TcpConnectInfo { local_addr: Some(peer.local_addr()), remote_addr: Some(remote) });
    request
}

/// Calls the service and writes its response.
async fn answer<S>(
    service: S,
    request: Request<Body>,
    encoder: &Arc<Encoder>,
    out: &mut Outbound,
    progress: &mut Progress,
) -> Result<(), UploadError>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Into<tonic::codegen::StdError>,
{
    let called = AssertUnwindSafe(service.oneshot(request)).catch_unwind().await;
    let response = match called {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => Status::from_error(error.into()).into_http(),
        Err(_) => Status::internal("the handler panicked").into_http(),
    };
    let (parts, mut body) = response.into_parts();
    if let Some(&priority) = parts.extensions.get::<Priority>() {
        out.set_priority(priority);
    }
    if let Some(&fec) = parts.extensions.get::<Fec>() {
        out.set_fec(fec);
    }
    let complete = parts.headers.contains_key("grpc-status") && body.is_end_stream();
    let head = ResponseHead { status: parts.status, headers: parts.headers };
    progress.head = Some(write_head(&head, encoder, out));
    if complete {
        return Ok(out.finish().await?);
    }
    let uploaded = AssertUnwindSafe(out.upload(&mut body)).catch_unwind().await;
    let trailers = uploaded.unwrap_or_else(|_| Err(UploadError::Body(Status::internal("the handler panicked"))))?;
    if let Some(trailers) = trailers {
        let mut block = BytesMut::new();
        let ticket = encoder.encode(&tail_fields(&trailers), &mut block);
        out.push(tail(&block)).await?;
        out.finish().await?;
        ticket.leave_to_peer();
        return Ok(());
    }
    Ok(out.finish().await?)
}

fn write_head(head: &ResponseHead, encoder: &Arc<Encoder>, out: &mut Outbound) -> Ticket {
    let mut block = BytesMut::new();
    let ticket = encoder.encode(&head.to_fields(), &mut block);
    frame_block(&block, out.gather());
    ticket
}

fn tail(block: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(block.len() + 4);
    bytes.put_u8(TAIL_MARKER);
    frame_block(block, &mut bytes);
    bytes.freeze()
}

/// Ends a response with a status, wherever it is, without waiting for anybody.
fn end(out: &mut Outbound, progress: &Progress, status: &Status) {
    let code = CODE_STATUS_BASE + status.code() as u64;
    let mut block = BytesMut::new();
    let mut trailers = status_trailers(status);
    if progress.head.is_some() {
        encode_plain(&tail_fields(&trailers), &mut block);
        out.cut(&tail(&block), code);
        return;
    }
    trailers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let head = ResponseHead { status: http::StatusCode::OK, headers: HeaderMap::clone(&trailers) };
    encode_plain(&head.to_fields(), &mut block);
    let mut framed = BytesMut::new();
    frame_block(&block, &mut framed);
    out.cut(&framed, code);
}
