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

fn row(name: &str, bad: usize, course: &Course) -> String {
    let after = |n: usize| {
        let missing = course.missing_after.get(n).copied().unwrap_or(0);
        missing as f64 / f64::from(1 << 20)
    };
    format!(
        "{name:28} bad {bad:6} failing {:6} = {:5}+{:5}+{:6}  reads {:8}  {:7.1} h  MiB missing after copy {:9.3}, after 50 {:9.1} 500 {:9.1} 1000 {:9.1} 2000 {:8.1} 4000 {:8.1}",
        course.bad_reads.iter().sum::<u64>(),
        course.bad_reads[0],
        course.bad_reads[1],
        course.bad_reads[2],
        course.reads,
        course.clock.as_secs_f64() / 3600.0,
        course.missing_after_copy as f64 / f64::from(1 << 20),
        after(50),
        after(500),
        after(1000),
        after(2000),
        after(4000),
    )
}

fn disks(size: u64) -> Vec<(&'static str, Disk)> {
    let mut made = vec![];
    let mut make = |name, patches: &[(u64, u64)], scattered| {
        let mut dice = Dice(7);
        let mut disk = Disk::new(size, SECTOR, Latency::HARD_DISK);
        for &(count, sectors) in patches {
            patch(&mut disk, &mut dice, count, sectors);
        }
        let all = disk.sectors();
        patch(&mut disk, &mut dice, scattered, all - 1);
        made.push((name, disk));
    };
    make("scattered", &[], 500);
    make("3 solid + scattered", &[(2000, 2000); 3], 500);
    make("3 dense 4MiB + scattered", &[(2000, 8 << 10); 3], 500);
    make("3 loose 64MiB + scattered", &[(2000, 128 << 10); 3], 500);
    make("3 sparse 1GiB + scattered", &[(2000, 2 << 20); 3], 500);
    make("1 sparse 4GiB", &[(4000, 8 << 20); 1], 0);
    made
}

#[test]
#[ignore]
fn tune() {
    for (name, disk) in disks(1_000_204_886_016) {
        let bad = disk.bad.len();
        let course = rescue(disk.clone(), PlanOptions::new(512));
        println!("{}", row(name, bad, &course));
    }
}
