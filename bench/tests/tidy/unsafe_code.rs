//! `unsafe` stands in two folders only, in short blocks that say why they hold.
//!
//! Tokens are looked at, not the syntax tree, so that nothing hides in a macro.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

use crate::source::{Source, Violation};

/// Where `unsafe` may stand.
const SEATS: [&str; 2] = ["dataplane/shard/src/port/", "dataplane/shard/src/handoff/"];
/// The crate that says itself that it has none.
const FORBIDDING: &str = "dataplane/quantum/src/lib.rs";
const BLOCK_LINES_MAX: usize = 10;
/// A statement's first line is at most so far above the `unsafe` in it.
const STATEMENT_LINES_MAX: usize = 4;

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    walk(source, source.tokens(), &mut found);
    if source.path == FORBIDDING && !source.text.contains("#![forbid(unsafe_code)]") {
        found.push(source.violation(0, "this crate forbids unsafe code"));
    }
    found
}

fn walk(source: &Source, tokens: TokenStream, found: &mut Vec<Violation>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => walk(source, group.stream(), found),
            TokenTree::Ident(word) if word == "unsafe" => found.extend(judge(source, &word, tokens.peek())),
            _ => {}
        }
    }
}

fn judge(source: &Source, word: &Ident, next: Option<&TokenTree>) -> Vec<Violation> {
    let line = word.span().start().line;
    let mut found = Vec::new();
    if !SEATS.iter().any(|seat| source.path.starts_with(seat)) {
        found.push(source.violation(line, format!("`unsafe` outside {}", SEATS.join(" and "))));
    }
    let wanted = match next {
        Some(TokenTree::Ident(kind)) if kind == "fn" || kind == "trait" || kind == "extern" => "# Safety",
        Some(TokenTree::Group(block)) if block.delimiter() == Delimiter::Brace => {
            let lines = block.span_close().end().line + 1 - line;
            if lines > BLOCK_LINES_MAX {
                found.push(
                    source.violation(line, format!("an unsafe block of {lines} lines; {BLOCK_LINES_MAX} at most")),
                );
            }
            "SAFETY:"
        }
        _ => "SAFETY:",
    };
    if !explained(&source.text, line, wanted) {
        found.push(source.violation(line, format!("`unsafe` without a comment `{wanted}` above it")));
    }
    found
}

/// Whether the comment directly above the statement that holds `line` says `wanted`.
fn explained(text: &str, line: usize, wanted: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut above = lines[..line - 1].iter().rev().peekable();
    let mut statement_lines = 0;
    while let Some(code) = above.peek() {
        let comment = code.starts_with("//");
        let ends_before = code.is_empty() || code.ends_with([';', '{', '}', ',']) && !code.starts_with("#[");
        if comment || ends_before || statement_lines == STATEMENT_LINES_MAX {
            break;
        }
        statement_lines += 1;
        above.next();
    }
    let mut comment = above.take_while(|line| line.starts_with("//"));
    comment.any(|line| line.trim_start_matches(['/', ' ']).starts_with(wanted))
}

fn found(path: &str, text: &str) -> Vec<String> {
    check(&Source::new(path, text)).into_iter().map(|violation| violation.message).collect()
}

const SEAT: &str = "dataplane/shard/src/port/bad.rs";

#[test]
fn unsafe_code_out_of_its_seats_is_found_in_every_form() {
    for text in [
        "// SAFETY: no\nfn f() { unsafe { g() } }",
        "/// # Safety\nunsafe fn f() {}",
        "// SAFETY: no\nunsafe impl Send for S {}",
        "// SAFETY: no\n#[unsafe(no_mangle)] fn f() {}",
        "fn f() { assert!(\n// SAFETY: no\nunsafe { g() }) }",
        "macro_rules! m { () => {\n// SAFETY: no\nunsafe { g() } } }",
    ] {
        for path in ["control/src/main.rs", "dataplane/shard/src/engine/mod.rs", "bench/tests/load.rs"] {
            assert_eq!(found(path, text).len(), 1, "{path}: {text}");
        }
        assert_eq!(found(SEAT, text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(found("control/src/a.rs", "// unsafe\nconst A: &str = \"unsafe { }\";"), Vec::<String>::new());
}

#[test]
fn a_long_block_is_found() {
    let block = |lines: usize| format!("fn f() {{\n    // SAFETY: yes\n    unsafe {{{}}}\n}}", "\n".repeat(lines - 1));
    assert_eq!((found(SEAT, &block(10)).len(), found(SEAT, &block(11)).len()), (0, 1));
}

#[test]
fn a_block_without_its_own_comment_is_found() {
    for text in [
        "fn f() {\n    unsafe { g() }\n}",
        "// SAFETY: of the function, not of the block\nfn f() {\n    unsafe { g() }\n}",
        "fn f() {\n    // SAFETY: of the first\n    unsafe { g() };\n    unsafe { g() };\n}",
        "fn f() {\n    // UNSAFETY: another word\n    unsafe { g() }\n}",
        "unsafe fn f() {}",
    ] {
        assert_eq!(found(SEAT, text).len(), 1, "{text}");
    }
    let long = "fn f() {\n    // SAFETY: says\n    // why\n    let a =\n        unsafe { g() };\n}";
    assert_eq!(found(SEAT, long), Vec::<String>::new());
}

#[test]
fn the_core_without_its_promise_is_found() {
    assert_eq!((found(FORBIDDING, "mod a;").len(), found(FORBIDDING, "#![forbid(unsafe_code)]").len()), (1, 0));
}
