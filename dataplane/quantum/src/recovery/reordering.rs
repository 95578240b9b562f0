//! How far packets overtake each other on the path: what loss detection has to allow for (RFC 9002 section 6.1 lets its thresholds
//! adapt; compare the reordering window of RACK, RFC 8985 section 6.2).

use std::time::Duration;

use crate::Time;

/// A packet is lost once one is acknowledged that was sent so many numbers later (RFC 9002 section 6.1.1).
const PACKETS_MIN: u64 = 3;
/// However much packets overtake each other, so many are enough.
const PACKETS_MAX: u64 = 1024;
/// After so long without a late packet half of what was allowed for is.
const MEMORY: Duration = Duration::from_secs(10);

/// What late packets have shown.
#[derive(Debug)]
pub(super) struct Reordering {
    packets: u64,
    /// Beyond the time threshold of RFC 9002.
    extra: Duration,
    /// When this was shown, or last halved.
    at: Time,
}

impl Reordering {
    /// Packets keep their order until one comes late.
    pub(super) fn new(now: Time) -> Self {
        Self { packets: PACKETS_MIN, extra: Duration::ZERO, at: now }
    }

    /// Packets later than one that is not lost yet.
    pub(super) fn packets(&self) -> u64 {
        self.packets
    }

    /// How long a packet that was overtaken is waited for beyond the time threshold.
    pub(super) fn extra(&self) -> Duration {
        self.extra
    }

    /// A packet that was declared lost was acknowledged `packets` numbers and `time` later than those thresholds would have
    /// allowed for. No more than a round-trip time is waited for any.
    pub(super) fn on_late(&mut self, now: Time, (packets, time): (u64, Duration), rtt: Duration) {
        self.packets = self.packets.max(packets.saturating_add(1)).min(PACKETS_MAX);
        self.extra = self.extra.max(time).min(rtt);
        self.at = now;
    }

    /// Time passes: a path that keeps its order again is believed by and by.
    pub(super) fn age(&mut self, now: Time) {
        if now - self.at >= MEMORY {
            self.packets = (self.packets / 2).max(PACKETS_MIN);
            self.extra /= 2;
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_late_packets_show_is_allowed_for_within_bounds_and_believed_less_with_time() {
        let start = Time::ZERO + Duration::from_secs(1);
        let mut reordering = Reordering::new(start);
        let rtt = Duration::from_millis(50);
        reordering.on_late(start, (20, Duration::from_millis(8)), rtt);
        reordering.on_late(start, (10, Duration::from_millis(9)), rtt);
        assert_eq!((reordering.packets(), reordering.extra()), (21, Duration::from_millis(9)));
        reordering.on_late(start, (u64::MAX, Duration::from_secs(9)), rtt);
        assert_eq!((reordering.packets(), reordering.extra()), (PACKETS_MAX, rtt));
        reordering.age(start + MEMORY.mul_f64(0.99));
        assert_eq!(reordering.packets(), PACKETS_MAX);
        for halvings in 1..20_u32 {
            reordering.age(start + MEMORY * halvings);
        }
        assert_eq!(reordering.packets(), PACKETS_MIN);
        assert!(reordering.extra() < Duration::from_micros(1));
    }
}
