//! Packets of one kind that vanish while others arrive: too large for the path, or marked in a way that it does not like.

/// So many packets in a row have to vanish.
const LOST_MIN: u64 = 4;

/// What one acknowledgement, or one timeout, tells of packets of that kind (suspects) and of the others (plain ones).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// The greatest number of a suspect that arrived; zero: none.
    suspect_acked: u64,
    /// The greatest number of a plain packet that arrived; zero: none.
    plain_acked: u64,
    /// The least number of a suspect that is lost, and how many there are.
    lost: Option<(u64, u64)>,
    /// Suspects that arrived, and that are lost.
    suspects: (u64, u64),
}

impl Evidence {
    /// A packet arrived.
    pub(crate) fn on_acked(&mut self, number: u64, is_suspect: bool) {
        let acked = if is_suspect { &mut self.suspect_acked } else { &mut self.plain_acked };
        *acked = number.max(*acked);
        self.suspects.0 += u64::from(is_suspect);
    }

    /// A packet is lost. Numbers ascend, and what arrived is told before.
    pub(crate) fn on_lost(&mut self, number: u64, is_suspect: bool) {
        self.suspects.1 += u64::from(is_suspect);
        if is_suspect && number > self.suspect_acked {
            let (first, count) = self.lost.unwrap_or((number, 0));
            self.lost = Some((first, count + 1));
        }
    }

    /// The greatest number of any packet that arrived; zero: none.
    pub(crate) fn newest_acked(&self) -> u64 {
        self.suspect_acked.max(self.plain_acked)
    }

    /// Suspects that arrived, and that are lost.
    pub(crate) fn suspects(&self) -> (u64, u64) {
        self.suspects
    }
}

/// Decides whether such packets vanish for what they are (RFC 8899 section 4.3, RFC 9000 section 13.4.2).
#[derive(Debug, Default)]
pub(crate) struct BlackHole {
    suspect_acked: u64,
    plain_acked: u64,
    first_lost: u64,
    lost: u64,
}

impl BlackHole {
    /// Takes evidence in. True: several suspects in a row are lost, none arrived since, and a plain packet did that was sent
    /// after the first of them.
    pub(crate) fn on_evidence(&mut self, evidence: &Evidence) -> bool {
        self.suspect_acked = self.suspect_acked.max(evidence.suspect_acked);
        self.plain_acked = self.plain_acked.max(evidence.plain_acked);
        if self.suspect_acked > self.first_lost {
            self.lost = 0;
        }
        if let Some((first, count)) = evidence.lost.filter(|lost| lost.0 > self.suspect_acked) {
            self.first_lost = if self.lost == 0 { first } else { self.first_lost };
            self.lost += count;
        }
        self.lost >= LOST_MIN && self.plain_acked > self.first_lost
    }

    /// Forgets what was lost: something has been done about it.
    pub(crate) fn reset(&mut self) {
        self.lost = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(acked: &[(u64, bool)], lost: &[u64]) -> Evidence {
        let mut evidence = Evidence::default();
        for &(number, is_suspect) in acked {
            evidence.on_acked(number, is_suspect);
        }
        for &number in lost {
            evidence.on_lost(number, true);
        }
        evidence
    }

    #[test]
    fn suspects_that_vanish_beside_others_that_arrive_are_a_black_hole() {
        let mut hole = BlackHole::default();
        assert!(!hole.on_evidence(&evidence(&[(10, true)], &[])));
        assert!(!hole.on_evidence(&evidence(&[(15, false)], &[11, 12, 13])), "three may be chance");
        assert!(hole.on_evidence(&evidence(&[(17, false)], &[14])));
    }

    #[test]
    fn a_path_that_loses_everything_or_anything_is_none() {
        let mut hole = BlackHole::default();
        assert!(!hole.on_evidence(&evidence(&[(10, true)], &[])));
        assert!(!hole.on_evidence(&evidence(&[], &[11, 12, 13, 14, 15, 16])), "nothing arrives at all");
        assert!(!hole.on_evidence(&evidence(&[(17, true), (18, false)], &[])), "a suspect arrives after all");
        assert!(!hole.on_evidence(&evidence(&[(30, false), (29, true)], &[20, 22, 24, 26, 28])), "between others");
        assert!(!hole.on_evidence(&evidence(&[(35, false)], &[31])));
    }
}
