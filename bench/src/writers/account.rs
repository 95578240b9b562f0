//! Accounts for every operation: it was applied, merged, kept in a conflict, or refused with a reason; nothing else.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, bail, ensure};
use proto::statesync::{Conflict, Operation};
use serde::Serialize;
use serde_json::Value;
use yrs::updates::decoder::Decode;
use yrs::{GetString, Transact};

use super::book::{Book, Sent, Told};
use super::items::{self, Change, Items};
use super::reference::{Reference, Seen};
use super::text;
use super::touched::{Clash, Touched};

/// Whose an operation is that was decided for: no writer's.
const JUDGE: u16 = u16::MAX;

/// What became of the operations of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// Applied as they were, or merged with what their writers did not know.
    pub(super) applied: usize,
    /// Applied over what their writers did not know, with a conflict that has both sides.
    pub(super) won: usize,
    /// Not applied because the item was gone, with a conflict that has both sides.
    pub(super) lost: usize,
    /// Kept for a decision, whether there was one or not.
    pub(super) kept: usize,
    /// Not taken, and their writers were told.
    pub(super) refused: usize,
}

/// Finds what became of every operation; says what cannot be.
pub(super) fn account(book: &Book) -> (Tally, Vec<String>) {
    let mut tally = Tally::default();
    let mut found = Vec::new();
    let logged: HashMap<&str, &Operation> =
        book.log.iter().filter_map(|event| event.operation.as_ref()).map(|made| (made.id.as_str(), made)).collect();
    let mut conflicts: HashMap<&str, Vec<&Conflict>> = HashMap::new();
    for conflict in &book.conflicts {
        let of = conflict.ops.last().map_or("", |operation| operation.id.as_str());
        conflicts.entry(of).or_default().push(conflict);
    }
    for sent in &book.sent {
        let of = conflicts.remove(sent.id.as_str()).unwrap_or_default();
        if let Err(error) = place(book, sent, logged.get(sent.id.as_str()).copied(), &of, &mut tally) {
            let Sent { id, writer, base, kind, data, .. } = sent;
            found.push(format!("operation {id} ({kind} {data} of writer {writer} from version {base}): {error:#}"));
        }
    }
    found.extend(conflicts.keys().map(|id| format!("a conflict is about operation {id:?}, which nobody sent")));
    let content = if book.target.kind == "text" { check_text(book) } else { check_items(book) };
    found.extend(content.err().map(|error| format!("{error:#}")));
    (tally, found)
}

/// Counts an operation where it belongs.
fn place(
    book: &Book,
    sent: &Sent,
    logged: Option<&Operation>,
    conflicts: &[&Conflict],
    tally: &mut Tally,
) -> anyhow::Result<()> {
    ensure!(conflicts.len() <= 1, "it is in {} conflicts", conflicts.len());
    let conflict = conflicts.first().copied();
    if let Some(conflict) = conflict {
        check_conflict(book, sent, conflict)?;
    }
    let waited = conflict.is_some() && book.target.rule == "manual";
    let status = logged.map(|operation| operation.status.as_str());
    match (status, conflict) {
        (_, Some(_)) if waited => tally.kept += 1,
        (Some("applied"), None) => tally.applied += 1,
        (Some("resolved"), Some(_)) => tally.won += 1,
        (Some("rejected"), Some(_)) => tally.lost += 1,
        (Some(status), conflict) => bail!("it is {status} in the log, and conflicts: {}", conflict.is_some()),
        (None, Some(_)) => bail!("it is in a conflict that has been decided, and not in the log"),
        (None, None) => match &sent.told {
            // Whoever decides for a writer may do what that writer is about to do.
            Told::Refused(why) if book.target.is_judged && is_done_already(why) => tally.refused += 1,
            Told::Refused(why) => bail!("it was refused: {why}"),
            told => bail!("it vanished: its writer was told {told:?}"),
        },
    }
    Ok(())
}

/// Whether an operation was refused because the item is there that it makes, or is gone that it changes.
fn is_done_already(why: &str) -> bool {
    ["AlreadyExists", "NotFound"].iter().any(|code| why.starts_with(code))
}

/// A conflict has the operation as it was sent or applied, and another one that its writer did not know.
fn check_conflict(book: &Book, sent: &Sent, conflict: &Conflict) -> anyhow::Result<()> {
    let (last, earlier) = conflict.ops.split_last().context("a conflict without operations")?;
    ensure!(!earlier.is_empty(), "its conflict names no other operation");
    let writer_of = |id: &str| book.sent.iter().find(|other| other.id == id).map(|other| other.writer);
    for other in earlier {
        let writer = writer_of(&other.id).with_context(|| format!("its conflict names {}, of nobody", other.id))?;
        // What its writer wrote itself, but was told to wait, it did not know either.
        let is_own = writer == sent.writer && !waited(book).any(|id| id == other.id);
        let unknown = other.version > sent.base && !is_own;
        ensure!(unknown, "its conflict names version {}, which its writer knew", other.version);
    }
    if conflict.resolved_at.is_none() {
        let data: Value = serde_json::from_slice(&last.data).context("the data that waits is not JSON")?;
        ensure!(data == sent.data, "{data} waits in its place");
    }
    Ok(())
}

/// The operations of the log in order, with what their writers meant and the data as it was applied.
fn operations(book: &Book) -> anyhow::Result<Vec<(&Operation, &Sent, Value)>> {
    let by_id: HashMap<&str, &Sent> = book.sent.iter().map(|sent| (sent.id.as_str(), sent)).collect();
    let made = book.log.iter().filter_map(|event| event.operation.as_ref());
    made.map(|operation| {
        let version = operation.version;
        let sent = by_id.get(operation.id.as_str()).with_context(|| format!("version {version} is of nobody"))?;
        let data = serde_json::from_slice(&operation.data).with_context(|| format!("version {version}"))?;
        Ok((operation, *sent, data))
    })
    .collect()
}

/// Makes every operation of the log again, by the rules, and compares after each.
fn check_text(book: &Book) -> anyhow::Result<()> {
    let (mut reference, mut mirror) = (Reference::default(), Vec::new());
    for (operation, sent, data) in operations(book)? {
        let (seen, by) = (Seen { base: sent.base, writer: sent.writer }, (operation.version, sent.writer));
        let version = || format!("version {} ({} from version {})", operation.version, sent.data, sent.base);
        if sent.kind == "style" {
            continue;
        }
        let overwrites = operation.status == "resolved";
        for edit in &text::edits(&sent.data)? {
            if book.target.rule != "merge" {
                let overlaps = reference.overlaps(edit, seen).with_context(version)?;
                ensure!(overlaps == overwrites, "{}: overlaps: {overlaps}, {}", version(), operation.status);
            }
            let made = if overwrites { reference.overwrite(edit, seen, by) } else { reference.merge(edit, seen, by) };
            made.with_context(version)?;
        }
        for edit in &text::edits(&data)? {
            text::apply(&mut mirror, edit).with_context(version)?;
        }
        reference.check(&mirror.iter().collect::<String>()).with_context(version)?;
    }
    let content = std::str::from_utf8(&book.content).context("the text is not UTF-8")?;
    reference.check(content)?;
    reference.check(&of_updates(book)?).context("the Yjs updates")
}

/// The text to which the log's Yjs updates lead.
fn of_updates(book: &Book) -> anyhow::Result<String> {
    let doc = yrs::Doc::new();
    let text = doc.get_or_insert_text("content");
    let mut transaction = doc.transact_mut();
    for event in book.log.iter().filter(|event| !event.update.is_empty()) {
        let update = yrs::Update::decode_v1(&event.update).with_context(|| format!("version {}", event.version))?;
        transaction.apply_update(update).with_context(|| format!("version {}", event.version))?;
    }
    Ok(text.get_string(&transaction))
}

/// Makes every operation of the log again, and says which of them should have been in conflict.
fn check_items(book: &Book) -> anyhow::Result<()> {
    let mut items = Items::initial(book.target.kind);
    let mut touched = Touched::default();
    items.each(|root, id| touched.exists_from_start(root, id));
    let kept: HashSet<&str> = waited(book).collect();
    for (operation, sent, data) in operations(book)? {
        let (version, base) = (operation.version, sent.base);
        let version = || format!("version {version} ({} {} from version {base})", sent.kind, sent.data);
        let made = items::changes(&data).with_context(version)?;
        // Somebody has decided for those that were kept.
        if !kept.contains(sent.id.as_str()) {
            check_judgement(book, &touched, (operation, sent), &made).with_context(version)?;
        }
        items.apply(sent.kind, &made).with_context(version)?;
        let writer = if kept.contains(sent.id.as_str()) { JUDGE } else { sent.writer };
        touched.write(sent.kind, &made, (operation.version, writer));
    }
    let content: Value = serde_json::from_slice(&book.content).context("the content is not JSON")?;
    ensure!(content == items.content(), "the content is {content}, and by the log it is {}", items.content());
    Ok(())
}

/// The operations that were kept for a decision. Their writers went on without them.
fn waited(book: &Book) -> impl Iterator<Item = &str> {
    conflicting(book).filter(move |_| book.target.rule == "manual")
}

/// The operations that conflicts are about.
fn conflicting(book: &Book) -> impl Iterator<Item = &str> {
    book.conflicts.iter().filter_map(|conflict| conflict.ops.last()).map(|operation| operation.id.as_str())
}

/// An operation is in conflict exactly if it touches what its writer did not know, and all of it but what is gone is applied.
fn check_judgement(
    book: &Book,
    touched: &Touched,
    (operation, sent): (&Operation, &Sent),
    made: &[Change],
) -> anyhow::Result<()> {
    let seen = Seen { base: sent.base, writer: sent.writer };
    let meant = items::changes(&sent.data)?;
    let clashes: Vec<_> = meant.iter().map(|change| touched.clash(sent.kind, change, seen)).collect();
    let left: Vec<&Change> = meant
        .iter()
        .zip(&clashes)
        .filter(|(_, clash)| !matches!(clash, Some(Clash { deletion: true })))
        .map(|(change, _)| change)
        .collect();
    let due = match (clashes.iter().any(Option::is_some), left.is_empty()) {
        (false, _) => "applied",
        (true, _) if book.target.rule == "manual" => "conflict",
        (true, true) => "rejected",
        (true, false) => "resolved",
    };
    ensure!(operation.status == due, "it is {}, and by the rules it is {due}", operation.status);
    let same = |meant: &Change, made: &Change| {
        let inserted = |change: &Change| change.text.iter().map(|edit| edit.ins.clone()).collect::<String>();
        (meant.root, &meant.id, &meant.set, &meant.style) == (made.root, &made.id, &made.set, &made.style)
            && inserted(meant) == inserted(made)
    };
    let whole = left.len() == made.len() && left.iter().zip(made).all(|(meant, made)| same(meant, made));
    ensure!(whole, "of it {made:?} was applied");
    Ok(())
}
