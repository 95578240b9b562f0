//! Erasure codes: repair shards of a group of shards, and the shards that are missing from the repair shards.
//!
//! Two codes, and [`choose`] between them by the size of the group: [`cauchy`] costs a multiplication per byte, shard and
//! repair shard, and little else; [`large`] takes a few hundred microseconds to decode any group, much for a small one.
//! `benches/fec.rs` compares them.

pub mod cauchy;
pub mod gf256;
pub mod large;

/// Shards of a group at most, repair shards included.
pub const SHARDS_MAX: usize = 255;
/// Repair shards of a group at most.
pub const REPAIRS_MAX: usize = 64;
/// Shards, repair shards included, up to which the small code is used. Both sides have to agree on that, whatever their
/// processors: for a group that is encoded and decoded once it is the faster one beyond that too with AVX-512 (`benches/fec.rs`:
/// 78 us against 550 us at 64 + 16, 340 us against 740 us at 128 + 32). The large one encodes faster from about 64 shards on,
/// but what decoding takes is waited for.
pub const SMALL_SHARDS_MAX: usize = 96;

/// Which code a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Reed-Solomon over GF(2^8) by a Cauchy matrix.
    Cauchy,
    /// Reed-Solomon over GF(2^16) by fast transforms.
    Large,
}

/// The code of a group with so many shards and repair shards. Both sides have to agree (PROTOCOL.md section 12.1).
pub const fn choose(members: usize, repairs: usize) -> Code {
    if members + repairs <= SMALL_SHARDS_MAX { Code::Cauchy } else { Code::Large }
}

/// A repair shard that came: its index and bytes.
pub type Repair<'a> = (usize, &'a [u8]);
/// A shard that was missing: its index and bytes, as long as the repair shards.
pub type Restored = (usize, Vec<u8>);

/// The `repairs` repair shards of `shards`, which may have different lengths: each is taken as filled up with zeros to the
/// longest, and to an even length where the code needs it. Repair shards are as long as that. None if there are too many.
pub fn encode(shards: &[&[u8]], repairs: usize) -> Option<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    encode_into(shards, repairs, Vec::new, &mut out);
    (!out.is_empty()).then_some(out)
}

/// As [`encode`], but the repair shards are put into `out`, in empty buffers that `buffer` gives. None if there are too many.
pub fn encode_into(shards: &[&[u8]], repairs: usize, buffer: impl FnMut() -> Vec<u8>, out: &mut Vec<Vec<u8>>) {
    if shards.is_empty() || repairs == 0 || repairs > REPAIRS_MAX || shards.len() + repairs > SHARDS_MAX {
        return;
    }
    match choose(shards.len(), repairs) {
        Code::Cauchy => cauchy::encode_into(shards, repairs, buffer, out),
        Code::Large => out.extend(large::encode(shards, repairs).into_iter().flatten()),
    }
}

/// The missing ones of `shards` (`None`) of a group with `repairs` repair shards in all, from those in `received`. None if
/// they are too few, or make no sense together.
pub fn decode(shards: &[Option<&[u8]>], repairs: usize, received: &[Repair<'_>]) -> Option<Vec<Restored>> {
    let len = received.first()?.1.len();
    let is_sound = shards.len() + repairs <= SHARDS_MAX
        && repairs <= REPAIRS_MAX
        && received.iter().all(|&(index, data)| index < repairs && data.len() == len)
        && shards.iter().flatten().all(|shard| shard.len() <= len);
    let missing = shards.iter().filter(|shard| shard.is_none()).count();
    if !is_sound || missing == 0 || missing > received.len() {
        return None;
    }
    match choose(shards.len(), repairs) {
        Code::Cauchy => cauchy::decode(shards, received),
        Code::Large => large::decode(shards, repairs, received),
    }
}

#[cfg(test)]
mod tests;
