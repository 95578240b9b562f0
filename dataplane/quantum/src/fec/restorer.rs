//! The receiving side: puts lost packets together again from repair symbols and the packets that came.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;

use super::gaps::Gaps;
use super::pool::Pool;
use super::reports::Reports;
use super::{FecConfig, FecMode, SHARD_HEAD_LEN, code};
use crate::range_set::RangeSet;
use crate::recovery::ReceivedPackets;
use crate::sent_frame::{SentFrame, SentFrames};
use crate::stats::FecStats;
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
/// What is kept for groups is of no use so long after the last packet.
const KEPT_FOR: Duration = Duration::from_secs(2);

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
    /// The symbols of packets that came, by number.
    symbols: VecDeque<(u64, Vec<u8>)>,
    waiting: VecDeque<Waiting>,
    /// Bytes of both.
    kept: usize,
    packets_since_repair: u32,
    /// Numbers that were restored, and those below which nobody knows.
    restored: RangeSet,
    restored_floor: u64,
    reports: Reports,
    /// Since when numbers are missing.
    gaps: Gaps,
    /// What was restored and has to be taken apart.
    output: VecDeque<(u64, Vec<u8>)>,
    pool: Pool,
    used_at: Option<Time>,
    stats: FecStats,
}

impl Restorer {
    /// Nothing received.
    pub(crate) fn new(config: &FecConfig) -> Self {
        Self {
            is_on: config.mode != FecMode::Off,
            memory_max: config.memory_max,
            symbols: VecDeque::new(),
            waiting: VecDeque::new(),
            kept: 0,
            packets_since_repair: 0,
            restored: RangeSet::new(),
            restored_floor: 0,
            reports: Reports::default(),
            gaps: Gaps::default(),
            output: VecDeque::new(),
            pool: Pool::default(),
            used_at: None,
            stats: FecStats::default(),
        }
    }

    /// Whether the symbols of packets are kept.
    pub(crate) fn keeps_symbols(&self) -> bool {
        self.is_on && self.packets_since_repair < KEPT_AFTER_REPAIR
    }

    /// A packet came, and until then none greater than `largest`.
    pub(crate) fn on_packet(&mut self, now: Time, number: u64, largest: Option<u64>) {
        if let Some(largest) = largest.filter(|_| self.keeps_symbols()) {
            self.gaps.on_packet(now, number, largest);
        }
    }

    /// Since when the number is missing, if that is still known.
    pub(crate) fn missing_since(&self, number: u64) -> Option<Time> {
        self.gaps.since(number)
    }

    /// A packet came, whose symbol consists of these parts.
    pub(crate) fn on_symbol<'a>(
        &mut self,
        now: Time,
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
        let mut shard = self.pool.take();
        shard.extend_from_slice(&[0; 2]);
        shard.extend_from_slice(&number.to_be_bytes());
        parts.for_each(|part| shard.extend_from_slice(part));
        let len = (shard.len() - SHARD_HEAD_LEN) as u16;
        if len == 0 {
            self.give_back(shard);
            return Ok(());
        }
        shard[..2].copy_from_slice(&len.to_be_bytes());
        self.used_at = Some(now);
        self.kept += shard.len();
        let place = self.symbols.partition_point(|(other, _)| *other < number);
        self.symbols.insert(place, (number, shard));
        while self.kept > self.memory_max || self.symbols.len() > SYMBOLS_MAX {
            self.drop_oldest();
        }
        if let Some(place) = self.waiting.iter().position(|group| group.members.contains(&number)) {
            self.try_waiting(place, received)?;
        }
        Ok(())
    }

    /// Takes a buffer that is not needed any more.
    pub(crate) fn give_back(&mut self, buffer: Vec<u8>) {
        self.pool.give_back(buffer);
    }

    fn drop_oldest(&mut self) {
        if let Some((_, shard)) = self.symbols.pop_front() {
            self.kept -= shard.len();
            self.give_back(shard);
        } else {
            self.drop_waiting(0);
        }
    }

    fn drop_waiting(&mut self, place: usize) -> Option<Waiting> {
        let group = self.waiting.remove(place)?;
        self.kept -= group.symbols.iter().map(|(_, data)| data.len()).sum::<usize>();
        Some(group)
    }

    /// A REPAIR frame came in the packet with that number.
    pub(crate) fn on_repair(
        &mut self,
        now: Time,
        number: u64,
        repair: &Repair<'_>,
        received: &ReceivedPackets,
    ) -> Result<(), TransportError> {
        let members = repair.members(number).ok_or(violation("a repair symbol of packets that never were"))?;
        if !self.is_on {
            return Err(violation("a repair symbol that was not asked for"));
        }
        self.packets_since_repair = 0;
        self.stats.repairs_received += 1;
        let mut members: Numbers = members.flat_map(std::iter::IntoIterator::into_iter).collect();
        members.sort_unstable();
        debug_assert!(members.len() as u64 <= REPAIR_MEMBERS_MAX);
        if members.len() + usize::from(repair.repairs) > code::SHARDS_MAX
            || usize::from(repair.repairs) > code::REPAIRS_MAX
        {
            return Err(violation("a group of too many packets and repair symbols"));
        }
        if !members.iter().any(|&member| self.is_missing(member, received)) {
            self.stats.wasted += 1;
            return Ok(());
        }
        if let [member] = members[..] {
            let symbol = self.pool.copy(repair.data);
            self.restore(member, symbol);
            return Ok(());
        }
        self.used_at = Some(now);
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
        let place = self.waiting.iter().position(|group| group.members == members && group.repairs == repairs);
        let place = place.unwrap_or_else(|| {
            if self.waiting.len() == GROUPS_MAX {
                let dropped = self.drop_waiting(0);
                self.stats.wasted += dropped.map_or(0, |group| group.symbols.len() as u64);
            }
            self.waiting.push_back(Waiting { members, repairs, symbols: Vec::new() });
            self.waiting.len() - 1
        });
        let group = &mut self.waiting[place];
        let fits = group.symbols.first().is_none_or(|(_, data)| data.len() == repair.data.len());
        if !fits || group.symbols.iter().any(|&(other, _)| other == index) {
            return Err(violation("a repair symbol twice, or of another length than the others"));
        }
        group.symbols.push((index, self.pool.copy(repair.data)));
        self.kept += repair.data.len();
        self.try_waiting(place, received)?;
        while self.kept > self.memory_max {
            self.drop_oldest();
        }
        Ok(())
    }

    /// Restores what a waiting group lacks, if it can; the group goes if it lacks nothing any more.
    fn try_waiting(&mut self, place: usize, received: &ReceivedPackets) -> Result<(), TransportError> {
        let waiting = &self.waiting[place];
        let lacks = |&&number: &&u64| self.symbols.binary_search_by_key(&number, |(other, _)| *other).is_err();
        let lacking = waiting.members.iter().filter(lacks).count();
        if lacking > waiting.symbols.len() && waiting.members.iter().any(|&number| self.is_missing(number, received)) {
            return Ok(());
        }
        let View { shards, missing, waiting } = self.view(place, received);
        if missing.is_empty() {
            let dropped = self.drop_waiting(place);
            self.stats.wasted += dropped.map_or(0, |group| group.symbols.len() as u64);
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
        let waiting = &self.waiting[place];
        let shard = |&number: &u64| {
            let place = self.symbols.binary_search_by_key(&number, |(other, _)| *other).ok()?;
            Some(self.symbols[place].1.clone())
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
        self.stats.recovered += 1;
        self.reports.push(number);
        self.output.push_back((number, symbol));
    }

    /// The number and the symbol of a packet that was restored and whose frames have not been seen.
    pub(crate) fn take_restored(&mut self) -> Option<(u64, Vec<u8>)> {
        self.output.pop_front()
    }

    /// Whether a report is to be sent.
    pub(crate) fn wants_report(&self) -> bool {
        self.reports.is_pending()
    }

    /// Writes RECOVERED, if there is something to report and it fits.
    pub(crate) fn write_report(&mut self, writer: &mut FrameWriter<'_>, sent: &mut SentFrames) -> bool {
        let ranges = self.reports.next();
        let fits = !ranges.is_empty() && writer.recovered(&ranges);
        if fits {
            for (first, last) in ranges {
                self.reports.on_sent((first, last));
                sent.push(SentFrame::Recovered { first, last });
            }
        }
        fits
    }

    /// A report arrived.
    pub(crate) fn on_report_acked(&mut self, first: u64, last: u64) {
        self.reports.on_acked((first, last));
    }

    /// A report was lost.
    pub(crate) fn on_report_lost(&mut self, first: u64, last: u64) {
        self.reports.on_lost((first, last));
    }

    /// When memory can be freed.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.used_at.map(|used_at| used_at + KEPT_FOR)
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if self.next_timeout().is_some_and(|at| at <= now) {
            self.forget();
        }
    }

    /// Bytes kept for groups.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// Adds what it counted.
    pub(crate) fn stats(&self, stats: &mut FecStats) {
        stats.recovered = self.stats.recovered;
        stats.repairs_received = self.stats.repairs_received;
        stats.wasted = self.stats.wasted;
        stats.kept_bytes = self.kept();
    }

    /// Frees what is kept for groups.
    pub(crate) fn forget(&mut self) {
        self.stats.wasted += self.waiting.iter().map(|group| group.symbols.len() as u64).sum::<u64>();
        self.symbols = VecDeque::new();
        self.waiting = VecDeque::new();
        self.pool = Pool::default();
        self.gaps.forget();
        self.kept = 0;
        self.used_at = None;
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
