//! Operations that were accepted lately, so that one that comes again is answered without asking the store.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::statesync::model::{LogRow, Submission};

/// Repeated operation ids known without asking the disk.
const RECENT_MAX: usize = 65_536;

/// Accepted operations by id and key.
#[derive(Default)]
pub(super) struct Recent {
    by_id: HashMap<Uuid, ([u8; 32], u64)>,
    by_key: HashMap<String, ([u8; 32], u64)>,
    order: VecDeque<(Uuid, String)>,
    /// Whether it has every operation of the document.
    pub(super) complete: bool,
}

impl Recent {
    /// None yet; `complete` if the document has none that are not inserted next.
    pub(super) fn new(complete: bool) -> Self {
        Self { complete, ..Self::default() }
    }

    pub(super) fn insert(&mut self, row: &LogRow) {
        let result = (row.digest, row.operation.version);
        self.by_id.insert(row.op_id, result);
        if !row.idempotency_key.is_empty() {
            self.by_key.insert(row.idempotency_key.clone(), result);
        }
        self.order.push_back((row.op_id, row.idempotency_key.clone()));
        if self.order.len() > RECENT_MAX {
            self.complete = false;
            let (id, key) = self.order.pop_front().expect("it was just found longer than its limit");
            self.by_id.remove(&id);
            self.by_key.remove(&key);
        }
    }

    pub(super) fn find(&self, submission: &Submission) -> Option<([u8; 32], u64)> {
        let by_key = self.by_key.get(&submission.operation.idempotency_key);
        by_key.or_else(|| self.by_id.get(&submission.op_id)).copied()
    }
}
