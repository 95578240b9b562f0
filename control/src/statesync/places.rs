//! Between which neighbours the blocks of a Yjs update were written, as far as the visible text tells.
//!
//! A block names what was to the left and to the right of it for its writer. An editor's block fits the document: its
//! neighbours are next to each other, or what is between them was written at the same time. With a block that names any
//! others, replicas that get it at different moments come to different texts (the order is found as in YATA, Nicolaescu et
//! al. 2016, which holds for true neighbours only). So what is not plainly in its place is tried on copies first.
//!
//! This is how documents are checked whose history is too large to keep in order with all that was deleted (`text/flat.rs`), which
//! tells exactly. It leaves a hole: deleted characters all have one visible place, so
//! blocks that name them in an order that never was may be taken, and an update that comes later may part the replicas.

use yrs::branch::BranchPtr;
use yrs::types::TypeRef;
use yrs::{Assoc, BranchID, ID, ReadTxn, StickyIndex};

/// What the writer of a block in a text had to the left of it and to the right.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) origin: Option<ID>,
    pub(super) right: Option<ID>,
    /// What the block is in, if it has no neighbours.
    pub(super) parent: BranchID,
}

impl Place {
    /// Whether the neighbours are next to each other in the document now, but for what was deleted.
    pub(super) fn is_plain(&self, txn: &impl ReadTxn) -> bool {
        match (self.origin, self.right) {
            (None, None) => self.parent.get_branch(txn).is_none_or(|branch| branch.content_len() == 0),
            (Some(origin), None) => end_of(origin, txn).is_some_and(|(branch, end)| end == branch.content_len()),
            (None, Some(right)) => start_of(right, txn).is_some_and(|(_, start)| start == 0),
            (Some(origin), Some(right)) => end_of(origin, txn).is_some_and(|end| start_of(right, txn) == Some(end)),
        }
    }

    /// Whether the place is known not to be in a text: the values of a key follow each other too.
    pub(super) fn is_of_a_key(&self, txn: &impl ReadTxn) -> bool {
        let origin = self.origin.filter(|_| self.right.is_none());
        let place = origin.and_then(|origin| StickyIndex::from_id(origin, Assoc::After).get_offset(txn));
        place.is_some_and(|place| *place.branch.type_ref() != TypeRef::Text)
    }
}

/// Where a character ends, if the document has it and it is not deleted.
fn end_of(id: ID, txn: &impl ReadTxn) -> Option<(BranchPtr, u32)> {
    let start = start_of(id, txn)?;
    let end = StickyIndex::from_id(id, Assoc::Before).get_offset(txn)?;
    (end.index > start.1).then_some((end.branch, end.index))
}

/// Where a character starts, if the document has it, or would start if it were not deleted.
fn start_of(id: ID, txn: &impl ReadTxn) -> Option<(BranchPtr, u32)> {
    let start = StickyIndex::from_id(id, Assoc::After).get_offset(txn)?;
    Some((start.branch, start.index))
}
