//! The handshake of a connection: handshake bytes in CRYPTO frames, keys, transport parameters, cookies, confirmation.

use bytes::Bytes;

use super::crypto_stream::{CryptoReceive, CryptoSend};
use super::early::limits;
use super::{Connection, State};
use crate::crypto::session::{Session, SessionError};
use crate::params::TransportParameters;
use crate::wire::Epoch;
use crate::{Event, Side, Time, TransportError, TransportErrorCode};

/// State that goes once the handshake is confirmed, and session tickets have been sent and received.
pub(crate) struct Handshake {
    /// Goes when it has nothing more to say or to hear.
    session: Option<Box<dyn Session>>,
    write_epoch: Epoch,
    read_epoch: Epoch,
    is_confirmed: bool,
    /// By epoch. That of 1-RTT carries a server's session tickets.
    send: [CryptoSend; 3],
    receive: [CryptoReceive; 3],
    /// The server's cookie, repeated in every SYN.
    pub(super) cookie: Option<Bytes>,
}

impl Handshake {
    pub(super) fn new(session: Box<dyn Session>) -> Self {
        Self {
            session: Some(session),
            write_epoch: Epoch::Initial,
            read_epoch: Epoch::Initial,
            is_confirmed: false,
            send: Default::default(),
            receive: Default::default(),
            cookie: None,
        }
    }

    /// Handshake bytes to send in `epoch`, if the epoch has any.
    pub(super) fn send(&mut self, epoch: Epoch) -> Option<&mut CryptoSend> {
        self.send.get_mut(epoch as usize)
    }

    /// The session, while it has something to do.
    pub(super) fn session(&mut self) -> Option<&mut dyn Session> {
        Some(&mut **self.session.as_mut()?)
    }
}

impl Connection {
    /// A CRYPTO frame came.
    pub(super) fn on_crypto(
        &mut self,
        now: Time,
        epoch: Epoch,
        offset: u64,
        data: &[u8],
    ) -> Result<(), TransportError> {
        let Some(handshake) = self.handshake.as_deref_mut().filter(|handshake| handshake.session.is_some()) else {
            return Ok(());
        };
        let epoch = if epoch.is_one_rtt() { Epoch::OneRtt0 } else { epoch };
        let Some(receive) = handshake.receive.get_mut(epoch as usize) else {
            return Err(TransportError::new(
                TransportErrorCode::ProtocolViolation,
                "handshake data after the handshake",
            ));
        };
        receive.insert(offset, data)?;
        if epoch == handshake.read_epoch {
            self.drive_session(now);
        }
        Ok(())
    }

    /// Moves bytes between the session and the CRYPTO streams until neither has more.
    pub(super) fn drive_session(&mut self, now: Time) {
        let mut out = Vec::new();
        loop {
            let Some(handshake) = self.handshake.as_deref_mut() else { return };
            let Some(session) = handshake.session.as_deref_mut() else { return };
            let input = handshake.receive.get_mut(handshake.read_epoch as usize).and_then(CryptoReceive::read);
            let had_input = input.is_some();
            if let Some(bytes) = input
                && let Err(SessionError { alert, reason }) = session.read(&bytes)
            {
                self.fail_tls(now, alert, reason);
                return;
            }
            out.clear();
            let keys = session.write(&mut out);
            if let Some(send) = handshake.send.get_mut(handshake.write_epoch as usize) {
                send.push(&out);
            }
            let progressed = had_input || !out.is_empty() || keys.is_some();
            if let Some((epoch, pair)) = keys {
                handshake.write_epoch = epoch;
                if epoch == Epoch::Handshake {
                    handshake.read_epoch = epoch;
                }
                self.keys.install(epoch, pair);
            }
            if !progressed {
                break;
            }
        }
        let Some(session) = self.handshake.as_deref_mut().and_then(Handshake::session) else { return };
        let (is_done, has_ticket) = (!session.is_handshaking(), session.has_ticket());
        if is_done && !self.is_open() {
            self.on_session_complete(now);
        } else if !is_done {
            self.start_early();
        }
        if has_ticket {
            self.release_session();
        }
    }

    /// TLS is through. The server confirms at once; the client is confirmed when it hears so.
    fn on_session_complete(&mut self, now: Time) {
        let Some(handshake) = self.handshake.as_deref_mut() else { return };
        handshake.read_epoch = Epoch::OneRtt0;
        let Some(session) = handshake.session.as_deref_mut() else { return };
        let parameters = session.peer_parameters().unwrap_or_default();
        let Some(alpn) = session.alpn() else {
            self.fail_tls(now, 120, "the peer agreed on no application protocol".to_owned());
            return;
        };
        let accepted = session.is_early_data_accepted();
        if let (Some(source), Some(phases)) = (session.key_updates(), self.keys.phases()) {
            phases.set_source(source);
        }
        let parameters = match TransportParameters::decode(&parameters) {
            Ok(parameters) => parameters,
            Err(error) => return self.fail(now, &error),
        };
        if !parameters.takes_tickets {
            handshake.send[Epoch::OneRtt0 as usize] = CryptoSend::default();
        }
        if !self.is_usable() {
            self.streams.set_peer_limits(limits(&parameters));
        } else if let Err(error) = self.settle_early(now, accepted, limits(&parameters)) {
            return self.fail(now, &error);
        }
        self.fec.protector.accept(parameters.fec_members_max);
        self.pending.datagrams.accept(parameters.datagram_frame_max);
        self.recovery.set_peer_max_ack_delay(parameters.ack_delay_max);
        self.path.start_exploring(self.config.path, parameters.datagram_size_max);
        self.told.timings.on_handshake(self.timers.handshake_age(now, &self.config));
        self.timers.on_connected(self.id.side, &self.config, parameters.idle_timeout);
        if self.config.path.migration && self.id.side == Side::Server && parameters.answers_challenges {
            self.path.migration.follow();
        }
        self.keys.set_reset_token(parameters.reset_token.filter(|_| self.id.side == Side::Client));
        self.keys.enable_one_rtt();
        self.state = State::Open;
        self.told.events.push_back(Event::Connected { guuid: self.id.guuid, remote: self.path.remote, alpn });
        if self.id.side == Side::Server {
            self.pending.handshake_done = true;
            self.confirm();
        }
    }

    /// The handshake is confirmed: its keys, its bytes and the session go.
    pub(super) fn confirm(&mut self) {
        let Some(handshake) = self.handshake.as_deref_mut().filter(|handshake| !handshake.is_confirmed) else { return };
        handshake.is_confirmed = true;
        self.discard(Epoch::Initial);
        self.discard(Epoch::Handshake);
        self.recovery.set_handshake_confirmed();
        if self.id.side == Side::Server || !self.config.security.early_data {
            self.release_session();
        }
        self.release_handshake();
    }

    /// Whether the handshake is confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        self.handshake.as_deref().is_none_or(|handshake| handshake.is_confirmed)
    }

    /// Whether a session ticket is to be sent.
    pub(super) fn has_ticket_to_send(&self) -> bool {
        let handshake = self.handshake.as_deref().filter(|handshake| handshake.is_confirmed);
        handshake.is_some_and(|handshake| handshake.send[Epoch::OneRtt0 as usize].has_pending())
    }

    /// The session has said and heard everything.
    fn release_session(&mut self) {
        if let Some(handshake) = self.handshake.as_deref_mut() {
            handshake.session = None;
        }
        self.release_handshake();
    }

    /// What is left of the handshake goes, if nothing of it has to be sent again or heard.
    pub(super) fn release_handshake(&mut self) {
        let is_over = |handshake: &Handshake| {
            let ticket = &handshake.send[Epoch::OneRtt0 as usize];
            handshake.is_confirmed && handshake.session.is_none() && ticket.is_delivered()
        };
        if self.handshake.as_deref().is_some_and(is_over) {
            self.handshake = None;
        }
    }

    /// Nothing is sent or opened in that epoch any more, and what was sent counts as neither lost nor in flight.
    pub(super) fn discard(&mut self, epoch: Epoch) {
        if self.keys.discard(epoch) {
            self.recovery.discard_epoch(epoch);
        }
    }

    /// The server wants its cookie in the SYN, and has kept nothing of what was sent.
    pub(super) fn on_cookie(&mut self, now: Time, token: &[u8]) {
        let Some(handshake) = self.handshake.as_deref_mut() else { return };
        if self.id.side != Side::Client || handshake.cookie.is_some() || self.keys.has(Epoch::Handshake) {
            return;
        }
        handshake.cookie = Some(Bytes::copy_from_slice(token));
        handshake.send[0].restart();
        self.recovery.discard_epoch(Epoch::Initial);
        self.abandon_early(now);
    }
}
