//! The part of a source that is to be read: what `--range` or another tool's
//! map selects.
//!
//! Invariant: the ranges are not empty, ascend, and do not touch each other.

use std::ops::Range;

/// A set of byte ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domain {
    ranges: Vec<Range<u64>>,
}

impl Domain {
    /// Everything: `[0, size)`.
    pub fn whole(size: u64) -> Self {
        Self::from_ranges(std::iter::once(0..size))
    }

    /// The union of `ranges`, which may come in any order and overlap.
    pub fn from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        sorted.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }

    /// The same ranges widened to whole sectors of `sector_bytes`, and cut off at
    /// the end of a source of `size` bytes.
    pub fn aligned(&self, sector_bytes: u64, size: u64) -> Self {
        let inside = self.ranges.iter().filter(|range| range.start < size);
        Self::from_ranges(inside.map(|range| {
            let start = range.start - range.start % sector_bytes;
            let end = range.end.min(size);
            let end = end.checked_next_multiple_of(sector_bytes).unwrap_or(size);
            start..end.min(size)
        }))
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// How many bytes are selected.
    pub fn bytes(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// Whether the byte at `offset` is selected.
    pub fn contains(&self, offset: u64) -> bool {
        self.next(offset).is_some_and(|range| range.start <= offset)
    }

    /// The first range that ends after `from`.
    pub fn next(&self, from: u64) -> Option<Range<u64>> {
        let at = self.ranges.partition_point(|range| range.end <= from);
        self.ranges.get(at).cloned()
    }

    /// The last range that starts before `before`.
    pub fn prev(&self, before: u64) -> Option<Range<u64>> {
        let at = self.ranges.partition_point(|range| range.start < before);
        self.ranges[..at].last().cloned()
    }
}
