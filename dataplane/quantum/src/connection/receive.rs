//! Packets that come in: opened, checked, taken apart.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Connection, FIRST_NUMBER, State};
use crate::crypto::reset::is_reset;
use crate::observer::{LogEvent, PacketInfo};
use crate::path::{Addresses, ECN_CE, Footprint};
use crate::recovery::ReceivedInfo;
use crate::wire::{Ack, Epoch, Flags, Frame, FrameIter, Header, SackBlocks, VERSION, VersionNegotiation, expand};
use crate::{CloseReason, Side, Time, TransportError, TransportErrorCode};

/// A packet as it was found in a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) header: Header,
    pub(crate) blocks: SackBlocks,
    pub(crate) remote: SocketAddr,
    /// The address of this host that it came to, where that is known.
    pub(crate) local: Option<IpAddr>,
    /// The two ECN bits of the IP header.
    pub(crate) ecn: u8,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was authentic and new.
    Taken,
    /// Its number had come before.
    Duplicate,
    /// It failed authentication.
    Unauthentic,
    /// Its keys are gone or not there yet, or the connection is over.
    Dropped,
}

/// The packet that a frame came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) number: u64,
    pub(super) epoch: Epoch,
    /// It did not come, and was restored.
    pub(super) restored: bool,
    /// Where it came from, and to.
    pub(super) addresses: Addresses,
    /// It echoes a congestion mark.
    pub(super) ce: bool,
}

/// Acknowledged numbers, inclusive, newest first.
pub(super) type Ranges = SmallVec<[(u64, u64); 8]>;

fn violation(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::ProtocolViolation, reason)
}

impl Connection {
    /// Takes a packet in. `segment` is decrypted in place.
    pub(crate) fn handle_packet(&mut self, now: Time, arrival: &Arrival, segment: &mut [u8]) -> Verdict {
        let verdict = self.open_packet(now, arrival, segment);
        while let Some(mut early) = self.keys.take_early() {
            self.open_packet(now, &early.arrival, &mut early.segment);
        }
        verdict
    }

    fn open_packet(&mut self, now: Time, arrival: &Arrival, segment: &mut [u8]) -> Verdict {
        let header = &arrival.header;
        let number = expand(header.sequence, self.received.largest().map_or(FIRST_NUMBER, |largest| largest + 1));
        let is_stateless = number < FIRST_NUMBER;
        if self.is_closed() || is_stateless && (header.epoch != Epoch::Initial || self.id.side == Side::Server) {
            return Verdict::Dropped;
        }
        if self.is_stateless_reset(arrival, segment) {
            self.end(CloseReason::Reset);
            return Verdict::Taken;
        }
        if self.received.is_duplicate(number) {
            return Verdict::Duplicate;
        }
        let Some((key, phase)) = self.keys.opener(now, header.epoch, number) else {
            self.keys.keep_early(arrival, segment);
            return Verdict::Dropped;
        };
        let (head, payload) = segment.split_at_mut(segment.len() - usize::from(header.payload_len));
        let Some(len) = key.open(number, head, payload) else { return self.on_not_opened(now, phase) };
        if !self.on_opened_by(now, phase, number) {
            return Verdict::Taken;
        }
        let plaintext = segment.len() - usize::from(header.payload_len);
        let size = segment.len() as u64;
        self.take_in(now, arrival, number, (&segment[plaintext..plaintext + len], size));
        Verdict::Taken
    }

    /// The server speaks other versions. Heeded only before anything authentic came, since anybody could say so.
    pub(crate) fn on_version_negotiation(&mut self, negotiation: &VersionNegotiation) {
        let is_answer = (FIRST_NUMBER..self.pending.number).any(|number| number as u32 == negotiation.sequence);
        let is_first = self.counts.packets_received == 0 && (self.is_handshaking() || self.is_usable());
        if self.id.side == Side::Client && is_first && is_answer && !negotiation.supports(VERSION) {
            self.end(CloseReason::VersionMismatch { versions: negotiation.versions });
        }
    }

    fn is_stateless_reset(&self, arrival: &Arrival, segment: &[u8]) -> bool {
        arrival.header.flags.contains(Flags::RST)
            && arrival.remote == self.path.remote
            && self.keys.reset_token().is_some_and(|token| is_reset(segment, token))
            && !matches!(self.state, State::Closing(_))
    }

    /// Takes in an authentic packet: its number, plaintext and size.
    pub(crate) fn take_in(&mut self, now: Time, arrival: &Arrival, number: u64, (payload, size): (&[u8], u64)) {
        let epoch = arrival.header.epoch;
        if self.told.log.is_on() {
            let (blocks, size) = (arrival.blocks.as_slice(), size as usize);
            let packet = PacketInfo { number, epoch, size, blocks, frames: payload };
            self.told.log.record(now, &LogEvent::PacketReceived(packet));
        }
        self.counts.packets_received += 1;
        self.counts.bytes_received += size;
        self.path.on_received(arrival.remote, size);
        self.keys.on_proven(epoch);
        if matches!(self.state, State::Closing(_)) {
            self.on_packet_while_closing(payload);
            return;
        }
        self.timers.on_received(now);
        if epoch == Epoch::Handshake {
            // The peer has these keys: it needs nothing of epoch 0 any more (RFC 9001 section 4.9.1).
            self.path.validated = true;
            if self.id.side == Side::Server {
                self.discard(Epoch::Initial);
            }
        }
        if let Err(error) = self.take_apart(now, arrival, number, (payload, size)) {
            self.fail(now, &error);
        }
    }

    fn take_apart(
        &mut self,
        now: Time,
        arrival: &Arrival,
        number: u64,
        (payload, bytes): (&[u8], u64),
    ) -> Result<(), TransportError> {
        let Arrival { header, blocks, ecn, .. } = arrival;
        let mut has_content = false;
        let mut info = ReceivedInfo {
            ack_eliciting: false,
            repair_only: true,
            message_end: header.flags.contains(Flags::PSH),
            ce: *ecn == ECN_CE,
            epoch: header.epoch,
        };
        let (epoch, ce, addresses) = (header.epoch, header.flags.contains(Flags::ECE), (arrival.remote, arrival.local));
        let context = Context { number, epoch, restored: false, addresses, ce };
        let mut explores = !payload.is_empty();
        // An ACK frame repeats what the header reports, and knows the delay as well. It comes first.
        let has_ack_frame = matches!(FrameIter::new(payload).next(), Some(Ok(Frame::Ack(_))));
        if header.epoch == Epoch::ZeroRtt {
            self.on_early_packet(header.flags)?;
        }
        if header.flags.contains(Flags::ACK) {
            let ranges = self.expand_blocks(header.ack, blocks)?;
            self.check_phase(header.epoch, &ranges)?;
            if !has_ack_frame {
                let ce = self.path.ecn.tells_congestion(context.ce, None);
                self.on_ack(now, header.epoch, &ranges, (Duration::ZERO, ce));
            }
        } else if !blocks.is_empty() {
            return Err(violation("SACK blocks without an acknowledgement"));
        }
        if header.epoch.is_one_rtt() {
            self.fec.restorer.on_packet(now, number, self.received.largest());
        }
        let mut frames = FrameIter::new(payload);
        let mut symbol = SmallVec::<[Range<usize>; 2]>::new();
        while let (start, Some(frame)) = (payload.len() - frames.remaining(), frames.next()) {
            let frame = frame?;
            info.ack_eliciting |= frame.is_ack_eliciting();
            explores &= frame.is_exploring();
            info.repair_only &= matches!(frame, Frame::Repair(_) | Frame::Ack(_) | Frame::Padding(_));
            has_content |= frame.is_ack_eliciting() && frame != Frame::Ping;
            if frame.is_protected() {
                symbol.push(start..payload.len() - frames.remaining());
            }
            self.on_frame(now, context, frame)?;
            if !matches!(self.state, State::Handshaking | State::Early | State::Open) {
                return Ok(());
            }
        }
        if has_content {
            self.timers.on_content(now, self.id.side);
        }
        let is_newest = self.received.largest().is_none_or(|largest| number > largest);
        if number >= FIRST_NUMBER && self.received.on_received(now, number, info) && header.epoch.is_one_rtt() {
            self.path.marks.on_received(*ecn);
            let footprint = Footprint { addresses, number, bytes, is_newest, explores };
            self.path.migration.on_packet(now, self.path.remote, &footprint);
        }
        if header.epoch.is_one_rtt() {
            if !symbol.is_empty() && self.fec.restorer.keeps_symbols() {
                self.keep_symbol(number, symbol.into_iter().map(|part| &payload[part]))?;
            }
            self.take_restored(now, context)?;
        }
        Ok(())
    }

    fn on_early_packet(&mut self, flags: Flags) -> Result<(), TransportError> {
        self.keys.count_early();
        if flags.contains(Flags::ACK) { Err(violation("an acknowledgement in early data")) } else { Ok(()) }
    }

    pub(super) fn on_frame(&mut self, now: Time, context: Context, frame: Frame<'_>) -> Result<(), TransportError> {
        let Context { number, epoch, restored, addresses, ce } = context;
        if !self.may_carry(epoch, &frame) {
            return Err(violation("a frame in an epoch, or from a side, that may not send it"));
        }
        match frame {
            Frame::Padding(_) | Frame::Ping | Frame::DataBlocked(_) | Frame::StreamsBlocked(_) => Ok(()),
            Frame::Ack(ack) => self.on_ack_frame(now, epoch, ack, ce),
            Frame::Crypto { offset, data } => self.on_crypto(now, epoch, offset, data),
            Frame::Cookie(token) => {
                self.on_cookie(now, token);
                Ok(())
            }
            Frame::ConnectionClose { code, application, reason } => {
                // Anybody who sees the connection's id can write packets of epoch 0.
                if epoch != Epoch::Initial || self.keys.proven() == Epoch::Initial {
                    let reason = Bytes::copy_from_slice(reason);
                    self.drain(now, CloseReason::Peer { code, application, reason });
                }
                Ok(())
            }
            Frame::HandshakeDone => {
                self.confirm();
                Ok(())
            }
            Frame::Repair(repair) => self.on_repair(number, &repair),
            Frame::Datagram(data) => self.on_datagram(number, restored, data),
            Frame::Recovered(ranges) => self.on_recovered(now, ranges),
            Frame::PathChallenge(challenge) => {
                self.on_path_challenge(addresses, challenge);
                Ok(())
            }
            Frame::PathResponse(challenge) => {
                self.on_path_response(now, addresses.0, challenge);
                Ok(())
            }
            frame => self.on_stream_frame(&frame),
        }
    }

    /// Whether the peer may send the frame in that epoch.
    fn may_carry(&self, epoch: Epoch, frame: &Frame<'_>) -> bool {
        let is_client = self.id.side == Side::Client;
        match frame {
            Frame::Padding(_) | Frame::Ping => true,
            Frame::ConnectionClose { application, .. } => !application || epoch.is_application(),
            // After the handshake: session tickets, to a client that asked for them.
            Frame::Crypto { .. } if epoch.is_one_rtt() => is_client && self.config.security.early_data,
            Frame::Ack(_) | Frame::Crypto { .. } => epoch != Epoch::ZeroRtt,
            Frame::Cookie(_) => epoch == Epoch::Initial,
            Frame::HandshakeDone => epoch.is_one_rtt() && is_client,
            Frame::Datagram(_)
            | Frame::Repair(_)
            | Frame::Recovered(_)
            | Frame::PathChallenge(_)
            | Frame::PathResponse(_) => epoch.is_one_rtt(),
            _ => epoch.is_application(),
        }
    }

    fn on_stream_frame(&mut self, frame: &Frame<'_>) -> Result<(), TransportError> {
        match *frame {
            Frame::Stream { id, offset, data, fin } => self.streams.on_stream(id, offset, data, fin),
            Frame::ResetStream { id, code, final_size } => self.streams.on_reset_stream(id, code, final_size),
            Frame::StopSending { id, code } => self.streams.on_stop_sending(id, code),
            Frame::MaxStreamData { id, max } => self.streams.on_max_stream_data(id, max),
            Frame::StreamDataBlocked { id, .. } => self.streams.on_stream_data_blocked(id),
            Frame::MaxData(max) => {
                self.streams.on_max_data(max);
                Ok(())
            }
            Frame::MaxStreams(max) => {
                self.streams.on_max_streams(max);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The whole numbers of SACK blocks (PROTOCOL.md 1.3).
    fn expand_blocks(&self, ack: u32, blocks: &SackBlocks) -> Result<Ranges, TransportError> {
        let mut ranges = Ranges::new();
        let mut near = self.pending.number - 1;
        for block in blocks.as_slice() {
            let last = expand(block.end, near);
            let first = expand(block.start, last);
            ranges.push((first, last));
            near = first;
        }
        if blocks.as_slice().first().is_none_or(|block| block.end != ack.wrapping_sub(1)) {
            return Err(violation("SACK block 0 does not end at the acknowledged number"));
        }
        self.check_ranges(&ranges)?;
        Ok(ranges)
    }

    fn on_ack_frame(&mut self, now: Time, epoch: Epoch, ack: Ack<'_>, ce: bool) -> Result<(), TransportError> {
        let delay = Duration::from_micros(ack.delay_micros);
        let mut ranges = std::mem::take(&mut self.outcome.get_or_insert_default().ranges);
        ranges.clear();
        ranges.extend(ack.ranges.map(|range| (*range.start(), *range.end())));
        let checked = self.check_ranges(&ranges).and_then(|()| self.check_phase(epoch, &ranges));
        if checked.is_ok() {
            self.on_ack_with_counts(now, (epoch, &ranges), (delay, ce), ack.ecn);
        }
        self.outcome.get_or_insert_default().ranges = ranges;
        checked
    }

    /// Numbers that were never sent, and ranges that are not apart and descending, are a fault.
    pub(super) fn check_ranges(&self, ranges: &[(u64, u64)]) -> Result<(), TransportError> {
        let mut above = self.pending.number + 1;
        for &(first, last) in ranges {
            if first > last || last + 1 >= above || first < FIRST_NUMBER {
                return Err(violation("acknowledges packets that were never sent, or out of order"));
            }
            above = first;
        }
        if self.names_skipped_number(ranges) {
            return Err(violation("acknowledges a packet number that was left out"));
        }
        Ok(())
    }

    pub(super) fn on_ack(&mut self, now: Time, epoch: Epoch, ranges: &[(u64, u64)], report: (Duration, bool)) {
        let epoch = if epoch.is_one_rtt() { Epoch::OneRtt0 } else { epoch };
        let mut outcome = self.outcome.take().unwrap_or_default();
        self.recovery.on_ack(now, (epoch, ranges), report, &mut outcome);
        self.outcome = Some(outcome);
        self.settle(now);
    }

    fn on_packet_while_closing(&mut self, payload: &[u8]) {
        let epochs = self.epochs_for_close();
        let State::Closing(closing) = &mut self.state else { return };
        let peer_closes = FrameIter::new(payload).any(|frame| matches!(frame, Ok(Frame::ConnectionClose { .. })));
        if peer_closes {
            closing.drain();
        } else {
            closing.on_packet(epochs);
        }
    }
}
