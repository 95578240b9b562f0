//! A set of numbers, kept as sorted, disjoint, inclusive ranges.

use std::collections::VecDeque;

/// Numbers as inclusive ranges. Adding at the newest end costs constant time, anything else a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Ascending; between two neighbours at least one number is missing.
    ranges: VecDeque<(u64, u64)>,
}

impl RangeSet {
    /// The empty set.
    pub(crate) const fn new() -> Self {
        Self { ranges: VecDeque::new() }
    }

    /// Adds one number; whether it was missing.
    pub(crate) fn insert(&mut self, value: u64) -> bool {
        if let Some(newest) = self.ranges.back_mut()
            && newest.1.checked_add(1) == Some(value)
        {
            newest.1 = value;
            return true;
        }
        let missing = !self.contains(value);
        if missing {
            self.insert_range(value, value);
        }
        missing
    }

    /// Adds `first..=last`. An inverted range adds nothing.
    pub(crate) fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // Ranges that overlap or touch the added one: `start..end`.
        let start = self.ranges.partition_point(|range| range.1.saturating_add(1) < first);
        let end = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        if start == end {
            self.ranges.insert(start, (first, last));
            return;
        }
        let merged = (first.min(self.ranges[start].0), last.max(self.ranges[end - 1].1));
        self.ranges[start] = merged;
        self.ranges.drain(start + 1..end);
    }

    /// Whether the number is in the set.
    pub(crate) fn contains(&self, value: u64) -> bool {
        let index = self.ranges.partition_point(|range| range.1 < value);
        self.ranges.get(index).is_some_and(|range| range.0 <= value)
    }

    /// Removes every number below `floor`.
    pub(crate) fn remove_below(&mut self, floor: u64) {
        while let Some(oldest) = self.ranges.front_mut() {
            if oldest.0 >= floor {
                return;
            }
            if oldest.1 >= floor {
                oldest.0 = floor;
                return;
            }
            self.ranges.pop_front();
        }
    }

    /// Removes `first..=last`. An inverted range removes nothing.
    pub(crate) fn remove_range(&mut self, first: u64, last: u64) {
        let start = self.ranges.partition_point(|range| range.1 < first);
        let end = self.ranges.partition_point(|range| range.0 <= last);
        if first > last || start >= end {
            return;
        }
        let (head, tail) = (self.ranges[start].0, self.ranges[end - 1].1);
        self.ranges.drain(start..end);
        if tail > last {
            self.ranges.insert(start, (last + 1, tail));
        }
        if head < first {
            self.ranges.insert(start, (head, first - 1));
        }
    }

    /// Removes and returns the oldest range.
    pub(crate) fn pop_oldest(&mut self) -> Option<(u64, u64)> {
        self.ranges.pop_front()
    }

    /// The range that holds the least numbers.
    pub(crate) fn oldest(&self) -> Option<(u64, u64)> {
        self.ranges.front().copied()
    }

    /// The range that holds the greatest numbers.
    pub(crate) fn newest(&self) -> Option<(u64, u64)> {
        self.ranges.back().copied()
    }

    /// The greatest number.
    pub(crate) fn largest(&self) -> Option<u64> {
        self.ranges.back().map(|range| range.1)
    }

    /// The ranges, newest first.
    pub(crate) fn iter_newest_first(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + Clone + '_ {
        self.ranges.iter().rev().copied()
    }

    /// Frees memory that holds nothing.
    pub(crate) fn shrink(&mut self) {
        self.ranges.shrink_to_fit();
    }

    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::new();
        for &(first, last) in ranges {
            set.insert_range(first, last);
        }
        set
    }

    #[test]
    fn a_number_that_closes_a_gap_joins_both_ranges() {
        let mut set = of(&[(1, 3), (5, 7)]);
        assert!(set.insert(4));
        assert!(!set.insert(4));
        assert_eq!(set.iter_newest_first().collect::<Vec<_>>(), [(1, 7)]);
    }

    #[test]
    fn the_greatest_numbers_do_not_overflow() {
        let mut set = of(&[(u64::MAX - 1, u64::MAX)]);
        assert!(!set.insert(u64::MAX));
        set.insert_range(0, u64::MAX);
        assert_eq!(set.newest(), Some((0, u64::MAX)));
        set.remove_range(u64::MAX, u64::MAX);
        assert_eq!(set.largest(), Some(u64::MAX - 1));
    }

    #[test]
    fn inverted_ranges_change_nothing() {
        let mut set = of(&[(1, 9)]);
        set.insert_range(20, 12);
        set.remove_range(5, 4);
        assert_eq!(set, of(&[(1, 9)]));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds(steps in prop::collection::vec((0..4u8, 0..64u64, 0..12u64), 0..120)) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (action, first, length) in steps {
                let last = first + length;
                match action {
                    0 => prop_assert_eq!(set.insert(first), model.insert(first)),
                    1 => { set.insert_range(first, last); model.extend(first..=last); }
                    2 => { set.remove_range(first, last); model.retain(|value| !(first..=last).contains(value)); }
                    _ => { set.remove_below(first); model.retain(|value| *value >= first); }
                }
                let held: BTreeSet<u64> = set.iter_newest_first().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(&held, &model);
                let ranges: Vec<_> = set.iter_newest_first().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[1].1 + 1 < pair[0].0));
                prop_assert!((0..80).all(|value| set.contains(value) == model.contains(&value)));
            }
        }
    }
}
