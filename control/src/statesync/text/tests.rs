//! The text engine against a character-by-character reference and against independent Yjs documents.

use proptest::prelude::*;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, TextRef, Transact, Update};

use super::window::Window;
use super::*;

/// The same rules with one entry per unit and no shortcuts.
#[derive(Default)]
pub(super) struct Reference {
    units: Vec<Unit>,
}

struct Unit {
    code: u16,
    inserted: (u64, SessionIndex),
    deleted: Vec<(u64, SessionIndex)>,
}

impl Reference {
    pub(super) fn new(text: &str) -> Self {
        let unit = |code| Unit { code, inserted: (0, 0), deleted: Vec::new() };
        Self { units: text.encode_utf16().map(unit).collect() }
    }

    pub(super) fn text(&self) -> String {
        let live = self.units.iter().filter(|unit| unit.deleted.is_empty());
        String::from_utf16_lossy(&live.map(|unit| unit.code).collect::<Vec<_>>())
    }

    pub(super) fn visible(&self, base: u64, session: SessionIndex) -> Vec<usize> {
        let knows = |(version, by): (u64, SessionIndex)| version <= base || by == session;
        let sees = |unit: &Unit| knows(unit.inserted) && !unit.deleted.iter().any(|deleted| knows(*deleted));
        (0..self.units.len()).filter(|index| sees(&self.units[*index])).collect()
    }

    pub(super) fn apply(&mut self, edit: &Edit, base: u64, author: Author) {
        let visible = self.visible(base, author.session);
        let (pos, del) = (edit.pos as usize, edit.del as usize);
        for index in &visible[pos..pos + del] {
            self.units[*index].deleted.push((author.version, author.session));
        }
        let mut at = if pos == 0 { 0 } else { visible[pos - 1] + 1 };
        let knows = |(version, by): (u64, SessionIndex)| version <= base || by == author.session;
        // Over what the writer knows to be deleted, but not over what others inserted.
        while at < self.units.len() && knows(self.units[at].inserted) && !visible.contains(&at) {
            at += 1;
        }
        for (offset, code) in edit.ins.encode_utf16().enumerate() {
            let inserted = (author.version, author.session);
            self.units.insert(at + offset, Unit { code, inserted, deleted: Vec::new() });
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) session: SessionIndex,
    pub(super) behind: u64,
    pub(super) edits: Vec<(u32, u32, String)>,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let edit = (any::<u32>(), 0..4_u32, "[a-z]{0,3}");
    (1..4_u32, 0..12_u64, prop::collection::vec(edit, 1..3)).prop_map(|(session, behind, edits)| Step {
        session,
        behind,
        edits,
    })
}

pub(super) fn engine(text: &str) -> TextEngine {
    let mut engine = TextEngine::restore(1, &[], 0).unwrap();
    if !text.is_empty() {
        engine.replace(text, Author { version: 1, session: 1 }).unwrap();
    }
    let state = engine.state();
    TextEngine::restore(1, &state, 1).unwrap()
}

fn crdt_text(engine: &TextEngine) -> String {
    engine.text.get_string(&engine.doc.transact())
}

pub(super) fn in_bounds(edits: &[(u32, u32, String)], mut length: u64) -> Vec<Edit> {
    edits
        .iter()
        .map(|(pos, del, ins)| {
            let pos = u64::from(*pos) % (length + 1);
            let del = u64::from(*del).min(length - pos);
            length = length - del + ins.len() as u64;
            Edit { pos: pos as u32, del: del as u32, ins: ins.clone() }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn edits_from_any_base_land_where_the_reference_puts_them(steps in prop::collection::vec(step(), 1..250)) {
        let initial = "The quick brown fox jumps over the lazy dog";
        let mut engine = engine(initial);
        let mut reference = Reference::new(initial);
        let mut follower: Vec<u16> = initial.encode_utf16().collect();
        let mut log = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let current = index as u64 + 1;
            let base = current.saturating_sub(step.behind).max(1);
            let author = Author { version: current + 1, session: step.session };
            let edits = in_bounds(&step.edits, reference.visible(base, step.session).len() as u64);
            for edit in &edits {
                reference.apply(edit, base, author);
            }
            let change = engine.apply_edits(&edits, base, author).unwrap();
            change.edits.iter().for_each(|edit| splice(&mut follower, edit));
            log.push(Logged { author, placed: change.edits, sent: Some((base, edits)), overwrote: false });
            prop_assert_eq!(engine.content(), reference.text());
        }
        prop_assert_eq!(String::from_utf16(&follower).unwrap(), reference.text());
        prop_assert_eq!(crdt_text(&engine), reference.text());
        // A window rebuilt from the log places the next edit of an old base alike.
        let current = steps.len() as u64 + 1;
        let mut loaded = TextEngine::restore(1, &engine.state(), current).unwrap();
        loaded.restore_window(1, &log);
        prop_assert_eq!(loaded.floor(), 1);
        let base = current.saturating_sub(5).max(1);
        let author = Author { version: current + 1, session: 2 };
        let length = engine.track.window.length(engine.track.window.view(base, 2)) as u64;
        prop_assert_eq!(loaded.track.window.length(loaded.track.window.view(base, 2)) as u64, length);
        engine.apply_edits(&in_bounds(&[(7, 2, "zz".into())], length), base, author).unwrap();
        loaded.apply_edits(&in_bounds(&[(7, 2, "zz".into())], length), base, author).unwrap();
        prop_assert_eq!(engine.content(), loaded.content());
    }

    #[test]
    fn raising_the_floor_changes_nothing_for_bases_above_it(steps in prop::collection::vec(step(), 100..300)) {
        let mut windows = [Window::new(40, 1), Window::new(40, 1)];
        for (index, step) in steps.iter().enumerate() {
            let current = index as u64 + 1;
            let author = Author { version: current + 1, session: step.session };
            let base = current.saturating_sub(step.behind).max(1);
            if index % 50 == 49 {
                windows[1].compact(current - 20);
            }
            let length = windows[0].length(windows[0].view(base, step.session)) as u64;
            let edits = in_bounds(&step.edits[..1], length);
            let placed: Vec<_> = windows
                .iter_mut()
                .map(|window| {
                    let view = window.view(base, step.session);
                    let placed = window.apply(&edits[0], view, author).unwrap();
                    window.finish(author);
                    placed
                })
                .collect();
            prop_assert_eq!(&placed[0], &placed[1]);
        }
    }

    #[test]
    fn json_and_yjs_writers_converge(steps in prop::collection::vec((0..3_u32, any::<u32>(), 0..3_u32, "[a-zé😀]{0,3}"), 1..120)) {
        let mut engine = engine("shared text");
        let mut peers = [Peer::new(100), Peer::new(200)];
        for peer in &mut peers {
            peer.receive(&engine.state());
        }
        let mut follower = engine.track.units.clone();
        for (version, (who, pos, del, ins)) in (1..).zip(steps) {
            let author = Author { version: version + 1, session: who + 1 };
            let change = if who == 0 {
                let pos = boundary(&engine.track.units, pos as usize % (engine.track.units.len() + 1));
                let end = boundary(&engine.track.units, (pos + del as usize).min(engine.track.units.len()));
                let edit = Edit { pos: pos as u32, del: end.saturating_sub(pos) as u32, ins };
                engine.apply_edits(&[edit], version, author).unwrap()
            } else {
                let peer = &mut peers[who as usize - 1];
                let update = peer.edit(pos, del, &ins);
                let change = engine.apply_update(&update, author).unwrap();
                // A peer catches up only now and then.
                if pos % 3 == 0 { let state = engine.state(); peer.receive(&state); }
                change
            };
            scan(&change.update, Grammar::Text).unwrap();
            change.edits.iter().for_each(|edit| splice(&mut follower, edit));
            prop_assert_eq!(&follower, &engine.track.units);
            prop_assert_eq!(crdt_text(&engine), engine.content());
        }
        let state = engine.state();
        for peer in &mut peers {
            peer.receive(&state);
            prop_assert_eq!(peer.content(), engine.content());
        }
    }

    #[test]
    fn mutated_updates_neither_panic_nor_leave_anything_pending(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut engine = engine("a text to attack");
        let mut peer = Peer::new(77);
        peer.receive(&engine.state());
        let mut update = peer.edit(3, 2, "inserted");
        for (index, value) in flips {
            let at = index.index(update.len());
            update[at] = value;
        }
        if truncate {
            update.truncate(cut.index(update.len()));
        }
        let before = engine.content();
        match engine.apply_update(&update, Author { version: 2, session: 1 }) {
            Ok(_) => {
                let mut copy = Peer::new(5);
                copy.receive(&engine.state());
                prop_assert_eq!(copy.content(), engine.content());
            }
            Err(TextError::Broken(_)) => {}
            Err(_) => prop_assert_eq!(engine.content(), before),
        }
    }
}

/// The nearest place at or before `pos` that does not split a pair.
pub(super) fn boundary(units: &[u16], pos: usize) -> usize {
    if splits_pair(units, pos) { pos - 1 } else { pos }
}

pub(super) struct Peer {
    doc: Doc,
    text: TextRef,
}

impl Peer {
    pub(super) fn new(client: u64) -> Self {
        let mut options = Options::with_client_id(yrs::block::ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        let text = doc.get_or_insert_text(ROOT);
        Self { doc, text }
    }

    pub(super) fn content(&self) -> String {
        self.text.get_string(&self.doc.transact())
    }

    pub(super) fn receive(&mut self, update: &[u8]) {
        self.doc.transact_mut().apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }

    pub(super) fn edit(&mut self, pos: u32, del: u32, ins: &str) -> Vec<u8> {
        let units: Vec<u16> = self.text.get_string(&self.doc.transact()).encode_utf16().collect();
        let pos = boundary(&units, pos as usize % (units.len() + 1));
        let end = boundary(&units, (pos + del as usize).min(units.len()));
        let mut txn = self.doc.transact_mut();
        if end > pos {
            self.text.remove_range(&mut txn, pos as u32, (end - pos) as u32);
        }
        if !ins.is_empty() {
            self.text.insert(&mut txn, pos as u32, ins);
        }
        txn.encode_update_v1()
    }

    /// Puts a mark on a range, or takes it off.
    pub(super) fn mark(&mut self, pos: u32, len: u32, value: Any) -> Vec<u8> {
        let units: Vec<u16> = self.content().encode_utf16().collect();
        let pos = boundary(&units, pos as usize % (units.len() + 1));
        let end = boundary(&units, (pos + len as usize).min(units.len())).max(pos);
        let mut txn = self.doc.transact_mut();
        self.text.format(&mut txn, pos as u32, (end - pos) as u32, [("bold".into(), value)].into());
        txn.encode_update_v1()
    }

    /// Whether it has all that an update builds on.
    pub(super) fn is_ready_for(&self, update: &[u8]) -> bool {
        let known = self.doc.transact().state_vector();
        let scan = scan(update, Grammar::Text).unwrap();
        scan.check_dependencies(|client| known.get(&yrs::block::ClientID::new(client))).is_ok()
    }

    /// All that it has, as one update.
    pub(super) fn state(&self) -> Vec<u8> {
        self.doc.transact().encode_diff_v1(&StateVector::default())
    }
}

const AUTHOR: Author = Author { version: 2, session: 1 };

#[test]
fn a_count_larger_than_the_message_is_refused_before_it_is_reserved() {
    let error = engine("x").apply_update(&[0x80, 0x80, 0x80, 0x80, 0x01], AUTHOR).unwrap_err();
    assert!(matches!(error, TextError::Invalid(_)), "{error:?}");
}

#[test]
fn an_update_that_builds_on_unknown_changes_is_refused_and_the_state_still_encodes() {
    let mut engine = engine("text");
    let mut peer = Peer::new(9);
    peer.receive(&engine.state());
    let first = peer.edit(0, 0, "a");
    let second = peer.edit(1, 0, "b");
    let error = engine.apply_update(&second, AUTHOR).unwrap_err();
    assert!(matches!(error, TextError::MissingDependency(_)), "{error:?}");
    assert_eq!(Peer::new(3).doc.transact().encode_state_as_update_v1(&StateVector::default()), [0, 0]);
    engine.apply_update(&first, AUTHOR).unwrap();
    engine.apply_update(&second, Author { version: 3, session: 1 }).unwrap();
    assert_eq!(engine.content(), "abtext");
    engine.state();
}

#[test]
fn an_update_that_is_known_already_changes_nothing() {
    let mut engine = engine("text");
    let mut peer = Peer::new(9);
    let update = peer.edit(0, 0, "a");
    assert_eq!(engine.apply_update(&update, AUTHOR).unwrap().edits.len(), 1);
    let again = engine.apply_update(&update, Author { version: 3, session: 1 }).unwrap();
    assert!(again.edits.is_empty());
}

#[test]
fn an_update_of_another_root_or_with_another_type_is_refused() {
    let doc = Doc::with_client_id(4);
    let other = doc.get_or_insert_text("other");
    let update = {
        let mut txn = doc.transact_mut();
        other.insert(&mut txn, 0, "x");
        txn.encode_update_v1()
    };
    assert!(matches!(engine("").apply_update(&update, AUTHOR), Err(TextError::Invalid(_))));
    let text = doc.get_or_insert_text(ROOT);
    let update = {
        let mut txn = doc.transact_mut();
        text.insert_embed(&mut txn, 0, yrs::any!({"image": "x"}));
        txn.encode_diff_v1(&StateVector::default())
    };
    assert!(matches!(engine("").apply_update(&update, AUTHOR), Err(TextError::Invalid(_))));
}

#[test]
fn a_position_inside_a_surrogate_pair_is_refused() {
    let mut engine = engine("a😀b");
    let inside = Edit { pos: 2, del: 0, ins: "x".into() };
    assert!(matches!(engine.apply_edits(&[inside], 1, AUTHOR), Err(TextError::Invalid(_))));
    let after = Edit { pos: 3, del: 0, ins: "x".into() };
    engine.apply_edits(&[after], 1, AUTHOR).unwrap();
    assert_eq!(engine.content(), "a😀xb");
}

#[test]
fn a_writer_who_overwrote_a_range_sees_nothing_of_it_again() {
    let mut engine = engine("abcdef");
    let edit = |pos, del, ins: &str| [Edit { pos, del, ins: ins.into() }];
    let (ada, bob) = (|version| Author { version, session: 1 }, |version| Author { version, session: 2 });
    let gone = engine.apply_edits(&edit(2, 2, ""), 1, bob(2)).unwrap();
    assert_eq!(engine.overlaps(&edit(1, 4, "X"), 1, ada(3)).unwrap(), [2]);
    let overwritten = engine.overwrite(&edit(1, 4, "X"), 1, ada(3)).unwrap();
    assert_eq!(engine.content(), "aXf");
    let state = engine.state();
    // To her it is three letters long, although she does not know that "cd" was gone before.
    engine.apply_edits(&edit(3, 0, "!"), 1, ada(4)).unwrap();
    assert_eq!(engine.content(), "aXf!");
    // After it was loaded from the log as well.
    let log = [
        Logged { author: bob(2), placed: gone.edits, sent: None, overwrote: false },
        Logged { author: ada(3), placed: overwritten.edits, sent: Some((1, edit(1, 4, "X").into())), overwrote: true },
    ];
    let mut loaded = TextEngine::restore(1, &state, 3).unwrap();
    loaded.restore_window(1, &log);
    assert_eq!(loaded.floor(), 1);
    loaded.apply_edits(&edit(3, 0, "!"), 1, ada(4)).unwrap();
    assert_eq!(loaded.content(), "aXf!");
}

#[test]
fn what_replaces_only_what_is_gone_stays_where_its_writer_has_it() {
    let mut engine = engine("xp");
    let edit = |pos, del, ins: &str| [Edit { pos, del, ins: ins.into() }];
    let (ada, bob) = (|version| Author { version, session: 1 }, |version| Author { version, session: 2 });
    engine.apply_edits(&edit(0, 2, ""), 1, bob(2)).unwrap();
    engine.overwrite(&edit(0, 1, "Q"), 1, ada(3)).unwrap();
    assert_eq!(engine.content(), "Q");
    // She has "Qp": what she deletes now is what Bob has deleted already.
    engine.apply_edits(&edit(1, 1, ""), 1, ada(4)).unwrap();
    assert_eq!(engine.content(), "Q");
}

#[test]
fn a_replacement_touches_only_what_differs() {
    let mut engine = engine("one 😀 three");
    let change = engine.replace("one 😁 three", AUTHOR).unwrap();
    assert_eq!(change.edits, [Edit { pos: 4, del: 2, ins: "😁".into() }]);
    assert_eq!(engine.content(), "one 😁 three");
}

#[test]
fn data_that_means_to_be_typed_never_replaces_the_content() {
    assert!(matches!(decode_payload(br#"{"pos": 1, "ins": 5}"#), Err(TextError::Invalid(_))));
    assert!(matches!(decode_payload(br#"[{"pos": 1}, 7]"#), Err(TextError::Invalid(_))));
    assert!(matches!(decode_payload(br#"{"pos": 1, "ins": "\ud800"}"#), Err(TextError::Invalid(_))));
    assert_eq!(decode_payload(b"{not json").unwrap(), Payload::Replace("{not json".into()));
    assert_eq!(decode_payload(b"[]").unwrap(), Payload::Edits(Vec::new()));
}
