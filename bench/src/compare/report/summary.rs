//! The report in Markdown: no charts, all tables.

use std::fmt::Write;

use super::merge::Campaign;
use super::table::{Table, escape};
use super::targets::{self, Kind, State};
use super::{facts, recoveries, tables};
use crate::compare::model::Workload;

pub(super) fn markdown(campaign: &Campaign<'_>, kinds: &[Kind]) -> String {
    let mut text = String::from("# Quantum beside TCP and QUIC\n\n");
    for (name, fact) in facts::of(campaign) {
        line(&mut text, &format!("- {name}: {}", escape(&fact)));
    }
    let (met, missed, unmeasured) = targets::count(kinds);
    line(&mut text, &format!("\n**Targets: {met} met, {missed} missed, {unmeasured} not measured.**\n"));
    for (kind, verdict) in targets::of(kinds, State::Missed) {
        let (place, measured, target) = (escape(&verdict.place), escape(&verdict.measured), escape(&verdict.target));
        line(&mut text, &format!("- **missed** {} — {place}: {measured} (target: {target})", kind.title));
    }
    section(&mut text, "A: 200 requests per second of 256 B", &tables::latency_by_loss(campaign));
    all(&mut text, tables::latency_elsewhere(campaign).as_slice());
    all(&mut text, recoveries::table(campaign).as_slice());
    section(&mut text, "B: bulk", &tables::goodput(campaign));
    all(&mut text, tables::goodput_elsewhere(campaign, Workload::Bulk).as_slice());
    let costs = tables::bulk_costs(campaign);
    if !costs.is_empty() {
        folded(&mut text, "Queue, bytes on the wire and processor time", &costs);
    }
    let unlimited = [
        tables::unlimited(campaign, Workload::Concurrent),
        tables::unlimited(campaign, Workload::PingPong),
        tables::goodput_elsewhere(campaign, Workload::BulkUnlimited),
    ];
    section(&mut text, "C: a path without limits", &unlimited.into_iter().flatten().collect::<Vec<_>>());
    section(&mut text, "Fairness", tables::fairness(campaign).as_slice());
    section(&mut text, "Targets", &kinds.iter().map(targets::table).collect::<Vec<_>>());
    if let Some(failures) = tables::failures(campaign) {
        section(&mut text, "Failures", &[failures]);
    }
    let paths = campaign.paths(Workload::Messages).into_iter();
    let details: Vec<Table> = paths.map(|path| tables::requests(campaign, Workload::Messages, path)).collect();
    if !details.is_empty() {
        folded(&mut text, "A, path by path: percentiles, errors, bytes on the wire and processor time", &details);
    }
    text
}

fn section(text: &mut String, title: &str, tables: &[Table]) {
    line(text, &format!("\n## {title}\n"));
    if tables.is_empty() {
        line(text, "Not measured in this run.");
    }
    all(text, tables);
}

fn folded(text: &mut String, title: &str, tables: &[Table]) {
    line(text, &format!("\n<details><summary>{title}</summary>\n"));
    all(text, tables);
    line(text, "</details>");
}

fn all(text: &mut String, tables: &[Table]) {
    for table in tables {
        line(text, &table.markdown());
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes every line");
}
