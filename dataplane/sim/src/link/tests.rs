use std::time::Duration;

use proptest::prelude::*;
use quantum::Time;

use super::{Blackout, Burst, Datagram, EcnEffects, Link, LinkConfig, LinkStats, Meta, RandomOutage};

const MS: u64 = 1_000_000;

fn at_ms(ms: u64) -> Time {
    Time::from_nanos(ms * MS)
}

/// Sends `count` numbered datagrams of `len` bytes, `gap` apart, and gives when each arrived, in the order of arrival.
fn run(config: &LinkConfig, seed: u64, count: u64, len: usize, gap: Duration) -> (Vec<(Time, u64)>, Link<u64>) {
    let mut link = Link::new(config, seed).expect("the test's settings make sense");
    let mut arrived = Vec::new();
    let mut now = Time::ZERO;
    for number in 0..count {
        let send_at = Time::ZERO + gap * u32::try_from(number).expect("few datagrams");
        drain(&mut link, &mut now, Some(send_at), &mut arrived);
        now = send_at;
        link.process(now, Datagram { payload: vec![0; len], meta: number });
    }
    drain(&mut link, &mut now, None, &mut arrived);
    assert_eq!(link.in_flight(), 0, "everything arrived or was dropped");
    (arrived, link)
}

fn drain(link: &mut Link<u64>, now: &mut Time, until: Option<Time>, arrived: &mut Vec<(Time, u64)>) {
    while let Some(due) = link.next_time().filter(|due| until.is_none_or(|until| *due <= until)) {
        *now = due;
        while let Some(datagram) = link.poll(due) {
            arrived.push((due, datagram.meta));
        }
    }
}

#[test]
fn a_link_without_effects_delivers_at_once() {
    let (arrived, link) = run(&LinkConfig::default(), 1, 10, 100, Duration::from_millis(1));
    assert_eq!(arrived, (0..10).map(|number| (at_ms(number), number)).collect::<Vec<_>>());
    assert_eq!((link.stats().bytes_sent, link.stats().bytes_delivered), (1000, 1000));
}

#[test]
fn a_delay_is_exact_to_the_nanosecond() {
    let config = LinkConfig { delay: Duration::from_nanos(25_000_001), ..LinkConfig::default() };
    let (arrived, _) = run(&config, 1, 5, 100, Duration::from_millis(10));
    for (time, number) in arrived {
        assert_eq!(time, at_ms(10 * number) + config.delay);
    }
}

#[test]
fn jitter_stays_within_its_bounds_and_uses_them() {
    let config =
        LinkConfig { delay: Duration::from_millis(20), jitter: Duration::from_millis(5), ..LinkConfig::default() };
    let (arrived, link) = run(&config, 1, 2_000, 100, Duration::from_millis(1));
    let delays: Vec<u64> = arrived.iter().map(|(time, number)| (*time - at_ms(*number)).as_nanos() as u64).collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!((15 * MS..16 * MS).contains(least) && (24 * MS..=25 * MS).contains(most), "{least} to {most} ns");
    assert!(link.stats().reordered > 0, "datagrams 1 ms apart overtake each other under 5 ms of jitter");
}

#[test]
fn loss_is_binomial() {
    let config = LinkConfig { loss_percent: 5.0, ..LinkConfig::default() };
    let (arrived, link) = run(&config, 3, 100_000, 10, Duration::from_micros(1));
    // Five standard deviations.
    assert!((4_655..=5_345).contains(&link.stats().dropped_loss), "{:?}", link.stats());
    assert_eq!(arrived.len() as u64 + link.stats().dropped_loss, 100_000);
}

#[test]
fn the_burst_chain_loses_its_stationary_share_in_runs_of_its_mean_length() {
    // Bad for 1 / (1 + 25) of the packets in runs of 4 on average, everything lost while bad.
    let burst = Burst { good_to_bad_percent: 1.0, bad_to_good_percent: 25.0, loss_percent: 100.0 };
    let config = LinkConfig { burst: Some(burst), ..LinkConfig::default() };
    let (arrived, link) = run(&config, 4, 200_000, 10, Duration::from_micros(1));
    let share = link.stats().dropped_burst as f64 / 200_000.0;
    assert!((share - 1.0 / 26.0).abs() < 0.004, "{share}");
    let runs = arrived.windows(2).filter(|pair| pair[1].1 != pair[0].1 + 1).count();
    let mean = link.stats().dropped_burst as f64 / runs as f64;
    assert!((3.7..4.3).contains(&mean), "mean run of {mean}");
}

#[test]
fn an_outage_loses_the_share_of_time_that_it_lasts() {
    let outage = RandomOutage { good: Duration::from_millis(90), bad: Duration::from_millis(10) };
    let config = LinkConfig { outage: Some(outage), ..LinkConfig::default() };
    let (_, link) = run(&config, 5, 1_000_000, 1, Duration::from_micros(100));
    let share = link.stats().dropped_burst as f64 / 1_000_000.0;
    assert!((share - 0.1).abs() < 0.02, "{share}");
}

#[test]
fn a_bottleneck_spaces_datagrams_by_their_size() {
    // 1250 bytes at 10 Mbit/s take 1 ms.
    let config = LinkConfig { rate_bits_per_s: Some(10_000_000), ..LinkConfig::default() };
    let (arrived, _) = run(&config, 1, 20, 1250, Duration::ZERO);
    assert_eq!(arrived, (0..20).map(|number| (at_ms(number + 1), number)).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_drops_the_tail_and_holds_no_more_than_its_bytes() {
    let config = LinkConfig { rate_bits_per_s: Some(10_000_000), queue_bytes: Some(5_000), ..LinkConfig::default() };
    let (arrived, link) = run(&config, 1, 20, 1250, Duration::ZERO);
    assert_eq!(arrived.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((link.stats().dropped_queue, link.stats().queue.bytes_peak), (16, 5_000));
}

#[test]
fn the_bytes_in_the_queue_are_summed_over_time() {
    // 1250 bytes at 10 Mbit/s take 1 ms: two datagrams wait for 1 ms, one for another, then none.
    let config = LinkConfig { rate_bits_per_s: Some(10_000_000), ..LinkConfig::default() };
    let mut link = Link::new(&config, 1).unwrap();
    for ms in [0, 0, 5] {
        link.process(at_ms(ms), Datagram { payload: vec![0; 1250], meta: () });
    }
    assert_eq!(link.stats().queue.byte_ns, (2500 + 1250) * 1_000_000);
}

#[test]
fn a_datagram_larger_than_the_queue_still_passes_an_idle_link() {
    let config = LinkConfig { rate_bits_per_s: Some(10_000_000), queue_bytes: Some(1), ..LinkConfig::default() };
    let (arrived, _) = run(&config, 1, 5, 1250, Duration::from_millis(2));
    assert_eq!(arrived.len(), 5);
}

#[test]
fn the_queue_without_a_setting_holds_one_round_trip() {
    let config =
        LinkConfig { rate_bits_per_s: Some(100_000_000), delay: Duration::from_millis(25), ..LinkConfig::default() };
    assert_eq!(config.queue_bytes_max(), 625_000);
}

#[test]
fn a_bottleneck_adds_to_the_delay_and_not_to_the_lateness_of_the_poll() {
    let config =
        LinkConfig { rate_bits_per_s: Some(10_000_000), delay: Duration::from_millis(10), ..LinkConfig::default() };
    let mut link = Link::new(&config, 1).unwrap();
    link.process(Time::ZERO, Datagram { payload: vec![0; 1250], meta: () });
    assert_eq!(link.next_time(), Some(at_ms(1)), "its last bit leaves the bottleneck");
    assert_eq!(link.poll(at_ms(5)), None);
    assert_eq!(link.next_time(), Some(at_ms(11)), "polling at 5 ms does not make it later");
    assert!(link.poll(at_ms(11)).is_some());
}

#[test]
fn held_back_datagrams_are_overtaken_and_none_is_lost() {
    let config = LinkConfig { reorder_percent: 10.0, ..LinkConfig::default() };
    let (mut arrived, link) = run(&config, 6, 10_000, 10, Duration::from_micros(100));
    assert!((900..=1_100).contains(&link.stats().reordered), "{:?}", link.stats());
    arrived.sort_by_key(|(_, number)| *number);
    assert!(arrived.iter().map(|(_, number)| *number).eq(0..10_000));
}

#[test]
fn a_held_back_datagram_that_nothing_passes_goes_on_in_5_ms() {
    let config = LinkConfig { reorder_percent: 100.0, ..LinkConfig::default() };
    let (arrived, _) = run(&config, 6, 3, 10, Duration::from_millis(50));
    assert_eq!(arrived, [(at_ms(5), 0), (at_ms(55), 1), (at_ms(105), 2)]);
}

#[test]
fn duplicates_arrive_twice_and_are_counted() {
    let config = LinkConfig { duplicate_percent: 20.0, ..LinkConfig::default() };
    let (arrived, link) = run(&config, 7, 10_000, 10, Duration::from_micros(1));
    assert!((1_800..=2_200).contains(&link.stats().duplicated), "{:?}", link.stats());
    assert_eq!(arrived.len() as u64, 10_000 + link.stats().duplicated);
    assert_eq!(link.stats().reordered, 0);
}

#[test]
fn corruption_flips_exactly_one_bit() {
    let config = LinkConfig { corrupt_percent: 50.0, ..LinkConfig::default() };
    let mut link = Link::new(&config, 8).unwrap();
    let mut corrupted = 0;
    for _ in 0..1_000 {
        link.process(Time::ZERO, Datagram { payload: vec![0; 64], meta: () });
        let payload = link.poll(Time::ZERO).unwrap().payload;
        let flipped: u32 = payload.iter().map(|byte| byte.count_ones()).sum();
        assert!(flipped <= 1);
        corrupted += u64::from(flipped);
    }
    assert_eq!(corrupted, link.stats().corrupted);
    assert!((400..=600).contains(&corrupted));
}

#[test]
fn nothing_passes_in_a_blackout_and_everything_after_it() {
    let config =
        LinkConfig { blackouts: vec![Blackout { from: at_ms(10), until: at_ms(20) }], ..LinkConfig::default() };
    let (arrived, link) = run(&config, 1, 30, 10, Duration::from_millis(1));
    assert_eq!(
        arrived.iter().map(|(_, number)| *number).collect::<Vec<_>>(),
        (0..10).chain(20..30).collect::<Vec<_>>()
    );
    assert_eq!(link.stats().dropped_blackout, 10);
}

#[test]
fn datagrams_over_the_mtu_are_dropped() {
    let config = LinkConfig { mtu: Some(1400), ..LinkConfig::default() };
    assert_eq!(run(&config, 1, 3, 1400, Duration::ZERO).0.len(), 3);
    assert_eq!(run(&config, 1, 3, 1401, Duration::ZERO).1.stats().dropped_mtu, 3);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let bad = [
        LinkConfig { loss_percent: 101.0, ..LinkConfig::default() },
        LinkConfig { corrupt_percent: -1.0, ..LinkConfig::default() },
        LinkConfig { reorder_percent: f64::NAN, ..LinkConfig::default() },
        LinkConfig { rate_bits_per_s: Some(0), ..LinkConfig::default() },
        LinkConfig {
            outage: Some(RandomOutage { good: Duration::ZERO, bad: Duration::from_millis(1) }),
            ..LinkConfig::default()
        },
    ];
    for config in bad {
        assert!(Link::<()>::new(&config, 1).is_err(), "{config:?}");
    }
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_arrivals(seed: u64, loss in 0.0..20.0, reorder in 0.0..20.0, copies in 0.0..20.0) {
        let config = LinkConfig {
            delay: Duration::from_millis(3),
            jitter: Duration::from_millis(2),
            loss_percent: loss,
            reorder_percent: reorder,
            duplicate_percent: copies,
            rate_bits_per_s: Some(50_000_000),
            ..LinkConfig::default()
        };
        let (first, first_link) = run(&config, seed, 300, 500, Duration::from_micros(90));
        let (second, second_link) = run(&config, seed, 300, 500, Duration::from_micros(90));
        prop_assert_eq!(first, second);
        prop_assert_eq!(first_link.stats(), second_link.stats());
    }
}

/// A datagram's ECN bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits(u8);

impl Meta for Bits {
    fn ecn(&self) -> u8 {
        self.0
    }

    fn set_ecn(&mut self, ecn: u8) {
        self.0 = ecn;
    }
}

/// What becomes of ten datagrams of 1,000 bytes with these bits, sent at once over 10 Mbit/s.
fn bits_after(ecn: EcnEffects, bits: u8) -> (Vec<u8>, LinkStats) {
    let config = LinkConfig { rate_bits_per_s: Some(10_000_000), ecn, ..LinkConfig::default() };
    let mut link = Link::new(&config, 1).expect("the test's settings make sense");
    for _ in 0..10 {
        link.process(Time::ZERO, Datagram { payload: vec![0; 1_000], meta: Bits(bits) });
    }
    let end = Time::ZERO + Duration::from_secs(1);
    let found = std::iter::from_fn(|| link.poll(end)).map(|datagram| datagram.meta.0).collect();
    (found, link.stats().clone())
}

#[test]
fn a_queue_marks_what_would_wait_behind_more_than_its_threshold() {
    let marking = EcnEffects { mark_above_bytes: Some(4_000), ..EcnEffects::default() };
    let (found, stats) = bits_after(marking, 0b10);
    assert_eq!(found, [vec![0b10; 4], vec![0b11; 6]].concat());
    assert_eq!(stats.queue.marked, 6);
    // Who does not understand marks is not marked.
    assert_eq!(bits_after(marking, 0).0, [0; 10]);
}

#[test]
fn paths_that_clear_or_drop_marks_do_so() {
    let clears = EcnEffects { clears: true, ..EcnEffects::default() };
    assert_eq!(bits_after(clears, 0b10).0, [0; 10]);
    let drops = EcnEffects { drops: true, ..EcnEffects::default() };
    let (found, stats) = bits_after(drops, 0b10);
    assert!(found.is_empty() && stats.dropped_ecn == 10 && stats.dropped() == 10);
    assert_eq!(bits_after(drops, 0).0.len(), 10);
}
