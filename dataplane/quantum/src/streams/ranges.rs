//! Sets of stream offsets.

use std::collections::VecDeque;
use std::ops::Range;

/// A set of numbers, kept as ranges that neither overlap nor touch, in order. Work happens at the front nearly always, where
/// it is cheap; what lies in the middle moves the nearer half.
#[derive(Debug, Default)]
pub(super) struct RangeSet(VecDeque<Range<u64>>);

impl RangeSet {
    /// Whether the set is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lowest range.
    pub(super) fn first(&self) -> Option<Range<u64>> {
        self.0.front().cloned()
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }

    /// Adds a range.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Those that overlap or touch it become one with it.
        let low = self.0.partition_point(|have| have.end < range.start);
        let high = self.0.partition_point(|have| have.start <= range.end);
        if low == high {
            self.0.insert(low, range);
            return;
        }
        let merged = range.start.min(self.0[low].start)..range.end.max(self.0[high - 1].end);
        self.0[low] = merged;
        self.0.drain(low + 1..high);
    }

    /// Takes a range away.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let low = self.0.partition_point(|have| have.end <= range.start);
        let high = self.0.partition_point(|have| have.start < range.end);
        if low == high {
            return;
        }
        let before = self.0[low].start..range.start;
        let after = range.end..self.0[high - 1].end;
        self.0.drain(low..high);
        for rest in [after, before] {
            if !rest.is_empty() {
                self.0.insert(low, rest);
            }
        }
    }

    /// The parts of `range` that are not in the set, in order.
    pub(super) fn missing(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut index = self.0.partition_point(|have| have.end <= range.start);
        let mut start = range.start;
        std::iter::from_fn(move || {
            while start < range.end {
                let have = self.0.get(index).filter(|have| have.start < range.end);
                let gap = start..have.map_or(range.end, |have| have.start);
                start = have.map_or(range.end, |have| have.end);
                index += 1;
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_set_holds_what_a_set_of_numbers_would(
            steps in prop::collection::vec((any::<bool>(), 0_u64..60, 0_u64..20), 0..60),
            probe in (0_u64..60, 0_u64..20),
        ) {
            let mut ranges = RangeSet::default();
            let mut numbers = BTreeSet::new();
            for (adds, start, len) in steps {
                let range = start..start + len;
                if adds {
                    ranges.insert(range.clone());
                    numbers.extend(range);
                } else {
                    ranges.remove(range.clone());
                    numbers.retain(|number| !range.contains(number));
                }
                prop_assert!(ranges.0.iter().all(|range| !range.is_empty()));
                prop_assert!(ranges.0.iter().zip(ranges.0.iter().skip(1)).all(|(low, high)| low.end < high.start));
            }
            let held: Vec<u64> = ranges.0.iter().cloned().flatten().collect();
            prop_assert_eq!(&held, &numbers.iter().copied().collect::<Vec<_>>());
            let probe = probe.0..probe.0 + probe.1;
            let missing: Vec<u64> = ranges.missing(probe.clone()).flatten().collect();
            let expected: Vec<u64> = probe.filter(|number| !numbers.contains(number)).collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
