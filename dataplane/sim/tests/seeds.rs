//! Random networks and workloads, each from a seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quantum_sim::{Cipher, Outcome, Scenario, World};

/// Seeds of a plain run.
const SEEDS: u64 = 200;

fn run(seed: u64) -> Result<Outcome, String> {
    let scenario = Scenario::from_seed(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(&scenario, Cipher::Tls).and_then(World::run)));
    match outcome {
        Ok(outcome) => outcome.map_err(|fault| fault.to_string()),
        Err(_) => Err("a panic, see above".to_owned()),
    }
}

fn replay(seed: u64) -> String {
    format!("QUANTUM_SIM_SEED={seed} cargo test -p quantum-sim --test seeds one_seed -- --nocapture")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

#[test]
fn every_seed_delivers_everything_once_and_ends() {
    let seeds = number("QUANTUM_SIM_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in 0..seeds {
        if let Err(fault) = run(seed) {
            println!("seed {seed}: {fault}\n  replay it by: {}", replay(seed));
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
}

#[test]
fn one_seed() {
    let seed = number("QUANTUM_SIM_SEED").unwrap_or(0);
    println!("{:#?}", Scenario::from_seed(seed));
    match run(seed) {
        Ok(outcome) => println!("{outcome:#?}"),
        Err(fault) => panic!("seed {seed}: {fault}\n  replay it by: {}", replay(seed)),
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        let first = run(seed).unwrap_or_else(|fault| panic!("{fault}\n  replay it by: {}", replay(seed)));
        assert_eq!(Ok(first), run(seed), "{}", replay(seed));
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(run(1).unwrap().trace_hash, run(2).unwrap().trace_hash);
}
