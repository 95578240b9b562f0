//! Fuzz targets for the data of operations. `cargo test` tries the inputs in `__fuzz__/TARGET/corpus` and some random ones,
//! `make fuzz` goes on.

use bolero::check;

use super::{Mark, Payload, decode_payload, encode_edits};
use crate::statesync::guard::{Grammar, scan};
use crate::statesync::items::{Parsed, Root, encode, parse, parse_content};

/// Random inputs of a plain test run.
const ITERATIONS: usize = 2_000;
/// What JSON of operations is made of: random bytes alone hardly ever are any.
const PIECES: [&str; 32] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"pos\"",
    "\"del\"",
    "\"ins\"",
    "0",
    "1",
    "4294967296",
    "-1",
    "1e400",
    "0.5",
    "null",
    "true",
    "\"\"",
    "\"\\ud800\"",
    "\"a\"",
    "\"\u{1f600}\"",
    "\"id\"",
    "\"cell\"",
    "\"row\"",
    "\"col\"",
    "\"set\"",
    "\"style\"",
    "\"z\"",
    "\"index\"",
    "\"parent\"",
    "\"text\"",
    "\"elements\"",
];

/// The rest of an input whose first byte is 0 or 1 modulo 4 as it is; otherwise pieces of JSON, one for each byte, of 3 behind a
/// beginning that is right.
fn json(input: &[u8]) -> Vec<u8> {
    let Some((&first, rest)) = input.split_first() else { return Vec::new() };
    if first % 4 < 2 {
        return rest.to_vec();
    }
    let pieces = rest.iter().map(|byte| PIECES[usize::from(*byte) % PIECES.len()]);
    let start = if first % 4 == 3 { "[{\"id\":\"a\",\"pos\":" } else { "" };
    std::iter::once(start).chain(pieces).collect::<String>().into_bytes()
}

#[test]
fn fuzz_text_operation() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let data = json(input);
        // An error says what is wrong.
        if let Ok(Payload::Edits(edits)) = decode_payload(&data) {
            let again = decode_payload(&encode_edits(&edits)).expect("what was read can be written");
            assert!(matches!(again, Payload::Edits(again) if again == edits));
        }
        if let Ok(mark) = Mark::decode(&data) {
            Mark::decode(&mark.encode()).expect("what was read can be written");
        }
    });
}

#[test]
fn fuzz_items_operation() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        let data = json(input);
        for kind in ["sheet", "canvas"] {
            let roots = Root::of(kind);
            for op_type in ["create", "update", "move", "resize", "delete", "text"] {
                if let Ok(Parsed::Changes(changes)) = parse(op_type, roots, &data) {
                    encode(&changes);
                }
            }
            parse_content(roots, &data);
        }
    });
}

#[test]
fn fuzz_yjs_update() {
    check!().with_iterations(ITERATIONS).for_each(|input: &[u8]| {
        for grammar in [Grammar::Text, Grammar::Items(Root::of("canvas")), Grammar::Items(Root::of("sheet"))] {
            let _ = scan(input, grammar);
        }
    });
}
