use std::time::Duration;

use super::super::{CongestionConfig, PathView};
use super::*;

const RTT: Duration = Duration::from_millis(50);
const PACKET: u64 = 1_000;

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

/// A controller, and a path that delivers at once a round trip after.
struct Rig {
    cubic: Cubic,
    millis: u64,
    delivered: u64,
}

impl Rig {
    fn new() -> Self {
        let config = CongestionConfig { datagram_size: PACKET as u16, initial_window: 10 * PACKET, seed: 1 };
        Self { cubic: Cubic::new(&config), millis: 1_000, delivered: 0 }
    }

    fn path(&self, ce: bool) -> PathView {
        PathView {
            in_flight: self.cubic.window(),
            delivered: self.delivered,
            lost: 0,
            rtt_smoothed: RTT,
            is_window_limited: true,
            is_app_limited: false,
            ce,
        }
    }

    /// A window's worth of acknowledgements over a round trip.
    fn round(&mut self, rtt: Duration) {
        let window = self.cubic.window();
        let start = self.delivered;
        for nth in 1..=50 {
            self.millis += 1;
            let acked = window * nth / 50 - window * (nth - 1) / 50;
            self.delivered += acked;
            let sample = self.sample(start, acked, rtt);
            self.cubic.on_ack(at(self.millis), &sample, &self.path(false));
        }
    }

    fn sample(&self, prior_delivered: u64, newly_acked: u64, rtt: Duration) -> RateSample {
        RateSample {
            delivery_rate: None,
            is_app_limited: false,
            delivered: newly_acked,
            prior_delivered,
            in_flight_at_send: self.cubic.window(),
            lost: 0,
            newly_acked,
            newly_lost: 0,
            rtt: Some(rtt),
        }
    }

    fn lose(&mut self, sent_ms: u64) {
        let stamp = Stamp {
            delivered: 0,
            delivered_time: at(0),
            first_sent_time: at(0),
            time_sent: at(sent_ms),
            lost: 0,
            in_flight: self.cubic.window(),
            is_app_limited: false,
        };
        self.cubic.on_lost(at(self.millis), &stamp);
    }

    fn state(&self) -> &'static str {
        let mut stats = CongestionStats::default();
        self.cubic.stats(&mut stats);
        stats.state
    }
}

#[test]
fn slow_start_doubles_the_window_each_round() {
    let mut rig = Rig::new();
    for round in 1..=6 {
        rig.round(RTT);
        assert_eq!(rig.cubic.window(), (10 * PACKET) << round);
    }
    assert_eq!(rig.state(), "slow_start");
}

#[test]
fn a_growing_round_trip_time_ends_slow_start_before_a_loss() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.round(RTT);
    }
    let before = rig.cubic.window();
    rig.round(RTT + Duration::from_millis(8));
    assert_eq!(rig.state(), "conservative_slow_start");
    for _ in 0..6 {
        rig.round(RTT + Duration::from_millis(8));
    }
    assert_eq!(rig.state(), "congestion_avoidance");
    assert!(rig.cubic.window() < before * 8, "a quarter of the growth for five rounds");
}

#[test]
fn jitter_does_not_end_slow_start() {
    let mut rig = Rig::new();
    rig.round(RTT);
    rig.round(RTT + Duration::from_millis(8));
    assert_eq!(rig.state(), "conservative_slow_start");
    rig.round(RTT);
    assert_eq!(rig.state(), "slow_start");
}

#[test]
fn a_flight_with_losses_leaves_seven_tenths_of_the_window_once() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.round(RTT);
    }
    let sent = rig.millis - 40;
    for nth in 0..10 {
        rig.lose(sent + nth);
    }
    assert_eq!(rig.cubic.window(), 160 * PACKET * 7 / 10);
    rig.round(RTT);
    let grown = rig.cubic.window();
    rig.lose(rig.millis - 10);
    assert_eq!(rig.cubic.window(), (grown as f64 * 0.7) as u64, "a flight later it is another congestion");
}

/// RFC 9438 section 4.2: `W(t) = 0.4 (t - K)^3 + W_max` packets, `K` the cubic root of what was given up, over 0.4.
#[test]
fn the_window_follows_the_curve() {
    let mut rig = Rig::new();
    for _ in 0..7 {
        rig.round(RTT);
    }
    let max = rig.cubic.window();
    rig.lose(rig.millis);
    rig.round(RTT);
    let start = rig.millis;
    let flat_at = (0.3 * (max / PACKET) as f64 / 0.4).cbrt();
    for round in 0..400 {
        rig.round(RTT);
        let time = (rig.millis - start) as f64 / 1e3;
        let expected = 0.4 * (time - flat_at).powi(3) + (max / PACKET) as f64;
        let window = rig.cubic.window() as f64 / PACKET as f64;
        assert!((window / expected - 1.0).abs() < 0.03, "{round}: {window} packets, the curve has {expected}");
    }
    assert!(rig.cubic.window() > max * 5 / 4, "it goes beyond the old window");
}

/// RFC 9438 section 4.3: where the curve is flatter than that, the window grows as Reno's would, 0.53 packets a round.
#[test]
fn a_small_window_grows_as_renos_does() {
    let mut rig = Rig::new();
    rig.round(RTT);
    rig.lose(rig.millis);
    rig.round(RTT);
    assert_eq!(rig.cubic.window(), 14 * PACKET);
    for _ in 0..10 {
        rig.round(RTT);
    }
    let packets = rig.cubic.window() as f64 / PACKET as f64;
    assert!((packets - 14.0 - 10.0 * 0.529).abs() < 0.5, "{packets}");
}

#[test]
fn a_flow_that_did_not_get_back_leaves_more_room() {
    let mut rig = Rig::new();
    for _ in 0..7 {
        rig.round(RTT);
    }
    rig.lose(rig.millis);
    rig.round(RTT);
    rig.round(RTT);
    let second = rig.cubic.window();
    rig.lose(rig.millis);
    rig.round(RTT);
    // The curve is flat at 0.85 of the second window, and reaches it after the cubic root of what is between.
    let flat_at = (0.15 * second as f64 / PACKET as f64 / 0.4).cbrt();
    for _ in 0..(flat_at / 0.05) as u32 {
        rig.round(RTT);
    }
    let share = rig.cubic.window() as f64 / second as f64;
    assert!((0.83..0.87).contains(&share), "{share}");
}

#[test]
fn losses_that_were_none_are_undone() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.round(RTT);
    }
    rig.lose(rig.millis);
    rig.cubic.on_losses_undone();
    assert_eq!((rig.cubic.window(), rig.state()), (160 * PACKET, "slow_start"));
    rig.round(RTT);
    assert_eq!(rig.cubic.window(), 320 * PACKET);
}

#[test]
fn persistent_congestion_leaves_two_packets_and_slow_start_leads_back() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.round(RTT);
    }
    rig.cubic.on_persistent_congestion(at(rig.millis));
    assert_eq!((rig.cubic.window(), rig.state()), (2 * PACKET, "slow_start"));
    for _ in 0..8 {
        rig.round(RTT);
    }
    assert_eq!(rig.state(), "congestion_avoidance");
    assert!(rig.cubic.window() >= 160 * PACKET * 7 / 10, "{}", rig.cubic.window());
}

#[test]
fn a_mark_counts_as_a_loss_once_a_round() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.round(RTT);
    }
    for _ in 0..5 {
        rig.millis += 1;
        let sample = rig.sample(rig.delivered, 0, RTT);
        rig.cubic.on_ack(at(rig.millis), &sample, &rig.path(true));
    }
    assert_eq!(rig.cubic.window(), 160 * PACKET * 7 / 10);
}

#[test]
fn what_the_application_leaves_unused_does_not_grow_the_window() {
    let mut rig = Rig::new();
    let before = rig.cubic.window();
    for _ in 0..100 {
        rig.millis += 10;
        rig.delivered += 100;
        let sample = RateSample { is_app_limited: true, ..rig.sample(rig.delivered - 100, 100, RTT) };
        rig.cubic.on_ack(at(rig.millis), &sample, &PathView { is_app_limited: true, ..rig.path(false) });
    }
    assert_eq!(rig.cubic.window(), before);
}
