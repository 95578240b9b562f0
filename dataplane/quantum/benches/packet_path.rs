//! What a packet costs in instructions, from write to read, both ends together: to be run under
//! `valgrind --tool=callgrind --toggle-collect='*counted*' target/release/deps/packet_path-* bulk 20000`, which does not
//! depend on what else the machine does.

#[path = "../tests/back_to_back/mod.rs"]
mod back_to_back;

use back_to_back::{BackToBack, Load, Setup};
use quantum::FecMode;

/// Packets before the count starts.
const WARM_UP: u64 = 5_000;

#[inline(never)]
fn counted(pair: &mut BackToBack, packets: u64) {
    pair.run(packets);
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let load = match arguments.next().as_deref() {
        Some("messages") => Load::Messages,
        _ => Load::Bulk,
    };
    let packets = arguments.next().and_then(|packets| packets.parse().ok()).unwrap_or(20_000);
    let datagram_size = arguments.next().and_then(|size| size.parse().ok()).unwrap_or(1200);
    let fec = if arguments.next().is_some() { FecMode::Fixed { members: 10, repairs: 3 } } else { FecMode::Adaptive };
    let mut pair = BackToBack::new(Setup { load, fec, loses_every: 0, datagram_size });
    pair.run(WARM_UP);
    let before = (pair.packets(), pair.read_bytes);
    counted(&mut pair, packets);
    let (packets, bytes) = (pair.packets() - before.0, pair.read_bytes - before.1);
    assert_eq!(pair.restored(), 0, "nothing was lost");
    println!("{load:?}: {packets} packets of {datagram_size} bytes at most, {bytes} bytes read");
}
