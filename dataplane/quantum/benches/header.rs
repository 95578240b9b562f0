//! Reading and writing the header that every packet begins with.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use divan::{Bencher, black_box};
use quantum::GuuidGenerator;
use quantum::wire::{Epoch, Flags, HEADER_LEN, Header, SackBlock, SackBlocks, VERSION};

const PACKET_LEN: usize = 1_200;
/// None, as on most paths, and some, as with loss.
const BLOCKS: [usize; 3] = [0, 1, 4];

fn main() {
    divan::main();
}

fn blocks(count: usize) -> SackBlocks {
    let mut blocks = SackBlocks::new();
    for nth in 0..count as u32 {
        assert!(blocks.push(SackBlock { start: nth * 10, end: nth * 10 + 5 }));
    }
    blocks
}

fn header(blocks: &SackBlocks) -> Header {
    Header {
        version: VERSION,
        epoch: Epoch::OneRtt0,
        flags: Flags::ACK | Flags::PSH,
        guuid: GuuidGenerator::new([1; 32]).next(1_735_689_600_000),
        sequence: 0x0102_0304,
        ack: 0x0506_0708,
        payload_len: (PACKET_LEN - HEADER_LEN - blocks.encoded_len()) as u16,
    }
}

#[divan::bench(args = BLOCKS)]
fn encode(bencher: Bencher<'_, '_>, count: usize) {
    let blocks = blocks(count);
    let header = header(&blocks);
    let mut packet = vec![0; PACKET_LEN];
    bencher.bench_local(|| {
        let packet = black_box(packet.as_mut_slice());
        black_box(&header).encode(packet);
        black_box(&blocks).encode(&mut packet[HEADER_LEN..])
    });
}

#[divan::bench(args = BLOCKS)]
fn decode(bencher: Bencher<'_, '_>, count: usize) {
    let blocks = blocks(count);
    let mut packet = vec![0; PACKET_LEN];
    header(&blocks).encode(&mut packet);
    blocks.encode(&mut packet[HEADER_LEN..]);
    assert_eq!(Header::decode(&packet).unwrap().1, blocks);
    bencher.bench_local(|| Header::decode(black_box(&packet)).map(|(header, blocks)| (header.sequence, blocks.len())));
}

/// With everything written to memory: some 100 bytes.
#[divan::bench(args = BLOCKS)]
fn decode_and_keep(bencher: Bencher<'_, '_>, count: usize) {
    let blocks = blocks(count);
    let mut packet = vec![0; PACKET_LEN];
    header(&blocks).encode(&mut packet);
    blocks.encode(&mut packet[HEADER_LEN..]);
    bencher.bench_local(|| Header::decode(black_box(&packet)));
}
