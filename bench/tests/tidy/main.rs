//! Holds the repository to its shape: the floors of the crates, the sizes of files and functions, where `unsafe` may stand
//! and how, what lies at the top, what fuzz targets begin from, and what comments may not say. Every rule is also shown
//! something that breaks it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod floors;
mod fuzz;
mod sizes;
mod source;
mod top_level;
mod unsafe_code;
mod words;

use source::{Source, Violation};

/// Fails with one line for each violation.
fn hold(rule: &str, violations: &[Violation]) {
    let mut lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
    lines.sort();
    assert!(lines.is_empty(), "{rule}: {} violations\n{}", lines.len(), lines.join("\n"));
}

fn every(check: impl Fn(&Source) -> Vec<Violation>) -> Vec<Violation> {
    let sources = Source::all();
    assert!(sources.len() > 100, "the walk found {} files only", sources.len());
    sources.iter().flat_map(check).collect()
}

#[test]
fn every_crate_stands_on_its_floor() {
    hold("floors", &floors::check(&floors::Graph::of_workspace()));
    hold("floors", &every(floors::check_source));
}

#[test]
fn files_functions_structs_and_argument_lists_are_short() {
    hold("sizes", &every(sizes::check));
}

#[test]
fn unsafe_code_is_short_explained_and_in_its_seats() {
    hold("unsafe", &every(unsafe_code::check));
}

#[test]
fn every_fuzz_target_has_inputs() {
    hold("fuzz", &every(fuzz::check));
}

#[test]
fn comments_say_why_and_name_no_place_or_history() {
    hold("words", &every(words::check));
}

#[test]
fn the_top_level_is_the_owners_list() {
    hold("top level", &top_level::check(&source::root()));
}
