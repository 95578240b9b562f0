//! Key updates of a connection: when its own begin, and what follows from the peer's.

use super::key_phase::Phase;
use super::{Connection, Verdict};
use crate::wire::Epoch;
use crate::{Time, TransportError, TransportErrorCode};

/// Packets that a key has to seal still when the connection ends for its sake: the close and its repetitions.
const KEY_RESERVE: u64 = 128;

impl Connection {
    /// A packet has been opened, by the 1-RTT key of that phase if it is one of 1-RTT. False: it ends the connection.
    pub(super) fn on_opened_by(&mut self, now: Time, phase: Option<Phase>, number: u64) -> bool {
        let probe_timeout = self.recovery.probe_timeout();
        let (Some(phase), Some(phases)) = (phase, self.keys.phases()) else { return true };
        match phases.on_opened(now, phase, number, probe_timeout) {
            Ok(has_begun) => {
                if has_begun {
                    self.on_phase_begun(now);
                }
                true
            }
            Err(error) => {
                self.fail(now, &error);
                false
            }
        }
    }

    /// A packet failed authentication.
    pub(super) fn on_not_opened(&mut self, now: Time, phase: Option<Phase>) -> Verdict {
        if phase.is_some()
            && let Some(Err(error)) = self.keys.phases().map(super::key_phase::KeyPhases::on_not_opened)
        {
            self.fail(now, &error);
        }
        Verdict::Unauthentic
    }

    /// An acknowledgement came in a packet of that epoch: its key phase must not be older than what is acknowledged.
    pub(super) fn check_phase(&mut self, epoch: Epoch, ranges: &[(u64, u64)]) -> Result<(), TransportError> {
        match (self.keys.phases(), ranges.first()) {
            (Some(phases), Some(&(_, largest))) if epoch.is_one_rtt() => phases.on_acked(epoch, largest),
            _ => Ok(()),
        }
    }

    /// Begins a key phase when the current one has sealed its packets. Ends the connection if the peer does not follow and
    /// the key has sealed all that it may. False: nothing can be sent.
    pub(super) fn renew_keys(&mut self, now: Time) -> bool {
        let packets = self.config.security.key_update_packets.max(1);
        let is_confirmed = self.is_confirmed();
        let Some(phases) = self.keys.phases() else { return true };
        if is_confirmed && phases.update_after(now, packets) {
            self.on_phase_begun(now);
        } else if phases.packets_left() <= KEY_RESERVE {
            let error = TransportError::new(TransportErrorCode::NoError, "the connection's key has sealed all it may");
            self.fail(now, &error);
            return false;
        }
        true
    }

    /// Groups of forward error correction do not cross key phases.
    fn on_phase_begun(&mut self, now: Time) {
        let path = self.path_view();
        self.fec.protector.end_group(now, &path);
    }
}
