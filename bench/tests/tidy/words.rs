//! Comments and documents say why. They name no place on somebody's machine, no ticket, and not what was before.

use crate::source::{Source, Violation};

/// The first part of paths that exist on one machine only.
const HOMES: [&str; 4] = ["work", "home", "root", "Users"];
/// What belongs to the history of the repository, or to plans.
const HISTORY: [&str; 14] = [
    "refactored",
    "rewritten from",
    "formerly",
    "used to be",
    "has been changed",
    "was renamed",
    "old implementation",
    "new implementation",
    "for now",
    "later issue",
    "todo",
    "fixme",
    "xxx",
    "as of this commit",
];
/// Words that a ticket's number follows.
const TICKETS: [&str; 4] = ["issue", "ticket", "pull request", "bug"];
/// A number after one of these is part of a standard's name.
const STANDARDS: [&str; 1] = ["pkcs"];

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let mut report = |message: String| found.push(source.violation(index + 1, message));
        if let Some(home) = HOMES.iter().find(|home| names_path(line, home)) {
            report(format!("a path of one machine: /{home}/"));
        }
        let comment = comment(source, line).to_lowercase();
        for word in HISTORY.iter().filter(|word| has_word(&comment, word)) {
            report(format!("`{word}`: say how it is, not how it was or will be"));
        }
        if names_ticket(&comment) {
            report("a ticket's number: say what it is about".to_owned());
        }
    }
    found
}

fn names_path(line: &str, home: &str) -> bool {
    let path = format!("/{home}/");
    // "dataplane/work/" is a path in the repository.
    line.match_indices(&path)
        .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '}'))
}

/// The part of a line that is written for people.
fn comment<'a>(source: &Source, line: &'a str) -> &'a str {
    let after = |mark: &str| line.find(mark).map_or("", |at| &line[at + mark.len()..]);
    match source.kind() {
        // The space keeps `https://` out.
        "rs" | "proto" | "ts" | "js" | "css" if !line.trim_start().starts_with("//") => after(" //"),
        "md" | "rs" | "proto" | "ts" | "js" | "css" => line,
        _ => after("# "),
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let outside = |char: Option<char>| char.is_none_or(|char| !char.is_alphanumeric() && char != '_');
        outside(text[..at].chars().next_back()) && outside(text[at + word.len()..].chars().next())
    })
}

fn names_ticket(comment: &str) -> bool {
    let words: Vec<&str> = comment.split_whitespace().map(|word| word.trim_start_matches(['(', '['])).collect();
    let number = |word: &str| {
        let digits = word.trim_end_matches(|end: char| !end.is_ascii_digit());
        !digits.is_empty() && digits.len() < 6 && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    words.iter().enumerate().any(|(at, word)| {
        let before = if at > 0 { words[at - 1] } else { "" };
        let marked = word.strip_prefix('#').is_some_and(number) && !STANDARDS.contains(&before);
        marked || TICKETS.contains(&before) && number(word.trim_start_matches('#'))
    })
}

fn found(path: &str, text: &str) -> usize {
    check(&Source::new(path, text)).len()
}

#[test]
fn history_tickets_and_machine_paths_are_found_in_comments() {
    for text in [
        "// This was refactored",
        &["let a = 1; ", "// for now"].concat(),
        "/// TODO: more",
        "// see issue 12",
        "// closes (#12)",
        &format!("// put it in /{}/main", "work"),
        &format!("const A: &str = \"/{}/someone/a\";", "home"),
    ] {
        assert_eq!(found("a.rs", text), 1, "{text}");
    }
    assert_eq!(found("a.md", "It used to be slow."), 1);
    assert_eq!((found("a.py", "a = 1  # fixme later"), found("Makefile", "# for now")), (1, 1));
}

#[test]
fn what_is_no_comment_and_what_only_looks_alike_is_let_be() {
    for text in [
        "let todo = \"for now\";",
        "// PKCS #8 and RFC 9002 section 6.2",
        "// an issue with 12 clients",
        "// the network of dataplane/work/a",
        "#[doc = \"a\"]",
    ] {
        assert_eq!(found("a.rs", text), 0, "{text}");
    }
}
