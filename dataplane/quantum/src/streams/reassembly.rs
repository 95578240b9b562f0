//! Puts the bytes of a stream back in order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Bytes of a page: what is out of order is kept in pages of the stream, so its memory does not depend on how many fragments
/// it came in. A page costs an eighth more for the map of what it holds.
const PAGE_BYTES: usize = 4096;

/// A chunk in order that is smaller takes what follows, if that is small too, so that many small frames are no many
/// allocations.
const PACKED_BYTES: usize = 2048;

/// What counts as small beside [`PACKED_BYTES`].
const SMALL_BYTES: usize = 512;

/// Received bytes of a stream that have not been read. Of bytes that come twice the first ones count.
///
/// What lies beyond the bytes in order takes at most `(window + 2 * PAGE_BYTES) * 9/8` bytes, whatever the fragments; what is
/// in order at most about twice its size (allocations that grew) and a handle for every [`SMALL_BYTES`].
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    /// In order, ready to be read.
    ready: VecDeque<BytesMut>,
    /// Offset of the first byte to be read.
    read_offset: u64,
    /// Offset behind the last byte in `ready`.
    ready_end: u64,
    /// Out of order, by offset / `PAGE_BYTES`. Every page holds at least one byte beyond `ready_end`.
    pages: BTreeMap<u64, Page>,
    /// Bytes that `pages` hold.
    paged_bytes: usize,
}

#[derive(Debug)]
struct Page {
    bytes: BytesMut,
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
        ready + handles + self.pages.len() * (PAGE_BYTES + size_of::<Page>())
    }

    /// Drops what is kept.
    pub(super) fn clear(&mut self) {
        self.ready = VecDeque::new();
        self.read_offset = self.ready_end;
        self.pages = BTreeMap::new();
        self.paged_bytes = 0;
    }

    /// Takes in what is missing of `data`. The caller bounds `offset` by the stream's window.
    pub(super) fn insert(&mut self, offset: u64, data: &[u8]) {
        let known = self.ready_end.saturating_sub(offset).min(data.len() as u64);
        let (offset, data) = (offset + known, &data[known as usize..]);
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        let follows = offset == self.ready_end;
        if follows && self.pages.first_key_value().is_none_or(|(number, _)| page_start(*number) >= end) {
            self.push_ready(data);
        } else {
            self.insert_paged(offset, data);
        }
        if follows {
            self.drain_pages();
        }
    }

    /// At most `max` bytes in order.
    pub(super) fn read(&mut self, max: usize) -> Option<Bytes> {
        let front = self.ready.front_mut()?;
        let whole = front.len() <= max;
        let bytes = if whole { self.ready.pop_front()? } else { front.split_to(max) };
        if self.ready.is_empty() && self.ready.capacity() > 64 {
            self.ready = VecDeque::new();
        }
        self.read_offset += bytes.len() as u64;
        Some(bytes.freeze())
    }

    /// Appends what follows `ready_end`.
    fn push_ready(&mut self, data: &[u8]) {
        self.ready_end += data.len() as u64;
        pack(&mut self.ready, data);
    }

    fn insert_paged(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let start = (offset % PAGE_BYTES as u64) as usize;
            let len = data.len().min(PAGE_BYTES - start);
            let page = self.pages.entry(offset / PAGE_BYTES as u64).or_insert_with(Page::new);
            let before = page.filled.count;
            page.insert(start, &data[..len]);
            self.paged_bytes += page.filled.count - before;
            offset += len as u64;
            data = &data[len..];
        }
    }

    /// Moves what follows `ready_end` out of the pages.
    fn drain_pages(&mut self) {
        while let Some(mut entry) = self.pages.first_entry() {
            let base = page_start(*entry.key());
            if base > self.ready_end {
                break;
            }
            let start = (self.ready_end - base) as usize;
            let page = entry.get_mut();
            let end = page.filled.run_end(start, true);
            if start == end {
                break;
            }
            if end - start == PAGE_BYTES {
                self.paged_bytes -= PAGE_BYTES;
                self.ready_end += PAGE_BYTES as u64;
                self.ready.push_back(entry.remove().bytes);
                continue;
            }
            page.filled.clear(start..end);
            let empty = page.filled.count == 0;
            // Copied: a chunk that shared the page would keep all of it for a few bytes.
            let page = if empty { &entry.remove() } else { self.pages.first_key_value().expect("it was just there").1 };
            self.paged_bytes -= end - start;
            self.ready_end += (end - start) as u64;
            pack(&mut self.ready, &page.bytes[start..end]);
        }
    }
}

/// Appends `data` to the last chunk if both are small, as a chunk of its own otherwise.
fn pack(chunks: &mut VecDeque<BytesMut>, data: &[u8]) {
    match chunks.back_mut() {
        Some(last) if last.len() < PACKED_BYTES && data.len() < SMALL_BYTES => last.extend_from_slice(data),
        _ => chunks.push_back(BytesMut::from(data)),
    }
}

fn page_start(number: u64) -> u64 {
    number * PAGE_BYTES as u64
}

impl Page {
    fn new() -> Self {
        Self { bytes: BytesMut::zeroed(PAGE_BYTES), filled: Filled { words: [0; PAGE_BYTES / 64], count: 0 } }
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
            let mut reassembly = Reassembly::default();
            let mut expected: Vec<Option<u8>> = vec![None; 32_000];
            let mut read = Vec::new();
            for (number, (offset, len, tiny, max)) in fragments.into_iter().enumerate() {
                let data = vec![number as u8; if tiny { 1 + len % 9 } else { len }];
                reassembly.insert(offset, &data);
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
