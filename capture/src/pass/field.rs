//! The ground that passes work on: the map, restricted to the domain, in whole
//! sectors.
//!
//! Invariant: every position that it takes or gives is a multiple of the sector
//! size, or the end of the source. The map itself may be finer, if it comes from
//! a run with smaller sectors: then a sector is read whole, and one read
//! settles all of it but what is copied already.

use std::ops::Range;

use super::{PlanOptions, Read};
use crate::map::{Domain, Outcome, RangeState, RescueMap, StateKind};

#[derive(Debug, Clone)]
pub(super) struct Field {
    map: RescueMap,
    domain: Domain,
    sector: u64,
    piece: u64,
    cluster: u64,
}

impl Field {
    /// `domain` must be aligned to sectors; the map need not be.
    /// The options' sizes must be multiples of each other.
    pub(super) fn new(map: RescueMap, domain: Domain, options: &PlanOptions) -> Self {
        Self {
            map,
            domain,
            sector: u64::from(options.sector_bytes),
            piece: options.piece_bytes,
            cluster: options.cluster_bytes,
        }
    }

    pub(super) fn map(&self) -> &RescueMap {
        &self.map
    }

    pub(super) fn into_map(self) -> RescueMap {
        self.map
    }

    pub(super) fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(super) fn sector(&self) -> u64 {
        self.sector
    }

    /// What is read forwards when going backwards sector by sector.
    pub(super) fn piece(&self) -> u64 {
        self.piece
    }

    pub(super) fn cluster(&self) -> u64 {
        self.cluster
    }

    pub(super) fn size(&self) -> u64 {
        self.map.size()
    }

    pub(super) fn is_complete(&self) -> bool {
        [
            StateKind::Untried,
            StateKind::Untrimmed,
            StateKind::Unscraped,
        ]
        .into_iter()
        .all(|kind| self.next(kind, 0).is_none())
    }

    /// The first stretch of this kind that ends after `from`, cut off at `from`.
    pub(super) fn next(&self, kind: StateKind, from: u64) -> Option<Range<u64>> {
        let mut from = from;
        loop {
            let run = self.map.next_run(kind, from)?;
            let start = run.start.max(from);
            let allowed = self.domain.next(start)?;
            let found = start.max(allowed.start)..run.end().min(allowed.end);
            if !found.is_empty() {
                return Some(self.widened(found));
            }
            from = allowed.start;
        }
    }

    /// The last stretch of this kind that starts before `before`, cut off there.
    pub(super) fn prev(&self, kind: StateKind, before: u64) -> Option<Range<u64>> {
        let mut before = before;
        loop {
            let run = self.map.prev_run(kind, before)?;
            let end = run.end().min(before);
            let allowed = self.domain.prev(end)?;
            let found = run.start.max(allowed.start)..end.min(allowed.end);
            if !found.is_empty() {
                return Some(self.widened(found));
            }
            before = allowed.end;
        }
    }

    /// What the byte before `at` is; `None` at the beginning.
    pub(super) fn before(&self, at: u64) -> Option<StateKind> {
        self.map.state_before(at).map(|state| state.kind())
    }

    /// What the byte at `at` is; `None` at the end.
    pub(super) fn after(&self, at: u64) -> Option<StateKind> {
        self.map.state_at(at).map(|state| state.kind())
    }

    /// Whether this is as small as reads get.
    pub(super) fn is_one_sector(&self, read: Read) -> bool {
        read.len <= self.sector
    }

    /// The start of the sector that ends at `end` (or earlier, if `end` is the end
    /// of a partial one).
    pub(super) fn last_sector(&self, end: u64) -> u64 {
        let last = end.saturating_sub(1);
        last - last % self.sector
    }

    pub(super) fn fold(&mut self, read: Read, outcome: Outcome) {
        // Sector sizes come as u32, so this cannot saturate.
        let sector = u32::try_from(self.sector).unwrap_or(u32::MAX);
        self.map.fold_read(read.range(), outcome, sector);
    }

    pub(super) fn mark_copied(&mut self, range: Range<u64>) {
        self.map.set(range, RangeState::Copied);
    }

    /// Marks what was not read for lack of hope.
    pub(super) fn concede(&mut self, range: Range<u64>) {
        self.map.set_uncopied(range, RangeState::Untrimmed);
    }

    /// Marks what is untrimmed in `range` as lying between bad sectors.
    pub(super) fn enclose(&mut self, range: Range<u64>) {
        let mut from = range.start;
        while let Some(run) = self.next(StateKind::Untrimmed, from) {
            if run.start >= range.end {
                break;
            }
            let end = run.end.min(range.end);
            self.map.set_uncopied(run.start..end, RangeState::Unscraped);
            from = end;
        }
    }

    /// Whole sectors: a sector that is partly copied is read whole.
    fn widened(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start - range.start % self.sector;
        let end = range.end.checked_next_multiple_of(self.sector);
        start..end.map_or(self.size(), |end| end.min(self.size()))
    }
}
