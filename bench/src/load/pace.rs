//! Waiting until an instant, to some microseconds: latencies of 0.3 ms are compared, and tokio's timer counts in 1 ms.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The last stretch is spun: a wake-up from sleep is late by less than this on an idle core (measured: 10 to 60 us).
const SPIN: Duration = Duration::from_micros(60);

/// Sets the calling thread's timer slack to the least, 1 ns instead of 50 us.
pub(crate) fn prepare_thread() {
    // Best effort: without it the wake-ups are later, which the latencies show.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Blocks the thread until `deadline`.
pub(crate) fn sleep_until(deadline: Instant) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SPIN {
            std::thread::sleep(left.saturating_sub(SPIN));
        } else {
            std::hint::spin_loop();
        }
    }
}
