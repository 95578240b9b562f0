//! The group that is being gathered.

use super::SHARD_HEAD_LEN;
use crate::Time;

/// The packets that are being gathered.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// The number and the shard of each.
    pub(super) members: Vec<(u64, Vec<u8>)>,
    pub(super) bytes: usize,
    pub(super) ranges: usize,
    pub(super) since: Time,
}

impl Open {
    /// Bytes of a repair symbol: of the longest shard, or of a packet alone.
    pub(super) fn symbol_len_max(&self) -> usize {
        match &self.members[..] {
            [(_, shard)] => shard.len() - SHARD_HEAD_LEN,
            members => members.iter().map(|(_, shard)| shard.len()).max().unwrap_or(0),
        }
    }
}
