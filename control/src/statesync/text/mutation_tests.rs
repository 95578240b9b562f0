//! What is taken of broken updates is the same in every replica. `MUTATION_SEED` says which updates; the seed in use is printed.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::tests::{Peer, engine};
use super::{Author, TextEngine, TextError};

/// Rounds of a plain test run, which takes about a second. `MUTATION_ROUNDS` has it do others.
const ROUNDS: usize = 12;
const UPDATES: usize = 100;

/// An update of which up to three bytes are others.
pub(in crate::statesync) fn mutate(update: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = update.to_vec();
    for _ in 0..random.random_range(1..=3) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..3) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1_u8 << random.random_range(0..8_u32),
            _ => bytes[at] = bytes[at].wrapping_add(random.random_range(0..8)),
        }
    }
    bytes
}

fn attack(engine: &mut TextEngine, version: &mut u64, random: &mut StdRng, client: u64) -> Option<usize> {
    let state = engine.state();
    let made: Vec<Vec<u8>> = (0..20)
        .map(|number| {
            let mut peer = Peer::new(client + number);
            peer.receive(&state);
            let units: Vec<u16> = engine.content().encode_utf16().collect();
            let place = random.random_range(0..=units.len());
            let place = super::tests::boundary(&units, place);
            let del = random.random_range(0..=units.len().min(place + 3) - place);
            let del = super::tests::boundary(&units, place + del) - place;
            peer.edit(place as u32, del as u32, "é hostile")
        })
        .collect();
    let mut taken = 0;
    for _ in 0..UPDATES {
        let update = mutate(made.choose(random).unwrap(), random);
        *version += 1;
        match engine.apply_update(&update, Author { version: *version, session: 1 }) {
            Ok(_) => taken += 1,
            Err(TextError::Broken(_)) => return None,
            Err(_) => {}
        }
        let mut copy = Peer::new(5);
        copy.receive(&engine.state());
        assert_eq!(copy.content(), engine.content(), "{update:x?}");
    }
    Some(taken)
}

#[test]
fn what_is_taken_of_mutated_updates_is_the_same_in_every_replica() {
    let seed = std::env::var("MUTATION_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("MUTATION_SEED={seed}");
    let rounds = std::env::var("MUTATION_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let mut taken = 0;
    let (mut document, mut version) = (engine("a text to attack"), 1);
    for round in 0..rounds {
        // Where the server loads a document afresh, this takes a new one.
        if let Some(more) = attack(&mut document, &mut version, &mut random, 1000 * (round as u64 + 1)) {
            taken += more;
        } else {
            (document, version) = (engine("a text to attack"), 1);
        }
    }
    assert!(taken > rounds, "{taken}");
}
