//! A client and a server in the hands of a list of bytes: each says what happens next, on the path, in an application, or to the
//! clock. Whatever they say, what has to hold of every connection holds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quantum::{ConnectionHandle, Endpoint, EndpointConfig, Event, Read, Side, StreamId, Time};

use super::Route;
use super::endpoints::Factory;
use crate::cipher::seal_again;
use crate::{Cipher, Datagram, Fault, Rng};

/// Datagrams under way in one direction at most; the oldest is lost then.
const UNDER_WAY_MAX: usize = 64;
/// Transmits at one moment at most: more mean that an endpoint goes on without end.
const TRANSMITS_MAX: usize = 10_000;
/// A world that is left alone is over after so long: the longest timers take their turns.
const REST: Duration = Duration::from_mins(5);
/// Moments in which it rests at most.
const MOMENTS_MAX: u32 = 200_000;
/// One way, once nobody interferes any more.
const DELAY: Duration = Duration::from_millis(5);

/// What an application knows of a stream.
#[derive(Debug, Default)]
struct Stream {
    written: u64,
    read: u64,
    /// It wrote the end, reset the stream or was asked to stop.
    ended: bool,
    read_all: bool,
}

/// One end of the connection.
struct End {
    endpoint: Endpoint,
    address: SocketAddr,
    handle: Option<ConnectionHandle>,
    streams: BTreeMap<StreamId, Stream>,
    connected: bool,
    closed: bool,
    /// Datagrams to this end.
    inbox: Vec<Datagram<Route>>,
}

/// Both ends.
pub struct Duel {
    now: Time,
    ends: [End; 2],
    buffer: Vec<u8>,
    limits: EndpointConfig,
    /// Packets were forged with the connection's keys: an end may be closed by the other, and bytes may be anything.
    forged: bool,
    /// An application closed, gave streams up, or time passed in silence: not everything has to arrive.
    abandoned: bool,
}

impl Duel {
    /// A client that has just begun to connect. The same seed and the same steps give the same world.
    pub fn new(seed: u64) -> Self {
        let config = EndpointConfig {
            stream_window: 8 << 10,
            connection_window: 32 << 10,
            streams_max: 8,
            send_buffer_max: 16 << 10,
            segments_max: 4,
            ..EndpointConfig::default()
        };
        let mut factory = Factory::with_config(config.clone(), Rng::derive(seed, 300), Cipher::Null);
        let address = |host| SocketAddr::from(([10, 0, host, 1], 4_433));
        let end = |endpoint, host| End {
            endpoint,
            address: address(host),
            handle: None,
            streams: BTreeMap::new(),
            connected: false,
            closed: false,
            inbox: Vec::new(),
        };
        let mut duel = Self {
            now: Time::ZERO + Duration::from_secs(1),
            ends: [end(factory.client(), 0), end(factory.server(), 1)],
            buffer: vec![
                0;
                config.segments_max * usize::from(config.path.datagram_size.max(config.path.datagram_size_max))
            ],
            limits: config,
            forged: false,
            abandoned: false,
        };
        let options = factory.connect_options(address(1));
        let handle = duel.ends[0].endpoint.connect(duel.now, options).expect("nothing else is connected");
        duel.ends[0].handle = Some(handle);
        duel
    }

    /// Does what the steps say, then lets the world rest until both ends have forgotten the connection.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(mut self, steps: &[u8]) -> Result<(), Fault> {
        self.settle()?;
        let mut steps = steps.iter().copied();
        while let Some(step) = steps.next() {
            let mut argument = || steps.next().unwrap_or(0);
            self.step(step, argument(), argument());
            self.settle()?;
        }
        self.rest()
    }

    /// One step: the low bit says at which end, three more what, the others and the arguments how.
    fn step(&mut self, step: u8, first: u8, second: u8) {
        let place = usize::from(step & 1);
        match step >> 1 & 15 {
            0..=3 => self.deliver(place, first),
            4 => drop(self.take(place, first)),
            5 => self.copy(place, first),
            6 => self.mutate(place, first, second, false),
            7 => self.mutate(place, first, second, true),
            8 | 9 => self.now += Duration::from_micros(u64::from(first) * 100),
            10 => self.now += Duration::from_millis(u64::from(first) * 4),
            11 => self.write(place, first, second),
            12 => self.open(place),
            13 => self.end_stream(place, first, second),
            14 => self.read(place, first),
            _ => self.rare(place, first),
        }
    }

    fn take(&mut self, place: usize, which: u8) -> Option<Datagram<Route>> {
        let inbox = &mut self.ends[place].inbox;
        (!inbox.is_empty()).then(|| inbox.remove(usize::from(which) % inbox.len()))
    }

    fn deliver(&mut self, place: usize, which: u8) {
        // The oldest one, most of the time.
        if let Some(datagram) = self.take(place, if which < 192 { 0 } else { which }) {
            super::receive(self.now, &mut self.ends[place].endpoint, datagram);
        }
    }

    fn copy(&mut self, place: usize, which: u8) {
        let inbox = &mut self.ends[place].inbox;
        if let Some(datagram) = inbox.get(usize::from(which) % inbox.len().max(1)).cloned() {
            inbox.push(datagram);
        }
    }

    /// Changes a byte of the newest datagram to that end; a peer with the keys seals it again.
    fn mutate(&mut self, place: usize, at: u8, change: u8, sealed: bool) {
        let sender = if place == 0 { Side::Server } else { Side::Client };
        let Some(datagram) = self.ends[place].inbox.last_mut() else { return };
        let payload = &mut datagram.payload;
        // Headers and the first frames are where it matters most.
        let at = usize::from(at) % payload.len();
        payload[at] ^= change;
        if sealed {
            self.forged = true;
            seal_again(sender, payload);
        }
    }

    fn stream(&self, place: usize, which: u8) -> Option<StreamId> {
        let streams = &self.ends[place].streams;
        streams.keys().nth(usize::from(which) % streams.len().max(1)).copied()
    }

    fn open(&mut self, place: usize) {
        let end = &mut self.ends[place];
        let Some(mut connection) = end.handle.and_then(|handle| end.endpoint.connection(handle)) else { return };
        if let Ok(id) = connection.open() {
            end.streams.insert(id, Stream::default());
        }
    }

    fn write(&mut self, place: usize, which: u8, len: u8) {
        let Some(id) = self.stream(place, which) else { return };
        let end = &mut self.ends[place];
        let Some(mut connection) = end.handle.and_then(|handle| end.endpoint.connection(handle)) else { return };
        let stream = end.streams.get_mut(&id).expect("it was just found");
        let from = stream.written;
        let bytes = (from..from + u64::from(len) * 16).map(|offset| byte(id, place, offset));
        match connection.write(id, &mut bytes.collect::<Bytes>()) {
            Ok(taken) => stream.written += taken as u64,
            Err(_) => stream.ended = true,
        }
    }

    fn end_stream(&mut self, place: usize, which: u8, how: u8) {
        let Some(id) = self.stream(place, which) else { return };
        let end = &mut self.ends[place];
        let Some(mut connection) = end.handle.and_then(|handle| end.endpoint.connection(handle)) else { return };
        match how % 8 {
            0 => connection.reset(id, u64::from(how)),
            1 => connection.stop(id, u64::from(how)),
            2 => connection.protect(id, how > 127),
            _ => drop(connection.finish(id)),
        }
        self.abandoned |= how % 8 < 2;
        end.streams.entry(id).or_default().ended |= how % 8 != 1 && how % 8 != 2;
    }

    /// What happens once in a connection, if at all.
    fn rare(&mut self, place: usize, what: u8) {
        match what {
            0..8 => {
                self.abandoned = true;
                self.now += Duration::from_secs(61);
            }
            8..16 => {
                self.abandoned = true;
                self.now += super::Incident::CLOCK_STEP;
            }
            16..24 => {
                self.abandoned = true;
                let end = &mut self.ends[place];
                if let Some(mut connection) = end.handle.and_then(|handle| end.endpoint.connection(handle)) {
                    connection.close(self.now, 7, b"enough");
                }
            }
            24..64 => self.ends[place].inbox.clear(),
            _ => self.now += Duration::from_micros(u64::from(what)),
        }
    }

    fn read(&mut self, place: usize, which: u8) {
        if let Some(id) = self.stream(place, which) {
            // What is wrong with it comes to light when everything is read.
            let _ = self.read_stream(place, id, 1 + usize::from(which) * 8);
        }
    }

    fn read_stream(&mut self, place: usize, id: StreamId, most: usize) -> Result<(), Fault> {
        let end = &mut self.ends[place];
        let Some(mut connection) = end.handle.and_then(|handle| end.endpoint.connection(handle)) else { return Ok(()) };
        let stream = end.streams.entry(id).or_default();
        match connection.read(id, most) {
            Read::Data(data) => {
                let right = (stream.read..).zip(&data).all(|(offset, found)| byte(id, 1 - place, offset) == *found);
                if !right && !self.forged {
                    return Err(Fault::new(format!("{id:?}: wrong bytes at {}", stream.read)));
                }
                if data.is_empty() || data.len() > most || stream.read_all {
                    return Err(Fault::new(format!("{id:?}: a read of {most} gave {} bytes", data.len())));
                }
                stream.read += data.len() as u64;
            }
            Read::Finished => stream.read_all = true,
            Read::Blocked | Read::Reset(_) => {}
        }
        Ok(())
    }

    /// Lets both ends act at this moment, and checks them.
    fn settle(&mut self) -> Result<(), Fault> {
        for place in 0..2 {
            let end = &mut self.ends[place];
            if end.endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                end.endpoint.handle_timeout(self.now);
            }
            self.events(place)?;
            self.transmit(place)?;
            let end = &mut self.ends[place];
            if end.endpoint.poll_timeout().is_some_and(|due| due <= self.now) {
                return Err(Fault::new(format!("the timers of end {place} spin at {:?}", self.now)));
            }
            let stats = end.handle.and_then(|handle| end.endpoint.connection(handle)).map(|it| it.stats().streams);
            let kept = stats.unwrap_or_default();
            let most = self.limits.connection_window as usize + kept.live * self.limits.stream_window as usize;
            if kept.receive_buffered_bytes > most || kept.live > 2 * self.limits.streams_max as usize {
                return Err(Fault::new(format!("more is kept than allowed: {kept:?}")));
            }
        }
        Ok(())
    }

    fn events(&mut self, place: usize) -> Result<(), Fault> {
        while let Some((handle, event)) = self.ends[place].endpoint.poll_event() {
            let end = &mut self.ends[place];
            if *end.handle.get_or_insert(handle) != handle {
                return Err(Fault::new(format!("another connection: {event:?}")));
            }
            if end.closed {
                return Err(Fault::new(format!("{event:?} after the close")));
            }
            match event {
                Event::Connected { .. } if end.connected => return Err(Fault::new("connected twice")),
                Event::Connected { .. } => end.connected = true,
                Event::Closed(_) => end.closed = true,
                Event::StreamOpened(id) if end.streams.insert(id, Stream::default()).is_some() => {
                    return Err(Fault::new(format!("{id:?} was opened twice")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn transmit(&mut self, place: usize) -> Result<(), Fault> {
        for _ in 0..TRANSMITS_MAX {
            let end = &mut self.ends[place];
            let Some(transmit) = end.endpoint.poll_transmit(self.now, &mut self.buffer) else { return Ok(()) };
            let route = Route { from: end.address, to: transmit.remote, ecn: transmit.ecn };
            for segment in self.buffer[..transmit.len].chunks(transmit.segment_size) {
                let inbox = &mut self.ends[1 - place].inbox;
                if inbox.len() == UNDER_WAY_MAX {
                    inbox.remove(0);
                }
                inbox.push(Datagram { payload: segment.to_vec(), meta: route });
            }
        }
        Err(Fault::new(format!("end {place} sends without end at one moment")))
    }

    /// Nobody interferes any more: what was written arrives, and a connection that is closed is forgotten.
    fn rest(mut self) -> Result<(), Fault> {
        let end = self.now + REST;
        let may_fail = self.forged || self.abandoned || self.ends.iter().any(|end| end.closed);
        let mut asked = false;
        for _ in 0..MOMENTS_MAX {
            for place in 0..2 {
                for datagram in std::mem::take(&mut self.ends[place].inbox) {
                    super::receive(self.now, &mut self.ends[place].endpoint, datagram);
                }
                self.read_all(place)?;
            }
            self.settle()?;
            if !asked && (may_fail || self.has_delivered()) {
                asked = true;
                self.finish();
                self.settle()?;
            }
            if self.ends.iter().all(|end| end.endpoint.is_idle()) {
                return Ok(());
            }
            let timers = self.ends.iter_mut().filter_map(|end| end.endpoint.poll_timeout()).min();
            let on_its_way = self.ends.iter().any(|end| !end.inbox.is_empty()).then(|| self.now + DELAY);
            match timers.into_iter().chain(on_its_way).min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
        }
        let states: Vec<String> =
            self.ends.iter().map(|end| format!("{} {} {:?}", end.connected, end.closed, end.streams)).collect();
        Err(Fault::new(format!("it does not end: {states:?}, {may_fail}, {asked}")))
    }

    fn read_all(&mut self, place: usize) -> Result<(), Fault> {
        let ids: Vec<StreamId> = self.ends[place].streams.keys().copied().collect();
        for id in ids {
            loop {
                let before = self.ends[place].streams[&id].read;
                self.read_stream(place, id, 4_096)?;
                if self.ends[place].streams[&id].read == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether each end has read what the other one wrote.
    fn has_delivered(&self) -> bool {
        let [client, server] = &self.ends;
        let all = |from: &End, to: &End| {
            from.streams.iter().all(|(id, stream)| stream.written == to.streams.get(id).map_or(0, |to| to.read))
        };
        client.connected && server.connected && all(client, server) && all(server, client)
    }

    fn finish(&mut self) {
        for end in &mut self.ends {
            end.endpoint.close(self.now, 0, b"over");
        }
    }
}

/// The byte at that offset of what that end writes.
const fn byte(id: StreamId, place: usize, offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (id.0 * 31) ^ (place as u64 * 101)) as u8
}
