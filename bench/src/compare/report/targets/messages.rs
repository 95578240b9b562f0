//! A: 200 requests per second.

use super::{Kind, LOSS_PERCENT_MAX, Verdict, pair, why};
use crate::compare::model::{Path, Workload};
use crate::compare::report::figure::{self, ms, three};
use crate::compare::report::merge::{Campaign, Group, Requests};
use crate::compare::report::peer::{Family, OURS, QUINN, RAW};
use crate::compare::report::tables::{P999_REQUESTS_MIN, evidence};

/// What a verdict on latencies rests on at least.
const SECONDS_MIN: f64 = 60.0;
const SEEDS_MIN: usize = 2;
const RTTS_MS: [f64; 4] = [20.0, 50.0, 100.0, 200.0];
const LOSSES_PERCENT: [f64; 3] = [1.0, 5.0, 10.0];
/// A multiple of the round trip, and milliseconds.
const P99: (f64, f64) = (1.15, 2.0);
const P999: (f64, f64) = (1.5, 5.0);

pub(super) fn evaluate(campaign: &Campaign<'_>) -> Vec<Kind> {
    let lossy: Vec<(f64, f64)> =
        RTTS_MS.iter().flat_map(|rtt_ms| LOSSES_PERCENT.map(|loss_percent| (*rtt_ms, loss_percent))).collect();
    let on_lossy = |share, limit| lossy.iter().map(|place| tail(campaign, *place, share, limit)).collect();
    vec![
        Kind { title: "A, 1 to 10 % loss: p99", verdicts: on_lossy(0.99, P99) },
        Kind { title: "A, 1 to 10 % loss: p99.9", verdicts: on_lossy(0.999, P999) },
        Kind {
            title: "A, 1 ms round trip and 5 % loss: p99",
            verdicts: vec![tail(campaign, (1.0, 5.0), 0.99, (0.0, 4.0))],
        },
        Kind { title: "A, burst loss: p99", verdicts: bursts(campaign) },
        Kind { title: "A, no loss: p50 and p99 beside gRPC over TCP", verdicts: clean(campaign) },
        Kind { title: "A, no loss: no spike of PROBE_RTT in the p99.9", verdicts: spikes(campaign) },
        Kind { title: "A: bytes on the wire per message, mean of both directions", verdicts: bytes(campaign) },
    ]
}

fn ours<'c, 'a>(campaign: &'c Campaign<'a>, path: Option<&Path>) -> Option<&'c Group<'a>> {
    campaign.get(Workload::Messages, &path?.name, OURS)
}

fn place_name((rtt_ms, loss_percent): (f64, f64)) -> String {
    format!("{} ms, {} %", figure::setting(rtt_ms), figure::setting(loss_percent))
}

/// A percentile of ours against a multiple of the round trip and milliseconds.
fn tail(campaign: &Campaign<'_>, place: (f64, f64), share: f64, (times, plus_ms): (f64, f64)) -> Verdict {
    let limit_ms = times * place.0 + plus_ms;
    let name = if share > 0.99 { "p99.9" } else { "p99" };
    let target = match times {
        0.0 => format!("{name} < {plus_ms} ms"),
        _ => format!("{name} <= {times} x RTT + {plus_ms} ms = {} ms", three(limit_ms)),
    };
    let group = ours(campaign, campaign.plain(Workload::Messages, place.0, place.1));
    let Some((group, requests)) = group.and_then(|group| Some((group, group.requests()?))) else {
        return Verdict::unmeasured(place_name(place), target, why(campaign, group));
    };
    judged(place_name(place), target, (group, requests), (share, limit_ms))
}

fn judged(
    place: String,
    target: String,
    (group, requests): (&Group<'_>, &Requests),
    (share, limit_ms): (f64, f64),
) -> Verdict {
    if share > 0.99 && requests.histogram.len() < P999_REQUESTS_MIN {
        return Verdict::unmeasured(place, target, "too few requests for a p99.9");
    }
    let measured_ms = requests.quantile_ms(share);
    let short = group.seconds < SECONDS_MIN || group.seeds.len() < SEEDS_MIN;
    let remark = if short { format!("; from {} only", evidence(group)) } else { String::new() };
    Verdict::new(place, target, (measured_ms <= limit_ms, format!("{} ms{remark}", ms(measured_ms))))
}

fn bursts(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let target = "p99 <= 1.3 x RTT";
    let paths = campaign.paths(Workload::Messages).into_iter().filter(|path| path.burst.is_some());
    let verdict = |path: &Path| {
        let group = ours(campaign, Some(path));
        let name = figure::line(&path.name);
        match group.and_then(|group| Some((group, group.requests()?))) {
            Some(found) => {
                let limit_ms = 1.3 * path.rtt_ms;
                judged(name, format!("{target} = {} ms", three(limit_ms)), found, (0.99, limit_ms))
            }
            None => Verdict::unmeasured(name, target, why(campaign, group)),
        }
    };
    let verdicts: Vec<Verdict> = paths.map(verdict).collect();
    if verdicts.is_empty() {
        return vec![Verdict::unmeasured("burst loss", target, "not part of this run")];
    }
    verdicts
}

/// The least figure of all peers of a family on a path.
fn least<'a>(
    campaign: &Campaign<'a>,
    path: Option<&Path>,
    family: Family,
    figure: impl Fn(&Requests) -> f64,
) -> Option<(&'a str, f64)> {
    let path = path?;
    let groups = campaign.of(Workload::Messages).filter(|group| group.path.name == path.name);
    let figures = groups
        .filter(|group| Family::of(group.peer) == family)
        .filter_map(|group| Some((group.peer, figure(group.requests()?))));
    figures.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn clean(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for rtt_ms in campaign.settings(Workload::Messages, |path| path.rtt_ms) {
        let path = campaign.plain(Workload::Messages, rtt_ms, 0.0);
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            let place = format!("{} ms, 0 %, {name}", figure::setting(rtt_ms));
            let target = "at most 1.05 x the lower one of gRPC over TCP";
            let group = ours(campaign, path);
            let quantile = |requests: &Requests| requests.quantile_ms(share);
            let theirs = least(campaign, path, Family::TcpGrpc, quantile);
            verdicts.push(match (group.and_then(Group::requests).map(quantile), theirs) {
                (Some(own), Some(theirs)) => {
                    let said = format!("{} ms: {:.2} x", pair((OURS, own), theirs, ms), own / theirs.1);
                    Verdict::new(place, target, (own <= 1.05 * theirs.1, said))
                }
                (None, _) => Verdict::unmeasured(place, target, why(campaign, group)),
                (_, None) => Verdict::unmeasured(place, target, "gRPC over TCP was not measured"),
            });
        }
    }
    verdicts
}

/// A `PROBE_RTT` of 200 ms each ten seconds would delay one request of fifty.
fn spikes(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let rtts = campaign.settings(Workload::Messages, |path| path.rtt_ms);
    rtts.into_iter().map(|rtt_ms| tail(campaign, (rtt_ms, 0.0), 0.999, P99)).collect()
}

fn per_message(requests: &Requests) -> f64 {
    let (sent, received) = requests.bytes_per_message();
    sent.midpoint(received)
}

fn bytes(campaign: &Campaign<'_>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for rtt_ms in campaign.settings(Workload::Messages, |path| path.rtt_ms) {
        let path = |loss_percent| campaign.plain(Workload::Messages, rtt_ms, loss_percent);
        let (clean, lossy) = (path(0.0), path(LOSS_PERCENT_MAX));
        let tcp = least(campaign, clean, Family::TcpGrpc, per_message);
        let quinn = lossy.and_then(|path| campaign.get(Workload::Messages, &path.name, QUINN));
        let quinn = quinn.and_then(|group| Some((QUINN, per_message(group.requests()?))));
        let cases = [
            (OURS, clean, tcp, 1.0, "0 %: no more than gRPC over TCP"),
            (OURS, lossy, tcp, 3.5, "10 %: at most 3.5 x gRPC over TCP at 0 %"),
            (RAW, lossy, quinn, 3.5, "10 %: at most 3.5 x quinn with BBR"),
        ];
        for (peer, path, theirs, times, target) in cases {
            let place = format!("{} ms, {peer}", figure::setting(rtt_ms));
            let group = path.and_then(|path| campaign.get(Workload::Messages, &path.name, peer));
            verdicts.push(match (group.and_then(Group::requests).map(per_message), theirs) {
                (Some(own), Some(theirs)) => {
                    let said = format!("{} B: {:.2} x", pair((peer, own), theirs, figure::whole), own / theirs.1);
                    Verdict::new(place, target, (own <= times * theirs.1, said))
                }
                (None, _) => Verdict::unmeasured(place, target, why(campaign, group)),
                (_, None) => Verdict::unmeasured(place, target, "the peer was not measured"),
            });
        }
    }
    verdicts
}
