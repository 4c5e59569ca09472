//! Which faults a simulated disk has: the builder, and a map of ranges.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::content::Content;
use super::{Disk, FaultDevice, State, VirtualClock};
use crate::device::{Geometry, Identity};

/// `EIO`, what a bare [`bad`](FaultDeviceBuilder::bad) sector of many drivers gives.
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Bad { errno: i32 },
    Weak { failures: u32, errno: i32 },
    Fatal { errno: i32 },
    Vanish,
    Stall,
}

/// Disjoint ranges with a value each; where two are inserted over each other the
/// first keeps its place.
#[derive(Debug, Clone)]
pub(super) struct RangeMap<T>(BTreeMap<u64, (u64, T)>);

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> RangeMap<T> {
    pub(super) fn insert(&mut self, range: Range<u64>, value: T) {
        let taken: Vec<Range<u64>> = self.overlapping(&range).map(|(r, _)| r).collect();
        let mut start = range.start;
        for gap_end in taken.iter().map(|r| r.start).chain([range.end]) {
            if start < gap_end {
                self.0.insert(start, (gap_end, value.clone()));
            }
            start = taken
                .iter()
                .find(|r| r.start == gap_end)
                .map_or(gap_end, |r| r.end);
        }
    }

    /// What overlaps `range`, clipped to it, ascending.
    pub(super) fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, &T)> {
        let range = range.clone();
        // Disjoint ranges: only the last that starts before can reach in.
        let first = self
            .0
            .range(..range.start)
            .next_back()
            .map_or(range.start, |(&start, _)| start);
        self.0
            .range(first..range.end.max(first))
            .map(move |(&start, (end, value))| {
                (start.max(range.start)..(*end).min(range.end), value)
            })
            .filter(|(clipped, _)| clipped.start < clipped.end)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Range<u64>, &T)> {
        self.0
            .iter()
            .map(|(&start, (end, value))| (start..*end, value))
    }
}

/// The union of `ranges`, ascending, touching ones joined.
pub(super) fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// What a [`FaultDevice`] is to be like. Ranges are of logical sectors, unless
/// named otherwise; where faults overlap, the first one given stays.
#[must_use]
pub struct FaultDeviceBuilder {
    content: Content,
    geometry: Geometry,
    identity: Identity,
    faults: Vec<(Range<u64>, Fault)>,
    slow: Vec<(Range<u64>, Duration)>,
    read_latency: Duration,
    error_latency: Duration,
    read_rate: u64,
    gone_after: Option<u64>,
    gone_errno: i32,
    keep_log: bool,
    any_memory: bool,
    clock: Arc<VirtualClock>,
}

impl FaultDeviceBuilder {
    pub(super) fn new(content: Content, size_bytes: u64) -> Self {
        Self {
            content,
            geometry: Geometry {
                size_bytes,
                logical_sector_bytes: 512,
                physical_sector_bytes: 512,
            },
            identity: Identity {
                path: "/dev/simulated".to_owned(),
                model: Some("Simulated disk".to_owned()),
                serial: Some("SIM0001".to_owned()),
                transport: Some("ata".to_owned()),
                ..Identity::default()
            },
            faults: Vec::new(),
            slow: Vec::new(),
            read_latency: Duration::ZERO,
            error_latency: Duration::ZERO,
            read_rate: 0,
            gone_after: None,
            gone_errno: 0,
            keep_log: true,
            any_memory: false,
            clock: VirtualClock::new(),
        }
    }

    /// Contents from this seed; without effect on given contents.
    pub fn seed(mut self, seed: u64) -> Self {
        self.content.reseed(seed);
        self
    }

    /// Zeros in this range of bytes.
    pub fn zeros(mut self, bytes: Range<u64>) -> Self {
        self.content.clear(bytes);
        self
    }

    /// Logical and physical sector size, in bytes.
    pub fn sectors(mut self, logical_bytes: u32, physical_bytes: u32) -> Self {
        self.geometry.logical_sector_bytes = logical_bytes;
        self.geometry.physical_sector_bytes = physical_bytes;
        self
    }

    /// The whole identity.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// The serial number; `SIM0001` otherwise.
    pub fn serial(mut self, serial: &str) -> Self {
        self.identity.serial = Some(serial.to_owned());
        self
    }

    /// Sectors that never read, with `EIO`.
    pub fn bad(self, sectors: Range<u64>) -> Self {
        self.bad_with(sectors, EIO)
    }

    /// Sectors that never read, with this errno.
    pub fn bad_with(self, sectors: Range<u64>, errno: i32) -> Self {
        self.fault(sectors, Fault::Bad { errno })
    }

    /// Sectors each of which fails `failures` times and reads from then on. A
    /// read stops at the first sector that fails, so that one alone is a try nearer.
    pub fn weak(self, sectors: Range<u64>, failures: u32, errno: i32) -> Self {
        self.fault(sectors, Fault::Weak { failures, errno })
    }

    /// Sectors that read, but take so long each, in virtual time.
    pub fn slow(mut self, sectors: Range<u64>, per_sector: Duration) -> Self {
        self.slow.push((sectors, per_sector));
        self
    }

    /// Sectors a read of which fails with [`Fatal`](super::ReadFailure::Fatal) and this errno.
    pub fn fatal_at(self, sectors: Range<u64>, errno: i32) -> Self {
        self.fault(sectors, Fault::Fatal { errno })
    }

    /// Sectors the touch of which makes the disk vanish, again after every return.
    pub fn gone_at(self, sectors: Range<u64>) -> Self {
        self.fault(sectors, Fault::Vanish)
    }

    /// Sectors a read of which hangs, in real time, until
    /// [`release_stalls`](FaultDevice::release_stalls).
    pub fn stall(self, sectors: Range<u64>) -> Self {
        self.fault(sectors, Fault::Stall)
    }

    /// The disk answers so many reads, then it is gone until it comes back.
    pub fn gone_after(mut self, reads: u64) -> Self {
        self.gone_after = Some(reads);
        self
    }

    /// The errno of reads of a vanished disk; 0, an end of file, otherwise.
    pub fn gone_errno(mut self, errno: i32) -> Self {
        self.gone_errno = errno;
        self
    }

    /// Virtual time that every read takes.
    pub fn read_latency(mut self, time: Duration) -> Self {
        self.read_latency = time;
        self
    }

    /// Virtual time that a failing read takes on top.
    pub fn error_latency(mut self, time: Duration) -> Self {
        self.error_latency = time;
        self
    }

    /// Bytes that a healthy read delivers in a second of virtual time; infinitely
    /// many otherwise.
    pub fn read_rate(mut self, bytes_per_second: u64) -> Self {
        self.read_rate = bytes_per_second;
        self
    }

    /// The clock that latencies are added to; one of its own otherwise.
    pub fn clock(mut self, clock: Arc<VirtualClock>) -> Self {
        self.clock = clock;
        self
    }

    /// Keeps no log of reads, which costs 40 bytes for each.
    pub fn without_log(mut self) -> Self {
        self.keep_log = false;
        self
    }

    /// Accepts buffers at any address, which a real disk under direct I/O does not.
    pub fn any_memory(mut self) -> Self {
        self.any_memory = true;
        self
    }

    /// The disk.
    ///
    /// # Panics
    /// When a sector size is 0 or the physical one no multiple of the logical one.
    pub fn build(self) -> FaultDevice {
        let Geometry {
            logical_sector_bytes: logical,
            physical_sector_bytes: physical,
            ..
        } = self.geometry;
        assert!(
            logical > 0 && physical > 0 && physical.is_multiple_of(logical),
            "physical sectors of {physical} bytes are not made of logical ones of {logical}"
        );
        let per_physical = u64::from(physical / logical);
        let mut faults = RangeMap::default();
        for (sectors, fault) in self.faults {
            let start = sectors.start / per_physical * per_physical;
            let end = sectors
                .end
                .div_ceil(per_physical)
                .saturating_mul(per_physical);
            faults.insert(start..end, fault);
        }
        let mut slow = RangeMap::default();
        for (sectors, per_sector) in self.slow {
            slow.insert(sectors, per_sector);
        }
        FaultDevice {
            disk: Arc::new(Disk {
                geometry: self.geometry,
                content: self.content,
                faults,
                slow,
                read_latency: self.read_latency,
                error_latency: self.error_latency,
                read_rate: self.read_rate,
                gone_errno: self.gone_errno,
                keep_log: self.keep_log,
                any_memory: self.any_memory,
                clock: self.clock,
                state: Mutex::new(State {
                    gone_after: self.gone_after,
                    ..State::default()
                }),
                released: Condvar::new(),
            }),
            identity: self.identity,
        }
    }

    fn fault(mut self, sectors: Range<u64>, fault: Fault) -> Self {
        self.faults.push((sectors, fault));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(map: &RangeMap<char>) -> Vec<(Range<u64>, char)> {
        map.iter().map(|(range, &value)| (range, value)).collect()
    }

    #[test]
    fn the_first_of_two_overlapping_ranges_stays() {
        let mut map = RangeMap::default();
        map.insert(10..20, 'a');
        map.insert(30..40, 'b');
        map.insert(5..35, 'c');
        assert_eq!(
            all(&map),
            [(5..10, 'c'), (10..20, 'a'), (20..30, 'c'), (30..40, 'b')]
        );
        map.insert(12..18, 'd');
        map.insert(39..41, 'e');
        assert_eq!(all(&map).len(), 5);
        assert_eq!(all(&map)[4], (40..41, 'e'));
    }

    #[test]
    fn overlapping_is_clipped() {
        let mut map = RangeMap::default();
        map.insert(0..100, 'a');
        map.insert(200..300, 'b');
        let over = |range: Range<u64>| -> Vec<Range<u64>> {
            map.overlapping(&range)
                .map(|(clipped, _)| clipped)
                .collect()
        };
        assert_eq!(over(50..60), vec![50..60; 1]);
        assert_eq!(over(99..201), [99..100, 200..201]);
        assert_eq!(over(100..200), [] as [Range<u64>; 0]);
        assert_eq!(over(0..0), [] as [Range<u64>; 0]);
    }

    #[test]
    fn merging_joins_touching_ranges() {
        assert_eq!(merge(vec![5..6, 0..2, 2..3, 1..2]), [0..3, 5..6]);
    }
}
