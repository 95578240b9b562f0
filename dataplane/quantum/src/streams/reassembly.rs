//! Puts the bytes of a stream back in order.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::chunks::{CHUNK_BYTES, Chunks};

/// Bytes of a page: what is out of order is kept in pages of the stream, so its memory does not depend on how many fragments
/// it came in. A page costs an eighth more for the map of what it holds.
const PAGE_BYTES: usize = 4096;

/// Received bytes of a stream that have not been read. Of bytes that come twice the first ones count.
///
/// What lies beyond the bytes in order takes at most `(window + 2 * PAGE_BYTES) * 9/8` bytes, whatever the fragments; what is
/// in order at most twice its size, or [`CHUNK_BYTES`] more than that.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// In order, ready to be read.
    ready: VecDeque<BytesMut>,
    /// What follows `ready`, and room for more.
    tail: BytesMut,
    /// The tail is part of a chunk of [`CHUNK_BYTES`].
    is_tail_large: bool,
    /// Offset of the first byte to be read.
    read_offset: u64,
    /// Offset behind the last byte in `tail`.
    ready_end: u64,
    /// Out of order, each by offset / `PAGE_BYTES`, in order. Every page holds at least one byte beyond `ready_end`.
    pages: VecDeque<(u64, Box<Page>)>,
    /// Bytes that `pages` hold.
    paged_bytes: usize,
}

/// A part of a stream that is not complete.
#[derive(Debug)]
pub(super) struct Page {
    bytes: [u8; PAGE_BYTES],
    filled: Filled,
}

/// One bit for every byte of a page.
#[derive(Debug)]
struct Filled {
    words: [u64; PAGE_BYTES / 64],
    count: usize,
}

impl Reassembly {
    /// Offset of the first byte to be read.
    pub(super) fn read_offset(&self) -> u64 {
        self.read_offset
    }

    /// Everything before has come.
    pub(super) fn ready_end(&self) -> u64 {
        self.ready_end
    }

    /// Whether there is something to read.
    pub(super) fn is_readable(&self) -> bool {
        self.read_offset < self.ready_end
    }

    /// Bytes kept.
    pub(super) fn buffered(&self) -> usize {
        (self.ready_end - self.read_offset) as usize + self.paged_bytes
    }

    /// Bytes of memory taken.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let ready: usize = self.ready.iter().map(BytesMut::capacity).sum();
        let handles = self.ready.capacity() * size_of::<BytesMut>();
        ready + self.tail.capacity() + handles + self.pages.len() * size_of::<Page>()
    }

    /// Drops what is kept.
    pub(super) fn clear(&mut self) {
        self.ready = VecDeque::new();
        self.tail = BytesMut::new();
        self.read_offset = self.ready_end;
        self.pages = VecDeque::new();
        self.paged_bytes = 0;
    }

    /// Drops memory that holds nothing.
    pub(super) fn release(&mut self) {
        if self.tail.is_empty() {
            self.tail = BytesMut::new();
        }
        if self.pages.is_empty() {
            self.pages = VecDeque::new();
        }
    }

    /// Takes in what is missing of `data`. The caller bounds `offset` by the stream's window.
    pub(super) fn insert(&mut self, offset: u64, data: &[u8], chunks: &mut Chunks) {
        let known = self.ready_end.saturating_sub(offset).min(data.len() as u64);
        let (offset, data) = (offset + known, &data[known as usize..]);
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        let follows = offset == self.ready_end;
        if follows && self.pages.front().is_none_or(|(number, _)| page_start(*number) >= end) {
            self.append(data, chunks);
        } else {
            self.insert_paged(offset, data, chunks);
        }
        if follows && !self.pages.is_empty() {
            self.drain_pages(chunks);
        }
    }

    /// At most `max` bytes in order.
    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        let bytes = match self.ready.front_mut() {
            Some(front) if front.len() <= max => self.ready.pop_front()?,
            Some(front) => front.split_to(max),
            None if self.tail.is_empty() => return None,
            None if !self.is_tail_large && self.tail.len() == self.tail.capacity().min(max) => {
                // Small and complete: it needs no counter of references.
                std::mem::take(&mut self.tail)
            }
            None => self.tail.split_to(self.tail.len().min(max)),
        };
        if self.ready.is_empty() && self.ready.capacity() > 64 {
            self.ready = VecDeque::new();
        }
        self.read_offset += bytes.len() as u64;
        Some(bytes.freeze())
    }

    /// Appends what follows `ready_end`.
    fn append(&mut self, data: &[u8], chunks: &mut Chunks) {
        if self.tail.capacity() - self.tail.len() < data.len() {
            // As much as has come so far: few chunks for much, little memory for little.
            let len = (self.ready_end.min(CHUNK_BYTES as u64) as usize).max(data.len());
            let full = std::mem::replace(&mut self.tail, BytesMut::new());
            self.ready.extend(chunks.retire(full, self.is_tail_large));
            (self.tail, self.is_tail_large) = (chunks.take(len), len >= CHUNK_BYTES);
        }
        self.tail.extend_from_slice(data);
        self.ready_end += data.len() as u64;
    }

    fn insert_paged(&mut self, mut offset: u64, mut data: &[u8], chunks: &mut Chunks) {
        while !data.is_empty() {
            let start = (offset % PAGE_BYTES as u64) as usize;
            let len = data.len().min(PAGE_BYTES - start);
            let number = offset / PAGE_BYTES as u64;
            let place = self.pages.partition_point(|(other, _)| *other < number);
            if self.pages.get(place).is_none_or(|(other, _)| *other != number) {
                self.pages.insert(place, (number, chunks.take_page()));
            }
            let page = &mut self.pages[place].1;
            let before = page.filled.count;
            page.insert(start, &data[..len]);
            self.paged_bytes += page.filled.count - before;
            offset += len as u64;
            data = &data[len..];
        }
    }

    /// Moves what follows `ready_end` out of the pages.
    fn drain_pages(&mut self, chunks: &mut Chunks) {
        while let Some((number, mut page)) = self.pages.pop_front() {
            let base = page_start(number);
            let start = self.ready_end.saturating_sub(base) as usize;
            let end = if base > self.ready_end { start } else { page.filled.run_end(start, true) };
            if start == end {
                self.pages.push_front((number, page));
                return;
            }
            self.paged_bytes -= end - start;
            self.append(&page.bytes[start..end], chunks);
            page.filled.clear(start..end);
            if page.filled.count == 0 {
                chunks.give_back_page(page);
            } else {
                self.pages.push_front((number, page));
            }
        }
    }
}

fn page_start(number: u64) -> u64 {
    number * PAGE_BYTES as u64
}

impl Page {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { bytes: [0; PAGE_BYTES], filled: Filled { words: [0; PAGE_BYTES / 64], count: 0 } })
    }

    /// Copies those bytes of `data` that the page lacks to `start`.
    fn insert(&mut self, start: usize, data: &[u8]) {
        let end = start + data.len();
        let mut at = start;
        while at < end {
            at = self.filled.run_end(at, true).min(end);
            let gap_end = self.filled.run_end(at, false).min(end);
            self.bytes[at..gap_end].copy_from_slice(&data[at - start..gap_end - start]);
            self.filled.set(at..gap_end);
            at = gap_end;
        }
    }
}

impl Filled {
    /// Where the run of bytes that are there (or are not there) ends that starts at `start`.
    fn run_end(&self, start: usize, there: bool) -> usize {
        let mut at = start;
        while at < PAGE_BYTES {
            let word = if there { self.words[at / 64] } else { !self.words[at / 64] };
            let run = (!(word >> (at % 64))).trailing_zeros() as usize;
            let left = 64 - at % 64;
            if run < left {
                return at + run;
            }
            at += left;
        }
        PAGE_BYTES
    }

    /// Marks bytes none of which is there.
    fn set(&mut self, range: Range<usize>) {
        self.count += range.len();
        for_each_word(range, |word, mask| self.words[word] |= mask);
    }

    /// Unmarks bytes all of which are there.
    fn clear(&mut self, range: Range<usize>) {
        self.count -= range.len();
        for_each_word(range, |word, mask| self.words[word] &= !mask);
    }
}

/// Calls `act` with the number and the mask of every word that `range` touches.
fn for_each_word(range: Range<usize>, mut act: impl FnMut(usize, u64)) {
    let mut at = range.start;
    while at < range.end {
        let len = (64 - at % 64).min(range.end - at);
        act(at / 64, (u64::MAX >> (64 - len)) << (at % 64));
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_fragments_the_first_bytes_to_come_are_read_in_order(
            fragments in prop::collection::vec((0_u64..20_000, 1_usize..3_000, any::<bool>(), 1_usize..3_000), 1..80),
        ) {
            let (mut reassembly, mut chunks) = (Reassembly::default(), Chunks::default());
            let mut expected: Vec<Option<u8>> = vec![None; 32_000];
            let mut read = Vec::new();
            for (number, (offset, len, tiny, max)) in fragments.into_iter().enumerate() {
                let data = vec![number as u8; if tiny { 1 + len % 9 } else { len }];
                reassembly.insert(offset, &data, &mut chunks);
                for (at, byte) in data.iter().enumerate() {
                    expected[offset as usize + at].get_or_insert(*byte);
                }
                let ready = expected.iter().position(Option::is_none).unwrap();
                prop_assert_eq!(reassembly.ready_end(), ready as u64);
                prop_assert_eq!(reassembly.is_readable(), read.len() < ready);
                if let Some(bytes) = reassembly.read(max) {
                    prop_assert!(bytes.len() <= max);
                    read.extend_from_slice(&bytes);
                }
                prop_assert_eq!(reassembly.buffered(), expected.iter().flatten().count() - read.len());
            }
            while let Some(bytes) = reassembly.read(usize::MAX) {
                read.extend_from_slice(&bytes);
            }
            prop_assert_eq!(read, expected.into_iter().map_while(|byte| byte).collect::<Vec<u8>>());
        }
    }
}
