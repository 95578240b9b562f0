//! Byte streams of a connection: what one RPC, one message flow, or anything else runs on.

mod shared;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quantum::{CloseReason, Priority, StreamId};
use quantum_shard::handoff::{HANDOFF_WINDOW, ToShard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use shared::{SendWatch, StreamShared};

use self::shared::{ReceiveEnd, lock, poll_over, register};
use crate::connection::ConnectionHandle;

/// The code with which a dropped half resets or stops: the gRPC status CANCELLED in the range of status codes.
pub const CODE_CANCELLED: u64 = CODE_STATUS_BASE + 1;

/// Reset codes from here on carry a gRPC status: the code minus this number.
pub const CODE_STATUS_BASE: u64 = 0x100;

/// Consumed bytes that are credited to the shard together: a quarter of the window, so that three quarters are always open
/// and one message in four windows is credit.
const CREDIT_BATCH: usize = HANDOFF_WINDOW / 4;

/// Why a stream carries nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer abandoned what it was sending, with its code.
    #[error("the peer reset the stream with code {0:#x}")]
    Reset(u64),
    /// The peer wants no more of what this side sends, with its code.
    #[error("the peer stopped the stream with code {0:#x}")]
    Stopped(u64),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(CloseReason),
    /// This side has finished or reset the stream before.
    #[error("the stream was finished before")]
    Finished,
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Finished => io::ErrorKind::BrokenPipe,
            StreamError::ConnectionLost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// The stream as its halves own it: once both are gone the connection forgets it.
#[derive(Debug)]
struct StreamHandle {
    connection: Arc<ConnectionHandle>,
    id: StreamId,
    shared: Arc<StreamShared>,
}

impl StreamHandle {
    fn tell(&self, message: ToShard) {
        self.connection.tell(message);
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.connection.forget_stream(self.id);
    }
}

/// The half of a stream that receives. Dropped before its end, it asks the peer to stop.
#[derive(Debug)]
pub struct ReceiveHalf {
    handle: Arc<StreamHandle>,
    credit_due: usize,
    ended: bool,
    current: Bytes,
}

impl ReceiveHalf {
    /// The stream's id.
    pub fn id(&self) -> StreamId {
        self.handle.id
    }

    /// The next bytes, in order, never empty, without a copy; `None` at the end.
    ///
    /// # Errors
    /// [`StreamError::Reset`] or [`StreamError::ConnectionLost`].
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        if !self.current.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.current))));
        }
        let mut state = lock(&self.handle.shared.receive);
        if let Some(chunk) = state.pop() {
            let open = state.end.is_none();
            drop(state);
            self.credit_due += chunk.len();
            if open && self.credit_due >= CREDIT_BATCH {
                let bytes = std::mem::take(&mut self.credit_due);
                self.handle.tell(ToShard::Credit(self.handle.connection.key(), self.handle.id, bytes));
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match &state.end {
            None => {
                register(&mut state.waker, cx);
                Poll::Pending
            }
            Some(end) => {
                self.ended = true;
                Poll::Ready(match end {
                    ReceiveEnd::Finished => None,
                    ReceiveEnd::Reset(code) => Some(Err(StreamError::Reset(*code))),
                    ReceiveEnd::Lost(reason) => Some(Err(StreamError::ConnectionLost(reason.clone()))),
                })
            }
        }
    }

    /// The next bytes; see [`poll_chunk`](Self::poll_chunk).
    ///
    /// # Errors
    /// As [`poll_chunk`](Self::poll_chunk).
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await.transpose()
    }

    /// Whether the peer has ended its direction and everything of it has been read.
    pub fn is_finished(&self) -> bool {
        let state = lock(&self.handle.shared.receive);
        let is_empty = self.current.is_empty() && state.chunks.is_empty() && state.small.is_empty();
        is_empty && matches!(state.end, Some(ReceiveEnd::Finished))
    }

    /// Gives bytes back that belong to the next read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.current.is_empty(), "only what the latest read gave is given back");
        self.current = bytes;
    }

    /// Lets go of a stream of which only the end is to come, without asking the peer to stop.
    pub(crate) fn abandon(mut self) {
        self.ended = true;
    }

    /// Asks the peer to stop sending, with a code. What still comes is dropped.
    pub fn stop(&mut self, code: u64) {
        if !self.ended && lock(&self.handle.shared.receive).end.is_none() {
            self.handle.tell(ToShard::Stop(self.handle.connection.key(), self.handle.id, code));
        }
        self.ended = true;
        self.current = Bytes::new();
        self.handle.shared.on_reset(code);
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        if !self.ended {
            self.stop(CODE_CANCELLED);
        }
    }
}

impl AsyncRead for ReceiveHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(mut chunk) = ready!(self.poll_chunk(cx)).transpose()? {
            let taken = chunk.split_to(chunk.len().min(buf.remaining()));
            buf.put_slice(&taken);
            self.current = chunk;
        }
        Poll::Ready(Ok(()))
    }
}

/// The half of a stream that sends. Dropped before [`finish`](Self::finish), it resets the stream.
#[derive(Debug)]
pub struct SendHalf {
    handle: Arc<StreamHandle>,
    ended: bool,
}

impl SendHalf {
    /// The stream's id.
    pub fn id(&self) -> StreamId {
        self.handle.id
    }

    /// Takes as much of the front of `data` as there is credit for, and gives how many bytes that was.
    ///
    /// # Errors
    /// [`StreamError::Stopped`], [`StreamError::ConnectionLost`] or [`StreamError::Finished`].
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        if self.ended {
            return Poll::Ready(Err(StreamError::Finished));
        }
        let mut state = lock(&self.handle.shared.send);
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if state.credit == 0 {
            register(&mut state.waker, cx);
            return Poll::Pending;
        }
        let piece = data.split_to(data.len().min(state.credit));
        state.credit -= piece.len();
        drop(state);
        let taken = piece.len();
        self.handle.tell(ToShard::Data(self.handle.connection.key(), self.handle.id, piece));
        Poll::Ready(Ok(taken))
    }

    /// Sends all of `data`, without a copy, waiting for credit as often as needed.
    ///
    /// # Errors
    /// As [`poll_send`](Self::poll_send).
    pub async fn send_bytes(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            std::future::poll_fn(|cx| self.poll_send(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Sends all of `data` as [`send_bytes`](Self::send_bytes) does, and ends this direction after it: in one hand-off if the
    /// credit allows.
    ///
    /// # Errors
    /// As [`poll_send`](Self::poll_send).
    pub async fn send_last(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while data.len() > self.credit() {
            std::future::poll_fn(|cx| self.poll_send(cx, &mut data)).await?;
        }
        self.end_with(data)
    }

    fn end_with(&mut self, last: Bytes) -> Result<(), StreamError> {
        if self.ended {
            return Err(StreamError::Finished);
        }
        let mut state = lock(&self.handle.shared.send);
        if let Some(end) = state.end.as_ref().filter(|_| !last.is_empty()) {
            return Err(end.clone());
        }
        state.finished = true;
        drop(state);
        self.ended = true;
        self.handle.tell(ToShard::Finish(self.handle.connection.key(), self.handle.id, last));
        Ok(())
    }

    /// Tells the peer of the stream before there is anything to send: it learns of one with what comes first on it.
    pub fn announce(&mut self) {
        if !self.ended {
            self.handle.tell(ToShard::Data(self.handle.connection.key(), self.handle.id, Bytes::new()));
        }
    }

    /// Bytes that can be sent without waiting.
    pub fn credit(&self) -> usize {
        lock(&self.handle.shared.send).credit
    }

    /// Where this direction stands among those of the connection that want to send.
    pub fn set_priority(&self, priority: Priority) {
        self.handle.tell(ToShard::Priority(self.handle.connection.key(), self.handle.id, priority));
    }

    /// Whether forward error correction, where the connection has it, protects what is sent from here on. It does unless told
    /// otherwise; bulk that nobody waits for can do without.
    pub fn set_protected(&self, protected: bool) {
        self.handle.tell(ToShard::Protect(self.handle.connection.key(), self.handle.id, protected));
    }

    /// Ends this direction after what was sent.
    ///
    /// # Errors
    /// [`StreamError::Finished`] if it ended before.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.end_with(Bytes::new())
    }

    /// Abandons this direction with a code. Does nothing if it ended before.
    pub fn reset(&mut self, code: u64) {
        if !std::mem::replace(&mut self.ended, true) {
            self.handle.tell(ToShard::Reset(self.handle.connection.key(), self.handle.id, code));
        }
    }

    /// Ready once the peer wants no more or the connection is over, or everything has been delivered.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        poll_over(&self.handle.shared, cx)
    }

    /// Waits until the peer has acknowledged everything, the end included.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] or [`StreamError::ConnectionLost`] if that cannot happen any more.
    pub async fn delivered(&self) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| self.poll_over(cx)).await
    }

    /// Watches the end of this direction while somebody else sends on it. One watcher at a time.
    pub(crate) fn watch(&self) -> SendWatch {
        SendWatch(self.handle.shared.clone())
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        self.reset(CODE_CANCELLED);
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let room = self.credit().min(buf.len());
        // With no credit, one byte asks for it: nothing is copied that cannot be sent.
        let mut data = Bytes::copy_from_slice(&buf[..room.max(1).min(buf.len())]);
        self.poll_send(cx, &mut data).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.finish()?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A bidirectional byte stream. `shutdown` ends the sending direction; a drop resets what is not finished and asks the
/// peer to stop what has not been read to its end.
#[derive(Debug)]
pub struct QuantumStream {
    receive: ReceiveHalf,
    send: SendHalf,
}

impl QuantumStream {
    pub(crate) fn new(connection: Arc<ConnectionHandle>, id: StreamId, shared: Arc<StreamShared>) -> Self {
        let handle = Arc::new(StreamHandle { connection, id, shared });
        let receive = ReceiveHalf { handle: handle.clone(), credit_due: 0, ended: false, current: Bytes::new() };
        Self { receive, send: SendHalf { handle, ended: false } }
    }

    /// The stream's id.
    pub fn id(&self) -> StreamId {
        self.send.id()
    }

    /// See [`ReceiveHalf::poll_chunk`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        self.receive.poll_chunk(cx)
    }

    /// See [`ReceiveHalf::chunk`].
    ///
    /// # Errors
    /// As there.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.receive.chunk().await
    }

    /// See [`ReceiveHalf::is_finished`].
    pub fn is_finished(&self) -> bool {
        self.receive.is_finished()
    }

    /// See [`SendHalf::send_bytes`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_bytes(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.send.send_bytes(data).await
    }

    /// See [`SendHalf::send_last`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_last(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.send.send_last(data).await
    }

    /// See [`SendHalf::announce`].
    pub fn announce(&mut self) {
        self.send.announce();
    }

    /// See [`SendHalf::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.send.finish()
    }

    /// See [`SendHalf::set_priority`].
    pub fn set_priority(&self, priority: Priority) {
        self.send.set_priority(priority);
    }

    /// See [`SendHalf::set_protected`].
    pub fn set_protected(&self, protected: bool) {
        self.send.set_protected(protected);
    }

    /// The two directions, to be used by two tasks.
    pub fn into_split(self) -> (ReceiveHalf, SendHalf) {
        (self.receive, self.send)
    }
}

impl AsyncRead for QuantumStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receive).poll_read(cx, buf)
    }
}

impl AsyncWrite for QuantumStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
