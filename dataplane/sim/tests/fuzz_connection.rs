//! A fuzz target for a whole connection. `cargo test` tries the inputs in `__fuzz__/TARGET/corpus` and some random ones,
//! `make fuzz` goes on.

use bolero::check;
use quantum_sim::Duel;

/// Random inputs of a plain test run.
const ITERATIONS: usize = 1_500;

#[test]
fn fuzz_connection() {
    check!().with_iterations(ITERATIONS).with_max_len(1_500).for_each(|steps: &[u8]| {
        if let Err(fault) = Duel::new(1).run(steps) {
            panic!("{fault}");
        }
    });
}

/// An input without much interference: the world of the fuzz target is one in which connections work.
#[test]
fn a_quiet_input_connects_writes_and_closes() {
    let mut steps = Vec::new();
    for _ in 0..12 {
        // Deliver to both, let some time pass.
        steps.extend([0, 0, 0, 1, 0, 0, 16, 50, 0]);
    }
    for nth in 0..40 {
        // Open a stream, write to it, finish one, deliver to both.
        steps.extend([24, 0, 0, 22, nth, 200, 26, nth, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 16, 20, 0, 29, nth, 0]);
    }
    Duel::new(1).run(&steps).unwrap();
}
