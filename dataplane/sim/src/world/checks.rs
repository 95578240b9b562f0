//! What has to hold of every endpoint at every moment: nothing over the window, nothing in greater number than allowed.

use quantum::{ConnectionHandle, EndpointConfig, Transmit};

use super::Node;
use crate::Fault;
use crate::app::{Client, Server};

/// Packets that each probe timeout may send beyond the congestion window (RFC 9002 section 6.2.4).
const PROBES: u64 = 2;
/// Packets beyond the window at any time: one that was begun under it, and handshake bytes, which do not wait for it.
const PACKETS_OVER_WINDOW: u64 = 3;
/// A client whose Finished is not known to have arrived sends it again whatever is in flight: a packet of so many bytes,
/// with its SACK blocks.
const FINISHED_BYTES: u64 = 192;
/// Bytes of the largest UDP payload.
const UDP_PAYLOAD_MAX: usize = 65_507;

/// An application whose connections can be looked at.
pub(super) trait Connections {
    fn handles(&self) -> Vec<ConnectionHandle>;
}

impl Connections for Client {
    fn handles(&self) -> Vec<ConnectionHandle> {
        Self::handles(self)
    }
}

impl Connections for Server {
    fn handles(&self) -> Vec<ConnectionHandle> {
        Self::handles(self)
    }
}

/// What endpoints may hold and send.
pub(super) struct Limits {
    datagram_size: u64,
    segments_max: usize,
    stream_window: u64,
    /// By so many bytes the windows of streams grow in all, and so do their send buffers.
    connection_window: u64,
    send_buffer_max: u64,
    streams_max: usize,
    connections_max: u64,
}

impl Limits {
    pub(super) fn new(config: &EndpointConfig, clients: usize) -> Self {
        Self {
            datagram_size: u64::from(config.path.datagram_size.max(config.path.datagram_size_max)),
            segments_max: config.segments_max,
            stream_window: config.stream_window,
            connection_window: config.connection_window,
            send_buffer_max: config.send_buffer_max as u64,
            // Streams of either side.
            streams_max: 2 * config.streams_max as usize,
            connections_max: clients as u64,
        }
    }

    /// Packets of one size but the last, no more than allowed, and no more bytes than UDP carries.
    pub(super) fn check_transmit(&self, transmit: &Transmit) -> Result<(), Fault> {
        let sizes = 1..=self.datagram_size.min(transmit.len as u64);
        let is_right = transmit.len <= UDP_PAYLOAD_MAX
            && sizes.contains(&(transmit.segment_size as u64))
            && transmit.len.div_ceil(transmit.segment_size) <= self.segments_max;
        if is_right { Ok(()) } else { Err(Fault::new(format!("a transmit that cannot be sent: {transmit:?}"))) }
    }

    /// Compares each connection with what it had in flight before it sent.
    pub(super) fn check_connections<A: Connections>(
        &self,
        node: &mut Node<A>,
        before: Vec<(ConnectionHandle, u64)>,
    ) -> Result<(), Fault> {
        let connections = node.endpoint.stats().connections;
        if connections > self.connections_max {
            return Err(Fault::new(format!("{connections} connections of {} clients", self.connections_max)));
        }
        for (handle, was) in before {
            let Some(connection) = node.endpoint.connection(handle) else { continue };
            let stats = connection.stats();
            let fired = stats.probe_timeouts - node.probe_timeouts.insert(handle, stats.probe_timeouts).unwrap_or(0);
            node.migrations.insert(handle, stats.path.migration.migrations);
            let window = stats.congestion.window_bytes + PACKETS_OVER_WINDOW * self.datagram_size;
            let most = window.max(was + FINISHED_BYTES) + fired * PROBES * self.datagram_size;
            if stats.congestion.in_flight_bytes > most {
                return Err(Fault::new(format!("sent over the window: {stats:?}, {was} in flight before")));
            }
            let (streams, live) = (stats.streams, stats.streams.live as u64);
            if streams.live > self.streams_max
                || streams.send_buffered_bytes as u64 > live * self.send_buffer_max + self.connection_window
                || streams.receive_buffered_bytes as u64 > live * self.stream_window + self.connection_window
            {
                return Err(Fault::new(format!("more is kept than allowed: {streams:?}")));
            }
        }
        Ok(())
    }
}

/// Bytes that each connection has in flight.
pub(super) fn in_flight<A: Connections>(node: &mut Node<A>) -> Vec<(ConnectionHandle, u64)> {
    let handles = node.app.handles().into_iter();
    handles
        .filter_map(|handle| Some((handle, node.endpoint.connection(handle)?.stats().congestion.in_flight_bytes)))
        .collect()
}
