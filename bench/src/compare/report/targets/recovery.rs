//! How soon what is lost is there.

use super::{Kind, LOSS_PERCENT_MAX, Verdict, why};
use crate::compare::model::{Path, Workload};
use crate::compare::report::figure::{self, ms};
use crate::compare::report::merge::{Campaign, plain};
use crate::compare::report::peer::OURS;

/// Beyond the delay of the path.
const LIMIT_MS: f64 = 10.0;

pub(super) fn evaluate(campaign: &Campaign<'_>) -> Vec<Kind> {
    let lossy = |path: &&Path| plain(path) && path.loss_percent > 0.0 && path.loss_percent <= LOSS_PERCENT_MAX;
    let paths = campaign.paths(Workload::Messages).into_iter().filter(lossy);
    vec![Kind {
        title: "A, up to 10 % loss: what is lost is there soon",
        verdicts: paths.map(|path| within(campaign, path)).collect(),
    }]
}

fn within(campaign: &Campaign<'_>, path: &Path) -> Verdict {
    let (place, target) = (figure::line(&path.name), format!("99 % within {LIMIT_MS} ms beyond the path's delay"));
    let group = campaign.get(Workload::Messages, &path.name, OURS);
    let recoveries = group.and_then(|group| Some(&group.requests()?.recoveries)).filter(|all| all.count() > 0);
    let Some(recoveries) = recoveries else { return Verdict::unmeasured(place, target, why(campaign, group)) };
    let (share, p99) = (recoveries.share_within(LIMIT_MS), recoveries.quantile_ms(0.99));
    let p99 = p99.map_or_else(|| "beyond all bounds".to_owned(), |p99| format!("{} ms", ms(p99)));
    Verdict::new(place, target, (share >= 0.99, format!("{:.1} % within, p99 {p99}", share * 100.0)))
}
