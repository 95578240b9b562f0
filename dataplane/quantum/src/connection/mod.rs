//! One connection: packets in, packets out, and what is due in between.

mod close;
mod crypto_stream;
mod datagrams;
mod early;
#[cfg(test)]
pub(crate) mod forge;
mod handshake;
mod key_phase;
mod key_update;
mod keys;
mod path;
mod receive;
mod repair;
mod skip;
mod timers;
mod transmit;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use crate::congestion::BBR_SIZE;
use crate::crypto::session::{KeyPair, Session};
use crate::observer::{ConnectionLog, Log, LogEvent};
use crate::path::Path;
use crate::recovery::{AckOutcome, ReceivedPackets, Recovery, RecoveryConfig};
use crate::sent_frame::SentFrame;
use crate::streams::{Streams, StreamsConfig};
use crate::{ConnectionStats, EndpointConfig, Event, Guuid, Side, Time, Timings, TrafficStats};

use close::Closing;
pub use datagrams::DatagramError;
use datagrams::Datagrams;
use handshake::Handshake;
use keys::KeyRing;
pub(crate) use receive::{Arrival, Verdict};
use repair::Fec;
use skip::SkippedNumbers;
use timers::Timers;

/// Size of every SYN packet, padding included: a path that carries less cannot carry the protocol.
pub(crate) const SYN_SIZE: u16 = 1200;

/// Size of the largest packet: what the limits of packet protection reckon with.
pub(crate) const DATAGRAM_SIZE_MAX: u16 = 2048;

/// Number of the first packet of a connection. Number 0 belongs to the packets that a server sends without keeping state.
pub(crate) const FIRST_NUMBER: u64 = 1;

/// Where a connection is in its life.
#[derive(Debug)]
enum State {
    Handshaking,
    /// The handshake goes on, and the application may use the connection: early data.
    Early,
    Open,
    /// Closed here or by the peer; packets are answered or ignored until the deadline.
    Closing(Box<Closing>),
    /// Over; the endpoint forgets it.
    Closed,
}

/// What waits for the next packet besides acknowledgements, handshake bytes and stream frames.
#[derive(Debug)]
struct Pending {
    /// Its number.
    number: u64,
    /// Numbers that were left out.
    skipped: SkippedNumbers,
    ping: bool,
    handshake_done: bool,
    datagrams: Datagrams,
    /// Acknowledgements sent since something ack-eliciting was.
    ack_only_run: u32,
}

/// Who a connection is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionId {
    pub(crate) guuid: Guuid,
    pub(crate) side: Side,
}

/// What is told outside: to the application, and to a log.
#[derive(Debug)]
struct Told {
    events: VecDeque<Event>,
    log: Log,
    /// How long things take.
    timings: Arc<Timings>,
}

impl Default for Told {
    fn default() -> Self {
        /// Nobody reads it: each connection has its endpoint's as soon as it is observed.
        static UNREAD: LazyLock<Arc<Timings>> = LazyLock::new(Arc::default);
        Self { events: VecDeque::new(), log: Log::default(), timings: Arc::clone(&UNREAD) }
    }
}

/// What only the connection itself counts.
#[derive(Debug, Default)]
struct Counts {
    packets_received: u64,
    bytes_received: u64,
    retransmissions: u64,
}

/// One connection.
pub(crate) struct Connection {
    id: ConnectionId,
    config: Arc<EndpointConfig>,
    state: State,
    path: Path,
    keys: KeyRing,
    /// Goes once the handshake is confirmed.
    handshake: Option<Box<Handshake>>,
    recovery: Recovery,
    received: ReceivedPackets,
    streams: Streams,
    timers: Timers,
    pending: Pending,
    /// Forward error correction.
    fec: Fec,
    told: Told,
    counts: Counts,
    /// Frames acknowledged and lost, reused from call to call.
    outcome: Option<Box<AckOutcome>>,
}

/// Bytes of a connection's parts themselves, without what they refer to, for measurements.
pub fn connection_part_sizes() -> [(&'static str, usize); 14] {
    [
        ("connection, with the parts that follow", size_of::<Connection>()),
        ("path", size_of::<Path>()),
        ("keys", size_of::<KeyRing>()),
        ("recovery", size_of::<Recovery>()),
        ("received numbers", size_of::<ReceivedPackets>()),
        ("streams", size_of::<Streams>()),
        ("timers", size_of::<Timers>()),
        ("pending", size_of::<Pending>()),
        ("forward error correction", size_of::<Fec>()),
        ("what is told", size_of::<Told>()),
        ("counters", size_of::<Counts>()),
        ("beside it: BBR", BBR_SIZE),
        ("beside it until it rests: outcome of an acknowledgement", size_of::<AckOutcome>()),
        ("beside it until it is over: the handshake", size_of::<Handshake>()),
    ]
}

/// What a connection starts from.
pub(crate) struct Start {
    pub(crate) id: ConnectionId,
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    /// The address is the peer's: a cookie proved it.
    pub(crate) validated: bool,
    pub(crate) initial_keys: KeyPair,
    pub(crate) session: Box<dyn Session>,
    /// Feeds what is random in congestion control.
    pub(crate) seed: u64,
}

impl Connection {
    /// A connection in its handshake. A client has its first packets to send, a server waits for the first one.
    pub(crate) fn new(now: Time, config: &Arc<EndpointConfig>, start: Start) -> Self {
        let streams = StreamsConfig {
            stream_window: config.stream_window,
            connection_window: config.connection_window,
            streams_max: config.streams_max,
            send_buffer_max: config.send_buffer_max,
        };
        let start_side = start.id.side;
        let datagram_size = config.path.datagram_size.clamp(SYN_SIZE, DATAGRAM_SIZE_MAX);
        let recovery = RecoveryConfig::new(start.id.side, datagram_size, config.segments_max, start.seed);
        let recovery = RecoveryConfig { congestion: config.congestion, ..recovery };
        let mut connection = Self {
            id: start.id,
            config: Arc::clone(config),
            state: State::Handshaking,
            path: Path::new((start.remote, start.local), start.validated || start.id.side == Side::Client, start.seed),
            keys: KeyRing::new(start.initial_keys),
            handshake: Some(Box::new(Handshake::new(start.session))),
            recovery: Recovery::new(now, &recovery),
            received: ReceivedPackets::new(),
            streams: Streams::new(start.id.side, streams),
            timers: Timers::new(now, config),
            pending: Pending {
                number: FIRST_NUMBER,
                skipped: SkippedNumbers::new(start.seed),
                ping: false,
                handshake_done: false,
                datagrams: Datagrams::new(config.datagrams),
                ack_only_run: 0,
            },
            fec: Fec::new(now, &config.fec),
            told: Told::default(),
            counts: Counts::default(),
            outcome: None,
        };
        if start_side == Side::Server && config.security.early_data {
            connection.keys.expect_early_data();
        }
        connection.drive_session(now);
        connection
    }

    /// Takes account of what an acknowledgement or a timeout led to.
    fn settle(&mut self, now: Time) {
        let mut outcome = self.outcome.take().unwrap_or_default();
        for frame in outcome.acked.drain(..) {
            match frame {
                SentFrame::Ack { largest } => self.received.on_ack_of_ack(largest),
                SentFrame::Crypto { epoch, offset, len } => {
                    if let Some(send) = self.handshake.as_deref_mut().and_then(|handshake| handshake.send(epoch)) {
                        send.on_acked(offset, len);
                    }
                    self.release_handshake();
                }
                SentFrame::Datagram => self.pending.datagrams.on_acked(),
                SentFrame::Source { number } => self.fec.protector.on_acked(number),
                SentFrame::Repair { group } => self.fec.protector.on_repair_acked(group),
                SentFrame::Recovered { first, last } => self.fec.restorer.on_report_acked(first, last),
                SentFrame::EcnCounts { ce } => self.path.marks.on_report_acked(ce),
                SentFrame::MtuProbe { size } => self.on_mtu_probe_acked(now, size),
                frame => self.streams.on_acked(&frame),
            }
        }
        self.log_recovery(&outcome.lost_numbers);
        for frame in outcome.lost.drain(..) {
            match frame {
                SentFrame::MtuProbe { size } => self.path.discovery.on_probe_lost(now, size),
                frame => self.resend(now, &frame),
            }
        }
        self.take_evidence(&outcome.sizes, &outcome.marks);
        for (number, frames) in outcome.lost_sources.drain(..) {
            self.hold(now, number, frames);
        }
        self.resend_released(now);
        if outcome.rtt_sampled {
            self.received.set_ack_delay(self.recovery.rtt().smoothed());
            self.told.timings.on_rtt(self.recovery.rtt().latest());
        }
        outcome.clear();
        self.outcome = Some(outcome);
    }

    /// Tells the log, if there is one.
    fn log_recovery(&mut self, lost: &[u64]) {
        if self.told.log.is_on() {
            for &number in lost {
                self.told.log.record_now(&LogEvent::PacketLost { number });
            }
            let stats = self.stats();
            self.told.log.record_now(&LogEvent::Metrics(&stats));
        }
    }

    /// From here on the connection is observed.
    pub(crate) fn observe(&mut self, now: Time, log: Option<Box<dyn ConnectionLog>>, timings: &Arc<Timings>) {
        self.told.timings = Arc::clone(timings);
        self.told.log.start(now, log, self.path.remote);
    }

    /// What the frame carried is to be sent again, as far as it still matters.
    fn resend(&mut self, now: Time, frame: &SentFrame) {
        match *frame {
            SentFrame::SentAt(sent) => self.told.timings.on_resent(now - sent),
            SentFrame::Crypto { epoch, offset, len } => {
                if let Some(send) = self.handshake.as_deref_mut().and_then(|handshake| handshake.send(epoch)) {
                    send.on_lost(offset, len);
                }
            }
            SentFrame::HandshakeDone => self.pending.handshake_done = true,
            SentFrame::Repair { group } => self.fec.protector.on_repair_lost(group),
            SentFrame::Recovered { first, last } => self.fec.restorer.on_report_lost(first, last),
            _ => self.streams.on_lost(frame),
        }
    }

    /// Which end this is, and its id.
    pub(crate) fn id(&self) -> ConnectionId {
        self.id
    }

    /// Where the peer is.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.path.remote
    }

    /// Whether the handshake goes on.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking)
    }

    /// Whether the application may use it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Whether the application may use it: its handshake is complete, or there is early data.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.state, State::Open | State::Early)
    }

    /// Whether the endpoint can forget it.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The streams, for the application.
    pub(crate) fn streams(&mut self) -> &mut Streams {
        &mut self.streams
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.told.events.pop_front().or_else(|| if self.is_usable() { self.streams.poll_event() } else { None })
    }

    /// What it has sent and received, and what is on its way.
    pub(crate) fn traffic(&self) -> TrafficStats {
        let mut traffic = TrafficStats { packets_received: self.counts.packets_received, ..TrafficStats::default() };
        self.recovery.traffic(&mut traffic);
        self.fec.traffic(&mut traffic);
        traffic
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> ConnectionStats {
        let Counts { packets_received, bytes_received, retransmissions } = self.counts;
        let mut stats =
            ConnectionStats { packets_received, bytes_received, retransmissions, ..ConnectionStats::default() };
        self.recovery.stats(&mut stats);
        stats.streams = self.streams.stats();
        stats.path = self.path.stats();
        stats.protection = self.keys.stats();
        stats.datagrams = self.pending.datagrams.stats();
        self.fec.stats(&mut stats.fec);
        stats.fec.loss = self.recovery.losses().rate();
        stats.fec.burst = self.recovery.losses().burst().length;
        stats
    }
}
