//! What the pump and a stream's halves share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use quantum::CloseReason;
use quantum_shard::handoff::HANDOFF_WINDOW;

use super::StreamError;

/// Chunks up to this size are copied together while others wait before them: half of a small packet.
const SMALL_BYTES_MAX: usize = 512;

/// How the peer's direction ended.
#[derive(Clone, Debug)]
pub(super) enum ReceiveEnd {
    Finished,
    Reset(u64),
    Lost(CloseReason),
}

#[derive(Debug, Default)]
pub(super) struct ReceiveState {
    pub(super) chunks: VecDeque<Bytes>,
    /// Small chunks that wait behind others, copied together.
    pub(super) small: BytesMut,
    pub(super) end: Option<ReceiveEnd>,
    pub(super) waker: Option<Waker>,
}

impl ReceiveState {
    fn push(&mut self, data: Bytes) {
        // A chunk that waits keeps the buffer alive that it arrived in, so a peer that sends single bytes to a slow reader
        // would have many times the window kept.
        if !self.chunks.is_empty() && data.len() <= SMALL_BYTES_MAX {
            self.small.extend_from_slice(&data);
            return;
        }
        if !self.small.is_empty() {
            let small = self.small.split().freeze();
            self.chunks.push_back(small);
        }
        self.chunks.push_back(data);
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.pop_front();
        chunk.or_else(|| (!self.small.is_empty()).then(|| self.small.split().freeze()))
    }
}

#[derive(Debug)]
pub(super) struct SendState {
    pub(super) credit: usize,
    pub(super) end: Option<StreamError>,
    /// This side's direction has its end.
    pub(super) finished: bool,
    pub(super) delivered: bool,
    pub(super) waker: Option<Waker>,
    pub(super) watcher: Option<Waker>,
}

/// What the pump and the stream's halves share.
#[derive(Debug)]
pub(crate) struct StreamShared {
    pub(super) receive: Mutex<ReceiveState>,
    pub(super) send: Mutex<SendState>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StreamShared {
    pub(crate) fn new() -> Self {
        let send = SendState {
            credit: HANDOFF_WINDOW,
            end: None,
            finished: false,
            delivered: false,
            waker: None,
            watcher: None,
        };
        Self { receive: Mutex::default(), send: Mutex::new(send) }
    }

    pub(crate) fn on_data(&self, data: Bytes) {
        let mut state = lock(&self.receive);
        if state.end.is_none() && !data.is_empty() {
            state.push(data);
            wake(state.waker.take());
        }
    }

    fn on_receive_end(&self, last: Bytes, end: ReceiveEnd) {
        let mut state = lock(&self.receive);
        if state.end.is_none() {
            if !last.is_empty() {
                state.push(last);
            }
            if let ReceiveEnd::Reset(_) = end {
                state.chunks.clear();
                state.small.clear();
            }
            state.end = Some(end);
        }
        wake(state.waker.take());
    }

    pub(crate) fn on_finished(&self, last: Bytes) {
        self.on_receive_end(last, ReceiveEnd::Finished);
    }

    pub(crate) fn on_reset(&self, code: u64) {
        self.on_receive_end(Bytes::new(), ReceiveEnd::Reset(code));
    }

    fn on_send(&self, change: impl FnOnce(&mut SendState)) {
        let mut state = lock(&self.send);
        change(&mut state);
        wake(state.waker.take());
        wake(state.watcher.take());
    }

    pub(crate) fn on_stopped(&self, code: u64) {
        self.on_send(|state| {
            state.end.get_or_insert(StreamError::Stopped(code));
        });
    }

    pub(crate) fn on_delivered(&self) {
        self.on_send(|state| state.delivered = true);
    }

    /// Whether the peer is still to acknowledge something that was sent to its end.
    pub(crate) fn is_undelivered(&self) -> bool {
        let state = lock(&self.send);
        state.finished && !state.delivered && state.end.is_none()
    }

    pub(crate) fn on_credit(&self, bytes: usize) {
        let mut state = lock(&self.send);
        state.credit = state.credit.saturating_add(bytes).min(HANDOFF_WINDOW);
        wake(state.waker.take());
    }

    /// The connection is over: what had been received stays readable.
    pub(crate) fn on_lost(&self, reason: &CloseReason) {
        self.on_receive_end(Bytes::new(), ReceiveEnd::Lost(reason.clone()));
        self.on_send(|state| {
            state.end.get_or_insert_with(|| StreamError::ConnectionLost(reason.clone()));
        });
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

pub(super) fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

pub(super) fn poll_over(shared: &StreamShared, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
    let mut state = lock(&shared.send);
    if state.delivered {
        return Poll::Ready(Ok(()));
    }
    if let Some(end) = &state.end {
        return Poll::Ready(Err(end.clone()));
    }
    register(&mut state.watcher, cx);
    Poll::Pending
}

/// Tells when the peer stopped a stream or its connection ended.
#[derive(Debug)]
pub(crate) struct SendWatch(pub(super) Arc<StreamShared>);

impl SendWatch {
    pub(crate) async fn over(&self) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| poll_over(&self.0, cx)).await
    }
}
