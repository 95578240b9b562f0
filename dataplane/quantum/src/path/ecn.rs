//! Explicit congestion notification: whether a path carries the marks (RFC 9000 section 13.4.2, appendix A.4), and what the peer
//! says of them.
//!
//! Packets without an ACK frame report no counts, so that what is compared with them is what had been acknowledged by then.

use super::evidence::{BlackHole, Evidence};
use crate::wire::EcnCounts;

/// The two bits of a packet whose sender understands marks: ECT(0).
pub(crate) const ECT0: u8 = 0b10;
/// The two bits of a packet that met congestion.
pub(crate) const ECN_CE: u8 = 0b11;
/// ECT(1), which nobody here sends.
const ECT1: u8 = 0b01;
/// So many packets are marked before it is known what becomes of marks. And of so many received ones all acknowledgements tell the
/// counts.
const TESTED: u64 = 10;
const REPORTED: u64 = 16;

/// What is known of a path's treatment of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnState {
    /// Packets are not marked: not before the handshake is over, or not at all.
    #[default]
    Off,
    /// Some packets are marked, to see what becomes of them.
    Testing,
    /// They have been, and the answer is awaited.
    Unknown,
    /// The path carries marks.
    Capable,
    /// It clears, changes or drops them: packets are not marked.
    Failed,
}

/// The sender's side.
#[derive(Debug, Default)]
pub(crate) struct Ecn {
    state: EcnState,
    /// Packets marked in all, and those since the test began that are to be acknowledged: their number, and how many were.
    sent: u64,
    tested: u64,
    acked: u64,
    lost: u64,
    /// What the peer told last, and what it had told when the test began.
    counts: EcnCounts,
    before: EcnCounts,
    /// Counts that are yet to be looked at.
    heard: Option<EcnCounts>,
    /// The number of the last packet marked, and the largest one that arrived.
    last_marked: u64,
    newest: u64,
    black_hole: BlackHole,
}

impl Ecn {
    /// Begins a test, or none if it is not `wanted`.
    pub(crate) fn start(&mut self, wanted: bool) {
        *self = Self {
            state: if wanted { EcnState::Testing } else { EcnState::Off },
            sent: self.sent,
            counts: self.counts,
            newest: self.newest,
            before: self.counts,
            ..Self::default()
        };
    }

    /// What is known.
    pub(crate) fn state(&self) -> EcnState {
        self.state
    }

    /// Whether the next packets are to be marked.
    pub(crate) fn marks(&self) -> bool {
        matches!(self.state, EcnState::Testing | EcnState::Capable)
    }

    /// A marked packet left.
    pub(crate) fn on_sent(&mut self, number: u64, ack_eliciting: bool) {
        self.sent += 1;
        self.last_marked = number;
        self.tested += u64::from(ack_eliciting);
        if self.state == EcnState::Testing && self.tested >= TESTED {
            self.state = EcnState::Unknown;
        }
    }

    /// A probe timeout fired: the test ends with what has been marked.
    pub(crate) fn on_probe_timeout(&mut self) {
        if self.state == EcnState::Testing && self.tested > 0 {
            self.state = EcnState::Unknown;
        }
    }

    /// The peer's counts came, in an acknowledgement of a larger number than any before. They are looked at once it is known what
    /// it acknowledges.
    pub(crate) fn on_counts(&mut self, counts: EcnCounts) {
        self.heard = Some(counts);
    }

    /// Takes in which marked packets arrived and which did not. `excused`: losses have another cause.
    pub(crate) fn on_evidence(&mut self, evidence: &Evidence, excused: bool) {
        let (acked, lost) = evidence.suspects();
        self.acked += acked;
        self.lost += lost;
        self.newest = self.newest.max(evidence.newest_acked());
        if let Some(counts) = self.heard.take() {
            self.check(counts);
        }
        let is_black_hole = self.black_hole.on_evidence(evidence);
        if excused {
            self.black_hole.reset();
        } else if is_black_hole && self.marks() || self.is_answered() && self.counts == self.before {
            // Nothing told of any mark: all packets are lost, or came without.
            self.state = EcnState::Failed;
        }
    }

    /// Whether it is known what became of the test's packets.
    fn is_answered(&self) -> bool {
        self.state == EcnState::Unknown
            && self.newest >= self.last_marked
            && 2 * (self.acked + self.lost) >= self.tested
    }

    fn check(&mut self, counts: EcnCounts) {
        let told = counts.ect0.saturating_add(counts.ce);
        let before = self.before.ect0 + self.before.ce;
        let shrinks = counts.ect0 < self.counts.ect0 || counts.ce < self.counts.ce;
        if shrinks || counts.ect1 > 0 || told > self.sent || told < before + self.acked {
            self.state = if self.state == EcnState::Off { EcnState::Off } else { EcnState::Failed };
            return;
        }
        self.counts = counts;
        if told > before && matches!(self.state, EcnState::Testing | EcnState::Unknown) {
            self.state = EcnState::Capable;
        }
    }

    /// Whether an acknowledgement with these counts tells of congestion that was not known. Marks of a path that changes them
    /// mean nothing.
    pub(crate) fn tells_congestion(&self, echo: bool, counts: Option<EcnCounts>) -> bool {
        !matches!(self.state, EcnState::Off | EcnState::Failed)
            && (echo || counts.is_some_and(|counts| counts.ce > self.counts.ce))
    }

    /// Packets that met congestion, as the peer told.
    pub(crate) fn marked(&self) -> u64 {
        self.counts.ce
    }
}

/// The receiver's side: the marks of packets that came.
#[derive(Debug)]
pub(crate) struct ReceivedMarks {
    counts: EcnCounts,
    /// Of so many marked packets more all acknowledgements tell the counts.
    to_report: u64,
    /// Congestion that the peer is known to have heard of.
    told: u64,
}

impl ReceivedMarks {
    /// Nothing received.
    pub(crate) const fn new() -> Self {
        Self { counts: EcnCounts { ect0: 0, ect1: 0, ce: 0 }, to_report: REPORTED, told: 0 }
    }

    /// A packet came with these bits.
    pub(crate) fn on_received(&mut self, ecn: u8) {
        match ecn & 0b11 {
            ECT0 => self.counts.ect0 += 1,
            ECT1 => self.counts.ect1 += 1,
            ECN_CE => self.counts.ce += 1,
            _ => return,
        }
        self.to_report = self.to_report.saturating_sub(1);
    }

    /// The peer may begin a test again.
    pub(crate) fn on_path_changed(&mut self) {
        self.to_report = REPORTED;
    }

    /// The counts, if any packet was marked.
    pub(crate) fn counts(&self) -> Option<EcnCounts> {
        (self.counts != EcnCounts::default()).then_some(self.counts)
    }

    /// Whether an acknowledgement should tell them even if it could do without a frame.
    pub(crate) fn wants_report(&self) -> bool {
        self.counts().is_some() && (self.to_report > 0 || self.has_news())
    }

    /// Whether the peer may not have heard of all congestion.
    pub(crate) fn has_news(&self) -> bool {
        self.counts.ce > self.told
    }

    /// An acknowledgement that told of so much congestion arrived.
    pub(crate) fn on_report_acked(&mut self, ce: u64) {
        self.told = self.told.max(ce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u64, ect1: u64, ce: u64) -> EcnCounts {
        EcnCounts { ect0, ect1, ce }
    }

    /// A test in which these numbers of marked packets were sent, arrived, and were lost.
    fn tested(sent: u64, acked: u64, lost: u64) -> Ecn {
        let mut ecn = Ecn::default();
        ecn.start(true);
        (1..=sent).for_each(|number| ecn.on_sent(number, true));
        let mut evidence = Evidence::default();
        (1..=acked).for_each(|number| evidence.on_acked(number, true));
        (acked + 1..=acked + lost).for_each(|number| evidence.on_lost(number, true));
        evidence.on_acked(sent + 1, false);
        ecn.on_evidence(&evidence, false);
        ecn
    }

    /// Counts come in an acknowledgement of nothing more.
    fn tell(ecn: &mut Ecn, counts: EcnCounts) {
        ecn.on_counts(counts);
        ecn.on_evidence(&Evidence::default(), false);
    }

    #[test]
    fn ten_packets_are_marked_and_then_no_more_until_an_answer() {
        let mut ecn = tested(9, 0, 0);
        assert!(ecn.marks());
        ecn.on_sent(10, true);
        assert_eq!((ecn.state(), ecn.marks()), (EcnState::Unknown, false));
        tell(&mut ecn, counts(3, 0, 1));
        assert_eq!((ecn.state(), ecn.marks(), ecn.marked()), (EcnState::Capable, true, 1));
    }

    #[test]
    fn impossible_counts_end_the_use_of_marks() {
        for (told, why) in [
            (counts(3, 0, 0), "fewer than arrived"),
            (counts(11, 0, 0), "more than were sent"),
            (counts(u64::MAX, 0, u64::MAX), "more than there are"),
            (counts(6, 1, 0), "marks that nobody sends"),
        ] {
            let mut ecn = tested(10, 4, 0);
            tell(&mut ecn, told);
            assert_eq!(ecn.state(), EcnState::Failed, "{why}");
        }
        let mut ecn = tested(10, 3, 0);
        tell(&mut ecn, counts(3, 0, 2));
        assert_eq!(ecn.state(), EcnState::Capable);
        tell(&mut ecn, counts(5, 0, 1));
        assert_eq!(ecn.state(), EcnState::Failed, "they shrink");
        assert!(!ecn.tells_congestion(true, Some(counts(0, 0, 9))));
    }

    #[test]
    fn a_path_that_clears_marks_or_drops_marked_packets_is_found_out() {
        assert_eq!(tested(10, 10, 0).state(), EcnState::Failed, "all came, and none marked");
        assert_eq!(tested(10, 0, 10).state(), EcnState::Failed, "none came");
        assert_eq!(tested(10, 2, 2).state(), EcnState::Unknown, "others are on their way");
        let mut ecn = tested(2, 0, 0);
        ecn.on_probe_timeout();
        assert!(!ecn.marks());
        let mut evidence = Evidence::default();
        evidence.on_acked(3, false);
        evidence.on_lost(1, true);
        evidence.on_lost(2, true);
        ecn.on_evidence(&evidence, false);
        assert_eq!(ecn.state(), EcnState::Failed);
    }

    #[test]
    fn another_test_starts_from_what_was_told_before() {
        let mut ecn = tested(10, 10, 0);
        ecn.start(true);
        (11..21).for_each(|number| ecn.on_sent(number, true));
        tell(&mut ecn, counts(12, 0, 0));
        assert_eq!(ecn.state(), EcnState::Capable, "two late ones of the first test are no fault");
    }

    #[test]
    fn congestion_is_reported_until_the_report_has_arrived() {
        let mut marks = ReceivedMarks::new();
        assert!(!marks.wants_report() && marks.counts().is_none());
        (0..REPORTED).for_each(|_| marks.on_received(ECT0));
        assert!(!marks.wants_report());
        marks.on_received(ECN_CE);
        assert!(marks.wants_report());
        assert_eq!(marks.counts(), Some(counts(REPORTED, 0, 1)));
        marks.on_report_acked(0);
        assert!(marks.wants_report());
        marks.on_report_acked(1);
        assert!(!marks.wants_report());
    }
}
