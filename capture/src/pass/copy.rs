//! Copying: read what was never tried, the best ground first.
//!
//! 1. Forwards in clusters. After an error, jump ahead, further and further
//!    while the errors go on; likewise where reading becomes too slow.
//! 2. Backwards from the far end of each gap that a jump left, up to the first
//!    error or slow stretch.
//! 3. Forwards and
//! 4. backwards into gaps that still have an edge without damage (slow ones,
//!    mostly), up to the first error.
//! 5. Whatever is left, which by now has damage on both sides: forwards, without
//!    jumps. Where errors come in close succession, growing stretches are left to
//!    trimming unread: a failed cluster tells nothing there that the reads of
//!    single sectors will not tell anyway.
//!
//! A gap is entered only from an edge that is not damage. That one rule ends
//! passes 2 to 4 at the first error, and makes a resumed run leave alone
//! the gaps of the run before.
//!
//! Reads do not get smaller after an error. A failed cluster spoils nothing: its
//! good sectors are read one by one while trimming, at the price of the one failure
//! that its bad sector costs anyway. A small cluster that fails is a failure
//! more. In simulated zones with an error in every megabyte, clusters of
//! 64 KiB after errors made for 12 600 failing reads instead of 7 500, with no
//! more data in hand after the same number of them.

use std::time::Duration;

use super::field::Field;
use super::skip::Skip;
use super::{MinReadRate, PlanOptions, Read};
use crate::map::StateKind;

pub(super) const LAST_PASS: u8 = 5;

/// The longest stretch that the sweep gives up at a time, in clusters.
const CONCEDED_CLUSTERS_MAX: u64 = 64;

#[derive(Debug, Clone)]
pub(super) struct CopyPass {
    pass: u8,
    /// The pass is through with everything on the near side of this.
    cursor: u64,
    skip: Skip,
    slow_skip: Skip,
    concession: Skip,
    /// Bytes read well since the last error.
    calm_bytes: u64,
}

impl CopyPass {
    pub(super) fn new(pass: u8, field: &Field) -> Self {
        // ddrescue's numbers.
        let first = (field.size() / 100_000).max(64 << 10);
        let skip = Skip::new(first, field.size() / 100, field.cluster());
        let mut copy = Self {
            pass,
            cursor: 0,
            slow_skip: skip.clone(),
            skip,
            concession: Skip::new(
                field.cluster(),
                CONCEDED_CLUSTERS_MAX.saturating_mul(field.cluster()),
                field.cluster(),
            ),
            calm_bytes: u64::MAX,
        };
        if copy.is_backwards() {
            copy.cursor = field.size();
        }
        copy
    }

    pub(super) fn pass(&self) -> u8 {
        self.pass
    }

    /// Whether slow stretches are to be left for later.
    pub(super) fn minds_slowness(&self) -> bool {
        self.pass <= 2
    }

    fn is_backwards(&self) -> bool {
        matches!(self.pass, 2 | 4)
    }

    pub(super) fn plan(&mut self, field: &Field) -> Option<Read> {
        if self.is_backwards() {
            self.plan_backwards(field)
        } else {
            self.plan_forwards(field)
        }
    }

    fn plan_forwards(&mut self, field: &Field) -> Option<Read> {
        loop {
            let gap = field.next(StateKind::Untried, self.cursor)?;
            if is_damage(field.before(gap.start)) {
                match self.pass {
                    // The start of a gap that an earlier run jumped over.
                    1 => {
                        self.cursor = self.skip.first_past(gap.start);
                        continue;
                    }
                    3 => {
                        self.cursor = gap.end;
                        continue;
                    }
                    _ => {}
                }
            }
            let boundary = (gap.start / field.cluster() + 1).saturating_mul(field.cluster());
            return Some(Read::of(gap.start..gap.end.min(boundary)));
        }
    }

    fn plan_backwards(&mut self, field: &Field) -> Option<Read> {
        loop {
            let gap = field.prev(StateKind::Untried, self.cursor)?;
            if is_damage(field.after(gap.end)) {
                self.cursor = gap.start;
                continue;
            }
            let last = gap.end - 1;
            let boundary = last - last % field.cluster();
            return Some(Read::of(gap.start.max(boundary)..gap.end));
        }
    }

    pub(super) fn good(&mut self, field: &Field, read: Read, pace: Pace) {
        self.calm_bytes = self.calm_bytes.saturating_add(read.len);
        match pace {
            Pace::Unknown => return,
            Pace::Fast => return self.slow_skip.reset(),
            Pace::Slow => {}
        }
        if self.is_backwards() {
            self.cursor = match field.prev(StateKind::Untried, read.offset) {
                Some(rest) if rest.end == read.offset => rest.start,
                _ => read.offset,
            };
        } else {
            self.cursor = self.slow_skip.past(read.end());
        }
    }

    pub(super) fn bad(&mut self, field: &mut Field, read: Read) {
        let calm_bytes = std::mem::take(&mut self.calm_bytes);
        match self.pass {
            1 => {
                self.skip.settle(calm_bytes);
                self.cursor = self.skip.past(read.end());
            }
            LAST_PASS => {
                // The first error of a stretch gives up nothing more.
                if self.concession.settle(calm_bytes) {
                    return;
                }
                let Some(rest) = field.next(StateKind::Untried, read.end()) else {
                    return;
                };
                let end = self.concession.past(read.end()).min(rest.end);
                if rest.start == read.end() && rest.start < end {
                    field.concede(rest.start..end);
                }
            }
            _ => {}
        }
    }
}

fn is_damage(neighbour: Option<StateKind>) -> bool {
    neighbour.is_some_and(StateKind::is_damage)
}

/// Watches how fast stretches of about a second are read. Single reads say little:
/// a small one after a seek is slow on any disk.
#[derive(Debug, Clone)]
pub(super) struct SlowWatch {
    min_rate: MinReadRate,
    warm_up: Duration,
    total: Tally,
    window: Tally,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    bytes: u64,
    elapsed: Duration,
}

/// What a finished stretch showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Unknown,
    Fast,
    Slow,
}

impl Tally {
    fn add(&mut self, read: Read, elapsed: Duration) {
        self.bytes = self.bytes.saturating_add(read.len);
        self.elapsed = self.elapsed.saturating_add(elapsed);
    }

    /// Bytes per second.
    fn rate(self) -> u128 {
        let nanos = self.elapsed.as_nanos().max(1);
        u128::from(self.bytes) * 1_000_000_000 / nanos
    }
}

impl SlowWatch {
    const WINDOW: Duration = Duration::from_secs(1);

    pub(super) fn new(options: &PlanOptions) -> Self {
        Self {
            min_rate: options.min_read_rate,
            warm_up: options.slow_warm_up,
            total: Tally::default(),
            window: Tally::default(),
        }
    }

    /// Forgets the stretch under way: what follows is elsewhere.
    pub(super) fn restart(&mut self) {
        self.window = Tally::default();
    }

    pub(super) fn pace(&mut self, read: Read, elapsed: Duration) -> Pace {
        self.total.add(read, elapsed);
        self.window.add(read, elapsed);
        if self.window.elapsed < Self::WINDOW {
            return Pace::Unknown;
        }
        let stretch = std::mem::take(&mut self.window);
        let least = match self.min_rate {
            MinReadRate::Off => return Pace::Fast,
            MinReadRate::Auto => self.total.rate() / 10,
            MinReadRate::BytesPerSecond(rate) => u128::from(rate),
        };
        if self.total.elapsed >= self.warm_up && stretch.rate() < least {
            Pace::Slow
        } else {
            Pace::Fast
        }
    }
}
