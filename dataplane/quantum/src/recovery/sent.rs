//! Packets that were sent and are neither acknowledged nor lost.

use std::collections::VecDeque;

use super::rate::Stamp;
use crate::Time;
use crate::sent_frame::SentFrames;
use crate::wire::Epoch;

/// Packets outside the flight (acknowledgements) that are remembered at most; the oldest is forgotten, which only means
/// that its ranges are reported for longer.
const ACK_ONLY_MAX: usize = 256;

/// Lists of frames that needed memory of their own and are kept for reuse.
const SPARE_FRAMES_MAX: usize = 64;

/// A packet in flight.
#[derive(Debug)]
pub(crate) struct SentPacket {
    pub(crate) number: u64,
    pub(crate) epoch: Epoch,
    pub(crate) size: u16,
    pub(crate) ack_eliciting: bool,
    /// It carries nothing but repair symbols: nobody waits for it, and nothing of it is sent again.
    pub(crate) repair_only: bool,
    /// The network may mark it: ECT(0).
    pub(crate) marked: bool,
    /// Acknowledged, lost or discarded: it waits for its elders to go, so that the queue stays sorted.
    pub(crate) resolved: bool,
    /// Acknowledged, which ends a period of persistent congestion.
    pub(crate) acked: bool,
    /// Declared lost.
    pub(crate) lost: bool,
    pub(crate) stamp: Stamp,
    pub(crate) frames: SentFrames,
}

impl SentPacket {
    /// Whether its acknowledgement is waited for.
    fn is_awaited(&self) -> bool {
        self.ack_eliciting && !self.repair_only
    }
}

/// A packet outside the flight.
#[derive(Debug)]
struct AckOnly {
    number: u64,
    frames: SentFrames,
}

/// Packets in flight, by number, and the few acknowledgements whose own acknowledgement matters.
#[derive(Debug, Default)]
pub(crate) struct SentPackets {
    flight: VecDeque<SentPacket>,
    ack_only: VecDeque<AckOnly>,
    in_flight: u64,
    /// Packets among the unresolved that are to be acknowledged and carry more than repair symbols.
    awaited: usize,
    /// When a packet with nothing but repair symbols left last.
    last_repair: Option<Time>,
    spare_frames: Vec<SentFrames>,
}

impl SentPackets {
    /// Takes a packet of the flight. Numbers ascend.
    pub(crate) fn push(&mut self, packet: SentPacket) {
        debug_assert!(self.flight.back().is_none_or(|newest| newest.number < packet.number), "numbers ascend");
        self.in_flight += u64::from(packet.size);
        self.awaited += usize::from(packet.is_awaited());
        if packet.repair_only {
            self.last_repair = Some(packet.stamp.time_sent);
        }
        self.flight.push_back(packet);
    }

    /// Takes a packet outside the flight.
    pub(crate) fn push_ack_only(&mut self, number: u64, frames: SentFrames) {
        if self.ack_only.len() == ACK_ONLY_MAX {
            self.ack_only.pop_front();
        }
        self.ack_only.push_back(AckOnly { number, frames });
    }

    /// The place of the first packet with that number or a greater one.
    pub(crate) fn position(&self, number: u64) -> usize {
        let Some(front) = self.flight.front() else { return 0 };
        // Numbers are nearly consecutive: the guess is right unless acknowledgements lie between.
        let guess = number.saturating_sub(front.number) as usize;
        if self.flight.get(guess).is_some_and(|packet| packet.number == number) {
            return guess;
        }
        self.flight.partition_point(|packet| packet.number < number)
    }

    /// The packet at a place.
    pub(crate) fn get(&self, index: usize) -> Option<&SentPacket> {
        self.flight.get(index)
    }

    /// The packet at a place, to change what it carries.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut SentPacket> {
        self.flight.get_mut(index)
    }

    /// Takes an unresolved packet out of the flight; it stays in its place until its elders are gone.
    pub(crate) fn resolve(&mut self, index: usize, acked: bool) -> Option<&mut SentPacket> {
        let packet = self.flight.get_mut(index).filter(|packet| !packet.resolved)?;
        packet.resolved = true;
        packet.acked = acked;
        self.in_flight -= u64::from(packet.size);
        self.awaited -= usize::from(packet.is_awaited());
        Some(packet)
    }

    /// Forgets resolved packets that have no elder, and shows each, in the order of their numbers.
    pub(crate) fn trim(&mut self, mut last_look: impl FnMut(&SentPacket)) {
        while self.flight.front().is_some_and(|packet| packet.resolved) {
            let Some(mut packet) = self.flight.pop_front() else { return };
            last_look(&packet);
            if packet.frames.spilled() && self.spare_frames.len() < SPARE_FRAMES_MAX {
                packet.frames.clear();
                self.spare_frames.push(packet.frames);
            }
        }
    }

    /// An empty list of frames for the next packet.
    pub(crate) fn frames(&mut self) -> SentFrames {
        self.spare_frames.pop().unwrap_or_default()
    }

    /// The newest acknowledgement that one of the ranges (newest first) acknowledges: it and all before it are forgotten.
    pub(crate) fn take_ack_only(&mut self, ranges: &[(u64, u64)]) -> Option<SentFrames> {
        let acked = |number: u64| {
            let index = ranges.partition_point(|range| range.0 > number);
            ranges.get(index).is_some_and(|range| number <= range.1)
        };
        let index = self.ack_only.iter().rposition(|packet| acked(packet.number))?;
        let frames = std::mem::take(&mut self.ack_only[index].frames);
        self.ack_only.drain(..=index);
        Some(frames)
    }

    /// Forgets the packets outside the flight: what is reported next says all that they said in as few ranges.
    pub(crate) fn forget_ack_only(&mut self) {
        self.ack_only.clear();
    }

    /// Nothing has been sent for a while: frees memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.flight.shrink_to_fit();
        self.ack_only.shrink_to_fit();
        self.spare_frames = Vec::new();
    }

    /// The `nth` oldest packet in flight whose acknowledgement is waited for.
    pub(crate) fn nth_eliciting(&self, nth: usize) -> Option<&SentPacket> {
        self.flight.iter().filter(|packet| packet.is_awaited() && !packet.resolved).nth(nth)
    }

    /// When a packet with nothing but repair symbols left last.
    pub(crate) fn last_repair(&self) -> Option<Time> {
        self.last_repair
    }

    /// Number of the least packet in flight.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.flight.front().map(|packet| packet.number)
    }

    /// Bytes in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether a packet is in flight whose acknowledgement is waited for.
    pub(crate) fn has_eliciting(&self) -> bool {
        self.awaited > 0
    }

    /// Places in use, resolved packets included.
    pub(crate) fn len(&self) -> usize {
        self.flight.len()
    }
}
