//! What a connection does for the sake of its path.

use std::net::SocketAddr;
use std::time::Duration;

use super::transmit::Draft;
use super::{Connection, SYN_SIZE};
use crate::crypto::session::TAG_LEN;
use crate::observer::LogEvent;
use crate::path::{Addresses, CHALLENGE_LEN, Challenge, Evidence};
use crate::recovery::Allowance;
use crate::sent_frame::SentFrame;
use crate::wire::{EcnCounts, Epoch, Flags, FrameWriter, HEADER_LEN, SackBlocks};
use crate::{Time, Transmit};

/// Bytes of a packet with nothing but a challenge or an answer.
const PATH_PACKET_LEN: usize = HEADER_LEN + 1 + CHALLENGE_LEN + TAG_LEN;

impl Connection {
    /// Writes a packet that finds out whether one of its size arrives.
    pub(super) fn write_mtu_probe(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        if !self.is_open() || !self.is_confirmed() || self.recovery.probes_pending() > 0 {
            return None;
        }
        let size = self.path.discovery.probe(now).filter(|&size| usize::from(size) <= out.len())?;
        if !matches!(self.recovery.allowance(now), Allowance::Bytes(_)) || !self.renew_keys(now) {
            return None;
        }
        let full = usize::from(size);
        let mut writer = FrameWriter::new(&mut out[HEADER_LEN..full - TAG_LEN]);
        let fits = writer.ping();
        debug_assert!(fits, "a probe is a full packet");
        writer.padding(full);
        let mut draft = Draft::eliciting();
        draft.frames.push(SentFrame::MtuProbe { size });
        self.pass_skipped_number();
        let total = self.seal(Epoch::OneRtt0, &SackBlocks::new(), Flags::NONE, full - HEADER_LEN, &mut out[..full])?;
        self.path.discovery.on_probe_sent();
        self.on_written(now, Epoch::OneRtt0, total, draft);
        Some(total)
    }

    /// Bytes that a packet may have which is sent because of a probe timeout: as many as any path carries, so that one that has
    /// become too narrow for full packets is told from one that carries nothing.
    pub(super) fn probe_size(full: usize) -> usize {
        full.min(usize::from(SYN_SIZE))
    }

    /// Takes in what an acknowledgement or a timeout told of the path: of large packets, and of marked ones.
    pub(super) fn take_evidence(&mut self, sizes: &Evidence, marks: &Evidence) {
        let is_too_large = self.path.discovery.on_evidence(sizes);
        if is_too_large {
            self.recovery.set_datagram_size(self.path.discovery.size());
        }
        self.path.ecn.on_evidence(marks, is_too_large);
    }

    /// Decides whether the next packets, which leave together, are marked. What is sent because of a probe timeout is not,
    /// so that a path which drops what is marked is told from one that drops everything.
    pub(super) fn begin_marking(&mut self) {
        if self.recovery.probes_pending() > 0 {
            self.path.ecn.on_probe_timeout();
        }
        let is_confirmed = self.is_open() && self.is_confirmed();
        self.path.is_marking = is_confirmed && self.recovery.probes_pending() == 0 && self.path.ecn.marks();
        self.path.is_batch_begun = false;
    }

    /// A packet is written. An acknowledgement alone goes without a mark (RFC 3168 section 6.1.4): where marked packets are dropped,
    /// nothing would tell.
    pub(super) fn mark_written(&mut self, ack_eliciting: bool) {
        self.path.is_marking &= ack_eliciting || self.path.is_batch_begun;
        self.path.is_batch_begun = true;
        if self.path.is_marking {
            self.path.ecn.on_sent(self.pending.number - 1, ack_eliciting);
        }
    }

    /// An acknowledgement came in an ACK frame, and maybe the counts of marks with it.
    pub(super) fn on_ack_with_counts(
        &mut self,
        now: Time,
        (epoch, ranges): (Epoch, &[(u64, u64)]),
        (delay, echo): (Duration, bool),
        counts: Option<EcnCounts>,
    ) {
        let ce = self.path.ecn.tells_congestion(echo, counts);
        // Counts in an acknowledgement that was overtaken are old.
        let is_newest = ranges.first().map(|range| range.1) > self.recovery.largest_acked();
        if let Some(counts) = counts.filter(|_| is_newest && epoch.is_one_rtt()) {
            self.path.ecn.on_counts(counts);
        }
        self.on_ack(now, epoch, ranges, (delay, ce));
    }

    /// A probe of that size arrived.
    pub(super) fn on_mtu_probe_acked(&mut self, now: Time, size: u16) {
        if self.path.discovery.on_probe_acked(now, size) {
            self.recovery.set_datagram_size(size);
        }
    }

    /// Writes an answer to a challenge, or a challenge that is due, to wherever it goes. Neither is acknowledged, nor waits for the
    /// window: what is in flight may be what the change of address has lost.
    pub(super) fn poll_path_packet(&mut self, now: Time, out: &mut [u8]) -> Option<Transmit> {
        if !self.is_open() {
            return None;
        }
        if let Some(((remote, local), challenge)) = self.path.migration.take_answer() {
            let len = self.write_path_packet(now, (challenge, true), PATH_PACKET_LEN, out)?;
            return Some(Transmit { remote, local, len, segment_size: len, ecn: 0 });
        }
        let interval = self.recovery.probe_timeout();
        let question = self.path.migration.take_question(now, PATH_PACKET_LEN as u64, interval)?;
        // As long as any path has to carry, if that is allowed (RFC 9000 section 8.2.1); otherwise short, so that some can follow.
        let size = if question.bytes_max >= u64::from(SYN_SIZE) { usize::from(SYN_SIZE) } else { PATH_PACKET_LEN };
        let len = self.write_path_packet(now, (question.challenge, false), size, out)?;
        if question.to.is_some() {
            self.path.migration.on_question_sent(len as u64);
        }
        let (remote, local) = question.to.unwrap_or((self.path.remote, self.path.local));
        Some(Transmit { remote, local, len, segment_size: len, ecn: 0 })
    }

    /// Writes a packet of that size with a challenge or an answer.
    fn write_path_packet(
        &mut self,
        now: Time,
        (challenge, is_response): (Challenge, bool),
        size: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let out = out.get_mut(..size).filter(|_| self.renew_keys(now))?;
        let mut writer = FrameWriter::new(&mut out[HEADER_LEN..size - TAG_LEN]);
        let fits = writer.path(challenge, is_response);
        debug_assert!(fits, "the least size holds the frame");
        writer.padding(size);
        self.path.is_marking = false;
        self.pass_skipped_number();
        let len = self.seal(Epoch::OneRtt0, &SackBlocks::new(), Flags::NONE, size - HEADER_LEN, out)?;
        self.on_written(now, Epoch::OneRtt0, len, Draft::default());
        Some(len)
    }

    /// The peer asks whether this end receives what it sends. It may have seen another address: its marks are tested again.
    pub(super) fn on_path_challenge(&mut self, addresses: Addresses, challenge: Challenge) {
        self.path.migration.on_challenge(addresses, challenge);
        self.path.marks.on_path_changed();
    }

    /// The peer answers. If that proves another address, packets go there from here on.
    pub(super) fn on_path_response(&mut self, now: Time, remote: SocketAddr, challenge: Challenge) {
        let Some((remote, local)) = self.path.migration.on_response(remote, challenge) else { return };
        let other_host = remote.ip() != self.path.remote.ip();
        (self.path.remote, self.path.local, self.path.validated) = (remote, local, true);
        let mut outcome = self.outcome.take().unwrap_or_default();
        self.recovery.on_path_changed(now, &mut outcome);
        self.outcome = Some(outcome);
        self.settle(now);
        if other_host {
            self.path.restart_exploring(self.config.path);
            self.recovery.forget_path(now, self.path.discovery.size());
        }
        self.told.log.record(now, &LogEvent::Migrated { remote });
    }
}
