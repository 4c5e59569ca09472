//! A simulated disk in virtual time. Its content does not matter, only
//! which sectors fail and how long everything takes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::super::Read;
use crate::map::Outcome;

pub const MEDIUM_ERROR: i32 = 61;

#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// For each read.
    pub command: Duration,
    /// For a read that does not begin where the last one ended.
    pub seek: Duration,
    /// For a read that fails.
    pub failure: Duration,
    pub bytes_per_second: u64,
}

impl Latency {
    pub const HARD_DISK: Self = Self {
        command: Duration::from_micros(100),
        seek: Duration::from_millis(10),
        failure: Duration::from_secs(3),
        bytes_per_second: 150_000_000,
    };
    pub const FLASH: Self = Self {
        command: Duration::from_micros(50),
        seek: Duration::ZERO,
        failure: Duration::from_micros(400),
        bytes_per_second: 1_000_000_000,
    };
    /// Every read costs a turn of the platter.
    pub const NO_CACHE: Self = Self {
        command: Duration::from_millis(8),
        ..Self::HARD_DISK
    };
    pub const NONE: Self = Self {
        command: Duration::ZERO,
        seek: Duration::ZERO,
        failure: Duration::ZERO,
        bytes_per_second: u64::MAX,
    };
}

#[derive(Debug, Clone)]
pub struct Disk {
    pub size: u64,
    pub sector: u64,
    /// Sectors that always fail.
    pub bad: BTreeSet<u64>,
    /// Sectors that fail so many more times.
    pub weak: BTreeMap<u64, u32>,
    /// Where reading is slower, and by how much.
    pub slow: Vec<(Range<u64>, u32)>,
    pub latency: Latency,
    pub clock: Duration,
    pub reads: u64,
    pub bad_reads: u64,
    head: u64,
}

impl Disk {
    pub fn new(size: u64, sector: u64, latency: Latency) -> Self {
        Self {
            size,
            sector,
            bad: BTreeSet::new(),
            weak: BTreeMap::new(),
            slow: Vec::new(),
            latency,
            clock: Duration::ZERO,
            reads: 0,
            bad_reads: 0,
            head: 0,
        }
    }

    pub fn sectors(&self) -> u64 {
        self.size.div_ceil(self.sector)
    }

    pub fn bytes_of(&self, sector: u64) -> Range<u64> {
        let start = sector * self.sector;
        start..(start + self.sector).min(self.size)
    }

    pub fn read(&mut self, read: Read) -> (Outcome, Duration) {
        assert!(read.len > 0 && read.end() <= self.size, "{read:?}");
        assert!(read.offset.is_multiple_of(self.sector), "{read:?}");
        assert!(
            read.end().is_multiple_of(self.sector) || read.end() == self.size,
            "{read:?}"
        );
        let mut elapsed = self.latency.command;
        if read.offset != self.head {
            elapsed += self.latency.seek;
        }
        self.head = read.end();
        let sectors = read.offset / self.sector..read.end().div_ceil(self.sector);
        let bad = self.bad.range(sectors.clone()).next().copied();
        let weak = self.weak.range(sectors).next().map(|(&sector, _)| sector);
        let outcome = match (bad, weak) {
            (None, None) => Outcome::Good,
            (Some(bad), weak) if weak.is_none_or(|weak| bad < weak) => Outcome::Bad {
                errno: MEDIUM_ERROR,
            },
            (_, weak) => {
                let weak = weak.expect("the first failing sector is a weak one");
                let left = self.weak.get_mut(&weak).expect("it is there");
                *left -= 1;
                if *left == 0 {
                    self.weak.remove(&weak);
                }
                Outcome::Bad { errno: 5 }
            }
        };
        match outcome {
            Outcome::Bad { .. } => {
                self.bad_reads += 1;
                elapsed += self.latency.failure;
            }
            Outcome::Good => {
                let factor = self
                    .slow
                    .iter()
                    .find(|(range, _)| range.contains(&read.offset))
                    .map_or(1, |(_, factor)| *factor);
                let nanos = u128::from(read.len) * 1_000_000_000
                    / u128::from(self.latency.bytes_per_second);
                elapsed += Duration::from_nanos(nanos as u64) * factor;
            }
        }
        self.reads += 1;
        self.clock += elapsed;
        (outcome, elapsed)
    }
}
