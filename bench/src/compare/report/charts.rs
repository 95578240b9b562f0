//! What the charts show.

use super::chart::Frame;
use super::chart::bars::{Bar, Bars};
use super::chart::lines::{Axis, Chart, Line, Point, Rule};
use super::chart::scale::Scale;
use super::figure::{self, ms, three, whole};
use super::merge::{Campaign, Group, Requests};
use super::{peer, tables};
use crate::compare::model::{Path, Workload};

const SMALL: Frame = Frame { width: 420.0, height: 270.0, left: 64.0, right: 14.0, top: 10.0, bottom: 42.0 };
const NAMED: Frame = Frame { width: 520.0, height: 330.0, left: 56.0, right: 132.0, top: 10.0, bottom: 42.0 };
const README: Frame = Frame { width: 780.0, height: 430.0, left: 62.0, right: 150.0, top: 40.0, bottom: 46.0 };
/// Points of a distribution: one for about each three pixels.
const CDF_POINTS: u32 = 100;
/// The round trip of the chart for the README.
const README_RTT_MS: f64 = 50.0;

/// The 99th percentile by loss, for one round trip.
pub(super) fn p99_by_loss<'a>(campaign: &Campaign<'a>, rtt_ms: f64) -> Chart<'a> {
    let losses = campaign.settings(Workload::Messages, |path| path.loss_percent);
    let mut lines = Vec::new();
    for peer in campaign.peers(Workload::Messages) {
        let point = |loss: &f64| {
            let path = campaign.plain(Workload::Messages, rtt_ms, *loss)?;
            let requests = campaign.get(Workload::Messages, &path.name, peer)?.requests()?;
            let tip = format!("{}, {} % loss: {}", figure::line(peer), figure::setting(*loss), said(requests));
            Some(Point { x: *loss, y: requests.quantile_ms(0.99), range: None, tip: Some(tip) })
        };
        let points: Vec<Option<Point>> = losses.iter().map(point).collect();
        let figures = points.iter().flatten().map(|point| format!("{} at {} %", ms(point.y), figure::setting(point.x)));
        let tip = format!("{}: {}", figure::line(peer), figures.collect::<Vec<_>>().join(", "));
        lines.push(Line { peer, points, tip });
    }
    let all = lines.iter().flat_map(|line| line.points.iter().flatten()).map(|point| point.y);
    let scale = Scale::log_from(rtt_ms, all);
    let floor = Rule {
        points: losses.iter().map(|loss| (*loss, rtt_ms)).collect(),
        name: format!("the round trip: {} ms", figure::setting(rtt_ms)),
    };
    Chart {
        frame: NAMED,
        title: format!("Round trip {} ms", figure::setting(rtt_ms)),
        x: Axis { title: "loss in each direction, %", scale: Scale::Places(losses) },
        y: Axis { title: "p99 latency, ms", scale },
        rules: vec![floor],
        lines,
        named: true,
    }
}

fn said(requests: &Requests) -> String {
    let unanswered = match requests.errors {
        0 => String::new(),
        errors => format!(", {} of {} unanswered", whole(errors as f64), whole(requests.sent as f64)),
    };
    format!("p50 / p99 / p99.9 {} ms{unanswered}", tables::quantiles(requests))
}

/// The one for the README.
pub(super) fn readme<'a>(campaign: &Campaign<'a>) -> Chart<'a> {
    let rtt_ms = README_RTT_MS;
    let mut chart = p99_by_loss(campaign, rtt_ms);
    chart.frame = README;
    chart.title =
        format!("200 requests/s of 256 B, round trip {} ms: 99th percentile by loss", figure::setting(rtt_ms));
    chart.x.title = "packets lost in each direction, %";
    chart
}

/// How many requests took how long on one path, a line for each peer.
pub(super) fn distribution<'a>(campaign: &Campaign<'a>, path: &Path) -> Chart<'a> {
    let mut lines = Vec::new();
    for peer in campaign.peers(Workload::Messages) {
        let requests = campaign.get(Workload::Messages, &path.name, peer).and_then(Group::requests);
        let Some(requests) = requests else { continue };
        // The last share that at least one request lies beyond.
        let digits = (requests.histogram.len() as f64).log10().clamp(0.3, 3.0);
        let point = |nth: u32| {
            let share = 1.0 - 10_f64.powf(-digits * f64::from(nth) / f64::from(CDF_POINTS));
            Some(Point { x: requests.quantile_ms(share), y: share, range: None, tip: None })
        };
        let tip = format!("{}: {}", figure::line(peer), said(requests));
        lines.push(Line { peer, points: (0..=CDF_POINTS).map(point).collect(), tip });
    }
    let scale = Scale::log(lines.iter().flat_map(|line| line.points.iter().flatten()).map(|point| point.x));
    Chart {
        frame: SMALL,
        title: tables::named(path),
        x: Axis { title: "latency, ms", scale },
        y: Axis { title: "requests answered within", scale: Scale::Nines { digits: 3.0 } },
        rules: Vec::new(),
        lines,
        named: false,
    }
}

/// Goodput by round trip, for one loss.
pub(super) fn goodput_by_rtt<'a>(campaign: &Campaign<'a>, loss_percent: f64) -> Chart<'a> {
    let rtts = campaign.settings(Workload::Bulk, |path| path.rtt_ms);
    let mut lines = Vec::new();
    for peer in campaign.peers(Workload::Bulk) {
        let point = |rtt_ms: &f64| {
            let path = campaign.plain(Workload::Bulk, *rtt_ms, loss_percent)?;
            let goodput = &campaign.get(Workload::Bulk, &path.name, peer)?.bulk()?.mbit_per_s;
            let said = figure::spread(goodput, three);
            let tip = format!("{}, {} ms round trip: {said} Mbit/s", figure::line(peer), figure::setting(*rtt_ms));
            Some(Point {
                x: *rtt_ms,
                y: goodput.median(),
                range: Some((goodput.least(), goodput.most())),
                tip: Some(tip),
            })
        };
        let points: Vec<Option<Point>> = rtts.iter().map(point).collect();
        let figures =
            points.iter().flatten().map(|point| format!("{} at {} ms", three(point.y), figure::setting(point.x)));
        let tip = format!("{}: {}", figure::line(peer), figures.collect::<Vec<_>>().join(", "));
        lines.push(Line { peer, points, tip });
    }
    let points = lines.iter().flat_map(|line| line.points.iter().flatten());
    let limit = |rtt_ms: &f64| {
        let rate = campaign.plain(Workload::Bulk, *rtt_ms, loss_percent)?.rate_mbit?;
        Some((*rtt_ms, rate * (1.0 - loss_percent / 100.0)))
    };
    let limits: Vec<(f64, f64)> = rtts.iter().filter_map(limit).collect();
    let all =
        points.map(|point| point.range.map_or(point.y, |(_, most)| most)).chain(limits.iter().map(|(_, most)| *most));
    let scale = Scale::linear(all);
    Chart {
        frame: NAMED,
        title: format!("{} % loss in each direction", figure::setting(loss_percent)),
        x: Axis { title: "round trip, ms", scale: Scale::Places(rtts) },
        y: Axis { title: "goodput, Mbit/s", scale },
        rules: vec![Rule { points: limits, name: "the link's rate, without what it loses".to_owned() }],
        lines,
        named: true,
    }
}

/// What the charts of a workload have no point for, or one from fewer rounds, and why.
pub(super) fn lacking(campaign: &Campaign<'_>, workload: Workload, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for path in campaign.paths(workload).into_iter().filter(|path| wanted(path)) {
        for peer in campaign.peers(workload) {
            let group = campaign.get(workload, &path.name, peer);
            let trouble = match group {
                Some(group) => group.trouble(campaign.results.rounds),
                None => Some("not measured".to_owned()),
            };
            if let Some(trouble) = trouble {
                lines.push(format!("{} on {}: {trouble}", figure::line(peer), figure::line(&path.name)));
            }
        }
    }
    lines
}

/// C: the charts of a path without limits.
pub(super) fn unlimited(campaign: &Campaign<'_>) -> Vec<Bars> {
    let requests = |figure: fn(&Requests) -> f64| move |group: &Group<'_>| Some(figure(group.requests()?));
    let all = [
        of(campaign, Workload::Concurrent, ("64 requests in flight", "requests/s"), |group| {
            Some((group.requests()?.per_s.median(), figure::spread(&group.requests()?.per_s, whole)))
        }),
        of(
            campaign,
            Workload::Concurrent,
            ("64 requests in flight: processor time", "CPU s per million requests"),
            |group| requests(Requests::cpu_us)(group).map(|cpu_s| (cpu_s, three(cpu_s))),
        ),
        of(campaign, Workload::PingPong, ("One request in flight", "p50 latency, us"), |group| {
            let requests = group.requests()?;
            let us = |share| requests.quantile_ms(share) * 1e3;
            Some((us(0.5), format!("{} (p99 {})", three(us(0.5)), three(us(0.99)))))
        }),
        of(campaign, Workload::BulkUnlimited, ("Bulk", "goodput, Gbit/s"), |group| {
            let goodput = &group.bulk()?.mbit_per_s;
            Some((goodput.median() / 1e3, figure::spread(goodput, |mbit| three(mbit / 1e3))))
        }),
    ];
    all.into_iter().filter(|bars| !bars.rows.is_empty()).collect()
}

fn of(
    campaign: &Campaign<'_>,
    workload: Workload,
    (title, axis): (&str, &'static str),
    figure: impl Fn(&Group<'_>) -> Option<(f64, String)>,
) -> Bars {
    let mut groups: Vec<_> = campaign.of(workload).collect();
    groups.sort_by_key(|group| peer::rank(group.peer));
    let bar = |group: &&Group<'_>| {
        let name = figure::line(group.peer);
        match figure(group) {
            Some((value, said)) => {
                let tip = format!("{name}: {said} {axis}");
                Bar { parts: vec![(group.peer.to_owned(), value, tip)], name, said, failed: false }
            }
            None => failed(campaign, group, name),
        }
    };
    Bars { title: title.to_owned(), axis, rows: groups.iter().map(bar).collect(), said_width: 150.0 }
}

fn failed(campaign: &Campaign<'_>, group: &Group<'_>, name: String) -> Bar {
    let said = group.trouble(campaign.results.rounds).unwrap_or_else(|| "not measured".to_owned());
    Bar { name, parts: Vec::new(), said, failed: true }
}

/// Flows that shared a bottleneck, one beside the other; a chart for each path.
pub(super) fn fairness(campaign: &Campaign<'_>) -> Vec<Bars> {
    let bar = |group: &Group<'_>| {
        let name = figure::line(group.peer);
        let Some(shares) = group.shares() else { return failed(campaign, group, name) };
        let part = |(peer, goodput): &(String, super::merge::Spread)| {
            (peer.clone(), goodput.median(), format!("{peer}: {} Mbit/s", figure::spread(goodput, three)))
        };
        let flows = shares.flows.iter().map(part).collect();
        let said = format!("Jain {:.3}, least {:.0} %", shares.jain.median(), shares.least.median() * 100.0);
        Bar { name, parts: flows, said, failed: false }
    };
    let chart = |path: &Path| Bars {
        title: tables::describe(path),
        axis: "goodput of the flows, Mbit/s",
        rows: campaign.of(Workload::Fairness).filter(|group| group.path.name == path.name).map(bar).collect(),
        said_width: 150.0,
    };
    campaign.paths(Workload::Fairness).into_iter().map(chart).collect()
}
