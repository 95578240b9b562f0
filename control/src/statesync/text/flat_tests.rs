//! Where blocks may be written: honest writers anywhere, others only where replicas cannot come to different texts.
//!
//! `EDITORS_SEED`, `EDITOR_SEED` and `NEIGHBOURS_SEED` say what is written, `EDITORS_STEPS` (3,000) and `NEIGHBOURS_ROUNDS`
//! (30) how much; the seeds in use are printed.

use std::collections::VecDeque;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use yrs::{Any, Transact};

use super::flat::{Flat, Shadow};
use super::tests::{Peer, engine};
use super::{Author, Edit, TextEngine, TextError, scan};
use crate::statesync::guard::Grammar;

type Pair = (u64, u64);

/// A block as a client may send it.
#[derive(Debug, Clone)]
struct Sent {
    id: Pair,
    origin: Option<Pair>,
    right: Option<Pair>,
    text: &'static str,
    deletes: Vec<(u64, u64, u64)>,
}

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn pair(bytes: &mut Vec<u8>, (client, clock): Pair) {
    number(bytes, client);
    number(bytes, clock);
}

impl Sent {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1];
        pair(&mut bytes, self.id);
        let (has_origin, has_right) = (u8::from(self.origin.is_some()), u8::from(self.right.is_some()));
        bytes.push(4 | (has_origin << 7) | (has_right << 6));
        self.origin.into_iter().chain(self.right).for_each(|id| pair(&mut bytes, id));
        if self.origin.is_none() && self.right.is_none() {
            bytes.extend(b"\x01\x07content");
        }
        number(&mut bytes, self.text.len() as u64);
        bytes.extend(self.text.bytes());
        number(&mut bytes, self.deletes.len() as u64);
        for (client, clock, len) in &self.deletes {
            number(&mut bytes, *client);
            number(&mut bytes, 1);
            pair(&mut bytes, (*clock, *len));
        }
        bytes
    }
}

fn flat(engine: &TextEngine) -> &Flat {
    match &engine.shadow {
        Shadow::Follows(flat) => flat,
        Shadow::Unneeded | Shadow::Impossible => panic!("there is no flat"),
    }
}

fn seed(name: &str) -> StdRng {
    let seed = std::env::var(name).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{name}={seed}");
    StdRng::seed_from_u64(seed)
}

/// Neighbours among three that follow each other which no writer had: in the wrong order, or with the third between them.
const WRONG: [(u64, u64); 4] = [(15, 14), (15, 13), (14, 13), (13, 15)];

#[test]
fn deleted_neighbours_that_never_were_are_refused_though_all_are_in_one_visible_place() {
    let mut engine = engine("a text to attack");
    let author = |version| Author { version, session: 1 };
    let first = Sent { id: (7, 0), origin: Some((1, 15)), right: None, text: "x", deletes: vec![(1, 13, 3)] };
    engine.apply_update(&first.encode(), author(2)).unwrap();
    assert_eq!(engine.content(), "a text to attx");
    let block = |client, origin, right| Sent {
        id: (client, 0),
        origin: Some((1, origin)),
        right: Some((1, right)),
        text: "y",
        deletes: Vec::new(),
    };
    let mut seemed_right = 0;
    for (client, origin, right) in [2, 6, 8, 9].into_iter().flat_map(|client| WRONG.map(|(a, b)| (client, a, b))) {
        let wrong = block(client, origin, right).encode();
        let is_plain = scan(&wrong, Grammar::Text).unwrap().is_plain(&engine.doc.transact());
        seemed_right += u32::from(is_plain || engine.is_same_in_every_replica(&wrong));
        let error = engine.apply_update(&wrong, author(3)).unwrap_err();
        assert!(matches!(error, TextError::Invalid(_)), "{client}, {origin}, {right}: {error:?}");
    }
    assert!(seemed_right > 0, "visible places and copies tell it all");
    // Between the two that are deleted, and beside what the writer need not have known.
    let between = block(8, 14, 15);
    engine.apply_update(&between.encode(), author(3)).unwrap();
    let beside = Sent { id: (9, 0), ..between };
    engine.apply_update(&beside.encode(), author(4)).unwrap();
    assert_eq!(engine.content(), "a text to attyyx");
}

/// What a replica comes to that gets the updates in some other order in which each has what it builds on.
fn in_another_order(state: &[u8], mut updates: Vec<bytes::Bytes>, random: &mut StdRng) -> String {
    let mut peer = Peer::new(52);
    peer.receive(state);
    while !updates.is_empty() {
        // The few at the front keep it near enough to what is ready.
        let at = random.random_range(0..updates.len().min(30));
        let ready = (at..updates.len()).chain(0..at).find(|at| peer.is_ready_for(&updates[*at]));
        peer.receive(&updates.remove(ready.expect("the first is ready")));
    }
    peer.content()
}

#[test]
fn without_a_flat_editors_at_once_are_heard_too() {
    let mut engine = engine("abc");
    engine.shadow = Shadow::Impossible;
    let before = engine.state();
    let mut peers = [Peer::new(100), Peer::new(200)];
    for (version, peer) in (2..).zip(&mut peers) {
        peer.receive(&before);
        let update = peer.edit(1, 1, "x");
        engine.apply_update(&update, Author { version, session: 1 }).unwrap();
    }
    assert_eq!(engine.content(), "axxc");
    assert!(matches!(engine.shadow, Shadow::Impossible));
}

/// An honest editor that gets what others wrote, and is heard, only after a while.
struct Distant {
    peer: Peer,
    session: u32,
    sent: VecDeque<Vec<u8>>,
    coming: VecDeque<bytes::Bytes>,
    cursor: u32,
}

impl Distant {
    fn is_idle(&self) -> bool {
        self.sent.is_empty() && self.coming.is_empty()
    }

    fn act(&mut self, random: &mut StdRng) {
        let update = match random.random_range(0..100) {
            // It types on, or deletes the last character.
            0..55 => {
                let text = *["a", "b", "é", "😀", "words "].choose(random).unwrap();
                let update = self.peer.edit(self.cursor, 0, text);
                self.cursor += text.encode_utf16().count() as u32;
                update
            }
            55..75 => {
                self.cursor = self.cursor.saturating_sub(1);
                self.peer.edit(self.cursor, 1, "")
            }
            75..85 => {
                self.cursor = random.random_range(0..1000);
                self.peer.edit(self.cursor, random.random_range(0..6), "")
            }
            85..92 => self.peer.edit(self.cursor, random.random_range(0..9), "replaced"),
            92..98 => {
                let value = if random.random() { Any::Bool(true) } else { Any::Null };
                self.peer.mark(random.random_range(0..1000), 5, value)
            }
            // All it has, with what others wrote.
            _ => self.peer.state(),
        };
        self.sent.push_back(update);
    }
}

#[test]
fn honest_editors_at_once_are_never_refused_and_come_to_the_same() {
    let mut random = seed("EDITORS_SEED");
    let steps: usize = std::env::var("EDITORS_STEPS").map_or(3_000, |steps| steps.parse().unwrap());
    let mut engine = engine("what they all begin with");
    let editor = |number: u32| {
        let mut peer = Peer::new(u64::from(number) * 100);
        peer.receive(&engine.state());
        Distant { peer, session: number, sent: VecDeque::new(), coming: VecDeque::new(), cursor: 3 }
    };
    let mut editors: Vec<Distant> = (1..=3).map(editor).collect();
    let mut updates = Vec::new();
    let mut version = 1;
    let origin = engine.state();
    for step in 0..steps * 10 {
        let at = random.random_range(0..editors.len());
        let is_over = step >= steps;
        if is_over && editors.iter().all(Distant::is_idle) {
            break;
        }
        let what = random.random_range(0..10);
        let mut accepted = None;
        if !is_over && what < 4 {
            editors[at].act(&mut random);
        } else if !is_over && what == 4 && random.random_ratio(1, 4) {
            // One who writes JSON.
            let edit = [Edit { pos: 0, del: 0, ins: "json".into() }];
            version += 1;
            accepted = Some(engine.apply_edits(&edit, version - 1, Author { version, session: 9 }).unwrap());
        } else if what < 7 {
            if let Some(update) = editors[at].sent.pop_front() {
                version += 1;
                let author = Author { version, session: editors[at].session };
                accepted = Some(engine.apply_update(&update, author).expect("an honest editor wrote it"));
            }
        } else {
            let Distant { peer, coming, .. } = &mut editors[at];
            let count = coming.len().min(random.random_range(0..8));
            coming.drain(..count).for_each(|update| peer.receive(&update));
        }
        if let Some(change) = accepted {
            for editor in &mut editors {
                editor.coming.push_back(change.update.clone());
            }
            updates.push(change.update);
        }
    }
    assert!(editors.iter().all(Distant::is_idle), "there were too few steps");
    for editor in &editors {
        assert_eq!(editor.peer.content(), engine.content());
    }
    assert!(flat(&engine).searches > 0, "nobody wrote at the same time as another");
    assert_eq!(flat(&engine).ids(), Flat::of(&engine.state(), Grammar::Text).unwrap().ids());
    assert_eq!(in_another_order(&origin, updates, &mut random), engine.content());
}

#[test]
fn one_editor_is_never_searched_for() {
    let mut engine = engine("begin");
    let mut peer = Peer::new(100);
    peer.receive(&engine.state());
    let mut random = seed("EDITOR_SEED");
    let mut cursor = 5;
    for version in 2..1_500 {
        let author = Author { version, session: 1 };
        let update = match random.random_range(0..20) {
            0 => {
                cursor = random.random_range(0..500);
                peer.edit(cursor, 3, "moved")
            }
            1 => peer.mark(random.random_range(0..500), 4, Any::Bool(version % 2 == 0)),
            2..6 => {
                cursor = cursor.saturating_sub(1);
                peer.edit(cursor, 1, "")
            }
            6 => {
                let edit = [Edit { pos: 0, del: 1, ins: "json".into() }];
                let change = engine.apply_edits(&edit, version - 1, author).unwrap();
                peer.receive(&change.update);
                continue;
            }
            _ => {
                cursor += 1;
                peer.edit(cursor - 1, 0, "x")
            }
        };
        engine.apply_update(&update, author).unwrap();
    }
    assert_eq!(flat(&engine).searches, 0);
    assert_eq!(peer.content(), engine.content());
}

/// What there is to name as a neighbour: each client's next clock.
fn any_id(clocks: &[u64], random: &mut StdRng) -> Option<Pair> {
    let client = random.random_range(0..clocks.len());
    (clocks[client] > 0 && random.random_ratio(7, 8))
        .then(|| (client as u64 + 1, random.random_range(0..clocks[client])))
}

/// Sends blocks between any neighbours; gives how many were taken.
fn attack(random: &mut StdRng) -> usize {
    let mut engine = engine("abcdef");
    let mut follower = Peer::new(50);
    follower.receive(&engine.state());
    let mut honest = Peer::new(60);
    honest.receive(&engine.state());
    let mut clocks = vec![6, 0, 0, 0];
    let (mut taken, mut updates, start) = (0, Vec::new(), engine.state());
    for version in 2..60 {
        let author = Author { version, session: 1 };
        let change = if random.random_ratio(1, 4) {
            let update =
                honest.edit(random.random_range(0..40), random.random_range(0..4), ["h", "H"][version as usize % 2]);
            engine.apply_update(&update, author).expect("an honest editor wrote it")
        } else {
            let client = random.random_range(1..clocks.len());
            let (origin, right) = (any_id(&clocks, random), any_id(&clocks, random));
            let deleted = any_id(&clocks, random).filter(|_| random.random_ratio(1, 3));
            let deletes = deleted.into_iter().map(|(client, clock)| (client, clock, 1)).collect();
            let text = *["x", "yz", "123"].choose(random).unwrap();
            let block = Sent { id: (client as u64 + 1, clocks[client]), origin, right, text, deletes };
            let before = engine.shadow_ids();
            match engine.apply_update(&block.encode(), author) {
                Ok(change) => {
                    clocks[client] += text.len() as u64;
                    taken += 1;
                    change
                }
                Err(error) => {
                    assert!(matches!(error, TextError::Invalid(_)), "{error:?} {block:?}");
                    assert!(before.is_empty() || before == engine.shadow_ids());
                    continue;
                }
            }
        };
        follower.receive(&change.update);
        if random.random() {
            honest.receive(&engine.state());
        }
        updates.push(change.update);
        let mut latecomer = Peer::new(51);
        latecomer.receive(&engine.state());
        assert_eq!(latecomer.content(), engine.content());
        assert_eq!(follower.content(), engine.content());
        assert_eq!(flat(&engine).ids(), Flat::of(&engine.state(), Grammar::Text).unwrap().ids());
        assert_eq!(in_another_order(&start, updates.clone(), random), engine.content());
    }
    taken
}

impl TextEngine {
    fn shadow_ids(&self) -> Vec<Pair> {
        match &self.shadow {
            Shadow::Follows(flat) => flat.ids(),
            Shadow::Unneeded | Shadow::Impossible => Vec::new(),
        }
    }
}

#[test]
fn blocks_between_any_neighbours_never_part_replicas() {
    let mut random = seed("NEIGHBOURS_SEED");
    let rounds: usize = std::env::var("NEIGHBOURS_ROUNDS").map_or(30, |rounds| rounds.parse().unwrap());
    let taken: usize = (0..rounds).map(|_| attack(&mut random)).sum();
    assert!(taken > rounds, "{taken}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_flat_has_the_order_of_the_document(
        edits in prop::collection::vec((any::<u32>(), 0..4_u32, "[a-z]{0,3}", any::<bool>()), 1..60),
    ) {
        let mut engine = engine("shared text");
        let mut peers = [Peer::new(100), Peer::new(200)];
        for (version, (pos, del, ins, who)) in (2..).zip(edits) {
            let peer = &mut peers[usize::from(who)];
            if pos % 3 == 0 {
                peer.receive(&engine.state());
            }
            engine.apply_update(&peer.edit(pos, del, &ins), Author { version, session: 1 }).unwrap();
        }
        let txn = engine.doc.transact();
        let ids = flat(&engine).ids().into_iter();
        let places: Vec<u32> = ids
            .map(|(client, clock)| {
                let id = yrs::ID::new(yrs::block::ClientID::new(client), clock as u32);
                yrs::StickyIndex::from_id(id, yrs::Assoc::After).get_offset(&txn).unwrap().index
            })
            .collect();
        prop_assert!(places.is_sorted(), "{places:?}");
    }
}
