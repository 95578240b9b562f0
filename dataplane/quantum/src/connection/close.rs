//! The end of a connection: closing, where the peer's packets are answered with the close, and draining, where they are not.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Connection, State};
use crate::observer::LogEvent;
use crate::wire::varint::VARINT_MAX;
use crate::wire::{Epoch, REASON_LEN_MAX};
use crate::{CloseReason, Event, Side, Time, TransportError};

/// A connection that is over for the application and lives on to answer the peer (RFC 9000 section 10.2).
#[derive(Debug)]
pub(crate) struct Closing {
    until: Time,
    /// What `CONNECTION_CLOSE` says; none while draining.
    frame: Option<CloseFrame>,
    /// A close packet is to be sent in each of these.
    due: Epochs,
    /// Packets that the peer has sent since.
    packets: u32,
}

/// A few epochs, the newest first.
type Epochs = SmallVec<[Epoch; 3]>;

/// The content of a `CONNECTION_CLOSE` frame.
#[derive(Clone, Debug)]
pub(crate) struct CloseFrame {
    pub(crate) code: u64,
    pub(crate) application: bool,
    pub(crate) reason: Bytes,
}

impl Closing {
    /// When the connection is to be forgotten.
    pub(crate) fn until(&self) -> Time {
        self.until
    }

    /// The frame to send now and its epoch, if one is due.
    pub(crate) fn take_due(&mut self) -> Option<(Epoch, CloseFrame)> {
        Some((self.due.pop()?, self.frame.clone()?))
    }

    /// The peer closes as well: nothing is sent any more.
    pub(crate) fn drain(&mut self) {
        self.frame = None;
        self.due.clear();
    }

    /// A packet came from a peer that has not noticed yet: the first, second, fourth, eighth ... one is answered.
    pub(crate) fn on_packet(&mut self, epochs: Epochs) {
        self.packets = self.packets.saturating_add(1);
        if self.frame.is_some() && self.packets.is_power_of_two() {
            self.due = epochs;
        }
    }
}

impl Connection {
    /// Closes the connection with the application's code, at most 2^62 - 1.
    pub(crate) fn close(&mut self, now: Time, code: u64, reason: &[u8]) {
        self.told.log.at(now);
        let reason = Bytes::copy_from_slice(&reason[..reason.len().min(REASON_LEN_MAX)]);
        let frame = CloseFrame { code: code.min(VARINT_MAX), application: true, reason };
        self.start_closing(now, Some(frame), CloseReason::Local { code });
    }

    /// Closes the connection for a fault of the peer.
    pub(super) fn fail(&mut self, now: Time, error: &TransportError) {
        let frame = CloseFrame {
            code: error.code as u64,
            application: false,
            reason: Bytes::from_static(error.reason.as_bytes()),
        };
        self.start_closing(now, Some(frame), CloseReason::from(error.clone()));
    }

    /// Closes the connection since the handshake failed.
    pub(super) fn fail_tls(&mut self, now: Time, alert: u8, reason: String) {
        let code = crate::TransportErrorCode::Crypto as u64 + u64::from(alert);
        let mut words = Bytes::from(reason.clone().into_bytes());
        words.truncate(REASON_LEN_MAX);
        let frame = CloseFrame { code, application: false, reason: words };
        self.start_closing(now, Some(frame), CloseReason::Transport { code, reason });
    }

    /// The peer closed: nothing is sent any more, late packets are ignored.
    pub(super) fn drain(&mut self, now: Time, reason: CloseReason) {
        self.start_closing(now, None, reason);
    }

    fn start_closing(&mut self, now: Time, frame: Option<CloseFrame>, reason: CloseReason) {
        if matches!(self.state, State::Closing(_) | State::Closed) {
            return;
        }
        self.tell_closed(reason);
        let until = now + self.recovery.probe_timeout() * 3;
        let due = if frame.is_some() { self.epochs_for_close() } else { Epochs::new() };
        self.state = State::Closing(Box::new(Closing { until, frame, due, packets: 0 }));
    }

    /// The newest epoch that the peer surely has keys for. It may have newer ones, and have dropped these: then the close goes
    /// in those as well (RFC 9000 section 10.2.3).
    pub(super) fn epochs_for_close(&self) -> Epochs {
        let proven = self.keys.proven();
        let epochs = [Epoch::OneRtt0, Epoch::Handshake, Epoch::Initial].into_iter();
        epochs.filter(|&epoch| epoch >= proven && self.keys.has(epoch)).collect()
    }

    /// Ends the connection at once, without a word to the peer.
    pub(super) fn end(&mut self, reason: CloseReason) {
        if !matches!(self.state, State::Closing(_) | State::Closed) {
            self.tell_closed(reason);
        }
        self.state = State::Closed;
    }

    /// The application hears of it, unless it is a server's that never heard of the connection. Nothing will be sent or read
    /// again; what the connection holds goes now, not when the peer has noticed.
    fn tell_closed(&mut self, reason: CloseReason) {
        self.told.log.record_now(&LogEvent::Closed(&reason));
        let is_orderly = matches!(reason, CloseReason::Peer { application: true, .. });
        if self.id.side == Side::Client || !self.is_handshaking() {
            // Unless the peer closed in order what can be read is lost with the streams: only what has been achieved is
            // worth telling.
            while let Some(event) = self.streams.poll_event() {
                let is_opened = matches!(event, Event::StreamOpened(_));
                if matches!(event, Event::StreamDelivered(_)) || is_orderly && is_opened {
                    self.told.events.push_back(event);
                }
            }
            self.told.events.push_back(Event::Closed(reason));
        }
        self.handshake = None;
        self.keys.forget_early();
        self.recovery.forget();
        self.fec.forget();
        self.pending.datagrams.forget();
        if is_orderly {
            self.streams.clear_unreadable();
        } else {
            self.streams.clear();
        }
    }
}
