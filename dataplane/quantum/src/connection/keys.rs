//! Packet protection of every epoch that a connection has keys for.

use crate::crypto::session::{KeyPair, PacketKey};
use crate::wire::Epoch;

/// Keys by epoch. Keys of an epoch that is over are dropped.
pub(crate) struct KeyRing {
    initial: Option<KeyPair>,
    handshake: Option<KeyPair>,
    one_rtt: Option<KeyPair>,
    /// Data of 1-RTT may be opened: a server's only once the client has proved that it finished the handshake.
    one_rtt_opens: bool,
}

impl KeyRing {
    pub(crate) fn new(initial: KeyPair) -> Self {
        Self { initial: Some(initial), handshake: None, one_rtt: None, one_rtt_opens: false }
    }

    /// Takes the keys of an epoch.
    pub(crate) fn install(&mut self, epoch: Epoch, keys: KeyPair) {
        match epoch {
            Epoch::Initial => self.initial = Some(keys),
            Epoch::Handshake => self.handshake = Some(keys),
            Epoch::OneRtt0 => self.one_rtt = Some(keys),
            // Key update and 0-RTT have their seats on the wire; no session gives keys for them.
            Epoch::OneRtt1 | Epoch::ZeroRtt => {}
        }
    }

    /// Drops the keys of an epoch. False if they were gone.
    pub(crate) fn discard(&mut self, epoch: Epoch) -> bool {
        match epoch {
            Epoch::Initial => self.initial.take().is_some(),
            Epoch::Handshake => self.handshake.take().is_some(),
            _ => false,
        }
    }

    /// 1-RTT packets may be opened and sent.
    pub(crate) fn enable_one_rtt(&mut self) {
        self.one_rtt_opens = true;
    }

    /// Seals packets of the epoch.
    pub(crate) fn local(&self, epoch: Epoch) -> Option<&dyn PacketKey> {
        Some(&*self.pair(epoch)?.local)
    }

    /// Opens packets of the epoch.
    pub(crate) fn remote(&self, epoch: Epoch) -> Option<&dyn PacketKey> {
        if epoch == Epoch::OneRtt0 && !self.one_rtt_opens {
            return None;
        }
        Some(&*self.pair(epoch)?.remote)
    }

    /// Whether packets of the epoch can be sent.
    pub(crate) fn has(&self, epoch: Epoch) -> bool {
        self.pair(epoch).is_some() && (epoch != Epoch::OneRtt0 || self.one_rtt_opens)
    }

    /// The newest epoch that packets can be sent in.
    pub(crate) fn newest(&self) -> Epoch {
        if self.has(Epoch::OneRtt0) {
            Epoch::OneRtt0
        } else if self.handshake.is_some() {
            Epoch::Handshake
        } else {
            Epoch::Initial
        }
    }

    fn pair(&self, epoch: Epoch) -> Option<&KeyPair> {
        match epoch {
            Epoch::Initial => self.initial.as_ref(),
            Epoch::Handshake => self.handshake.as_ref(),
            Epoch::OneRtt0 => self.one_rtt.as_ref(),
            Epoch::OneRtt1 | Epoch::ZeroRtt => None,
        }
    }
}
