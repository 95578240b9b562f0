//! C: a path without limits.

use super::{Kind, Verdict, pair, why};
use crate::compare::model::Workload;
use crate::compare::report::figure::{three, whole};
use crate::compare::report::merge::{Campaign, Group};
use crate::compare::report::peer::{ECHO, Family, ONE_WORKER, OURS, RAW, SPINNING};

/// What is compared: ours, whose best, and how.
struct Case {
    workload: Workload,
    ours: &'static [&'static str],
    peers: fn(Family) -> bool,
    figure: fn(&Group<'_>) -> Option<f64>,
    /// More is better.
    rising: bool,
    /// Ours by theirs: at least (rising), or at most.
    ratio: f64,
    place: &'static str,
    target: &'static str,
}

const FIRST: [Case; 2] = [
    Case {
        workload: Workload::Concurrent,
        ours: &[OURS],
        peers: |family| matches!(family, Family::TcpGrpc),
        figure: per_s,
        rising: true,
        ratio: 1.0,
        place: "64 in flight, requests/s",
        target: "at least as many as gRPC over TCP",
    },
    Case {
        workload: Workload::BulkUnlimited,
        ours: &[OURS, RAW],
        peers: |family| matches!(family, Family::Quinn),
        figure: goodput,
        rising: true,
        ratio: 1.0,
        place: "bulk, Mbit/s, encrypted",
        target: "ahead of quinn",
    },
];

const FINAL: [Case; 5] = [
    Case { ratio: 2.0, target: "at least 2 x gRPC over TCP", ..FIRST[0] },
    Case {
        figure: cpu,
        rising: false,
        ratio: 0.5,
        place: "64 in flight, CPU s per million",
        target: "at most half of gRPC over TCP",
        ..FIRST[0]
    },
    Case {
        ours: &[RAW],
        peers: |family| matches!(family, Family::Quinn),
        ratio: 1.5,
        place: "64 in flight, raw streams, requests/s",
        target: "at least 1.5 x quinn",
        ..FIRST[0]
    },
    Case { peers: Family::quic, ratio: 2.0, target: "at least 2 x the best QUIC", ..FIRST[1] },
    Case {
        workload: Workload::PingPong,
        ours: &[SPINNING, ECHO, RAW],
        peers: |family| matches!(family, Family::Tcp),
        figure: p50_us,
        rising: false,
        ratio: 0.5,
        place: "one in flight, p50 us",
        target: "at most half of the kernel's TCP",
    },
];

fn per_s(group: &Group<'_>) -> Option<f64> {
    Some(group.requests()?.per_s.median())
}

fn cpu(group: &Group<'_>) -> Option<f64> {
    Some(group.requests()?.cpu_us())
}

fn p50_us(group: &Group<'_>) -> Option<f64> {
    Some(group.requests()?.quantile_ms(0.5) * 1e3)
}

fn goodput(group: &Group<'_>) -> Option<f64> {
    Some(group.bulk()?.mbit_per_s.median())
}

pub(super) fn evaluate(campaign: &Campaign<'_>) -> Vec<Kind> {
    let of = |cases: &[Case]| cases.iter().map(|case| verdict(campaign, case)).collect();
    vec![
        Kind { title: "C, first round", verdicts: of(&FIRST) },
        Kind { title: "C, final targets", verdicts: of(&FINAL) },
    ]
}

fn verdict(campaign: &Campaign<'_>, case: &Case) -> Verdict {
    let groups: Vec<&Group<'_>> = campaign.of(case.workload).collect();
    let figures = groups.iter().filter_map(|group| Some((group.peer, (case.figure)(group)?)));
    let better = |(_, one): &(&str, f64), (_, other): &(&str, f64)| {
        if case.rising { one.total_cmp(other) } else { other.total_cmp(one) }
    };
    let theirs = figures.clone().filter(|(peer, _)| (case.peers)(Family::of(peer))).max_by(better);
    let own = case.ours.iter().find_map(|name| {
        let same = |(peer, _): &(&str, f64)| peer.strip_suffix(ONE_WORKER).unwrap_or(peer) == *name;
        figures.clone().filter(same).max_by(better)
    });
    let digits = |value: f64| if value >= 1e3 { whole(value) } else { three(value) };
    match (own, theirs) {
        (Some(own), Some(theirs)) => {
            let ratio = own.1 / theirs.1;
            let met = if case.rising { ratio >= case.ratio } else { ratio <= case.ratio };
            Verdict::new(case.place, case.target, (met, format!("{}: {ratio:.2} x", pair(own, theirs, digits))))
        }
        (None, _) => {
            let group = groups.iter().find(|group| case.ours.contains(&group.peer)).copied();
            Verdict::unmeasured(case.place, case.target, why(campaign, group))
        }
        (_, None) => Verdict::unmeasured(case.place, case.target, "no such peer was measured"),
    }
}
