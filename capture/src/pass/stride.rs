//! How much to read at once where single sectors are the rule.
//!
//! A failing read of more than one sector is wasted: each bad sector in it needs
//! a read of its own all the same. So single sectors are best as long as they
//! are cheap, and on a disk whose failures take seconds they are: a second buys
//! thousands of good ones, if they are read forwards. But where failures are
//! quick (flash, some bridges), single reads slow (no cache) or the stretch
//! long, good single sectors come to cost more than a failure would. The rule
//! is the one for renting skis: once the good reads since the last failure have
//! taken as long as [`PATIENCE`] failures, reads get [`GROWTH`] times longer.
//! A longer read that fails is redone in single sectors. However wrong the
//! guess, time stays within a small factor of the best, and failures of longer
//! reads within the number of bad sectors.

use std::ops::Range;
use std::time::Duration;

use super::Read;
use super::field::Field;
use crate::map::StateKind;

/// How many failures' worth of time is spent on short reads before longer ones
/// are tried. More than one, because a failure also wears the disk.
const PATIENCE: u32 = 5;

/// How much longer reads get each time.
const GROWTH: u64 = 8;

#[derive(Debug, Clone)]
pub(super) struct Stride {
    /// Sectors to read at once.
    span: u64,
    /// Time spent on good reads since `span` changed.
    spent: Duration,
    /// A range known to hold something bad, to be read in single sectors.
    suspect: Range<u64>,
}

impl Default for Stride {
    fn default() -> Self {
        Self {
            span: 1,
            spent: Duration::ZERO,
            suspect: 0..0,
        }
    }
}

impl Stride {
    /// The next read at the start of `run`.
    pub(super) fn plan(&self, field: &Field, run: &Range<u64>) -> Read {
        let start = run.start;
        let span = if self.suspect.contains(&start) {
            1
        } else {
            self.span
        };
        let boundary = (start / field.cluster() + 1).saturating_mul(field.cluster());
        let end = start.saturating_add(span.saturating_mul(field.sector()));
        Read::of(start..end.min(boundary).min(run.end))
    }

    /// Starts afresh with single sectors.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn good(&mut self, field: &Field, read: Read, elapsed: Duration, failure: Duration) {
        if self.suspect.contains(&read.offset) {
            return;
        }
        self.spent = self.spent.saturating_add(elapsed);
        if self.spent >= failure.saturating_mul(PATIENCE) {
            self.span = (self.span * GROWTH).min(field.cluster() / field.sector());
            self.spent = Duration::ZERO;
        }
    }

    pub(super) fn bad(&mut self, field: &Field, read: Read) {
        self.reset();
        if !field.is_one_sector(read) {
            self.suspect = read.range();
        }
    }
}

/// Goes into a run from its far end, piece by piece, until a bad sector is found.
///
/// A disk that is read backwards sector by sector makes a turn of the platter
/// for each of them. So each piece is read forwards.
#[derive(Debug, Clone, Default)]
pub(super) struct BackwardPieces {
    piece: Range<u64>,
}

impl BackwardPieces {
    /// Makes the end of `run` the piece under way.
    pub(super) fn begin(&mut self, field: &Field, run: &Range<u64>) {
        let last = run.end.saturating_sub(1);
        self.piece = run.start.max(last - last % field.piece())..run.end;
    }

    /// What is left to read of the piece under way.
    pub(super) fn left(&self, field: &Field, kind: StateKind) -> Option<Range<u64>> {
        if self.piece.is_empty() {
            return None;
        }
        let run = field.next(kind, self.piece.start)?;
        let run = run.start..run.end.min(self.piece.end);
        (!run.is_empty()).then_some(run)
    }

    /// Takes in a failed read. If it was of one sector of the piece under way, ends
    /// there: returns the piece with the rest of the run before it.
    pub(super) fn bad(&mut self, field: &Field, kind: StateKind, read: Read) -> Option<Range<u64>> {
        if !self.piece.contains(&read.offset) || !field.is_one_sector(read) {
            return None;
        }
        let piece = std::mem::take(&mut self.piece);
        let start = match field.prev(kind, piece.start) {
            Some(rest) if rest.end == piece.start => rest.start,
            _ => piece.start,
        };
        Some(start..piece.end)
    }
}
