//! One call: request -> stream -> response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Version, header};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::body::ResponseBody;
use super::{ChannelShared, ClientConnection};
use crate::connection::ConnectionError;
use crate::deadline::{Deadline, deadline_exceeded, grpc_timeout};
use crate::fec::Fec;
use crate::mapping::{
    BlockReader, FrameSplitter, HEAD_BYTES_MAX, MappingError, RequestHead, ResponseHead, frame_block,
};
use crate::outbound::{Outbound, UploadError};
use crate::priority;
use crate::stream::{CODE_CANCELLED, CODE_STATUS_BASE, ReceiveHalf, StreamError};

/// The upload of a request's body, which goes on beside the response.
pub(super) type Upload = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

pub(super) async fn call(shared: Arc<ChannelShared>, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
    let instant = grpc_timeout(request.headers()).map(|timeout| Instant::now() + timeout);
    let mut deadline = Deadline::at(instant);
    let answered = tokio::select! {
        biased;
        answered = exchange(&shared, request) => answered?,
        () = deadline.passed() => return Err(deadline_exceeded()),
    };
    let (head, mut body) = answered;
    body.set_deadline(deadline);
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// Sends the request until the response's head is there.
async fn exchange(shared: &ChannelShared, request: Request<Body>) -> Result<(ResponseHead, ResponseBody), Status> {
    let connection = shared.current().await.map_err(|error| connect_status(&error))?;
    if connection.connection.is_early() && !shared.config.idempotent.contains(request.uri().path()) {
        connection.connection.connected().await.map_err(|error| connect_status(&error))?;
    }
    let stream = connection.connection.open_stream().map_err(|error| connect_status(&error))?;
    let (mut receive, send) = stream.into_split();
    let (mut parts, body) = request.into_parts();
    let mut out = Outbound::new(send);
    if let Some(priority) = priority::of_request(&parts.extensions, &mut parts.headers) {
        out.set_priority(priority);
    }
    if let Some(fec) = Fec::of_request(&parts.extensions, &mut parts.headers) {
        out.set_fec(fec);
    }
    let path = parts.uri.path_and_query().cloned().ok_or_else(|| Status::internal("the request has no path"))?;
    let head = RequestHead {
        path,
        headers: request_headers(parts.headers),
        acknowledgements: connection.acknowledgements.take(),
    };
    let mut block = BytesMut::new();
    let ticket = connection.requests.encode(&head.to_fields(), &mut block);
    frame_block(&block, out.gather());
    let mut carried = CarriedAcknowledgements { connection: &connection, carried: head.acknowledgements };

    let mut upload: Option<Upload> = Some(Box::pin(upload(out, body)));
    let (response, rest) = {
        let mut reading = std::pin::pin!(read_head(&connection, &mut receive));
        loop {
            let uploading = async {
                match &mut upload {
                    Some(upload) => upload.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                result = uploading => {
                    upload = None;
                    result?;
                }
                read = &mut reading => break read?,
            }
        }
    };
    ticket.settle();
    carried.carried.clear();
    drop(carried);
    if !rest.is_empty() {
        receive.unread(rest);
    }
    let upload = upload.map(tokio::spawn);
    let complete = response.headers.contains_key("grpc-status") || response.status != http::StatusCode::OK;
    let splitter = FrameSplitter::new(HEAD_BYTES_MAX);
    Ok((response, ResponseBody::new(connection, receive, splitter, upload, complete)))
}

/// Acknowledgements that a request carries: they wait again if it is not known to have arrived.
struct CarriedAcknowledgements<'a> {
    connection: &'a ClientConnection,
    carried: Vec<crate::mapping::Acknowledgement>,
}

impl Drop for CarriedAcknowledgements<'_> {
    fn drop(&mut self) {
        for acknowledgement in self.carried.drain(..) {
            self.connection.acknowledgements.add(acknowledgement);
        }
    }
}

/// What HTTP/2 needs and a stream does not is left out.
fn request_headers(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::HOST);
    headers.remove(header::CONNECTION);
    headers.remove(header::CONTENT_LENGTH);
    headers
}

async fn upload(mut out: Outbound, mut body: Body) -> Result<(), Status> {
    let result = match out.upload(&mut body).await {
        Ok(_) => out.finish().await.map_err(UploadError::from),
        Err(error) => Err(error),
    };
    match result {
        // The server has said all that it will: its response tells how the call went.
        Ok(()) | Err(UploadError::Stream) => Ok(()),
        Err(UploadError::Body(status)) => {
            out.reset(CODE_CANCELLED);
            Err(status)
        }
    }
}

async fn read_head(connection: &ClientConnection, receive: &mut ReceiveHalf) -> Result<(ResponseHead, Bytes), Status> {
    let mut reader = BlockReader::new(HEAD_BYTES_MAX);
    loop {
        let chunk = receive.chunk().await.map_err(|error| stream_status(&error))?;
        let mut chunk = chunk.ok_or_else(|| mapping_status(&MappingError::Ended("head")))?;
        if let Some(block) = reader.push(&mut chunk).map_err(|error| mapping_status(&error))? {
            let head = connection.decode(block).and_then(ResponseHead::from_fields);
            return head.map(|head| (head, chunk)).map_err(|error| mapping_status(&error));
        }
    }
}

impl ClientConnection {
    /// The fields of a response's block; what it defines is acknowledged with the next request.
    pub(super) fn decode(&self, block: Bytes) -> Result<Vec<crate::mapping::Field>, MappingError> {
        let (fields, defined) = self.responses.decode(block)?;
        if let Some(defined) = defined {
            self.acknowledgements.add(defined);
        }
        Ok(fields)
    }
}

fn connect_status(error: &ConnectionError) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn mapping_status(error: &MappingError) -> Status {
    Status::internal(error.to_string())
}

/// What a stream's end means for the call.
pub(super) fn stream_status(error: &StreamError) -> Status {
    match error {
        StreamError::ConnectionLost(reason) => Status::unavailable(reason.to_string()),
        StreamError::Reset(code) | StreamError::Stopped(code) => match code.checked_sub(CODE_STATUS_BASE) {
            Some(status @ 1..=16) => Status::new(tonic::Code::from(status as i32), "the server reset the call"),
            _ => Status::internal(error.to_string()),
        },
        StreamError::Finished => Status::internal(error.to_string()),
    }
}
