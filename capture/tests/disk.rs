//! Captures of simulated disks, with faults of the disk.

mod common;

use std::collections::BTreeSet;

use asl_capture::device::fault::FaultDevice;
use asl_capture::disk::{DiskOptions, End};
use asl_capture::reader::EndReason;
use asl_capture::session;
use asl_store::Compression;
use common::*;

fn finish_of(disk: &FaultDevice, options: &DiskOptions) -> asl_capture::disk::DiskReport {
    let vfs = fresh();
    let report = run(&vfs, disk, 2, options).unwrap();
    assert_eq!(report.end, End::Reading(EndReason::Finished));
    assert_captured(&reader(&vfs), &report, disk);
    report
}

/// Covers K4: every byte of a healthy disk, whatever its size is a multiple of.
#[test]
fn a_healthy_disk_of_any_size_comes_back_whole() {
    for size in [512, 4096, 4608, 65_536, 1 << 20, (5 << 20) + 512 * 3] {
        let disk = FaultDevice::builder(size)
            .seed(size)
            .zeros(size / 3..size / 2)
            .build();
        for threads in [0, 2] {
            for compression in [Compression::Auto, Compression::None] {
                let report = finish_of(
                    &disk,
                    &DiskOptions {
                        threads,
                        compression,
                        ..disk_options()
                    },
                );
                assert!(report.doc.complete);
                assert_eq!(report.doc.rescued_bytes, size);
            }
        }
    }
}

/// Covers K4: bad sectors cost themselves and nothing else.
#[test]
fn bad_sectors_are_listed_and_their_neighbours_kept() {
    let disk = FaultDevice::builder(6 << 20)
        .seed(3)
        .zeros(1 << 20..2 << 20)
        .bad(0..1)
        .bad(196..197)
        .bad(2930..2931)
        .bad(5860..6016)
        .bad(12_287..12_288)
        .build();
    for threads in [0, 2] {
        let report = finish_of(
            &disk,
            &DiskOptions {
                threads,
                ..disk_options()
            },
        );
        assert!(!report.doc.complete);
        assert_eq!(report.doc.unreadable_bytes, 4 * 512 + 156 * 512);
        assert!(disk.delivered_again().is_empty() || threads == 2);
    }
}

#[test]
fn a_second_capture_of_the_same_disk_stores_almost_nothing() {
    let disk = FaultDevice::builder(8 << 20).seed(9).build();
    let vfs = fresh();
    let first = run(&vfs, &disk, 2, &disk_options()).unwrap();
    let second = run(&vfs, &disk, 3, &disk_options()).unwrap();
    assert_ne!(first.session, second.session);
    assert!(first.doc.new_bytes > 8 << 20);
    assert!(second.doc.new_bytes < 8 << 15, "{}", second.doc.new_bytes);
    assert_captured(&reader(&vfs), &second, &disk);
}

/// A vanished disk is never marked bad, and the capture goes on under another name.
#[test]
fn a_disk_that_vanishes_is_resumed() {
    let disk = FaultDevice::builder(4 << 20)
        .seed(5)
        .bad(1954..1955)
        .gone_after(20)
        .build();
    let vfs = fresh();
    let first = run(&vfs, &disk, 2, &disk_options()).unwrap();
    assert_eq!(first.end.stopped(), Some("device-gone"));
    assert!(first.doc.untried_bytes > 0 && first.doc.rescued_bytes > 0);
    let partial = image(&reader(&vfs), &first.root.unwrap());
    assert!(
        partial
            .unreadable
            .iter()
            .all(|(start, len, _)| *start == 1_000_448 && *len == 512)
    );
    let mark = disk.log_len();
    disk.come_back();
    let second = run(&vfs, &disk, 3, &disk_options()).unwrap();
    assert_eq!(second.session, first.session);
    assert_captured(&reader(&vfs), &second, &disk);
    assert!(disk.delivered_again_since(mark).is_empty());
}

/// A finished capture goes on with retries: weak sectors are won, nothing else is read.
#[test]
fn retries_go_on_with_a_finished_capture() {
    use asl_capture::device::Source;
    let disk = FaultDevice::builder(2 << 20)
        .seed(8)
        .bad(700..702)
        .weak(1500..1503, 2, 61)
        .build();
    let vfs = fresh();
    let first = run(&vfs, &disk, 2, &disk_options()).unwrap();
    assert!(
        first.doc.unreadable_bytes > 2 * 512,
        "some weak sectors are left"
    );
    let mark = disk.log_len();
    let mut options = disk_options();
    options.plan.retries = 3;
    let writer = writer(&vfs, 3).unwrap();
    let capture =
        asl_capture::session::retryable_of(writer.handle(), disk.identity(), &disk.geometry())
            .unwrap()
            .remove(0);
    let clock = std::sync::Arc::new(TickingClock::default());
    let source = std::sync::Arc::new(disk.reopened("/dev/other"));
    let control = std::sync::Arc::default();
    let second = asl_capture::disk::capture_disk(
        source,
        writer,
        Some(&capture),
        &options,
        clock,
        control,
        &Silent,
    )
    .unwrap();
    assert_eq!(second.session, first.session);
    assert_eq!(second.doc.unreadable_bytes, 2 * 512);
    assert_captured(&reader(&vfs), &second, &disk);
    assert!(
        disk.log()[mark..].iter().all(|read| read.len <= 512),
        "only single bad sectors are tried"
    );
}

/// A capture of an unchanged disk is nothing but notes, up to hundreds of MiB of them in a block.
#[test]
fn notes_are_read_one_at_a_time() {
    let vfs = fresh();
    let disk = FaultDevice::builder(1 << 20).build();
    let report = run(&vfs, &disk, 1, &disk_options()).unwrap();
    let store = reader(&vfs);
    vfs.set_count_reads(true);
    let mut entries = 0;
    let mut moments = BTreeSet::new();
    let folded = session::fold(&store, report.session, &mut |_| {
        entries += 1;
        moments.insert(vfs.ops());
        Ok(())
    });
    let notes = folded.unwrap().next;
    assert!(notes > 8 && entries > 4 * notes, "{entries} in {notes}");
    assert_eq!(moments.len() as u64, notes, "something is read before each");
}
