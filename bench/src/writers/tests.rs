//! The account is shown books that are right, and books in which something is wrong.

use proto::statesync::{Conflict, Operation, OperationEvent};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::Target;
use super::account::{Tally, account};
use super::book::{Book, Sent, Told};
use super::items::{self, Items};
use super::reference::{Reference, Seen};
use super::text::{self, Edit};

/// A sent operation: writer, base, type, data.
type Step = (u16, u64, &'static str, Value);

/// A log that has these operations, as they were sent, as versions 2, 3, ...
fn book(kind: &'static str, rule: &'static str, steps: &[Step], content: &str) -> Book {
    let id = |index: usize| format!("operation-{index}");
    let sent = steps.iter().enumerate().map(|(index, (writer, base, kind, data))| {
        let told = Told::Applied { version: index as u64 + 2, status: "applied".into() };
        Sent { id: id(index), writer: *writer, base: *base, kind, data: data.clone(), told }
    });
    let log = steps.iter().enumerate().map(|(index, (_, _, kind, data))| {
        let version = index as u64 + 2;
        let operation = Operation {
            id: id(index),
            r#type: (*kind).into(),
            data: data.to_string().into_bytes().into(),
            status: "applied".into(),
            version,
            ..Operation::default()
        };
        OperationEvent { version, operation: Some(operation), ..OperationEvent::default() }
    });
    let target = Target { id: "document".into(), kind, rule, is_judged: false };
    let (sent, log) = (sent.collect(), log.collect());
    Book { target, sent, log, conflicts: Vec::new(), content: content.as_bytes().to_vec().into() }
}

fn logged(book: &mut Book, index: usize) -> &mut Operation {
    book.log[index].operation.as_mut().unwrap()
}

/// A conflict about the operation `index` with the one before it.
fn add_conflict(book: &mut Book, index: usize, status: &str) {
    logged(book, index).status = status.into();
    let ops = [index - 1, index].map(|of| logged(book, of).clone()).into();
    let resolved_at = Some(prost_types::Timestamp::default());
    book.conflicts.push(Conflict { id: "conflict".into(), ops, resolved_at, ..Conflict::default() });
}

fn found(book: &Book) -> String {
    account(book).1.join("\n")
}

const BOARD: &str = r#"{"elements":{"e0":{"x":2,"y":0},"e1":{"x":0,"y":0},"e2":{"x":0,"y":0},"e3":{"x":0,"y":0},"e4":{"x":0,"y":0},"e5":{"x":0,"y":0}}}"#;

fn set(key: &str, value: u32) -> Value {
    json!({"id": "e0", "set": {key: value}})
}

/// Two writers set one key of one element; the later one had not seen the earlier one.
fn overlapping(rule: &'static str) -> Book {
    book("whiteboard", rule, &[(1, 1, "update", set("x", 1)), (2, 1, "update", set("x", 2))], BOARD)
}

#[test]
fn an_overlap_that_a_conflict_records_is_accounted_for() {
    let mut book = overlapping("lww");
    add_conflict(&mut book, 1, "resolved");
    let (tally, found) = account(&book);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(tally, Tally { applied: 1, won: 1, ..Tally::default() });
}

#[test]
fn an_overlap_without_a_conflict_is_found() {
    for rule in ["lww", "merge", "manual"] {
        let said = found(&overlapping(rule));
        assert!(said.contains("it is applied, and by the rules it is"), "{rule}: {said}");
    }
}

#[test]
fn a_conflict_of_writes_that_do_not_touch_each_other_is_found() {
    let mut book = overlapping("lww");
    book.sent[1].base = 2;
    add_conflict(&mut book, 1, "resolved");
    let said = found(&book);
    assert!(said.contains("names version 2, which its writer knew"), "{said}");
    assert!(said.contains("it is resolved, and by the rules it is applied"), "{said}");
}

#[test]
fn an_operation_that_vanished_is_found() {
    let mut book = overlapping("lww");
    book.sent[1].base = 2;
    assert_eq!(found(&book), "");
    let gone = book.log.pop().unwrap();
    assert!(found(&book).contains("operation-1"), "{}", found(&book));
    assert!(found(&book).contains("it vanished"), "{}", found(&book));
    book.sent[1].told = Told::Refused("Internal: oh".into());
    assert!(found(&book).contains("it was refused: Internal: oh"), "{}", found(&book));
    book.log.push(gone);
    book.log[1].operation.as_mut().unwrap().id = "stranger".into();
    assert!(found(&book).contains("version 3 is of nobody"), "{}", found(&book));
}

#[test]
fn a_change_that_was_applied_in_part_or_otherwise_is_found() {
    let mut book = overlapping("lww");
    book.sent[1].base = 2;
    logged(&mut book, 1).data = set("x", 9).to_string().into_bytes().into();
    assert!(found(&book).contains("was applied"), "{}", found(&book));
    let mut book = overlapping("lww");
    book.sent[1].base = 2;
    book.content = BOARD.replace("\"x\":2", "\"x\":1").into_bytes().into();
    assert!(found(&book).contains("the content is"), "{}", found(&book));
}

#[test]
fn a_change_of_what_was_deleted_is_lost_and_recorded() {
    let content = BOARD.replacen(r#""e0":{"x":2,"y":0},"#, "", 1);
    let steps = [(1, 1, "delete", json!({"id": "e0"})), (2, 1, "update", set("x", 2))];
    let mut book = book("whiteboard", "lww", &steps, &content);
    add_conflict(&mut book, 1, "rejected");
    logged(&mut book, 1).data = b"[]".as_slice().into();
    let (tally, found) = account(&book);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(tally, Tally { applied: 1, lost: 1, ..Tally::default() });
}

#[test]
fn what_waits_in_a_conflict_is_accounted_for_with_what_was_sent() {
    let mut book = overlapping("manual");
    book.content = BOARD.replace("\"x\":2", "\"x\":1").into_bytes().into();
    add_conflict(&mut book, 1, "conflict");
    book.conflicts[0].resolved_at = None;
    book.log.pop();
    book.sent[1].told = Told::Waits;
    let (tally, violations) = account(&book);
    assert_eq!(violations, Vec::<String>::new());
    assert_eq!(tally, Tally { applied: 1, kept: 1, ..Tally::default() });
    book.conflicts[0].ops[1].data = set("x", 3).to_string().into_bytes().into();
    assert!(found(&book).contains("waits in its place"), "{}", found(&book));
}

fn insert(pos: u32, ins: &str) -> Value {
    json!({"pos": pos, "ins": ins})
}

#[test]
fn a_text_operation_that_landed_elsewhere_is_found() {
    let updates = |book: &mut Book| {
        let doc = yrs::Doc::new();
        let text = yrs::Doc::get_or_insert_text(&doc, "content");
        for event in &mut book.log {
            use yrs::{Text, Transact};
            let data: Value = serde_json::from_slice(&event.operation.as_ref().unwrap().data).unwrap();
            let mut transaction = doc.transact_mut();
            for edit in text::edits(&data).unwrap() {
                text.insert(&mut transaction, edit.pos, &edit.ins);
            }
            event.update = transaction.encode_update_v1().into();
        }
    };
    // The second writer inserts after "a", which it has seen; the first has put "xy" before that.
    let steps = [(1, 1, "text", insert(0, "a")), (1, 1, "text", insert(0, "xy")), (2, 2, "text", insert(1, "b"))];
    let mut book = book("text", "merge", &steps, "xyab");
    logged(&mut book, 2).data = insert(3, "b").to_string().into_bytes().into();
    updates(&mut book);
    assert_eq!(found(&book), "");
    // Taken for a position in the text of today it is astray.
    logged(&mut book, 2).data = insert(1, "b").to_string().into_bytes().into();
    updates(&mut book);
    book.content = "xbya".into();
    let said = found(&book);
    assert!(said.contains("the text is \"xbya\", and by the rules it is \"xyab\""), "{said}");
    book.log[2].update = bytes::Bytes::new();
    logged(&mut book, 2).data = insert(3, "b").to_string().into_bytes().into();
    book.content = "xyab".into();
    assert!(found(&book).contains("the Yjs updates"), "{}", found(&book));
}

#[test]
fn the_reference_knows_what_overlaps() {
    let edit = |pos, del, ins: &str| Edit { pos, del, ins: ins.into() };
    let seen = |base, writer| Seen { base, writer };
    let mut text = Reference::default();
    text.merge(&edit(0, 0, "abcdef"), seen(1, 1), (2, 1)).unwrap();
    text.merge(&edit(2, 2, ""), seen(2, 1), (3, 1)).unwrap();
    let overlaps = |text: &Reference, edit: &Edit| text.overlaps(edit, seen(2, 2)).unwrap();
    for (edit, expected) in [
        (edit(1, 2, ""), true),
        (edit(0, 2, ""), false),
        (edit(3, 0, "x"), true),
        (edit(2, 0, "x"), false),
        (edit(4, 0, "x"), false),
    ] {
        assert_eq!(overlaps(&text, &edit), expected, "{edit:?}");
    }
    text.merge(&edit(1, 0, "__"), seen(3, 1), (4, 1)).unwrap();
    assert_eq!(text.text(), "a__bef");
    assert!(overlaps(&text, &edit(0, 2, "")), "something was written into it");
    text.overwrite(&edit(0, 2, "X"), seen(2, 2), (5, 2)).unwrap();
    assert_eq!(text.text(), "Xef");
    // The writer that won sees "Xcdef", and puts "!" to the end of it.
    text.merge(&edit(5, 0, "!"), seen(2, 2), (6, 2)).unwrap();
    assert_eq!(text.text(), "Xef!");
    assert!(text.merge(&edit(7, 0, "!"), seen(2, 2), (7, 2)).is_err(), "that is outside");
}

#[test]
fn random_operations_are_typed_and_can_be_made() {
    let mut random = StdRng::seed_from_u64(1);
    for kind in ["whiteboard", "sheet"] {
        let mut items = Items::initial(kind);
        let mut kinds = std::collections::BTreeSet::new();
        for number in 0..2000 {
            let (op_type, data) = items.operation(number, &mut random);
            let changes = items::changes(&data).unwrap();
            assert!(!changes.is_empty());
            items.apply(op_type, &changes).unwrap();
            kinds.insert(op_type);
        }
        assert_eq!(kinds.len(), 7, "{kind}: {kinds:?}");
    }
    let (mut letters, mut same) = (Vec::new(), Vec::new());
    for _ in 0..2000 {
        let (op_type, data) = text::operation(&mut letters, 2, &mut random);
        if op_type != "style" {
            text::edits(&data).unwrap().iter().for_each(|edit| text::apply(&mut same, edit).unwrap());
        }
        assert_eq!(letters, same);
    }
    assert!(letters.len() > 100, "{} characters", letters.len());
}
