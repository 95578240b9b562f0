//! Both sides together, with packets and frames as they are on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::smallvec;

use super::*;
use crate::recovery::{ReceivedInfo, ReceivedPackets};
use crate::sent_frame::{SentFrame, SentFrames};
use crate::stats::FecStats;
use crate::wire::{Epoch, Frame, FrameIter, FrameWriter};
use crate::{StreamId, Time, TransportError};

const RTT: Duration = Duration::from_millis(50);

fn at(micros: u64) -> Time {
    Time::from_nanos(micros * 1_000)
}

fn path(loss: f64) -> PathView {
    PathView { rtt: RTT, rtt_min: RTT, loss_delay: RTT * 9 / 8, bandwidth: 0, loss, burst: Burst::default() }
}

fn adaptive() -> FecConfig {
    FecConfig::default()
}

/// A sender's and a receiver's side, and the packets between them.
struct Sides {
    protector: Protector,
    restorer: Restorer,
    received: ReceivedPackets,
    path: PathView,
    number: u64,
    /// The symbols of the packets that were sent.
    sent: BTreeMap<u64, Vec<u8>>,
}

impl Sides {
    fn new(config: &FecConfig, loss: f64) -> Self {
        let mut protector = Protector::new(at(0), config);
        protector.accept(192);
        Self {
            protector,
            restorer: Restorer::new(config),
            received: ReceivedPackets::new(),
            path: path(loss),
            number: 100,
            sent: BTreeMap::new(),
        }
    }

    /// Sends a packet with so many bytes of a stream, and gives its number.
    fn send(&mut self, now: Time, len: usize) -> u64 {
        self.number += 1;
        let mut symbol = vec![0; len + 20];
        let mut writer = FrameWriter::new(&mut symbol);
        let data = writer.begin_stream(StreamId(self.number * 4), 0, len, true).unwrap();
        data.iter_mut().enumerate().for_each(|(place, byte)| *byte = (place as u64 * 7 + self.number) as u8);
        let written = writer.written();
        symbol.truncate(written);
        self.protector.on_sent(now, symbol.len(), symbol.len() + 60, &self.path);
        self.protector.gather(now, self.number, &symbol, &self.path);
        self.sent.insert(self.number, symbol);
        self.number
    }

    /// The packet arrives.
    fn arrive(&mut self, now: Time, number: u64) -> Result<(), TransportError> {
        self.receive(now, number);
        if self.restorer.keeps_symbols() {
            let symbol = self.sent[&number].clone();
            self.restorer.on_symbol(number, [symbol.as_slice()].into_iter(), &self.received)?;
        }
        Ok(())
    }

    fn receive(&mut self, now: Time, number: u64) {
        let info = ReceivedInfo {
            ack_eliciting: true,
            repair_only: false,
            message_end: false,
            ce: false,
            epoch: Epoch::OneRtt0,
        };
        self.received.on_received(now, number, info);
    }

    /// The packets with repair symbols that leave up to that time, one symbol each: when, which number, of which group, and the
    /// frame.
    fn repairs(&mut self, until: Time) -> Vec<(Time, u64, u64, Vec<u8>)> {
        let mut repairs = Vec::new();
        while let Some(now) = self.protector.next_timeout(RTT).filter(|now| *now <= until) {
            self.protector.handle_timeout(now, &self.path);
            while self.protector.has_due(now) {
                self.number += 1;
                let mut buffer = vec![0; 2_000];
                let mut writer = FrameWriter::new(&mut buffer);
                let Some(group) = self.protector.write_repair(now, now, (self.number, &mut writer), &[]) else { break };
                let len = writer.written();
                repairs.push((now, self.number, group, buffer[..len].to_vec()));
            }
        }
        repairs
    }

    fn take(&mut self, now: Time, number: u64, frame: &[u8]) -> Result<(), TransportError> {
        self.receive(now, number);
        match FrameIter::new(frame).next().unwrap()? {
            Frame::Repair(repair) => self.restorer.on_repair(number, &repair, &self.received),
            other => panic!("{other:?}"),
        }
    }

    /// What was restored is what was sent.
    fn restored(&mut self) -> Vec<u64> {
        let restored = std::iter::from_fn(|| self.restorer.take_restored());
        let mut numbers = Vec::new();
        for (number, symbol) in restored {
            assert_eq!(symbol, self.sent[&number], "packet {number}");
            numbers.push(number);
        }
        numbers.sort_unstable();
        numbers
    }

    fn released(&mut self) -> usize {
        std::iter::from_fn(|| self.protector.take_released()).count()
    }

    fn stats(&self) -> FecStats {
        let mut stats = FecStats::default();
        self.protector.stats(&mut stats);
        self.restorer.stats(&mut stats);
        stats
    }
}

fn frames() -> SentFrames {
    smallvec![SentFrame::MaxData]
}

#[test]
fn a_lone_message_is_copied_at_once_and_any_copy_restores_it() {
    for arrives in 0..3 {
        let mut sides = Sides::new(&adaptive(), 0.09);
        let number = sides.send(at(0), 256);
        sides.protector.on_idle(at(0), &sides.path);
        let repairs = sides.repairs(at(20_000));
        let times: Vec<Time> = repairs.iter().map(|repair| repair.0).collect();
        assert_eq!(times, [at(1_000), at(6_000), at(6_000)]);
        assert!(repairs[0].3.len() <= sides.sent[&number].len() + 10, "a copy has no shard around it");
        let (now, carrier, _, frame) = &repairs[arrives];
        sides.take(*now, *carrier, frame).unwrap();
        assert_eq!(sides.restored(), [number]);
        assert!(sides.restorer.wants_report());
    }
}

#[test]
fn a_burst_of_packets_shares_its_symbols() {
    let mut sides = Sides::new(&adaptive(), 0.05);
    let numbers: Vec<u64> = [1_200, 900, 1_300, 40, 1_200, 1].iter().map(|&len| sides.send(at(0), len)).collect();
    sides.protector.on_idle(at(0), &sides.path);
    let repairs = sides.repairs(at(20_000));
    assert!((2..6).contains(&repairs.len()), "{}", repairs.len());
    let lost = [numbers[1], numbers[3]];
    for &number in numbers.iter().filter(|number| !lost.contains(number)) {
        sides.arrive(at(25_000), number).unwrap();
    }
    let (now, carrier, _, frame) = &repairs[0];
    sides.take(*now, *carrier, frame).unwrap();
    assert_eq!(sides.restored(), [0; 0], "one symbol is not enough for two");
    let (now, carrier, _, frame) = &repairs[1];
    sides.take(*now, *carrier, frame).unwrap();
    assert_eq!(sides.restored(), lost);
    for (now, carrier, _, frame) in &repairs[2..] {
        sides.take(*now, *carrier, frame).unwrap();
    }
    let stats = sides.stats();
    assert_eq!((stats.protected, stats.recovered, stats.wasted), (6, 2, repairs.len() as u64 - 2));
}

#[test]
fn a_packet_that_comes_late_completes_its_group() {
    let mut sides = Sides::new(&FecConfig { mode: FecMode::Fixed { members: 3, repairs: 1 }, ..adaptive() }, 0.0);
    let numbers: Vec<u64> = (0..3).map(|_| sides.send(at(0), 100)).collect();
    let (now, carrier, _, frame) = sides.repairs(at(20_000)).remove(0);
    sides.arrive(at(25_000), numbers[0]).unwrap();
    sides.take(now, carrier, &frame).unwrap();
    assert_eq!(sides.restored(), [0; 0]);
    sides.arrive(at(27_000), numbers[2]).unwrap();
    assert_eq!(sides.restored(), [numbers[1]]);
}

#[test]
fn what_was_lost_is_held_back_until_it_is_known_to_be_restored() {
    let mut sides = Sides::new(&adaptive(), 0.09);
    let number = sides.send(at(0), 256);
    sides.protector.on_idle(at(0), &sides.path);
    sides.repairs(at(20_000));
    sides.protector.on_lost(at(20_000), number, frames());
    assert_eq!(sides.released(), 0);
    let mut acked = Vec::new();
    sides.protector.on_recovered(&[(number, number)], &mut acked);
    assert_eq!(acked, [SentFrame::MaxData]);
    assert_eq!(sides.protector.next_timeout(RTT).map(|_| sides.released()), Some(0), "nothing is left but a look");
    assert_eq!(sides.stats().recovered_by_peer, 1);
}

#[test]
fn what_no_symbol_can_restore_is_sent_again_at_once() {
    let mut sides = Sides::new(&adaptive(), 0.09);
    let number = sides.send(at(0), 256);
    sides.protector.on_idle(at(0), &sides.path);
    let groups: Vec<u64> = sides.repairs(at(20_000)).iter().map(|repair| repair.2).collect();
    sides.protector.on_lost(at(20_000), number, frames());
    for &group in &groups[..2] {
        sides.protector.on_repair_lost(group);
        assert_eq!(sides.released(), 0);
    }
    sides.protector.on_repair_lost(groups[2]);
    assert_eq!(sides.released(), 1);
    sides.protector.on_lost(at(20_000), 7, frames());
    assert_eq!(sides.released(), 1, "a packet of no group");
}

#[test]
fn what_is_never_reported_is_sent_again_in_the_end() {
    for arrived in [false, true] {
        let mut sides = Sides::new(&adaptive(), 0.09);
        let number = sides.send(at(0), 256);
        sides.protector.on_idle(at(0), &sides.path);
        let group = sides.repairs(at(20_000))[0].2;
        if arrived {
            sides.protector.on_repair_acked(group);
        }
        sides.protector.on_lost(at(20_000), number, frames());
        let mut released_at = None;
        while let Some(now) = sides.protector.next_timeout(RTT).filter(|_| released_at.is_none()) {
            sides.protector.handle_timeout(now, &sides.path);
            released_at = (sides.released() > 0).then_some(now);
        }
        // The last symbol left after 6 ms; then 9/8 of the round trip, and some time for the acknowledgement.
        let expected = if arrived { 6_000 + 4 * 56_250 + 6_000 } else { 6_000 + 56_250 + 6_000 };
        assert_eq!(released_at, Some(at(expected)), "{arrived}");
    }
}

#[test]
fn symbols_that_nobody_needs_any_more_do_not_leave() {
    let mut sides = Sides::new(&adaptive(), 0.09);
    let number = sides.send(at(0), 256);
    sides.protector.on_idle(at(0), &sides.path);
    assert_eq!(sides.repairs(at(2_000)).len(), 1);
    sides.protector.on_acked(number);
    assert_eq!(sides.repairs(at(20_000)).len(), 0);
}

#[test]
fn a_clean_path_and_a_full_one_gather_nothing() {
    assert_eq!(Sides::new(&adaptive(), 0.0).protector.reserve(at(0), &path(0.0)), None);
    let mut sides = Sides::new(&adaptive(), 0.05);
    assert!(sides.protector.reserve(at(0), &sides.path).is_some());
    for nth in 0..1_000 {
        sides.protector.on_sent(at(nth * 100), 1_300, 1_400, &sides.path);
    }
    assert_eq!(sides.protector.reserve(at(100_000), &sides.path), None);
    let mut off = Protector::new(at(0), &FecConfig::default());
    off.accept(0);
    assert_eq!(off.reserve(at(0), &path(0.5)), None, "the peer takes none");
}

#[test]
fn a_group_closes_when_it_is_full_or_late() {
    let mut sides = Sides::new(&FecConfig { mode: FecMode::Fixed { members: 10, repairs: 3 }, ..adaptive() }, 0.0);
    for _ in 0..10 {
        sides.send(at(0), 100);
    }
    assert_eq!(sides.stats().protected, 10);
    sides.send(at(0), 100);
    // An eighth of 50 ms is more than 5 ms.
    assert_eq!(sides.repairs(at(5_999)).len(), 1);
    assert_eq!(sides.stats().protected, 11);
    assert_eq!(sides.repairs(at(30_000)).len(), 5);
}

#[test]
fn what_is_kept_stays_within_its_limit() {
    let config = FecConfig { memory_max: 20_000, ..adaptive() };
    let mut sides = Sides::new(&config, 0.05);
    let mut most = 0;
    for nth in 0..100 {
        let now = at(nth * 20_000);
        let numbers: Vec<u64> = (0..8).map(|_| sides.send(now, 1_200)).collect();
        sides.protector.on_idle(now, &sides.path);
        for &number in &numbers[4..] {
            sides.arrive(now, number).unwrap();
        }
        if let Some((now, carrier, _, frame)) = sides.repairs(now + Duration::from_millis(19)).first() {
            sides.take(*now, *carrier, frame).unwrap();
        }
        most = most.max(sides.stats().kept_bytes);
    }
    assert!((10_000..=20_000).contains(&most), "{most}");
    sides.restorer.forget();
    assert_eq!(sides.stats().kept_bytes, 0);
}

#[test]
fn symbols_are_kept_only_while_symbols_of_repair_come() {
    let mut sides = Sides::new(&adaptive(), 0.0);
    for _ in 0..2_000 {
        let number = sides.send(at(0), 10);
        sides.arrive(at(0), number).unwrap();
    }
    assert!(!sides.restorer.keeps_symbols());
    assert_eq!(sides.stats().kept_bytes, 0);
}

#[test]
fn senseless_symbols_end_the_connection() {
    let mut sides = Sides::new(&FecConfig { mode: FecMode::Fixed { members: 4, repairs: 2 }, ..adaptive() }, 0.0);
    let numbers: Vec<u64> = (0..4).map(|_| sides.send(at(0), 100)).collect();
    let repairs = sides.repairs(at(20_000));
    sides.arrive(at(25_000), numbers[0]).unwrap();
    sides.take(repairs[0].0, repairs[0].1, &repairs[0].3).unwrap();
    assert!(sides.take(repairs[0].0, repairs[0].1, &repairs[0].3).is_err(), "a symbol twice");
    let mut changed = repairs[1].3.clone();
    let last = changed.len() - 1;
    changed[last - 105] ^= 1;
    sides.arrive(at(26_000), numbers[1]).unwrap();
    assert!(sides.take(repairs[1].0, repairs[1].1, &changed).is_err(), "a number that is not the member's");
    let mut off = Restorer::new(&FecConfig { mode: FecMode::Off, ..adaptive() });
    let Some(Ok(Frame::Repair(repair))) = FrameIter::new(&repairs[0].3).next() else { panic!("it is a repair symbol") };
    assert!(off.on_repair(repairs[0].1, &repair, &sides.received).is_err(), "nobody asked for it");
    assert!(Restorer::new(&adaptive()).on_repair(3, &repair, &sides.received).is_err(), "members below 1");
}

#[test]
fn reports_repeat_until_they_are_acknowledged() {
    let mut sides = Sides::new(&adaptive(), 0.09);
    for nth in 0..3 {
        let now = at(nth * 10_000);
        sides.send(now, 100);
        sides.protector.on_idle(now, &sides.path);
        let (now, carrier, _, frame) = sides.repairs(now + Duration::from_millis(9)).remove(0);
        sides.take(now, carrier, &frame).unwrap();
    }
    let mut buffer = [0; 100];
    let mut sent = SentFrames::new();
    assert!(sides.restorer.write_report(&mut FrameWriter::new(&mut buffer), &mut sent));
    assert_eq!(sent.len(), 3, "three ranges");
    assert!(!sides.restorer.wants_report());
    let SentFrame::Recovered { first, last } = sent[1] else { panic!("{:?}", sent[1]) };
    sides.restorer.on_report_lost(first, last);
    assert!(sides.restorer.wants_report());
    sides.restorer.on_report_acked(first, last);
    assert!(!sides.restorer.wants_report());
}
