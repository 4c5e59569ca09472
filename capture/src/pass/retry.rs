//! Retrying: each unreadable sector once more, alone, in alternating directions.
//!
//! Retry pass n takes the sectors that have failed at most n times. The counts
//! are in the map, so an interrupted pass goes on where it was.

use super::Read;
use super::field::Field;
use crate::map::{RangeState, StateKind};

#[derive(Debug, Clone)]
pub(super) struct RetryPass {
    pass: u32,
    cursor: u64,
}

impl RetryPass {
    pub(super) fn new(pass: u32, field: &Field) -> Self {
        let mut retry = Self { pass, cursor: 0 };
        if retry.is_backwards() {
            retry.cursor = field.size();
        }
        retry
    }

    pub(super) fn pass(&self) -> u32 {
        self.pass
    }

    /// Scraping ended forwards, so the first pass goes backwards.
    fn is_backwards(&self) -> bool {
        self.pass % 2 == 1
    }

    pub(super) fn plan(&mut self, field: &Field) -> Option<Read> {
        loop {
            let (run, sector) = if self.is_backwards() {
                let run = field.prev(StateKind::Unreadable, self.cursor)?;
                let sector = field.last_sector(run.end)..run.end;
                (run, sector)
            } else {
                let run = field.next(StateKind::Unreadable, self.cursor)?;
                let end = run.start.saturating_add(field.sector()).min(run.end);
                (run.clone(), run.start..end)
            };
            if self.may_try(field, &sector) {
                return Some(Read::of(sector));
            }
            self.cursor = if self.is_backwards() {
                run.start
            } else {
                run.end
            };
        }
    }

    /// Moves past a sector, whether it was read or not.
    pub(super) fn done(&mut self, read: Read) {
        self.cursor = if self.is_backwards() {
            read.offset
        } else {
            read.end()
        };
    }

    fn may_try(&self, field: &Field, sector: &std::ops::Range<u64>) -> bool {
        field
            .map()
            .runs_in(sector.clone())
            .any(|run| matches!(run.state, RangeState::Unreadable { attempts, .. } if attempts <= self.pass))
    }
}
