//! Two ends joined by frames, without a connection around them.

mod delivery;
mod flow;
mod hostile;
mod pipe;
mod priority;

use bytes::Bytes;

use super::frames::Filled;
use super::*;
use crate::sent_frame::SentFrames;
use crate::wire::{Frame, FrameIter, FrameWriter};

/// What one packet carried, and what its sender remembers of it.
struct Packet {
    bytes: Vec<u8>,
    sent: SentFrames,
    filled: Filled,
}

/// Both ends of a connection.
struct Pair {
    client: Streams,
    server: Streams,
}

const CONFIG: StreamsConfig =
    StreamsConfig { stream_window: 10_000, connection_window: 50_000, streams_max: 16, send_buffer_max: 20_000 };

impl Pair {
    fn new(config: StreamsConfig) -> Self {
        Self { client: end(Side::Client, config), server: end(Side::Server, config) }
    }

    /// Carries everything over, without loss, and acknowledges it, until nobody has anything to send.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let there = carry(&mut self.client, &mut self.server);
            let back = carry(&mut self.server, &mut self.client);
            if !there && !back {
                return;
            }
        }
        panic!("the two ends never come to rest");
    }
}

/// An end whose peer has the same limits.
fn end(side: Side, config: StreamsConfig) -> Streams {
    let mut streams = Streams::new(side, config);
    streams.set_peer_limits(PeerLimits {
        stream_window: config.stream_window,
        connection_window: config.connection_window,
        streams_max: config.streams_max,
    });
    streams
}

/// The next packet. Holds the end to what it says of having something to send.
fn packet(streams: &mut Streams, size: usize) -> Option<Packet> {
    let pending = streams.has_pending();
    let mut bytes = vec![0; size];
    let mut writer = FrameWriter::new(&mut bytes);
    let mut sent = SentFrames::new();
    let filled = streams.fill(&mut writer, &mut sent);
    let len = writer.written();
    bytes.truncate(len);
    assert_eq!(pending, len > 0, "has_pending tells whether a packet gets filled");
    assert_eq!(len > 0, !sent.is_empty());
    pending.then_some(Packet { bytes, sent, filled })
}

fn deliver(streams: &mut Streams, payload: &[u8]) -> Result<(), TransportError> {
    for frame in FrameIter::new(payload) {
        match frame? {
            Frame::Stream { id, offset, data, fin } => streams.on_stream(id, offset, data, fin)?,
            Frame::ResetStream { id, code, final_size } => streams.on_reset_stream(id, code, final_size)?,
            Frame::StopSending { id, code } => streams.on_stop_sending(id, code)?,
            Frame::StreamDataBlocked { id, .. } => streams.on_stream_data_blocked(id)?,
            Frame::MaxData(limit) => streams.on_max_data(limit),
            Frame::MaxStreamData { id, max } => streams.on_max_stream_data(id, max)?,
            Frame::MaxStreams(limit) => streams.on_max_streams(limit),
            other => panic!("{other:?} is no frame of streams"),
        }
    }
    Ok(())
}

fn acknowledge(streams: &mut Streams, packet: &Packet) {
    packet.sent.iter().for_each(|frame| streams.on_acked(frame));
}

fn lose(streams: &mut Streams, packet: &Packet) {
    packet.sent.iter().for_each(|frame| streams.on_lost(frame));
}

fn carry(from: &mut Streams, to: &mut Streams) -> bool {
    let mut any = false;
    while let Some(packet) = packet(from, 1200) {
        deliver(to, &packet.bytes).unwrap();
        acknowledge(from, &packet);
        any = true;
    }
    any
}

fn events(streams: &mut Streams) -> Vec<Event> {
    std::iter::from_fn(|| streams.poll_event()).collect()
}

/// The frames of a packet, as text.
fn frames(packet: &Packet) -> Vec<String> {
    FrameIter::new(&packet.bytes)
        .map(|frame| match frame.unwrap() {
            Frame::Stream { id, offset, data, fin } => format!("stream {} {offset}+{} {fin}", id.0, data.len()),
            other => format!("{other:?}"),
        })
        .collect()
}

fn write(streams: &mut Streams, id: StreamId, len: usize) -> usize {
    streams.write(id, &mut Bytes::from(vec![7; len])).unwrap()
}

/// Reads until nothing is left; gives the bytes and how it ended.
fn read_all(streams: &mut Streams, id: StreamId) -> (Vec<u8>, Read) {
    let mut bytes = Vec::new();
    loop {
        match streams.read(id, usize::MAX) {
            Read::Data(data) => bytes.extend_from_slice(&data),
            end => return (bytes, end),
        }
    }
}

/// A stream of the client that both ends know, with nothing on it.
fn opened(pair: &mut Pair) -> StreamId {
    let id = pair.client.open().unwrap();
    write(&mut pair.client, id, 1);
    pair.settle();
    assert_eq!(read_all(&mut pair.server, id), (vec![7], Read::Blocked));
    events(&mut pair.client);
    events(&mut pair.server);
    id
}
