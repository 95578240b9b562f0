//! Keys of 1-RTT, phase by phase (RFC 9001 section 6). The phase is the epoch's parity: it is in the clear, and authenticated.

use std::time::Duration;

use crate::crypto::session::{KeyPair, KeyUpdates, PacketKey};
use crate::stats::ProtectionStats;
use crate::wire::Epoch;
use crate::{Time, TransportError, TransportErrorCode};

/// Old keys open late packets for so many probe timeouts, and no further update is begun before.
const KEPT_PROBE_TIMEOUTS: u32 = 3;

/// Which phase's key opens a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The one before: the packet is late.
    Previous,
    Current,
    /// The one after: the peer begins it with this packet.
    Next,
}

/// The key of the phase that is over.
struct Previous {
    remote: Box<dyn PacketKey>,
    /// Since when packets of the phase may be lost; none until the peer is in the current one.
    until: Option<Time>,
}

/// What has come and gone in the current phase.
#[derive(Debug, Default)]
struct Progress {
    sealed: u64,
    first_sent: Option<u64>,
    first_received: Option<u64>,
    /// The peer has acknowledged a packet of the phase.
    confirmed: bool,
    /// A packet of the peer's in the phase has been acknowledged: it may begin another one.
    acknowledged: bool,
}

/// The keys.
pub(super) struct KeyPhases {
    epoch: Epoch,
    current: KeyPair,
    /// Made when it is needed first, so that a connection which never changes its keys does not hold twice as many. That a
    /// packet takes longer then tells nothing: the phase is in the clear, unlike the bit for whose sake RFC 9001 section 6.3 has
    /// keys made beforehand.
    next: Option<KeyPair>,
    previous: Option<Previous>,
    source: Option<Box<dyn KeyUpdates>>,
    progress: Progress,
    stats: ProtectionStats,
}

impl KeyPhases {
    /// Phase 0, which lasts until there is a source of further ones.
    pub(super) fn new(current: KeyPair) -> Self {
        Self {
            epoch: Epoch::OneRtt0,
            current,
            next: None,
            previous: None,
            source: None,
            progress: Progress::default(),
            stats: ProtectionStats::default(),
        }
    }

    /// Where the keys of the next phases come from.
    pub(super) fn set_source(&mut self, source: Box<dyn KeyUpdates>) {
        self.source = Some(source);
    }

    fn make_next(&mut self) {
        if self.next.is_none() {
            self.next = self.source.as_mut().map(|source| source.next_keys());
        }
    }

    /// The epoch that packets are sealed in.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Seals in that epoch.
    pub(super) fn local(&self) -> &dyn PacketKey {
        &*self.current.local
    }

    /// The key that opens the packet, by its epoch and number, if it may be opened at all.
    pub(super) fn opener(&mut self, now: Time, epoch: Epoch, number: u64) -> Option<(&dyn PacketKey, Phase)> {
        self.forget_previous(now);
        if epoch == self.epoch {
            return Some((&*self.current.remote, Phase::Current));
        }
        let is_late = self.progress.first_received.is_none_or(|first| number < first);
        if !is_late || self.previous.is_none() {
            self.make_next();
        }
        match &self.previous {
            Some(previous) if is_late => Some((&*previous.remote, Phase::Previous)),
            _ => Some((&*self.next.as_ref()?.remote, Phase::Next)),
        }
    }

    /// A packet has been opened by the key of that phase. True: a phase has begun by it.
    ///
    /// # Errors
    /// The peer may not have begun it yet.
    pub(super) fn on_opened(
        &mut self,
        now: Time,
        phase: Phase,
        number: u64,
        probe_timeout: Duration,
    ) -> Result<bool, TransportError> {
        match phase {
            Phase::Previous => return Ok(false),
            Phase::Current => {}
            Phase::Next if !self.progress.acknowledged => {
                let reason = "a key update before the phase was confirmed";
                return Err(TransportError::new(TransportErrorCode::KeyUpdate, reason));
            }
            Phase::Next => {
                self.advance();
                self.stats.updates_by_peer += 1;
            }
        }
        let first = self.progress.first_received.get_or_insert(number);
        *first = (*first).min(number);
        if let Some(previous) = &mut self.previous {
            previous.until.get_or_insert(now + probe_timeout * KEPT_PROBE_TIMEOUTS);
        }
        Ok(phase == Phase::Next)
    }

    /// A packet could not be opened.
    ///
    /// # Errors
    /// So many could not that a forgery may succeed by chance (RFC 9001 section 6.6).
    pub(super) fn on_not_opened(&mut self) -> Result<(), TransportError> {
        self.stats.not_opened += 1;
        if self.stats.not_opened >= self.current.remote.failures_max() {
            let reason = "more packets failed authentication than the keys allow";
            return Err(TransportError::new(TransportErrorCode::AeadLimitReached, reason));
        }
        Ok(())
    }

    /// A packet has been sealed. `acknowledges`: it tells the peer what has come.
    pub(super) fn on_sealed(&mut self, number: u64, acknowledges: bool) {
        self.progress.sealed += 1;
        self.progress.first_sent.get_or_insert(number);
        self.progress.acknowledged |= acknowledges && self.progress.first_received.is_some();
    }

    /// A packet of the handshake has been sealed. Its acknowledgement says nothing of the phase: what is sealed later counts.
    pub(super) fn on_handshake_sealed(&mut self) {
        self.progress.first_sent = None;
    }

    /// The peer acknowledges packets up to `largest`, in a packet of `epoch`.
    ///
    /// # Errors
    /// It acknowledges a packet of a phase in one of the phase before: it has not followed (RFC 9001 section 6.2).
    pub(super) fn on_acked(&mut self, epoch: Epoch, largest: u64) -> Result<(), TransportError> {
        if self.progress.first_sent.is_some_and(|first| largest >= first) {
            if epoch != self.epoch {
                let reason = "an acknowledgement in an older key phase than what it acknowledges";
                return Err(TransportError::new(TransportErrorCode::KeyUpdate, reason));
            }
            self.progress.confirmed = true;
        }
        Ok(())
    }

    /// Begins the next phase if this one has sealed `packets`, unless it is too early. True: it has begun.
    pub(super) fn update_after(&mut self, now: Time, packets: u64) -> bool {
        self.forget_previous(now);
        let is_due = self.progress.sealed >= packets.min(self.current.local.packets_max() / 2);
        let may = is_due && self.progress.confirmed && self.previous.is_none() && self.source.is_some();
        if may {
            self.advance();
            self.stats.updates += 1;
        }
        may
    }

    /// Packets that may still be sealed in this phase.
    pub(super) fn packets_left(&self) -> u64 {
        self.current.local.packets_max().saturating_sub(self.progress.sealed)
    }

    /// Counters.
    pub(super) fn stats(&self) -> ProtectionStats {
        self.stats
    }

    /// Makes the next phase the current one.
    fn advance(&mut self) {
        self.make_next();
        let Some(next) = self.next.take() else { return };
        let over = std::mem::replace(&mut self.current, next);
        self.previous = Some(Previous { remote: over.remote, until: None });
        self.progress = Progress::default();
        self.epoch = if self.epoch == Epoch::OneRtt0 { Epoch::OneRtt1 } else { Epoch::OneRtt0 };
    }

    fn forget_previous(&mut self, now: Time) {
        let is_over = |previous: &Previous| previous.until.is_some_and(|until| until <= now);
        if self.previous.as_ref().is_some_and(is_over) {
            self.previous = None;
        }
    }

    /// The key has so many packets left.
    #[cfg(test)]
    pub(super) fn wear(&mut self, left: u64) {
        self.progress.sealed = self.current.local.packets_max() - left;
    }

    /// The local key of the next phase, for tests.
    #[cfg(test)]
    pub(super) fn next_local(&mut self) -> Option<&dyn PacketKey> {
        self.make_next();
        Some(&*self.next.as_ref()?.local)
    }
}

#[cfg(test)]
#[path = "key_phase_tests.rs"]
mod tests;
