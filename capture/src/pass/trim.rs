//! Trimming: narrow each failed range from both ends until a bad sector is found
//! from each side. What lies between waits for scraping.
//!
//! Most failed ranges hold a single bad sector: one more failure gets all the
//! rest of the range. An end that adjoins a sector known to be bad, or a range
//! that was trimmed before, is trimmed already.

use std::time::Duration;

use super::Read;
use super::field::Field;
use super::stride::{BackwardPieces, Stride};
use crate::map::StateKind;

const KIND: StateKind = StateKind::Untrimmed;

#[derive(Debug, Clone, Default)]
pub(super) struct TrimPass {
    /// Nothing before this is untrimmed.
    cursor: u64,
    /// Where reading from the near end goes on; elsewhere it starts afresh.
    front: u64,
    stride: Stride,
    far_end: BackwardPieces,
}

impl TrimPass {
    pub(super) fn plan(&mut self, field: &mut Field) -> Option<Read> {
        loop {
            if let Some(left) = self.far_end.left(field, KIND) {
                return Some(self.stride.plan(field, &left));
            }
            let run = field.next(KIND, self.cursor)?;
            self.cursor = run.start;
            if !is_trimmed(field.before(run.start)) {
                if run.start != self.front {
                    self.front = run.start;
                    self.stride.reset();
                }
                return Some(self.stride.plan(field, &run));
            }
            if is_trimmed(field.after(run.end)) {
                field.enclose(run);
            } else {
                self.far_end.begin(field, &run);
            }
        }
    }

    pub(super) fn good(&mut self, field: &Field, read: Read, elapsed: Duration, failure: Duration) {
        self.front = read.end();
        self.stride.good(field, read, elapsed, failure);
    }

    pub(super) fn bad(&mut self, field: &mut Field, read: Read) {
        self.stride.bad(field, read);
        if let Some(rest) = self.far_end.bad(field, KIND, read) {
            field.enclose(rest);
        }
    }
}

fn is_trimmed(neighbour: Option<StateKind>) -> bool {
    matches!(
        neighbour,
        Some(StateKind::Unreadable | StateKind::Unscraped)
    )
}
