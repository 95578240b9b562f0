//! Edits that waited for a decision while their own writer, among others, wrote on.

use proptest::prelude::*;

use super::tests::{Reference, Step, engine, in_bounds, step};
use super::*;

/// Who stands for what is decided.
const NOBODY: SessionIndex = 9;

fn edit(pos: u32, del: u32, ins: &str) -> Edit {
    Edit { pos, del, ins: ins.into() }
}

fn author(version: u64, session: SessionIndex) -> Author {
    Author { version, session }
}

/// "one two three", in which session 2 wrote "X" into "two" as version 2, while session 1 would have replaced it.
fn with_x() -> TextEngine {
    let mut engine = engine("one two three");
    engine.apply_edits(&[edit(5, 0, "X")], 1, author(2, 2)).unwrap();
    assert_eq!(engine.overlaps(&[replace()], 1, author(3, 1)).unwrap(), [2]);
    engine
}

/// What session 1 would have done.
fn replace() -> Edit {
    edit(4, 3, "2")
}

/// What session 1 had seen at version 1, if its edit waited since version 2.
fn seen(until: u64) -> Seen {
    Seen { version: 1, session: 1, waited: Some((2, until)) }
}

#[test]
fn it_lands_where_it_was_meant_whatever_its_writer_wrote_meanwhile() {
    let decided = |seen| {
        let mut engine = with_x();
        engine.apply_edits(&[edit(0, 0, ">>> ")], 1, author(3, 1)).unwrap();
        let (change, over) = engine.decide(&[replace()], seen, author(4, NOBODY)).unwrap();
        (engine.content(), change.edits, over)
    };
    assert_eq!(decided(seen(4)), (">>> one 2 three".into(), vec![edit(8, 4, "2")], vec![2]));
    // As if it had been written after them, it would replace another word.
    assert_eq!(decided(Seen::of(1, 1)).0, ">>> 2 tXwo three");
}

#[test]
fn what_its_writer_wrote_into_its_range_meanwhile_stays() {
    let mut engine = with_x();
    engine.apply_edits(&[edit(6, 0, "me")], 2, author(3, 1)).unwrap();
    assert_eq!(engine.content(), "one tXmewo three");
    let (_, over) = engine.decide(&[replace()], seen(4), author(4, NOBODY)).unwrap();
    assert_eq!((engine.content().as_str(), over), ("one 2me three", vec![2, 3]));
    assert_eq!(engine.text.get_string(&engine.doc.transact()), engine.content());
}

#[test]
fn its_writer_goes_on_without_it_until_it_was_read() {
    let mut engine = with_x();
    engine.apply_edits(&[edit(0, 0, ">>> ")], 1, author(3, 1)).unwrap();
    engine.decide(&[replace()], seen(4), author(4, NOBODY)).unwrap();
    // It has ">>> one two three" still.
    engine.apply_edits(&[edit(17, 0, "!")], 1, author(5, 1)).unwrap();
    assert_eq!(engine.content(), ">>> one 2 three!");
    engine.apply_edits(&[edit(10, 5, "3")], 4, author(6, 1)).unwrap();
    assert_eq!(engine.content(), ">>> one 2 3!");
}

#[test]
fn several_edits_that_waited_refer_to_each_other() {
    let mut engine = with_x();
    engine.apply_edits(&[edit(0, 4, "")], 1, author(3, 1)).unwrap();
    let edits = [replace(), edit(5, 0, "nd"), edit(0, 0, "<")];
    engine.decide(&edits, seen(4), author(4, NOBODY)).unwrap();
    assert_eq!(engine.content(), "<2nd three");
}

#[test]
fn a_base_that_is_not_known_any_more_is_refused() {
    let mut engine = TextEngine::restore(1, &with_x().state(), 5).unwrap();
    let refused = engine.decide(&[replace()], seen(6), author(6, NOBODY)).unwrap_err();
    assert_eq!(refused, TextError::TooOld(5));
    let outside = engine.decide(&[edit(99, 0, "x")], Seen { version: 5, ..seen(6) }, author(6, NOBODY)).unwrap_err();
    assert!(matches!(outside, TextError::Invalid(_)), "{outside:?}");
}

/// Makes an edit of a step and notes it: session 1 writes from the latest version once its own edit waits.
fn play(steps: &[Step], since: u64, world: &mut (TextEngine, Reference, Vec<Logged>)) {
    let (engine, reference, log) = world;
    for step in steps {
        let current = log.len() as u64 + 1;
        let is_meanwhile = current >= since && step.session == 1;
        let base = if is_meanwhile { current } else { current.saturating_sub(step.behind).max(1) };
        let author = author(current + 1, step.session);
        // For the reference whoever writes meanwhile is somebody else.
        let of_reference = Author { session: if is_meanwhile { 8 } else { step.session }, ..author };
        let edits = in_bounds(&step.edits, reference.visible(base, of_reference.session).len() as u64);
        for edit in &edits {
            reference.apply(edit, base, of_reference);
        }
        let placed = engine.apply_edits(&edits, base, author).unwrap().edits;
        log.push(Logged { author, placed, sent: Some((base, edits)), overwrote: false });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_lands_where_the_reference_puts_it(
        before in prop::collection::vec(step(), 1..60),
        waiting in step(),
        after in prop::collection::vec(step(), 1..60),
    ) {
        let initial = "The quick brown fox jumps over the lazy dog";
        let mut world = (engine(initial), Reference::new(initial), Vec::new());
        play(&before, u64::MAX, &mut world);
        let since = before.len() as u64 + 1;
        let base = since.saturating_sub(waiting.behind).max(1);
        let edits = in_bounds(&waiting.edits, world.1.visible(base, 1).len() as u64);
        play(&after, since, &mut world);
        let (mut engine, mut reference, mut log) = world;
        let version = log.len() as u64 + 2;
        let seen = Seen { version: base, session: 1, waited: Some((since, version)) };
        let placed = engine.track.decide(&edits, seen, author(version, NOBODY), false).unwrap();
        engine.write_crdt(&placed).unwrap();
        for edit in &edits {
            reference.apply(edit, base, author(version, 1));
        }
        prop_assert_eq!(engine.content(), reference.text());
        // A window rebuilt from the log has it in the same place.
        log.push(Logged { author: author(version, NOBODY), placed, sent: None, overwrote: false });
        let mut loaded = TextEngine::restore(1, &engine.state(), version).unwrap();
        loaded.restore_window(1, &log);
        prop_assert_eq!(loaded.floor(), 1);
        for session in [1, 2] {
            let view = |engine: &TextEngine| engine.track.view(Seen::of(base, session)).unwrap();
            let length = engine.track.window.length(view(&engine));
            prop_assert_eq!(loaded.track.window.length(view(&loaded)), length);
            let more = in_bounds(&[(7, 2, "zz".into())], length as u64);
            let author = author(version + u64::from(session), session);
            engine.apply_edits(&more, base, author).unwrap();
            loaded.apply_edits(&more, base, author).unwrap();
            prop_assert_eq!(engine.content(), loaded.content());
        }
    }
}
