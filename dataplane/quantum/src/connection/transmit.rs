//! Packets that go out: what goes into the next one, and its sealing.

use std::time::Duration;

use super::close::CloseFrame;
use super::{Connection, SYN_SIZE, State};
use crate::crypto::session::TAG_LEN;
use crate::path::ECT0;
use crate::recovery::{ACK_DELAY_MAX, Allowance, Outgoing};
use crate::sent_frame::{SentFrame, SentFrames};
use crate::wire::{
    Epoch, Flags, FrameWriter, HEADER_LEN, Header, REASON_LEN_MAX, SackBlock, SackBlocks, VERSION, crypto_capacity,
};
use crate::{Side, Time, Transmit, TransportErrorCode};

/// An acknowledgement says how late it is if it is later than this: less is noise on any network.
const ACK_DELAY_TOLD: Duration = Duration::from_micros(100);
/// So many acknowledgements in a row, and one asks to be acknowledged itself: else the ranges it reports would only grow.
const ACK_ONLY_RUN_MAX: u32 = 8;
/// Room that is not worth another frame: a full packet is padded instead, so that it fits into a batch of equal ones.
const PADDED_ROOM_MAX: usize = 16;
/// Bytes of a packet that closes, at most: header, tag, frame type, code, length and words.
const CLOSE_SIZE_MAX: u64 = (HEADER_LEN + TAG_LEN + 1 + 8 + 2 + REASON_LEN_MAX) as u64;
/// A packet with a repair symbol has an acknowledgement too if this is left: for header and tag, eight blocks, and a frame.
const ACK_ROOM: usize = 512;
/// Bytes of the largest UDP payload over IPv4.
const UDP_PAYLOAD_MAX: usize = 65_507;

/// What a packet may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Everything that its epoch has to say.
    All,
    /// An acknowledgement.
    AckOnly,
    /// Repair symbols, and an acknowledgement if there is room.
    Repair,
}

/// A packet that is being written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) frames: SentFrames,
    flags: Flags,
    ack_eliciting: bool,
    retransmits: bool,
    /// It carries something that forward error correction is to protect.
    protected: bool,
    /// Nothing in it but repair symbols is to be acknowledged.
    repair_only: bool,
    /// Bytes of its symbol.
    own_bytes: usize,
}

impl Draft {
    /// One that is to be acknowledged.
    pub(super) fn eliciting() -> Self {
        Self { ack_eliciting: true, ..Self::default() }
    }
}

impl Connection {
    /// Fills `buf` with the packets that may leave now, all of one size but the last.
    pub(crate) fn poll_transmit(&mut self, now: Time, buf: &mut [u8]) -> Option<Transmit> {
        self.timers.paced_until = None;
        let full = usize::from(self.path.discovery.size());
        self.told.log.at(now);
        self.begin_marking();
        let space = buf.len().min(UDP_PAYLOAD_MAX);
        if let Some(transmit) = self.poll_path_packet(now, &mut buf[..space]) {
            return Some(transmit);
        }
        if let Some(len) = self.write_mtu_probe(now, &mut buf[..space]) {
            return Some(self.transmit(len, len));
        }
        let (mut len, mut segment_size) = (0, 0);
        for _ in 0..self.config.segments_max.max(1) {
            if space - len < full {
                break;
            }
            let Some(written) = self.write_next(now, &mut buf[len..len + full]) else { break };
            self.path.sent_bytes += written as u64;
            segment_size = if len == 0 { written } else { segment_size };
            len += written;
            if written < full {
                break;
            }
            self.path.discovery.on_full();
        }
        (len > 0).then(|| self.transmit(len, segment_size))
    }

    fn transmit(&self, len: usize, segment_size: usize) -> Transmit {
        let ecn = if self.path.is_marking { ECT0 } else { 0 };
        Transmit { remote: self.path.remote, local: self.path.local, len, segment_size, ecn }
    }

    /// Writes the next packet, if there is one to send.
    fn write_next(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        if let State::Closing(closing) = &mut self.state {
            if self.path.amplification_allowance() < CLOSE_SIZE_MAX {
                return None;
            }
            let (epoch, frame) = closing.take_due()?;
            return self.write_close(epoch, &frame, out);
        }
        if self.is_closed() || self.is_amplification_limited() || !self.renew_keys(now) {
            return None;
        }
        if let Some(epoch) = self.epoch_with_crypto() {
            return self.write_packet(now, epoch, Content::All, out);
        }
        if self.recovery.probes_pending() > 0 {
            let size = Self::probe_size(out.len());
            return self.write_probe(now, &mut out[..size]);
        }
        if let Some(epoch) = self.data_epoch() {
            let content = if self.has_data() { Content::All } else { Content::Repair };
            if content == Content::Repair {
                self.recovery.on_app_limited();
                let path = self.path_view();
                self.fec.protector.on_idle(now, &path);
            }
            if self.has_due_repair(now) || content == Content::All {
                match self.recovery.allowance(now) {
                    Allowance::Bytes(_) => {
                        // A repair symbol that no longer fits leaves nothing to send but perhaps an acknowledgement.
                        let written = self.write_packet(now, epoch, content, out);
                        if written.is_some() || content == Content::All {
                            return written;
                        }
                    }
                    Allowance::PacedUntil(until) => self.timers.paced_until = Some(until),
                    Allowance::WindowFull => {}
                }
            }
        }
        if self.ack_due().is_some_and(|due| due <= now) {
            return self.write_packet(now, self.ack_epoch(), Content::AckOnly, out);
        }
        None
    }

    fn has_data(&self) -> bool {
        self.pending.handshake_done
            || self.pending.ping
            || self.fec.restorer.wants_report()
            || self.pending.datagrams.has_pending()
            || self.streams.has_pending()
            || self.has_ticket_to_send()
    }

    fn epoch_with_crypto(&mut self) -> Option<Epoch> {
        let handshake = self.handshake.as_deref_mut()?;
        [Epoch::Initial, Epoch::Handshake]
            .into_iter()
            .find(|&epoch| self.keys.has(epoch) && handshake.send(epoch).is_some_and(|send| send.has_pending()))
    }

    /// A probe repeats what has waited longest for an answer, or asks for one.
    fn write_probe(&mut self, now: Time, out: &mut [u8]) -> Option<usize> {
        // A server that has the Finished has no keys for another, and may be confirming it to an address where this end is no
        // more: at every second timeout a probe shows it by 1-RTT where it is.
        if self.is_open() && !self.is_confirmed() && self.recovery.is_second_probe_of_second_timeout() {
            self.pending.ping = true;
            return self.write_packet(now, Epoch::OneRtt0, Content::All, out);
        }
        let mut frames = Vec::new();
        self.recovery.probe_frames(&mut frames);
        for frame in frames.iter().filter(|frame| !matches!(frame, SentFrame::Repair { .. })) {
            self.resend(now, frame);
        }
        self.resend_early(now);
        if let Some(epoch) = self.epoch_with_crypto() {
            return self.write_packet(now, epoch, Content::All, out);
        }
        let epoch = [Epoch::Handshake, Epoch::Initial].into_iter().find(|&epoch| self.keys.has(epoch));
        let epoch = if self.is_open() && (epoch.is_none() || self.has_data()) {
            Epoch::OneRtt0
        } else {
            epoch.unwrap_or(Epoch::OneRtt0)
        };
        // A datagram may not fit into a packet of this size.
        self.pending.ping |= epoch != Epoch::OneRtt0 || !self.has_data() || self.pending.datagrams.has_pending();
        self.write_packet(now, epoch, Content::All, out)
    }

    fn write_packet(&mut self, now: Time, epoch: Epoch, content: Content, out: &mut [u8]) -> Option<usize> {
        let mut draft = Draft { frames: self.recovery.frames(), ..Draft::default() };
        if epoch.is_one_rtt() {
            self.pass_skipped_number();
        } else if epoch == Epoch::ZeroRtt {
            self.keys.count_early();
        } else {
            draft.flags |= Flags::SYN;
        }
        let full = out.len();
        let blocks = match content {
            _ if epoch == Epoch::ZeroRtt => SackBlocks::new(),
            Content::Repair if !self.carries_ack(now, full) => SackBlocks::new(),
            _ => self.sack_blocks(now, epoch),
        };
        let head = HEADER_LEN + blocks.encoded_len();
        let path = self.path_view();
        let reserve = self.fec.protector.reserve(now, &path).filter(|_| epoch.is_one_rtt());
        let symbol_max = reserve.map(|reserve| full - HEADER_LEN - TAG_LEN - reserve);
        let end = full - TAG_LEN;
        let mut payload_len = 0;
        if !blocks.is_empty() {
            draft.flags |= Flags::ACK;
            let mut writer = FrameWriter::new(&mut out[head..end]);
            self.write_ack(now, epoch, &mut writer, &mut draft);
            payload_len = writer.written();
        }
        let rest = &mut out[head + payload_len..end];
        match content {
            Content::All if epoch.is_application() => payload_len += self.write_data(now, rest, symbol_max, &mut draft),
            Content::All => payload_len += self.write_handshake(epoch, rest, &mut draft),
            Content::AckOnly => payload_len += self.write_ping_in_a_run(rest, &mut draft),
            Content::Repair => {
                let mut writer = FrameWriter::new(rest);
                self.write_repairs_into(now, false, &mut writer, &mut draft);
                payload_len += writer.written();
                if !draft.ack_eliciting {
                    // The path has become too narrow for it.
                    self.fec.protector.drop_due(now);
                    if blocks.is_empty() {
                        return None;
                    }
                }
            }
        }
        let total = self.seal(epoch, &blocks, draft.flags, payload_len + TAG_LEN, out)?;
        self.fec.protector.on_sent(now, draft.own_bytes, total, &path);
        self.on_written(now, epoch, total, draft);
        Some(total)
    }

    /// Whether a packet with a repair symbol, of at most `full` bytes, has an acknowledgement: it has room, and otherwise one would
    /// leave by itself soon.
    fn carries_ack(&mut self, now: Time, full: usize) -> bool {
        let is_near = self.received.ack_due().is_some_and(|due| due <= now + ACK_DELAY_MAX);
        is_near && self.fec.protector.next_len() + ACK_ROOM <= full
    }

    /// What the header acknowledges: something, if there is news.
    fn sack_blocks(&self, now: Time, epoch: Epoch) -> SackBlocks {
        let mut blocks = SackBlocks::new();
        if self.received.ack_due().is_some() || self.is_early() && !epoch.is_application() {
            // A frame, if there is one, tells the others in fewer bytes.
            let most = if self.has_ack_frame(now, epoch) { 1 } else { usize::MAX };
            for (first, last) in self.received.sack_blocks().take(most) {
                if !blocks.push(SackBlock { start: first as u32, end: last as u32 }) {
                    break;
                }
            }
        }
        blocks
    }

    /// Whether an acknowledgement takes a frame: there is much to report, or it is late.
    fn has_ack_frame(&self, now: Time, epoch: Epoch) -> bool {
        let is_late = self.received.ack_delay(now) >= ACK_DELAY_TOLD;
        self.received.needs_ack_frame() || epoch.is_one_rtt() && (is_late || self.path.marks.wants_report())
    }

    /// Completes the header's acknowledgement with a frame, if it cannot say everything.
    fn write_ack(&mut self, now: Time, epoch: Epoch, writer: &mut FrameWriter<'_>, draft: &mut Draft) {
        if self.received.ce_pending() {
            draft.flags |= Flags::ECE;
        }
        let Some(largest) = self.received.largest() else { return };
        let delay_micros = u64::try_from(self.received.ack_delay(now).as_micros()).unwrap_or(u64::MAX);
        let mut tells_all = true;
        let counts = self.path.marks.counts().filter(|_| epoch.is_one_rtt() && self.path.marks.wants_report());
        if self.has_ack_frame(now, epoch) {
            let ranges = self.received.ranges();
            let written = writer.ack(ranges.clone().map(|(first, last)| first..=last), delay_micros, counts);
            tells_all = written == ranges.count();
            if let Some(counts) = counts.filter(|_| written > 0 && self.path.marks.has_news()) {
                draft.frames.push(SentFrame::EcnCounts { ce: counts.ce });
            }
        }
        if tells_all {
            draft.frames.push(SentFrame::Ack { largest });
        }
        self.received.on_ack_sent();
    }

    fn write_ping_in_a_run(&mut self, out: &mut [u8], draft: &mut Draft) -> usize {
        let mut writer = FrameWriter::new(out);
        self.pending.ack_only_run += 1;
        let wanted = self.pending.ack_only_run >= ACK_ONLY_RUN_MAX && self.received.ranges().nth(1).is_some();
        if wanted && self.recovery.in_flight() < self.recovery.window() && writer.ping() {
            draft.frames.push(SentFrame::Ping);
            draft.ack_eliciting = true;
        }
        writer.written()
    }

    fn write_ping(&mut self, writer: &mut FrameWriter<'_>, draft: &mut Draft) {
        if self.pending.ping && writer.ping() {
            self.pending.ping = false;
            draft.frames.push(SentFrame::Ping);
            draft.ack_eliciting = true;
        }
    }

    /// Bytes of a handshake packet's frames.
    fn write_handshake(&mut self, epoch: Epoch, out: &mut [u8], draft: &mut Draft) -> usize {
        let mut writer = FrameWriter::new(out);
        self.write_ping(&mut writer, draft);
        self.write_crypto(epoch, &mut writer, draft);
        writer.written()
    }

    /// Writes what is to be sent under 1-RTT keys: a report of what was restored, the packet's symbol (of at most `symbol_max`
    /// bytes, if the packet is to be protected), repair symbols. Gives the bytes of it.
    fn write_data(&mut self, now: Time, out: &mut [u8], symbol_max: Option<usize>, draft: &mut Draft) -> usize {
        let mut writer = FrameWriter::new(out);
        draft.ack_eliciting |= self.fec.restorer.write_report(&mut writer, &mut draft.frames);
        if self.has_ticket_to_send() {
            self.write_crypto(Epoch::OneRtt0, &mut writer, draft);
        }
        let start = writer.written();
        let symbol_end = out.len().min(symbol_max.map_or(usize::MAX, |most| start + most));
        let mut writer = FrameWriter::new(&mut out[start..symbol_end]);
        self.write_symbol(&mut writer, draft);
        let end = start + writer.written();
        draft.own_bytes = end - start;
        if symbol_max.is_some() && draft.protected {
            let number = self.pending.number;
            let path = self.path_view();
            self.fec.protector.gather(now, number, &out[start..end], &path);
            draft.frames.insert(0, SentFrame::Source { number });
        }
        let mut writer = FrameWriter::new(&mut out[end..]);
        self.write_repairs_into(now, true, &mut writer, draft);
        if writer.remaining() <= PADDED_ROOM_MAX && self.streams.has_pending() {
            writer.padding(PADDED_ROOM_MAX);
        }
        end + writer.written()
    }

    /// Writes everything of a packet that forward error correction protects.
    fn write_symbol(&mut self, writer: &mut FrameWriter<'_>, draft: &mut Draft) {
        self.write_ping(writer, draft);
        if self.pending.handshake_done && writer.handshake_done() {
            self.pending.handshake_done = false;
            draft.frames.push(SentFrame::HandshakeDone);
            draft.ack_eliciting = true;
        }
        let datagrams_first = self.pending.datagrams.go_first(self.streams.has_pending());
        if datagrams_first {
            self.write_datagrams_into(writer, draft);
        }
        let before = draft.frames.len();
        let filled = self.streams.fill(writer, &mut draft.frames);
        draft.ack_eliciting |= draft.frames.len() > before;
        if !datagrams_first {
            self.write_datagrams_into(writer, draft);
        }
        draft.retransmits = filled.resent;
        draft.protected |= filled.protected;
        if filled.urgent {
            draft.flags |= Flags::URG;
        }
        if filled.message_end {
            draft.flags |= Flags::PSH;
        }
    }

    fn write_datagrams_into(&mut self, writer: &mut FrameWriter<'_>, draft: &mut Draft) {
        let (protected, written) = self.write_datagrams(writer, &mut draft.frames);
        draft.protected |= protected;
        draft.ack_eliciting |= written;
    }

    fn write_repairs_into(&mut self, now: Time, other: bool, writer: &mut FrameWriter<'_>, draft: &mut Draft) {
        if self.write_repairs(now, other, writer, &mut draft.frames) {
            draft.repair_only = !draft.ack_eliciting;
            draft.ack_eliciting = true;
            draft.flags |= Flags::FEC;
        }
    }

    fn write_crypto(&mut self, epoch: Epoch, writer: &mut FrameWriter<'_>, draft: &mut Draft) {
        let Some(handshake) = self.handshake.as_deref_mut() else { return };
        if epoch == Epoch::Initial
            && let Some(cookie) = handshake.cookie.clone()
        {
            let fits = writer.cookie(&cookie);
            debug_assert!(fits, "a cookie is short");
        }
        let Some(send) = handshake.send(epoch) else { return };
        while send.has_pending() {
            // Offsets of handshake bytes take four bytes at most.
            let Some(room) = crypto_capacity(u64::from(u16::MAX), writer.remaining()) else { break };
            let Some((offset, data)) = send.take(room) else { break };
            let Some(place) = writer.begin_crypto(offset, data.len()) else { break };
            place.copy_from_slice(data);
            draft.frames.push(SentFrame::Crypto { epoch, offset, len: data.len() as u32 });
            draft.ack_eliciting = true;
        }
        if epoch == Epoch::Initial && draft.ack_eliciting {
            // Every SYN is as long as the path has to carry at least, whatever its acknowledgements take.
            writer.padding(usize::from(SYN_SIZE));
        }
    }

    /// Puts header and blocks before the payload that has been written, and seals it.
    pub(super) fn seal(
        &mut self,
        epoch: Epoch,
        blocks: &SackBlocks,
        flags: Flags,
        payload_len: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let key = self.keys.local(epoch)?;
        let head = HEADER_LEN + blocks.encoded_len();
        let number = self.pending.number;
        self.pending.number += 1;
        let header = Header {
            version: VERSION,
            epoch: self.keys.epoch_on_wire(epoch),
            flags,
            guuid: self.id.guuid,
            sequence: number as u32,
            ack: blocks.as_slice().first().map_or(0, |block| block.end.wrapping_add(1)),
            payload_len: payload_len as u16,
        };
        header.encode(out);
        blocks.encode(&mut out[HEADER_LEN..]);
        let (header, payload) = out[..head + payload_len].split_at_mut(head);
        self.told.log.sent((number, epoch), blocks, head + payload_len, &payload[..payload_len - TAG_LEN]);
        key.seal(number, header, payload);
        match self.keys.phases() {
            Some(phases) if epoch.is_one_rtt() => phases.on_sealed(number, flags.contains(Flags::ACK)),
            Some(phases) => phases.on_handshake_sealed(),
            None => {}
        }
        Some(head + payload_len)
    }

    pub(super) fn on_written(&mut self, now: Time, epoch: Epoch, size: usize, draft: Draft) {
        self.counts.retransmissions += u64::from(draft.retransmits);
        if draft.ack_eliciting {
            self.pending.ack_only_run = 0;
            self.timers.on_sent_eliciting(now);
        }
        if !draft.ack_eliciting && self.received.ranges().nth(1).is_none() {
            // A connection at rest acknowledges PINGs for days, and nobody acknowledges that.
            self.recovery.forget_reports();
        }
        self.mark_written(draft.ack_eliciting);
        self.recovery.on_sent(
            now,
            Outgoing {
                number: self.pending.number - 1,
                epoch,
                size: size as u16,
                ack_eliciting: draft.ack_eliciting,
                repair_only: draft.repair_only,
                marked: self.path.is_marking,
                in_flight: draft.ack_eliciting,
                frames: draft.frames,
            },
        );
        if draft.ack_eliciting && self.recovery.probes_pending() > 0 {
            self.recovery.on_probe_sent();
        }
        if epoch == Epoch::Handshake && self.id.side == Side::Client {
            // Having these keys, it has all that the server says in epoch 0 (RFC 9001 section 4.9.1).
            self.discard(Epoch::Initial);
        }
    }

    fn write_close(&mut self, epoch: Epoch, frame: &CloseFrame, out: &mut [u8]) -> Option<usize> {
        let blocks = SackBlocks::new();
        let end = out.len() - TAG_LEN;
        let mut writer = FrameWriter::new(&mut out[HEADER_LEN..end]);
        let fits = if frame.application && !epoch.is_one_rtt() {
            // The application's words are not for everyone who sees the connection's id.
            writer.connection_close(TransportErrorCode::NoError as u64, false, &[])
        } else {
            writer.connection_close(frame.code, frame.application, &frame.reason)
        };
        debug_assert!(fits, "a close is short");
        let payload_len = writer.written() + TAG_LEN;
        let mut flags = Flags::FIN;
        if !epoch.is_one_rtt() {
            flags |= Flags::SYN;
        }
        self.seal(epoch, &blocks, flags, payload_len, out)
    }
}
