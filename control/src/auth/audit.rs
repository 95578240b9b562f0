//! What was denied, for those who look after the service: who, which method, and why. Never tokens, never content.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Lines in a second, and at once: whoever has no credentials may not fill the disk. The next line has how many were left out.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("it is not 0");
const LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(1000).expect("it is not 0");
/// Bytes of a method's name; those that exist are shorter.
const METHOD_BYTES_MAX: usize = 128;

/// Writes down that a call was denied. `caller` is empty if nobody knows who called.
pub(super) fn denied(caller: &str, method: &str, reason: &str) {
    static LIMIT: OnceLock<DefaultDirectRateLimiter> = OnceLock::new();
    static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
    let limit =
        LIMIT.get_or_init(|| RateLimiter::direct(Quota::per_second(LINES_PER_SECOND).allow_burst(LINES_AT_ONCE)));
    if limit.check().is_err() {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
    tracing::warn!(target: "audit", caller, method = shortened(method), reason, left_out, "denied");
}

/// A method's name as the log has it.
pub(super) fn shortened(method: &str) -> String {
    let end = (0..=METHOD_BYTES_MAX.min(method.len())).rev().find(|end| method.is_char_boundary(*end));
    method[..end.unwrap_or(0)].to_owned()
}
