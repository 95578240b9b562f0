//! Memory for received bytes, which all streams of a connection share, so that bytes that come and are read cost no allocation.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::reassembly::Page;

/// Bytes of the largest chunk: what one read gives at most.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that are remembered, in use by those who read from them or not; and so many are asked for one that is not.
const CHUNKS_MAX: usize = 16;
/// Pages that are kept.
const PAGES_MAX: usize = 256;

/// What is kept for reuse. [`Chunks::default`] frees it.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// The empty ends of chunks of [`CHUNK_BYTES`].
    ends: VecDeque<BytesMut>,
    pages: Vec<Box<Page>>,
}

impl Chunks {
    /// Room for `len` bytes at least.
    pub(super) fn take(&mut self, len: usize) -> BytesMut {
        if len < CHUNK_BYTES {
            return BytesMut::with_capacity(len);
        }
        for _ in 0..self.ends.len() {
            let Some(mut end) = self.ends.pop_front() else { break };
            // Only if everything that was read from it has been dropped.
            if end.try_reclaim(CHUNK_BYTES) {
                return end;
            }
            self.ends.push_back(end);
        }
        BytesMut::with_capacity(CHUNK_BYTES.max(len))
    }

    /// Takes a chunk that is full: what is in it comes back, if anything is. The memory of a `large` one is used again once all
    /// of that is dropped.
    pub(super) fn retire(&mut self, mut chunk: BytesMut, large: bool) -> Option<BytesMut> {
        let is_empty = chunk.is_empty();
        if large && self.ends.len() < CHUNKS_MAX {
            self.ends.push_back(chunk.split_off(chunk.len()));
        }
        (!is_empty).then_some(chunk)
    }

    /// A page without bytes.
    pub(super) fn take_page(&mut self) -> Box<Page> {
        self.pages.pop().unwrap_or_else(Page::new)
    }

    /// Takes a page without bytes.
    pub(super) fn give_back_page(&mut self, page: Box<Page>) {
        if self.pages.len() < PAGES_MAX {
            self.pages.push(page);
        }
    }
}
