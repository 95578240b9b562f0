//! Texts inside items: what honest writers of the same text send is taken, and false neighbours are not.
//!
//! `NESTED_SEED` and `NESTED_MUTATION_SEED` say what is written, `NESTED_STEPS` (3,000) and `NESTED_ROUNDS` (12) how much; the
//! seeds in use are printed.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use yrs::types::Attrs;

use super::update_tests::{Client, author, content, element, engine};
use super::*;
use crate::statesync::text::Flat;
use crate::statesync::text::mutation_tests::mutate;

const ROOTS: [Root; 1] = [Root::Elements];

fn seed(name: &str) -> StdRng {
    let seed = std::env::var(name).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{name}={seed}");
    StdRng::seed_from_u64(seed)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

/// A board on which client 1 made elements "a" (clock 0) and "b" (8) with texts (1 and 9) of six characters (2 to 7, 10 to 15),
/// and deleted the middle of both.
fn attacked() -> (ItemsEngine, Client) {
    let (mut board, client) = (engine(), Client::new(1, "elements"));
    let update = client.edit(|map, txn| {
        for (id, text) in [("a", "abcdef"), ("b", "ghijkl")] {
            element(map, txn, id).insert(txn, "text", TextPrelim::new(text));
        }
    });
    board.apply_update(&update, 0, author(2, 1)).unwrap();
    let update = client.edit(|map, txn| {
        for id in ["a", "b"] {
            nested_text(&element(map, txn, id), txn).unwrap().remove_range(txn, 1, 4);
        }
    });
    board.apply_update(&update, 0, author(3, 1)).unwrap();
    assert_eq!(content(&board)["elements"]["a"]["text"], "af");
    (board, client)
}

/// A character of a client that says nothing else, between two of client 1. `flags` go beside those for both neighbours.
fn between(client: u8, neighbours: (u8, u8), flags: u8) -> Bytes {
    let (origin, right) = neighbours;
    vec![1, 1, client, 0, 0xC4 | flags, 1, origin, 1, right, 1, b'x', 0].into()
}

/// The bit by which a block says that it has a key, which the library reads from its neighbours.
const HAS_KEY: u8 = 0x20;

#[test]
fn false_neighbours_in_the_text_of_an_item_are_refused() {
    // In the wrong order, with others between them, in two texts, and in a text and the item around it.
    let wrong = [(5, 4), (5, 3), (4, 3), (3, 5), (2, 7), (7, 2), (2, 6), (3, 12), (11, 6), (2, 1), (1, 2), (3, 0)];
    for (neighbours, flags) in wrong.into_iter().flat_map(|wrong| [(wrong, 0), (wrong, HAS_KEY)]) {
        let (mut board, _) = attacked();
        let before = board.content();
        for client in [2, 6, 9] {
            let error = board.apply_update(&between(client, neighbours, flags), 0, author(4, 2)).unwrap_err();
            assert!(matches!(error, ItemsError::Invalid(_)), "{neighbours:?}: {error:?}");
            assert_eq!(board.content(), before);
        }
    }
    let (mut board, _) = attacked();
    for (version, (client, neighbours)) in (4..).zip([(8, (3, 4)), (9, (3, 4)), (10, (2, 3)), (11, (12, 13))]) {
        board.apply_update(&between(client, neighbours, 0), 0, author(version, 2)).unwrap();
    }
    let stored = ItemsEngine::restore("canvas", 7, &board.state(), 9).unwrap();
    assert_eq!(content(&stored), content(&board));
    assert_eq!(content(&board)["elements"]["a"]["text"], "axxxf");
    assert_eq!(content(&board)["elements"]["b"]["text"], "gxl");
}

#[test]
fn visible_places_and_copies_do_not_tell_all_of_it() {
    let (mut board, _) = attacked();
    board.shadow = Shadow::Impossible;
    let pairs = [(5, 4), (5, 3), (4, 3), (3, 5), (2, 7), (2, 6)];
    let mut wrong = pairs.into_iter().flat_map(|pair| [0, HAS_KEY].map(|flags| between(6, pair, flags)));
    assert!(wrong.any(|wrong| board.apply_update(&wrong, 0, author(4, 2)).is_ok()));
}

#[test]
fn what_is_written_into_a_text_that_was_deleted_is_heard_and_gone() {
    let (mut board, client) = attacked();
    let other = Client::new(2, "elements");
    other.receive(&board.state());
    let late = other.edit(|map, txn| {
        let text = nested_text(&element(map, txn, "a"), txn).unwrap();
        text.insert(txn, 1, "late");
        element(map, txn, "b").insert(txn, "x", 5);
    });
    let later = other.edit(|map, txn| {
        nested_text(&element(map, txn, "a"), txn).unwrap().insert(txn, 3, "r");
    });
    let deletion = client.edit(|map, txn| {
        map.remove(txn, "a");
    });
    board.apply_update(&deletion, 0, author(4, 1)).unwrap();
    // Whoever loads it now knows less of it.
    let mut fresh = ItemsEngine::restore("canvas", 7, &board.state(), 4).unwrap();
    for board in [&mut board, &mut fresh] {
        board.apply_update(&late, 0, author(5, 2)).unwrap();
        board.apply_update(&later, 0, author(6, 2)).unwrap();
        assert_eq!(content(board), serde_json::json!({"elements": {"b": {"text": "gl", "x": 5}}}));
    }
}

/// An honest writer that gets what others wrote, and is heard, only after a while.
struct Writer {
    client: Client,
    sent: VecDeque<Bytes>,
    coming: VecDeque<Bytes>,
}

impl Writer {
    fn act(&mut self, random: &mut StdRng) {
        let id = *["a", "b"].choose(random).unwrap();
        let what = random.random_range(0..100);
        let (place, len, letter) =
            (random.random::<u32>(), random.random_range(1..4), random.random_range(b'a'..=b'z'));
        let update = self.client.edit(|map, txn| {
            let text = match map.get(txn, id) {
                Some(Out::YMap(item)) => nested_text(&item, txn),
                _ => None,
            };
            let Some(text) = text else {
                element(map, txn, id).insert(txn, "text", TextPrelim::new("what they begin with"));
                return;
            };
            let pos = place % (text.len(txn) + 1);
            let len = len.min(text.len(txn) - pos);
            match what {
                0..60 => text.insert(txn, pos, &char::from(letter).to_string().repeat(len as usize + 1)),
                60..85 => text.remove_range(txn, pos, len),
                85..94 => text.format(txn, pos, len, Attrs::from([("bold".into(), true.into())])),
                94..97 => drop(map.remove(txn, id)),
                97..98 => drop(element(map, txn, id).insert(txn, "text", TextPrelim::new("another"))),
                _ => drop(element(map, txn, id).insert(txn, "z", "a5")),
            }
        });
        // Now and then all it has, with what others wrote.
        self.sent.push_back(if what % 25 == 3 { self.client.state() } else { update });
    }
}

/// The board hears what a writer sent first; the others will.
fn hear(board: &mut ItemsEngine, writers: &mut [Writer], at: usize, version: &mut u64) {
    let Some(update) = writers[at].sent.pop_front() else { return };
    *version += 1;
    let heard = board.apply_update(&update, 0, author(*version, at as u32 + 1));
    let (_, _, update) = heard.unwrap_or_else(|error| panic!("an honest writer is refused: {error}"));
    for (_, writer) in writers.iter_mut().enumerate().filter(|(other, _)| *other != at) {
        writer.coming.push_back(update.clone());
    }
}

#[test]
fn honest_writers_of_the_same_texts_are_never_refused_and_come_to_the_same() {
    let mut random = seed("NESTED_SEED");
    let mut board = engine();
    let writer =
        |id: u64| Writer { client: Client::new(id, "elements"), sent: VecDeque::new(), coming: VecDeque::new() };
    let mut writers: Vec<Writer> = [100, 200, 300].map(writer).into();
    let mut version = 1;
    for _ in 0..number("NESTED_STEPS", 3_000) {
        let at = random.random_range(0..writers.len());
        match random.random_range(0..10) {
            0..4 => writers[at].act(&mut random),
            4..7 => hear(&mut board, &mut writers, at, &mut version),
            _ => {
                let writer = &mut writers[at];
                writer.coming.pop_front().into_iter().for_each(|update| writer.client.receive(&update));
            }
        }
    }
    while writers.iter().any(|writer| !writer.sent.is_empty()) {
        (0..writers.len()).for_each(|at| hear(&mut board, &mut writers, at, &mut version));
    }
    for writer in &mut writers {
        writer.coming.drain(..).for_each(|update| writer.client.receive(&update));
        assert_eq!(writer.client.content(), content(&board));
    }
    let stored = board.state();
    assert_eq!(content(&ItemsEngine::restore("canvas", 7, &stored, version).unwrap()), content(&board));
    let Shadow::Follows(flat) = &board.shadow else { panic!("there is no flat") };
    assert_eq!(flat.ids_by_text(), Flat::of(&stored, Grammar::Items(&ROOTS)).unwrap().ids_by_text());
}

#[test]
fn what_is_taken_of_mutated_updates_of_a_nested_text_is_the_same_in_every_replica() {
    let mut random = seed("NESTED_MUTATION_SEED");
    let mut taken = 0;
    for round in 0..number("NESTED_ROUNDS", 12) as u64 {
        let (mut board, _) = attacked();
        let follower = Client::new(5, "elements");
        follower.receive(&board.state());
        let made: Vec<Bytes> = (0..20_u64)
            .map(|number| {
                let peer = Client::new(1000 * (round + 1) + number, "elements");
                peer.receive(&board.state());
                let (id, place) = (["a", "b"][number as usize % 2], random.random_range(0..=2));
                peer.edit(|map, txn| {
                    let text = nested_text(&element(map, txn, id), txn).unwrap();
                    text.remove_range(txn, place, 2 - place);
                    text.insert(txn, place, "hostile");
                })
            })
            .collect();
        for version in 4..104 {
            let update = Bytes::from(mutate(made.choose(&mut random).unwrap(), &mut random));
            match board.apply_update(&update, 0, author(version, 1)) {
                Ok((_, _, update)) => {
                    taken += 1;
                    follower.receive(&update);
                }
                Err(ItemsError::Broken(what)) => panic!("{what}: {update:x?}"),
                Err(_) => {}
            }
            let stored = ItemsEngine::restore("canvas", 7, &board.state(), version).unwrap();
            assert_eq!(content(&stored), content(&board), "{update:x?}");
            assert_eq!(follower.content(), content(&board), "{update:x?}");
        }
    }
    assert!(taken > 12, "{taken}");
}
