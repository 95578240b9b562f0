//! The bytes of a stream that may have to be sent, or sent again.

use std::collections::VecDeque;

use bytes::Bytes;

/// Chunks up to which even the smallest is kept without copying.
const CHUNKS_UNPACKED: usize = 16;

/// Beyond that, chunks smaller than this are gathered, so that memory does not depend on how finely the application writes.
const PACKED_BYTES: usize = 512;

/// What has been written to a stream and not yet acknowledged from the front on.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    chunks: VecDeque<Chunk>,
    /// Offset of the first byte kept.
    start: u64,
    /// Offset behind the last byte kept.
    end: u64,
}

#[derive(Debug)]
struct Chunk {
    /// Offset of its first byte.
    offset: u64,
    bytes: ChunkBytes,
}

#[derive(Debug)]
enum ChunkBytes {
    /// The application's own.
    Shared(Bytes),
    /// Several small ones.
    Packed(Vec<u8>),
}

impl SendBuffer {
    /// Offset of the first byte kept.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last byte written.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes kept.
    pub(super) fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// How many pieces the bytes are in.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Appends `bytes`.
    pub(super) fn push(&mut self, bytes: Bytes) {
        let (offset, len) = (self.end, bytes.len());
        self.end += len as u64;
        if self.chunks.len() < CHUNKS_UNPACKED || len >= PACKED_BYTES {
            self.chunks.push_back(Chunk { offset, bytes: ChunkBytes::Shared(bytes) });
            return;
        }
        match self.chunks.back_mut() {
            Some(Chunk { bytes: ChunkBytes::Packed(packed), .. }) if packed.len() + len <= packed.capacity() => {
                packed.extend_from_slice(&bytes);
            }
            _ => {
                let mut packed = Vec::with_capacity(4 * PACKED_BYTES);
                packed.extend_from_slice(&bytes);
                self.chunks.push_back(Chunk { offset, bytes: ChunkBytes::Packed(packed) });
            }
        }
    }

    /// Fills `out` with the bytes from `offset` on, all of which are kept.
    pub(super) fn copy_to(&self, offset: u64, mut out: &mut [u8]) {
        debug_assert!(out.is_empty() || offset >= self.start && offset + out.len() as u64 <= self.end);
        let first = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        let mut skip = self.chunks.get(first).map_or(0, |chunk| (offset - chunk.offset) as usize);
        for chunk in self.chunks.range(first..) {
            if out.is_empty() {
                break;
            }
            let bytes = &chunk.bytes.as_slice()[skip..];
            let (head, rest) = out.split_at_mut(bytes.len().min(out.len()));
            head.copy_from_slice(&bytes[..head.len()]);
            (out, skip) = (rest, 0);
        }
    }

    /// Frees everything before `offset`.
    pub(super) fn release(&mut self, offset: u64) {
        debug_assert!(offset <= self.end);
        self.start = self.start.max(offset);
        while self.chunks.front().is_some_and(|chunk| chunk.end() <= self.start) {
            self.chunks.pop_front();
        }
        if self.chunks.capacity() > 4 * CHUNKS_UNPACKED {
            self.shrink();
        }
    }

    /// Frees memory that holds nothing.
    pub(super) fn shrink(&mut self) {
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }

    /// Frees everything. `end` is where it was.
    pub(super) fn clear(&mut self) {
        self.start = self.end;
        self.chunks = VecDeque::new();
    }
}

impl Chunk {
    fn end(&self) -> u64 {
        self.offset + self.bytes.as_slice().len() as u64
    }
}

impl ChunkBytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Packed(bytes) => bytes,
        }
    }
}
