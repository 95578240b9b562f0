//! Every rule is shown a history that breaks it, and one that does not.

use super::*;

fn sent(id: &str, session: &str, sequence: u64) -> Entry {
    Entry::Sent { id: id.into(), session: session.into(), sequence }
}

fn acknowledged(id: &str, version: u64) -> Entry {
    Entry::Acknowledged { id: id.into(), version }
}

fn seen(client: u16, id: &str, version: u64) -> Entry {
    Entry::Seen { client, id: id.into(), version }
}

fn log(ids: &[&str]) -> Vec<Logged> {
    (2..).zip(ids).map(|(version, id)| Logged { version, id: (*id).into() }).collect()
}

/// Two sessions; `b` was on its way while `a` was, `c` was sent after both were done, `d` never had an answer.
fn history() -> Vec<Entry> {
    let steps = [
        sent("a", "one", 1),
        sent("b", "two", 1),
        acknowledged("b", 3),
        acknowledged("a", 2),
        seen(1, "a", 2),
        seen(1, "b", 3),
        sent("c", "one", 2),
        sent("c", "one", 2),
        sent("d", "one", 3),
        acknowledged("c", 4),
        seen(1, "c", 4),
    ];
    steps.into()
}

#[test]
fn a_history_that_is_right_has_no_violations() {
    assert_eq!(check(&history(), &log(&["a", "b", "c"])), []);
    // What had no answer may be there as well as not.
    assert_eq!(check(&history(), &log(&["a", "b", "c", "d"])), []);
    assert_eq!(check(&[], &[]), []);
}

#[test]
fn a_lost_operation_is_found() {
    let found = check(&history(), &log(&["a", "b"]));
    let lost = Violation::Lost { id: "c".into(), version: 4 };
    let seen_lost = Violation::SeenLost { client: 1, id: "c".into(), version: 4 };
    assert_eq!(found, [lost, seen_lost]);
}

#[test]
fn an_operation_that_was_applied_twice_is_found() {
    let found = check(&history(), &log(&["a", "b", "c", "d", "d"]));
    assert!(found.contains(&Violation::Doubled { id: "d".into(), first: 5, second: 6 }), "{found:?}");
}

#[test]
fn an_operation_that_was_applied_again_after_others_is_found_although_versions_are_dense() {
    let found = check(&history(), &log(&["a", "b", "c", "a"]));
    assert!(found.contains(&Violation::Doubled { id: "a".into(), first: 2, second: 5 }), "{found:?}");
}

#[test]
fn an_operation_before_what_its_sender_knew_is_found() {
    let steps = [sent("a", "one", 0), acknowledged("a", 3), sent("b", "two", 0)];
    let found = check(&steps, &log(&["b", "a"]));
    assert_eq!(found, [Violation::Reordered { id: "b".into(), version: 2, known: 3 }]);
    // What one client has seen counts as well as what another was told.
    let steps = [sent("a", "one", 0), sent("x", "one", 0), seen(7, "a", 2), seen(7, "x", 3), sent("b", "two", 0)];
    assert_eq!(check(&steps, &log(&["a", "x", "b"])), []);
    let steps = [sent("a", "one", 0), sent("x", "one", 0), seen(7, "a", 2), sent("b", "two", 0)];
    let found = check(&steps, &log(&["b", "a", "x"]));
    assert!(found.contains(&Violation::Reordered { id: "b".into(), version: 2, known: 2 }), "{found:?}");
}

#[test]
fn operations_of_a_session_in_another_order_are_found() {
    let steps = [sent("a", "one", 1), sent("b", "one", 2)];
    let found = check(&steps, &log(&["b", "a"]));
    assert_eq!(found, [Violation::SessionReordered { id: "a".into(), sequence: 1, after: 2 }]);
    let steps = [sent("a", "one", 1), sent("b", "two", 2)];
    assert_eq!(check(&steps, &log(&["b", "a"])), [], "another session's numbers are its own");
}

#[test]
fn an_operation_that_became_another_version_is_found() {
    let steps = [sent("a", "one", 0), sent("b", "two", 0), acknowledged("a", 2)];
    assert_eq!(check(&steps, &log(&["b", "a"])), [Violation::Moved { id: "a".into(), told: 2, logged: 3 }]);
}

#[test]
fn a_gap_and_a_repeated_version_are_found() {
    let steps = [sent("a", "one", 0), sent("b", "one", 0)];
    let logged = |versions: [u64; 2]| {
        let [first, second] = versions;
        [Logged { version: first, id: "a".into() }, Logged { version: second, id: "b".into() }]
    };
    assert_eq!(check(&steps, &logged([2, 3])), []);
    assert_eq!(check(&steps, &logged([2, 4])), [Violation::Gap { due: 3, found: 4 }]);
    assert_eq!(check(&steps, &logged([2, 2])), [Violation::Gap { due: 3, found: 2 }]);
    assert_eq!(check(&steps, &logged([3, 4])), [Violation::Gap { due: 2, found: 3 }]);
}

#[test]
fn an_operation_of_nobody_and_a_refused_one_that_was_applied_are_found() {
    let found = check(&[], &log(&["ghost"]));
    assert_eq!(found, [Violation::Unsent { id: "ghost".into(), version: 2 }]);
    let steps = [sent("a", "one", 0), Entry::Refused { id: "a".into() }];
    assert_eq!(check(&steps, &[]), []);
    assert_eq!(check(&steps, &log(&["a"])), [Violation::Refused { id: "a".into(), version: 2 }]);
    let steps = [sent("a", "one", 0), Entry::Waits { id: "a".into() }];
    assert_eq!((check(&steps, &[]), check(&steps, &log(&["a"]))), (vec![], vec![]), "a decision may apply it");
}

#[test]
fn a_subscription_that_skips_or_repeats_is_found() {
    let steps = |versions: [u64; 2]| {
        let operations = [sent("a", "one", 0), sent("b", "one", 0), sent("c", "one", 0)];
        let id = |version: u64| ["a", "b", "c"][version as usize - 2];
        operations.into_iter().chain(versions.map(|version| seen(4, id(version), version))).collect::<Vec<_>>()
    };
    let all = log(&["a", "b", "c"]);
    assert_eq!(check(&steps([2, 3]), &all), []);
    let out_of_order = |version, after| Violation::SeenOutOfOrder { client: 4, version, after };
    assert_eq!(check(&steps([2, 4]), &all), [out_of_order(4, 2)]);
    assert_eq!(check(&steps([2, 2]), &all), [out_of_order(2, 2)]);
    assert_eq!(check(&steps([3, 4]), &all), [out_of_order(3, 1)]);
}

#[test]
fn a_recorder_says_in_words_what_it_found() {
    let recorder = Recorder::default();
    for entry in history() {
        recorder.record(entry);
    }
    let verdict = recorder.verdict(&log(&["a", "b", "c"]));
    assert_eq!(verdict, Verdict { operations: 3, acknowledged: 3, violations: vec![] });
    let verdict = recorder.verdict(&log(&["a", "c"]));
    assert!(verdict.violations.iter().any(|said| said.contains("operation b was acknowledged as version 3")));
}
