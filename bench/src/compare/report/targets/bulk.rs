//! B: bulk, its queue, and what flows leave each other.

use super::{Kind, LOSS_PERCENT_MAX, Verdict, pair, why};
use crate::compare::model::{Path, Workload};
use crate::compare::report::figure::{self, three};
use crate::compare::report::merge::{Campaign, Group, plain};
use crate::compare::report::peer::{Family, OURS, RAW};
use crate::compare::report::tables::queue_share;

const JAIN_MIN: f64 = 0.95;
const LEAST_SHARE: f64 = 0.25;

pub(super) fn evaluate(campaign: &Campaign<'_>) -> Vec<Kind> {
    let lossy = |path: &Path| path.loss_percent >= 1.0 && path.rtt_ms >= 50.0;
    vec![
        Kind { title: "B, 50 ms and more, 1 to 10 % loss: ahead of every peer", verdicts: ahead(campaign, lossy, 1.0) },
        Kind {
            title: "B, no loss or 1 ms: within 4 % of the best",
            verdicts: ahead(campaign, |path| path.loss_percent == 0.0 || path.rtt_ms <= 1.0, 0.96),
        },
        Kind { title: "B: queue under half a BDP", verdicts: queue(campaign) },
        Kind { title: "Fairness: several flows of its own", verdicts: own_flows(campaign) },
        Kind { title: "Fairness: beside a flow of the kernel's TCP", verdicts: beside_tcp(campaign) },
    ]
}

/// Bulk over gRPC, or raw where only that was measured.
fn ours<'c, 'a>(campaign: &'c Campaign<'a>, path: &Path) -> Option<&'c Group<'a>> {
    let of = |peer| campaign.get(Workload::Bulk, &path.name, peer);
    of(OURS).or_else(|| of(RAW))
}

fn grid<'a>(campaign: &Campaign<'a>) -> impl Iterator<Item = &'a Path> {
    let paths = campaign.paths(Workload::Bulk).into_iter();
    paths.filter(|path| plain(path) && path.loss_percent <= LOSS_PERCENT_MAX)
}

/// Ours against the best peer; `part` of it is enough, and at 1 it must be more.
fn ahead(campaign: &Campaign<'_>, wanted: impl Fn(&Path) -> bool, part: f64) -> Vec<Verdict> {
    let target = if part < 1.0 { "at least 0.96 x the best peer" } else { "more than every peer" };
    let mut verdicts = Vec::new();
    for path in grid(campaign).filter(|path| wanted(path)) {
        let place = figure::line(&path.name);
        let peers = campaign.of(Workload::Bulk).filter(|group| group.path.name == path.name);
        let best = peers
            .filter(|group| !Family::of(group.peer).ours())
            .filter_map(|group| Some((group.peer, group.bulk()?.mbit_per_s.median())))
            .max_by(|(_, one), (_, other)| one.total_cmp(other));
        let group = ours(campaign, path);
        let own = group.and_then(|group| Some((group.peer, group.bulk()?.mbit_per_s.median())));
        verdicts.push(match (own, best) {
            (Some(own), Some(best)) => {
                let met = if part < 1.0 { own.1 >= part * best.1 } else { own.1 > best.1 };
                Verdict::new(
                    place,
                    target,
                    (met, format!("{} Mbit/s: {:.2} x", pair(own, best, three), own.1 / best.1)),
                )
            }
            (None, _) => Verdict::unmeasured(place, target, why(campaign, group)),
            (_, None) => Verdict::unmeasured(place, target, "no peer was measured"),
        });
    }
    if verdicts.is_empty() {
        verdicts.push(Verdict::unmeasured("bulk", target, "not part of this run"));
    }
    verdicts
}

fn queue(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let target = "mean under 50 % of a BDP";
    let verdict = |path: &Path| {
        let group = ours(campaign, path);
        let place = figure::line(&path.name);
        match group.and_then(queue_share) {
            Some(share) => Verdict::new(place, target, (share < 0.5, format!("{:.0} % of a BDP", share * 100.0))),
            None if group.is_some_and(|group| group.bulk().is_some()) => {
                Verdict::unmeasured(place, target, "the link did not count its queue")
            }
            None => Verdict::unmeasured(place, target, why(campaign, group)),
        }
    };
    let verdicts: Vec<Verdict> = grid(campaign).map(verdict).collect();
    if verdicts.is_empty() {
        return vec![Verdict::unmeasured("bulk", target, "not part of this run")];
    }
    verdicts
}

fn place(group: &Group<'_>) -> String {
    format!("{}, {}", figure::line(group.peer), figure::line(&group.path.name))
}

fn own_flows(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let target = "Jain's index >= 0.95";
    let mut verdicts = Vec::new();
    for group in campaign.of(Workload::Fairness) {
        match group.shares() {
            Some(shares) if shares.flows.iter().all(|(peer, _)| Family::of(peer).ours()) => {
                let said = figure::spread(&shares.jain, |index| format!("{index:.3}"));
                let said = format!("{said}, {} flows", shares.flows.len());
                verdicts.push(Verdict::new(place(group), target, (shares.jain.median() >= JAIN_MIN, said)));
            }
            None if !group.peer.contains("tcp") => {
                verdicts.push(Verdict::unmeasured(place(group), target, why(campaign, Some(group))));
            }
            _ => {}
        }
    }
    if verdicts.is_empty() {
        verdicts.push(Verdict::unmeasured("2 and 10 flows", target, "not part of this run"));
    }
    verdicts
}

fn beside_tcp(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let target = "each at least a quarter of the sum";
    let mut verdicts = Vec::new();
    for group in campaign.of(Workload::Fairness) {
        let kernel = |peer: &str| matches!(Family::of(peer), Family::Tcp | Family::TcpGrpc);
        match group.shares() {
            Some(shares) if shares.flows.iter().any(|(peer, _)| kernel(peer)) => {
                let of = |(peer, goodput): &(String, _)| format!("{peer} {}", figure::spread(goodput, three));
                let flows: Vec<String> = shares.flows.iter().map(of).collect();
                let least = shares.least.median();
                let said = format!("{} Mbit/s: least {:.0} %", flows.join(", "), least * 100.0);
                // Flows of TCP alone say nothing about ours.
                if shares.flows.iter().any(|(peer, _)| Family::of(peer).ours()) {
                    verdicts.push(Verdict::new(place(group), target, (least >= LEAST_SHARE, said)));
                }
            }
            None if group.peer.contains("tcp") => {
                verdicts.push(Verdict::unmeasured(place(group), target, why(campaign, Some(group))));
            }
            _ => {}
        }
    }
    if verdicts.is_empty() {
        verdicts.push(Verdict::unmeasured("one flow of CUBIC, one of BBR", target, "not part of this run"));
    }
    verdicts
}
