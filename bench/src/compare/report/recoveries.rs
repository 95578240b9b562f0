//! What was lost and came after all: how long it was missing.

use std::collections::BTreeMap;

use super::figure::{self, ms, whole};
use super::merge::Campaign;
use super::table::{Entry, Table};
use crate::compare::model::Workload;
use crate::load::Recovery;

/// Upper bounds of the table's columns in milliseconds.
const COLUMNS_MS: [f64; 6] = [1.25, 2.5, 5.0, 10.0, 40.0, 160.0];

/// The recoveries of all rounds.
#[derive(Debug, Default)]
pub(super) struct Recoveries {
    pub(super) recovered: u64,
    pub(super) resent: u64,
    /// How many by the upper bound of their duration in microseconds, rounded up.
    by_bound: BTreeMap<u64, u64>,
}

impl Recoveries {
    pub(super) fn add(&mut self, recovery: &Recovery) {
        self.recovered = self.recovered.saturating_add(recovery.recovered);
        self.resent = self.resent.saturating_add(recovery.resent);
        for bucket in &recovery.recovery_buckets {
            let bound_us = bucket.up_to_us.map_or(u64::MAX, |bound| bound.ceil() as u64);
            let count = self.by_bound.entry(bound_us).or_default();
            *count = count.saturating_add(bucket.count);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.by_bound.values().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// The part that took no longer than this.
    pub(super) fn share_within(&self, limit_ms: f64) -> f64 {
        let within = self.by_bound.iter().take_while(|(bound, _)| **bound as f64 <= limit_ms * 1e3);
        within.map(|(_, count)| *count as f64).sum::<f64>() / self.count().max(1) as f64
    }

    /// What this part did not exceed: the upper bound of a bucket. None if there is none, or nothing.
    pub(super) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0);
        let mut below = 0.0;
        let (bound, _) = self.by_bound.iter().find(|(_, count)| {
            below += **count as f64;
            below >= rank
        })?;
        (*bound < u64::MAX).then_some(*bound as f64 / 1e3)
    }
}

/// A row for each path and peer that has lost and recovered something.
pub(super) fn table(campaign: &Campaign<'_>) -> Option<Table> {
    let title = "What was lost and came after all, as the client saw it: restored, from when it may have been due at the earliest; \
                 sent again, from when it was sent first";
    let mut table = Table::new(title, &["path", "peer", "restored", "sent again", "p50 ms", "p99 ms"]);
    table.head.extend(COLUMNS_MS.map(|bound| format!("within {} ms", figure::setting(bound))));
    for path in campaign.paths(Workload::Messages) {
        for peer in campaign.peers(Workload::Messages) {
            let group = campaign.get(Workload::Messages, &path.name, peer);
            let Some(requests) = group.and_then(|group| group.requests()) else { continue };
            let recoveries = &requests.recoveries;
            if recoveries.count() == 0 {
                continue;
            }
            let quantile = |share| recoveries.quantile_ms(share).map_or_else(|| "longer".to_owned(), ms);
            let mut row = vec![Entry::text(figure::line(&path.name)), Entry::text(figure::line(peer))];
            row.extend([recoveries.recovered, recoveries.resent].map(|count| Entry::number(whole(count as f64))));
            row.extend([0.5, 0.99].map(|share| Entry::number(quantile(share))));
            let within = |bound| Entry::number(format!("{:.1} %", recoveries.share_within(bound) * 100.0));
            row.extend(COLUMNS_MS.map(within));
            table.rows.push(row);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::Recoveries;
    use crate::load::{Recovery, RecoveryBucket};

    #[test]
    fn rounds_add_up_and_bounds_are_never_passed_unsaid() {
        let bucket = |up_to_us, count| RecoveryBucket { up_to_us, count };
        let mut recoveries = Recoveries::default();
        assert_eq!((recoveries.quantile_ms(0.5), recoveries.share_within(10.0)), (None, 0.0));
        for _ in 0..2 {
            let recovery_buckets = vec![bucket(Some(312.5), 90), bucket(Some(10_000.0), 9), bucket(None, 1)];
            recoveries.add(&Recovery { recovered: 99, resent: 1, recovery_buckets });
        }
        assert_eq!((recoveries.count(), recoveries.recovered, recoveries.resent), (200, 198, 2));
        assert_eq!(recoveries.quantile_ms(0.9), Some(0.313));
        assert_eq!((recoveries.quantile_ms(0.99), recoveries.quantile_ms(1.0)), (Some(10.0), None));
        assert!((recoveries.share_within(10.0) - 0.99).abs() < 1e-9);
    }

    #[test]
    fn absurd_counts_are_taken() {
        let buckets =
            [f64::NAN, -1.0, f64::INFINITY].map(|bound| RecoveryBucket { up_to_us: Some(bound), count: u64::MAX });
        let mut recoveries = Recoveries::default();
        recoveries.add(&Recovery { recovered: u64::MAX, resent: u64::MAX, recovery_buckets: buckets.to_vec() });
        assert!(recoveries.quantile_ms(0.99).is_some() && recoveries.count() == u64::MAX);
    }
}
