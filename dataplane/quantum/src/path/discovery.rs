//! How large packets may be: datagram packetization layer path MTU discovery (RFC 8899, RFC 9000 section 14.3).
//!
//! A probe is a packet of the size to be tried that carries nothing. Only a connection that fills its packets tries any: to one
//! that sends short messages a larger size is worth nothing.

use std::time::Duration;

use super::evidence::{BlackHole, Evidence};
use crate::Time;
use crate::connection::SYN_SIZE;

/// A size that so many probes were lost of is too large (`MAX_PROBES` of RFC 8899 section 5.1.2).
const PROBES_MAX: u8 = 3;
/// Bytes that are not worth another probe.
const STEP_MIN: u16 = 16;
/// After so long a larger size is tried again (`PMTU_RAISE_TIMER` of RFC 8899 section 5.1.1).
const RAISE_AFTER: Duration = Duration::from_mins(10);

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Sizes are not to be tried.
    Off,
    /// This size is tried; the least one that is known not to arrive is `too_large`.
    Searching { target: u16, too_large: u16, lost: u8, in_flight: bool },
    /// It is known well enough, until then.
    Settled { until: Time },
}

/// The size of a path's packets.
#[derive(Debug)]
pub(crate) struct Discovery {
    size: u16,
    ceiling: u16,
    state: State,
    /// Packets are filled: larger ones would be of use.
    is_wanted: bool,
    black_hole: BlackHole,
    black_holes: u64,
}

impl Discovery {
    /// Packets have `size` bytes, and no other size is tried.
    pub(crate) fn new(size: u16) -> Self {
        Self {
            size,
            ceiling: size,
            state: State::Off,
            is_wanted: false,
            black_hole: BlackHole::default(),
            black_holes: 0,
        }
    }

    /// Packets have `size` bytes from here on, and sizes up to `ceiling` may be tried.
    pub(crate) fn start(&mut self, size: u16, ceiling: u16) {
        (self.size, self.ceiling) = (size, ceiling.max(size));
        self.state = State::Off;
        // Those of the handshake were filled for other reasons.
        self.is_wanted = false;
        if self.ceiling > self.size {
            self.search(self.ceiling, self.ceiling + 1);
        }
    }

    /// Bytes of the UDP payload of a full packet.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Times that packets which had arrived did not any more.
    pub(crate) fn black_holes(&self) -> u64 {
        self.black_holes
    }

    /// A packet was filled.
    pub(crate) fn on_full(&mut self) {
        self.is_wanted = true;
    }

    /// The size of a probe that is to be sent.
    pub(crate) fn probe(&mut self, now: Time) -> Option<u16> {
        if let State::Settled { until } = self.state
            && until <= now
        {
            self.search(self.ceiling, self.ceiling + 1);
        }
        match self.state {
            State::Searching { target, in_flight: false, .. } if self.is_wanted => Some(target),
            _ => None,
        }
    }

    /// A probe left.
    pub(crate) fn on_probe_sent(&mut self) {
        if let State::Searching { in_flight, .. } = &mut self.state {
            *in_flight = true;
        }
    }

    /// A probe of that size arrived. True: packets are larger from here on.
    pub(crate) fn on_probe_acked(&mut self, now: Time, size: u16) -> bool {
        let State::Searching { target, too_large, .. } = self.state else { return false };
        if size != target {
            return false;
        }
        self.size = size;
        self.narrow(now, too_large);
        true
    }

    /// A probe of that size is lost.
    pub(crate) fn on_probe_lost(&mut self, now: Time, size: u16) {
        let State::Searching { target, lost, in_flight, .. } = &mut self.state else { return };
        if size != *target {
            return;
        }
        *in_flight = false;
        *lost += 1;
        if *lost >= PROBES_MAX {
            self.narrow(now, size);
        }
    }

    /// Takes in which packets arrived and which did not. True: packets are smaller from here on.
    pub(crate) fn on_evidence(&mut self, evidence: &Evidence) -> bool {
        if !self.black_hole.on_evidence(evidence) || self.size <= SYN_SIZE {
            return false;
        }
        // The path may have failed altogether for a moment: the size that worked is tried before smaller ones.
        let size = std::mem::replace(&mut self.size, SYN_SIZE);
        self.black_hole.reset();
        self.black_holes += 1;
        self.search(size, size + 1);
        true
    }

    fn search(&mut self, target: u16, too_large: u16) {
        self.state = State::Searching { target, too_large, lost: 0, in_flight: false };
    }

    /// Goes on between the size that works and one that does not.
    fn narrow(&mut self, now: Time, too_large: u16) {
        if self.size >= self.ceiling {
            self.state = State::Off;
        } else if too_large - self.size <= STEP_MIN {
            self.state = State::Settled { until: now + RAISE_AFTER };
        } else {
            self.search(self.size.midpoint(too_large), too_large);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1_000_000_000);

    /// Searches on a path that carries `mtu` bytes; gives the size found and the probes that took.
    fn find(discovery: &mut Discovery, now: Time, mtu: u16) -> (u16, u32) {
        let mut probes = 0;
        while let Some(size) = discovery.probe(now) {
            assert!(size > discovery.size() && size <= discovery.ceiling);
            discovery.on_probe_sent();
            assert_eq!(discovery.probe(now), None, "one at a time");
            if size <= mtu {
                assert!(discovery.on_probe_acked(now, size));
            } else {
                discovery.on_probe_lost(now, size);
            }
            probes += 1;
            assert!(probes < 30);
        }
        (discovery.size(), probes)
    }

    fn searching(ceiling: u16) -> Discovery {
        let mut discovery = Discovery::new(1200);
        discovery.start(1200, ceiling);
        discovery.on_full();
        discovery
    }

    #[test]
    fn an_ethernet_path_takes_one_probe_and_any_other_is_found_to_a_few_bytes() {
        assert_eq!(find(&mut searching(1472), NOW, 1472), (1472, 1));
        for mtu in 1200..1472 {
            let (size, probes) = find(&mut searching(1472), NOW, mtu);
            assert!(size <= mtu && mtu - size < STEP_MIN, "{size} of {mtu}");
            assert!(probes <= 18, "{probes}");
        }
    }

    #[test]
    fn nothing_is_tried_before_a_packet_was_filled_or_beyond_the_ceiling() {
        let mut discovery = Discovery::new(1200);
        discovery.on_full();
        assert_eq!(discovery.probe(NOW), None);
        discovery.start(1200, 1472);
        assert_eq!(discovery.probe(NOW), None);
        discovery.on_full();
        assert_eq!(discovery.probe(NOW), Some(1472));
        discovery.start(1300, 1200);
        discovery.on_full();
        assert_eq!((discovery.size(), discovery.probe(NOW)), (1300, None));
    }

    #[test]
    fn a_larger_size_is_tried_again_after_ten_minutes() {
        let mut discovery = searching(1472);
        let (size, _) = find(&mut discovery, NOW, 1400);
        assert!(size < 1400);
        assert_eq!(discovery.probe(NOW + RAISE_AFTER / 2), None);
        assert_eq!(find(&mut discovery, NOW + RAISE_AFTER, 1472), (1472, 1));
        assert_eq!(discovery.probe(NOW + RAISE_AFTER * 9), None);
    }

    #[test]
    fn a_black_hole_leads_back_to_1200_bytes_and_to_what_arrives() {
        let mut discovery = searching(1472);
        find(&mut discovery, NOW, 1472);
        let mut evidence = Evidence::default();
        evidence.on_acked(9, false);
        (4..8).for_each(|number| evidence.on_lost(number, true));
        assert!(discovery.on_evidence(&evidence));
        assert_eq!((discovery.size(), discovery.black_holes()), (1200, 1));
        assert!(!discovery.on_evidence(&evidence), "it is known");
        let (size, _) = find(&mut discovery, NOW, 1300);
        assert!((1285..=1300).contains(&size), "{size}");
    }

    #[test]
    fn a_late_answer_to_a_probe_changes_nothing() {
        let mut discovery = searching(1472);
        for _ in 0..3 {
            assert_eq!(discovery.probe(NOW), Some(1472));
            discovery.on_probe_sent();
            discovery.on_probe_lost(NOW, 1472);
        }
        assert!(!discovery.on_probe_acked(NOW, 1472));
        assert_eq!((discovery.size(), discovery.probe(NOW)), (1200, Some(1336)));
    }
}
