//! Ids of connections that ended a short while ago.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::{Guuid, Time};

/// How long an id may not be used again (PROTOCOL.md section 3).
const REUSE_AFTER: Duration = Duration::from_mins(10);
/// Ids that are remembered at most; the oldest is forgotten before its time.
const IDS_MAX: usize = 1 << 16;

/// The ids, oldest first.
#[derive(Debug, Default)]
pub(super) struct RecentIds {
    order: VecDeque<(Time, Guuid)>,
    ids: HashSet<Guuid>,
}

impl RecentIds {
    /// A connection with that id ended.
    pub(super) fn insert(&mut self, now: Time, guuid: Guuid) {
        self.forget(now);
        if self.order.len() == IDS_MAX {
            self.forget_oldest();
        }
        if self.ids.insert(guuid) {
            self.order.push_back((now, guuid));
        }
    }

    /// Whether the id was in use a short while ago.
    pub(super) fn contains(&mut self, now: Time, guuid: Guuid) -> bool {
        self.forget(now);
        self.ids.contains(&guuid)
    }

    fn forget(&mut self, now: Time) {
        while self.order.front().is_some_and(|&(ended, _)| ended + REUSE_AFTER <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, guuid)) = self.order.pop_front() {
            self.ids.remove(&guuid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_free_again_after_its_time_and_their_number_is_bounded() {
        let mut recent = RecentIds::default();
        let id = |number: u64| Guuid([&number.to_be_bytes()[..], &[7; 8]].concat().try_into().unwrap());
        recent.insert(Time::ZERO, id(1));
        assert!(recent.contains(Time::ZERO + Duration::from_secs(599), id(1)));
        assert!(!recent.contains(Time::ZERO + REUSE_AFTER, id(1)));
        for number in 0..2 * IDS_MAX as u64 {
            recent.insert(Time::ZERO + REUSE_AFTER, id(number));
        }
        assert!(recent.order.len() == IDS_MAX && recent.ids.len() == IDS_MAX);
        assert!(!recent.contains(Time::ZERO + REUSE_AFTER, id(0)));
    }
}
