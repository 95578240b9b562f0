//! As much of `PromQL` as it takes to tell which metrics an expression reads.

use std::collections::BTreeSet;

/// Names that are no metric although no parenthesis has to follow them.
const KEYWORDS: [&str; 24] = [
    "and",
    "or",
    "unless",
    "atan2",
    "bool",
    "offset",
    "start",
    "end",
    "inf",
    "nan",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
    "group_left",
    "group_right",
];
/// Names that a list of labels follows.
const LABELS_FOLLOW: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names of the metrics in an expression, which promtool or Prometheus found good.
pub(crate) fn metrics(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' | '\'' | '`' => after_quoted(rest, first),
            '{' => after_closing(rest, '}'),
            '[' => after_closing(rest, ']'),
            // With its unit, or its exponent.
            '0'..='9' => rest.trim_start_matches(|char: char| char.is_ascii_alphanumeric() || char == '.'),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && !['_', ':'].contains(&char));
                let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
                let is_called = after.trim_start().starts_with('(');
                if LABELS_FOLLOW.contains(&name) && is_called {
                    after_closing(after, ')')
                } else {
                    if !is_called && !KEYWORDS.contains(&name.to_ascii_lowercase().as_str()) {
                        found.insert(name.to_owned());
                    }
                    after
                }
            }
            _ => &rest[first.len_utf8()..],
        };
    }
    found
}

/// What follows the text in quotes that `text` begins with.
fn after_quoted(text: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        if char == quote && !escaped {
            return &text[at + 1..];
        }
        escaped = char == '\\' && !escaped && quote != '`';
    }
    ""
}

/// What follows the next `closing` that is in no quotes.
fn after_closing(text: &str, closing: char) -> &str {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == closing {
            return &rest[1..];
        }
        rest = if ['"', '\'', '`'].contains(&first) { after_quoted(rest, first) } else { &rest[first.len_utf8()..] };
    }
    ""
}

#[test]
fn metrics_are_told_from_functions_labels_texts_and_durations() {
    let found = |expression: &str| metrics(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found(r#"sum by (job, le) (rate(x_total{job=~"a\"}|{b", le!='}'}[5m] offset 1h30m)) > bool 1.5e3"#),
        ["x_total"]
    );
    assert_eq!(
        found("a:b:c / on (instance) group_left (version) d and time() - e unless f * 0.001"),
        ["a:b:c", "d", "e", "f"]
    );
    assert_eq!(found(r#"label_replace(up{a="µ"}, "x", "$1", "y", "(.*)") or sum(g) without (h)"#), ["g", "up"]);
    assert_eq!(found("histogram_quantile(0.99, sum(rate(i_bucket[$__rate_interval])) by (le))"), ["i_bucket"]);
    assert_eq!(found("1 > 0 or Inf"), Vec::<String>::new());
}
