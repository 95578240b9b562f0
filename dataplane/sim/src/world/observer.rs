//! What can be checked of packets whose payload can be read: every one is well formed and within the credit that was given.

use std::collections::BTreeMap;

use quantum::session::TAG_LEN;
use quantum::wire::{
    Epoch, Flags, Frame, FrameIter, HEADER_LEN, Header, SACK_BLOCK_LEN, decode_version_negotiation, expand,
};
use quantum::{EndpointConfig, Guuid, StreamId};

use super::Direction;
use crate::Fault;

/// Checks the packets of all connections. It sees them as they are sent, before anything is lost.
pub(super) struct Observer {
    stream_window: u64,
    connection_window: u64,
    streams_max: u64,
    /// By connection, and by who sends.
    sides: BTreeMap<(Guuid, u8), Side>,
}

/// What one side of a connection has sent.
#[derive(Debug, Default)]
struct Side {
    /// The largest number.
    number: u64,
    /// From which number on each key phase of 1-RTT went.
    phases: Vec<(u64, Epoch)>,
    /// Where each stream ends so far.
    ends: BTreeMap<StreamId, u64>,
    /// Bytes on all streams, each up to its end.
    total: u64,
    /// Credit given to the other side, beyond what it has from the handshake.
    max_data: u64,
    max_streams: u64,
    max_stream_data: BTreeMap<StreamId, u64>,
}

impl Observer {
    pub(super) fn new(config: &EndpointConfig) -> Self {
        Self {
            stream_window: config.stream_window,
            connection_window: config.connection_window,
            streams_max: config.streams_max,
            sides: BTreeMap::new(),
        }
    }

    /// Checks a packet that is being sent.
    pub(super) fn packet(&mut self, direction: Direction, segment: &[u8]) -> Result<(), Fault> {
        // The answer to a packet whose version was corrupted.
        if direction == Direction::Down && decode_version_negotiation(segment).is_ok() {
            return Ok(());
        }
        let (header, blocks) = Header::decode(segment).map_err(|error| Fault::new(format!("no packet: {error}")))?;
        if header.flags.contains(Flags::RST) {
            return Ok(());
        }
        let fault = |what: String| Err(Fault::new(format!("{direction:?} {header:?}: {what}")));
        let side = self.sides.entry((header.guuid, direction as u8)).or_default();
        let number = expand(header.sequence, side.number + 1);
        // A number may be left out, never two in a row.
        if number != 0 && !(1..=2).contains(&number.saturating_sub(side.number)) {
            return fault(format!("number {number} comes after {}", side.number));
        }
        side.number = number.max(side.number);
        if header.epoch.is_one_rtt() && side.phases.last().is_none_or(|(_, epoch)| *epoch != header.epoch) {
            side.phases.push((number, header.epoch));
        }
        if header.flags.contains(Flags::SYN) == header.epoch.is_one_rtt() {
            return fault("SYN is of epochs 0 and 1".to_owned());
        }
        let other = self.sides.get(&(header.guuid, 1 - direction as u8)).map_or(0, |side| side.number);
        for block in blocks.as_slice() {
            if block.start > block.end || u64::from(block.end) > other {
                return fault(format!("{block:?} of {other} numbers"));
            }
        }
        let start = HEADER_LEN + blocks.len() * SACK_BLOCK_LEN;
        let payload = &segment[start..segment.len() - TAG_LEN];
        for frame in FrameIter::new(payload) {
            let frame = frame.map_err(|error| Fault::new(format!("{header:?}: {error}")))?;
            self.frame(direction, (&header, number), &frame)?;
        }
        Ok(())
    }

    fn frame(
        &mut self,
        direction: Direction,
        (header, number): (&Header, u64),
        frame: &Frame<'_>,
    ) -> Result<(), Fault> {
        let fault = |what: &str| Err(Fault::new(format!("{direction:?} {header:?}: {what}: {frame:?}")));
        let is_data = header.epoch.is_one_rtt();
        let is_right = match frame {
            Frame::Padding(_) | Frame::Ping | Frame::Ack(_) => true,
            Frame::Crypto { .. } => !is_data,
            Frame::Cookie(_) => header.epoch == Epoch::Initial,
            Frame::ConnectionClose { application, .. } => {
                header.flags.contains(Flags::FIN) && (is_data || !application)
            }
            Frame::Repair(_) => is_data && header.flags.contains(Flags::FEC),
            Frame::HandshakeDone => is_data && direction == Direction::Down,
            _ => is_data,
        };
        if !is_right {
            return fault("in the wrong epoch, direction, or without its flag");
        }
        let side = self.sides.entry((header.guuid, direction as u8)).or_default();
        match *frame {
            Frame::MaxData(max) => side.max_data = side.max_data.max(max),
            Frame::MaxStreams(max) => side.max_streams = side.max_streams.max(max),
            Frame::MaxStreamData { id, max } => {
                let known = side.max_stream_data.entry(id).or_default();
                *known = max.max(*known);
            }
            Frame::Stream { id, offset, data, .. } => {
                return self.sent(direction, header, id, offset + data.len() as u64);
            }
            Frame::Repair(ref repair) => {
                let members = repair.members(number).into_iter().flatten();
                let phase = |number: u64| side.phases.partition_point(|(first, _)| *first <= number);
                let (newest, oldest) = members.fold((0, u64::MAX), |(newest, oldest), range| {
                    (newest.max(*range.end()), oldest.min(*range.start()))
                });
                if phase(newest) != phase(oldest) {
                    return fault("a group crosses key phases");
                }
            }
            Frame::ResetStream { id, final_size, .. } => return self.sent(direction, header, id, final_size),
            _ => {}
        }
        Ok(())
    }

    /// A side has sent of a stream up to `end`: within what the other one has allowed.
    fn sent(&mut self, direction: Direction, header: &Header, id: StreamId, end: u64) -> Result<(), Fault> {
        let credit = self.sides.get(&(header.guuid, 1 - direction as u8));
        let given = credit.and_then(|side| side.max_stream_data.get(&id)).copied().unwrap_or(0);
        let stream_max = self.stream_window.max(given);
        let total_max = self.connection_window.max(credit.map_or(0, |side| side.max_data));
        let streams_max = self.streams_max.max(credit.map_or(0, |side| side.max_streams));
        let side = self.sides.entry((header.guuid, direction as u8)).or_default();
        let known = side.ends.entry(id).or_default();
        side.total += end.saturating_sub(*known);
        *known = end.max(*known);
        let is_own = (id.opener() == quantum::Side::Client) == (direction == Direction::Up);
        if end > stream_max || side.total > total_max || is_own && id.index() >= streams_max {
            return Err(Fault::new(format!(
                "{direction:?} {header:?}: {id:?} up to {end}, {} in all, over the credit of {stream_max}, {total_max} \
                 and {streams_max} streams",
                side.total
            )));
        }
        Ok(())
    }
}
