//! How far to jump after an error.
//!
//! The distance doubles from error to error as long as errors come in close
//! succession: as long as less was read well between two of them than was
//! jumped over at the first. (ddrescue starts again after any good read. In a
//! zone with an error in every other megabyte that costs hundreds of errors
//! before the rest of the disk has its turn; here it costs about seven.)

/// A jump that grows.
#[derive(Debug, Clone)]
pub(super) struct Skip {
    first: u64,
    next: u64,
    last: u64,
    most: u64,
    unit: u64,
}

impl Skip {
    pub(super) fn new(first: u64, most: u64, unit: u64) -> Self {
        let first = super::round_up(first, unit);
        Self {
            first,
            next: first,
            last: 0,
            most: super::round_up(most.max(1), unit).max(first),
            unit,
        }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
        self.last = 0;
    }

    /// Takes in how much was read well before an error. Returns whether this
    /// error begins a new stretch.
    pub(super) fn settle(&mut self, calm_bytes: u64) -> bool {
        let new = calm_bytes >= self.last.max(self.first);
        if new {
            self.reset();
        }
        new
    }

    /// Where to go on after `at`; further away the next time.
    pub(super) fn past(&mut self, at: u64) -> u64 {
        self.last = self.next;
        self.next = self.next.saturating_mul(2).min(self.most);
        self.aligned(at.saturating_add(self.last))
    }

    /// Where to go on after `at`, without going further the next time.
    pub(super) fn first_past(&self, at: u64) -> u64 {
        self.aligned(at.saturating_add(self.first))
    }

    fn aligned(&self, at: u64) -> u64 {
        at.checked_next_multiple_of(self.unit).unwrap_or(u64::MAX)
    }
}
