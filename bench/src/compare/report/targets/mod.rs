//! What was to be reached, and whether it was.

mod bulk;
mod cost;
mod messages;
mod recovery;
mod unlimited;

use super::figure;
use super::merge::{Campaign, Group};
use super::table::{Entry, Table};

/// More loss than this has no target.
const LOSS_PERCENT_MAX: f64 = 10.0;

/// Targets of one kind.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) title: &'static str,
    pub(super) verdicts: Vec<Verdict>,
}

/// One target in one place.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    /// Path or peer.
    pub(super) place: String,
    pub(super) target: String,
    /// What was measured, or why there is nothing.
    pub(super) measured: String,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Met,
    Missed,
    NotMeasured,
}

impl State {
    fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }
}

impl Verdict {
    /// A figure with what it must not exceed, or must reach.
    fn new(place: impl Into<String>, target: impl Into<String>, (met, measured): (bool, String)) -> Self {
        Self { place: place.into(), target: target.into(), measured, state: State::of(met) }
    }

    fn unmeasured(place: impl Into<String>, target: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), target: target.into(), measured: why.into(), state: State::NotMeasured }
    }
}

/// Everything that these results can say something about.
pub(super) fn evaluate(campaign: &Campaign<'_>) -> Vec<Kind> {
    let mut kinds = messages::evaluate(campaign);
    kinds.extend(recovery::evaluate(campaign));
    kinds.extend(bulk::evaluate(campaign));
    kinds.extend(cost::evaluate(campaign));
    kinds.extend(unlimited::evaluate(campaign));
    for kind in kinds.iter_mut().filter(|kind| kind.verdicts.is_empty()) {
        kind.verdicts.push(Verdict::unmeasured("all", "see the title", "not part of this run"));
    }
    kinds
}

/// Met, missed and not measured.
pub(super) fn count(kinds: &[Kind]) -> (usize, usize, usize) {
    let of = |state| kinds.iter().flat_map(|kind| &kind.verdicts).filter(|verdict| verdict.state == state).count();
    (of(State::Met), of(State::Missed), of(State::NotMeasured))
}

/// The verdicts in one state, with their kinds.
pub(super) fn of(kinds: &[Kind], state: State) -> impl Iterator<Item = (&Kind, &Verdict)> {
    let all = kinds.iter().flat_map(|kind| kind.verdicts.iter().map(move |verdict| (kind, verdict)));
    all.filter(move |(_, verdict)| verdict.state == state)
}

/// The verdicts of a kind; places without a measurement stand together.
pub(super) fn table(kind: &Kind) -> Table {
    let verdicts = std::slice::from_ref(kind);
    let (met, missed, unmeasured) = count(verdicts);
    let title = format!("{}: {met} met, {missed} missed, {unmeasured} not measured", kind.title);
    let mut table = Table::new(title, &["where", "target", "measured", "verdict"]);
    let mut lacking: Vec<(String, &str, &str)> = Vec::new();
    for verdict in &kind.verdicts {
        let row = |state| {
            vec![Entry::text(&verdict.place), Entry::text(&verdict.target), Entry::text(&verdict.measured), state]
        };
        match verdict.state {
            State::Met => table.rows.push(row(Entry::good("met"))),
            State::Missed => table.rows.push(row(Entry::bad("missed"))),
            State::NotMeasured => {
                // The figure behind the equals sign is that of one place.
                let target = verdict.target.split_once(" = ").map_or(verdict.target.as_str(), |(target, _)| target);
                let same = lacking.iter_mut().find(|(_, known, why)| *known == target && *why == verdict.measured);
                match same {
                    Some((places, ..)) => {
                        places.push_str("; ");
                        places.push_str(&verdict.place);
                    }
                    None => lacking.push((verdict.place.clone(), target, &verdict.measured)),
                }
            }
        }
    }
    for (places, target, why) in lacking {
        table.rows.push(vec![Entry::text(places), Entry::text(target), Entry::text(why), Entry::absent()]);
    }
    table
}

/// Why a group has no figure.
fn why(campaign: &Campaign<'_>, group: Option<&Group<'_>>) -> String {
    let trouble = group.and_then(|group| group.trouble(campaign.results.rounds));
    trouble.unwrap_or_else(|| "not part of this run".to_owned())
}

/// `quantum-grpc 51.2, tcp-grpc-bbr 98.0`.
fn pair((one, value): (&str, f64), (other, against): (&str, f64), figure: impl Fn(f64) -> String) -> String {
    format!("{} {}, {} {}", figure::line(one), figure(value), figure::line(other), figure(against))
}
