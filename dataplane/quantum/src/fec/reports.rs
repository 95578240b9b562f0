//! What has been restored and not yet been reported to the peer.

use smallvec::SmallVec;

use super::group::ranges;

/// Numbers that wait for a report at most; the oldest is reported no more, and its packet is sent again.
const REPORTS_MAX: usize = 256;
/// Numbers in one RECOVERED frame at most.
const FRAME_MAX: usize = 32;

/// A number to be reported.
#[derive(Clone, Copy, Debug)]
struct Report {
    number: u64,
    in_flight: bool,
}

/// The numbers, each until a report of it is acknowledged.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// By number.
    reports: Vec<Report>,
}

impl Reports {
    /// A packet was restored.
    pub(super) fn push(&mut self, number: u64) {
        if self.reports.len() == REPORTS_MAX {
            self.reports.remove(0);
        }
        let place = self.reports.partition_point(|report| report.number < number);
        self.reports.insert(place, Report { number, in_flight: false });
    }

    /// Whether nothing is to be reported, and no report is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Whether there is something to report.
    pub(super) fn is_pending(&self) -> bool {
        self.reports.iter().any(|report| !report.in_flight)
    }

    /// What the next frame reports, as ranges, newest first.
    pub(super) fn next(&self) -> SmallVec<[(u64, u64); 8]> {
        let pending = self.reports.iter().rev().filter(|report| !report.in_flight);
        ranges(pending.map(|report| report.number).take(FRAME_MAX))
    }

    /// A frame with that range left.
    pub(super) fn on_sent(&mut self, range: (u64, u64)) {
        self.set(range, true);
    }

    /// It was lost.
    pub(super) fn on_lost(&mut self, range: (u64, u64)) {
        self.set(range, false);
    }

    /// It arrived.
    pub(super) fn on_acked(&mut self, (first, last): (u64, u64)) {
        self.reports.retain(|report| !(first..=last).contains(&report.number));
        if self.reports.is_empty() && self.reports.capacity() > FRAME_MAX {
            self.reports = Vec::new();
        }
    }

    fn set(&mut self, (first, last): (u64, u64), in_flight: bool) {
        for report in self.reports.iter_mut().filter(|report| (first..=last).contains(&report.number)) {
            report.in_flight = in_flight;
        }
    }
}
