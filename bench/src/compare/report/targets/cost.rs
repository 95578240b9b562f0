//! What forward error correction costs: ours beside the same without it.

use super::{Kind, Verdict, pair, why};
use crate::compare::model::{Path, Workload};
use crate::compare::report::figure::{self, three};
use crate::compare::report::merge::{Campaign, Group, plain};
use crate::compare::report::peer::OURS;

/// The peer that is ours with forward error correction turned off.
const WITHOUT: &str = "quantum-grpc-nofec";

pub(super) fn evaluate(campaign: &Campaign<'_>) -> Vec<Kind> {
    let bytes = |group: &Group<'_>| {
        let (sent, received) = group.requests()?.bytes_per_message();
        Some(sent.midpoint(received))
    };
    let goodput = |group: &Group<'_>| Some(group.bulk()?.mbit_per_s.median());
    let (less, more) = ("bytes per message at most 1.03 x without", "goodput at least 0.98 x without");
    vec![Kind {
        title: "Forward error correction: its cost with no loss, and on a full path",
        verdicts: [
            beside(campaign, Workload::Messages, less, (bytes, |ratio| ratio <= 1.03)),
            beside(campaign, Workload::Bulk, more, (goodput, |ratio| ratio >= 0.98)),
        ]
        .concat(),
    }]
}

fn beside(
    campaign: &Campaign<'_>,
    workload: Workload,
    target: &str,
    (figure, meets): (impl Fn(&Group<'_>) -> Option<f64>, fn(f64) -> bool),
) -> Vec<Verdict> {
    let clean = |path: &&Path| plain(path) && path.loss_percent == 0.0;
    let mut verdicts = Vec::new();
    for path in campaign.paths(workload).into_iter().filter(clean) {
        let Some(without) = campaign.get(workload, &path.name, WITHOUT) else { continue };
        let with = campaign.get(workload, &path.name, OURS);
        let place = figure::line(&path.name);
        verdicts.push(match (with.and_then(&figure), figure(without)) {
            (Some(with), Some(without)) => {
                let said = format!("{}: {:.3} x", pair((OURS, with), (WITHOUT, without), three), with / without);
                Verdict::new(place, target, (meets(with / without), said))
            }
            (None, _) => Verdict::unmeasured(place, target, why(campaign, with)),
            (_, None) => Verdict::unmeasured(place, target, why(campaign, Some(without))),
        });
    }
    if verdicts.is_empty() {
        verdicts.push(Verdict::unmeasured(WITHOUT, target, "not part of this run"));
    }
    verdicts
}
