//! Edits whose places are known do to a document what the CRDT library's own search does.

use proptest::prelude::*;
use yrs::{GetString, Transact};

use super::flat::Flat;
use super::layout::Whereabouts;
use super::tests::{Peer, engine, in_bounds, step};
use super::{Author, Edit, Mark, TextEngine};
use crate::statesync::guard::Grammar;

fn author(version: u64) -> Author {
    Author { version, session: 1 }
}

/// What the CRDT has, which is what others get.
fn crdt_text(engine: &TextEngine) -> String {
    engine.text.get_string(&engine.doc.transact())
}

/// All characters in their order, deleted ones among them.
fn order(engine: &TextEngine) -> Vec<(u64, u64)> {
    Flat::of(&engine.state(), Grammar::Text).unwrap().ids()
}

fn knows(engine: &TextEngine) -> bool {
    matches!(engine.whereabouts, Whereabouts::Known(_))
}

fn insert(engine: &mut TextEngine, pos: usize, version: u64) -> bytes::Bytes {
    let edit = Edit { pos: pos as u32, del: 0, ins: "x".into() };
    engine.apply_edits(&[edit], version - 1, author(version)).unwrap().update
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn edits_at_known_places_make_the_document_that_searched_ones_make(steps in prop::collection::vec(step(), 1..250)) {
        let mut known = TextEngine::restore(1, &[], 0).unwrap();
        let mut searching = TextEngine::restore(1, &[], 0).unwrap();
        searching.whereabouts = Whereabouts::Never;
        let mut follower = Peer::new(9);
        for (version, step) in (1..).zip(&steps) {
            let edits = in_bounds(&step.edits, known.content().len() as u64);
            let change = known.apply_edits(&edits, version - 1, author(version)).unwrap();
            let searched = searching.apply_edits(&edits, version - 1, author(version)).unwrap();
            prop_assert_eq!(&change.edits, &searched.edits);
            prop_assert_eq!(crdt_text(&known), known.content());
            follower.receive(&change.update);
        }
        prop_assert_eq!(known.content(), searching.content());
        prop_assert_eq!(known.content(), follower.content());
        prop_assert_eq!(order(&known), order(&searching));
        let (Whereabouts::Known(followed), Whereabouts::Known(surveyed)) = (&known.whereabouts, known.survey()) else {
            panic!("it is known where everything is");
        };
        prop_assert_eq!(followed.runs(), surveyed.runs());
    }
}

#[test]
fn characters_of_two_units_have_their_places() {
    let mut engine = TextEngine::restore(1, &[], 0).unwrap();
    let mut peer = Peer::new(9);
    let edit = |pos, del, ins: &str| Edit { pos, del, ins: ins.into() };
    let edits = [edit(0, 0, "a😀é😀b"), edit(3, 0, "😀"), edit(1, 2, "-"), edit(5, 2, "")];
    for (version, edit) in (1..).zip(edits) {
        let change = engine.apply_edits(&[edit], version - 1, author(version)).unwrap();
        peer.receive(&change.update);
    }
    assert!(knows(&engine));
    assert_eq!([engine.content(), peer.content(), crdt_text(&engine)], ["a-😀éb"; 3].map(str::to_owned));
}

#[test]
fn places_that_a_clients_update_made_unknown_are_known_again_after_a_while() {
    let mut engine = engine("a text");
    let mut peer = Peer::new(7);
    peer.receive(&engine.state());
    let update = peer.edit(2, 4, "few words");
    engine.apply_update(&update, author(2)).unwrap();
    for version in 3..300 {
        let update = insert(&mut engine, version as usize * 7919 % 8, version);
        peer.receive(&update);
        assert_eq!(knows(&engine), version > 130, "{version}");
    }
    assert_eq!(peer.content(), engine.content());
    assert_eq!(crdt_text(&engine), engine.content());
    let update = peer.edit(0, 100, "");
    engine.apply_update(&update, author(300)).unwrap();
    assert!(!knows(&engine), "and unknown again");
}

#[test]
fn a_text_with_marks_is_searched() {
    let mut engine = TextEngine::restore(1, &[], 0).unwrap();
    insert(&mut engine, 0, 1);
    assert!(knows(&engine));
    let mark = Mark::decode(br#"{"pos": 0, "len": 1, "style": {"bold": true}}"#).unwrap();
    engine.mark(mark, 1, author(2)).unwrap();
    for version in 3..300 {
        insert(&mut engine, version as usize % 2, version);
        assert!(!knows(&engine));
    }
    // Nor is it known after it was loaded.
    let mut loaded = TextEngine::restore(1, &engine.state(), 299).unwrap();
    for version in 300..600 {
        insert(&mut loaded, 1, version);
        assert!(!knows(&loaded));
    }
    assert_eq!(crdt_text(&loaded), loaded.content());
}
