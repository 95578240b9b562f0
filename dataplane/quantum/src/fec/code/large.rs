//! Reed-Solomon over GF(2^16) by fast transforms (`reed-solomon-simd`), for large groups: a few microseconds to encode, about a
//! hundred to decode, whatever is lost. Shards have an even length.

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use super::{Repair, Restored};

/// The repair shards of `shards`, filled up with zeros to the longest and to an even length.
pub fn encode(shards: &[&[u8]], repairs: usize) -> Option<Vec<Vec<u8>>> {
    let len = even(shards.iter().map(|shard| shard.len()).max()?).max(2);
    let mut encoder = ReedSolomonEncoder::new(shards.len(), repairs, len).ok()?;
    let mut padded = vec![0; len];
    for shard in shards {
        encoder.add_original_shard(fill(&mut padded, shard)).ok()?;
    }
    let result = encoder.encode().ok()?;
    Some(result.recovery_iter().map(<[u8]>::to_vec).collect())
}

/// The missing shards of a group with `repairs` repair shards.
pub fn decode(shards: &[Option<&[u8]>], repairs: usize, received: &[Repair<'_>]) -> Option<Vec<Restored>> {
    let len = received.first()?.1.len();
    let mut decoder = ReedSolomonDecoder::new(shards.len(), repairs, len).ok()?;
    let mut padded = vec![0; len];
    for (index, shard) in shards.iter().enumerate() {
        if let Some(shard) = shard {
            decoder.add_original_shard(index, fill(&mut padded, shard)).ok()?;
        }
    }
    for &(index, data) in received {
        decoder.add_recovery_shard(index, data).ok()?;
    }
    let result = decoder.decode().ok()?;
    Some(result.restored_original_iter().map(|(index, data)| (index, data.to_vec())).collect())
}

fn fill<'a>(padded: &'a mut [u8], shard: &[u8]) -> &'a [u8] {
    let (front, rest) = padded.split_at_mut(shard.len());
    front.copy_from_slice(shard);
    rest.fill(0);
    padded
}

const fn even(len: usize) -> usize {
    len + len % 2
}
