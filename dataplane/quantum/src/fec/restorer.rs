//! The receiving side: puts lost packets together again from repair symbols and the packets that came.

use std::collections::VecDeque;
use std::sync::LazyLock;

use smallvec::SmallVec;

use super::gaps::Gaps;
use super::on_demand::{OnDemand, Work};
use super::pool::Pool;
use super::reports::Reports;
use super::{FecConfig, FecMode, SHARD_HEAD_LEN, code};
use crate::range_set::RangeSet;
use crate::recovery::ReceivedPackets;
use crate::sent_frame::{SentFrame, SentFrames};
use crate::stats::{FecStats, TrafficStats};
use crate::wire::{FrameWriter, REPAIR_MEMBERS_MAX, Repair};
use crate::{Time, TransportError, TransportErrorCode};

/// Symbols of packets are kept while repair symbols come: after so many packets without one they are not. The first packets of
/// a connection count as if one had come.
const KEPT_AFTER_REPAIR: u32 = 1_024;
/// Symbols of packets kept at most: more than a group has members.
const SYMBOLS_MAX: usize = 256;
/// Groups that wait for more at most.
const GROUPS_MAX: usize = 64;
/// Ranges of restored numbers that are remembered: a second symbol must not restore them again.
const RESTORED_RANGES_MAX: usize = 256;
type Numbers = SmallVec<[u64; 16]>;

/// A group that could not be restored yet.
#[derive(Debug)]
struct Waiting {
    /// By number.
    members: Numbers,
    repairs: usize,
    symbols: Vec<(usize, Vec<u8>)>,
}

/// The packets of a group, as far as they are known.
struct View<'a> {
    shards: Vec<Option<Vec<u8>>>,
    missing: SmallVec<[u64; 4]>,
    waiting: &'a Waiting,
}

/// Forward error correction of what is received.
#[derive(Debug)]
pub(crate) struct Restorer {
    is_on: bool,
    memory_max: usize,
    work: OnDemand<Gathered>,
    /// Bytes of symbols, and of groups that wait.
    kept: usize,
    packets_since_repair: u32,
    /// Numbers that were restored, and those below which nobody knows.
    restored: RangeSet,
    restored_floor: u64,
    counts: Counts,
}

/// What has come and may be of use, and what is to be said of it.
#[derive(Debug, Default)]
struct Gathered {
    /// The symbols of packets that came, by number.
    symbols: VecDeque<(u64, Vec<u8>)>,
    waiting: VecDeque<Waiting>,
    reports: Reports,
    /// Since when numbers are missing.
    gaps: Gaps,
    /// What was restored and has to be taken apart.
    output: VecDeque<(u64, Vec<u8>)>,
    pool: Pool,
}

impl Work for Gathered {
    fn none() -> &'static Self {
        static NONE: LazyLock<Gathered> = LazyLock::new(Gathered::default);
        &NONE
    }

    fn shrink(&mut self) -> bool {
        self.pool = Pool::default();
        self.gaps.forget();
        self.symbols.shrink_to_fit();
        self.waiting.shrink_to_fit();
        self.output.shrink_to_fit();
        self.symbols.is_empty() && self.waiting.is_empty() && self.output.is_empty() && self.reports.is_empty()
    }
}

/// What was done.
#[derive(Debug, Default)]
struct Counts {
    recovered: u64,
    repairs_received: u64,
    wasted: u64,
}

impl Restorer {
    /// Nothing received.
    pub(crate) fn new(config: &FecConfig) -> Self {
        Self {
            is_on: config.mode != FecMode::Off,
            memory_max: config.memory_max,
            work: OnDemand::default(),
            kept: 0,
            packets_since_repair: 0,
            restored: RangeSet::new(),
            restored_floor: 0,
            counts: Counts::default(),
        }
    }

    /// Whether the symbols of packets are kept.
    pub(crate) fn keeps_symbols(&self) -> bool {
        self.is_on && self.packets_since_repair < KEPT_AFTER_REPAIR
    }

    /// A packet came, and until then none greater than `largest`.
    pub(crate) fn on_packet(&mut self, now: Time, number: u64, largest: Option<u64>) {
        if let Some(largest) = largest.filter(|_| self.keeps_symbols()) {
            self.work.gaps.on_packet(now, number, largest);
        }
    }

    /// Since when the number is missing, if that is still known.
    pub(crate) fn missing_since(&self, number: u64) -> Option<Time> {
        self.work.gaps.since(number)
    }

    /// A packet came, whose symbol consists of these parts.
    pub(crate) fn on_symbol<'a>(
        &mut self,
        number: u64,
        parts: impl Iterator<Item = &'a [u8]>,
        received: &ReceivedPackets,
    ) -> Result<(), TransportError> {
        self.packets_since_repair += 1;
        if self.packets_since_repair >= KEPT_AFTER_REPAIR {
            while self.kept > 0 {
                self.drop_oldest();
            }
            return Ok(());
        }
        let mut shard = self.work.pool.take();
        shard.extend_from_slice(&[0; 2]);
        shard.extend_from_slice(&number.to_be_bytes());
        parts.for_each(|part| shard.extend_from_slice(part));
        let len = (shard.len() - SHARD_HEAD_LEN) as u16;
        if len == 0 {
            self.give_back(shard);
            return Ok(());
        }
        shard[..2].copy_from_slice(&len.to_be_bytes());
        self.kept += shard.len();
        let place = self.work.symbols.partition_point(|(other, _)| *other < number);
        self.work.symbols.insert(place, (number, shard));
        while self.kept > self.memory_max || self.work.symbols.len() > SYMBOLS_MAX {
            self.drop_oldest();
        }
        if let Some(place) = self.work.waiting.iter().position(|group| group.members.contains(&number)) {
            self.try_waiting(place, received)?;
        }
        Ok(())
    }

    /// Takes a buffer that is not needed any more.
    pub(crate) fn give_back(&mut self, buffer: Vec<u8>) {
        self.work.pool.give_back(buffer);
    }

    fn drop_oldest(&mut self) {
        if let Some((_, shard)) = self.work.symbols.pop_front() {
            self.kept -= shard.len();
            self.give_back(shard);
        } else {
            self.drop_waiting(0);
        }
    }

    fn drop_waiting(&mut self, place: usize) -> Option<Waiting> {
        let group = self.work.waiting.remove(place)?;
        self.kept -= group.symbols.iter().map(|(_, data)| data.len()).sum::<usize>();
        Some(group)
    }

    /// A REPAIR frame came in the packet with that number.
    pub(crate) fn on_repair(
        &mut self,
        number: u64,
        repair: &Repair<'_>,
        received: &ReceivedPackets,
    ) -> Result<(), TransportError> {
        let members = repair.members(number).ok_or(violation("a repair symbol of packets that never were"))?;
        if !self.is_on {
            return Err(violation("a repair symbol that was not asked for"));
        }
        self.packets_since_repair = 0;
        self.counts.repairs_received += 1;
        let mut members: Numbers = members.flat_map(std::iter::IntoIterator::into_iter).collect();
        members.sort_unstable();
        debug_assert!(members.len() as u64 <= REPAIR_MEMBERS_MAX);
        if members.len() + usize::from(repair.repairs) > code::SHARDS_MAX
            || usize::from(repair.repairs) > code::REPAIRS_MAX
        {
            return Err(violation("a group of too many packets and repair symbols"));
        }
        if !members.iter().any(|&member| self.is_missing(member, received)) {
            self.counts.wasted += 1;
            return Ok(());
        }
        if let [member] = members[..] {
            let symbol = self.work.pool.copy(repair.data);
            self.restore(member, symbol);
            return Ok(());
        }
        self.wait(members, repair, received)
    }

    /// Keeps the symbol with those of its group, and sees whether they suffice.
    fn wait(
        &mut self,
        members: Numbers,
        repair: &Repair<'_>,
        received: &ReceivedPackets,
    ) -> Result<(), TransportError> {
        let (index, repairs) = (usize::from(repair.index), usize::from(repair.repairs));
        let place = self.work.waiting.iter().position(|group| group.members == members && group.repairs == repairs);
        let place = place.unwrap_or_else(|| {
            if self.work.waiting.len() == GROUPS_MAX {
                let dropped = self.drop_waiting(0);
                self.counts.wasted += dropped.map_or(0, |group| group.symbols.len() as u64);
            }
            self.work.waiting.push_back(Waiting { members, repairs, symbols: Vec::new() });
            self.work.waiting.len() - 1
        });
        let work = &mut *self.work;
        let group = &mut work.waiting[place];
        let fits = group.symbols.first().is_none_or(|(_, data)| data.len() == repair.data.len());
        if !fits || group.symbols.iter().any(|&(other, _)| other == index) {
            return Err(violation("a repair symbol twice, or of another length than the others"));
        }
        group.symbols.push((index, work.pool.copy(repair.data)));
        self.kept += repair.data.len();
        self.try_waiting(place, received)?;
        while self.kept > self.memory_max {
            self.drop_oldest();
        }
        Ok(())
    }

    /// Restores what a waiting group lacks, if it can; the group goes if it lacks nothing any more.
    fn try_waiting(&mut self, place: usize, received: &ReceivedPackets) -> Result<(), TransportError> {
        let waiting = &self.work.waiting[place];
        let lacks = |&&number: &&u64| self.work.symbols.binary_search_by_key(&number, |(other, _)| *other).is_err();
        let lacking = waiting.members.iter().filter(lacks).count();
        if lacking > waiting.symbols.len() && waiting.members.iter().any(|&number| self.is_missing(number, received)) {
            return Ok(());
        }
        let View { shards, missing, waiting } = self.view(place, received);
        if missing.is_empty() {
            let dropped = self.drop_waiting(place);
            self.counts.wasted += dropped.map_or(0, |group| group.symbols.len() as u64);
            return Ok(());
        }
        if shards.iter().filter(|shard| shard.is_none()).count() > waiting.symbols.len() {
            return Ok(());
        }
        let known: Vec<Option<&[u8]>> = shards.iter().map(Option::as_deref).collect();
        let symbols: Vec<code::Repair<'_>> =
            waiting.symbols.iter().map(|(index, data)| (*index, data.as_slice())).collect();
        let restored = code::decode(&known, waiting.repairs, &symbols);
        let restored = restored.ok_or(violation("repair symbols that do not fit their packets"))?;
        let members = waiting.members.clone();
        self.drop_waiting(place);
        for (index, shard) in restored {
            let number = members[index];
            if missing.contains(&number) {
                let symbol = symbol_of(number, &shard);
                self.restore(number, symbol.ok_or(violation("a repair symbol restores no packet"))?.to_vec());
            }
        }
        Ok(())
    }

    fn view(&self, place: usize, received: &ReceivedPackets) -> View<'_> {
        let waiting = &self.work.waiting[place];
        let shard = |&number: &u64| {
            let place = self.work.symbols.binary_search_by_key(&number, |(other, _)| *other).ok()?;
            Some(self.work.symbols[place].1.clone())
        };
        let missing = waiting.members.iter().copied().filter(|&member| self.is_missing(member, received)).collect();
        View { shards: waiting.members.iter().map(shard).collect(), missing, waiting }
    }

    fn is_missing(&self, number: u64, received: &ReceivedPackets) -> bool {
        !received.is_duplicate(number) && number >= self.restored_floor && !self.restored.contains(number)
    }

    /// Whether the packet with that number, which has come, had been restored before, or may have been so long ago that nobody
    /// knows.
    pub(crate) fn was_restored(&self, number: u64) -> bool {
        number < self.restored_floor || self.restored.contains(number)
    }

    fn restore(&mut self, number: u64, symbol: Vec<u8>) {
        self.restored.insert(number);
        if self.restored.len() > RESTORED_RANGES_MAX
            && let Some((_, last)) = self.restored.pop_oldest()
        {
            self.restored_floor = last + 1;
        }
        self.counts.recovered += 1;
        self.work.reports.push(number);
        self.work.output.push_back((number, symbol));
    }

    /// The number and the symbol of a packet that was restored and whose frames have not been seen.
    pub(crate) fn take_restored(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.work.output.is_empty() { None } else { self.work.output.pop_front() }
    }

    /// Whether a report is to be sent.
    pub(crate) fn wants_report(&self) -> bool {
        self.work.reports.is_pending()
    }

    /// Writes RECOVERED, if there is something to report and it fits.
    pub(crate) fn write_report(&mut self, writer: &mut FrameWriter<'_>, sent: &mut SentFrames) -> bool {
        let ranges = self.work.reports.next();
        let fits = !ranges.is_empty() && writer.recovered(&ranges);
        if fits {
            for (first, last) in ranges {
                self.work.reports.on_sent((first, last));
                sent.push(SentFrame::Recovered { first, last });
            }
        }
        fits
    }

    /// A report arrived.
    pub(crate) fn on_report_acked(&mut self, first: u64, last: u64) {
        self.work.reports.on_acked((first, last));
    }

    /// A report was lost.
    pub(crate) fn on_report_lost(&mut self, first: u64, last: u64) {
        self.work.reports.on_lost((first, last));
    }

    /// Bytes kept for groups.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Adds what it counted.
    pub(crate) fn stats(&self, stats: &mut FecStats) {
        stats.recovered = self.counts.recovered;
        stats.repairs_received = self.counts.repairs_received;
        stats.wasted = self.counts.wasted;
        stats.kept_bytes = self.kept();
    }

    /// Fills in what is counted of the traffic.
    pub(crate) fn traffic(&self, traffic: &mut TrafficStats) {
        traffic.repairs_received = self.counts.repairs_received;
        traffic.repairs_wasted = self.counts.wasted;
    }

    /// Nothing has come for a while, so what is kept for groups is of no use: frees it.
    pub(crate) fn forget(&mut self) {
        self.counts.wasted += self.work.waiting.iter().map(|group| group.symbols.len() as u64).sum::<u64>();
        self.work.symbols.clear();
        self.work.waiting.clear();
        self.work.shrink();
        self.restored.shrink();
        self.kept = 0;
    }
}

/// The symbol in the restored shard of the packet with that number; none if it is another's, or its length impossible.
fn symbol_of(number: u64, shard: &[u8]) -> Option<&[u8]> {
    let (head, rest) = shard.split_first_chunk::<SHARD_HEAD_LEN>()?;
    let [high, low, own @ ..] = *head;
    let len = usize::from(u16::from_be_bytes([high, low]));
    rest.get(..len).filter(|_| u64::from_be_bytes(own) == number)
}

fn violation(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::ProtocolViolation, reason)
}
