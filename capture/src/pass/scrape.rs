//! Scraping: every sector that lies between bad ones is read once, alone.
//!
//! Reads of several sectors that are halved when they fail would not lower the
//! number of failures: each bad sector fails alone in any case, and every
//! longer read that fails comes on top. (`stride` says when they pay in time.)
//! But the *order* is free, and long bad stretches can wait. So there are
//! three rounds:
//! 1. forwards, jumping ahead further and further while sectors fail;
//! 2. backwards from good sectors into what was jumped over, up to a bad one;
//! 3. forwards over the rest.

use std::time::Duration;

use super::Read;
use super::field::Field;
use super::skip::Skip;
use super::stride::{BackwardPieces, Stride};
use crate::map::StateKind;

const KIND: StateKind = StateKind::Unscraped;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Jumping,
    Edges,
    Rest,
}

#[derive(Debug, Clone)]
pub(super) struct ScrapePass {
    round: Round,
    cursor: u64,
    /// Jumps are free, as everything jumped over is read later; they need not be
    /// as short as a few sectors.
    skip: Skip,
    /// Bytes read well since the last error.
    calm_bytes: u64,
    stride: Stride,
    far_end: BackwardPieces,
}

impl ScrapePass {
    pub(super) fn new(field: &Field) -> Self {
        Self {
            round: Round::Jumping,
            cursor: 0,
            skip: Skip::new(field.piece(), field.size() / 100, field.piece()),
            calm_bytes: u64::MAX,
            stride: Stride::default(),
            far_end: BackwardPieces::default(),
        }
    }

    pub(super) fn plan(&mut self, field: &Field) -> Option<Read> {
        loop {
            let planned = match self.round {
                Round::Jumping | Round::Rest => self.plan_forwards(field),
                Round::Edges => self.plan_edges(field),
            };
            if planned.is_some() {
                return planned;
            }
            (self.round, self.cursor) = match self.round {
                Round::Jumping => (Round::Edges, field.size()),
                Round::Edges => (Round::Rest, 0),
                Round::Rest => return None,
            };
        }
    }

    fn plan_forwards(&mut self, field: &Field) -> Option<Read> {
        let run = field.next(KIND, self.cursor)?;
        Some(self.stride.plan(field, &run))
    }

    fn plan_edges(&mut self, field: &Field) -> Option<Read> {
        loop {
            if let Some(left) = self.far_end.left(field, KIND) {
                return Some(self.stride.plan(field, &left));
            }
            let run = field.prev(KIND, self.cursor)?;
            self.cursor = run.end;
            if field.after(run.end) == Some(StateKind::Copied) {
                self.far_end.begin(field, &run);
            } else {
                self.cursor = run.start;
            }
        }
    }

    pub(super) fn good(&mut self, field: &Field, read: Read, elapsed: Duration, failure: Duration) {
        self.calm_bytes = self.calm_bytes.saturating_add(read.len);
        self.stride.good(field, read, elapsed, failure);
    }

    pub(super) fn bad(&mut self, field: &Field, read: Read) {
        self.stride.bad(field, read);
        if let Some(rest) = self.far_end.bad(field, KIND, read) {
            self.cursor = rest.start;
        }
        if self.round != Round::Jumping || !field.is_one_sector(read) {
            return;
        }
        let calm_bytes = std::mem::take(&mut self.calm_bytes);
        self.cursor = read.end();
        if self.skip.settle(calm_bytes) {
            return;
        }
        // Other ranges are no part of this stretch.
        let rest = field.next(KIND, read.end());
        if let Some(rest) = rest.filter(|rest| rest.start == read.end()) {
            self.cursor = self.skip.past(read.end()).min(rest.end);
        }
    }
}
