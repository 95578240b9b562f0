//! A response's messages and its trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::task::JoinHandle;
use tonic::Status;

use super::ClientConnection;
use super::call::{mapping_status, stream_status};
use crate::deadline::{Deadline, deadline_exceeded};
use crate::mapping::{FrameSplitter, MappingError, Piece, tail_from_fields};
use crate::stream::ReceiveHalf;

/// The body of a response. Dropped before its end it cancels the call: the server's handler is dropped too.
#[derive(Debug)]
pub struct ResponseBody {
    connection: Arc<ClientConnection>,
    receive: Option<ReceiveHalf>,
    splitter: FrameSplitter,
    upload: Option<JoinHandle<Result<(), Status>>>,
    deadline: Deadline,
    chunk: Bytes,
    /// The head said how the call went: no tail follows.
    complete: bool,
}

impl ResponseBody {
    pub(super) fn new(
        connection: Arc<ClientConnection>,
        receive: ReceiveHalf,
        splitter: FrameSplitter,
        upload: Option<JoinHandle<Result<(), Status>>>,
        complete: bool,
    ) -> Self {
        let deadline = Deadline::at(None);
        Self { connection, receive: Some(receive), splitter, upload, deadline, chunk: Bytes::new(), complete }
    }

    pub(super) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// The call is over: nothing of it stays behind.
    fn end(&mut self) {
        let receive = self.receive.take();
        // Nothing but the end of the stream follows a head that says how the call went.
        if let Some(receive) = receive.filter(|_| self.complete) {
            receive.abandon();
        }
        self.chunk = Bytes::new();
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match self.splitter.next(&mut self.chunk) {
                Ok(Some(Piece::Messages(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(Some(Piece::Tail(block))) => {
                    let tail = self.connection.decode(block).and_then(tail_from_fields);
                    // Nothing but the end of the stream can follow: no STOP is worth its bytes.
                    if let Some(receive) = self.receive.take().filter(|_| self.chunk.is_empty()) {
                        receive.abandon();
                    }
                    self.end();
                    return Poll::Ready(Some(tail.map(Frame::trailers).map_err(|error| mapping_status(&error))));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(mapping_status(&error)))),
            }
            let Some(receive) = &mut self.receive else { return Poll::Ready(None) };
            match ready!(receive.poll_chunk(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(stream_status(&error)))),
                None => {
                    let end = self.splitter.finish().err();
                    let end =
                        end.or_else(|| (!self.complete).then_some(MappingError::Ended("response without a status")));
                    self.receive = None;
                    return Poll::Ready(end.map(|error| Err(mapping_status(&error))));
                }
            }
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.receive.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = self.poll_piece(cx) {
            if matches!(frame, None | Some(Err(_))) {
                self.end();
            }
            return Poll::Ready(frame);
        }
        if self.deadline.poll_passed(cx).is_ready() {
            self.end();
            return Poll::Ready(Some(Err(deadline_exceeded())));
        }
        Poll::Pending
    }

    /// True before the end of the stream is read if the head said how the call went: HTTP/2 wants such a response to end with its
    /// head.
    fn is_end_stream(&self) -> bool {
        self.receive.is_none() || self.complete
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.end();
    }
}
