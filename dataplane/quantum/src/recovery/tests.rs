mod path;

use smallvec::smallvec;

use super::*;
use crate::{ConnectionStats, StreamId};
use path::{Application, PACKET, Path, PathOptions};

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn recovery(side: Side) -> Recovery {
    Recovery::new(at(0), &RecoveryConfig::new(side, PACKET, 16, 1))
}

fn packet(number: u64) -> Outgoing {
    let frames = smallvec![SentFrame::Stream { id: StreamId(0), offset: number, len: 1, fin: false }];
    Outgoing {
        number,
        epoch: Epoch::OneRtt0,
        size: 1000,
        ack_eliciting: true,
        repair_only: false,
        marked: false,
        in_flight: true,
        frames,
    }
}

fn ack(recovery: &mut Recovery, now: Time, ranges: &[(u64, u64)]) -> AckOutcome {
    let mut outcome = AckOutcome::default();
    recovery.on_ack(now, (Epoch::OneRtt0, ranges), (Duration::ZERO, false), &mut outcome);
    outcome
}

fn stats(recovery: &Recovery) -> ConnectionStats {
    let mut stats = ConnectionStats::default();
    recovery.stats(&mut stats);
    stats
}

fn offsets(frames: &[SentFrame]) -> Vec<u64> {
    let offset = |frame: &SentFrame| if let SentFrame::Stream { offset, .. } = frame { Some(*offset) } else { None };
    frames.iter().filter_map(offset).collect()
}

#[test]
fn startup_finds_100_mbit_at_50_ms_within_two_seconds() {
    let mut path = Path::new(PathOptions::new(50, 0, 1), Application::Bulk);
    path.run(Duration::from_secs(2));
    let stats = path.stats().congestion;
    assert!(stats.state.starts_with("probe_bw"), "{stats:?}");
    assert!((11_500_000..13_500_000).contains(&stats.bandwidth), "{stats:?}");
}

#[test]
fn goodput_holds_under_random_loss_and_the_queue_stays_short() {
    for (rtt, loss, share) in
        [(50, 0, 0.9), (50, 50, 0.85), (50, 100, 0.85), (200, 0, 0.9), (200, 50, 0.85), (200, 100, 0.85)]
    {
        for seed in 1..3 {
            let options = PathOptions::new(rtt, loss, seed);
            let mut path = Path::new(options, Application::Bulk);
            path.run(Duration::from_secs(3));
            path.waits = path::Waits::default();
            let goodput = path.run(Duration::from_secs(6));
            let reach = options.rate as f64 * (1.0 - loss as f64 / 1000.0);
            let queue = path.waits.queue_sum / path.waits.queued;
            println!(
                "rtt {rtt} loss {loss} seed {seed}: {:.3} of the reach, queue mean {queue:?} max {:?}, {} tail drops, {} late",
                goodput / reach,
                path.waits.queue_max,
                path.waits.tail_drops,
                path.stats().congestion.spurious_losses
            );
            assert!(
                goodput >= share * reach,
                "rtt {rtt} loss {loss} seed {seed}: {goodput} of {reach}: {:?}",
                path.stats()
            );
            assert!(queue < options.rtt / 2, "rtt {rtt} loss {loss} seed {seed}: {queue:?}");
        }
    }
}

#[test]
fn an_application_that_sends_little_never_waits() {
    for (rtt, loss) in [(50, 0), (50, 50), (200, 0), (200, 100)] {
        let application = Application::Messages { size: 300, interval: Duration::from_millis(5) };
        let mut path = Path::new(PathOptions::new(rtt, loss, 3), application);
        path.run(Duration::from_secs(10));
        assert_eq!(path.waits.held, 0, "rtt {rtt} loss {loss}: {:?}", path.stats());
        assert!(path.delivered() + 10 * rtt >= path.offered(), "rtt {rtt} loss {loss}");
        assert!(path.offered() >= 1999);
    }
}

#[test]
fn a_blackout_is_overcome() {
    let mut path = Path::new(PathOptions::new(50, 10, 4), Application::Bulk);
    path.run(Duration::from_secs(2));
    path.blackout = true;
    path.run(Duration::from_secs(3));
    path.blackout = false;
    path.run(Duration::from_secs(4));
    assert!(path.run(Duration::from_secs(3)) > 9_000_000.0, "{:?}", path.stats());
    assert!(path.stats().congestion.persistent_congestions > 0);
}

#[test]
fn three_later_packets_make_one_lost_and_it_is_lost_once() {
    let mut recovery = recovery(Side::Client);
    (0..6).for_each(|number| recovery.on_sent(at(0), packet(number)));
    assert!(ack(&mut recovery, at(50), &[(1, 2)]).lost.is_empty());
    let outcome = ack(&mut recovery, at(51), &[(1, 3)]);
    assert_eq!((offsets(&outcome.acked), offsets(&outcome.lost)), (vec![3], vec![0]));
    let outcome = ack(&mut recovery, at(52), &[(1, 4)]);
    assert!(outcome.lost.is_empty());
    assert_eq!(recovery.in_flight(), 1000);
}

#[test]
fn a_packet_overtaken_by_one_is_lost_after_nine_eighths_of_a_round_trip() {
    let mut recovery = recovery(Side::Client);
    (0..2).for_each(|number| recovery.on_sent(at(0), packet(number)));
    ack(&mut recovery, at(80), &[(1, 1)]);
    assert_eq!(recovery.next_timeout(), Some(at(90)));
    let mut outcome = AckOutcome::default();
    recovery.on_timeout(at(89), &mut outcome);
    assert!(outcome.lost.is_empty());
    recovery.on_timeout(at(90), &mut outcome);
    assert_eq!(offsets(&outcome.lost), [0]);
    assert!(!outcome.probe && recovery.next_timeout().is_none_or(|next| next > at(90)));
}

#[test]
fn a_lost_tail_is_probed_and_the_timeout_doubles() {
    let mut recovery = recovery(Side::Client);
    (0..2).for_each(|number| recovery.on_sent(at(0), packet(number)));
    let mut outcome = AckOutcome::default();
    let (mut now, mut gaps) = (at(0), Vec::new());
    for round in 0..3_u64 {
        let next = recovery.next_timeout().expect("packets are in flight");
        gaps.push(next - now);
        now = next;
        recovery.on_timeout(now, &mut outcome);
        assert!(outcome.probe && outcome.lost.is_empty());
        assert_eq!(recovery.probes_pending(), 2);
        let mut frames = Vec::new();
        for probe in 0..2 {
            recovery.probe_frames(&mut frames);
            recovery.on_sent(now, packet(2 + round * 2 + probe));
            recovery.on_probe_sent();
        }
        assert_eq!(offsets(&frames), [0, 1]);
        assert_eq!(recovery.probes_pending(), 0);
    }
    assert_eq!(gaps, [300, 600, 1200].map(Duration::from_millis));
    ack(&mut recovery, now + Duration::from_millis(50), &[(6, 7)]);
    assert!(
        recovery.next_timeout().is_none_or(|next| next - now < Duration::from_secs(1)),
        "an answer ends the backoff"
    );
}

#[test]
fn a_client_keeps_its_handshake_alive_with_nothing_in_flight() {
    let mut client = recovery(Side::Client);
    assert_eq!(client.next_timeout(), Some(at(300)));
    let mut outcome = AckOutcome::default();
    client.on_timeout(at(300), &mut outcome);
    assert!(outcome.probe);
    let mut frames = Vec::new();
    client.probe_frames(&mut frames);
    assert!(frames.is_empty(), "a PING does");
    client.set_handshake_confirmed();
    assert_eq!(client.next_timeout(), None);
    assert_eq!(recovery(Side::Server).next_timeout(), None);
}

#[test]
fn losses_that_were_only_late_are_counted_and_undone() {
    let mut recovery = recovery(Side::Client);
    (0..6).for_each(|number| recovery.on_sent(at(0), packet(number)));
    assert_eq!(offsets(&ack(&mut recovery, at(50), &[(4, 5)]).lost), [0, 1, 2]);
    let lost = |recovery: &Recovery| recovery.sampler.lost();
    assert_eq!(lost(&recovery), 3000);
    ack(&mut recovery, at(52), &[(0, 5)]);
    assert_eq!((stats(&recovery).congestion.spurious_losses, lost(&recovery)), (3, 0));
    assert_eq!(recovery.sampler.delivered(), 6000);
    ack(&mut recovery, at(53), &[(0, 5)]);
    assert_eq!(stats(&recovery).congestion.spurious_losses, 3, "once each");
}

#[test]
fn reports_of_what_was_never_sent_change_nothing() {
    let mut recovery = recovery(Side::Client);
    assert!(!ack(&mut recovery, at(1), &[(0, 0)]).newly_acked);
    recovery.on_sent(at(1), packet(5));
    for ranges in [&[(0, u64::MAX)][..], &[(6, 9)], &[(9, 6)], &[(0, 4)], &[(5, 4), (9, 2)], &[]] {
        let outcome = ack(&mut recovery, at(2), ranges);
        assert!(!outcome.newly_acked, "{ranges:?}");
    }
    assert_eq!(recovery.in_flight(), 1000);
    assert!(ack(&mut recovery, at(3), &[(0, 5)]).newly_acked);
}

#[test]
fn discarded_keys_take_their_packets_out_of_the_flight() {
    let mut recovery = recovery(Side::Client);
    recovery.on_sent(at(0), Outgoing { epoch: Epoch::Initial, ..packet(0) });
    recovery.on_sent(at(0), packet(1));
    recovery.discard_epoch(Epoch::Initial);
    assert_eq!(recovery.in_flight(), 1000);
    let outcome = ack(&mut recovery, at(50), &[(0, 1)]);
    assert_eq!((offsets(&outcome.acked), outcome.lost.len()), (vec![1], 0));
}

#[test]
fn the_report_of_an_acknowledgement_comes_back_and_memory_stays_bounded() {
    let mut recovery = recovery(Side::Client);
    for number in 0..10_000 {
        let frames = smallvec![SentFrame::Ack { largest: number }];
        recovery.on_sent(at(0), Outgoing { ack_eliciting: false, in_flight: false, frames, ..packet(number) });
    }
    assert_eq!((recovery.in_flight(), recovery.next_timeout().is_some()), (0, true));
    let outcome = ack(&mut recovery, at(5), &[(9_990, 9_995)]);
    assert_eq!(outcome.acked, [SentFrame::Ack { largest: 9_995 }]);
    assert!(!outcome.newly_acked && !outcome.rtt_sampled);
}
