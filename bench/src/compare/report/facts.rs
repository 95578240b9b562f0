//! Where and how the results were measured.

use super::figure;
use super::merge::Campaign;

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
    vec![
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
    ]
}
