//! A simulated failing disk, for tests of everything that reads one.
//!
//! It behaves as real disks were seen to behave under direct I/O:
//! - A read that touches an unreadable sector fails whole, with the errno of the
//!   first such sector in it, and leaves the buffer's contents unspecified.
//! - Faults are as wide as the physical sector: one bad logical sector of a disk
//!   with 512-byte logical and 4096-byte physical ones takes its seven neighbours along.
//! - A disk that has vanished answers every read with [`ReadFailure::Gone`].
//! - A read that is not aligned to the logical sector, in offset, length or memory
//!   (4096, as [`Source::read_at`] demands), is [`ReadFailure::Fatal`] with `EINVAL`.
//!
//! Contents come from a seed, sector by sector as they are asked for, so a disk
//! of many GiB costs nothing until it is read; or they are given. Time is virtual: every read
//! adds its latency to a [`VirtualClock`] and returns at once.
//!
//! Sector numbers in this module count logical sectors. Every read is logged
//! (unless told otherwise), so that a test can prove what was read and how often.

mod content;
mod plan;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::content::Content;
pub use self::plan::FaultDeviceBuilder;
use self::plan::{Fault, RangeMap};
use super::failure::MISUSE;
use super::{Geometry, Identity, ReadFailure, Source};
use crate::sys::BUFFER_ALIGN;

/// Time that passes only when a simulated device says so.
#[derive(Debug, Default)]
pub struct VirtualClock {
    nanos: AtomicU64,
}

impl VirtualClock {
    /// A clock that stands at 0.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Time since the clock was made.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    /// Lets `time` pass.
    pub fn advance(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }
}

/// One read that a [`FaultDevice`] was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// What came of it.
    pub outcome: Result<(), ReadFailure>,
}

impl ReadRecord {
    /// Whether the read delivered its bytes.
    pub fn ok(&self) -> bool {
        self.outcome.is_ok()
    }

    fn sectors(&self, sector_bytes: u64) -> Range<u64> {
        self.offset / sector_bytes..(self.offset + self.len).div_ceil(sector_bytes)
    }
}

/// A simulated disk; clones, and what [`reopened`](Self::reopened) gives, are
/// the same disk.
#[derive(Clone)]
pub struct FaultDevice {
    disk: Arc<Disk>,
    identity: Identity,
}

struct Disk {
    geometry: Geometry,
    content: Content,
    faults: RangeMap<Fault>,
    slow: RangeMap<Duration>,
    read_latency: Duration,
    error_latency: Duration,
    /// Bytes a second of a healthy read; 0 for infinitely fast.
    read_rate: u64,
    gone_errno: i32,
    keep_log: bool,
    any_memory: bool,
    clock: Arc<VirtualClock>,
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    reads: u64,
    gone: bool,
    gone_after: Option<u64>,
    /// Failures so far of weak sectors, by the sector's number.
    failed: HashMap<u64, u32>,
    stalled: usize,
    stalls_released: bool,
    log: Vec<ReadRecord>,
}

impl FaultDevice {
    /// A healthy disk of `size_bytes` with 512-byte sectors and contents from
    /// seed 0, to be given faults.
    pub fn builder(size_bytes: u64) -> FaultDeviceBuilder {
        FaultDeviceBuilder::new(Content::seeded(0), size_bytes)
    }

    /// A healthy disk that holds `bytes`, to be given faults.
    pub fn holding(bytes: impl Into<Arc<[u8]>>) -> FaultDeviceBuilder {
        let bytes = bytes.into();
        let size_bytes = bytes.len() as u64;
        FaultDeviceBuilder::new(Content::given(bytes), size_bytes)
    }

    /// The same disk, with its counts, under another path: what a disk is after
    /// it was plugged in again.
    pub fn reopened(&self, path: &str) -> Self {
        Self {
            disk: Arc::clone(&self.disk),
            identity: Identity {
                path: path.to_owned(),
                ..self.identity.clone()
            },
        }
    }

    /// Fills `buf` with what a perfect disk would hold at `offset`: the oracle
    /// that a test compares with. Not counted, not logged, never fails.
    ///
    /// # Panics
    /// Beyond the end of the disk.
    pub fn content(&self, offset: u64, buf: &mut [u8]) {
        let end = offset.checked_add(buf.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.disk.geometry.size_bytes),
            "{} bytes at {offset} are beyond the end of the disk",
            buf.len()
        );
        self.disk.content.fill(offset, buf);
    }

    /// The sectors that no number of reads delivers, in ascending merged ranges.
    pub fn bad_sectors(&self) -> Vec<Range<u64>> {
        let mut merged: Vec<Range<u64>> = Vec::new();
        for (range, fault) in self.disk.faults.iter() {
            if !matches!(fault, Fault::Bad { .. }) {
                continue;
            }
            match merged.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Where each read's latency goes.
    pub fn clock(&self) -> &Arc<VirtualClock> {
        &self.disk.clock
    }

    /// How many reads were asked for, whatever came of them.
    pub fn total_reads(&self) -> u64 {
        self.disk.lock().reads
    }

    /// How many reads touched `sector`, whatever came of them.
    pub fn reads_of(&self, sector: u64) -> u64 {
        self.count(sector, |_| true)
    }

    /// How many reads delivered `sector`.
    pub fn successes_of(&self, sector: u64) -> u64 {
        self.count(sector, ReadRecord::ok)
    }

    /// Every read so far, in the order of completion.
    ///
    /// # Panics
    /// When the disk was built to keep no log; so do all that count from it.
    pub fn log(&self) -> Vec<ReadRecord> {
        self.disk.logged().log.clone()
    }

    /// How many reads there were when it was asked: hand it to
    /// [`delivered_again_since`](Self::delivered_again_since).
    pub fn log_len(&self) -> usize {
        self.disk.logged().log.len()
    }

    /// The sectors that were delivered more than once, in ascending merged ranges.
    pub fn delivered_again(&self) -> Vec<Range<u64>> {
        self.delivered_at_least(self.disk.logged().log.iter(), 2)
    }

    /// The sectors among `delivered`, the reads of the log before `mark`, that any later read
    /// touched: reads that a resumed capture should not have made.
    pub fn delivered_again_since(&self, mark: usize) -> Vec<Range<u64>> {
        let sector = self.sector_bytes();
        let state = self.disk.logged();
        let before = self.delivered_at_least(state.log[..mark].iter(), 1);
        let mut again = Vec::new();
        for record in &state.log[mark..] {
            let later = record.sectors(sector);
            let first = before.partition_point(|range| range.end <= later.start);
            for range in &before[first..] {
                if range.start >= later.end {
                    break;
                }
                again.push(range.start.max(later.start)..range.end.min(later.end));
            }
        }
        plan::merge(again)
    }

    /// Takes the disk away: every read is gone until it comes back.
    pub fn vanish(&self) {
        self.disk.lock().gone = true;
    }

    /// Brings a vanished disk back, as it was. It does not vanish by
    /// [`gone_after`](FaultDeviceBuilder::gone_after) a second time.
    pub fn come_back(&self) {
        let mut state = self.disk.lock();
        state.gone = false;
        state.gone_after = None;
    }

    /// Lets the disk vanish after another `reads` reads.
    pub fn vanish_after(&self, reads: u64) {
        let mut state = self.disk.lock();
        state.gone_after = Some(state.reads.saturating_add(reads));
    }

    /// Whether the disk is there: what an opened block device would say.
    pub fn alive(&self) -> bool {
        !self.disk.lock().gone
    }

    /// How many reads hang in a [`stall`](FaultDeviceBuilder::stall) now.
    pub fn stalled(&self) -> usize {
        self.disk.lock().stalled
    }

    /// Lets every stalled read go on, and no later one stall.
    pub fn release_stalls(&self) {
        self.disk.lock().stalls_released = true;
        self.disk.released.notify_all();
    }

    fn sector_bytes(&self) -> u64 {
        u64::from(self.disk.geometry.logical_sector_bytes)
    }

    fn count(&self, sector: u64, counts: impl Fn(&ReadRecord) -> bool) -> u64 {
        let sector_bytes = self.sector_bytes();
        let state = self.disk.logged();
        let touches = |record: &&ReadRecord| record.sectors(sector_bytes).contains(&sector);
        state
            .log
            .iter()
            .filter(touches)
            .filter(|&record| counts(record))
            .count() as u64
    }

    fn delivered_at_least<'a>(
        &self,
        log: impl Iterator<Item = &'a ReadRecord>,
        times: i64,
    ) -> Vec<Range<u64>> {
        let mut edges: Vec<(u64, i64)> = Vec::new();
        for record in log.filter(|record| record.ok()) {
            let sectors = record.sectors(self.sector_bytes());
            edges.push((sectors.start, 1));
            edges.push((sectors.end, -1));
        }
        edges.sort_unstable();
        let mut covered = Vec::new();
        let mut depth = 0;
        let mut previous = 0;
        for (at, step) in edges {
            if depth >= times && at > previous {
                covered.push(previous..at);
            }
            depth += step;
            previous = at;
        }
        plan::merge(covered)
    }
}

impl Disk {
    /// Nothing panics under this lock half-way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logged(&self) -> MutexGuard<'_, State> {
        assert!(self.keep_log, "this disk was built to keep no log");
        self.lock()
    }

    fn misused(&self, offset: u64, buf: &[u8]) -> bool {
        let size = self.geometry.size_bytes;
        let sector = u64::from(self.geometry.logical_sector_bytes);
        let len = buf.len() as u64;
        let Some(end) = offset.checked_add(len).filter(|&end| end <= size) else {
            return true;
        };
        let aligned = offset.is_multiple_of(sector) && (end.is_multiple_of(sector) || end == size);
        let in_memory = self.any_memory || buf.as_ptr().addr().is_multiple_of(BUFFER_ALIGN);
        !(aligned && in_memory)
    }

    /// What the disk answers, and how long it takes over it.
    fn answer(&self, offset: u64, len: u64) -> (Result<(), ReadFailure>, Duration) {
        let sector = u64::from(self.geometry.logical_sector_bytes);
        let touched = offset / sector..(offset + len).div_ceil(sector);
        let mut state = self.lock();
        while self.stalls(&touched) && !state.stalls_released && !state.gone {
            state.stalled += 1;
            state = self
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.stalled -= 1;
        }
        if state.gone_after.is_some_and(|reads| state.reads >= reads) {
            state.gone = true;
        }
        state.reads += 1;
        let (outcome, time) = if state.gone {
            let errno = self.gone_errno;
            (Err(ReadFailure::Gone { errno }), Duration::ZERO)
        } else {
            self.attempt(&mut state, touched, len)
        };
        if self.keep_log {
            state.log.push(ReadRecord {
                offset,
                len,
                outcome,
            });
        }
        (outcome, time)
    }

    fn stalls(&self, touched: &Range<u64>) -> bool {
        let mut faults = self.faults.overlapping(touched);
        faults.any(|(_, fault)| matches!(fault, Fault::Stall))
    }

    fn attempt(
        &self,
        state: &mut State,
        touched: Range<u64>,
        len: u64,
    ) -> (Result<(), ReadFailure>, Duration) {
        let mut outcome = Ok(());
        for (range, fault) in self.faults.overlapping(&touched) {
            outcome = match *fault {
                Fault::Stall => Ok(()),
                Fault::Bad { errno } => Err(ReadFailure::Unreadable { errno }),
                Fault::Fatal { errno } => Err(ReadFailure::Fatal { errno }),
                Fault::Vanish => {
                    state.gone = true;
                    let errno = self.gone_errno;
                    Err(ReadFailure::Gone { errno })
                }
                Fault::Weak { failures, errno } => self.strain(state, range, failures, errno),
            };
            if outcome.is_err() {
                break;
            }
        }
        let mut time = self.read_latency;
        if outcome.is_err() {
            time += self.error_latency;
        } else if self.read_rate > 0 {
            time += Duration::from_secs_f64(len as f64 / self.read_rate as f64);
        }
        for (range, per_sector) in self.slow.overlapping(&touched) {
            let sectors = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
            time += per_sector.saturating_mul(sectors);
        }
        (outcome, time)
    }

    /// A disk gives up at the first sector that fails, so the attempt counts for
    /// that one alone.
    fn strain(
        &self,
        state: &mut State,
        range: Range<u64>,
        failures: u32,
        errno: i32,
    ) -> Result<(), ReadFailure> {
        let per_physical =
            u64::from(self.geometry.physical_sector_bytes / self.geometry.logical_sector_bytes);
        let mut sector = range.start / per_physical;
        while sector * per_physical < range.end {
            let failed = state.failed.entry(sector).or_insert(0);
            if *failed < failures {
                *failed += 1;
                return Err(ReadFailure::Unreadable { errno });
            }
            sector += 1;
        }
        Ok(())
    }
}

impl Source for FaultDevice {
    fn geometry(&self) -> Geometry {
        self.disk.geometry
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        if self.disk.misused(offset, buf) {
            return Err(MISUSE);
        }
        let (outcome, time) = self.disk.answer(offset, buf.len() as u64);
        self.disk.clock.advance(time);
        if outcome.is_ok() {
            self.disk.content.fill(offset, buf);
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
