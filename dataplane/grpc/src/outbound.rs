//! The sending side of an RPC: heads, messages and tails gathered into as few hand-offs as possible.

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tonic::Status;

use crate::fec::Fec;
use crate::stream::{SendHalf, SendWatch, StreamError};

/// Pieces up to this size are copied together; larger ones go as they are. A packet's payload is of this order, and a copy
/// of it costs less than a message through the ring.
const GATHER_BYTES_MAX: usize = 2048;

/// Gathered bytes that are sent even though more are ready.
const FLUSH_BYTES: usize = 16 << 10;

/// Why a body could not be sent to its end.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The stream takes no more.
    Stream,
    /// The body itself failed.
    Body(Status),
}

impl From<StreamError> for UploadError {
    fn from(_error: StreamError) -> Self {
        Self::Stream
    }
}

/// Sends with gathering.
#[derive(Debug)]
pub(crate) struct Outbound {
    send: SendHalf,
    gathered: BytesMut,
    /// A piece is partly with the shard: nothing else may follow it.
    torn: bool,
}

impl Outbound {
    pub(crate) fn new(send: SendHalf) -> Self {
        Self { send, gathered: BytesMut::new(), torn: false }
    }

    /// Adds a piece that has to arrive whole or not at all.
    pub(crate) async fn push(&mut self, piece: Bytes) -> Result<(), StreamError> {
        if piece.len() <= GATHER_BYTES_MAX {
            self.gathered.extend_from_slice(&piece);
            if self.gathered.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
            return Ok(());
        }
        self.flush().await?;
        self.send_whole(piece).await
    }

    pub(crate) fn gather(&mut self) -> &mut BytesMut {
        &mut self.gathered
    }

    pub(crate) async fn flush(&mut self) -> Result<(), StreamError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let bytes = self.gathered.split().freeze();
        self.send_whole(bytes).await
    }

    async fn send_whole(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.torn = true;
        self.send.send_bytes(bytes).await?;
        self.torn = false;
        Ok(())
    }

    /// Sends a body until it ends. Gives its trailers.
    pub(crate) async fn upload<B>(&mut self, body: &mut B) -> Result<Option<HeaderMap>, UploadError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<tonic::codegen::StdError>,
    {
        loop {
            let frame = if let Some(frame) = body.frame().now_or_never() {
                frame
            } else {
                self.flush().await?;
                body.frame().await
            };
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(UploadError::Body(Status::from_error(error.into()))),
            };
            match frame.into_data() {
                Ok(data) => self.push(data).await?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Ok(Some(trailers));
                    }
                }
            }
        }
    }

    /// Ends the direction after all that was pushed.
    pub(crate) async fn finish(&mut self) -> Result<(), StreamError> {
        let last = self.gathered.split().freeze();
        self.torn = true;
        self.send.send_last(last).await?;
        self.torn = false;
        Ok(())
    }

    /// Ends the direction with `last`, without waiting. What cannot go whole becomes a reset with `code`.
    pub(crate) fn cut(&mut self, last: &[u8], code: u64) {
        self.gathered.extend_from_slice(last);
        let fits = !self.torn && self.send.credit() >= self.gathered.len();
        if !fits || self.finish().now_or_never().is_none_or(|result| result.is_err()) {
            self.send.reset(code);
        }
    }

    pub(crate) fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    pub(crate) fn set_priority(&self, priority: quantum::Priority) {
        self.send.set_priority(priority);
    }

    pub(crate) fn set_fec(&self, fec: Fec) {
        self.send.set_protected(fec == Fec::On);
    }

    pub(crate) fn watch(&self) -> SendWatch {
        self.send.watch()
    }
}
