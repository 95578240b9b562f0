//! The short table at the end.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use super::model::{Cell, Outcome, Workload};

/// Every path by every peer, rounds together: latencies as p50 / p99 in ms (one in flight: us), goodput and shares in Mbit/s, failures as such.
pub(super) fn table(cells: &[Cell]) -> String {
    let mut workloads: Vec<Workload> = cells.iter().map(|cell| cell.workload).collect();
    workloads.sort_unstable();
    workloads.dedup();
    workloads.into_iter().map(|workload| one(workload, cells)).collect()
}

fn one(workload: Workload, cells: &[Cell]) -> String {
    let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.workload == workload).collect();
    let (mut paths, mut peers): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut at: BTreeMap<(&str, &str), Vec<&Outcome>> = BTreeMap::new();
    for cell in cells {
        let (path, peer) = (cell.path.name.as_str(), cell.peer.as_str());
        if !paths.contains(&path) {
            paths.push(path);
        }
        if !peers.contains(&peer) {
            peers.push(peer);
        }
        at.entry((path, peer)).or_default().push(&cell.outcome);
    }
    let mut text = format!("\n{:<16}", title(workload));
    for peer in &peers {
        let _ = write!(text, " {peer:>18}");
    }
    text.push('\n');
    for path in paths {
        let _ = write!(text, "{path:<16}");
        for peer in &peers {
            let said = at.get(&(path, *peer)).map_or_else(String::new, |outcomes| say(workload, outcomes));
            let _ = write!(text, " {said:>18}");
        }
        text.push('\n');
    }
    text
}

fn title(workload: Workload) -> &'static str {
    match workload {
        Workload::Messages => "p50 / p99 ms",
        Workload::Bulk => "bulk Mbit/s",
        Workload::Concurrent => "64 in flight /s",
        Workload::PingPong => "one: p50/p99 us",
        Workload::BulkUnlimited => "no limit Mbit/s",
        Workload::Fairness => "shares Mbit/s",
    }
}

fn say(workload: Workload, outcomes: &[&Outcome]) -> String {
    let (mut merged, mut per_s, mut errors) = (crate::load::histogram(), Vec::new(), 0);
    let (mut goodput, mut shares, mut failed) = (Vec::new(), String::new(), 0);
    for outcome in outcomes {
        match outcome {
            Outcome::Latency(latency) => match histogram(&latency.histogram) {
                Ok(histogram) => {
                    let _ = merged.add(histogram);
                    per_s.push(latency.per_s);
                    errors += latency.errors;
                }
                Err(_) => failed += 1,
            },
            Outcome::Goodput(measured) => goodput.push(measured.mbit_per_s),
            Outcome::Shares(flows) => shares = say_shares(flows.iter().map(|flow| flow.mbit_per_s)),
            Outcome::Failed(_) => failed += 1,
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mut said = if !shares.is_empty() {
        shares
    } else if !goodput.is_empty() {
        format!("{:.1}", mean(&goodput))
    } else if per_s.is_empty() {
        String::new()
    } else {
        let quantile = |share: f64| merged.value_at_quantile(share) as f64 / 1e3;
        match workload {
            Workload::Concurrent => format!("{:.0}", mean(&per_s)),
            Workload::PingPong => format!("{:.0} / {:.0}", quantile(0.5), quantile(0.99)),
            _ => format!("{:.1} / {:.1}", quantile(0.5) / 1e3, quantile(0.99) / 1e3),
        }
    };
    if errors > 0 {
        let _ = write!(said, " ({errors}!)");
    }
    if failed > 0 {
        said.push_str(if said.is_empty() { "failed" } else { " (failed once)" });
    }
    said
}

/// Each flow, or the least and the most of many.
fn say_shares(flows: impl ExactSizeIterator<Item = f64> + Clone) -> String {
    if flows.len() > 3 {
        let (least, most) =
            flows.fold((f64::MAX, 0.0), |(least, most): (f64, f64), one| (least.min(one), most.max(one)));
        return format!("{least:.1} to {most:.1}");
    }
    flows.map(|one| format!("{one:.1}")).collect::<Vec<_>>().join(" + ")
}

fn histogram(text: &str) -> anyhow::Result<Histogram<u64>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
    Ok(Deserializer::new().deserialize(&mut bytes.as_slice())?)
}
