//! The sending side: gathers packets into groups, gives them repair symbols, and holds back what may not have to be sent again.

use std::time::Duration;

use smallvec::SmallVec;

use super::budget::{Budget, PathView};
use super::group::{Fate, Group, Member, Members};
use super::groups::{Due, Groups};
use super::on_demand::OnDemand;
use super::open::Open;
use super::{FecConfig, FecMode, SHARD_HEAD_LEN, code, plan};
use crate::Time;
use crate::sent_frame::{SentFrame, SentFrames};
use crate::stats::{FecStats, TrafficStats};
use crate::wire::{FrameWriter, REPAIR_MEMBERS_MAX, repair_head_len_max};

/// A group closes after an eighth of the round-trip time, and no later than this.
pub(super) const GATHER_MAX: Duration = Duration::from_millis(5);
/// Ranges of numbers in a group at most, and how far apart they are: so a REPAIR frame's head stays small.
const RANGES_MAX: usize = 8;
const GAP_MAX: u64 = 64;
/// Groups that are remembered at most.
const GROUPS_MAX: usize = 512;
/// Bytes that a protected packet leaves free for its repair symbol's frame: of the ranges after the first two one-byte integers
/// each, and a byte more for one long one.
pub(crate) const RESERVE_MAX: usize = SHARD_HEAD_LEN + repair_head_len_max(1) + (RANGES_MAX - 1) * 2 + 1;
/// Beyond the path's own time, an acknowledgement of repair symbols may take so long.
const ACK_SLACK: Duration = Duration::from_millis(6);
/// What is held back is looked at so long after a group's last symbol left, first, and then when it is time.
const RELEASE_CHECK: Duration = Duration::from_millis(20);
/// A group that must have been restored waits so many times as long as another, for a second and a third report.
const REPORTS_WAITED_FOR: u32 = 4;
/// Groups without members, kept for reuse.
const SPARE_GROUPS_MAX: usize = 64;

/// Forward error correction of what is sent.
#[derive(Debug)]
pub(crate) struct Protector {
    config: FecConfig,
    /// Members of a group that the peer takes; none if it takes no symbols at all.
    members_max: usize,
    budget: Budget,
    work: OnDemand<Groups>,
    /// The id of the first group.
    first_id: u64,
    /// Up to here everybody knows that symbols are due.
    told: Time,
    /// When to look for groups that have waited too long.
    release_at: Option<Time>,
    counts: Counts,
}

/// What was done.
#[derive(Debug, Default)]
struct Counts {
    protected: u64,
    repairs_sent: u64,
    repair_bytes_sent: u64,
    recovered_by_peer: u64,
}

impl Protector {
    /// Protects nothing before [`accept`](Self::accept).
    pub(crate) fn new(now: Time, config: &FecConfig) -> Self {
        Self {
            config: *config,
            members_max: 0,
            budget: Budget::new(now, config),
            work: OnDemand::default(),
            first_id: 0,
            told: now,
            release_at: None,
            counts: Counts::default(),
        }
    }

    /// The peer takes repair symbols of groups with so many members.
    pub(crate) fn accept(&mut self, members: u64) {
        let own = match self.config.mode {
            FecMode::Off => 0,
            FecMode::Adaptive => self.config.members_max,
            FecMode::Fixed { members, .. } => members,
        };
        self.members_max = members.min(u64::from(own)).min(REPAIR_MEMBERS_MAX) as usize;
    }

    /// Bytes that a packet has to leave free so that a repair symbol of it fits into another one; none if packets are not being
    /// gathered.
    pub(crate) fn reserve(&self, now: Time, path: &PathView) -> Option<usize> {
        let wanted = self.members_max > 0 && self.wanted(1, path) > 0;
        let is_fixed = matches!(self.config.mode, FecMode::Fixed { .. });
        let gathers = wanted && (is_fixed || !self.budget.is_full(now, path));
        gathers.then_some(RESERVE_MAX)
    }

    /// Symbols for a group of so many packets.
    fn wanted(&self, members: usize, path: &PathView) -> usize {
        match self.config.mode {
            FecMode::Off => 0,
            FecMode::Fixed { repairs, .. } => usize::from(repairs).clamp(1, usize::from(FecMode::REPAIRS_MAX)),
            FecMode::Adaptive => {
                let most = members * usize::from(self.config.overhead_percent_max) / 100;
                let repairs = plan::repairs(members, path.loss, f64::from(self.config.residual_ppm) / 1e6, most);
                if repairs > 0 { repairs.max(plan::burst_repairs(path.burst, most)) } else { 0 }
            }
        }
    }

    /// A packet leaves, with so many bytes for the application.
    pub(crate) fn on_sent(&mut self, now: Time, own_bytes: usize, size: usize, path: &PathView) {
        if self.members_max > 0 {
            self.budget.on_sent(now, own_bytes, size, path);
        }
    }

    /// Takes the packet with that number and symbol into the group that is being gathered.
    pub(crate) fn gather(&mut self, now: Time, number: u64, symbol: &[u8], path: &PathView) {
        let gap = self.work.open.members.last().map_or(0, |(last, _)| number - last - 1);
        let is_apart = gap > GAP_MAX || gap > 0 && self.work.open.ranges == RANGES_MAX;
        if is_apart || self.work.open.bytes + symbol.len() > self.config.memory_max / 4 {
            self.close(now, path);
        }
        if self.work.open.members.is_empty() {
            (self.work.open.since, self.work.open.ranges) = (now, 1);
        } else if gap > 0 {
            self.work.open.ranges += 1;
        }
        let mut shard = self.work.pool.take();
        shard.extend_from_slice(&(symbol.len() as u16).to_be_bytes());
        shard.extend_from_slice(&number.to_be_bytes());
        shard.extend_from_slice(symbol);
        self.work.open.bytes += shard.len();
        self.work.open.members.push((number, shard));
        if self.work.open.members.len() >= self.members_max {
            self.close(now, path);
        }
    }

    /// The application has nothing more to send: what has been gathered gets its symbols at once, unless they would cost more
    /// than they may, and those of a larger group less.
    pub(crate) fn on_idle(&mut self, now: Time, path: &PathView) {
        let members = self.work.open.members.len();
        if members == 0 {
            return;
        }
        let bytes = self.work.open.symbol_len_max() * self.wanted(members, path);
        if self.budget.allows(now, bytes, path) || matches!(self.config.mode, FecMode::Fixed { .. }) {
            self.close(now, path);
        }
    }

    /// What is being gathered is complete: the packets after it have other keys.
    pub(crate) fn end_group(&mut self, now: Time, path: &PathView) {
        if !self.work.open.members.is_empty() {
            self.close(now, path);
        }
    }

    fn gather_until(&self, rtt: Duration) -> Option<Time> {
        (!self.work.open.members.is_empty()).then(|| self.work.open.since + (rtt / 8).min(GATHER_MAX))
    }

    /// Closes the group that is being gathered: its symbols are made and their times set.
    fn close(&mut self, now: Time, path: &PathView) {
        let mut open = std::mem::take(&mut self.work.open);
        let size = open.symbol_len_max();
        let mut repairs = self.wanted(open.members.len(), path);
        if self.config.mode == FecMode::Adaptive {
            let allowed = |repairs: &usize| self.budget.allows(now, repairs * size, path);
            repairs = (0..=repairs).rev().find(allowed).unwrap_or(0);
        }
        let kept: usize = self.work.groups.iter().flat_map(|group| &group.shards).map(Vec::len).sum();
        if kept + repairs * size > self.config.memory_max {
            repairs = 0;
        }
        let (mut members, mut shards) = self.work.spare_groups.pop().unwrap_or_default();
        self.make_shards(&open.members, repairs, &mut shards);
        if shards.is_empty() {
            self.work.spare_groups.push((members, shards));
        } else {
            self.budget.spend(repairs * size);
            self.counts.protected += open.members.len() as u64;
            members.extend(open.members.iter().map(|&(number, _)| Member { number, fate: Fate::Waiting }));
            self.start(now, members, (shards, repairs), path);
        }
        for (_, shard) in open.members.drain(..) {
            self.work.pool.give_back(shard);
        }
        self.work.open = Open { members: open.members, ..Open::default() };
    }

    /// Makes the symbols: for a packet alone its own, which serves for all, else the code's.
    fn make_shards(&mut self, members: &[(u64, Vec<u8>)], repairs: usize, shards: &mut Vec<Vec<u8>>) {
        match members {
            _ if repairs == 0 => {}
            [(_, shard)] => shards.push(self.work.pool.copy(&shard[SHARD_HEAD_LEN..])),
            _ => {
                let members: SmallVec<[&[u8]; 64]> = members.iter().map(|(_, shard)| shard.as_slice()).collect();
                code::encode_into(&members, repairs, || self.work.pool.take(), shards);
            }
        }
    }

    fn start(&mut self, now: Time, members: Members, (shards, repairs): (Vec<Vec<u8>>, usize), path: &PathView) {
        if self.work.groups.len() == GROUPS_MAX
            && let Some(mut oldest) = self.work.groups.pop_front()
        {
            oldest.release(&mut self.work.released);
            self.first_id += 1;
            self.recycle(oldest);
        }
        let group = self.first_id + self.work.groups.len() as u64;
        let spacing = plan::spacing(path.rtt, path.burst.length);
        let mut last = now;
        for index in 0..repairs {
            let at = now + plan::offset(index, repairs, spacing);
            let place = self.work.schedule.partition_point(|due| due.at <= at);
            self.work.schedule.insert(place, Due { at, group, index: index as u8 });
            last = at;
        }
        let repairs = repairs as u8;
        let group = Group { members, shards, repairs, unsent: repairs, in_flight: 0, arrived: 0, last_repair_at: last };
        self.work.groups.push_back(group);
    }

    fn group(&mut self, id: u64) -> Option<&mut Group> {
        if self.work.groups.is_empty() {
            return None;
        }
        self.work.groups.get_mut(usize::try_from(id.checked_sub(self.first_id)?).ok()?)
    }

    /// The place of the first group that may have a member with that number or a greater one.
    fn place_of(&self, number: u64) -> usize {
        self.work.groups.partition_point(|group| group.members.last().is_none_or(|last| last.number < number))
    }

    fn group_of(&mut self, number: u64) -> Option<&mut Group> {
        let place = self.place_of(number);
        if place == self.work.groups.len() {
            return None;
        }
        self.work
            .groups
            .get_mut(place)
            .filter(|group| group.members.first().is_some_and(|first| first.number <= number))
    }

    /// Whether a symbol is to leave by then. Symbols that nobody needs any more are dropped.
    pub(crate) fn has_due(&mut self, by: Time) -> bool {
        self.told = self.told.max(by);
        while let Some(due) = self.work.schedule.front().copied().filter(|due| due.at <= by) {
            if self.group(due.group).is_some_and(|group| !group.is_settled()) {
                return true;
            }
            self.work.schedule.pop_front();
            self.on_not_sent(due.group);
        }
        false
    }

    fn on_not_sent(&mut self, id: u64) {
        if let Some(group) = self.group(id) {
            group.unsent -= 1;
            if group.unsent == 0 {
                let mut shards = std::mem::take(&mut group.shards);
                shards.drain(..).for_each(|shard| self.work.pool.give_back(shard));
                if let Some(group) = self.group(id) {
                    group.shards = shards;
                }
            }
        }
        self.trim();
    }

    /// Bytes of the next symbol and its frame, at most.
    pub(crate) fn next_len(&mut self) -> usize {
        let Some(due) = self.work.schedule.front().copied() else { return 0 };
        let shard = self.group(due.group).and_then(|group| group.shard(due.index)).map_or(0, <[u8]>::len);
        shard + repair_head_len_max(RANGES_MAX)
    }

    /// What is due can never leave.
    pub(crate) fn drop_due(&mut self, by: Time) {
        while let Some(due) = self.work.schedule.front().copied().filter(|due| due.at <= by) {
            self.work.schedule.pop_front();
            self.on_not_sent(due.group);
        }
    }

    /// Writes a symbol that is due by then into the packet with that number, if it fits, and gives its group; not one of a group
    /// of which the packet carries something already, in `frames`.
    pub(crate) fn write_repair(
        &mut self,
        now: Time,
        by: Time,
        (number, writer): (u64, &mut FrameWriter<'_>),
        frames: &[SentFrame],
    ) -> Option<u64> {
        let mut place = 0;
        loop {
            let due = *self.work.schedule.get(place).filter(|due| due.at <= by)?;
            let Some(group) = self.group(due.group).filter(|group| !group.is_settled()) else {
                self.work.schedule.remove(place);
                self.on_not_sent(due.group);
                continue;
            };
            let (ranges, which) = (group.ranges(), (due.index, group.repairs));
            let shard = group.shard(due.index).unwrap_or_default();
            // The last member may be this packet.
            let is_elsewhere = group.members.last().is_some_and(|last| last.number < number);
            if is_elsewhere
                && !frames.contains(&SentFrame::Repair { group: due.group })
                && let Some(out) = writer.begin_repair(number, &ranges, which, shard.len())
            {
                out.copy_from_slice(shard);
                let len = shard.len() as u64;
                group.in_flight += 1;
                group.last_repair_at = group.last_repair_at.max(now);
                self.counts.repairs_sent += 1;
                self.counts.repair_bytes_sent += len;
                self.work.schedule.remove(place);
                self.on_not_sent(due.group);
                return Some(due.group);
            }
            place += 1;
        }
    }

    /// A packet arrived.
    pub(crate) fn on_acked(&mut self, number: u64) {
        if let Some(member) = self.group_of(number).and_then(|group| group.member(number)) {
            member.fate = Fate::Settled;
            self.trim();
        }
    }

    /// The peer has restored packets (ranges, newest first). What they carried is acknowledged, if it was held back.
    pub(crate) fn on_recovered(&mut self, ranges: &[(u64, u64)], acked: &mut Vec<SentFrame>) {
        for &(first, last) in ranges {
            let place = self.place_of(first);
            if place == self.work.groups.len() {
                continue;
            }
            let groups = self.work.groups.range_mut(place..);
            let groups = groups.take_while(|group| group.members.first().is_some_and(|member| member.number <= last));
            for member in groups.flat_map(|group| &mut group.members) {
                if (first..=last).contains(&member.number) && !matches!(member.fate, Fate::Settled) {
                    if let Fate::Held(frames) = std::mem::replace(&mut member.fate, Fate::Settled) {
                        acked.extend(frames);
                    }
                    self.counts.recovered_by_peer += 1;
                }
            }
        }
        self.trim();
    }

    /// A packet is lost. What it carried is released, now or when its group cannot restore it any more.
    pub(crate) fn on_lost(&mut self, now: Time, number: u64, frames: SentFrames) {
        let mut released = std::mem::take(&mut self.work.released);
        let mut release_at = None;
        match self.group_of(number) {
            None => released.extend(frames),
            Some(group) => match group.member(number) {
                Some(member) if matches!(member.fate, Fate::Waiting) => {
                    member.fate = Fate::Held(frames);
                    release_at = Some(group.last_repair_at.max(now) + RELEASE_CHECK);
                    if !group.can_recover() {
                        group.release(&mut released);
                    }
                }
                // Its frames have arrived, by a symbol.
                Some(_) => {}
                None => released.extend(frames),
            },
        }
        self.release_at = self.release_at.or(release_at);
        self.work.released = released;
        self.trim();
    }

    /// A symbol of that group arrived.
    pub(crate) fn on_repair_acked(&mut self, id: u64) {
        if let Some(group) = self.group(id) {
            group.in_flight = group.in_flight.saturating_sub(1);
            group.arrived += 1;
        }
    }

    /// A symbol of that group is lost.
    pub(crate) fn on_repair_lost(&mut self, id: u64) {
        let mut released = std::mem::take(&mut self.work.released);
        if let Some(group) = self.group(id) {
            group.in_flight = group.in_flight.saturating_sub(1);
            if !group.can_recover() {
                group.release(&mut released);
            }
        }
        self.work.released = released;
        self.trim();
    }

    /// What has to be sent again, after all.
    pub(crate) fn take_released(&mut self) -> Option<SentFrame> {
        if self.work.released.is_empty() { None } else { self.work.released.pop() }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Time, path: &PathView) {
        self.told = self.told.max(now);
        if self.gather_until(path.rtt).is_some_and(|until| until <= now) {
            self.close(now, path);
        }
        if self.release_at.is_some_and(|at| at <= now) {
            self.release_overdue(now, path);
        }
        self.trim();
    }

    /// Gives up groups whose last symbol should have been acknowledged long ago.
    fn release_overdue(&mut self, now: Time, path: &PathView) {
        self.release_at = None;
        let work = &mut *self.work;
        for group in work.groups.iter_mut().filter(|group| group.held() > 0) {
            // As many symbols have arrived as it takes: the peer has what it needs, and only its report is late or lost.
            let reports = if group.held() <= usize::from(group.arrived) { REPORTS_WAITED_FOR } else { 1 };
            let at = group.last_repair_at + path.loss_delay * reports + ACK_SLACK;
            if at <= now {
                group.release(&mut work.released);
            } else {
                self.release_at = Some(self.release_at.map_or(at, |earlier| earlier.min(at)));
            }
        }
    }

    /// When something is to be done next: [`handle_timeout`](Self::handle_timeout), and then perhaps sending.
    pub(crate) fn next_timeout(&self, rtt: Duration) -> Option<Time> {
        self.release_at.into_iter().chain(self.upcoming()).chain(self.gather_until(rtt)).min()
    }

    /// When the next symbol will be due.
    pub(crate) fn upcoming(&self) -> Option<Time> {
        self.work.schedule.iter().map(|due| due.at).find(|&at| at > self.told)
    }

    /// Adds what it counted.
    pub(crate) fn stats(&self, stats: &mut FecStats) {
        stats.protected = self.counts.protected;
        stats.repairs_sent = self.counts.repairs_sent;
        stats.repair_bytes_sent = self.counts.repair_bytes_sent;
        stats.recovered_by_peer = self.counts.recovered_by_peer;
    }

    /// Fills in what is counted of the traffic.
    pub(crate) fn traffic(&self, traffic: &mut TrafficStats) {
        traffic.protected = self.counts.protected;
        traffic.repairs_sent = self.counts.repairs_sent;
        traffic.recovered_by_peer = self.counts.recovered_by_peer;
    }

    /// The connection is over.
    pub(crate) fn forget(&mut self) {
        self.members_max = 0;
        self.work = OnDemand::default();
    }

    fn trim(&mut self) {
        while self.work.groups.front().is_some_and(|group| group.is_settled() && group.unsent == 0) {
            if let Some(group) = self.work.groups.pop_front() {
                self.recycle(group);
            }
            self.first_id += 1;
        }
    }

    /// Keeps the memory of a group that is over.
    fn recycle(&mut self, mut group: Group) {
        group.shards.drain(..).for_each(|shard| self.work.pool.give_back(shard));
        group.members.clear();
        if self.work.spare_groups.len() < SPARE_GROUPS_MAX {
            self.work.spare_groups.push((group.members, group.shards));
        }
    }

    /// Nothing has been sent for a while: frees memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.work.shrink();
    }
}
