//! Packet protection of every epoch that a connection has keys for, and what waits for keys.

use std::collections::VecDeque;

use super::key_phase::{KeyPhases, Phase};
use super::receive::Arrival;
use crate::Side;
use crate::Time;
use crate::crypto::session::{KeyPair, PacketKey};
use crate::stats::ProtectionStats;
use crate::wire::Epoch;

/// Packets that are kept until their keys are there; one more is dropped like a lost one.
const EARLY_PACKETS_MAX: usize = 8;
/// Bytes of such a packet at most: half-open connections hold little.
const EARLY_PACKET_SIZE_MAX: usize = super::DATAGRAM_SIZE_MAX as usize;

/// A packet that came before its keys.
pub(crate) struct EarlyPacket {
    pub(crate) arrival: Arrival,
    pub(crate) segment: Vec<u8>,
}

/// Keys that go with the handshake, and what waits for them.
#[derive(Default)]
struct Passing {
    initial: Option<KeyPair>,
    handshake: Option<KeyPair>,
    /// The key of early data: seals on a client, opens on a server.
    early_seals: Option<Box<dyn PacketKey>>,
    early_opens: Option<Box<dyn PacketKey>>,
    packets: VecDeque<EarlyPacket>,
}

impl Passing {
    fn is_empty(&self) -> bool {
        let has_early = self.early_seals.is_some() || self.early_opens.is_some();
        self.initial.is_none() && self.handshake.is_none() && !has_early && self.packets.is_empty()
    }
}

/// What became of early data.
#[derive(Default)]
struct ZeroRtt {
    /// The key may come: packets are kept for it.
    is_expected: bool,
    /// The server accepted early data.
    is_accepted: bool,
    /// Packets sent or opened.
    packets: u64,
}

/// Keys by epoch. Keys of an epoch that is over are dropped. [`Epoch::OneRtt0`] stands for 1-RTT in whatever phase it is.
pub(crate) struct KeyRing {
    /// None once the connection has rested after the handshake.
    passing: Option<Box<Passing>>,
    one_rtt: Option<KeyPhases>,
    /// Data of 1-RTT may be opened: a server's only once the client has proved that it finished the handshake.
    one_rtt_enabled: bool,
    /// Data of 1-RTT may be sent: by a server that accepted early data before it may be opened.
    one_rtt_sends: bool,
    zero_rtt: ZeroRtt,
    /// The newest epoch that an authentic packet came in: the peer surely has its keys.
    proven: Epoch,
    /// Proves the server's stateless reset.
    reset_token: Option<[u8; 16]>,
}

impl KeyRing {
    pub(crate) fn new(initial: KeyPair) -> Self {
        Self {
            passing: Some(Box::new(Passing { initial: Some(initial), ..Passing::default() })),
            one_rtt: None,
            one_rtt_enabled: false,
            one_rtt_sends: false,
            zero_rtt: ZeroRtt::default(),
            proven: Epoch::Initial,
            reset_token: None,
        }
    }

    fn passing(&mut self) -> &mut Passing {
        self.passing.get_or_insert_default()
    }

    /// Takes the keys of an epoch.
    pub(crate) fn install(&mut self, epoch: Epoch, keys: KeyPair) {
        match epoch {
            Epoch::Initial => self.passing().initial = Some(keys),
            Epoch::Handshake => self.passing().handshake = Some(keys),
            Epoch::OneRtt0 => {
                self.one_rtt = Some(KeyPhases::new(keys));
                self.zero_rtt.is_expected = false;
            }
            // Later phases come from the session's secrets, and that of 0-RTT is a single key.
            Epoch::OneRtt1 | Epoch::ZeroRtt => {}
        }
    }

    /// Drops the keys of an epoch. False if they were gone.
    pub(crate) fn discard(&mut self, epoch: Epoch) -> bool {
        let Some(passing) = &mut self.passing else { return false };
        match epoch {
            Epoch::Initial => passing.initial.take().is_some(),
            Epoch::Handshake => passing.handshake.take().is_some(),
            _ => false,
        }
    }

    /// 1-RTT packets may be opened and sent.
    pub(crate) fn enable_one_rtt(&mut self) {
        self.one_rtt_enabled = true;
        self.one_rtt_sends = true;
    }

    /// Early data may come: what comes before its key is kept.
    pub(crate) fn expect_early_data(&mut self) {
        self.zero_rtt.is_expected = true;
    }

    /// Takes the key of early data.
    pub(crate) fn install_early(&mut self, side: Side, key: Box<dyn PacketKey>) {
        match side {
            Side::Client => self.passing().early_seals = Some(key),
            Side::Server => {
                self.passing().early_opens = Some(key);
                self.zero_rtt.is_accepted = true;
                self.one_rtt_sends = true;
            }
        }
    }

    /// Early data is over: its key goes. On a client, `accepted` is what the server made of it.
    pub(crate) fn discard_early(&mut self, accepted: bool) {
        if let Some(passing) = &mut self.passing {
            (passing.early_seals, passing.early_opens) = (None, None);
        }
        self.zero_rtt.is_accepted |= accepted;
    }

    /// A packet of early data was sent or opened.
    pub(crate) fn count_early(&mut self) {
        self.zero_rtt.packets += 1;
    }

    /// Seals packets of the epoch.
    pub(crate) fn local(&self, epoch: Epoch) -> Option<&dyn PacketKey> {
        match epoch {
            Epoch::Initial => Some(&*self.passing.as_ref()?.initial.as_ref()?.local),
            Epoch::Handshake => Some(&*self.passing.as_ref()?.handshake.as_ref()?.local),
            Epoch::OneRtt0 | Epoch::OneRtt1 => Some(self.one_rtt.as_ref().filter(|_| self.one_rtt_sends)?.local()),
            Epoch::ZeroRtt => self.passing.as_ref()?.early_seals.as_deref(),
        }
    }

    /// Whether packets of the epoch can be opened, as far as keys go.
    fn can_open(&self, epoch: Epoch) -> bool {
        let has = |wanted: fn(&Passing) -> bool| self.passing.as_deref().is_some_and(wanted);
        match epoch {
            Epoch::Initial => has(|passing| passing.initial.is_some()),
            Epoch::Handshake => has(|passing| passing.handshake.is_some()),
            Epoch::OneRtt0 | Epoch::OneRtt1 => self.one_rtt.is_some() && self.one_rtt_enabled,
            Epoch::ZeroRtt => has(|passing| passing.early_opens.is_some()),
        }
    }

    /// Opens the packet of that epoch and number; the key's phase if it is one of 1-RTT.
    pub(crate) fn opener(&mut self, now: Time, epoch: Epoch, number: u64) -> Option<(&dyn PacketKey, Option<Phase>)> {
        match epoch {
            Epoch::Initial => Some((&*self.passing.as_ref()?.initial.as_ref()?.remote, None)),
            Epoch::Handshake => Some((&*self.passing.as_ref()?.handshake.as_ref()?.remote, None)),
            Epoch::OneRtt0 | Epoch::OneRtt1 => {
                let phases = self.one_rtt.as_mut().filter(|_| self.one_rtt_enabled)?;
                phases.opener(now, epoch, number).map(|(key, phase)| (key, Some(phase)))
            }
            Epoch::ZeroRtt => Some((&**self.passing.as_ref()?.early_opens.as_ref()?, None)),
        }
    }

    /// The phases of 1-RTT, once their keys are there.
    pub(crate) fn phases(&mut self) -> Option<&mut KeyPhases> {
        self.one_rtt.as_mut()
    }

    /// What a packet of that epoch says in its header: the phase, if it is 1-RTT.
    pub(crate) fn epoch_on_wire(&self, epoch: Epoch) -> Epoch {
        if epoch.is_one_rtt() { self.one_rtt.as_ref().map_or(epoch, KeyPhases::epoch) } else { epoch }
    }

    /// Counters.
    pub(crate) fn stats(&self) -> ProtectionStats {
        let stats = self.one_rtt.as_ref().map(KeyPhases::stats).unwrap_or_default();
        let ZeroRtt { is_accepted, packets, .. } = self.zero_rtt;
        ProtectionStats { early_data_accepted: is_accepted, early_packets: packets, ..stats }
    }

    /// Whether packets of the epoch can be sent.
    pub(crate) fn has(&self, epoch: Epoch) -> bool {
        self.local(epoch).is_some()
    }

    /// An authentic packet of the epoch came.
    pub(crate) fn on_proven(&mut self, epoch: Epoch) {
        match epoch {
            // Who sends early data has no other keys yet.
            Epoch::ZeroRtt => {}
            epoch => self.proven = self.proven.max(if epoch.is_one_rtt() { Epoch::OneRtt0 } else { epoch }),
        }
    }

    /// The newest epoch that the peer surely has keys for.
    pub(crate) fn proven(&self) -> Epoch {
        // Keys of the handshake go when both sides have those of 1-RTT.
        if self.has(self.proven) { self.proven } else { Epoch::OneRtt0 }
    }

    /// Remembers the token of the server's stateless reset.
    pub(crate) fn set_reset_token(&mut self, token: Option<[u8; 16]>) {
        self.reset_token = token;
    }

    /// The token of the server's stateless reset.
    pub(crate) fn reset_token(&self) -> Option<&[u8; 16]> {
        self.reset_token.as_ref()
    }

    /// Keeps a packet whose keys are not there yet. Keys that are gone do not come back.
    pub(crate) fn keep_early(&mut self, arrival: &Arrival, segment: &[u8]) {
        let epoch = arrival.header.epoch;
        let expected = match epoch {
            Epoch::Handshake => self.one_rtt.is_none(),
            Epoch::OneRtt0 => !self.one_rtt_enabled,
            Epoch::ZeroRtt => self.zero_rtt.is_expected,
            Epoch::Initial | Epoch::OneRtt1 => false,
        };
        if !expected || segment.len() > EARLY_PACKET_SIZE_MAX {
            return;
        }
        let packets = &mut self.passing().packets;
        if packets.len() < EARLY_PACKETS_MAX {
            packets.push_back(EarlyPacket { arrival: *arrival, segment: segment.to_vec() });
        }
    }

    /// A packet that came early and whose keys have come since.
    pub(crate) fn take_early(&mut self) -> Option<EarlyPacket> {
        let is_expected = self.zero_rtt.is_expected;
        let passing = self.passing.as_deref_mut().filter(|passing| !passing.packets.is_empty())?;
        if !is_expected && passing.early_opens.is_none() {
            passing.packets.retain(|packet| packet.arrival.header.epoch != Epoch::ZeroRtt);
        }
        let packets = &self.passing.as_deref()?.packets;
        let ready = packets.iter().position(|packet| self.can_open(packet.arrival.header.epoch))?;
        self.passing().packets.remove(ready)
    }

    /// Nothing will be opened any more.
    pub(crate) fn forget_early(&mut self) {
        if let Some(passing) = &mut self.passing {
            passing.packets = VecDeque::new();
        }
    }

    /// Frees memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        if self.passing.as_deref().is_some_and(Passing::is_empty) {
            self.passing = None;
        }
    }
}
