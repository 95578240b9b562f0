//! What the tables show.

use super::figure::{self, ms, three, whole};
use super::merge::{Campaign, Group, Requests, plain};
use super::table::{Entry, Table};
use crate::compare::model::{BurstLoss, Path, Workload};

/// Requests that a 99.9th percentile needs: one of them lies beyond it.
pub(super) const P999_REQUESTS_MIN: u64 = 1_000;

/// A: p50, p99 and p99.9 by loss, a table for each round trip of the grid.
pub(super) fn latency_by_loss(campaign: &Campaign<'_>) -> Vec<Table> {
    let losses = campaign.settings(Workload::Messages, |path| path.loss_percent);
    let rtts = campaign.settings(Workload::Messages, |path| path.rtt_ms);
    let table = |rtt_ms: f64| {
        let title =
            format!("Round trip {} ms: p50 / p99 / p99.9 in ms, by loss in each direction", figure::setting(rtt_ms));
        let columns = losses
            .iter()
            .map(|loss| (format!("{} %", figure::setting(*loss)), campaign.plain(Workload::Messages, rtt_ms, *loss)));
        latencies(campaign, title, &columns.collect::<Vec<_>>())
    };
    rtts.into_iter().map(table).collect()
}

/// A over paths with bursts and jitter.
pub(super) fn latency_elsewhere(campaign: &Campaign<'_>) -> Option<Table> {
    let paths = campaign.paths(Workload::Messages).into_iter().filter(|path| !plain(path));
    let columns: Vec<_> = paths.map(|path| (figure::line(&path.name), Some(path))).collect();
    let title = "Bursts, jitter and networks as people have them: p50 / p99 / p99.9 in ms".to_owned();
    (!columns.is_empty()).then(|| latencies(campaign, title, &columns))
}

fn latencies(campaign: &Campaign<'_>, title: String, columns: &[(String, Option<&Path>)]) -> Table {
    let mut table = Table::new(title, &["peer"]);
    table.head.extend(columns.iter().map(|(name, _)| name.clone()));
    for peer in campaign.peers(Workload::Messages) {
        let mut row = vec![Entry::text(figure::line(peer))];
        for (_, path) in columns {
            let group = path.and_then(|path| campaign.get(Workload::Messages, &path.name, peer));
            row.push(field(&mut table, campaign, group, |group| {
                let requests = group.requests()?;
                let unanswered = match requests.errors {
                    0 => String::new(),
                    errors => format!(", {} unanswered", whole(errors as f64)),
                };
                Some(format!("{}{unanswered}", quantiles(requests)))
            }));
        }
        table.rows.push(row);
    }
    table
}

/// p50 / p99 / p99.9, the last where there are requests enough.
pub(super) fn quantiles(requests: &Requests) -> String {
    let mut text = format!("{} / {}", ms(requests.quantile_ms(0.5)), ms(requests.quantile_ms(0.99)));
    if requests.histogram.len() >= P999_REQUESTS_MIN {
        text.extend([" / ", &ms(requests.quantile_ms(0.999))]);
    }
    text
}

/// A field with a figure, with what is missing of it as a note.
fn field<'a>(
    table: &mut Table,
    campaign: &Campaign<'_>,
    group: Option<&Group<'a>>,
    figure: impl FnOnce(&Group<'a>) -> Option<String>,
) -> Entry {
    let trouble = group.and_then(|group| group.trouble(campaign.results.rounds));
    match group.and_then(figure) {
        Some(text) => table.noted(Entry::number(text), trouble),
        None => table.lacking(trouble),
    }
}

/// Everything of the requests on one path, a row for each peer.
pub(super) fn requests(campaign: &Campaign<'_>, workload: Workload, path: &Path) -> Table {
    let head = [
        "peer",
        "requests",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "most ms",
        "unanswered",
        "bytes/message sent",
        "bytes/message received",
        "CPU us/request",
        "measured",
    ];
    let mut table = Table::new(describe(path), &head);
    for peer in campaign.peers(workload) {
        let group = campaign.get(workload, &path.name, peer);
        let trouble = group.and_then(|group| group.trouble(campaign.results.rounds));
        let mut row = vec![Entry::text(figure::line(peer))];
        if let Some((group, requests)) = group.and_then(|group| Some((group, group.requests()?))) {
            let quantile = |share| Entry::number(ms(requests.quantile_ms(share)));
            let (sent, received) = requests.bytes_per_message();
            let many = requests.histogram.len() >= P999_REQUESTS_MIN;
            let unanswered = whole(requests.errors as f64);
            row.push(table.noted(Entry::number(whole(requests.sent as f64)), trouble));
            row.extend([quantile(0.5), quantile(0.9), quantile(0.99)]);
            row.push(if many { quantile(0.999) } else { Entry::text("too few") });
            row.push(Entry::number(ms(requests.max_ms())));
            row.push(if requests.errors > 0 { Entry::bad(unanswered) } else { Entry::number(unanswered) });
            row.extend([sent, received].map(|bytes| Entry::number(whole(bytes))));
            row.push(Entry::number(three(requests.cpu_us())));
            row.push(Entry::text(evidence(group)));
        } else {
            row.push(table.lacking(trouble));
            row.resize(head.len(), Entry::text("–"));
        }
        table.rows.push(row);
    }
    table
}

/// B: goodput by loss, a table for each round trip.
pub(super) fn goodput(campaign: &Campaign<'_>) -> Vec<Table> {
    let table = |rtt_ms: f64| {
        let title = format!("Round trip {} ms: goodput in Mbit/s, by loss in each direction", figure::setting(rtt_ms));
        bulk_table(campaign, title, rtt_ms, |group| Some(figure::spread(&group.bulk()?.mbit_per_s, three)))
    };
    campaign.settings(Workload::Bulk, |path| path.rtt_ms).into_iter().map(table).collect()
}

/// B: what bulk leaves in the queue, sends and costs, tables for each round trip.
pub(super) fn bulk_costs(campaign: &Campaign<'_>) -> Vec<Table> {
    let mut tables = Vec::new();
    for rtt_ms in campaign.settings(Workload::Bulk, |path| path.rtt_ms) {
        let rtt = figure::setting(rtt_ms);
        let title = format!("Round trip {rtt} ms: mean bytes in the bottleneck's queue, as a part of one BDP");
        let queued = |group: &Group<'_>| Some(format!("{:.0} %", queue_share(group)? * 100.0));
        if campaign.of(Workload::Bulk).any(|group| queue_share(group).is_some()) {
            tables.push(bulk_table(campaign, title, rtt_ms, queued));
        }
        let title = format!("Round trip {rtt} ms: bytes sent on the wire by the client, all rounds");
        let sent = |group: &Group<'_>| Some(figure::bytes(group.bulk()?.bytes_sent as f64));
        tables.push(bulk_table(campaign, title, rtt_ms, sent));
        let title = format!("Round trip {rtt} ms: CPU seconds of both ends, each round");
        let cpu = |group: &Group<'_>| Some(figure::spread(&group.bulk()?.cpu_s, three));
        tables.push(bulk_table(campaign, title, rtt_ms, cpu));
    }
    tables
}

fn bulk_table(
    campaign: &Campaign<'_>,
    title: String,
    rtt_ms: f64,
    figure: impl Fn(&Group<'_>) -> Option<String>,
) -> Table {
    let losses = campaign.settings(Workload::Bulk, |path| path.loss_percent);
    let mut table = Table::new(title, &["peer"]);
    table.head.extend(losses.iter().map(|loss| format!("{} %", figure::setting(*loss))));
    for peer in campaign.peers(Workload::Bulk) {
        let mut row = vec![Entry::text(figure::line(peer))];
        for loss in &losses {
            let path = campaign.plain(Workload::Bulk, rtt_ms, *loss);
            let group = path.and_then(|path| campaign.get(Workload::Bulk, &path.name, peer));
            row.push(field(&mut table, campaign, group, &figure));
        }
        table.rows.push(row);
    }
    table
}

/// The mean queue by rate x round trip; nothing where it was not counted.
pub(super) fn queue_share(group: &Group<'_>) -> Option<f64> {
    let bulk = group.bulk()?;
    let bdp_bytes = group.path.rate_mbit? * 1e6 / 8.0 * group.path.rtt_ms / 1e3;
    (bulk.queue_bytes.count() > 0 && bdp_bytes > 0.0).then(|| bulk.queue_bytes.median() / bdp_bytes)
}

/// Bulk over paths that are not of the grid.
pub(super) fn goodput_elsewhere(campaign: &Campaign<'_>, workload: Workload) -> Option<Table> {
    let groups: Vec<_> =
        campaign.of(workload).filter(|group| workload != Workload::Bulk || !plain(group.path)).collect();
    let mut table = Table::new("Bulk", &["peer", "path", "Mbit/s", "CPU s", "measured"]);
    for group in &groups {
        let trouble = group.trouble(campaign.results.rounds);
        let mut row = vec![Entry::text(figure::line(group.peer)), Entry::text(describe(group.path))];
        if let Some(bulk) = group.bulk() {
            row.push(table.noted(Entry::number(figure::spread(&bulk.mbit_per_s, three)), trouble));
            row.push(Entry::number(figure::spread(&bulk.cpu_s, three)));
            row.push(Entry::text(evidence(group)));
        } else {
            row.push(table.lacking(trouble));
            row.resize(table.head.len(), Entry::text("–"));
        }
        table.rows.push(row);
    }
    (!groups.is_empty()).then_some(table)
}

/// C: requests, a row for each peer.
pub(super) fn unlimited(campaign: &Campaign<'_>, workload: Workload) -> Option<Table> {
    let title = match workload {
        Workload::PingPong => "One request in flight",
        _ => "64 requests in flight",
    };
    let mut table = Table::new(
        title,
        &["peer", "requests/s", "CPU s per million", "p50 us", "p99 us", "p99.9 us", "unanswered", "measured"],
    );
    let mut groups: Vec<_> = campaign.of(workload).collect();
    groups.sort_by_key(|group| super::peer::rank(group.peer));
    for group in &groups {
        let trouble = group.trouble(campaign.results.rounds);
        let mut row = vec![Entry::text(figure::line(group.peer))];
        if let Some(requests) = group.requests() {
            row.push(table.noted(Entry::number(figure::spread(&requests.per_s, whole)), trouble));
            row.push(Entry::number(three(requests.cpu_us())));
            row.extend([0.5, 0.99, 0.999].map(|share| Entry::number(three(requests.quantile_ms(share) * 1e3))));
            row.push(Entry::number(whole(requests.errors as f64)));
            row.push(Entry::text(evidence(group)));
        } else {
            row.push(table.lacking(trouble));
            row.resize(table.head.len(), Entry::text("–"));
        }
        table.rows.push(row);
    }
    (!groups.is_empty()).then_some(table)
}

/// Flows that shared a bottleneck.
pub(super) fn fairness(campaign: &Campaign<'_>) -> Option<Table> {
    let mut table = Table::new(
        "Flows on one bottleneck, second half",
        &["flows", "path", "Mbit/s", "least part", "Jain's index", "measured"],
    );
    for group in campaign.of(Workload::Fairness) {
        let trouble = group.trouble(campaign.results.rounds);
        let mut row = vec![Entry::text(figure::line(group.peer)), Entry::text(describe(group.path))];
        if let Some(shares) = group.shares() {
            let flows = shares.flows.iter().map(|(peer, goodput)| format!("{peer} {}", three(goodput.median())));
            row.push(table.noted(Entry::text(flows.collect::<Vec<_>>().join(", ")), trouble));
            row.push(Entry::number(figure::spread(&shares.least, |part| format!("{:.1} %", part * 100.0))));
            row.push(Entry::number(figure::spread(&shares.jain, |index| format!("{index:.3}"))));
            row.push(Entry::text(evidence(group)));
        } else {
            row.push(table.lacking(trouble));
            row.resize(table.head.len(), Entry::text("–"));
        }
        table.rows.push(row);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Every group with rounds that failed or are missing.
pub(super) fn failures(campaign: &Campaign<'_>) -> Option<Table> {
    let mut table = Table::new("Rounds without a measurement", &["workload", "path", "peer", "why"]);
    for group in &campaign.groups {
        let Some(trouble) = group.trouble(campaign.results.rounds) else { continue };
        let workload = match group.workload {
            Workload::Messages => "A: 200 requests/s",
            Workload::Bulk => "B: bulk",
            Workload::Concurrent => "C: 64 in flight",
            Workload::PingPong => "C: one in flight",
            Workload::BulkUnlimited => "C: bulk",
            Workload::Fairness => "fairness",
        };
        let [path, peer] = [&group.path.name, group.peer].map(figure::line);
        table.rows.push([workload.to_owned(), path, peer, trouble].map(Entry::text).to_vec());
    }
    (!table.rows.is_empty()).then_some(table)
}

/// How long, in how many rounds and with how many seeds.
pub(super) fn evidence(group: &Group<'_>) -> String {
    format!(
        "{} s, {}, {}",
        figure::setting(group.seconds),
        figure::counted(group.rounds.len(), "round"),
        figure::counted(group.seeds.len(), "seed")
    )
}

/// A path's settings.
pub(super) fn describe(path: &Path) -> String {
    let mut parts = vec![named(path)];
    match path.rate_mbit {
        Some(rate) => parts.push(format!("{} Mbit/s", figure::setting(rate))),
        None => parts.push("no limit".to_owned()),
    }
    if let Some(queue_bytes) = path.queue_bytes {
        parts.push(format!("queue {}", figure::bytes(queue_bytes as f64)));
    }
    parts.join(", ")
}

/// A path's name with its delay and loss.
pub(super) fn named(path: &Path) -> String {
    let mut parts = vec![format!("{} ms round trip", figure::setting(path.rtt_ms))];
    if path.loss_percent > 0.0 {
        parts.push(format!("{} % loss", figure::setting(path.loss_percent)));
    }
    if path.jitter_ms > 0.0 {
        parts.push(format!("{} ms jitter", figure::setting(path.jitter_ms)));
    }
    match path.burst {
        Some(BurstLoss::Packets { good_to_bad_percent, bad_to_good_percent, loss_percent }) => {
            let (to_bad, to_good) = (figure::setting(good_to_bad_percent), figure::setting(bad_to_good_percent));
            parts.push(format!(
                "bursts (Gilbert-Elliott: {to_bad} % to bad, {to_good} % to good, {} % lost while bad)",
                figure::setting(loss_percent)
            ));
        }
        Some(BurstLoss::Outages { good_ms, bad_ms }) => parts.push(format!(
            "outages (of {} ms on average, {} ms apart)",
            figure::setting(bad_ms),
            figure::setting(good_ms)
        )),
        None => {}
    }
    format!("{}: {}", figure::line(&path.name), parts.join(", "))
}
