//! Delivery-rate sampling (draft-ietf-ccwg-bbr section 4.1, draft-cheng-iccrg-delivery-rate-estimation).

use std::time::Duration;

use crate::Time;

/// What a packet remembers of the connection at the time it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// Bytes delivered when it was sent.
    pub(crate) delivered: u64,
    /// When those had been delivered.
    pub(crate) delivered_time: Time,
    /// When the packet was sent whose delivery was the latest then: the start of the send interval.
    pub(crate) first_sent_time: Time,
    /// When it was sent itself.
    pub(crate) time_sent: Time,
    /// Bytes lost when it was sent.
    pub(crate) lost: u64,
    /// Bytes in flight, with this packet.
    pub(crate) in_flight: u64,
    /// The sender had nothing to send that the network would have taken.
    pub(crate) is_app_limited: bool,
}

/// The delivery rate that one acknowledgement shows, and what came with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateSample {
    /// Bytes per second; none if the interval is too short to tell.
    pub(crate) delivery_rate: Option<u64>,
    /// The rate may be the application's, not the path's.
    pub(crate) is_app_limited: bool,
    /// Bytes delivered over the interval.
    pub(crate) delivered: u64,
    /// Bytes that had been delivered when the newest acknowledged packet was sent.
    pub(crate) prior_delivered: u64,
    /// Bytes in flight when it was sent.
    pub(crate) in_flight_at_send: u64,
    /// Bytes lost between its sending and this acknowledgement.
    pub(crate) lost: u64,
    /// Bytes that this acknowledgement reported for the first time.
    pub(crate) newly_acked: u64,
    /// Bytes that this acknowledgement revealed as lost.
    pub(crate) newly_lost: u64,
    /// The round-trip time sample, if it gave one.
    pub(crate) rtt: Option<Duration>,
}

/// Counts what a connection delivered, and makes a sample of every acknowledgement.
#[derive(Debug)]
pub(crate) struct RateSampler {
    delivered: u64,
    delivered_time: Time,
    first_sent_time: Time,
    lost: u64,
    /// `delivered` up to which samples are the application's.
    app_limited_until: u64,
    /// The newest packet of the acknowledgement that is being processed.
    newest: Option<Stamp>,
    newly_acked: u64,
    newly_lost: u64,
}

impl RateSampler {
    /// Nothing sent.
    pub(crate) fn new(now: Time) -> Self {
        Self {
            delivered: 0,
            delivered_time: now,
            first_sent_time: now,
            lost: 0,
            app_limited_until: 0,
            newest: None,
            newly_acked: 0,
            newly_lost: 0,
        }
    }

    /// A packet of `size` bytes leaves while `in_flight` bytes are on their way.
    pub(crate) fn on_sent(&mut self, now: Time, size: u16, in_flight: u64) -> Stamp {
        if in_flight == 0 {
            self.first_sent_time = now;
            self.delivered_time = now;
        }
        Stamp {
            delivered: self.delivered,
            delivered_time: self.delivered_time,
            first_sent_time: self.first_sent_time,
            time_sent: now,
            lost: self.lost,
            in_flight: in_flight + u64::from(size),
            is_app_limited: self.is_app_limited(),
        }
    }

    /// A packet is acknowledged.
    pub(crate) fn on_acked(&mut self, now: Time, size: u16, stamp: &Stamp) {
        self.delivered += u64::from(size);
        self.delivered_time = now;
        self.newly_acked += u64::from(size);
        let newer = |newest: &Stamp| (stamp.delivered, stamp.time_sent) >= (newest.delivered, newest.time_sent);
        if self.newest.as_ref().is_none_or(newer) {
            self.newest = Some(*stamp);
            self.first_sent_time = stamp.time_sent;
        }
    }

    /// A packet is lost.
    pub(crate) fn on_lost(&mut self, size: u16) {
        self.lost += u64::from(size);
        self.newly_lost += u64::from(size);
    }

    /// A packet that was taken for lost has arrived after all.
    pub(crate) fn on_spurious_loss(&mut self, now: Time, size: u16) {
        self.lost = self.lost.saturating_sub(u64::from(size));
        self.delivered += u64::from(size);
        self.delivered_time = now;
    }

    /// Ends an acknowledgement: the sample of everything since the last one; none if nothing was acknowledged. Intervals
    /// shorter than the path's least round-trip time come from compressed acknowledgements and give no rate.
    pub(crate) fn sample(&mut self, rtt_min: Duration, rtt: Option<Duration>) -> Option<RateSample> {
        if self.app_limited_until != 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let (newly_acked, newly_lost) = (std::mem::take(&mut self.newly_acked), std::mem::take(&mut self.newly_lost));
        let newest = self.newest.take()?;
        let send_elapsed = newest.time_sent - newest.first_sent_time;
        let ack_elapsed = self.delivered_time - newest.delivered_time;
        let interval = send_elapsed.max(ack_elapsed);
        let delivered = self.delivered - newest.delivered;
        let delivery_rate = (interval >= rtt_min && !interval.is_zero())
            .then(|| (u128::from(delivered) * 1_000_000_000 / interval.as_nanos()) as u64);
        Some(RateSample {
            delivery_rate,
            is_app_limited: newest.is_app_limited,
            delivered,
            prior_delivered: newest.delivered,
            in_flight_at_send: newest.in_flight,
            lost: self.lost.saturating_sub(newest.lost),
            newly_acked,
            newly_lost,
            rtt,
        })
    }

    /// The caller had nothing to send though the network would have taken it: what is in flight shows the application's rate.
    pub(crate) fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    /// Whether what is sent at this time shows the application's rate.
    pub(crate) fn is_app_limited(&self) -> bool {
        self.app_limited_until != 0
    }

    /// Bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    const RTT: Duration = Duration::from_millis(50);

    #[test]
    fn a_steady_stream_shows_its_rate() {
        let mut sampler = RateSampler::new(at(0));
        // A packet each millisecond, acknowledged 50 ms later: 1,000 B/ms.
        let mut stamps = Vec::new();
        let mut last = None;
        for millis in 0..200 {
            let in_flight = 1000 * millis.min(50);
            stamps.push(sampler.on_sent(at(millis), 1000, in_flight));
            if millis >= 50 {
                sampler.on_acked(at(millis), 1000, &stamps[millis as usize - 50]);
                last = sampler.sample(RTT, Some(RTT));
            }
        }
        let sample = last.expect("packets were acknowledged");
        assert_eq!(sample.delivery_rate, Some(1_000_000));
        assert_eq!(
            (sample.delivered, sample.newly_acked, sample.is_app_limited),
            (51_000, 1000, false),
            "a packet leaves before the acknowledgement of the same ms"
        );
    }

    #[test]
    fn an_interval_shorter_than_the_round_trip_gives_no_rate() {
        let mut sampler = RateSampler::new(at(0));
        let stamp = sampler.on_sent(at(0), 1000, 0);
        sampler.on_acked(at(49), 1000, &stamp);
        assert_eq!(sampler.sample(RTT, None).expect("a packet was acknowledged").delivery_rate, None);
        assert!(sampler.sample(RTT, None).is_none(), "nothing since");
    }

    #[test]
    fn samples_are_the_applications_until_what_was_in_flight_is_delivered() {
        let mut sampler = RateSampler::new(at(0));
        let first = sampler.on_sent(at(0), 1000, 0);
        sampler.on_app_limited(1000);
        let second = sampler.on_sent(at(10), 1000, 1000);
        assert!(!first.is_app_limited && second.is_app_limited);
        sampler.on_acked(at(50), 1000, &first);
        sampler.sample(RTT, None);
        assert!(sampler.is_app_limited());
        sampler.on_acked(at(60), 1000, &second);
        assert!(sampler.sample(RTT, None).expect("a packet was acknowledged").is_app_limited);
        assert!(!sampler.is_app_limited());
    }

    #[test]
    fn losses_count_from_the_sending_of_the_newest_acknowledged_packet() {
        let mut sampler = RateSampler::new(at(0));
        sampler.on_lost(500);
        let stamp = sampler.on_sent(at(1), 1000, 0);
        sampler.on_lost(700);
        sampler.on_acked(at(60), 1000, &stamp);
        let sample = sampler.sample(RTT, None).expect("a packet was acknowledged");
        assert_eq!((sample.lost, sample.newly_lost), (700, 1200));
        sampler.on_spurious_loss(at(61), 700);
        assert_eq!((sampler.lost(), sampler.delivered()), (500, 1700));
    }
}
