//! Reed-Solomon over GF(2^8) by a Cauchy matrix, for small groups.
//!
//! Repair shard `r` is the sum of all shards `s`, each times `(x0 + s) xr / ((xr + s) x0)` with `xr = 255 - r`: a Cauchy matrix
//! whose rows and columns are scaled so that the first of each are all ones. So any square part of it can be inverted, a single
//! repair shard is the plain XOR, and the repair shards of a single shard are copies of it.

use super::gf256::{Kernel, inverse, mul};
use super::{Repair, Restored};

/// The factor of a shard in a repair shard.
const fn factor(repair: usize, shard: usize) -> u8 {
    let (shard, own) = (shard as u8, 255 - repair as u8);
    mul(mul(255 ^ shard, own), mul(inverse(own ^ shard), inverse(255)))
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
    let kernel = Kernel::best();
    for repair in 0..repairs {
        let mut sum = buffer();
        sum.resize(len, 0);
        for (shard, data) in shards.iter().enumerate() {
            kernel.mul_add(&mut sum, data, factor(repair, shard));
        }
        out.push(sum);
    }
}

/// The missing shards, from as many of the repair shards, all of one length.
pub fn decode(shards: &[Option<&[u8]>], received: &[Repair<'_>]) -> Option<Vec<Restored>> {
    let missing: Vec<usize> = (0..shards.len()).filter(|&shard| shards[shard].is_none()).collect();
    let received = &received[..missing.len().min(received.len())];
    let rows = received.iter().map(|&(repair, _)| missing.iter().map(|&shard| factor(repair, shard)).collect());
    let inverted = invert(rows.collect())?;
    let kernel = Kernel::best();
    // What the repair shards say of the missing ones alone.
    let remainders: Vec<Vec<u8>> = received
        .iter()
        .map(|&(repair, data)| {
            let mut sum = data.to_vec();
            for (shard, known) in shards.iter().enumerate() {
                kernel.mul_add(&mut sum, known.unwrap_or_default(), factor(repair, shard));
            }
            sum
        })
        .collect();
    let len = received.first()?.1.len();
    let restored = missing.iter().zip(&inverted).map(|(&shard, row)| {
        let mut sum = vec![0; len];
        for (remainder, &factor) in remainders.iter().zip(row) {
            kernel.mul_add(&mut sum, remainder, factor);
        }
        (shard, sum)
    });
    Some(restored.collect())
}

/// The inverse of a square matrix; none if it has none, as when a repair shard is given twice.
fn invert(mut matrix: Vec<Vec<u8>>) -> Option<Vec<Vec<u8>>> {
    let size = matrix.len();
    let mut inverse_rows: Vec<Vec<u8>> =
        (0..size).map(|row| (0..size).map(|column| u8::from(row == column)).collect()).collect();
    for column in 0..size {
        let pivot = (column..size).find(|&row| matrix[row].get(column).is_some_and(|&value| value != 0))?;
        matrix.swap(column, pivot);
        inverse_rows.swap(column, pivot);
        let scale = inverse(matrix[column][column]);
        for rows in [&mut matrix, &mut inverse_rows] {
            rows[column].iter_mut().for_each(|value| *value = mul(*value, scale));
        }
        let pivots = [matrix[column].clone(), inverse_rows[column].clone()];
        for row in (0..size).filter(|&row| row != column) {
            let factor = matrix[row][column];
            for (rows, pivot) in [&mut matrix, &mut inverse_rows].into_iter().zip(&pivots) {
                rows[row].iter_mut().zip(pivot).for_each(|(value, pivot)| *value ^= mul(*pivot, factor));
            }
        }
    }
    Some(inverse_rows)
}
