//! What a replay came to.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::shared::Shared;
use super::{Encoding, ReplayArgs};
use crate::history::Verdict;

/// The result of a replay; its JSON form is the last line of standard output.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What carried the calls.
    pub transport: &'static str,
    /// How operations were written.
    pub encoding: &'static str,
    /// Clients: the writers, or one writer and one that watched.
    pub clients: usize,
    /// Transactions of the trace.
    pub operations: usize,
    /// Calls of `ApplyOperation` that carried them.
    pub requests: u64,
    /// Broken connections that were made again.
    pub reconnections: u64,
    /// From the first edit to the last client's last event.
    pub seconds: f64,
    /// Whether every replica and the server hold exactly the trace's end content.
    pub converged: bool,
    /// What became of the operations, if the log was to be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Verdict>,
    /// From edit sent to seen by another client, the median, in microseconds.
    pub p50_us: f64,
    /// The same, 99 of 100.
    pub p99_us: f64,
    /// The first difference of everybody whose text is not the trace's end content.
    #[serde(skip)]
    pub differences: Vec<String>,
}

impl Outcome {
    pub(super) fn new(
        args: &ReplayArgs,
        shared: &Shared,
        texts: &[(u16, String, f64)],
        server: &str,
        history: Option<Verdict>,
    ) -> Self {
        let expected = &shared.trace.end_content;
        let everybody = texts.iter().map(|(agent, text, _)| (format!("client {agent}"), text.as_str()));
        let everybody = everybody.chain([("the server".to_owned(), server)]);
        let differences: Vec<String> = everybody.filter_map(|(who, text)| difference(&who, expected, text)).collect();
        Self {
            transport: args.transport.name(),
            encoding: Encoding::name(args.encoding),
            clients: texts.len(),
            operations: shared.trace.transactions.len(),
            requests: shared.requests.load(Ordering::Relaxed),
            reconnections: shared.reconnections.load(Ordering::Relaxed),
            seconds: texts.iter().map(|(_, _, seconds)| *seconds).fold(0.0, f64::max),
            converged: differences.is_empty(),
            history,
            p50_us: shared.quantile_us(0.5),
            p99_us: shared.quantile_us(0.99),
            differences,
        }
    }

    /// Whether all ended as the trace does, and nothing that was checked is against the rules.
    pub fn is_right(&self) -> bool {
        self.converged && self.history.as_ref().is_none_or(|history| history.violations.is_empty())
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let verdict = if self.converged { "converged" } else { "DID NOT CONVERGE" };
        format!(
            "{verdict}: {} transactions by {} clients over {} ({}) in {:.2} s; edit to another client p50 {:.1} ms, p99 {:.1} ms",
            self.operations,
            self.clients,
            self.transport,
            self.encoding,
            self.seconds,
            self.p50_us / 1e3,
            self.p99_us / 1e3
        )
    }
}

/// Says where two texts part.
fn difference(who: &str, expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let same = expected.chars().zip(found.chars()).take_while(|(expected, found)| expected == found).count();
    let piece = |text: &str| text.chars().skip(same).take(24).collect::<String>();
    Some(format!(
        "{who} differs from the trace's end from character {same} on: expected {:?} ({} characters in all), found {:?} ({})",
        piece(expected),
        expected.chars().count(),
        piece(found),
        found.chars().count()
    ))
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_first_difference_is_named_and_equal_texts_have_none() {
        assert_eq!(difference("a", "xyz", "xyz"), None);
        let said = difference("client 1", "ab🦀de", "ab🦀xe").unwrap();
        assert!(said.contains("client 1") && said.contains("character 3") && said.contains("\"xe\""), "{said}");
        assert!(difference("a", "ab", "abc").is_some());
    }
}
