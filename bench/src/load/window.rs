//! When what is measured begins and ends.

use std::time::{Duration, Instant};

use super::{Meter, Meters};

/// The measured time of a closed loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
}

impl Window {
    /// Begins after the warm-up.
    pub(crate) fn new(warmup: Duration, measured: Duration) -> Self {
        let begin = Instant::now() + warmup;
        Self { begin, end: begin + measured }
    }

    /// Whether what was sent at `sent` is measured.
    pub(crate) fn contains(self, sent: Instant) -> bool {
        self.begin <= sent && sent < self.end
    }

    /// Reads the meters at both ends, from a thread of its own: the runtime's are busy.
    pub(crate) fn metered(self, meters: Meters) -> std::thread::JoinHandle<Meter> {
        std::thread::spawn(move || {
            let (before, after) = self.read(|| meters.read());
            after.since(&before)
        })
    }

    /// Blocks until the end; gives what was read at the beginning and then.
    pub(crate) fn read<T>(self, read: impl Fn() -> T) -> (T, T) {
        std::thread::sleep(self.begin.saturating_duration_since(Instant::now()));
        let before = read();
        std::thread::sleep(self.end.saturating_duration_since(Instant::now()));
        (before, read())
    }
}
