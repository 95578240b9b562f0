//! The report as one HTML page: no script, nothing from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::bars::Bars;
use super::chart::lines::Chart;
use super::merge::{Campaign, plain};
use super::peer::{Family, classes};
use super::table::Table;
use super::targets::{self, Kind, State};
use super::{chart, charts, facts, figure, recoveries, tables};
use crate::compare::model::Workload;

/// Nothing may be loaded or run, whatever a name in the results says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

pub(super) fn page(campaign: &Campaign<'_>, kinds: &[Kind]) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "AetherFlow: Quantum beside TCP and QUIC" }
                style { (PreEscaped(include_str!("page.css"))) (PreEscaped(chart::style("var(--line)", "var(--soft)"))) }
            }
            body {
                (head(campaign, kinds))
                (messages(campaign))
                (bulk(campaign))
                (unlimited(campaign))
                (fairness(campaign))
                (verdicts(kinds))
                (failures(campaign))
            }
        }
    }
    .into_string()
}

fn head(campaign: &Campaign<'_>, kinds: &[Kind]) -> Markup {
    let (met, missed, unmeasured) = targets::count(kinds);
    html! {
        header {
            h1 { "Quantum beside TCP and QUIC" }
            p { "Every peer over the same emulated paths, one after the other in each round; client and server share the \
                 machine. Absolute figures move with the machine: compare peers within this run." }
            nav {
                a href="#messages" { "Messages" } a href="#bulk" { "Bulk" } a href="#unlimited" { "Without limits" }
                a href="#fairness" { "Fairness" } a href="#targets" { "Targets" } a href="#failures" { "Failures" }
            }
            dl class="facts" { @for (name, fact) in facts::of(campaign) { dt { (name) } dd { (fact) } } }
            div class="verdict" {
                div class="counts" {
                    span class="good" { b { (met) } " targets met" }
                    span class="bad" { b { (missed) } " missed" }
                    span class="soft" { b { (unmeasured) } " not measured" }
                }
                @if missed > 0 {
                    ul class="misses" {
                        @for (kind, verdict) in targets::of(kinds, State::Missed) {
                            li { span class="bad" { "missed" } " " (kind.title) " — " (verdict.place) ": " (verdict.measured)
                                span class="soft" { " (target: " (verdict.target) ")" } }
                        }
                    }
                }
            }
        }
    }
}

fn legend(peers: &[&str]) -> Markup {
    html! {
        ul class="legend" {
            @for peer in peers {
                li {
                    svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 30 12" aria-hidden="true" {
                        path class=(format!("line {}", classes(peer))) d="M1 6L29 6" {}
                        circle class=(format!("mark {}", Family::of(peer).class())) cx="15" cy="6" r="3.4" {}
                    }
                    (figure::line(peer))
                }
            }
        }
    }
}

fn line_charts(charts: &[Chart<'_>], class: &str) -> Markup {
    html! { div class=(class) { @for chart in charts { figure { figcaption { (chart.title) } (chart.draw()) } } } }
}

fn bar_charts(charts: &[Bars]) -> Markup {
    html! { div class="charts" { @for chart in charts { figure { figcaption { (chart.title) } (chart.draw()) } } } }
}

/// What the charts above have no line for.
fn why(lacking: &[String]) -> Markup {
    html! {
        @if !lacking.is_empty() {
            p class="soft" { "Not drawn, or from fewer rounds:" }
            ul class="why" { @for line in lacking { li { (line) } } }
        }
    }
}

fn empty(campaign: &Campaign<'_>, workload: Workload) -> Markup {
    html! { @if campaign.of(workload).next().is_none() { p class="absent" { "Not measured in this run." } } }
}

fn messages(campaign: &Campaign<'_>) -> Markup {
    let rtts = campaign.settings(Workload::Messages, |path| path.rtt_ms);
    let by_loss: Vec<Chart<'_>> = rtts.iter().map(|rtt_ms| charts::p99_by_loss(campaign, *rtt_ms)).collect();
    let paths = campaign.paths(Workload::Messages);
    let distributions: Vec<Chart<'_>> = paths.iter().map(|path| charts::distribution(campaign, path)).collect();
    let peers = campaign.peers(Workload::Messages);
    html! {
        section id="messages" {
            h2 { "A: 200 requests per second" }
            p { "Requests of 256 bytes, echoed; open loop: a latency counts from when its request was due, whatever became of \
                 those before it. A request without an answer counts with its age." }
            (empty(campaign, Workload::Messages))
            @if !peers.is_empty() {
                h3 { "99th percentile by loss" }
                p class="soft" { "The dotted line is the round trip. Dashes: CUBIC instead of BBR." }
                (legend(&peers))
                (line_charts(&by_loss, "charts"))
                (why(&charts::lacking(campaign, Workload::Messages, plain)))
                @for table in tables::latency_by_loss(campaign) { (table.html()) }
                @if let Some(table) = tables::latency_elsewhere(campaign) { (table.html()) }
                @if let Some(table) = recoveries::table(campaign) { (table.html()) }
                h3 { "Distribution of the latencies" }
                p class="soft" { "How many of the requests (upwards; each step of the scale is a nine more) were answered \
                    within which time. A line that goes straight up on the left is good." }
                (legend(&peers))
                (line_charts(&distributions, "charts small"))
                (why(&charts::lacking(campaign, Workload::Messages, |path| !plain(path))))
                details {
                    summary { "Percentiles, errors, bytes on the wire and processor time of every path" }
                    @for path in &paths { (tables::requests(campaign, Workload::Messages, path).html()) }
                }
            }
        }
    }
}

fn bulk(campaign: &Campaign<'_>) -> Markup {
    let losses = campaign.settings(Workload::Bulk, |path| path.loss_percent);
    let by_rtt: Vec<Chart<'_>> = losses.iter().map(|loss| charts::goodput_by_rtt(campaign, *loss)).collect();
    html! {
        section id="bulk" {
            h2 { "B: bulk" }
            p { "As much as the path takes, in one direction, start-up included: median of the rounds, whiskers from the least \
                 to the most. The dotted line is the link's rate without what it loses." }
            (empty(campaign, Workload::Bulk))
            @if !by_rtt.is_empty() {
                (legend(&campaign.peers(Workload::Bulk)))
                (line_charts(&by_rtt, "charts"))
                (why(&charts::lacking(campaign, Workload::Bulk, |_| true)))
            }
            @for table in tables::goodput(campaign) { (table.html()) }
            @if !by_rtt.is_empty() {
                details {
                    summary { "Queue, bytes on the wire and processor time" }
                    @for table in tables::bulk_costs(campaign) { (table.html()) }
                }
            }
            @if let Some(table) = tables::goodput_elsewhere(campaign, Workload::Bulk) { (table.html()) }
        }
    }
}

fn unlimited(campaign: &Campaign<'_>) -> Markup {
    let drawn = charts::unlimited(campaign);
    let all = [
        tables::unlimited(campaign, Workload::Concurrent),
        tables::unlimited(campaign, Workload::PingPong),
        tables::goodput_elsewhere(campaign, Workload::BulkUnlimited),
    ];
    html! {
        section id="unlimited" {
            h2 { "C: a path without limits" }
            p { "What the processors can do: client and server share them. More requests per second are better; less \
                 processor time and latency are." }
            @if drawn.is_empty() { p class="absent" { "Not measured in this run." } }
            (bar_charts(&drawn))
            @for table in all.iter().flatten() { (table.html()) }
        }
    }
}

fn fairness(campaign: &Campaign<'_>) -> Markup {
    html! {
        section id="fairness" {
            h2 { "Fairness" }
            p { "Flows that share one bottleneck, over the second half of their time. Jain's index is 1 where all get the same." }
            (empty(campaign, Workload::Fairness))
            (bar_charts(&charts::fairness(campaign)))
            @if let Some(table) = tables::fairness(campaign) { (table.html()) }
        }
    }
}

fn verdicts(kinds: &[Kind]) -> Markup {
    html! {
        section id="targets" {
            h2 { "Targets" }
            p { "Each was set before measuring. Figures are those of all rounds together; goodput is the median of the rounds." }
            @for kind in kinds { (targets::table(kind).html()) }
        }
    }
}

fn failures(campaign: &Campaign<'_>) -> Markup {
    let table: Option<Table> = tables::failures(campaign);
    html! {
        section id="failures" {
            h2 { "Failures" }
            @match table {
                Some(table) => (table.html()),
                None => p { "Every cell of every round was measured." },
            }
            p class="soft" { "Made from " code { "results.json" } " by " code { "aetherflow-bench report" }
                "; it holds every cell with its histogram, seed and path." }
        }
    }
}
