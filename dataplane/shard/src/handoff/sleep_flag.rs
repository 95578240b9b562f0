//! Whether the other side sleeps, so that it is rung only then.
//!
//! Who sleeps: [`prepare`](SleepFlag::prepare), look for work once more, sleep. Who has work: make it visible, then
//! [`take`](SleepFlag::take), and ring if it says so. Either the sleeper's second look finds the work, or `take` finds the
//! flag: the two fences order each side's write before its read (Dekker's mutual exclusion; without one of them both reads
//! may miss both writes). `tests/doorbell_loom.rs` checks it under every interleaving.

use super::sync::{AtomicBool, Ordering, fence};

/// Set while its owner sleeps or is about to.
#[derive(Debug)]
pub(crate) struct SleepFlag(AtomicBool);

impl SleepFlag {
    /// Awake.
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The owner is about to sleep, and has to look for work once more after this.
    pub(crate) fn prepare(&self) {
        self.0.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake.
    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Whether the owner has to be rung. Work has to be visible before this is called. True once per sleep.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Acquire) && self.0.swap(false, Ordering::AcqRel)
    }
}
