//! What happens where a write touches what its writer did not know.

use super::model::DocumentRecord;

/// The key in a document's `metadata.properties` that chooses its rule.
pub(super) const PROPERTY: &str = "conflict_resolution";
/// What it may be set to.
pub(super) const RULES: [&str; 3] = ["lww", "manual", "merge"];

/// The rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The later write wins, by the server's hybrid logical clock.
    Lww,
    /// The later write waits until somebody decides.
    Manual,
    /// What the CRDT makes of both stands.
    Merge,
}

impl Rule {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Rule::Lww => "lww",
            Rule::Manual => "manual",
            Rule::Merge => "merge",
        }
    }
}

/// The rule of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strategy {
    /// The rule.
    pub(super) rule: Rule,
    /// Whether somebody chose it, for the document or the server.
    pub(super) chosen: bool,
    /// Whether somebody has decided this very write, so that no more is to be recorded of it.
    pub(super) decided: bool,
}

impl Strategy {
    /// The document's own rule; else `manual` if the server does not resolve by itself; else merge for texts, lww for others.
    pub(super) fn of(record: &DocumentRecord, auto_resolve: bool) -> Self {
        let chosen = |rule| Self { rule, chosen: true, decided: false };
        match record.metadata.properties.get(PROPERTY).map(String::as_str) {
            Some("lww") => chosen(Rule::Lww),
            Some("manual") => chosen(Rule::Manual),
            Some("merge") => chosen(Rule::Merge),
            _ if !auto_resolve => chosen(Rule::Manual),
            _ if record.kind == "text" => Self { rule: Rule::Merge, chosen: false, decided: false },
            _ => Self { rule: Rule::Lww, chosen: false, decided: false },
        }
    }
}
