//! The application that hands streams to the control plane.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quantum::{
    CloseReason, ConnectOptions, ConnectionHandle, Endpoint, Event, GuuidGenerator, IdMap, OpenError, Priority,
    StreamId, Time, TransportErrorCode,
};

use super::App;
use super::stream::{Inbound, StreamState};
use crate::handoff::{ConnectTarget, ConnectionKey, ShardEnd, ToControl, ToShard};

/// Messages that wait for room in the ring before streams are read no further. Those that carry no data go on: their number
/// is bounded by the streams that live.
const OUTBOX_MAX: usize = 1024;
/// Commands of one turn.
const COMMANDS_MAX: usize = 1024;

/// A connection's state beside the core's.
#[derive(Debug)]
struct Connection {
    handle: ConnectionHandle,
    streams: IdMap<StreamId, StreamState>,
    /// Streams that wait until the peer allows them, in the order of their ids.
    waiting: VecDeque<StreamId>,
}

/// Streams to and from the control plane.
pub(crate) struct ControlApp {
    end: ShardEnd,
    outbox: VecDeque<ToControl>,
    keys: IdMap<ConnectionHandle, ConnectionKey>,
    connections: IdMap<ConnectionKey, Connection>,
    /// Streams that could be read but for the outbox.
    stalled: VecDeque<(ConnectionKey, StreamId)>,
    /// Connections whose datagrams could be received but for the outbox.
    stalled_datagrams: VecDeque<ConnectionKey>,
    guuids: GuuidGenerator,
    /// The key of the next connection that a client makes: even.
    next_key: u64,
    is_shutdown: bool,
}

impl ControlApp {
    /// Hands over through `end`. `seed` feeds the ids of dialled connections.
    pub(crate) fn new(end: ShardEnd, seed: [u8; 32]) -> Self {
        Self {
            end,
            outbox: VecDeque::new(),
            keys: IdMap::default(),
            connections: IdMap::default(),
            stalled: VecDeque::new(),
            stalled_datagrams: VecDeque::new(),
            guuids: GuuidGenerator::new(seed),
            next_key: 2,
            is_shutdown: false,
        }
    }

    fn flush(&mut self) -> bool {
        let mut sent = false;
        while let Some(message) = self.outbox.pop_front() {
            if let Err(message) = self.end.try_send(message) {
                self.outbox.push_front(message);
                break;
            }
            sent = true;
        }
        if sent {
            self.end.ring();
        }
        if self.outbox.is_empty() && self.outbox.capacity() > 2 * OUTBOX_MAX {
            self.outbox = VecDeque::new();
        }
        sent
    }

    fn command(&mut self, now: Time, endpoint: &mut Endpoint, message: ToShard) {
        match message {
            ToShard::Connect { connection, target } => self.connect(now, endpoint, connection, *target),
            ToShard::Open(key, id) => self.open(endpoint, key, id),
            ToShard::Data(key, id, data) => self.write(endpoint, key, id, data),
            ToShard::Finish(key, id, last) => self.finish(endpoint, key, id, last),
            ToShard::Reset(key, id, code) => self.reset(endpoint, key, id, code),
            ToShard::Stop(key, id, code) => self.stop(endpoint, key, id, code),
            ToShard::Credit(key, id, bytes) => {
                if let Some(stream) = self.stream(key, id) {
                    stream.on_credit(bytes);
                }
                self.pull_inbound(endpoint, key, id);
            }
            ToShard::Close(key, code, reason) => {
                if let Some(mut connection) = self.core(endpoint, key) {
                    connection.close(now, code, &reason);
                }
            }
            ToShard::Priority(key, id, priority) => self.set_priority(endpoint, key, id, priority),
            ToShard::Protect(key, id, protected) => self.protect(endpoint, key, id, protected),
            ToShard::Datagram(key, data) => {
                if let Some(mut connection) = self.core(endpoint, key) {
                    // One that cannot go is lost, like any other.
                    let _ = connection.send_datagram(data);
                }
            }
            ToShard::Stats(key) => {
                if let Some(connection) = self.core(endpoint, key) {
                    let stats = Box::new(connection.stats());
                    drop(connection);
                    self.outbox.push_back(ToControl::Stats(key, stats));
                }
            }
            ToShard::Shutdown => self.is_shutdown = true,
        }
    }

    fn connect(&mut self, now: Time, endpoint: &mut Endpoint, key: ConnectionKey, target: ConnectTarget) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let guuid = self.guuids.next(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        let ConnectTarget { remote, server_name, alpn, tls } = target;
        match endpoint.connect(now, ConnectOptions { guuid, remote, server_name, alpn, tls }) {
            Ok(handle) => {
                self.keys.insert(handle, key);
                self.insert(key, handle);
            }
            Err(error) => {
                let reason =
                    CloseReason::Transport { code: TransportErrorCode::Internal as u64, reason: error.to_string() };
                self.outbox.push_back(ToControl::Closed { connection: key, reason, stats: None });
            }
        }
    }

    fn insert(&mut self, key: ConnectionKey, handle: ConnectionHandle) {
        let connection = Connection { handle, streams: IdMap::default(), waiting: VecDeque::new() };
        self.connections.insert(key, connection);
    }

    /// The connection's name. One that a client made gets it when it is first heard of.
    fn key(&mut self, handle: ConnectionHandle) -> ConnectionKey {
        self.keys.get(&handle).copied().unwrap_or_else(|| {
            let key = ConnectionKey(self.next_key);
            self.next_key += 2;
            self.keys.insert(handle, key);
            self.insert(key, handle);
            key
        })
    }

    fn open(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        connection.streams.insert(id, StreamState::new(true));
        connection.waiting.push_back(id);
        self.open_waiting(endpoint, key);
    }

    fn open_waiting(&mut self, endpoint: &mut Endpoint, key: ConnectionKey) {
        while let Some(connection) = self.connections.get_mut(&key) {
            let Some(&id) = connection.waiting.front() else { return };
            let Some(mut core) = endpoint.connection(connection.handle) else { return };
            match core.open() {
                Ok(opened) => debug_assert_eq!(opened, id, "the control plane counts its streams as the core does"),
                Err(OpenError::Blocked | OpenError::Closed) => return,
            }
            drop(core);
            connection.waiting.pop_front();
            if let Some(stream) = connection.streams.get_mut(&id) {
                stream.is_waiting = false;
                if let Some(mut core) = endpoint.connection(connection.handle) {
                    stream.tell(&mut core, id);
                }
                self.push_outbound(endpoint, key, id);
            } else if let Some(mut core) = endpoint.connection(connection.handle) {
                // Abandoned before it was opened: its number is used up all the same.
                core.reset(id, 0);
                core.stop(id, 0);
            }
        }
    }

    fn set_priority(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId, priority: Priority) {
        let Some(stream) = self.stream(key, id) else { return };
        stream.priority = Some(priority);
        let is_waiting = stream.is_waiting;
        if let Some(mut core) = self.core(endpoint, key).filter(|_| !is_waiting) {
            core.set_priority(id, priority);
        }
    }

    fn protect(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId, protected: bool) {
        let Some(stream) = self.stream(key, id) else { return };
        stream.protected = protected;
        let is_waiting = stream.is_waiting;
        if let Some(mut core) = self.core(endpoint, key).filter(|_| !is_waiting) {
            core.protect(id, protected);
        }
    }

    /// Moves datagrams of the peer to the control plane.
    fn pull_datagrams(&mut self, endpoint: &mut Endpoint, key: ConnectionKey) {
        let Some(mut core) = self.core(endpoint, key) else { return };
        while self.outbox.len() < OUTBOX_MAX {
            let Some(data) = core.recv_datagram() else { return };
            self.outbox.push_back(ToControl::Datagram(key, data));
        }
        drop(core);
        // The core keeps what it can until there is room.
        self.stalled_datagrams.push_back(key);
    }

    fn write(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId, data: Bytes) {
        let Some(stream) = self.stream(key, id) else { return };
        let within = stream.push(data);
        debug_assert!(within, "the control plane keeps to its credit");
        self.push_outbound(endpoint, key, id);
    }

    fn finish(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId, last: Bytes) {
        let Some(stream) = self.stream(key, id) else { return };
        if !last.is_empty() {
            let within = stream.push(last);
            debug_assert!(within, "the control plane keeps to its credit");
        }
        stream.finish();
        self.push_outbound(endpoint, key, id);
    }

    /// Moves what the control plane wrote to the core.
    fn push_outbound(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(stream) = connection.streams.get_mut(&id) else { return };
        let Some(mut core) = endpoint.connection(connection.handle) else { return };
        stream.write(&mut core, id);
        drop(core);
        if let Some(bytes) = stream.credit_to_give() {
            self.outbox.push_back(ToControl::Credit(key, id, bytes));
        }
        self.forget_if_over(key, id);
    }

    /// Moves what the peer sent to the control plane.
    fn pull_inbound(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(stream) = connection.streams.get_mut(&id).filter(|stream| stream.may_read()) else { return };
        let Some(mut core) = endpoint.connection(connection.handle) else { return };
        loop {
            if self.outbox.len() >= OUTBOX_MAX {
                self.stalled.push_back((key, id));
                break;
            }
            let Some(inbound) = stream.read(&mut core, id) else { break };
            hand_over(&mut self.outbox, key, id, inbound);
        }
        drop(core);
        self.forget_if_over(key, id);
    }

    /// The connection is over: what the peer had sent before it closed goes to the control plane, whatever the credit. It is
    /// bounded by the windows of the connection's streams.
    fn pull_rest(&mut self, endpoint: &mut Endpoint, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(mut core) = endpoint.connection(connection.handle) else { return };
        for (&id, stream) in &mut connection.streams {
            while let Some(inbound) = stream.read_rest(&mut core, id) {
                hand_over(&mut self.outbox, key, id, inbound);
            }
        }
    }

    fn reset(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId, code: u64) {
        if let Some(stream) = self.stream(key, id) {
            stream.abandon();
            let is_waiting = stream.is_waiting;
            if let Some(mut core) = self.core(endpoint, key).filter(|_| !is_waiting) {
                core.reset(id, code);
            }
        }
        self.forget_if_over(key, id);
    }

    fn stop(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, id: StreamId, code: u64) {
        if let Some(stream) = self.stream(key, id) {
            stream.stop();
            let is_waiting = stream.is_waiting;
            if let Some(mut core) = self.core(endpoint, key).filter(|_| !is_waiting) {
                core.stop(id, code);
            }
        }
        self.forget_if_over(key, id);
    }

    fn stream(&mut self, key: ConnectionKey, id: StreamId) -> Option<&mut StreamState> {
        self.connections.get_mut(&key)?.streams.get_mut(&id)
    }

    fn core<'e>(&self, endpoint: &'e mut Endpoint, key: ConnectionKey) -> Option<quantum::ConnectionRef<'e>> {
        endpoint.connection(self.connections.get(&key)?.handle)
    }

    fn forget_if_over(&mut self, key: ConnectionKey, id: StreamId) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.streams.get(&id).is_some_and(StreamState::is_over) {
            connection.streams.remove(&id);
        }
    }

    fn on_stream_event(&mut self, endpoint: &mut Endpoint, key: ConnectionKey, event: &Event) {
        match *event {
            Event::StreamOpened(id) => {
                if let Some(connection) = self.connections.get_mut(&key) {
                    connection.streams.insert(id, StreamState::new(false));
                    self.outbox.push_back(ToControl::Opened(key, id));
                }
            }
            Event::StreamReadable(id) => {
                if let Some(stream) = self.stream(key, id) {
                    stream.on_readable();
                }
                self.pull_inbound(endpoint, key, id);
            }
            Event::StreamWritable(id) => self.push_outbound(endpoint, key, id),
            Event::StreamDelivered(id) => {
                if let Some(stream) = self.stream(key, id) {
                    stream.on_delivered();
                    self.outbox.push_back(ToControl::Delivered(key, id));
                }
                self.forget_if_over(key, id);
            }
            Event::StreamStopped(id, code) => {
                // A write may have met the stop before this event, and the stream been forgotten since. Whoever waits for
                // credit has to hear of it all the same.
                self.outbox.push_back(ToControl::Stopped(key, id, code));
                if let Some(stream) = self.stream(key, id) {
                    stream.abandon();
                }
                self.forget_if_over(key, id);
            }
            Event::StreamsAvailable => self.open_waiting(endpoint, key),
            Event::DatagramReceived => self.pull_datagrams(endpoint, key),
            Event::Early { .. } | Event::Connected { .. } | Event::Closed(_) => {}
        }
    }
}

/// Puts what a stream brought at the end of what waits for the control plane: its end together with the data before it.
fn hand_over(outbox: &mut VecDeque<ToControl>, key: ConnectionKey, id: StreamId, inbound: Inbound) {
    let message = match inbound {
        Inbound::Data(data) => ToControl::Data(key, id, data),
        Inbound::Reset(code) => ToControl::Reset(key, id, code),
        Inbound::Finished => match outbox.back_mut() {
            Some(ToControl::Data(of, on, data)) if (*of, *on) == (key, id) => {
                let last = std::mem::take(data);
                outbox.pop_back();
                ToControl::Finished(key, id, last)
            }
            _ => ToControl::Finished(key, id, Bytes::new()),
        },
    };
    outbox.push_back(message);
}

impl App for ControlApp {
    fn on_event(&mut self, _now: Time, endpoint: &mut Endpoint, handle: ConnectionHandle, event: Event) {
        match event {
            Event::Early { guuid, remote, alpn } => {
                let connection = self.key(handle);
                self.outbox.push_back(ToControl::Early { connection, guuid, remote, alpn });
            }
            Event::Connected { guuid, remote, alpn } => {
                let key = self.key(handle);
                let datagram_size_max = endpoint.connection(handle).and_then(|core| core.datagram_size_max());
                let connected = ToControl::Connected { connection: key, guuid, remote, alpn, datagram_size_max };
                self.outbox.push_back(connected);
            }
            Event::Closed(reason) => {
                if let Some(connection) = self.keys.remove(&handle) {
                    self.pull_rest(endpoint, connection);
                    self.connections.remove(&connection);
                    let stats = endpoint.connection(handle).map(|core| Box::new(core.stats()));
                    self.outbox.push_back(ToControl::Closed { connection, reason, stats });
                }
            }
            event => {
                if let Some(&key) = self.keys.get(&handle) {
                    self.on_stream_event(endpoint, key, &event);
                }
            }
        }
    }

    fn poll(&mut self, now: Time, endpoint: &mut Endpoint) -> bool {
        let mut worked = false;
        for _ in 0..COMMANDS_MAX {
            let Some(message) = self.end.try_recv() else { break };
            self.command(now, endpoint, message);
            worked = true;
        }
        worked |= self.flush();
        while self.outbox.len() < OUTBOX_MAX {
            let Some((key, id)) = self.stalled.pop_front() else { break };
            self.pull_inbound(endpoint, key, id);
            worked = true;
        }
        while self.outbox.len() < OUTBOX_MAX {
            let Some(key) = self.stalled_datagrams.pop_front() else { break };
            self.pull_datagrams(endpoint, key);
            worked = true;
        }
        worked | self.flush()
    }

    fn wants_shutdown(&self) -> bool {
        self.is_shutdown || self.end.is_abandoned()
    }

    fn prepare_sleep(&mut self) -> bool {
        self.end.prepare_sleep(!self.outbox.is_empty())
    }

    fn awake(&mut self) {
        self.end.awake();
    }
}
