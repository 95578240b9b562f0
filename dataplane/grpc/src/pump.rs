//! The pump: one task per shard, the sole end of the hand-off's rings on the tokio side.
//!
//! It carries and never waits for anybody: what comes from the shard goes into per-stream queues that credit bounds, what
//! goes to the shard waits in this task's queue while the ring is full, and meanwhile the other direction goes on.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use quantum::{CloseReason, IdMap, Side};
use quantum_shard::AdaptiveSpin;
use quantum_shard::handoff::{ConnectTarget, ConnectionKey, ToControl, ToShard};
use tokio::sync::{mpsc, watch};

use crate::connection::{Connection, ConnectionShared, Established};
use crate::endpoint::EndpointShared;
use crate::port::{ControlPort, PortClosed};

/// Messages carried in one direction before others have their turn.
const BATCH: usize = 64;

/// The code with which a server closes a connection that nobody accepts.
const CODE_REFUSED: u64 = 0x2;

/// What the control plane's tasks ask of the pump.
#[derive(Debug)]
enum Command {
    Tell(ToShard),
    Connect(Arc<ConnectionShared>, Box<ConnectTarget>),
}

/// The way to a shard's pump. Never waits: what streams put in is bounded by their credit.
#[derive(Clone, Debug)]
pub(crate) struct PumpSender(mpsc::UnboundedSender<Command>);

impl PumpSender {
    pub(crate) fn tell(&self, message: ToShard) {
        // A pump that is gone has told every connection that it is over.
        let _ = self.0.send(Command::Tell(message));
    }

    pub(crate) fn downgrade(&self) -> WeakPumpSender {
        WeakPumpSender(self.0.downgrade())
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.0.is_closed()
    }

    pub(crate) fn connect(&self, connection: Arc<ConnectionShared>, target: ConnectTarget) -> bool {
        self.0.send(Command::Connect(connection, Box::new(target))).is_ok()
    }
}

/// A way to a pump that does not keep it.
#[derive(Clone, Debug)]
pub(crate) struct WeakPumpSender(mpsc::WeakUnboundedSender<Command>);

impl WeakPumpSender {
    pub(crate) fn tell(&self, message: ToShard) {
        // A pump that nobody keeps is about to tell every connection that it is over.
        if let Some(sender) = self.0.upgrade() {
            PumpSender(sender).tell(message);
        }
    }
}

/// The pump of one shard.
#[derive(Debug)]
pub(crate) struct Pump {
    port: ControlPort,
    commands: mpsc::UnboundedReceiver<Command>,
    // Weak, so that the pump ends with the last connection and endpoint.
    sender: mpsc::WeakUnboundedSender<Command>,
    endpoint: Weak<EndpointShared>,
    accepted: Option<mpsc::Sender<Connection>>,
    /// Dropped when the pump ends.
    _running: watch::Sender<()>,
    connections: IdMap<ConnectionKey, Arc<ConnectionShared>>,
    unsent: Option<ToShard>,
}

/// What a pump is started from, before its endpoint exists.
#[derive(Debug)]
pub(crate) struct PumpSeat {
    port: ControlPort,
    commands: mpsc::UnboundedReceiver<Command>,
    sender: mpsc::WeakUnboundedSender<Command>,
}

impl PumpSeat {
    pub(crate) fn new(port: ControlPort) -> (PumpSender, Self) {
        let (sender, commands) = mpsc::unbounded_channel();
        let weak = sender.downgrade();
        (PumpSender(sender), Self { port, commands, sender: weak })
    }

    /// Starts the pump. Connections that clients make go to `accepted`; without it they are refused.
    pub(crate) fn start(
        self,
        endpoint: &Arc<EndpointShared>,
        accepted: Option<mpsc::Sender<Connection>>,
        running: watch::Sender<()>,
    ) {
        let pump = Pump {
            port: self.port,
            commands: self.commands,
            sender: self.sender,
            endpoint: Arc::downgrade(endpoint),
            accepted,
            _running: running,
            connections: IdMap::default(),
            unsent: None,
        };
        tokio::spawn(pump.run());
    }
}

impl Pump {
    async fn run(mut self) {
        let mut open = true;
        let outcome = loop {
            let (carried, ring_full) = match self.carry_to_shard(&mut open) {
                Ok(carried) => carried,
                Err(closed) => break closed,
            };
            let worked = carried + self.carry_to_control() > 0;
            let is_busy = if worked {
                self.port.worked();
                self.port.is_busy()
            } else {
                self.port.looks_on() && !ring_full
            };
            if is_busy {
                // A shard that shares this processor takes what was sent before the tasks have more, and the peer has something
                // to do meanwhile. Else both work in turns, each waiting for the other.
                AdaptiveSpin::pause();
            }
            if worked || is_busy {
                // All tasks that can run do so first: what they have to send then goes together, and wakes this task once.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                command = self.commands.recv(), if open && !ring_full => {
                    open = command.is_some();
                    self.unsent = Some(command.map_or(ToShard::Shutdown, |command| self.take(command)));
                }
                result = self.port.changed(ring_full) => if let Err(closed) = result {
                    break closed;
                },
            }
        };
        while self.carry_to_control() > 0 {}
        self.end(outcome);
    }

    /// Moves what waits into the ring. Gives how many messages, and whether the ring is full with something left to move.
    fn carry_to_shard(&mut self, open: &mut bool) -> Result<(usize, bool), PortClosed> {
        let mut carried = 0;
        let full = loop {
            if let Some(message) = self.unsent.take() {
                if let Err(message) = self.port.push(message)? {
                    self.unsent = Some(message);
                    break true;
                }
                carried += 1;
            }
            if carried >= BATCH || !*open {
                break false;
            }
            match self.commands.try_recv() {
                Ok(command) => self.unsent = Some(self.take(command)),
                Err(mpsc::error::TryRecvError::Empty) => break false,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    *open = false;
                    self.unsent = Some(ToShard::Shutdown);
                }
            }
        };
        self.port.flush();
        Ok((carried, full))
    }

    fn take(&mut self, command: Command) -> ToShard {
        match command {
            Command::Tell(message) => message,
            Command::Connect(connection, target) => {
                let key = connection.key();
                self.connections.insert(key, connection);
                ToShard::Connect { connection: key, target }
            }
        }
    }

    /// Gives out what the shard sent. Gives how many messages.
    fn carry_to_control(&mut self) -> usize {
        for carried in 0..BATCH {
            match self.port.pop() {
                Some(message) => self.give_out(message),
                None => return carried,
            }
        }
        BATCH
    }

    fn give_out(&mut self, message: ToControl) {
        let stream = |key: ConnectionKey, id| self.connections.get(&key).and_then(|connection| connection.stream(id));
        match message {
            ToControl::Connected { connection, guuid, remote, alpn, datagram_size_max } => {
                let established = Established { guuid, remote, alpn };
                self.usable(connection, |shared| shared.on_connected(established, datagram_size_max));
            }
            ToControl::Early { connection, guuid, remote, alpn } => {
                self.usable(connection, |shared| shared.on_early(Established { guuid, remote, alpn }));
            }
            ToControl::Closed { connection, reason, stats } => {
                if let Some(connection) = self.connections.remove(&connection) {
                    connection.on_closed(&reason, stats);
                }
            }
            ToControl::Opened(key, id) => {
                if let Some(connection) = self.connections.get(&key) {
                    connection.on_opened(id);
                }
            }
            // A stream that nobody holds any more has been reset and stopped: what still comes of it is dropped.
            ToControl::Data(key, id, data) => {
                if let Some(stream) = stream(key, id) {
                    stream.on_data(data);
                }
            }
            ToControl::Finished(key, id, last) => {
                if let Some(stream) = stream(key, id) {
                    stream.on_finished(last);
                }
            }
            ToControl::Reset(key, id, code) => {
                if let Some(stream) = stream(key, id) {
                    stream.on_reset(code);
                }
            }
            ToControl::Stopped(key, id, code) => {
                if let Some(connection) = self.connections.get(&key) {
                    connection.on_stopped(id, code);
                }
            }
            ToControl::Delivered(key, id) => {
                if let Some(connection) = self.connections.get(&key) {
                    connection.on_delivered(id);
                }
            }
            ToControl::Credit(key, id, bytes) => {
                if let Some(stream) = stream(key, id) {
                    stream.on_credit(bytes);
                }
            }
            ToControl::Datagram(key, data) => {
                if let Some(connection) = self.connections.get(&key) {
                    connection.datagrams().on_datagram(data);
                }
            }
            ToControl::Stats(key, stats) => {
                if let Some(connection) = self.connections.get(&key) {
                    connection.on_stats(&stats);
                }
            }
        }
    }

    /// A connection can be used, which `tell` tells it; one that a client made is given out when it is first heard of.
    fn usable(&mut self, key: ConnectionKey, tell: impl FnOnce(&ConnectionShared)) {
        if let Some(connection) = self.connections.get(&key) {
            tell(connection);
            return;
        }
        let shared = Arc::new(ConnectionShared::new(key, Side::Server));
        tell(&shared);
        let (Some(sender), Some(endpoint)) = (self.sender.upgrade(), self.endpoint.upgrade()) else {
            // Nobody holds the endpoint: the shutdown that ends this connection is on its way.
            return;
        };
        let sender = PumpSender(sender);
        let Some(accepted) = &self.accepted else {
            sender.tell(ToShard::Close(key, CODE_REFUSED, Bytes::from_static(b"not a server")));
            return;
        };
        self.connections.insert(key, shared.clone());
        let connection = Connection::new(shared, sender, endpoint);
        if let Err(error) = accepted.try_send(connection) {
            let (mpsc::error::TrySendError::Full(connection) | mpsc::error::TrySendError::Closed(connection)) = error;
            connection.close(CODE_REFUSED, b"the server accepts no connections at the moment");
        }
    }

    fn end(mut self, _closed: PortClosed) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            connection.on_closed(&CloseReason::Local { code: 0 }, None);
        }
    }
}
