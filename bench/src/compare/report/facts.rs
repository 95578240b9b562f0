//! Where and how the results were measured.

use super::figure;
use super::merge::Campaign;
use crate::compare::model::{Cell, Standstill};
use crate::compare::stillness::DISTURBED_PERCENT;

const SEEDS_SHOWN: usize = 12;

/// Names and facts for the head of a report.
pub(super) fn of(campaign: &Campaign<'_>) -> Vec<(&'static str, String)> {
    let results = campaign.results;
    let machine = &results.machine;
    let mut seeds: Vec<u64> = results.cells.iter().map(|cell| cell.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let mut named: Vec<String> = seeds.iter().take(SEEDS_SHOWN).map(u64::to_string).collect();
    if seeds.len() > SEEDS_SHOWN {
        named.push(format!("and {} more", seeds.len() - SEEDS_SHOWN));
    }
    let dirty = if results.dirty { ", with changes that are in no commit" } else { "" };
    let processors = figure::counted(machine.cores, "logical processor");
    let controls: Vec<String> = machine.congestion_controls.iter().map(|name| figure::line(name)).collect();
    let mut facts = vec![
        (
            "machine",
            format!(
                "{}, {processors}, {}",
                figure::line(&machine.processor),
                figure::bytes(machine.memory_bytes as f64)
            ),
        ),
        ("kernel", figure::line(&machine.kernel)),
        ("TCP of the kernel", figure::line(&controls.join(", "))),
        ("commit", format!("{}{dirty}", figure::line(&results.commit))),
        ("measured", format!("{} to {}", figure::line(&results.started), figure::line(&results.ended))),
        (
            "plan",
            format!("{}, {}", figure::line(&results.plan), figure::counted(results.rounds as usize, "complete round")),
        ),
        ("cells", figure::whole(results.cells.len() as f64)),
        ("seeds", named.join(", ")),
        ("cipher of Quantum and QUIC", figure::line(&results.cipher)),
    ];
    facts.extend(standstills(&results.cells).map(|stood| ("standstills", stood)));
    facts
}

/// How much the machine stood still, where that was looked at.
fn standstills(cells: &[Cell]) -> Option<String> {
    let watched: Vec<&Standstill> = cells.iter().filter_map(|cell| cell.standstill.as_ref()).collect();
    let disturbed: Vec<_> = watched.iter().filter(|stood| stood.percent > DISTURBED_PERCENT).collect();
    let again = watched.iter().filter(|stood| stood.repeats > 0).count();
    let longest = disturbed.iter().map(|stood| stood.longest_ms).fold(0.0, f64::max);
    (!watched.is_empty()).then(|| {
        format!(
            "{} measured again because the machine stood still for over {DISTURBED_PERCENT} % of their time; {} that remain so, for up \
             to {} ms at once",
            figure::counted(again, "cell"),
            figure::counted(disturbed.len(), "cell"),
            figure::whole(longest)
        )
    })
}
