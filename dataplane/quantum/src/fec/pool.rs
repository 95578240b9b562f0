//! Buffers of symbols that are used again, so that a symbol costs no allocation.

/// Buffers kept at most.
const BUFFERS_MAX: usize = 256;

/// Empty buffers. [`Pool::default`] frees them.
#[derive(Debug, Default)]
pub(super) struct Pool(Vec<Vec<u8>>);

impl Pool {
    /// An empty buffer.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// A buffer with these bytes.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.take();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer that is not needed any more.
    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < BUFFERS_MAX {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
