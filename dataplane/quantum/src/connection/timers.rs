//! What is due and when.

use std::time::Duration;

use super::{Connection, FIRST_NUMBER, State};
use crate::wire::expand;
use crate::{CloseReason, EndpointConfig, Side, Time};

/// A server that has heard nothing for so long asks whether the client is still there, once: a client that was killed is
/// noticed soon, if its host answers in its place.
const QUIET: Duration = Duration::from_secs(2);
/// Memory that only saves allocations goes so long after the last packet came.
const RELEASE_AFTER: Duration = Duration::from_secs(2);
/// How long a peer has to leave probes unanswered after its host first said that nothing listens at its port, or three probe
/// timeouts if they are longer.
const UNREACHABLE_FOR: Duration = Duration::from_millis(500);

/// Deadlines of a connection, besides those of loss detection and acknowledgements.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The handshake has to be over by then.
    handshake: Option<Time>,
    idle_timeout: Duration,
    keepalive: Option<Duration>,
    received_at: Time,
    active_at: Time,
    /// When to ask a peer that has gone quiet.
    quiet_at: Option<Time>,
    /// When memory that is kept for reuse goes.
    release_at: Option<Time>,
    /// Since when the peer's host has said that nothing listens there, and nothing else came.
    unreachable_since: Option<Time>,
    /// The pacer lets the next packet go then.
    pub(super) paced_until: Option<Time>,
    /// Until then a server opens early data that was late on its way.
    early_until: Option<Time>,
}

impl Timers {
    pub(super) fn new(now: Time, config: &EndpointConfig) -> Self {
        Self {
            handshake: Some(now + config.security.handshake_timeout),
            idle_timeout: config.idle_timeout,
            keepalive: None,
            received_at: now,
            active_at: now,
            quiet_at: None,
            release_at: None,
            unreachable_since: None,
            paced_until: None,
            early_until: None,
        }
    }

    /// How long the handshake, which goes on, has taken so far.
    pub(super) fn handshake_age(&self, now: Time, config: &EndpointConfig) -> Duration {
        let left = self.handshake.map_or(Duration::ZERO, |due| due - now);
        config.security.handshake_timeout.saturating_sub(left)
    }

    /// A server's handshake is complete: what comes late of early data is opened until then.
    pub(super) fn end_early(&mut self, until: Time) {
        self.early_until = Some(until);
    }

    /// The handshake is over; both sides idle out after the shorter of their timeouts.
    pub(super) fn on_connected(&mut self, side: Side, config: &EndpointConfig, peer_idle_timeout: Duration) {
        self.handshake = None;
        if !peer_idle_timeout.is_zero() {
            self.idle_timeout = self.idle_timeout.min(peer_idle_timeout);
        }
        // One PING keeps both sides alive. The server's comes later, so that it goes only when the client's did not come.
        self.keepalive = config.keepalive.map(|interval| {
            let interval = interval.min(self.idle_timeout / 3);
            if side == Side::Client { interval } else { interval * 3 / 2 }
        });
    }

    pub(super) fn on_received(&mut self, now: Time) {
        self.received_at = now;
        self.active_at = now;
        self.release_at = Some(now + RELEASE_AFTER);
        self.unreachable_since = None;
    }

    /// Something more came than acknowledgements and what keeps a connection alive.
    pub(super) fn on_content(&mut self, now: Time, side: Side) {
        if side == Side::Server && self.keepalive.is_some() {
            self.quiet_at = Some(now + QUIET);
        }
    }

    pub(super) fn on_sent_eliciting(&mut self, now: Time) {
        self.active_at = now;
    }

    fn idle(&self) -> Time {
        self.received_at + self.idle_timeout
    }

    fn keepalive(&self) -> Option<Time> {
        Some(self.active_at + self.keepalive?)
    }
}

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            State::Closing(closing) => return Some(closing.until()),
            State::Closed => return None,
            State::Handshaking | State::Early | State::Open => {}
        }
        let may_send = !self.is_amplification_limited();
        let candidates = [
            Some(self.timers.handshake.unwrap_or_else(|| self.timers.idle())),
            self.timers.keepalive(),
            self.timers.quiet_at,
            self.timers.release_at,
            self.timers.paced_until,
            self.timers.early_until,
            self.ack_due().filter(|_| may_send),
            self.recovery.next_timeout().filter(|_| may_send),
            self.next_fec_timeout(),
            self.path.migration.next_timeout(),
        ];
        candidates.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.told.log.at(now);
        match &self.state {
            State::Closing(closing) => {
                if closing.until() <= now {
                    self.state = State::Closed;
                }
                return;
            }
            State::Closed => return,
            State::Handshaking | State::Early | State::Open => {}
        }
        if self.timers.handshake.is_some_and(|deadline| deadline <= now) {
            self.end(CloseReason::HandshakeTimeout);
            return;
        }
        if self.timers.idle() <= now {
            self.end(CloseReason::IdleTimeout);
            return;
        }
        if self.timers.paced_until.is_some_and(|until| until <= now) {
            self.timers.paced_until = None;
        }
        if self.timers.early_until.is_some_and(|until| until <= now) {
            self.timers.early_until = None;
            self.keys.discard_early(true);
        }
        if self.timers.keepalive().is_some_and(|due| due <= now) {
            self.pending.ping = true;
            self.timers.active_at = now;
        }
        if self.timers.quiet_at.is_some_and(|due| due <= now) {
            self.pending.ping = true;
            self.timers.quiet_at = None;
        }
        if self.timers.release_at.is_some_and(|due| due <= now) {
            self.timers.release_at = None;
            self.release(now);
        }
        self.on_fec_timeout(now);
        if !self.is_amplification_limited() && self.recovery.next_timeout().is_some_and(|due| due <= now) {
            self.on_recovery_timeout(now);
        }
    }

    /// Nothing has come for a while: memory that only saves allocations goes.
    fn release(&mut self, now: Time) {
        self.outcome = None;
        self.streams.release();
        self.recovery.shrink(now);
        self.received.shrink();
        self.fec.protector.shrink();
        self.fec.restorer.forget();
        self.pending.datagrams.shrink();
        self.keys.shrink();
        self.told.events.shrink_to_fit();
    }

    fn on_recovery_timeout(&mut self, now: Time) {
        let mut outcome = self.outcome.take().unwrap_or_default();
        self.recovery.on_timeout(now, &mut outcome);
        self.outcome = Some(outcome);
        self.settle(now);
    }

    /// The peer's host says that nothing listens at the port which the packet with that number was sent to. Anybody who sees
    /// the packet can say so; a peer that lives answers the probes and is heard first.
    pub(crate) fn on_unreachable(&mut self, now: Time, sequence: u32) {
        let number = expand(sequence, self.pending.number);
        if !(FIRST_NUMBER..self.pending.number).contains(&number) || !(self.is_handshaking() || self.is_usable()) {
            return;
        }
        if !self.recovery.awaits_answer() {
            return;
        }
        let since = *self.timers.unreachable_since.get_or_insert(now);
        if now >= since + UNREACHABLE_FOR.max(self.recovery.probe_timeout() * 3) {
            self.end(CloseReason::Unreachable);
        }
    }

    /// The address is not validated and has had three times what it sent: nothing goes there until more comes.
    pub(super) fn is_amplification_limited(&self) -> bool {
        self.path.amplification_allowance() < u64::from(super::SYN_SIZE)
    }
}
