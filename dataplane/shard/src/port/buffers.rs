//! Receive buffers that the kernel picks from (`io_uring_register_buf_ring(3)`).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::sys::Pages;

/// Buffers of a ring; a power of two.
const BUFFERS: u16 = 32;
/// Bytes of a buffer: the largest UDP payload, merged ones included, and what the kernel writes before it. Shorter ones
/// would truncate merged datagrams without a word.
const BUFFER_LEN: usize = 68 << 10;
/// The group that the receive operation picks from.
pub(super) const GROUP: u16 = 0;

/// The ring and its buffers. Memory is touched as far as datagrams reach.
pub(super) struct ReceiveBuffers {
    ring: Pages,
    memory: Pages,
    tail: u16,
}

impl ReceiveBuffers {
    /// Registers the buffers with a ring, all of them free.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let ring = Pages::new(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let memory = Pages::new(usize::from(BUFFERS) * BUFFER_LEN)?;
        // SAFETY: the pages of the ring are mapped, page-aligned and hold BUFFERS entries; they live until this value is
        // dropped, which its owner does after the io_uring instance is gone.
        unsafe { submitter.register_buf_ring_with_flags(ring.address() as u64, BUFFERS, GROUP, 0)? };
        let mut buffers = Self { ring, memory, tail: 0 };
        for id in 0..BUFFERS {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `len` bytes of a buffer that the kernel has filled.
    pub(super) fn filled(&mut self, id: u16, len: usize) -> &mut [u8] {
        self.memory.slice(usize::from(id % BUFFERS) * BUFFER_LEN, len.min(BUFFER_LEN))
    }

    /// The buffer may be filled again, once that is [published](Self::publish).
    pub(super) fn give_back(&mut self, id: u16) {
        let index = usize::from(self.tail % BUFFERS);
        let id = id % BUFFERS;
        let address = self.memory.address() + usize::from(id) * BUFFER_LEN;
        // SAFETY: the ring's pages hold BUFFERS entries, index is below that, and the kernel reads the entry only after
        // the tail has been published.
        let entry = unsafe { &mut *(self.ring.address() as *mut BufRingEntry).add(index) };
        entry.set_addr(address as u64);
        entry.set_len(BUFFER_LEN as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Tells the kernel of the buffers that were given back.
    pub(super) fn publish(&mut self) {
        let base = self.ring.address() as *const BufRingEntry;
        // SAFETY: base is the first entry of the registered ring, whose unused field the kernel reads as the tail; it is
        // aligned for a u16 and only accessed atomically while the kernel may read it.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}
