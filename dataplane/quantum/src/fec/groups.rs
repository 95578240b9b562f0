//! The groups of what is sent, from when their first packet is gathered until nothing of them matters.

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::group::{Group, Members};
use super::on_demand::Work;
use super::open::Open;
use super::pool::Pool;
use crate::Time;
use crate::sent_frame::SentFrame;

/// A repair symbol that is to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: Time,
    pub(super) group: u64,
    pub(super) index: u8,
}

/// The groups, and memory for further ones.
#[derive(Debug, Default)]
#[expect(clippy::struct_field_names, reason = "they are what it has")]
pub(super) struct Groups {
    pub(super) open: Open,
    /// By id; the ids are consecutive.
    pub(super) groups: VecDeque<Group>,
    /// By time.
    pub(super) schedule: VecDeque<Due>,
    /// What has to be sent again, after all.
    pub(super) released: Vec<SentFrame>,
    pub(super) pool: Pool,
    pub(super) spare_groups: Vec<(Members, Vec<Vec<u8>>)>,
}

impl Work for Groups {
    fn none() -> &'static Self {
        static NONE: LazyLock<Groups> = LazyLock::new(Groups::default);
        &NONE
    }

    fn shrink(&mut self) -> bool {
        (self.pool, self.spare_groups) = (Pool::default(), Vec::new());
        self.open.members.shrink_to_fit();
        self.groups.shrink_to_fit();
        self.schedule.shrink_to_fit();
        self.released.shrink_to_fit();
        let is_quiet = self.open.members.is_empty() && self.released.is_empty();
        is_quiet && self.groups.is_empty() && self.schedule.is_empty()
    }
}
