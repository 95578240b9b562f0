//! How long what was lost was missing, as the shards of this end counted it.

use quantum::RecoveryStats;
use serde::{Deserialize, Serialize};

/// The JSON of `drive` for it: what was restored here and what was sent again from here.
#[derive(Debug, Serialize)]
pub struct RecoveryResult {
    #[serde(flatten)]
    recovery: Recovery,
    /// Half of all took no longer; none if nothing was lost.
    recovery_p50_us: Option<f64>,
    recovery_p99_us: Option<f64>,
}

/// What was lost and came, and how long each took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Lost packets that this end put together.
    pub recovered: u64,
    /// Lost packets whose data this end sent again.
    pub resent: u64,
    /// Both, by how long they took; buckets with nothing in them are left out.
    pub recovery_buckets: Vec<RecoveryBucket>,
}

/// How many took no longer than this and longer than the bucket before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RecoveryBucket {
    /// Microseconds; none: no bound.
    pub up_to_us: Option<f64>,
    /// How many.
    pub count: u64,
}

impl From<RecoveryStats> for RecoveryResult {
    fn from(stats: RecoveryStats) -> Self {
        let all = stats.restored.with(&stats.resent);
        let quantile = |share| Some(all.quantile(share)?.as_secs_f64() * 1e6);
        let buckets = all.buckets().filter(|(_, count)| *count > 0);
        let bucket = |(bound, count): (Option<std::time::Duration>, u64)| RecoveryBucket {
            up_to_us: bound.map(|bound| bound.as_secs_f64() * 1e6),
            count,
        };
        Self {
            recovery: Recovery {
                recovered: stats.restored.count(),
                resent: stats.resent.count(),
                recovery_buckets: buckets.map(bucket).collect(),
            },
            recovery_p50_us: quantile(0.5),
            recovery_p99_us: quantile(0.99),
        }
    }
}
