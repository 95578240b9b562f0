//! What the pump and a connection's handles share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use quantum::{Alpn, CloseReason, ConnectionStats, Guuid, IdMap, IdSet, Side, StreamId};
use quantum_shard::handoff::{ConnectionKey, ToShard};
use tokio::sync::{mpsc, oneshot, watch};

use super::ConnectionError;
use crate::datagram::Datagrams;
use crate::stream::StreamShared;

/// What is known once a connection can be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Established {
    pub(crate) guuid: Guuid,
    pub(crate) remote: SocketAddr,
    pub(crate) alpn: Alpn,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Connecting,
    Early,
    Established,
    Closed(CloseReason),
}

pub(super) type OpenedStream = (StreamId, Arc<StreamShared>);

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) open: IdMap<StreamId, Arc<StreamShared>>,
    /// Those that nobody holds any more, whose last bytes the peer has not acknowledged.
    pub(super) undelivered: IdSet<StreamId>,
    /// Told when there are none of those.
    pub(super) delivered: Vec<oneshot::Sender<()>>,
    pub(super) opened: Option<mpsc::UnboundedSender<OpenedStream>>,
    pub(super) next_index: u64,
    pub(super) stats: Vec<oneshot::Sender<ConnectionStats>>,
}

/// What the pump and the connection's handles share.
#[derive(Debug)]
pub(crate) struct ConnectionShared {
    pub(super) key: ConnectionKey,
    pub(super) side: Side,
    pub(super) established: OnceLock<Established>,
    /// Known with the handshake's end.
    pub(super) datagram_size_max: OnceLock<Option<usize>>,
    /// What it had done by its end.
    pub(super) last_stats: OnceLock<Box<ConnectionStats>>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) streams: Mutex<Streams>,
    pub(super) datagrams: Datagrams,
    // Bounded by the number of streams that the core lets the peer have open at once.
    pub(super) accept: tokio::sync::Mutex<mpsc::UnboundedReceiver<OpenedStream>>,
}

impl ConnectionShared {
    pub(crate) fn new(key: ConnectionKey, side: Side) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let streams = Streams {
            open: IdMap::default(),
            undelivered: IdSet::default(),
            delivered: Vec::new(),
            opened: Some(sender),
            next_index: 0,
            stats: Vec::new(),
        };
        Self {
            key,
            side,
            established: OnceLock::new(),
            datagram_size_max: OnceLock::new(),
            last_stats: OnceLock::new(),
            phase: watch::Sender::new(Phase::Connecting),
            streams: Mutex::new(streams),
            datagrams: Datagrams::default(),
            accept: tokio::sync::Mutex::new(receiver),
        }
    }

    pub(crate) fn key(&self) -> ConnectionKey {
        self.key
    }

    pub(crate) fn datagrams(&self) -> &Datagrams {
        &self.datagrams
    }

    pub(super) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn on_early(&self, established: Established) {
        if self.established.set(established).is_ok() {
            self.phase.send_replace(Phase::Early);
        }
    }

    pub(crate) fn on_connected(&self, established: Established, datagram_size_max: Option<usize>) {
        if self.datagram_size_max.set(datagram_size_max).is_ok() {
            self.established.get_or_init(|| established);
            self.phase.send_replace(Phase::Established);
        }
    }

    pub(crate) fn on_closed(&self, reason: &CloseReason, stats: Option<Box<ConnectionStats>>) {
        if let Some(stats) = stats {
            self.last_stats.get_or_init(|| stats);
        }
        self.phase.send_replace(Phase::Closed(reason.clone()));
        self.datagrams.on_closed();
        let mut streams = self.streams();
        streams.opened = None;
        streams.stats.clear();
        streams.undelivered.clear();
        streams.delivered.clear();
        for stream in streams.open.values() {
            stream.on_lost(reason);
        }
    }

    pub(crate) fn on_opened(&self, id: StreamId) {
        let mut streams = self.streams();
        let Some(opened) = &streams.opened else { return };
        let stream = Arc::new(StreamShared::new());
        let _ = opened.send((id, stream.clone()));
        streams.open.insert(id, stream);
    }

    /// The peer has acknowledged all of a stream.
    pub(crate) fn on_delivered(&self, id: StreamId) {
        self.on_sent(id, StreamShared::on_delivered);
    }

    /// The peer wants no more of a stream.
    pub(crate) fn on_stopped(&self, id: StreamId, code: u64) {
        self.on_sent(id, |stream| stream.on_stopped(code));
    }

    /// Under the lock, so that a stream which is let go of meanwhile is not waited for.
    fn on_sent(&self, id: StreamId, tell: impl FnOnce(&StreamShared)) {
        let mut streams = self.streams();
        if let Some(stream) = streams.open.get(&id) {
            tell(stream);
        } else if streams.undelivered.remove(&id) && streams.undelivered.is_empty() {
            streams.delivered.clear();
        }
    }

    /// Nobody holds the stream any more.
    pub(super) fn forget(&self, id: StreamId) {
        let mut streams = self.streams();
        if streams.open.remove(&id).is_some_and(|stream| stream.is_undelivered()) {
            streams.undelivered.insert(id);
        }
    }

    pub(crate) fn on_stats(&self, stats: &ConnectionStats) {
        let waiting = std::mem::take(&mut self.streams().stats);
        for sender in waiting {
            let _ = sender.send(stats.clone());
        }
    }

    /// What the shard says of the connection, which `tell` asks.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub(crate) async fn statistics(&self, tell: impl FnOnce(ToShard)) -> Result<ConnectionStats, ConnectionError> {
        let (sender, receiver) = oneshot::channel();
        let is_asked = {
            let mut streams = self.streams();
            if let Some(reason) = self.close_reason() {
                return Err(ConnectionError::Closed(reason));
            }
            streams.stats.push(sender);
            streams.stats.len() > 1
        };
        // An answer is for everybody who waits.
        if !is_asked {
            tell(ToShard::Stats(self.key));
        }
        receiver.await.map_err(|_| self.close_reason().map_or(ConnectionError::EndpointGone, ConnectionError::Closed))
    }

    /// What it had done by its end.
    pub(crate) fn last_statistics(&self) -> Option<ConnectionStats> {
        self.last_stats.get().map(|stats| ConnectionStats::clone(stats))
    }

    /// Waits until the connection is over.
    pub(crate) async fn closed(&self) -> CloseReason {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| matches!(phase, Phase::Closed(_))).await;
        match phase.as_deref() {
            Ok(Phase::Closed(reason)) => reason.clone(),
            _ => CloseReason::Local { code: 0 },
        }
    }

    /// The stream of that id, if somebody still holds it.
    pub(crate) fn stream(&self, id: StreamId) -> Option<Arc<StreamShared>> {
        self.streams().open.get(&id).cloned()
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        match &*self.phase.borrow() {
            Phase::Closed(reason) => Some(reason.clone()),
            _ => None,
        }
    }
}
