//! Two ends and two applications joined by a pipe that loses, reorders and duplicates, all of it drawn from a seed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Steps after which a world that has not come to an end is stuck.
const STEPS_MAX: usize = 400_000;

/// An application at one end. It acts on events alone: it reads after [`Event::StreamReadable`] until a read finds nothing,
/// and so on; what forgets to tell it something leaves it waiting.
struct App {
    streams: Streams,
    side: Side,
    config: StreamsConfig,
    opens_left: usize,
    open_blocked: bool,
    open: BTreeMap<StreamId, Use>,
    over: BTreeMap<StreamId, Use>,
    /// Packets of this end that are on their way, or have been lost and not been missed.
    wire: Vec<Flight>,
}

struct Flight {
    packet: Packet,
    arrives: bool,
    /// Whether the sender thinks it lost although it arrives.
    spurious: bool,
}

/// What an application does with a stream.
#[derive(Debug, Default)]
struct Use {
    /// It may reset or stop the stream. Most streams go their whole way: an end by force would hide a missing event.
    gives_up: bool,
    to_write: u64,
    written: u64,
    waits_for_room: bool,
    finished: bool,
    delivered: bool,
    reset: Option<u64>,
    read: u64,
    readable: bool,
    /// How reading ended; [`Read::Blocked`] if this side stopped.
    read_end: Option<Read>,
}

impl Use {
    fn is_over(&self) -> bool {
        self.read_end.is_some() && (self.delivered || self.reset.is_some())
    }
}

/// The byte at `offset` of what `writer` writes to a stream.
fn content(writer: Side, id: StreamId, offset: u64) -> u8 {
    let side = u64::from(writer == Side::Server);
    ((offset ^ id.0 << 3 ^ side << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl App {
    fn new(side: Side, config: StreamsConfig, peer: StreamsConfig, opens: usize) -> Self {
        let mut streams = Streams::new(side, config);
        streams.set_peer_limits(PeerLimits {
            stream_window: peer.stream_window,
            connection_window: peer.connection_window,
            streams_max: peer.streams_max,
        });
        Self {
            streams,
            side,
            config,
            opens_left: opens,
            open_blocked: false,
            open: BTreeMap::new(),
            over: BTreeMap::new(),
            wire: Vec::new(),
        }
    }

    fn act(&mut self, rng: &mut StdRng) {
        self.hear();
        if self.opens_left > 0 && !self.open_blocked && rng.random_bool(0.2) {
            match self.streams.open() {
                Ok(id) => {
                    self.opens_left -= 1;
                    self.begin(id, rng);
                }
                Err(_) => self.open_blocked = true,
            }
        }
        let ids: Vec<StreamId> = self.open.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[rng.random_range(0..ids.len())];
        match rng.random_range(0..200) {
            0 if self.open[&id].gives_up => self.reset(id, rng.random_range(0..1000)),
            1 if self.open[&id].gives_up => self.stop(id, rng.random_range(0..1000)),
            0..100 => self.write(id, rng),
            _ => self.read(id, rng),
        }
        if self.open[&id].is_over() {
            let done = self.open.remove(&id).unwrap();
            self.over.insert(id, done);
        }
    }

    fn begin(&mut self, id: StreamId, rng: &mut StdRng) {
        let to_write = if rng.random_bool(0.2) { 0 } else { rng.random_range(0..12_000) };
        self.open.insert(id, Use { to_write, gives_up: rng.random_bool(0.2), ..Use::default() });
    }

    fn hear(&mut self) {
        while let Some(event) = self.streams.poll_event() {
            match event {
                Event::StreamOpened(id) => {
                    let (to_write, gives_up) = (id.0 * 997 % 9_000, id.index() % 5 == 0);
                    let used = Use { gives_up, to_write, ..Use::default() };
                    assert!(self.open.insert(id, used).is_none(), "opened twice");
                    assert!(!self.over.contains_key(&id), "opened again");
                }
                Event::StreamReadable(id) => {
                    let used = self.open.get_mut(&id).expect("only a live stream is readable");
                    assert!(!std::mem::replace(&mut used.readable, true), "told twice");
                }
                Event::StreamWritable(id) => {
                    let used = self.open.get_mut(&id).expect("only a live stream is writable");
                    assert!(std::mem::replace(&mut used.waits_for_room, false), "told without waiting");
                }
                Event::StreamDelivered(id) => {
                    let used = self.open.get_mut(&id).expect("only a live stream is delivered");
                    assert!(used.finished && !std::mem::replace(&mut used.delivered, true));
                }
                Event::StreamStopped(id, code) => {
                    let used = self.open.get_mut(&id).expect("only a live stream is stopped");
                    assert!(used.reset.replace(code).is_none(), "stopped after a reset");
                    let result = self.streams.write(id, &mut Bytes::from_static(b"x"));
                    assert!(matches!(result, Err(WriteError::Stopped(_) | WriteError::Closed)), "{result:?}");
                }
                Event::StreamsAvailable => assert!(std::mem::replace(&mut self.open_blocked, false)),
                other => panic!("{other:?} is no event of streams"),
            }
        }
        let over: Vec<StreamId> = self.open.iter().filter(|(_, used)| used.is_over()).map(|(id, _)| *id).collect();
        for id in over {
            let done = self.open.remove(&id).unwrap();
            self.over.insert(id, done);
        }
    }

    fn write(&mut self, id: StreamId, rng: &mut StdRng) {
        let used = self.open.get_mut(&id).unwrap();
        if used.finished || used.reset.is_some() || used.waits_for_room {
            return;
        }
        if used.written == used.to_write {
            self.streams.finish(id).unwrap();
            used.finished = true;
            return;
        }
        let len_max = if rng.random_bool(0.5) { 20 } else { 3_000 };
        let len = rng.random_range(1..=len_max).min(used.to_write - used.written);
        let bytes = (used.written..used.written + len).map(|offset| content(self.side, id, offset));
        let mut data = bytes.collect::<Bytes>();
        used.written += self.streams.write(id, &mut data).unwrap() as u64;
        used.waits_for_room = !data.is_empty();
    }

    fn read(&mut self, id: StreamId, rng: &mut StdRng) {
        let used = self.open.get_mut(&id).unwrap();
        if !used.readable || used.read_end.is_some() {
            return;
        }
        let writer = if self.side == Side::Client { Side::Server } else { Side::Client };
        let max = rng.random_range(1..4_000);
        match self.streams.read(id, max) {
            Read::Data(data) => {
                assert!(!data.is_empty() && data.len() <= max);
                for byte in data {
                    assert_eq!(byte, content(writer, id, used.read), "{id:?} at {}", used.read);
                    used.read += 1;
                }
            }
            Read::Blocked => used.readable = false,
            end => used.read_end = Some(end),
        }
    }

    fn reset(&mut self, id: StreamId, code: u64) {
        let used = self.open.get_mut(&id).unwrap();
        if !used.delivered && used.reset.is_none() {
            self.streams.reset(id, code);
            used.reset = Some(code);
        }
    }

    fn stop(&mut self, id: StreamId, code: u64) {
        let used = self.open.get_mut(&id).unwrap();
        if used.read_end.is_none() {
            self.streams.stop(id, code);
            used.read_end = Some(Read::Blocked);
        }
    }

    /// Sends a packet, maybe.
    fn send(&mut self, rng: &mut StdRng, loss: f64) {
        if self.wire.len() < 30
            && let Some(packet) = packet(&mut self.streams, rng.random_range(30..1_400))
        {
            let arrives = !rng.random_bool(loss);
            self.wire.push(Flight { packet, arrives, spurious: rng.random_bool(loss / 3.0) });
        }
    }

    /// Settles the fate of one packet that is on its way.
    fn land(&mut self, rng: &mut StdRng, peer: &mut Self, loss: f64) {
        if self.wire.is_empty() {
            return;
        }
        let index = rng.random_range(0..self.wire.len().min(8));
        if self.wire[index].arrives {
            deliver(&mut peer.streams, &self.wire[index].packet.bytes).unwrap();
            if rng.random_bool(loss) {
                // It comes once more, later.
                return;
            }
        }
        let flight = self.wire.remove(index);
        if !flight.arrives || flight.spurious {
            lose(&mut self.streams, &flight.packet);
        }
        if flight.arrives {
            acknowledge(&mut self.streams, &flight.packet);
        }
    }

    fn check_limits(&self) {
        let stats = self.streams.stats();
        let live = stats.live;
        let growth = self.config.connection_window as usize;
        assert!(stats.send_buffered_bytes <= live * self.config.send_buffer_max + growth);
        let windows = live as u64 * self.config.stream_window + self.config.connection_window;
        assert!(stats.receive_buffered_bytes as u64 <= windows);
        let remote = self.open.keys().filter(|id| id.opener() != self.side).count();
        assert!(remote as u64 <= self.config.streams_max);
    }

    fn is_done(&self) -> bool {
        self.opens_left == 0 && self.open.is_empty() && self.wire.is_empty() && !self.streams.has_pending()
    }

    /// Nothing may be left of all the streams.
    fn check_empty(&mut self, opened_by_peer: u64) {
        let stats = self.streams.stats();
        assert_eq!(stats, StreamsStats { resent_bytes: stats.resent_bytes, ..StreamsStats::default() });
        assert_eq!(self.streams.ids.unseen(), 0);
        let slots = self.streams.ids.remote().latest() - opened_by_peer;
        assert_eq!(slots, self.config.streams_max, "every slot is free again");
        assert!(self.streams.lines.fresh.is_empty() && self.streams.lines.resend.is_empty());
        assert!(self.streams.lines.control.is_empty());
    }
}

/// Compares what one end wrote with what the other one read.
fn check_direction(writer: &App, reader: &App) {
    for (id, wrote) in &writer.over {
        let Some(had) = reader.over.get(id) else {
            panic!("the peer never saw {id:?}");
        };
        match had.read_end.as_ref().unwrap() {
            Read::Finished => assert!(wrote.finished && had.read == wrote.written, "{id:?}: {wrote:?} {had:?}"),
            Read::Reset(code) => assert_eq!(wrote.reset, Some(*code)),
            _ => assert!(had.read <= wrote.written),
        }
        assert!(had.read <= wrote.written);
    }
}

fn run(seed: u64, config: [StreamsConfig; 2], opens: [usize; 2], loss: f64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = App::new(Side::Client, config[0], config[1], opens[0]);
    let mut server = App::new(Side::Server, config[1], config[0], opens[1]);
    for _ in 0..STEPS_MAX {
        client.act(&mut rng);
        server.act(&mut rng);
        client.send(&mut rng, loss);
        server.send(&mut rng, loss);
        client.land(&mut rng, &mut server, loss);
        server.land(&mut rng, &mut client, loss);
        client.check_limits();
        server.check_limits();
        if client.is_done() && server.is_done() {
            check_direction(&client, &server);
            check_direction(&server, &client);
            client.check_empty(opens[1] as u64);
            server.check_empty(opens[0] as u64);
            return;
        }
    }
    panic!("stuck: {:?} {:?}", client.open, server.open);
}

fn configs() -> impl Strategy<Value = StreamsConfig> {
    (1_u64..8_000, 1_u64..16_000, 1_u64..8, 1_usize..6_000).prop_map(
        |(stream_window, connection_window, streams_max, send_buffer_max)| StreamsConfig {
            // Tiny windows are a packet for every few bytes: legal, but they take the whole budget of steps.
            stream_window: stream_window.max(40),
            connection_window: connection_window.max(80),
            streams_max,
            send_buffer_max: send_buffer_max.max(20),
        },
    )
}

proptest! {
    #[test]
    fn two_ends_agree_over_a_pipe_that_loses_reorders_and_duplicates(
        seed in any::<u64>(),
        client in configs(),
        server in configs(),
        opens in (0_usize..24, 0_usize..24),
        loss in 0.0..0.4,
    ) {
        run(seed, [client, server], opens.into(), loss);
    }
}
