//! The two erasure codes of forward error correction, side by side, on shards of 1200 bytes.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use divan::{Bencher, black_box};
use quantum::fec::code::gf256::Kernel;
use quantum::fec::code::{cauchy, large};

const LEN: usize = 1_200;
/// Members and repair shards.
const GROUPS: [(usize, usize); 8] = [(1, 3), (4, 2), (10, 3), (16, 4), (24, 6), (32, 8), (64, 16), (128, 32)];

fn main() {
    divan::main();
}

fn shards(members: usize) -> Vec<Vec<u8>> {
    (0..members).map(|nth| (0..LEN).map(|byte| (byte * 31 + nth * 17) as u8).collect()).collect()
}

fn encode(bencher: Bencher<'_, '_>, members: usize, work: impl Fn(&[&[u8]]) -> Option<Vec<Vec<u8>>>) {
    let shards = shards(members);
    let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    bencher.bench_local(|| work(black_box(&shards)));
}

#[divan::bench(args = GROUPS)]
fn encode_cauchy(bencher: Bencher<'_, '_>, (members, repairs): (usize, usize)) {
    encode(bencher, members, |shards| Some(cauchy::encode(shards, repairs)));
}

/// As the sender does it, whose buffers come back to it.
#[divan::bench(args = GROUPS)]
fn encode_cauchy_into_old_buffers(bencher: Bencher<'_, '_>, (members, repairs): (usize, usize)) {
    let shards = shards(members);
    let shards: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    let (mut buffers, mut out) = (vec![Vec::with_capacity(LEN); repairs], Vec::new());
    bencher.bench_local(|| {
        cauchy::encode_into(black_box(&shards), repairs, || buffers.pop().unwrap_or_default(), &mut out);
        for mut buffer in out.drain(..) {
            buffer.clear();
            buffers.push(buffer);
        }
    });
}

#[divan::bench(args = GROUPS)]
fn encode_large(bencher: Bencher<'_, '_>, (members, repairs): (usize, usize)) {
    encode(bencher, members, |shards| large::encode(shards, repairs));
}

/// As many of the first shards are lost as there are repair shards.
fn lose(shards: &[Vec<u8>], repairs: usize) -> Vec<Option<&[u8]>> {
    shards.iter().enumerate().map(|(index, shard)| (index >= repairs).then_some(shard.as_slice())).collect()
}

#[divan::bench(args = GROUPS)]
fn decode_cauchy(bencher: Bencher<'_, '_>, (members, repairs): (usize, usize)) {
    let shards = shards(members);
    let encoded = cauchy::encode(&shards.iter().map(Vec::as_slice).collect::<Vec<_>>(), repairs);
    let lost = lose(&shards, repairs);
    let count = repairs.min(members);
    let received: Vec<(usize, &[u8])> = encoded.iter().map(Vec::as_slice).enumerate().take(count).collect();
    bencher.bench_local(|| cauchy::decode(black_box(&lost), black_box(&received)).unwrap());
}

#[divan::bench(args = GROUPS)]
fn decode_large(bencher: Bencher<'_, '_>, (members, repairs): (usize, usize)) {
    let shards = shards(members);
    let encoded = large::encode(&shards.iter().map(Vec::as_slice).collect::<Vec<_>>(), repairs).unwrap();
    let lost = lose(&shards, repairs);
    let received: Vec<(usize, &[u8])> = encoded.iter().map(Vec::as_slice).enumerate().collect();
    bencher.bench_local(|| large::decode(black_box(&lost), repairs, black_box(&received)).unwrap());
}

#[divan::bench]
fn sum_of_three_by_table(bencher: Bencher<'_, '_>) {
    sum_of_three(bencher, Kernel::Table);
}

#[divan::bench]
fn sum_of_three_by_best(bencher: Bencher<'_, '_>) {
    sum_of_three(bencher, Kernel::best());
}

/// A sum of three products, so also what [`Kernel::sum`] takes besides them.
fn sum_of_three(bencher: Bencher<'_, '_>, kernel: Kernel) {
    let (shards, mut sum) = (shards(3), [Vec::new()]);
    let sources: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    bencher.bench_local(|| kernel.sum(LEN, black_box(&mut sum), black_box(&sources), |_, source| 0x53 + source as u8));
}
