//! The packet path allocates nothing per packet in steady state.
//!
//! What counts is everything between an application's write at one end and its read at the other, both ends together: frames,
//! records of sent packets, sealing, opening, acknowledgements, credit, forward error correction, reassembly, timers and
//! events. What is left out: connecting, opening the stream, and the first packets, in which queues and buffers grow to what
//! the load needs.

mod back_to_back;

use back_to_back::{BackToBack, Load, Setup};
use quantum::FecMode;

/// Packets before the count starts, and packets that are counted.
const WARM_UP: u64 = 100_000;
const COUNTED: u64 = 40_000;

/// Allocations while [`COUNTED`] packets leave, both ends together.
fn allocations(setup: Setup) -> u64 {
    let mut pair = BackToBack::new(setup);
    pair.run(WARM_UP);
    let before = (pair.packets(), pair.read_bytes);
    let info = allocation_counter::measure(|| pair.run(COUNTED));
    let (packets, bytes) = (pair.packets() - before.0, pair.read_bytes - before.1);
    println!("{setup:?}: {} allocations of {} bytes in {packets} packets", info.count_total, info.bytes_total);
    println!("{bytes} bytes were read; {} packets were restored in all", pair.restored());
    assert!(bytes > 0, "data flows");
    info.count_total
}

/// One packet of a thousand may allocate: what fills up slowly to a bound grows now and then, such as the ranges between packet
/// numbers that were left out, and the symbols of the direction that has little to send.
const FEW: u64 = COUNTED / 1_000;

const PLAIN: Setup = Setup { load: Load::Bulk, fec: FecMode::Adaptive, loses_every: 0, datagram_size: 1200 };
const TEN_THREE: FecMode = FecMode::Fixed { members: 10, repairs: 3 };

#[test]
fn bulk_allocates_nothing_per_packet() {
    assert!(allocations(PLAIN) <= FEW);
}

#[test]
fn small_messages_allocate_nothing_per_packet() {
    assert!(allocations(Setup { load: Load::Messages, ..PLAIN }) <= FEW);
}

#[test]
fn protected_bulk_allocates_nothing_per_packet() {
    // More groups are open at once than buffers are kept: a window leaves at one moment of virtual time.
    assert!(allocations(Setup { fec: TEN_THREE, ..PLAIN }) <= 10 * FEW);
}

#[test]
fn protected_messages_allocate_nothing_per_packet() {
    assert!(allocations(Setup { load: Load::Messages, fec: TEN_THREE, ..PLAIN }) <= FEW);
}

/// Where packets are lost, decoding takes memory, and a window of bytes out of order more than is kept for reuse.
#[test]
fn where_packets_are_lost_few_packets_allocate() {
    let messages = allocations(Setup { load: Load::Messages, loses_every: 20, ..PLAIN });
    let bulk = allocations(Setup { loses_every: 50, ..PLAIN });
    assert!(messages <= 10 * FEW && bulk <= 200 * FEW, "{messages} for messages, {bulk} in bulk");
}
