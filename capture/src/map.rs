//! The rescue map: what is known about every byte of a source.
//!
//! Invariants
//! - Runs cover `[0, size)` without gap or overlap; no two neighbouring runs
//!   have equal states. Memory and the cost of a change depend on the number
//!   of runs, never on the size of the source.
//! - Totals by state and the count of error areas are kept with every change,
//!   so asking for them costs nothing.
//! - Unread is never copied and never unreadable: a device that vanished
//!   changes no state.
//!
//! The map is a fold over the outcomes of reads ([`RescueMap::fold_read`]), and
//! the outcomes are what is stored, beside the data. A crash therefore leaves no
//! map of its own to repair: it is folded again from what was durable.

mod domain;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use domain::Domain;

/// What is known about a byte range. The names are GNU ddrescue's, with the errno
/// and the number of attempts added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeState {
    /// Never read, or only under way when the device vanished.
    Untried,
    /// Read, and the bytes are in hand.
    Copied,
    /// Part of a larger read that failed, or given up unread because its
    /// neighbours failed; where the bad sectors lie is unknown.
    Untrimmed,
    /// Lies between two sectors that failed; waits for the sector by sector pass.
    Unscraped,
    /// One physical sector (or neighbours alike) that failed when read alone.
    Unreadable {
        /// Errno of the latest attempt.
        errno: i32,
        /// How many reads of this sector alone have failed, at least 1.
        attempts: u32,
    },
}

/// A [`RangeState`] without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// See [`RangeState::Untried`].
    Untried,
    /// See [`RangeState::Copied`].
    Copied,
    /// See [`RangeState::Untrimmed`].
    Untrimmed,
    /// See [`RangeState::Unscraped`].
    Unscraped,
    /// See [`RangeState::Unreadable`].
    Unreadable,
}

impl StateKind {
    /// Every kind, the least known first and the settled ones last.
    pub const ALL: [Self; 5] = [
        Self::Untried,
        Self::Untrimmed,
        Self::Unscraped,
        Self::Unreadable,
        Self::Copied,
    ];

    /// Whether a read of this range, or of more than it, has failed.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Untrimmed | Self::Unscraped | Self::Unreadable)
    }

    fn slot(self) -> usize {
        self as usize
    }
}

impl RangeState {
    /// The state without its details.
    pub fn kind(self) -> StateKind {
        match self {
            Self::Untried => StateKind::Untried,
            Self::Copied => StateKind::Copied,
            Self::Untrimmed => StateKind::Untrimmed,
            Self::Unscraped => StateKind::Unscraped,
            Self::Unreadable { .. } => StateKind::Unreadable,
        }
    }
}

/// How a read of a range ended. There is no outcome for a device that vanished,
/// because nothing was learnt about the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every byte was read.
    Good,
    /// The medium refused the range, or some part of it.
    Bad {
        /// The errno that the read returned.
        errno: i32,
    },
}

/// A maximal range of equal state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    /// First byte.
    pub start: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
    /// The state of every byte in it.
    pub state: RangeState,
}

impl Run {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The bytes as a range.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end()
    }
}

/// Unreadable bytes with one errno, however often they were tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnreadableRun {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Errno of the latest attempt.
    pub errno: i32,
}

/// The state of every byte of a source, as merged runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RescueMap {
    size: u64,
    /// Start of each run; a run ends where the next one starts, or at `size`.
    runs: BTreeMap<u64, RangeState>,
    /// The starts of the runs of each kind, so that "the next untried range"
    /// need not walk over everything that is not.
    starts: [BTreeSet<u64>; 5],
    bytes: [u64; 5],
    error_areas: u64,
}

impl RescueMap {
    /// Returns a map of `size` bytes, all of them untried.
    pub fn new(size: u64) -> Self {
        let mut map = Self {
            size,
            runs: BTreeMap::new(),
            starts: Default::default(),
            bytes: [0; 5],
            error_areas: 0,
        };
        if size > 0 {
            map.insert_start(0, RangeState::Untried);
            map.bytes[StateKind::Untried.slot()] = size;
        }
        map
    }

    /// The size of the source in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives every byte of `range` the state `state`. The part of `range` beyond
    /// the end of the source is ignored, as is an empty range.
    pub fn set(&mut self, range: Range<u64>, state: RangeState) {
        let (from, to) = (range.start, range.end.min(self.size));
        if from >= to {
            return;
        }
        let left = self.run_containing(from);
        if left.state == state && left.end() >= to {
            return;
        }
        // Only runs that start in [left, to] can begin or stop being the first of
        // an error area: a run that starts later keeps its predecessor.
        self.error_areas -= self.area_starts(left.start, to);

        let after = (to < self.size).then(|| self.run_containing(to).state);
        let mut at = left;
        loop {
            let overlap = at.end().min(to) - at.start.max(from);
            self.bytes[at.state.kind().slot()] -= overlap;
            if at.start >= from {
                self.remove_start(at.start, at.state);
            }
            if at.end() >= to {
                break;
            }
            at = self.run_from_start(at.end());
        }
        self.bytes[state.kind().slot()] += to - from;
        if self.state_before(from) != Some(state) {
            self.insert_start(from, state);
        }
        if let Some(after) = after {
            if after == state {
                self.remove_start(to, after);
            } else {
                self.insert_start(to, after);
            }
        }

        self.error_areas += self.area_starts(left.start, to);
    }

    /// Records how one read ended. This is the whole meaning of a stored read:
    /// folding the same reads in the same order gives the same map.
    ///
    /// - Good: copied.
    /// - Bad, and no more than one sector of `sector_bytes` was asked for:
    ///   unreadable, with one attempt more than before.
    /// - Bad, and more was asked for: what was untried becomes untrimmed; what
    ///   was known more closely keeps its state.
    ///
    /// Bytes that are copied already stay so, whatever a later read says.
    pub fn fold_read(&mut self, range: Range<u64>, outcome: Outcome, sector_bytes: u32) {
        let range = range.start..range.end.min(self.size);
        if range.is_empty() {
            return;
        }
        let errno = match outcome {
            Outcome::Good => return self.set(range, RangeState::Copied),
            Outcome::Bad { errno } => errno,
        };
        if range.end - range.start > u64::from(sector_bytes) {
            while let Some(run) = self.next_run(StateKind::Untried, range.start) {
                if run.start >= range.end {
                    break;
                }
                let untried = run.start.max(range.start)..run.end().min(range.end);
                self.set(untried, RangeState::Untrimmed);
            }
            return;
        }
        let before = self
            .runs_in(range.clone())
            .filter_map(|run| match run.state {
                RangeState::Unreadable { attempts, .. } => Some(attempts),
                _ => None,
            })
            .max()
            .unwrap_or(0);
        self.set_uncopied(
            range,
            RangeState::Unreadable {
                errno,
                attempts: before.saturating_add(1),
            },
        );
    }

    /// Like [`set`](Self::set), but leaves copied bytes alone.
    pub fn set_uncopied(&mut self, range: Range<u64>, state: RangeState) {
        let mut at = range.start;
        while at < range.end {
            match self.next_run(StateKind::Copied, at) {
                Some(copied) if copied.start < range.end => {
                    self.set(at..copied.start, state);
                    at = copied.end();
                }
                _ => return self.set(at..range.end, state),
            }
        }
    }

    /// The state of the byte at `offset`; `None` beyond the end.
    pub fn state_at(&self, offset: u64) -> Option<RangeState> {
        (offset < self.size).then(|| self.run_containing(offset).state)
    }

    /// The state of the byte just before `offset`; `None` at the beginning and
    /// beyond the end.
    pub fn state_before(&self, offset: u64) -> Option<RangeState> {
        self.state_at(offset.checked_sub(1)?)
    }

    /// The run that contains `offset`; `None` beyond the end.
    pub fn run_at(&self, offset: u64) -> Option<Run> {
        (offset < self.size).then(|| self.run_containing(offset))
    }

    /// Every run, ascending.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs_in(0..self.size)
    }

    /// Every run that overlaps `range`, whole, ascending.
    pub fn runs_in(&self, range: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let mut at = self.run_at(range.start).filter(|_| !range.is_empty());
        std::iter::from_fn(move || {
            let run = at?;
            at = self.run_at(run.end()).filter(|next| next.start < range.end);
            Some(run)
        })
    }

    /// Every run of one kind, ascending.
    pub fn runs_of(&self, kind: StateKind) -> impl Iterator<Item = Run> + '_ {
        self.starts[kind.slot()]
            .iter()
            .map(|&start| self.run_from_start(start))
    }

    /// The first run of this kind that ends after `from`: it may start before.
    pub fn next_run(&self, kind: StateKind, from: u64) -> Option<Run> {
        let here = self.run_at(from)?;
        if here.state.kind() == kind {
            return Some(here);
        }
        self.starts[kind.slot()]
            .range(from..)
            .next()
            .map(|&start| self.run_from_start(start))
    }

    /// The last run of this kind that starts before `before`: it may end after.
    pub fn prev_run(&self, kind: StateKind, before: u64) -> Option<Run> {
        self.starts[kind.slot()]
            .range(..before)
            .next_back()
            .map(|&start| self.run_from_start(start))
    }

    /// The unreadable ranges, ascending; neighbours with the same errno are one,
    /// however often each was tried.
    pub fn unreadable_runs(&self) -> impl Iterator<Item = UnreadableRun> + '_ {
        let mut runs = self
            .runs_of(StateKind::Unreadable)
            .filter_map(|run| match run.state {
                RangeState::Unreadable { errno, .. } => Some(UnreadableRun {
                    start: run.start,
                    len: run.len,
                    errno,
                }),
                _ => None,
            })
            .peekable();
        std::iter::from_fn(move || {
            let mut merged = runs.next()?;
            while let Some(next) = runs
                .next_if(|run| run.errno == merged.errno && run.start == merged.start + merged.len)
            {
                merged.len += next.len;
            }
            Some(merged)
        })
    }

    /// Bytes in one kind of state.
    pub fn bytes_of(&self, kind: StateKind) -> u64 {
        self.bytes[kind.slot()]
    }

    /// Bytes in hand.
    pub fn copied_bytes(&self) -> u64 {
        self.bytes_of(StateKind::Copied)
    }

    /// Bytes never read.
    pub fn untried_bytes(&self) -> u64 {
        self.bytes_of(StateKind::Untried)
    }

    /// Bytes that wait for trimming.
    pub fn untrimmed_bytes(&self) -> u64 {
        self.bytes_of(StateKind::Untrimmed)
    }

    /// Bytes that wait for scraping.
    pub fn unscraped_bytes(&self) -> u64 {
        self.bytes_of(StateKind::Unscraped)
    }

    /// Bytes in sectors that failed when read alone.
    pub fn unreadable_bytes(&self) -> u64 {
        self.bytes_of(StateKind::Unreadable)
    }

    /// How many stretches of unreadable bytes there are, whatever their errnos.
    pub fn error_areas(&self) -> u64 {
        self.error_areas
    }

    /// How many runs the map has.
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Whether every byte is either copied or unreadable. (Retries may still
    /// turn unreadable ones into copied ones.)
    pub fn is_finished(&self) -> bool {
        self.copied_bytes() + self.unreadable_bytes() == self.size
    }

    /// Returns the same map for a source of `size` bytes: longer with the new
    /// bytes untried, or shorter. `None` if that would drop bytes that
    /// are anything but untried.
    pub fn resized(mut self, size: u64) -> Option<Self> {
        if size < self.size {
            let tail = size..self.size;
            if self
                .runs_in(tail)
                .any(|run| run.state != RangeState::Untried)
            {
                return None;
            }
            self.bytes[StateKind::Untried.slot()] -= self.size - size;
            if self.runs.contains_key(&size) {
                self.remove_start(size, RangeState::Untried);
            }
        } else if size > self.size {
            self.bytes[StateKind::Untried.slot()] += size - self.size;
            if self.state_before(self.size) != Some(RangeState::Untried) {
                self.insert_start(self.size, RangeState::Untried);
            }
        }
        self.size = size;
        Some(self)
    }

    /// The run that contains `offset`, which must be inside the source.
    fn run_containing(&self, offset: u64) -> Run {
        let (&start, _) = self
            .runs
            .range(..=offset)
            .next_back()
            .expect("a run starts at 0, and callers stay inside the source");
        self.run_from_start(start)
    }

    /// The run that starts exactly at `start`.
    fn run_from_start(&self, start: u64) -> Run {
        let mut from = self.runs.range(start..);
        let (&start, &state) = from.next().expect("callers pass the start of a run");
        let end = from.next().map_or(self.size, |(&next, _)| next);
        Run {
            start,
            len: end - start,
            state,
        }
    }

    fn insert_start(&mut self, start: u64, state: RangeState) {
        self.runs.insert(start, state);
        self.starts[state.kind().slot()].insert(start);
    }

    fn remove_start(&mut self, start: u64, state: RangeState) {
        if self.runs.remove(&start).is_some() {
            self.starts[state.kind().slot()].remove(&start);
        }
    }

    /// How many runs starting in `[from, to]` are the first of an error area.
    fn area_starts(&self, from: u64, to: u64) -> u64 {
        let mut count = 0;
        for &start in self.starts[StateKind::Unreadable.slot()].range(from..=to) {
            let before = self.state_before(start).map(RangeState::kind);
            count += u64::from(before != Some(StateKind::Unreadable));
        }
        count
    }
}
