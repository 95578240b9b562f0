//! Round-trip time estimation (RFC 9002 section 5).

use std::time::Duration;

/// Assumed before the first sample, so that the first probe timeout is 300 ms: it, plus four times half of it as variation.
const INITIAL: Duration = Duration::from_millis(100);

/// The round-trip time of a path.
#[derive(Clone, Debug)]
pub(crate) struct Rtt {
    latest: Duration,
    smoothed: Duration,
    variation: Duration,
    min: Option<Duration>,
    ack_delay_max: Duration,
}

impl Rtt {
    /// No sample yet. `ack_delay_max` is the longest delay of the peer's acknowledgements that is believed.
    pub(crate) fn new(ack_delay_max: Duration) -> Self {
        Self { latest: INITIAL, smoothed: INITIAL, variation: INITIAL / 2, min: None, ack_delay_max }
    }

    /// The peer has told how long it delays acknowledgements at most.
    pub(crate) fn set_ack_delay_max(&mut self, ack_delay_max: Duration) {
        self.ack_delay_max = ack_delay_max;
    }

    /// The longest delay of the peer's acknowledgements.
    pub(crate) fn ack_delay_max(&self) -> Duration {
        self.ack_delay_max
    }

    /// Takes a sample: the time between sending and acknowledgement, of which the peer says that it waited `ack_delay`.
    pub(crate) fn update(&mut self, sample: Duration, ack_delay: Duration) {
        self.latest = sample;
        let Some(min) = self.min else {
            self.min = Some(sample);
            self.smoothed = sample;
            self.variation = sample / 2;
            return;
        };
        let min = min.min(sample);
        self.min = Some(min);
        let delay = ack_delay.min(self.ack_delay_max);
        let adjusted = sample.checked_sub(delay).filter(|less| *less >= min).unwrap_or(sample);
        self.variation = (self.variation * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// The latest sample.
    pub(crate) fn latest(&self) -> Duration {
        self.latest
    }

    /// The smoothed round-trip time; an assumption before the first sample.
    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// The least sample of the connection, if there was one.
    pub(crate) fn min(&self) -> Option<Duration> {
        self.min
    }

    /// How long to wait for the acknowledgement of a packet, without the peer's delay (RFC 9002 section 6.2.1).
    pub(crate) fn probe_timeout(&self, granularity: Duration) -> Duration {
        self.smoothed + (self.variation * 4).max(granularity)
    }

    /// How long after a packet was sent it is lost once a later one is acknowledged (RFC 9002 section 6.1.2).
    pub(crate) fn loss_delay(&self, granularity: Duration) -> Duration {
        (self.smoothed.max(self.latest) * 9 / 8).max(granularity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANULARITY: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_probe_timeout_is_300_ms() {
        assert_eq!(Rtt::new(Duration::ZERO).probe_timeout(GRANULARITY), Duration::from_millis(300));
    }

    #[test]
    fn the_peers_delay_is_taken_off_up_to_its_limit_and_never_below_the_minimum() {
        let mut rtt = Rtt::new(Duration::from_millis(5));
        rtt.update(Duration::from_millis(50), Duration::ZERO);
        rtt.update(Duration::from_millis(66), Duration::from_millis(20));
        // 66 ms less 5 ms: the smoothed value moves an eighth of 11 ms.
        assert_eq!(rtt.smoothed(), Duration::from_micros(51_375));
        rtt.update(Duration::from_millis(52), Duration::from_millis(5));
        assert!(rtt.smoothed() > Duration::from_micros(51_375), "52 - 5 ms lies under the minimum, so 52 ms count");
        assert_eq!(rtt.min(), Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_steady_path_ends_with_its_own_round_trip_time() {
        let mut rtt = Rtt::new(Duration::ZERO);
        for _ in 0..100 {
            rtt.update(Duration::from_millis(20), Duration::ZERO);
        }
        assert_eq!(rtt.smoothed(), Duration::from_millis(20));
        assert!(rtt.probe_timeout(GRANULARITY) <= Duration::from_millis(22));
        assert_eq!(rtt.loss_delay(GRANULARITY), Duration::from_micros(22_500));
    }
}
