//! Unreliable datagrams of a connection, between the application and the pump.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes of datagrams on their way from the application into packets at most, and of those that wait for the application.
const BYTES_MAX: usize = 256 << 10;
/// What a datagram counts for beside its bytes.
const ENTRY_BYTES: usize = 64;

#[derive(Debug, Default)]
struct Incoming {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

/// The datagrams of a connection.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    incoming: Mutex<Incoming>,
    arrived: Notify,
    outgoing_bytes: Arc<AtomicUsize>,
    dropped: AtomicU64,
}

/// A datagram that counts as outgoing until nobody holds its bytes.
struct Counted {
    data: Bytes,
    total: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.data.len() + ENTRY_BYTES, Ordering::AcqRel);
    }
}

impl Datagrams {
    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a datagram that is to be sent: the bytes to hand over, or none if too many are on their way.
    pub(crate) fn admit(&self, data: Bytes) -> Option<Bytes> {
        let len = data.len() + ENTRY_BYTES;
        if self.outgoing_bytes.fetch_add(len, Ordering::AcqRel) + len > BYTES_MAX {
            self.outgoing_bytes.fetch_sub(len, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Bytes::from_owner(Counted { data, total: self.outgoing_bytes.clone() }))
    }

    /// One came. The oldest go if there is no room for it.
    pub(crate) fn on_datagram(&self, data: Bytes) {
        let mut incoming = self.incoming();
        incoming.bytes += data.len() + ENTRY_BYTES;
        incoming.waiting.push_back(data);
        while incoming.bytes > BYTES_MAX
            && let Some(oldest) = incoming.waiting.pop_front()
        {
            incoming.bytes -= oldest.len() + ENTRY_BYTES;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        drop(incoming);
        self.arrived.notify_one();
    }

    /// The connection is over: those who wait look again.
    pub(crate) fn on_closed(&self) {
        self.arrived.notify_waiters();
    }

    fn pop(&self) -> Option<Bytes> {
        let mut incoming = self.incoming();
        let data = incoming.waiting.pop_front()?;
        incoming.bytes -= data.len() + ENTRY_BYTES;
        if !incoming.waiting.is_empty() {
            self.arrived.notify_one();
        }
        Some(data)
    }

    /// The next one; `None` once there is none and `is_over`.
    pub(crate) async fn receive(&self, is_over: impl Fn() -> bool) -> Option<Bytes> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if let Some(data) = self.pop() {
                return Some(data);
            }
            if is_over() {
                return None;
            }
            arrived.await;
        }
    }

    /// Datagrams dropped here, in both directions.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_are_bounded_and_the_oldest_that_came_goes() {
        let datagrams = Datagrams::default();
        let mut admitted: Vec<Bytes> = (0..1_000).filter_map(|_| datagrams.admit(Bytes::from(vec![0; 960]))).collect();
        assert_eq!((admitted.len(), datagrams.dropped()), (256, 744));
        admitted.truncate(200);
        let more = (0..1_000).filter_map(|_| datagrams.admit(Bytes::from(vec![0; 960])));
        assert_eq!(more.collect::<Vec<_>>().len(), 56, "what has left makes room");
        for number in 0..300_u32 {
            datagrams.on_datagram(Bytes::from([&number.to_be_bytes()[..], &[0; 956]].concat()));
        }
        let first = datagrams.receive(|| false).await.unwrap();
        assert_eq!(first[..4], 44_u32.to_be_bytes());
        let mut count = 1;
        while datagrams.receive(|| true).await.is_some() {
            count += 1;
        }
        assert_eq!(count, 256);
    }
}
