//! The passes against simulated disks, in virtual time.

mod disk;
mod scenario;

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::map::{Domain, Outcome, RangeState, RescueMap, StateKind};
use disk::{Disk, Latency, MEDIUM_ERROR};

const CLUSTER: u64 = 64 << 10;

fn options(sector: u64) -> PlanOptions {
    PlanOptions {
        cluster_bytes: CLUSTER,
        piece_bytes: 8 << 10,
        ..PlanOptions::new(sector as u32)
    }
}

/// What a test knows about the run so far, independently of the planner.
struct Witness {
    /// By sector: whether it was in a read that succeeded.
    read: Vec<bool>,
    /// The fold over the outcomes alone: what a resumed capture would have.
    folded: RescueMap,
}

impl Witness {
    fn new(disk: &Disk) -> Self {
        Self {
            read: vec![false; disk.sectors() as usize],
            folded: RescueMap::new(disk.size),
        }
    }

    /// Makes one read. Returns false when there is none left.
    fn step(&mut self, planner: &mut Planner, disk: &mut Disk) -> bool {
        let Some(read) = planner.next_read() else {
            return false;
        };
        assert_eq!(planner.next_read(), Some(read), "proposed until reported");
        let cluster = planner.options.cluster_bytes;
        assert_eq!(
            read.offset / cluster,
            (read.end() - 1) / cluster,
            "{read:?} crosses a cluster boundary"
        );
        let sectors =
            (read.offset / disk.sector) as usize..read.end().div_ceil(disk.sector) as usize;
        for sector in sectors.clone() {
            assert!(
                !self.read[sector],
                "sector {sector} was read before: {read:?}"
            );
            assert!(planner.domain().contains(sector as u64 * disk.sector));
        }
        let (outcome, elapsed) = disk.read(read);
        if outcome == Outcome::Good {
            self.read[sectors].fill(true);
        }
        self.folded
            .fold_read(read.range(), outcome, disk.sector as u32);
        planner.report(read, outcome, elapsed);
        true
    }

    fn finish(&mut self, planner: &mut Planner, disk: &mut Disk) {
        // Enough for one read of each sector and its failures many times over.
        let bound = 100 * (disk.sectors() + 10);
        for _ in 0..bound {
            if !self.step(planner, disk) {
                return;
            }
        }
        panic!("no end after {bound} reads");
    }
}

/// Copied is what can be read and unreadable is what cannot, to the sector.
fn assert_exact(map: &RescueMap, disk: &Disk, domain: &Domain) {
    for sector in 0..disk.sectors() {
        let bytes = disk.bytes_of(sector);
        let states: Vec<_> = map.runs_in(bytes.clone()).map(|run| run.state).collect();
        let expected = if !domain.contains(bytes.start) {
            StateKind::Untried
        } else if disk.bad.contains(&sector) {
            StateKind::Unreadable
        } else {
            StateKind::Copied
        };
        assert_eq!(states.len(), 1, "sector {sector}: {states:?}");
        assert_eq!(states[0].kind(), expected, "sector {sector}");
        if let RangeState::Unreadable { errno, .. } = states[0] {
            assert_eq!(errno, MEDIUM_ERROR);
        }
    }
}

fn latency() -> impl Strategy<Value = Latency> {
    prop_oneof![
        Just(Latency::HARD_DISK),
        Just(Latency::FLASH),
        Just(Latency::NO_CACHE),
        Just(Latency::NONE),
    ]
}

fn disk() -> impl Strategy<Value = Disk> {
    let sector = prop_oneof![3 => Just(512u64), 1 => Just(4096), 1 => Just(520)];
    let scattered = prop::collection::vec(any::<Index>(), 0..20);
    let patches = prop::collection::vec((any::<Index>(), 1u64..300, 1u64..6), 0..4);
    (1u64..1 << 20, sector, scattered, patches, latency()).prop_map(
        |(size, sector, scattered, patches, latency)| {
            let mut disk = Disk::new(size, sector, latency);
            let sectors = disk.sectors();
            let index = |index: Index| index.index(sectors as usize) as u64;
            disk.bad.extend(scattered.into_iter().map(index));
            for (start, len, step) in patches {
                let patch = (index(start)..sectors).take(len as usize);
                disk.bad.extend(patch.step_by(step as usize));
            }
            disk
        },
    )
}

fn with_weak(disk: impl Strategy<Value = Disk>) -> impl Strategy<Value = (Disk, u32)> {
    let weak = prop::collection::vec((any::<Index>(), 1u32..4), 0..12);
    (disk, weak, 0u32..4).prop_map(|(mut disk, weak, retries)| {
        for (index, failures) in weak {
            let sector = index.index(disk.sectors() as usize) as u64;
            if failures <= retries && !disk.bad.contains(&sector) {
                disk.weak.insert(sector, failures);
            }
        }
        (disk, retries)
    })
}

/// The most failing reads that are acceptable: one of each bad sector alone,
/// one of more than that while copying, one while trimming or
/// scraping, each retry, and each failure of a weak sector.
fn bad_reads_bound(disk: &Disk, retries: u32) -> u64 {
    let bad = disk.bad.len() as u64;
    let weak: u64 = disk
        .weak
        .values()
        .map(|&failures| u64::from(failures))
        .sum();
    bad * (3 + u64::from(retries)) + weak
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn finds_exactly_the_bad_sectors((mut disk, retries) in with_weak(disk())) {
        let options = PlanOptions { retries, ..options(disk.sector) };
        let bound = bad_reads_bound(&disk, retries);
        let mut planner = Planner::new(RescueMap::new(disk.size), options);
        let mut witness = Witness::new(&disk);
        witness.finish(&mut planner, &mut disk);

        prop_assert_eq!(planner.stop_reason(), Some(StopReason::Finished));
        prop_assert_eq!(planner.stage(), Stage::Done);
        prop_assert!(planner.is_complete() && planner.map().is_finished());
        assert_exact(planner.map(), &disk, &Domain::whole(disk.size));
        for run in planner.map().runs_of(StateKind::Unreadable) {
            let attempts = match run.state {
                RangeState::Unreadable { attempts, .. } => attempts,
                _ => 0,
            };
            prop_assert_eq!(attempts, 1 + retries);
        }
        prop_assert_eq!(planner.counters().reads, disk.reads);
        prop_assert_eq!(planner.counters().read_errors, disk.bad_reads);
        prop_assert!(disk.bad_reads <= bound, "{} > {}", disk.bad_reads, bound);
        // The stored outcomes alone say the same.
        prop_assert_eq!(&witness.folded, planner.map());
    }

    /// On a disk whose failures are slow, the only wasted failures are those of
    /// clusters.
    #[test]
    fn wastes_one_failure_a_cluster(mut disk in disk()) {
        disk.latency = Latency::HARD_DISK;
        let mut planner = Planner::new(RescueMap::new(disk.size), options(disk.sector));
        let cell = planner.options.cluster_bytes;
        let cells: std::collections::BTreeSet<u64> =
            disk.bad.iter().map(|sector| sector * disk.sector / cell).collect();
        Witness::new(&disk).finish(&mut planner, &mut disk);
        let bound = (disk.bad.len() + cells.len()) as u64;
        prop_assert!(disk.bad_reads <= bound, "{} > {}", disk.bad_reads, bound);
    }

    #[test]
    fn goes_on_after_any_interruption(
        (mut disk, retries) in with_weak(disk()),
        stops in prop::collection::vec((1u64..400, any::<bool>()), 1..6),
    ) {
        let options = PlanOptions { retries, ..options(disk.sector) };
        let mut witness = Witness::new(&disk);
        let mut map = RescueMap::new(disk.size);
        for (reads, exact) in stops {
            let mut planner = Planner::new(map, options.clone());
            for _ in 0..reads {
                witness.step(&mut planner, &mut disk);
            }
            // Either the whole map survived, or only the outcomes of reads.
            map = if exact { planner.into_map() } else { witness.folded.clone() };
        }
        let mut planner = Planner::new(map, options);
        witness.finish(&mut planner, &mut disk);
        prop_assert_eq!(planner.stop_reason(), Some(StopReason::Finished));
        assert_exact(planner.map(), &disk, &Domain::whole(disk.size));
    }

    #[test]
    fn reads_nothing_outside_the_domain(
        mut disk in disk(),
        ranges in prop::collection::vec((any::<Index>(), 1u64..100_000), 1..6),
    ) {
        let size = disk.size;
        let domain = Domain::from_ranges(ranges.into_iter().map(|(start, len)| {
            let start = start.index(size as usize) as u64;
            start..(start + len).min(size)
        }));
        let options = PlanOptions { domain: Some(domain.clone()), ..options(disk.sector) };
        let mut planner = Planner::new(RescueMap::new(size), options);
        Witness::new(&disk).finish(&mut planner, &mut disk);
        prop_assert!(planner.is_complete());
        assert_exact(planner.map(), &disk, &domain.aligned(disk.sector, size));
    }

    /// Holes come to light whenever the caller looks for them.
    #[test]
    fn takes_the_callers_word_for_copied_ranges(
        mut disk in disk(),
        holes in prop::collection::vec((any::<Index>(), 1u64..200, 0u64..40), 0..8),
    ) {
        let mut planner = Planner::new(RescueMap::new(disk.size), options(disk.sector));
        let mut witness = Witness::new(&disk);
        for (start, sectors, reads) in holes {
            for _ in 0..reads {
                witness.step(&mut planner, &mut disk);
            }
            let first = start.index(disk.sectors() as usize) as u64;
            for sector in first..(first + sectors).min(disk.sectors()) {
                disk.bad.remove(&sector);
                witness.read[sector as usize] = true;
            }
            let end = ((first + sectors) * disk.sector).min(disk.size);
            planner.mark_copied(first * disk.sector..end);
        }
        witness.finish(&mut planner, &mut disk);
        assert_exact(planner.map(), &disk, &Domain::whole(disk.size));
    }

    /// Another tool's map: any states, at boundaries of smaller sectors.
    #[test]
    fn goes_on_from_any_map(
        mut disk in disk(),
        runs in prop::collection::vec((any::<Index>(), 1u64..200, 0u8..5), 0..20),
        retries in 0u32..3,
    ) {
        let mut map = RescueMap::new(disk.size);
        for (start, len, state) in runs {
            let start = start.index(disk.size as usize) as u64 / 512 * 512;
            let state = match state {
                0 => RangeState::Untried,
                1 => RangeState::Copied,
                2 => RangeState::Untrimmed,
                3 => RangeState::Unscraped,
                _ => RangeState::Unreadable { errno: 5, attempts: 1 },
            };
            map.set(start..start + len * 512, state);
        }
        let before = map.clone();
        let options = PlanOptions { retries, ..options(disk.sector) };
        let mut planner = Planner::new(map, options);
        while let Some(read) = planner.next_read() {
            // Copied bytes are read only to fill up a sector.
            let sector = disk.sector;
            for start in (read.offset..read.end()).step_by(sector as usize) {
                let whole = start..(start + sector).min(disk.size);
                let settled = before.runs_in(whole).all(|run| run.state == RangeState::Copied);
                prop_assert!(!settled, "{read:?} reads copied sector at {start}");
            }
            let (outcome, elapsed) = disk.read(read);
            planner.report(read, outcome, elapsed);
        }
        let map = planner.map();
        prop_assert!(map.is_finished());
        for run in before.runs_of(StateKind::Copied) {
            prop_assert!(map.runs_in(run.range()).all(|now| now.state == RangeState::Copied));
        }
        for sector in 0..disk.sectors() {
            let bad = disk.bad.contains(&sector);
            for run in map.runs_in(disk.bytes_of(sector)) {
                if bad && run.state == RangeState::Copied {
                    let run = run.start.max(sector * disk.sector)
                        ..run.end().min((sector + 1) * disk.sector);
                    prop_assert!(before.runs_in(run).all(|was| was.state == RangeState::Copied));
                } else if !bad && retries > 0 {
                    // Without a retry, what another tool called unreadable stays so.
                    prop_assert_eq!(run.state, RangeState::Copied);
                }
            }
        }
    }

    #[test]
    fn stops_at_the_limit_and_goes_on(mut disk in disk(), limit in 1u64..20) {
        let limited = PlanOptions { max_bad_reads: Some(limit), ..options(disk.sector) };
        let mut witness = Witness::new(&disk);
        let mut map = RescueMap::new(disk.size);
        for _ in 0..10_000 {
            let mut planner = Planner::new(map, limited.clone());
            witness.finish(&mut planner, &mut disk);
            prop_assert!(planner.counters().read_errors <= limit);
            if planner.stop_reason() == Some(StopReason::Finished) {
                assert_exact(planner.map(), &disk, &Domain::whole(disk.size));
                return Ok(());
            }
            prop_assert_eq!(planner.stop_reason(), Some(StopReason::Limit));
            prop_assert_eq!(planner.counters().read_errors, limit);
            prop_assert!(!planner.is_complete());
            map = planner.into_map();
        }
        prop_assert!(false, "no end");
    }
}

fn disk_with(size: u64, bad: impl IntoIterator<Item = u64>) -> Disk {
    let mut disk = Disk::new(size, 512, Latency::HARD_DISK);
    disk.bad.extend(bad);
    disk
}

fn stages(disk: &mut Disk, planner: &mut Planner) -> Vec<Stage> {
    let mut stages = vec![];
    let mut witness = Witness::new(disk);
    loop {
        let more = planner.next_read().is_some();
        if stages.last() != Some(&planner.stage()) {
            stages.push(planner.stage());
        }
        if !more {
            return stages;
        }
        witness.step(planner, disk);
    }
}

#[test]
fn a_good_disk_is_read_once_in_clusters() {
    let mut disk = disk_with(10 * CLUSTER + 100, []);
    let mut planner = Planner::new(RescueMap::new(disk.size), options(512));
    let mut at = 0;
    while let Some(read) = planner.next_read() {
        assert_eq!(
            read,
            Read {
                offset: at,
                len: CLUSTER.min(disk.size - at)
            }
        );
        at = read.end();
        let (outcome, elapsed) = disk.read(read);
        planner.report(read, outcome, elapsed);
    }
    assert_eq!(at, disk.size);
    assert_eq!(disk.reads, 11);
}

#[test]
fn a_lone_bad_sector_costs_two_failures() {
    let mut disk = disk_with(100 * CLUSTER, [1000]);
    let mut planner = Planner::new(RescueMap::new(disk.size), options(512));
    let stages = stages(&mut disk, &mut planner);
    assert_eq!(disk.bad_reads, 2);
    assert_eq!(
        stages,
        [
            Stage::Copy { pass: 1 },
            Stage::Copy { pass: 2 },
            Stage::Trim,
            Stage::Done
        ]
    );
}

#[test]
fn an_empty_or_finished_map_needs_no_reads() {
    for size in [0, 5000] {
        let mut map = RescueMap::new(size);
        map.set(0..size, RangeState::Copied);
        let mut planner = Planner::new(map, options(512));
        assert_eq!(planner.next_read(), None);
        assert_eq!(planner.stage(), Stage::Done);
        assert_eq!(planner.stop_reason(), Some(StopReason::Finished));
    }
}

#[test]
fn resumes_in_the_stage_that_the_map_shows() {
    let bad = RangeState::Unreadable {
        errno: 5,
        attempts: 1,
    };
    for (state, stage) in [
        (RangeState::Untried, Stage::Copy { pass: 1 }),
        (RangeState::Untrimmed, Stage::Trim),
        (RangeState::Unscraped, Stage::Scrape),
        (bad, Stage::Retry { pass: 1 }),
        (RangeState::Copied, Stage::Done),
    ] {
        let mut map = RescueMap::new(10 * CLUSTER);
        map.set(0..10 * CLUSTER, RangeState::Copied);
        map.set(CLUSTER..2 * CLUSTER, state);
        let planner = Planner::new(
            map,
            PlanOptions {
                retries: 1,
                ..options(512)
            },
        );
        assert_eq!(planner.stage(), stage);
    }
}

#[test]
fn only_the_selected_passes_are_made() {
    let mut disk = disk_with(40 * CLUSTER, [700, 701, 703, 1500]);
    let selected = PlanOptions {
        passes: "1,trim".parse().expect("a list"),
        ..options(512)
    };
    let mut planner = Planner::new(RescueMap::new(disk.size), selected);
    let stages = stages(&mut disk, &mut planner);
    assert_eq!(stages, [Stage::Copy { pass: 1 }, Stage::Trim, Stage::Done]);
    assert_eq!(planner.stop_reason(), Some(StopReason::Finished));
    assert!(!planner.is_complete());
    assert!(planner.map().untried_bytes() > 0);
}

/// An interrupted first pass leaves its gaps for later when it goes on.
#[test]
fn a_resumed_first_pass_goes_on_at_its_front() {
    let mut disk = disk_with(100 * CLUSTER, [10, 2000, 4000]);
    let mut planner = Planner::new(RescueMap::new(disk.size), options(512));
    let mut witness = Witness::new(&disk);
    while disk.bad_reads < 3 {
        assert!(witness.step(&mut planner, &mut disk));
    }
    assert_eq!(planner.stage(), Stage::Copy { pass: 1 });
    let next = planner.next_read();
    let mut resumed = Planner::new(witness.folded.clone(), options(512));
    assert_eq!(resumed.next_read(), next);
}

#[test]
fn slow_stretches_wait() {
    let size = 4 << 30;
    let mut disk = Disk::new(size, 512, Latency::HARD_DISK);
    disk.slow = vec![(1 << 30..(1 << 30) + (64 << 20), 1000)];
    let options = PlanOptions {
        slow_warm_up: Duration::from_secs(5),
        ..PlanOptions::new(512)
    };
    let mut planner = Planner::new(RescueMap::new(size), options.clone());
    let mut left_for_later = None;
    while let Some(read) = planner.next_read() {
        let (outcome, elapsed) = disk.read(read);
        planner.report(read, outcome, elapsed);
        if planner.stage() == (Stage::Copy { pass: 2 }) && left_for_later.is_none() {
            left_for_later = Some(planner.map().untried_bytes());
        }
    }
    assert!(planner.counters().slow_reads > 0);
    assert!(left_for_later.expect("there was a second pass") > 32 << 20);
    assert_eq!(planner.map().copied_bytes(), size);

    // Told not to mind, it reads straight on.
    let mut planner = Planner::new(
        RescueMap::new(size),
        PlanOptions {
            min_read_rate: MinReadRate::Off,
            ..options
        },
    );
    while let Some(read) = planner.next_read() {
        assert_eq!(planner.stage(), Stage::Copy { pass: 1 });
        let (outcome, elapsed) = disk.read(read);
        planner.report(read, outcome, elapsed);
    }
    assert_eq!(planner.counters().slow_reads, 0);
}

#[test]
fn nothing_is_slow_before_the_warm_up() {
    let mut disk = Disk::new(64 << 20, 512, Latency::HARD_DISK);
    disk.slow = vec![(32 << 20..64 << 20, 100)];
    let mut planner = Planner::new(RescueMap::new(disk.size), PlanOptions::new(512));
    while let Some(read) = planner.next_read() {
        let (outcome, elapsed) = disk.read(read);
        planner.report(read, outcome, elapsed);
    }
    assert_eq!(planner.counters().slow_reads, 0);
}

#[test]
fn retries_alternate_their_direction() {
    let mut disk = disk_with(CLUSTER, [20, 40, 60]);
    let retrying = PlanOptions {
        retries: 2,
        ..options(512)
    };
    let mut planner = Planner::new(RescueMap::new(disk.size), retrying);
    let mut retried = Vec::new();
    while let Some(read) = planner.next_read() {
        if matches!(planner.stage(), Stage::Retry { .. }) {
            retried.push(read.offset / 512);
        }
        let (outcome, elapsed) = disk.read(read);
        planner.report(read, outcome, elapsed);
    }
    assert_eq!(retried, [60, 40, 20, 20, 40, 60]);
}

/// Where failures cost next to nothing, a long failed range is not read sector by
/// sector.
#[test]
fn quick_failures_buy_longer_reads() {
    let reads = |latency| {
        let mut disk = Disk::new(64 << 20, 512, latency);
        disk.bad.extend([50_000, 50_100]);
        let mut planner = Planner::new(RescueMap::new(disk.size), PlanOptions::new(512));
        Witness::new(&disk).finish(&mut planner, &mut disk);
        disk
    };
    let hard_disk = reads(Latency::HARD_DISK);
    let flash = reads(Latency::FLASH);
    assert_eq!(hard_disk.bad_reads, 3);
    assert!(
        flash.reads < hard_disk.reads / 4,
        "{} {}",
        flash.reads,
        hard_disk.reads
    );
    assert!(flash.bad_reads <= 8, "{}", flash.bad_reads);
}
