//! The handshake's bytes of one epoch: what is sent, resent and put in order.

use crate::range_set::RangeSet;
use crate::{TransportError, TransportErrorCode};

/// Handshake bytes of one epoch that are buffered while something before them is missing.
const REASSEMBLY_BYTES_MAX: u64 = 16 << 10;

/// Handshake bytes to send in one epoch. They are few, so they stay until the epoch's keys go.
#[derive(Debug, Default)]
pub(crate) struct CryptoSend {
    data: Vec<u8>,
    unsent: u64,
    lost: RangeSet,
    acked: RangeSet,
}

impl CryptoSend {
    /// Appends bytes.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    /// Whether there is something to send.
    pub(crate) fn has_pending(&self) -> bool {
        self.unsent < self.data.len() as u64 || !self.lost.is_empty()
    }

    /// Takes at most `max` bytes to send: lost ones first, then new ones. Gives their offset.
    pub(crate) fn take(&mut self, max: usize) -> Option<(u64, &[u8])> {
        if max == 0 {
            return None;
        }
        if let Some((first, last)) = self.lost.pop_oldest() {
            let end = (last + 1).min(first + max as u64);
            if end <= last {
                self.lost.insert_range(end, last);
            }
            return Some((first, &self.data[first as usize..end as usize]));
        }
        let start = self.unsent;
        let end = (self.data.len() as u64).min(start + max as u64);
        (start < end).then(|| {
            self.unsent = end;
            (start, &self.data[start as usize..end as usize])
        })
    }

    /// A packet with `len` bytes at `offset` was lost.
    pub(crate) fn on_lost(&mut self, offset: u64, len: u32) {
        if len > 0 {
            self.lost.insert_range(offset, offset + u64::from(len) - 1);
        }
    }

    /// A packet with `len` bytes at `offset` arrived: if they counted as lost, they do no longer.
    pub(crate) fn on_acked(&mut self, offset: u64, len: u32) {
        if len > 0 {
            self.lost.remove_range(offset, offset + u64::from(len) - 1);
            self.acked.insert_range(offset, offset + u64::from(len) - 1);
        }
    }

    /// Whether everything has arrived.
    pub(crate) fn is_delivered(&self) -> bool {
        let end = self.data.len() as u64;
        end == 0 || self.acked.oldest().is_some_and(|(first, last)| first == 0 && last + 1 >= end)
    }

    /// Everything has to be sent again, from the start.
    pub(crate) fn restart(&mut self) {
        self.unsent = 0;
        self.lost = RangeSet::new();
    }
}

/// Handshake bytes of one epoch as they come in.
#[derive(Debug, Default)]
pub(crate) struct CryptoReceive {
    /// Bytes from `read` on, with holes.
    buffer: Vec<u8>,
    read: u64,
    present: RangeSet,
}

impl CryptoReceive {
    /// Takes bytes in. Those already read are dropped.
    pub(crate) fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.read + REASSEMBLY_BYTES_MAX {
            return Err(TransportError::new(
                TransportErrorCode::CryptoBufferExceeded,
                "more handshake data than is buffered",
            ));
        }
        if data.is_empty() || end <= self.read {
            return Ok(());
        }
        let start = offset.max(self.read);
        let data = &data[(start - offset) as usize..];
        let at = (start - self.read) as usize;
        if self.buffer.len() < at + data.len() {
            self.buffer.resize(at + data.len(), 0);
        }
        self.buffer[at..at + data.len()].copy_from_slice(data);
        self.present.insert_range(start, end - 1);
        Ok(())
    }

    /// The bytes that are next in order, all at once.
    pub(crate) fn read(&mut self) -> Option<Vec<u8>> {
        let (first, last) = self.present.oldest()?;
        if first != self.read {
            return None;
        }
        self.present.pop_oldest();
        let rest = self.buffer.split_off((last + 1 - first) as usize);
        self.read = last + 1;
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_order_they_come_in() {
        let mut receive = CryptoReceive::default();
        receive.insert(4, b"efgh").unwrap();
        assert_eq!(receive.read(), None);
        receive.insert(2, b"cde").unwrap();
        receive.insert(0, b"ab").unwrap();
        assert_eq!(receive.read().as_deref(), Some(&b"abcdefgh"[..]));
        receive.insert(0, b"abcdefgh").unwrap();
        assert_eq!(receive.read(), None);
        receive.insert(6, b"ghij").unwrap();
        assert_eq!(receive.read().as_deref(), Some(&b"ij"[..]));
    }

    #[test]
    fn data_far_ahead_is_refused() {
        let mut receive = CryptoReceive::default();
        assert!(receive.insert(REASSEMBLY_BYTES_MAX - 1, b"x").is_ok());
        assert!(receive.insert(REASSEMBLY_BYTES_MAX, b"x").is_err());
        assert!(receive.insert(u64::MAX, b"x").is_err());
    }

    #[test]
    fn lost_bytes_are_taken_before_new_ones() {
        let mut send = CryptoSend::default();
        send.push(b"0123456789");
        assert_eq!(send.take(6), Some((0, &b"012345"[..])));
        send.on_lost(2, 3);
        assert_eq!(send.take(2), Some((2, &b"23"[..])));
        assert_eq!(send.take(9), Some((4, &b"4"[..])));
        assert_eq!(send.take(9), Some((6, &b"6789"[..])));
        assert!(!send.has_pending());
        send.restart();
        assert_eq!(send.take(4), Some((0, &b"0123"[..])));
    }
}
