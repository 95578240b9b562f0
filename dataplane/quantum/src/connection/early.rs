//! Early data (0-RTT): streams that a client sends under the keys of an earlier session, and what a server makes of them.

use super::{Connection, State};
use crate::params::TransportParameters;
use crate::sent_frame::SentFrame;
use crate::streams::PeerLimits;
use crate::wire::Epoch;
use crate::{Event, Side, Time, TransportError, TransportErrorCode};

/// What the peer's parameters allow at first.
pub(super) fn limits(parameters: &TransportParameters) -> PeerLimits {
    PeerLimits {
        stream_window: parameters.stream_window,
        connection_window: parameters.connection_window,
        streams_max: parameters.streams_max,
    }
}

impl Connection {
    /// Lets the application use the connection before its handshake is complete, if the session has early data: a client that
    /// remembers an earlier one, with the limits that it had there; a server that has accepted it.
    pub(super) fn start_early(&mut self) {
        if !self.is_handshaking() || !self.config.security.early_data {
            return;
        }
        let Some(session) = self.handshake.as_deref_mut().and_then(|handshake| handshake.session()) else { return };
        let Some(parameters) = session.peer_parameters() else { return };
        // Parameters that are absurd end the handshake when it is complete.
        let Ok(parameters) = TransportParameters::decode(&parameters) else { return };
        let Some(early) = session.early_data() else { return };
        self.streams.set_peer_limits(limits(&parameters));
        if self.id.side == Side::Server {
            self.fec.protector.accept(parameters.fec_members_max);
        }
        self.keys.install_early(self.id.side, early.key);
        self.state = State::Early;
        let (guuid, remote) = (self.id.guuid, self.path.remote);
        self.told.events.push_back(Event::Early { guuid, remote, alpn: early.alpn });
    }

    /// The handshake is complete, and the peer's limits are these. What a client sent as early data that was not accepted is
    /// sent again.
    pub(super) fn settle_early(&mut self, now: Time, accepted: bool, limits: PeerLimits) -> Result<(), TransportError> {
        if self.id.side == Side::Server {
            self.timers.end_early(now + self.recovery.probe_timeout() * 3);
            return Ok(());
        }
        let remembered = self.streams.peer_limits();
        self.keys.discard_early(accepted);
        if !accepted {
            self.abandon_early(now);
        }
        let shrinks = limits.stream_window < remembered.stream_window
            || limits.connection_window < remembered.connection_window
            || limits.streams_max < remembered.streams_max;
        if accepted && shrinks || !self.streams.fits(limits) {
            // RFC 9000 section 7.4.1.
            let reason = "the server allows less than when early data was allowed";
            return Err(TransportError::new(TransportErrorCode::ProtocolViolation, reason));
        }
        self.streams.replace_peer_limits(limits);
        Ok(())
    }

    /// What was sent as early data and is not acknowledged is sent again, its packets being neither lost nor in flight.
    pub(super) fn abandon_early(&mut self, now: Time) {
        let mut frames = Vec::new();
        self.recovery.abandon_epoch(Epoch::ZeroRtt, &mut frames);
        self.resend_all(now, &frames);
    }

    /// A probe timeout before the handshake is complete. Probes repeat the two oldest packets; with data beside the handshake in
    /// flight these need not be what the peer waits for, so all of the handshake goes again, and a client's early data.
    pub(super) fn resend_early(&mut self, now: Time) {
        if self.is_early() {
            let mut frames = Vec::new();
            for epoch in [Epoch::Initial, Epoch::Handshake, Epoch::ZeroRtt] {
                self.recovery.frames_of(epoch, &mut frames);
            }
            self.resend_all(now, &frames);
        }
    }

    fn resend_all(&mut self, now: Time, frames: &[SentFrame]) {
        // Nothing says that they were lost: how long they were missing is not told.
        for frame in frames.iter().filter(|frame| !matches!(frame, SentFrame::SentAt(_))) {
            self.resend(now, frame);
        }
    }

    /// Whether the application uses the connection while its handshake goes on.
    pub(super) fn is_early(&self) -> bool {
        matches!(self.state, State::Early)
    }

    /// Where data goes at the moment, if it may go.
    pub(super) fn data_epoch(&self) -> Option<Epoch> {
        match (&self.state, self.id.side) {
            (State::Open, _) | (State::Early, Side::Server) => Some(Epoch::OneRtt0),
            (State::Early, Side::Client) => Some(Epoch::ZeroRtt),
            _ => None,
        }
    }

    /// Where an acknowledgement goes: the peer has these keys. What acknowledges early data has to be more than anybody can
    /// make; a client that has not got as far drops it, and is told of its hello by every packet of the handshake.
    pub(super) fn ack_epoch(&self) -> Epoch {
        match self.keys.proven() {
            Epoch::Initial if self.is_early() && self.id.side == Side::Server => Epoch::OneRtt0,
            epoch => epoch,
        }
    }
}
