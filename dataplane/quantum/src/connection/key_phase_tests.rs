//! Phases with keys that tell which ones they are.

use super::*;

/// The key of a phase; seals 1000 packets and takes three forgeries.
struct Numbered(u64);

impl PacketKey for Numbered {
    fn seal(&self, _number: u64, _header: &[u8], _payload: &mut [u8]) {}

    fn open(&self, _number: u64, _header: &[u8], _payload: &mut [u8]) -> Option<usize> {
        Some(self.0 as usize)
    }

    fn packets_max(&self) -> u64 {
        1_000
    }

    fn failures_max(&self) -> u64 {
        3
    }
}

struct Source(u64);

impl KeyUpdates for Source {
    fn next_keys(&mut self) -> KeyPair {
        self.0 += 1;
        pair(self.0)
    }
}

fn pair(phase: u64) -> KeyPair {
    KeyPair { local: Box::new(Numbered(phase)), remote: Box::new(Numbered(phase)) }
}

const NOW: Time = Time::from_nanos(1_000_000_000);
const PTO: Duration = Duration::from_millis(30);

fn phases() -> KeyPhases {
    let mut phases = KeyPhases::new(pair(0));
    phases.set_source(Box::new(Source(0)));
    phases
}

/// Opens a packet and gives the phase whose key did.
fn open(phases: &mut KeyPhases, now: Time, epoch: Epoch, number: u64) -> Result<usize, TransportErrorCode> {
    let (key, phase) = phases.opener(now, epoch, number).expect("there are keys");
    let opened = key.open(number, &[], &mut []).expect("the key opens everything");
    phases.on_opened(now, phase, number, PTO).map_err(|error| error.code)?;
    Ok(opened)
}

/// The first update of this side, after packet 1 was acknowledged.
fn updated() -> KeyPhases {
    let mut phases = phases();
    phases.on_sealed(1, false);
    phases.on_acked(Epoch::OneRtt0, 1).unwrap();
    assert!(phases.update_after(NOW, 1));
    phases
}

#[test]
fn no_phase_begins_before_the_current_one_is_confirmed_and_the_last_one_forgotten() {
    let mut phases = phases();
    phases.on_sealed(1, false);
    assert!(!phases.update_after(NOW, 1), "nothing is acknowledged");
    phases.on_acked(Epoch::OneRtt0, 1).unwrap();
    assert!(!phases.update_after(NOW, 2), "the key has packets left");
    assert!(phases.update_after(NOW, 1) && phases.epoch() == Epoch::OneRtt1);
    phases.on_sealed(2, false);
    assert!(!phases.update_after(NOW, 1), "the second phase is not confirmed");
    assert_eq!(open(&mut phases, NOW, Epoch::OneRtt1, 9), Ok(1));
    phases.on_acked(Epoch::OneRtt1, 2).unwrap();
    let kept = PTO * KEPT_PROBE_TIMEOUTS;
    assert!(!phases.update_after(NOW + (kept.saturating_sub(Duration::from_nanos(1))), 1), "the old key is in use");
    assert!(phases.update_after(NOW + kept, 1) && phases.epoch() == Epoch::OneRtt0);
    assert_eq!(phases.stats().updates, 2);
}

/// A client's Finished that is sent again, after its first packet of 1-RTT, has a higher number than that.
#[test]
fn an_acknowledged_packet_of_the_handshake_confirms_no_phase() {
    let mut phases = phases();
    phases.on_sealed(5, false);
    phases.on_handshake_sealed();
    phases.on_acked(Epoch::OneRtt0, 6).unwrap();
    assert!(!phases.update_after(NOW, 1));
    phases.on_sealed(7, false);
    phases.on_acked(Epoch::OneRtt0, 7).unwrap();
    assert!(phases.update_after(NOW, 1));
}

#[test]
fn late_packets_of_the_last_phase_are_opened_for_three_probe_timeouts() {
    let mut phases = updated();
    // The peer has not followed: whatever comes in the other epoch is of the last phase, however long it takes.
    assert_eq!(open(&mut phases, NOW + PTO * 100, Epoch::OneRtt0, 5), Ok(0));
    let followed = NOW + PTO * 200;
    assert_eq!(open(&mut phases, followed, Epoch::OneRtt1, 7), Ok(1));
    let kept = PTO * KEPT_PROBE_TIMEOUTS;
    assert_eq!(open(&mut phases, followed + (kept.saturating_sub(Duration::from_nanos(1))), Epoch::OneRtt0, 6), Ok(0));
    // A later number cannot be of the last phase; after the time nothing can.
    let next = |phases: &mut KeyPhases, now, number| phases.opener(now, Epoch::OneRtt0, number).map(|opener| opener.1);
    assert_eq!(next(&mut phases, followed, 8), Some(Phase::Next));
    assert_eq!(next(&mut phases, followed + kept, 6), Some(Phase::Next));
}

#[test]
fn the_peers_update_is_followed_and_one_before_its_time_refused() {
    let mut phases = phases();
    assert_eq!(open(&mut phases, NOW, Epoch::OneRtt0, 1), Ok(0));
    assert_eq!(open(&mut phases, NOW, Epoch::OneRtt1, 2), Err(TransportErrorCode::KeyUpdate), "1 is not acknowledged");
    phases.on_sealed(1, true);
    assert_eq!(open(&mut phases, NOW, Epoch::OneRtt1, 2), Ok(1));
    assert!(phases.epoch() == Epoch::OneRtt1 && phases.stats().updates_by_peer == 1);
    phases.on_sealed(2, false);
    assert_eq!(open(&mut phases, NOW, Epoch::OneRtt0, 3), Err(TransportErrorCode::KeyUpdate), "2 is not acknowledged");
    phases.on_sealed(3, true);
    assert_eq!(open(&mut phases, NOW, Epoch::OneRtt0, 4), Ok(2));
}

#[test]
fn an_acknowledgement_in_an_older_phase_than_its_packet_is_refused() {
    let mut phases = updated();
    phases.on_sealed(2, false);
    assert_eq!(phases.on_acked(Epoch::OneRtt0, 1), Ok(()));
    assert_eq!(phases.on_acked(Epoch::OneRtt0, 2).map_err(|error| error.code), Err(TransportErrorCode::KeyUpdate));
    assert_eq!(phases.on_acked(Epoch::OneRtt1, 2), Ok(()));
}

#[test]
fn forgeries_are_counted_over_all_phases_and_limited() {
    let mut phases = updated();
    assert_eq!((phases.on_not_opened(), phases.on_not_opened()), (Ok(()), Ok(())));
    assert_eq!(phases.on_not_opened().map_err(|error| error.code), Err(TransportErrorCode::AeadLimitReached));
    assert_eq!(phases.stats().not_opened, 3);
}

#[test]
fn a_key_is_changed_at_half_of_its_limit_whatever_is_configured() {
    let mut phases = phases();
    for number in 1..500 {
        phases.on_sealed(number, false);
    }
    phases.on_acked(Epoch::OneRtt0, 1).unwrap();
    assert!(!phases.update_after(NOW, u64::MAX) && phases.packets_left() == 501);
    phases.on_sealed(500, false);
    assert!(phases.update_after(NOW, u64::MAX) && phases.packets_left() == 1_000);
}
