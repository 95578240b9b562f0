//! Maps by ids that are ours, or that are few.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by a number that we choose, or a peer which may have few of them: of a connection, or of a stream. Cheaper than the
/// standard hasher, which keeps those off who pick ids to collide; here they are limited to as many as they may have streams.
/// Its order says nothing.
pub type IdMap<K, T> = HashMap<K, T, BuildHasherDefault<IdHasher>>;

/// A set of such numbers.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Hashes ids, alike in every process.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    /// Multiplies by 2^64 / golden ratio, and folds the high half, which all bits have reached, into the low one.
    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}
