//! A perfect network between two hand-offs, with their credit rules checked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use quantum::{Alpn, CloseReason, ConnectionStats, Guuid, StreamId};
use quantum_shard::handoff::{ConnectionKey, HANDOFF_WINDOW, ToControl, ToShard};
use tokio::sync::mpsc;

use crate::port::{ControlPort, MemoryPort};

/// Room of each ring: small, so that they are full often.
const RING: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum End {
    Client,
    Server,
}

impl End {
    fn other(self) -> Self {
        if self == Self::Client { Self::Server } else { Self::Client }
    }
}

/// One direction of one stream, named by its sender.
#[derive(Default)]
struct Flow {
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    uncredited: usize,
    finish: bool,
    over: bool,
}

struct Wire {
    to_client: mpsc::Sender<ToControl>,
    to_server: mpsc::Sender<ToControl>,
    flows: HashMap<(u64, StreamId, End), Flow>,
    /// Opened, but nothing has come on them that would tell the peer.
    unannounced: HashSet<(u64, StreamId, End)>,
    connections: Vec<u64>,
    messages: u64,
}

pub(super) fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 4433).into()
}

/// The control plane's ends of a client's and a server's hand-off that are joined by a wire.
pub(super) fn ports() -> (ControlPort, ControlPort) {
    let (client_in, mut from_client) = mpsc::channel(RING);
    let (server_in, mut from_server) = mpsc::channel(RING);
    let (to_client, client_out) = mpsc::channel(RING);
    let (to_server, server_out) = mpsc::channel(RING);
    tokio::spawn(async move {
        let mut wire = Wire {
            to_client,
            to_server,
            flows: HashMap::new(),
            unannounced: HashSet::new(),
            connections: Vec::new(),
            messages: 0,
        };
        loop {
            let (end, message) = tokio::select! {
                Some(message) = from_client.recv() => (End::Client, message),
                Some(message) = from_server.recv() => (End::Server, message),
                else => break,
            };
            wire.messages += 1;
            if matches!(message, ToShard::Shutdown) {
                wire.shutdown(end).await;
                break;
            }
            wire.carry(end, message).await;
        }
    });
    (
        ControlPort::Memory(MemoryPort::new(client_in, client_out)),
        ControlPort::Memory(MemoryPort::new(server_in, server_out)),
    )
}

/// Connections are numbered by the client's odd key; the server's is one more.
fn base(end: End, key: ConnectionKey) -> u64 {
    if end == End::Client { key.0 } else { key.0 - 1 }
}

fn key(end: End, base: u64) -> ConnectionKey {
    ConnectionKey(if end == End::Client { base } else { base + 1 })
}

fn closed(end: End, base: u64, reason: CloseReason) -> ToControl {
    ToControl::Closed { connection: key(end, base), reason, stats: None }
}

impl Wire {
    async fn tell(&self, end: End, message: ToControl) {
        let sender = if end == End::Client { &self.to_client } else { &self.to_server };
        let _ = sender.send(message).await;
    }

    async fn shutdown(&mut self, end: End) {
        for connection in std::mem::take(&mut self.connections) {
            self.tell(end, closed(end, connection, CloseReason::Local { code: 0 })).await;
            let reason = CloseReason::Peer { code: 0, application: true, reason: Bytes::new() };
            self.tell(end.other(), closed(end.other(), connection, reason)).await;
        }
    }

    async fn carry(&mut self, end: End, message: ToShard) {
        if let ToShard::Data(connection, id, _)
        | ToShard::Finish(connection, id, _)
        | ToShard::Reset(connection, id, _)
        | ToShard::Stop(connection, id, _) = message
        {
            let base = base(end, connection);
            if self.unannounced.remove(&(base, id, end)) && self.connections.contains(&base) {
                self.tell(end.other(), ToControl::Opened(key(end.other(), base), id)).await;
            }
        }
        match message {
            ToShard::Connect { connection, target } => self.connect(connection, target.alpn).await,
            ToShard::Open(connection, id) => {
                let base = base(end, connection);
                if self.connections.contains(&base) {
                    self.flows.insert((base, id, End::Client), Flow::default());
                    self.flows.insert((base, id, End::Server), Flow::default());
                    self.unannounced.insert((base, id, end));
                }
            }
            ToShard::Data(connection, id, data) => self.data(end, base(end, connection), id, data).await,
            ToShard::Finish(connection, id, last) => {
                let base = base(end, connection);
                self.data(end, base, id, last).await;
                if let Some(flow) = self.flows.get_mut(&(base, id, end)) {
                    flow.finish = true;
                    self.push(base, id, end).await;
                }
            }
            ToShard::Reset(connection, id, code) => {
                let base = base(end, connection);
                if self.end_flow(base, id, end) {
                    self.tell(end.other(), ToControl::Reset(key(end.other(), base), id, code)).await;
                }
            }
            ToShard::Stop(connection, id, code) => {
                let base = base(end, connection);
                if self.end_flow(base, id, end.other()) {
                    self.tell(end.other(), ToControl::Stopped(key(end.other(), base), id, code)).await;
                }
            }
            ToShard::Credit(connection, id, bytes) => {
                let base = base(end, connection);
                if let Some(flow) = self.flows.get_mut(&(base, id, end.other())) {
                    flow.uncredited = flow.uncredited.checked_sub(bytes).expect("more credit than was used");
                    self.push(base, id, end.other()).await;
                }
            }
            ToShard::Close(connection, code, reason) => self.close(end, base(end, connection), code, reason).await,
            ToShard::Priority(..) | ToShard::Protect(..) => {}
            ToShard::Datagram(connection, data) => {
                let base = base(end, connection);
                if self.connections.contains(&base) {
                    self.tell(end.other(), ToControl::Datagram(key(end.other(), base), data)).await;
                }
            }
            ToShard::Stats(connection) => {
                let stats = ConnectionStats { packets_sent: self.messages, ..ConnectionStats::default() };
                self.tell(end, ToControl::Stats(connection, Box::new(stats))).await;
            }
            ToShard::Shutdown => unreachable!("handled by the caller"),
        }
    }

    async fn data(&mut self, end: End, base: u64, id: StreamId, data: Bytes) {
        let Some(flow) = self.flows.get_mut(&(base, id, end)).filter(|flow| !flow.over && !data.is_empty()) else {
            return;
        };
        assert!(!flow.finish, "data after the end");
        flow.waiting_bytes += data.len();
        assert!(flow.waiting_bytes <= HANDOFF_WINDOW, "data beyond the credit");
        flow.waiting.push_back(data);
        self.push(base, id, end).await;
    }

    async fn connect(&mut self, connection: ConnectionKey, alpn: Alpn) {
        let base = base(End::Client, connection);
        self.connections.push(base);
        for end in [End::Server, End::Client] {
            let connected = ToControl::Connected {
                connection: key(end, base),
                guuid: Guuid::from_bytes([base as u8; 16]),
                remote: address(),
                alpn,
                datagram_size_max: Some(1_000),
            };
            self.tell(end, connected).await;
        }
    }

    async fn close(&mut self, end: End, base: u64, code: u64, reason: Bytes) {
        let Some(at) = self.connections.iter().position(|connection| *connection == base) else { return };
        self.connections.swap_remove(at);
        self.flows.retain(|(connection, ..), _| *connection != base);
        self.tell(end, closed(end, base, CloseReason::Local { code })).await;
        let reason = CloseReason::Peer { code, application: true, reason };
        self.tell(end.other(), closed(end.other(), base, reason)).await;
    }

    /// Ends a direction; false if it was over.
    fn end_flow(&mut self, base: u64, id: StreamId, sender: End) -> bool {
        let flow = self.flows.get_mut(&(base, id, sender)).filter(|flow| !flow.over);
        let Some(flow) = flow else { return false };
        flow.over = true;
        flow.waiting.clear();
        true
    }

    /// Moves what the receiver's window has room for.
    async fn push(&mut self, base: u64, id: StreamId, sender: End) {
        let receiver = sender.other();
        loop {
            let Some(flow) = self.flows.get_mut(&(base, id, sender)).filter(|flow| !flow.over) else { return };
            let room = HANDOFF_WINDOW - flow.uncredited;
            if let Some(mut data) = flow.waiting.pop_front() {
                if room == 0 {
                    flow.waiting.push_front(data);
                    return;
                }
                let rest = data.split_off(data.len().min(room));
                if !rest.is_empty() {
                    flow.waiting.push_front(rest);
                }
                flow.uncredited += data.len();
                flow.waiting_bytes -= data.len();
                self.tell(sender, ToControl::Credit(key(sender, base), id, data.len())).await;
                self.tell(receiver, ToControl::Data(key(receiver, base), id, data)).await;
                continue;
            }
            if flow.finish {
                flow.over = true;
                self.tell(receiver, ToControl::Finished(key(receiver, base), id, Bytes::new())).await;
                self.tell(sender, ToControl::Delivered(key(sender, base), id)).await;
            }
            return;
        }
    }
}
