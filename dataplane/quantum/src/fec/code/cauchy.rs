//! Reed-Solomon over GF(2^8) by a Cauchy matrix, for small groups.
//!
//! Repair shard `r` is the sum of all shards `s`, each times `(x0 + s) xr / ((xr + s) x0)` with `xr = 255 - r`: a Cauchy matrix
//! whose rows and columns are scaled so that the first of each are all ones. So any square part of it can be inverted, a single
//! repair shard is the plain XOR, and the repair shards of a single shard are copies of it.

use super::gf256::{Kernel, inverse, mul, mul_add};
use super::{REPAIRS_MAX, Repair, Restored, SHARDS_MAX};

/// The factor of a shard in a repair shard.
const fn factor(repair: usize, shard: usize) -> u8 {
    let (shard, own) = (shard as u8, 255 - repair as u8);
    mul(mul(255 ^ shard, own), mul(inverse(own ^ shard), inverse(255)))
}

/// What [`factor`] is of each repair shard and shard that can be in a group: working it out takes as long as a column of sums.
static FACTORS: [[u8; SHARDS_MAX]; REPAIRS_MAX] = factors();

const fn factors() -> [[u8; SHARDS_MAX]; REPAIRS_MAX] {
    let mut table = [[0; SHARDS_MAX]; REPAIRS_MAX];
    let mut repair = 0;
    while repair < REPAIRS_MAX {
        let mut shard = 0;
        while shard + repair < SHARDS_MAX {
            table[repair][shard] = factor(repair, shard);
            shard += 1;
        }
        repair += 1;
    }
    table
}

/// The repair shards of `shards`, filled up with zeros to the longest.
pub fn encode(shards: &[&[u8]], repairs: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::with_capacity(repairs);
    encode_into(shards, repairs, Vec::new, &mut out);
    out
}

/// As [`encode`], into empty buffers that `buffer` gives.
pub fn encode_into(shards: &[&[u8]], repairs: usize, mut buffer: impl FnMut() -> Vec<u8>, out: &mut Vec<Vec<u8>>) {
    let len = shards.iter().map(|shard| shard.len()).max().unwrap_or(0);
    let first = out.len();
    out.extend((0..repairs).map(|_| buffer()));
    Kernel::best().sum(len, &mut out[first..], shards, |repair, shard| FACTORS[repair][shard]);
}

/// The missing shards, from as many of the repair shards, all of one length.
pub fn decode(shards: &[Option<&[u8]>], received: &[Repair<'_>]) -> Option<Vec<Restored>> {
    let missing: Vec<usize> = (0..shards.len()).filter(|&shard| shards[shard].is_none()).collect();
    let received = received.get(..missing.len())?;
    let len = received.first()?.1.len();
    let inverted = invert(missing.len(), |row, column| FACTORS[received[row].0][missing[column]])?;
    let kernel = Kernel::best();
    // What the repair shards say of the missing ones alone, which are empty here and so add nothing.
    let known: Vec<&[u8]> = shards.iter().map(|shard| shard.unwrap_or_default()).collect();
    let mut remainders = vec![Vec::new(); received.len()];
    kernel.sum(len, &mut remainders, &known, |row, shard| FACTORS[received[row].0][shard]);
    for (remainder, (_, data)) in remainders.iter_mut().zip(received) {
        remainder.iter_mut().zip(*data).for_each(|(remainder, data)| *remainder ^= data);
    }
    // The one that is missing from a plain sum, or a copy, is what remains.
    if inverted == [[1]] {
        return Some(missing.into_iter().zip(remainders).collect());
    }
    let remainders: Vec<&[u8]> = remainders.iter().map(Vec::as_slice).collect();
    let mut restored = vec![Vec::new(); missing.len()];
    kernel.sum(len, &mut restored, &remainders, |row, column| inverted[row][column]);
    Some(missing.into_iter().zip(restored).collect())
}

/// The inverse of the matrix of `size` rows and columns of `value`; none if it has none, as when a repair shard is given twice.
fn invert(size: usize, value: impl Fn(usize, usize) -> u8) -> Option<Vec<Vec<u8>>> {
    // What makes the left half the unit matrix makes the right half, which is that at first, the inverse.
    let row = |row| {
        let unit = (0..size).map(|column| u8::from(row == column));
        (0..size).map(|column| value(row, column)).chain(unit).collect()
    };
    let mut rows: Vec<Vec<u8>> = (0..size).map(row).collect();
    for column in 0..size {
        let nonzero = (column..size).find(|&row| rows[row][column] != 0)?;
        rows.swap(column, nonzero);
        let mut pivot = std::mem::take(&mut rows[column]);
        let scale = inverse(pivot[column]);
        for value in &mut pivot {
            *value = mul(*value, scale);
        }
        for row in rows.iter_mut().filter(|row| !row.is_empty()) {
            let factor = row[column];
            mul_add(row, &pivot, factor);
        }
        rows[column] = pivot;
    }
    for row in &mut rows {
        row.drain(..size);
    }
    Some(rows)
}
