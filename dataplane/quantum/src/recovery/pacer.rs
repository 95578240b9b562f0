//! Spreads packets over time: a token bucket that is filled at the congestion controller's rate.

use std::time::Duration;

use crate::Time;

/// A burst is as much as the rate gives in this time: few enough packets to leave short queues alone, enough to make one
/// segmented send worth it.
const BURST: Duration = Duration::from_micros(150);
/// What a late wake-up may catch up with: more than the timer of a parked thread is late by.
const CATCH_UP: Duration = Duration::from_millis(1);
/// A burst is no smaller than two packets.
const BURST_PACKETS_MIN: u64 = 2;

/// The bucket. Tokens are bytes; they are owed (negative) after packets that did not ask.
#[derive(Debug)]
pub(crate) struct Pacer {
    tokens: f64,
    filled_at: Time,
    datagram: u64,
    /// Bytes of the largest burst.
    burst_max: u64,
    /// What an application-limited sender may send at once.
    idle_burst: u64,
}

/// How fast to fill the bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes per second.
    pub(crate) rate: u64,
    /// The sender is limited by the application.
    pub(crate) is_app_limited: bool,
}

impl Pacer {
    /// A full bucket. `segments_max` packets of `datagram` bytes are the largest burst, `idle_burst` bytes what an
    /// application-limited sender may send at once.
    pub(crate) fn new(now: Time, datagram: u16, segments_max: usize, idle_burst: u64) -> Self {
        let datagram = u64::from(datagram);
        Self {
            tokens: idle_burst as f64,
            filled_at: now,
            datagram,
            burst_max: datagram * (segments_max as u64).max(1),
            idle_burst,
        }
    }

    /// Packets have so many bytes from here on.
    pub(crate) fn set_datagram_size(&mut self, datagram: u16, segments_max: usize) {
        self.datagram = u64::from(datagram);
        self.burst_max = self.datagram * (segments_max as u64).max(1);
    }

    /// How many bytes may leave at this time, or when some may.
    pub(crate) fn allowance(&mut self, now: Time, pace: Pace) -> Result<u64, Time> {
        self.fill(now, pace);
        let burst = self.burst(pace);
        if self.tokens >= self.datagram as f64 {
            let bytes = if pace.is_app_limited { self.burst_max } else { burst };
            return Ok(bytes.min(self.tokens as u64));
        }
        let missing = burst as f64 - self.tokens;
        Err(now + Duration::from_secs_f64((missing / pace.rate.max(1) as f64).clamp(1e-9, 1.0)))
    }

    /// A packet left.
    pub(crate) fn on_sent(&mut self, size: u16) {
        // A debt of more than a burst would punish later packets for probes and forced retransmissions.
        self.tokens = (self.tokens - f64::from(size)).max(-(self.burst_max as f64));
    }

    fn fill(&mut self, now: Time, pace: Pace) {
        let gained = now.saturating_since(self.filled_at).as_secs_f64() * pace.rate as f64;
        self.filled_at = self.filled_at.max(now);
        let catch_up = (CATCH_UP.as_secs_f64() * pace.rate as f64) as u64;
        let capacity = self.burst(pace).max(catch_up).max(if pace.is_app_limited { self.idle_burst } else { 0 });
        self.tokens = (self.tokens + gained).min(capacity as f64);
    }

    fn burst(&self, pace: Pace) -> u64 {
        let bytes = (BURST.as_secs_f64() * pace.rate as f64) as u64;
        bytes.min(self.burst_max).max(self.datagram * BURST_PACKETS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: Pace = Pace { rate: 12_500_000, is_app_limited: false };

    fn micros(micros: u64) -> Time {
        Time::from_nanos(micros * 1000)
    }

    #[test]
    fn over_time_the_rate_is_kept_and_bursts_are_short() {
        let mut pacer = Pacer::new(micros(0), 1250, 16, 12_500);
        let (mut now, mut sent) = (micros(0), 0);
        while now < micros(100_000) {
            match pacer.allowance(now, STEADY) {
                Ok(bytes) => {
                    assert!(bytes <= 2500);
                    pacer.on_sent(1250);
                    sent += 1250;
                }
                Err(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        // 100 ms at 12.5 MB/s, and the full bucket at the start.
        assert!((1_250_000..=1_270_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_late_wake_up_is_caught_up_with() {
        let mut pacer = Pacer::new(micros(0), 1250, 16, 0);
        let mut sent = 0;
        for wake in 0..100 {
            while let Ok(bytes) = pacer.allowance(micros(wake * 1000), STEADY) {
                assert!(bytes >= 1250);
                pacer.on_sent(1250);
                sent += 1250;
            }
        }
        assert!(sent >= 1_200_000, "{sent}: a timer of 1 ms costs no rate");
    }

    #[test]
    fn an_application_limited_sender_may_send_its_message_at_once() {
        let pace = Pace { rate: 500_000, is_app_limited: true };
        let mut pacer = Pacer::new(micros(0), 1250, 16, 12_500);
        for round in 0..10 {
            for _ in 0..10 {
                assert!(pacer.allowance(micros(round * 30_000), pace).is_ok(), "{round}");
                pacer.on_sent(1250);
            }
        }
    }
}
