//! Whole disks with typical damage: how much is copied after how many failing
//! reads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::disk::{Disk, Latency};
use crate::map::RescueMap;
use crate::pass::{PlanOptions, Planner, Stage};

const SECTOR: u64 = 512;

/// Numbers that look random and are the same every time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// `count` bad sectors within `sectors` sectors from a random place.
fn patch(disk: &mut Disk, dice: &mut Dice, count: u64, sectors: u64) {
    let start = dice.below(disk.sectors() - sectors);
    let mut placed = 0;
    while placed < count {
        placed += u64::from(disk.bad.insert(start + dice.below(sectors)));
    }
}

/// The course of one rescue.
struct Course {
    /// After each failing read: copied bytes that were not yet.
    missing_after: Vec<u64>,
    /// Failing reads by stage: copy, trim, scrape.
    bad_reads: [u64; 3],
    reads: u64,
    clock: Duration,
    /// Bytes missing, beyond the unreadable ones, at the end of copying.
    missing_after_copy: u64,
}

fn rescue(mut disk: Disk, options: PlanOptions) -> Course {
    let lost = disk.bad.len() as u64 * SECTOR;
    let mut planner = Planner::new(RescueMap::new(disk.size), options);
    let mut course = Course {
        missing_after: vec![],
        bad_reads: [0; 3],
        reads: 0,
        clock: Duration::ZERO,
        missing_after_copy: 0,
    };
    while let Some(read) = planner.next_read() {
        let before = disk.bad_reads;
        let (outcome, elapsed) = disk.read(read);
        let stage = planner.stage();
        planner.report(read, outcome, elapsed);
        let missing = disk.size - lost - planner.map().copied_bytes();
        let failed = disk.bad_reads - before;
        if failed > 0 {
            course.missing_after.push(missing);
        }
        match stage {
            Stage::Copy { .. } => {
                course.bad_reads[0] += failed;
                course.missing_after_copy = missing;
            }
            Stage::Trim => course.bad_reads[1] += failed,
            _ => course.bad_reads[2] += failed,
        }
    }
    let expected: BTreeSet<u64> = planner
        .map()
        .unreadable_runs()
        .flat_map(|run| (run.start / SECTOR)..(run.start + run.len) / SECTOR)
        .collect();
    assert_eq!(expected, disk.bad);
    assert!(planner.map().is_finished());
    course.reads = disk.reads;
    course.clock = disk.clock;
    course
}

impl Course {
    fn failing_reads(&self) -> u64 {
        self.bad_reads.iter().sum()
    }

    fn missing_after(&self, failing_reads: usize) -> u64 {
        // Nothing is missing once every failing read is made.
        self.missing_after.get(failing_reads).copied().unwrap_or(0)
    }

    fn print(&self, name: &str) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let [copy, trim, scrape] = self.bad_reads;
        print!(
            "{name}: {} failing reads ({copy} copying, {trim} trimming, {scrape} scraping) of {}, {:.1} h; MiB missing after copying {:.1}",
            self.failing_reads(),
            self.reads,
            self.clock.as_secs_f64() / 3600.0,
            mib(self.missing_after_copy),
        );
        for failing_reads in [50, 500, 1000, 2000, 4000] {
            let missing = mib(self.missing_after(failing_reads));
            print!(", after {failing_reads} failing {missing:.1}");
        }
        println!();
    }
}

/// Bad sectors: so many within so many sectors, thrice or once, and scattered
/// ones.
struct Damage {
    name: &'static str,
    patches: &'static [(u64, u64)],
    scattered: u64,
    /// What GNU ddrescue 1.27 calls "read errors" for the same bad sectors on a
    /// disk of 20 GB (simulated with its option -H).
    ddrescue_failing_reads: u64,
}

impl Damage {
    fn disk(&self, size: u64) -> Disk {
        let mut dice = Dice(7);
        let mut disk = Disk::new(size, SECTOR, Latency::HARD_DISK);
        for &(count, sectors) in self.patches {
            patch(&mut disk, &mut dice, count, sectors);
        }
        let all = disk.sectors() - 1;
        patch(&mut disk, &mut dice, self.scattered, all);
        disk
    }
}

const SCATTERED: Damage = Damage {
    name: "scattered",
    patches: &[],
    scattered: 500,
    ddrescue_failing_reads: 1000,
};
const SOLID: Damage = Damage {
    name: "3 solid patches, scattered",
    patches: &[(2000, 2000); 3],
    scattered: 500,
    ddrescue_failing_reads: 7050,
};
const DENSE: Damage = Damage {
    name: "3 dense patches of 4 MiB, scattered",
    patches: &[(2000, 8 << 10); 3],
    scattered: 500,
    ddrescue_failing_reads: 7194,
};
const LOOSE: Damage = Damage {
    name: "3 loose patches of 64 MiB, scattered",
    patches: &[(2000, 128 << 10); 3],
    scattered: 500,
    ddrescue_failing_reads: 9634,
};
const SPARSE: Damage = Damage {
    name: "3 sparse patches of 1 GiB, scattered",
    patches: &[(2000, 2 << 20); 3],
    scattered: 500,
    ddrescue_failing_reads: 12635,
};
const WIDE: Damage = Damage {
    name: "1 sparse patch of 4 GiB",
    patches: &[(4000, 8 << 20)],
    scattered: 0,
    ddrescue_failing_reads: 7870,
};

const TERABYTE: u64 = 1_000_204_886_016;

fn course(damage: &Damage, size: u64) -> Course {
    let course = rescue(damage.disk(size), PlanOptions::new(SECTOR as u32));
    course.print(damage.name);
    course
}

/// Each of the 6500 bad sectors fails alone once. That is not to be avoided; on
/// top come one failing cluster for each scattered sector and two or three for
/// each patch.
#[test]
fn a_terabyte_with_three_patches() {
    let course = course(&SOLID, TERABYTE);
    assert!(course.failing_reads() <= 6500 + 500 + 3 * 3);
    assert!(course.missing_after_copy < 520 << 20);
    // 99.9994 % when copying and trimming are through, and next to all of it soon
    // after, while 5000 bad sectors are still to be found.
    assert!(course.missing_after(520) < 6 << 30);
    assert!(course.missing_after(1015) < 1 << 20);
    assert!(course.missing_after(1100) < 256 << 10);
}

/// A zone where every other megabyte has an error is left alone until the rest of
/// the disk is safe.
#[test]
fn a_damaged_zone_does_not_hold_up_the_rest() {
    let mut disk = WIDE.disk(TERABYTE);
    let zone = 4 << 30;
    let lost = disk.bad.len() as u64 * SECTOR;
    let mut planner = Planner::new(RescueMap::new(disk.size), PlanOptions::new(SECTOR as u32));
    while disk.bad_reads < 12 {
        let read = planner.next_read().expect("there is more to read");
        let (outcome, elapsed) = disk.read(read);
        planner.report(read, outcome, elapsed);
    }
    let missing = disk.size - lost - planner.map().copied_bytes();
    assert!(missing <= zone + (1 << 30), "{missing} bytes are missing");
}

/// And hardly more than the bad sectors do alone, as dense zones are not probed
/// cluster by cluster; nor do they hold up what is better off.
#[test]
fn fails_no_more_reads_than_ddrescue() {
    for (damage, missing_mib) in [(DENSE, 12), (LOOSE, 170)] {
        let course = course(&damage, 20_000_000_000);
        assert!(
            course.failing_reads() <= damage.ddrescue_failing_reads,
            "{}",
            damage.name
        );
        assert!(course.failing_reads() <= 6500 + 500 + 40, "{}", damage.name);
        assert!(
            course.missing_after(2000) < missing_mib << 20,
            "{}",
            damage.name
        );
    }
}

#[test]
#[ignore = "makes some forty million reads; run it in release mode with --nocapture to see the table"]
fn every_kind_of_damage() {
    for size in [20_000_000_000, TERABYTE] {
        println!("a disk of {size} bytes");
        for damage in [SCATTERED, SOLID, DENSE, LOOSE, SPARSE, WIDE] {
            let course = course(&damage, size);
            assert!(course.failing_reads() <= damage.ddrescue_failing_reads);
        }
    }
}
