//! Which range of a failing disk to read next.
//!
//! A [`Planner`] holds the rescue map and proposes one read at a time; the
//! caller reads and reports how it went and how long it took. There is no I/O, no
//! clock and no randomness in here: the same reports give the same reads.
//!
//! What it aims for, in this order:
//! 1. Every sector that can be read is read, and no copied sector is read again.
//! 2. Few reads hit a bad sector, because each costs seconds and a dying head
//!    has few left. A bad sector costs one read of its own, whatever is
//!    done; what can be saved are failing reads of *more* than one sector.
//! 3. Most of the data comes before most of the failing reads.
//!
//! The passes are GNU ddrescue's, with these differences:
//! - Clusters are of 1 MiB, and stay so after an error (`copy` says why).
//! - Jumps grow until the errors stop coming in close succession (`skip`), so
//!   a damaged zone is left after a handful of errors however many good
//!   sectors it has.
//! - A gap with damage on both sides waits for the sweep; where errors come
//!   thick, the sweep gives up growing stretches unread and leaves them to
//!   the reads of single sectors, which waste nothing.
//! - Trimming and scraping lengthen their reads only where single sectors have
//!   taken longer than failures would (`stride`).
//! - Scraping jumps ahead inside bad stretches too, and comes back for the rest.
//!
//! Invariants
//! - Every read is aligned to sectors (but for a last partial one), lies within
//!   the domain widened to sectors, and never crosses a cluster boundary.
//! - Only a read of one sector can make anything unreadable.
//! - Where to go on is found in the map at every step, never remembered about
//!   ranges. So a planner made from the map of an interrupted run goes on in
//!   the right stage, and [`Planner::mark_copied`] may come at any time.
//!
//! A vanished device is not reported: nothing was learnt, and the same read is
//! proposed again.

mod copy;
mod field;
mod retry;
mod scrape;
mod selection;
mod skip;
mod stride;
#[cfg(test)]
mod tests;
mod trim;

use std::ops::Range;
use std::time::Duration;

use crate::map::{Domain, Outcome, RescueMap};
use copy::{CopyPass, Pace, SlowWatch};
use field::Field;
use retry::RetryPass;
use scrape::ScrapePass;
use trim::TrimPass;

pub use selection::{PassListError, PassSelection};

/// A range to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Read {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
}

impl Read {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The bytes as a range.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.end()
    }

    fn of(range: Range<u64>) -> Self {
        Self {
            offset: range.start,
            len: range.end - range.start,
        }
    }
}

/// What the planner is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading what was never tried.
    Copy {
        /// 1 to 5: forwards with skips; backwards over what was skipped; two
        /// passes at the edges; a sweep over the rest.
        pass: u8,
    },
    /// Narrowing failed ranges from their edges.
    Trim,
    /// Reading what lies between bad sectors.
    Scrape,
    /// Trying unreadable sectors again.
    Retry {
        /// 1 to [`PlanOptions::retries`].
        pass: u32,
    },
    /// Nothing is left that the options allow.
    Done,
}

/// Why there is no next read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Every selected pass is through.
    Finished,
    /// [`PlanOptions::max_bad_reads`] was reached; more could be read.
    Limit,
}

/// The rate below which a stretch counts as slow and is left for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MinReadRate {
    /// Nothing is too slow.
    Off,
    /// A tenth of the average so far (`ddrescue -a 0`).
    #[default]
    Auto,
    /// Bytes per second.
    BytesPerSecond(u64),
}

/// How to read. [`PlanOptions::new`] gives the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    /// Physical sector size in bytes: the unit of reads and of errors.
    pub sector_bytes: u32,
    /// Size and alignment of reads while copying. Rounded up to a multiple of
    /// `piece_bytes`.
    pub cluster_bytes: u64,
    /// How much is read forwards at a time when single sectors are read from the
    /// end of a range. Rounded up to a multiple of the sector size.
    pub piece_bytes: u64,
    /// Which passes to make.
    pub passes: PassSelection,
    /// How often an unreadable sector is tried again. A sector's attempts are in
    /// the map, so a resumed run does not start counting afresh.
    pub retries: u32,
    /// Where reading is too slow to go on at first.
    pub min_read_rate: MinReadRate,
    /// How much reading time must have passed before anything counts as slow.
    pub slow_warm_up: Duration,
    /// Stop after this many failed reads of this run.
    pub max_bad_reads: Option<u64>,
    /// What to read; `None` is everything.
    pub domain: Option<Domain>,
}

impl PlanOptions {
    /// The defaults for a disk with sectors of `sector_bytes`.
    pub fn new(sector_bytes: u32) -> Self {
        Self {
            sector_bytes,
            cluster_bytes: 1 << 20,
            piece_bytes: 64 << 10,
            passes: PassSelection::ALL,
            retries: 0,
            min_read_rate: MinReadRate::Auto,
            slow_warm_up: Duration::from_secs(30),
            max_bad_reads: None,
            domain: None,
        }
    }
}

/// What has been done by one planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Reads reported.
    pub reads: u64,
    /// Of these, the ones that failed.
    pub read_errors: u64,
    /// How often a stretch turned out to be too slow.
    pub slow_reads: u64,
}

/// What a failed read costs, as far as this run has seen.
#[derive(Debug, Clone, Copy, Default)]
struct BadReadCost {
    mean: Option<Duration>,
}

impl BadReadCost {
    /// What a disk with default settings takes to give up on a sector.
    const UNKNOWN: Duration = Duration::from_secs(3);

    /// A moving mean: the first failures often take longer than the rest.
    fn add(&mut self, elapsed: Duration) {
        self.mean = Some(match self.mean {
            None => elapsed,
            Some(mean) => mean.saturating_mul(7).saturating_add(elapsed) / 8,
        });
    }

    fn get(self) -> Duration {
        self.mean.unwrap_or(Self::UNKNOWN)
    }
}

/// The work of one stage. Each keeps at most a position and how boldly it goes.
#[derive(Debug, Clone)]
enum Work {
    Copy(CopyPass),
    Trim(TrimPass),
    Scrape(ScrapePass),
    Retry(RetryPass),
    Done,
}

/// Proposes reads until everything selected is copied or unreadable.
#[derive(Debug, Clone)]
pub struct Planner {
    field: Field,
    options: PlanOptions,
    work: Work,
    pending: Option<Read>,
    stop: Option<StopReason>,
    counters: Counters,
    cost: BadReadCost,
    slow: SlowWatch,
}

impl Planner {
    /// Goes on from `map`, which may be new, come from an interrupted run or from
    /// another tool.
    pub fn new(map: RescueMap, mut options: PlanOptions) -> Self {
        let sector = u64::from(options.sector_bytes.max(1));
        let piece = round_up(options.piece_bytes.max(1), sector);
        let cluster = round_up(options.cluster_bytes.max(1), piece);
        options.sector_bytes = options.sector_bytes.max(1);
        options.piece_bytes = piece;
        options.cluster_bytes = cluster;
        let size = map.size();
        let domain = match &options.domain {
            Some(domain) => domain.aligned(sector, size),
            None => Domain::whole(size),
        };
        let field = Field::new(map, domain, &options);
        let mut planner = Self {
            work: Work::Copy(CopyPass::new(1, &field)),
            slow: SlowWatch::new(&options),
            field,
            options,
            pending: None,
            stop: None,
            counters: Counters::default(),
            cost: BadReadCost::default(),
        };
        planner.skip_unselected();
        planner.next_read();
        planner
    }

    /// The next range to read; `None` when there is none (see
    /// [`stop_reason`](Self::stop_reason)). Until it is reported, or something
    /// is marked as copied, the answer stays the same.
    pub fn next_read(&mut self) -> Option<Read> {
        if self.pending.is_some() || self.stop.is_some() {
            return self.pending;
        }
        let limit = self.options.max_bad_reads;
        if limit.is_some_and(|limit| self.counters.read_errors >= limit) && !self.is_complete() {
            self.stop = Some(StopReason::Limit);
            return None;
        }
        loop {
            let planned = match &mut self.work {
                Work::Copy(copy) => copy.plan(&self.field),
                Work::Trim(trim) => trim.plan(&mut self.field),
                Work::Scrape(scrape) => scrape.plan(&self.field),
                Work::Retry(retry) => retry.plan(&self.field),
                Work::Done => {
                    self.stop = Some(StopReason::Finished);
                    return None;
                }
            };
            if planned.is_some() {
                self.pending = planned;
                return planned;
            }
            self.advance();
            self.skip_unselected();
        }
    }

    /// Takes in how a read ended and how long it took. `read` is the one that
    /// [`next_read`](Self::next_read) proposed, or a part of it.
    pub fn report(&mut self, read: Read, outcome: Outcome, elapsed: Duration) {
        self.pending = None;
        self.counters.reads += 1;
        self.field.fold(read, outcome);
        match outcome {
            Outcome::Good => match &mut self.work {
                Work::Copy(copy) => {
                    let pace = if copy.minds_slowness() {
                        self.slow.pace(read, elapsed)
                    } else {
                        Pace::Unknown
                    };
                    self.counters.slow_reads += u64::from(pace == Pace::Slow);
                    copy.good(&self.field, read, pace);
                }
                Work::Trim(trim) => trim.good(&self.field, read, elapsed, self.cost.get()),
                Work::Scrape(scrape) => scrape.good(&self.field, read, elapsed, self.cost.get()),
                Work::Retry(retry) => retry.done(read),
                Work::Done => {}
            },
            Outcome::Bad { .. } => {
                self.counters.read_errors += 1;
                self.cost.add(elapsed);
                match &mut self.work {
                    Work::Copy(copy) => {
                        self.slow.restart();
                        copy.bad(&mut self.field, read);
                    }
                    Work::Trim(trim) => trim.bad(&mut self.field, read),
                    Work::Scrape(scrape) => scrape.bad(&self.field, read),
                    Work::Retry(retry) => retry.done(read),
                    Work::Done => {}
                }
            }
        }
    }

    /// Takes `range` as copied without a read, because the caller knows its bytes
    /// (a hole of a sparse file). The next read is planned anew.
    pub fn mark_copied(&mut self, range: Range<u64>) {
        self.field.mark_copied(range);
        self.pending = None;
    }

    /// The map as it is now.
    pub fn map(&self) -> &RescueMap {
        self.field.map()
    }

    /// Gives the map back.
    pub fn into_map(self) -> RescueMap {
        self.field.into_map()
    }

    /// What is to be read, widened to whole sectors.
    pub fn domain(&self) -> &Domain {
        self.field.domain()
    }

    /// What is being done now.
    pub fn stage(&self) -> Stage {
        match &self.work {
            Work::Copy(copy) => Stage::Copy { pass: copy.pass() },
            Work::Trim(_) => Stage::Trim,
            Work::Scrape(_) => Stage::Scrape,
            Work::Retry(retry) => Stage::Retry { pass: retry.pass() },
            Work::Done => Stage::Done,
        }
    }

    /// Why [`next_read`](Self::next_read) returned `None`; `None` before that.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    /// Whether every byte of the domain is copied or unreadable.
    pub fn is_complete(&self) -> bool {
        self.field.is_complete()
    }

    /// What this planner has been told so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn advance(&mut self) {
        self.work = match self.stage() {
            Stage::Copy { pass } if pass < copy::LAST_PASS => {
                Work::Copy(CopyPass::new(pass + 1, &self.field))
            }
            Stage::Copy { .. } => Work::Trim(TrimPass::default()),
            Stage::Trim => Work::Scrape(ScrapePass::new(&self.field)),
            Stage::Scrape => self.retry(1),
            Stage::Retry { pass } => self.retry(pass.saturating_add(1)),
            Stage::Done => Work::Done,
        };
    }

    fn retry(&self, pass: u32) -> Work {
        if pass <= self.options.retries {
            Work::Retry(RetryPass::new(pass, &self.field))
        } else {
            Work::Done
        }
    }

    fn skip_unselected(&mut self) {
        while !self.options.passes.selects(self.stage()) {
            self.advance();
        }
    }
}

fn round_up(value: u64, unit: u64) -> u64 {
    value.checked_next_multiple_of(unit).unwrap_or(unit)
}
