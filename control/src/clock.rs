//! Wall-clock time of the services, and the hybrid logical clock that orders operations.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMicros(pub i64);

/// The time now.
pub fn now() -> UnixMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMicros(since.as_micros() as i64)
}

/// The form of a time on the wire.
pub fn timestamp(time: UnixMicros) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1_000_000),
        nanos: (time.0.rem_euclid(1_000_000) * 1000) as i32,
    }
}

/// A time from the wire; what it says below microseconds is dropped.
pub fn of_timestamp(time: prost_types::Timestamp) -> UnixMicros {
    UnixMicros(time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1000))
}

/// Hybrid logical time: 48 bits of Unix milliseconds, 16 bits of counter. It never goes back, whatever the clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HybridTime(pub u64);

impl HybridTime {
    /// The next time after `self` at wall-clock time `now`.
    #[must_use]
    pub fn next(self, now: UnixMicros) -> Self {
        let wall = ((now.0 / 1000) as u64) << 16;
        Self(wall.max(self.0 + 1))
    }

    /// Its wall-clock part.
    pub fn wall(self) -> UnixMicros {
        UnixMicros(((self.0 >> 16) * 1000) as i64)
    }
}
