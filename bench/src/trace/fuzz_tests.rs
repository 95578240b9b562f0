//! Fuzz target for traces. `cargo test` tries the inputs in `__fuzz__/TARGET/corpus` and some random ones,
//! `make fuzz` goes on.

use bolero::check;

use super::parse::{parse, to_json};

/// Random inputs of a plain test run.
const ITERATIONS: usize = 2_000;
/// A trace of two writers.
const BASE: &str = r#"{"kind":"concurrent","endContent":"ab","numAgents":2,"txns":[
{"parents":[],"agent":0,"patches":[[0,0,"a"]]},{"parents":[0],"agent":1,"time":"2020-01-01T00:00:00Z","patches":[[1,0,"b"]]}]}"#;

/// The rest of an input whose first byte is even; otherwise the trace with changes: a place and a byte each.
fn message(input: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = input.split_first() else { return BASE.into() };
    if first % 2 == 0 {
        return rest.to_vec();
    }
    let mut message = BASE.as_bytes().to_vec();
    for change in rest.chunks_exact(2) {
        let place = usize::from(change[0]) % message.len();
        message[place] = change[1];
    }
    message
}

#[test]
fn fuzz_trace() {
    assert!(parse(BASE.as_bytes()).is_ok());
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        // An error says what is wrong.
        if let Ok(mut trace) = parse(&message(input)) {
            // Times are not written.
            for transaction in &mut trace.transactions {
                transaction.time_ms = 0;
            }
            let written = to_json(&trace).expect("what was read can be written");
            assert_eq!(parse(&written).expect("what was written can be read"), trace);
        }
    });
}
