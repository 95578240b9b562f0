//! A connection as the control plane holds it.

mod shared;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quantum::{Alpn, CloseReason, CongestionStats, ConnectionStats, DatagramError, Guuid, StreamId};
use quantum_shard::handoff::{ConnectionKey, ToShard};
use tokio::sync::oneshot;

pub(crate) use shared::{ConnectionShared, Established};

use self::shared::Phase;
use crate::endpoint::EndpointShared;
use crate::pump::{PumpSender, WeakPumpSender};
use crate::stream::{QuantumStream, StreamShared};

/// What a connection does at the moment (contract 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshake runs.
    Connecting,
    /// The handshake runs; what is sent meanwhile is early data.
    Early,
    /// Streams can be opened and accepted.
    Established,
    /// This side closes it.
    Closing,
    /// It is over.
    Closed,
}

/// Why a connection could not be made or used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It is over, or never came up.
    #[error("{0}")]
    Closed(CloseReason),
    /// The endpoint's shard has ended.
    #[error("the endpoint has been shut down")]
    EndpointGone,
    /// The address cannot be used.
    #[error("cannot use the address {0}: {1}")]
    Address(String, String),
    /// The way in which the peer is to be verified cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The endpoint could not be started.
    #[error(transparent)]
    Endpoint(#[from] crate::endpoint::EndpointError),
}

/// The application's hold on a connection: with the last one the connection closes.
#[derive(Debug)]
pub(crate) struct ConnectionHandle {
    shared: Arc<ConnectionShared>,
    pump: PumpSender,
    closing: OnceLock<()>,
    // Keeps the shard running while a connection of it is held.
    endpoint: Arc<EndpointShared>,
}

impl ConnectionHandle {
    pub(crate) fn key(&self) -> ConnectionKey {
        self.shared.key
    }

    pub(crate) fn tell(&self, message: ToShard) {
        self.pump.tell(message);
    }

    pub(crate) fn forget_stream(&self, id: StreamId) {
        self.shared.forget(id);
    }

    fn close(&self, code: u64, reason: &[u8]) {
        if self.closing.set(()).is_ok() && self.shared.close_reason().is_none() {
            self.tell(ToShard::Close(self.key(), code, Bytes::copy_from_slice(reason)));
        }
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.close(0, b"");
    }
}

/// A connection: independent streams to one peer. Clones are the same connection; with the last clone and the last stream
/// it closes.
#[derive(Clone, Debug)]
pub struct Connection {
    handle: Arc<ConnectionHandle>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<ConnectionShared>, pump: PumpSender, endpoint: Arc<EndpointShared>) -> Self {
        Self { handle: Arc::new(ConnectionHandle { shared, pump, closing: OnceLock::new(), endpoint }) }
    }

    fn shared(&self) -> &Arc<ConnectionShared> {
        &self.handle.shared
    }

    /// Waits until the handshake is complete: from then on the peer is known to live, and what it sends to be sent by it now.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] if it fails.
    pub async fn connected(&self) -> Result<(), ConnectionError> {
        self.reached(|phase| matches!(phase, Phase::Established | Phase::Closed(_))).await
    }

    /// Waits until streams can be opened: as early data, if there is some.
    pub(crate) async fn usable(&self) -> Result<(), ConnectionError> {
        self.reached(|phase| !matches!(phase, Phase::Connecting)).await
    }

    /// Whether the handshake runs still, what is sent and received meanwhile being early data.
    pub fn is_early(&self) -> bool {
        matches!(&*self.shared().phase.borrow(), Phase::Early)
    }

    async fn reached(&self, is_there: impl FnMut(&Phase) -> bool) -> Result<(), ConnectionError> {
        let mut phase = self.shared().phase.subscribe();
        let phase = phase.wait_for(is_there).await;
        match phase.as_deref() {
            Ok(Phase::Closed(reason)) => Err(ConnectionError::Closed(reason.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(ConnectionError::EndpointGone),
        }
    }

    fn established(&self) -> &Established {
        self.shared().established.get().expect("a connection is handed out once it is established")
    }

    /// Opens a stream. Never waits: what is written is kept by the shard while the peer allows no further stream.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub fn open_stream(&self) -> Result<QuantumStream, ConnectionError> {
        let shared = Arc::new(StreamShared::new());
        let mut streams = self.shared().streams();
        if let Some(reason) = self.close_reason() {
            return Err(ConnectionError::Closed(reason));
        }
        let id = StreamId::new(self.shared().side, streams.next_index);
        streams.next_index += 1;
        streams.open.insert(id, shared.clone());
        // Under the lock, so that the shard hears of the ids in order.
        self.handle.tell(ToShard::Open(self.handle.key(), id));
        drop(streams);
        Ok(QuantumStream::new(self.handle.clone(), id, shared))
    }

    /// The next stream that the peer opened. One that came as early data waits for the end of the handshake.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn accept_stream(&self) -> Result<QuantumStream, ConnectionError> {
        if self.is_early() {
            self.connected().await?;
        }
        self.accept_early_stream().await
    }

    /// The next stream that the peer opened, as early data perhaps: while the connection [is early](Self::is_early), what is done
    /// for it may have to be done twice.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn accept_early_stream(&self) -> Result<QuantumStream, ConnectionError> {
        match self.shared().accept.lock().await.recv().await {
            Some((id, shared)) => Ok(QuantumStream::new(self.handle.clone(), id, shared)),
            None => Err(self.close_reason().map_or(ConnectionError::EndpointGone, ConnectionError::Closed)),
        }
    }

    /// The next stream that the peer opened, if there is one already.
    pub(crate) fn try_accept_early_stream(&self) -> Option<QuantumStream> {
        let (id, shared) = self.shared().accept.try_lock().ok()?.try_recv().ok()?;
        Some(QuantumStream::new(self.handle.clone(), id, shared))
    }

    /// Waits until the peer has acknowledged all of the streams that were finished and that nobody holds any more, or the
    /// connection is over.
    pub async fn delivered(&self) {
        let receiver = {
            let mut streams = self.shared().streams();
            if streams.undelivered.is_empty() {
                return;
            }
            let (sender, receiver) = oneshot::channel();
            streams.delivered.push(sender);
            receiver
        };
        // An end of the channel is what is waited for.
        let _ = receiver.await;
    }

    /// Bytes of a datagram that can be sent at most; none if the peer takes no datagrams.
    pub fn datagram_size_max(&self) -> Option<usize> {
        self.shared().datagram_size_max.get().copied().flatten()
    }

    /// Sends a datagram, once and unreliably (RFC 9221). Never waits: it is dropped, and counted, when more are on their way than
    /// the connection takes.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn send_datagram(&self, data: Bytes) -> Result<(), DatagramError> {
        if self.close_reason().is_some() {
            return Err(DatagramError::Closed);
        }
        let most = self.datagram_size_max().ok_or(DatagramError::Unsupported)?;
        if data.len() > most {
            return Err(DatagramError::TooLarge(most));
        }
        if let Some(data) = self.shared().datagrams.admit(data) {
            self.handle.tell(ToShard::Datagram(self.handle.key(), data));
        }
        Ok(())
    }

    /// The next datagram that came. Of those that nobody takes the oldest are dropped, and counted.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn recv_datagram(&self) -> Result<Bytes, ConnectionError> {
        let data = self.shared().datagrams.receive(|| self.close_reason().is_some()).await;
        data.ok_or_else(|| self.close_reason().map_or(ConnectionError::EndpointGone, ConnectionError::Closed))
    }

    /// Datagrams dropped between the application and the shard, in both directions; the shard's are in the statistics.
    pub fn datagrams_dropped(&self) -> u64 {
        self.shared().datagrams.dropped()
    }

    /// Closes the connection at once, with the application's code and at most 256 bytes for the peer. Streams are cut off.
    pub fn close(&self, code: u64, reason: &[u8]) {
        self.handle.close(code, &reason[..reason.len().min(256)]);
    }

    /// Waits until the connection is over.
    pub async fn closed(&self) -> CloseReason {
        self.shared().closed().await
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared().close_reason()
    }

    /// What the connection does at the moment.
    pub fn state(&self) -> State {
        match &*self.shared().phase.borrow() {
            Phase::Closed(_) => State::Closed,
            _ if self.handle.closing.get().is_some() => State::Closing,
            Phase::Connecting => State::Connecting,
            Phase::Early => State::Early,
            Phase::Established => State::Established,
        }
    }

    /// The connection's id, the same at both ends.
    pub fn guuid(&self) -> Guuid {
        self.established().guuid
    }

    /// The application protocol that both ends agreed on.
    pub fn alpn(&self) -> Alpn {
        self.established().alpn
    }

    /// The peer's address.
    pub fn remote_addr(&self) -> SocketAddr {
        self.established().remote
    }

    /// The address that this side's socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.endpoint.local_addr()
    }

    /// What the connection has done and how its path looks.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn statistics(&self) -> Result<ConnectionStats, ConnectionError> {
        self.shared().statistics(|message| self.handle.tell(message)).await
    }

    /// What a monitor is made of.
    pub(crate) fn watched(&self) -> (Arc<ConnectionShared>, WeakPumpSender) {
        (self.shared().clone(), self.handle.pump.downgrade())
    }

    /// What the congestion controller knows and allows.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`].
    pub async fn bbr_statistics(&self) -> Result<CongestionStats, ConnectionError> {
        Ok(self.statistics().await?.congestion)
    }

    /// Streams of the connection that are held by somebody or wait to be accepted.
    pub fn streams_open(&self) -> usize {
        self.shared().streams().open.len()
    }
}
