//! The application that sends every stream's bytes back, without leaving the shard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quantum::{ConnectionHandle, Endpoint, Event, Read, StreamId, Time};

use super::App;

/// Bytes of one read at most.
const READ_MAX: usize = 64 << 10;

/// A stream that is being sent back.
#[derive(Debug, Default)]
struct Echoed {
    /// Read and not yet written.
    pending: Bytes,
    finished: bool,
}

/// Echoes streams until told to end.
pub(crate) struct EchoApp {
    streams: HashMap<(ConnectionHandle, StreamId), Echoed>,
    shutdown: Arc<AtomicBool>,
}

impl EchoApp {
    /// Ends once `shutdown` is set.
    pub(crate) fn new(shutdown: Arc<AtomicBool>) -> Self {
        Self { streams: HashMap::new(), shutdown }
    }

    fn echo(&mut self, endpoint: &mut Endpoint, handle: ConnectionHandle, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&(handle, id)) else { return };
        let Some(mut connection) = endpoint.connection(handle) else { return };
        loop {
            // Nothing more is read until what was read is written: the peer's credit is the bound.
            if !stream.pending.is_empty() {
                match connection.write(id, &mut stream.pending) {
                    Ok(_) if stream.pending.is_empty() => {}
                    Ok(_) => return,
                    Err(_) => break,
                }
            }
            match connection.read(id, READ_MAX) {
                Read::Data(data) => stream.pending = data,
                Read::Blocked => return,
                Read::Finished => {
                    stream.finished = true;
                    break;
                }
                Read::Reset(code) => {
                    connection.reset(id, code);
                    break;
                }
            }
        }
        if stream.finished {
            // The peer stopped it if it cannot be finished.
            let _ = connection.finish(id);
        } else {
            connection.stop(id, 0);
        }
        self.streams.remove(&(handle, id));
    }
}

impl App for EchoApp {
    fn on_event(&mut self, _now: Time, endpoint: &mut Endpoint, handle: ConnectionHandle, event: Event) {
        match event {
            Event::StreamOpened(id) => {
                self.streams.insert((handle, id), Echoed::default());
            }
            Event::StreamReadable(id) | Event::StreamWritable(id) => self.echo(endpoint, handle, id),
            Event::StreamStopped(id, _) => {
                self.streams.remove(&(handle, id));
            }
            Event::Closed(_) => self.streams.retain(|(of, _), _| *of != handle),
            Event::DatagramReceived => {
                let Some(mut connection) = endpoint.connection(handle) else { return };
                while let Some(data) = connection.recv_datagram() {
                    // One that cannot go is lost, like any other.
                    let _ = connection.send_datagram(data);
                }
            }
            Event::Early { .. } | Event::Connected { .. } | Event::StreamDelivered(_) | Event::StreamsAvailable => {}
        }
    }

    fn poll(&mut self, _now: Time, _endpoint: &mut Endpoint) -> bool {
        false
    }

    fn wants_shutdown(&self) -> bool {
        self.shutdown.load(Ordering::Acquire)
    }

    fn prepare_sleep(&mut self) -> bool {
        !self.wants_shutdown()
    }

    fn awake(&mut self) {}
}
