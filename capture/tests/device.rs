//! Captures of disks that vanish, hang, crawl or are not the one they were: nothing is
//! marked bad for it, nothing that was read is read again.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use asl_capture::Error;
use asl_capture::device::fault::{FaultDevice, FaultDeviceBuilder};
use asl_capture::device::{Geometry, Identity, ReadFailure, Source};
use asl_capture::disk::{DiskOptions, DiskReport, End, capture_disk};
use asl_capture::map::Domain;
use asl_capture::pass::MinReadRate;
use asl_capture::reader::{Control, EndReason, Limits};
use asl_capture::session::{self, CaptureState};
use asl_store::Compression;
use asl_store::vfs::fault::{FaultVfs, OpKind};
use common::*;

const ENODATA: i32 = 61;
const ENODEV: i32 = 19;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;

fn threaded() -> DiskOptions {
    DiskOptions {
        threads: 2,
        ..disk_options()
    }
}

/// Goes on until the capture is finished, which one more run must do.
fn finish(vfs: &FaultVfs, disk: &FaultDevice, seed: u8, options: &DiskOptions) -> DiskReport {
    let report = run(vfs, disk, seed, options).unwrap();
    assert_eq!(report.end, End::Reading(EndReason::Finished));
    assert_captured(&reader(vfs), &report, disk);
    report
}

/// Bytes that reads have delivered, each once.
fn delivered_bytes(disk: &FaultDevice) -> u64 {
    let mut sectors = std::collections::BTreeSet::new();
    for read in disk.log().iter().filter(|read| read.ok()) {
        sectors.extend(read.offset / 512..(read.offset + read.len).div_ceil(512));
    }
    let size = disk.geometry().size_bytes;
    sectors.iter().map(|at| (size - at * 512).min(512)).sum()
}

/// Asserts that all that was delivered is in the manifest, and nothing else is called bad.
fn assert_all_kept(vfs: &FaultVfs, report: &DiskReport, disk: &FaultDevice) {
    assert_eq!(report.doc.rescued_bytes, delivered_bytes(disk));
    let bad = disk.bad_sectors();
    for run in &report.unreadable {
        let sectors = run.start / 512..(run.start + run.len) / 512;
        let known = bad
            .iter()
            .any(|bad| bad.start <= sectors.start && sectors.end <= bad.end);
        assert!(known, "{run:?} is not bad");
    }
    let image = image(&reader(vfs), &report.root.unwrap());
    let untried: u64 = image.untried.iter().map(|(_, len)| len).sum();
    assert_eq!(untried, report.doc.untried_bytes);
}

fn flaky() -> FaultDeviceBuilder {
    FaultDevice::builder((300 << 10) + 512)
        .seed(4)
        .zeros(70_000..130_000)
        .bad(70..71)
        .bad_with(500..503, ENODATA)
}

/// Covers K4: a disk that vanishes, at whatever read, has no more bad sectors for it.
#[test]
fn a_disk_that_vanishes_at_any_read_is_resumed() {
    for options in [disk_options(), threaded()] {
        let clean = flaky().build();
        finish(&fresh(), &clean, 2, &options);
        for reads in 0..clean.total_reads() {
            let errno = [0, ENODEV, ENXIO][reads as usize % 3];
            let disk = flaky().gone_after(reads).gone_errno(errno).build();
            let vfs = fresh();
            let first = run(&vfs, &disk, 2, &options).unwrap();
            // With threads, time decides how boldly is read: this run may need fewer reads
            // than the clean one did, and be through before the disk goes.
            if options.threads > 0 && first.end == End::Reading(EndReason::Finished) {
                assert!(disk.total_reads() <= reads);
                assert_captured(&reader(&vfs), &first, &disk);
                continue;
            }
            assert_eq!(first.end.stopped(), Some("device-gone"), "after {reads}");
            assert_eq!(first.doc.stopped.as_deref(), Some("device-gone"));
            assert_all_kept(&vfs, &first, &disk);
            let mark = disk.log_len();
            disk.come_back();
            let second = finish(&vfs, &disk, 3, &options);
            assert_eq!(second.session, first.session);
            assert_eq!(disk.delivered_again_since(mark), []);
        }
    }
}

/// It goes away again and again, a few reads later each time.
#[test]
fn a_disk_that_keeps_vanishing_gets_there() {
    let disk = flaky().build();
    let vfs = fresh();
    let mut seed = 2;
    loop {
        disk.come_back();
        disk.vanish_after(3);
        let report = run(&vfs, &disk, seed, &disk_options()).unwrap();
        assert_all_kept(&vfs, &report, &disk);
        seed += 1;
        if report.end == End::Reading(EndReason::Finished) {
            break;
        }
        assert!(seed < 200);
    }
    assert!(seed > 5);
    assert_eq!(disk.delivered_again(), []);
}

#[test]
fn a_source_that_refuses_us_is_not_bad() {
    let disk = flaky().fatal_at(300..310, EACCES).build();
    let vfs = fresh();
    let report = run(&vfs, &disk, 2, &disk_options()).unwrap();
    let End::Reading(EndReason::Fatal { errno, offset }) = report.end else {
        panic!("{:?}", report.end);
    };
    assert_eq!(errno, EACCES);
    assert!(offset <= 300 * 512 && offset + (64 << 10) > 300 * 512);
    assert_eq!(report.end.stopped(), Some("source-error"));
    assert_all_kept(&vfs, &report, &disk);
    // The same disk, read by somebody who may.
    let allowed = flaky().build();
    finish(&vfs, &allowed, 3, &disk_options());
}

#[test]
fn weak_sectors_are_won_by_retries() {
    let weak = || FaultDevice::builder(1 << 20).seed(6).weak(800..806, 4, 5);
    let mut options = disk_options();
    options.plan.retries = 6;
    let report = finish(&fresh(), &weak().build(), 2, &options);
    assert!(report.doc.complete);
    assert!(report.doc.read_errors >= 4 * 6);
    // Without, they are reported as what they seem, and a later run may win them.
    let disk = weak().build();
    let vfs = fresh();
    let report = run(&vfs, &disk, 2, &disk_options()).unwrap();
    assert!(!report.doc.complete && report.doc.unreadable_bytes > 0);
}

/// What is slow comes last, but it comes.
#[test]
fn slow_stretches_are_read_after_the_rest() {
    let disk = FaultDevice::builder(8 << 20)
        .seed(7)
        .read_latency(Duration::from_micros(100))
        .read_rate(100 << 20)
        .slow(4096..6144, Duration::from_millis(20))
        .build();
    let mut options = disk_options();
    options.plan.slow_warm_up = Duration::from_millis(20);
    options.plan.min_read_rate = MinReadRate::BytesPerSecond(1 << 20);
    let vfs = fresh();
    let clock = Arc::new(DiskClock(disk.clock().clone()));
    let control = Arc::default();
    let report = run_with(
        writer(&vfs, 2).unwrap(),
        &disk,
        &options,
        &Silent,
        clock,
        control,
    )
    .unwrap();
    assert_captured(&reader(&vfs), &report, &disk);
    assert!(report.doc.slow_reads > 0);
    assert_eq!(disk.delivered_again(), []);
    let slow = (2 << 20)..(3 << 20);
    let log = disk.log();
    let end = log.iter().position(|read| read.offset >= 7 << 20).unwrap();
    let before = log[..end]
        .iter()
        .filter(|read| slow.contains(&read.offset))
        .count();
    assert!(
        before < 8,
        "{before} of 16 slow clusters came before the end of the disk"
    );
}

/// A disk on which a read of one sector alone never returns.
struct Hanging {
    disk: FaultDevice,
    sector: u64,
    hangs: AtomicBool,
    over: AtomicBool,
}

impl Source for Hanging {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
    fn identity(&self) -> &Identity {
        self.disk.identity()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        if offset == self.sector * 512 && buf.len() == 512 {
            self.hangs.store(true, Ordering::Relaxed);
            while !self.over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Err(ReadFailure::Gone { errno: 0 });
        }
        self.disk.read_at(offset, buf)
    }
}

/// A read that never returns ends the run; what was read before it is safe, down to the
/// last sector that was won beside it.
#[test]
fn a_read_that_hangs_costs_itself_only() {
    for (sector, by_timeout) in [(70, true), (120, true), (120, false)] {
        in_time(move || {
            // Trimming comes upon the sector after others of its cluster.
            let disk = || FaultDevice::builder(1 << 20).seed(8).bad(100..101);
            let hanging = Arc::new(Hanging {
                disk: disk().bad(sector..sector + 1).build(),
                sector,
                hangs: AtomicBool::new(false),
                over: AtomicBool::new(false),
            });
            let mut options = threaded();
            options.read_timeout = by_timeout.then_some(Duration::from_millis(500));
            let control = Arc::new(Control::default());
            let stopper = std::thread::spawn({
                let (control, hanging) = (control.clone(), hanging.clone());
                move || {
                    while !hanging.hangs.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    if !by_timeout {
                        control.stop();
                    }
                }
            });
            let vfs = fresh();
            // What was read before waits for a slow destination when the disk hangs.
            vfs.set_hook(|op| {
                if op.kind == OpKind::Write {
                    std::thread::sleep(Duration::from_millis(4));
                }
                None
            });
            let began = Instant::now();
            let ledger = Ledger::default();
            let report = capture_disk(
                hanging.clone(),
                writer(&vfs, 2).unwrap(),
                None,
                &options,
                Arc::new(WallClock(began)),
                control,
                &ledger,
            )
            .unwrap();
            assert!(began.elapsed() < Duration::from_secs(20));
            stopper.join().unwrap();
            let stopped = if by_timeout { "limit" } else { "interrupted" };
            assert_eq!(report.end.stopped(), Some(stopped));
            assert_all_kept(&vfs, &report, &hanging.disk);
            assert!(report.doc.rescued_bytes > (1 << 20) - (64 << 10));
            hanging.over.store(true, Ordering::Relaxed);
            vfs.clear_faults();
            // The drive was power-cycled, and reads again.
            let healed = disk().build();
            let last = finish(&vfs, &healed, 3, &threaded());
            assert_eq!(last.session, report.session);
            Ledger::assert_not_read_again(&ledger.settled(), &healed, 0);
        });
    }
}

/// So does the very first one.
#[test]
fn a_disk_that_hangs_at_once_is_left() {
    in_time(|| {
        let disk = FaultDevice::builder(1 << 20).stall(0..2048).build();
        let vfs = fresh();
        let mut options = threaded();
        options.read_timeout = Some(Duration::from_millis(300));
        let clock = Arc::new(WallClock(Instant::now()));
        let writer = writer(&vfs, 2).unwrap();
        let report = run_with(writer, &disk, &options, &Silent, clock, Arc::default()).unwrap();
        assert_eq!(report.end, End::Stuck);
        assert_eq!(report.doc.untried_bytes, 1 << 20);
        disk.release_stalls();
        finish(&vfs, &disk, 3, &threaded());
    });
}

/// A stop at any moment is orderly: not a sector is delivered twice.
#[test]
fn interrupted_at_random_moments_it_gets_there() {
    for round in 0..if all() { 100 } else { 8 } {
        in_time(move || {
            let disk = FaultDevice::builder(2 << 20)
                .seed(round)
                .bad(777..780)
                .bad(3000..3001)
                .build();
            let vfs = fresh();
            let mut runs = 0;
            loop {
                let control = Arc::new(Control::default());
                let patience =
                    Duration::from_micros(300 + (round * 7919 + runs * 104_729) % 20_000);
                let stopper = std::thread::spawn({
                    let control = control.clone();
                    move || {
                        std::thread::sleep(patience);
                        control.stop();
                    }
                });
                let clock = Arc::new(WallClock(Instant::now()));
                let writer = writer(&vfs, 2 + runs as u8).unwrap();
                let report = run_with(writer, &disk, &threaded(), &Silent, clock, control).unwrap();
                stopper.join().unwrap();
                assert_all_kept(&vfs, &report, &disk);
                runs += 1;
                if report.end == End::Reading(EndReason::Finished) {
                    assert_captured(&reader(&vfs), &report, &disk);
                    break;
                }
                assert_eq!(report.end.stopped(), Some("interrupted"));
                assert!(runs < 200);
            }
            assert_eq!(disk.delivered_again(), []);
        });
    }
}

fn nameless(backing_file: Option<&str>) -> Identity {
    Identity {
        path: "/dev/loop0".into(),
        transport: Some("loop".into()),
        backing_file: backing_file.map(str::to_owned),
        ..Identity::default()
    }
}

/// Resumes the newest capture of `vfs` with `disk`, whoever it is.
fn resume_with(vfs: &FaultVfs, disk: &FaultDevice) -> asl_capture::Result<DiskReport> {
    let writer = writer(vfs, 9).unwrap();
    let capture = session::list(writer.handle()).unwrap().pop();
    capture_disk(
        Arc::new(disk.clone()),
        writer,
        capture.as_ref(),
        &disk_options(),
        Arc::new(TickingClock::default()),
        Arc::default(),
        &Silent,
    )
}

/// Another disk never goes on with a capture, whatever it calls itself; the same one
/// does under any path.
#[test]
fn only_the_same_disk_goes_on() {
    let size = 1 << 20;
    let begin = |identity: Identity| {
        let disk = FaultDevice::builder(size)
            .seed(1)
            .identity(identity)
            .gone_after(9)
            .build();
        let vfs = fresh();
        let report = run(&vfs, &disk, 2, &disk_options()).unwrap();
        assert_eq!(report.end.stopped(), Some("device-gone"));
        let before = reader(&vfs).with_state(|state| state.position());
        (vfs, before)
    };
    let numbered = |serial: &str, path: &str| Identity {
        path: path.into(),
        serial: Some(serial.into()),
        ..Identity::default()
    };
    let disk = |seed, size, identity| {
        FaultDevice::builder(size)
            .seed(seed)
            .identity(identity)
            .build()
    };
    let refused = |vfs: &FaultVfs, before, other: &FaultDevice| {
        let error = resume_with(vfs, other).unwrap_err();
        assert!(matches!(error, Error::OtherSource { .. }), "{error}");
        let store = reader(vfs);
        assert_eq!(
            store.with_state(|state| state.position()),
            before,
            "a refused source leaves no trace"
        );
        assert_eq!(
            session::list(&store).unwrap()[0].state,
            CaptureState::Paused
        );
    };

    // No serial, the same file: its first sector tells.
    let (vfs, before) = begin(nameless(Some("/images/a.img")));
    refused(
        &vfs,
        before,
        &disk(2, size, nameless(Some("/images/a.img"))),
    );
    let same = disk(1, size, nameless(Some("/images/a.img")));
    assert!(unfinished(&reader(&vfs), &same).is_some());
    finish(&vfs, &same, 3, &disk_options());

    // No serial and another file: it is not offered to go on with.
    let (vfs, _) = begin(nameless(Some("/images/a.img")));
    let elsewhere = disk(1, size, nameless(Some("/images/b.img")));
    assert!(unfinished(&reader(&vfs), &elsewhere).is_none());

    // Serials decide, not paths and not contents.
    let (vfs, before) = begin(numbered("S1", "/dev/sda"));
    refused(&vfs, before, &disk(1, size, numbered("S2", "/dev/sda")));
    refused(
        &vfs,
        before,
        &disk(1, size + 512, numbered("S1", "/dev/sda")),
    );
    let moved = disk(1, size, numbered("S1", "/dev/sdb"));
    finish(&vfs, &moved, 3, &disk_options());
}

/// A time without a good read ends the run, and a later run without a limit goes on.
#[test]
fn limits_end_a_run_that_can_go_on() {
    let build = || {
        FaultDevice::builder(2 << 20)
            .seed(2)
            .bad(1000..1400)
            .read_latency(Duration::from_millis(1))
            .error_latency(Duration::from_secs(3))
            .build()
    };
    let limits = [
        DiskOptions {
            limits: Limits {
                timeout: Some(Duration::from_secs(30)),
            },
            ..disk_options()
        },
        {
            let mut options = disk_options();
            options.plan.max_bad_reads = Some(10);
            options
        },
    ];
    for options in limits {
        let disk = build();
        let vfs = fresh();
        let clock = Arc::new(DiskClock(disk.clock().clone()));
        let writer = writer(&vfs, 2).unwrap();
        let report = run_with(
            writer,
            &disk,
            &options,
            &Silent,
            clock.clone(),
            Arc::default(),
        )
        .unwrap();
        assert_eq!(report.end.stopped(), Some("limit"));
        let log = disk.log();
        let failures = log.iter().filter(|read| !read.ok()).count();
        let last_ones = log.iter().rev().take_while(|read| !read.ok()).count();
        assert!(failures == 10 || (10..=12).contains(&last_ones));
        assert_all_kept(&vfs, &report, &disk);
        let mark = disk.log_len();
        finish(&vfs, &disk, 3, &disk_options());
        assert_eq!(disk.delivered_again_since(mark), []);
    }
}

/// A range is read and nothing else; a later run reads the rest.
#[test]
fn a_range_first_and_the_rest_later() {
    let disk = FaultDevice::builder(2 << 20)
        .seed(3)
        .bad(100..101)
        .bad(2000..2002)
        .build();
    let vfs = fresh();
    let mut options = disk_options();
    options.plan.domain = Some(Domain::from_ranges([
        1_000_000..1_100_000,
        40_000..70_001,
        (2 << 20) - 10..2 << 20,
    ]));
    let first = run(&vfs, &disk, 2, &options).unwrap();
    assert_eq!(first.end, End::Reading(EndReason::Finished));
    assert!(!first.doc.complete);
    assert_all_kept(&vfs, &first, &disk);
    let wanted = options.plan.domain.as_ref().unwrap().aligned(512, 2 << 20);
    for read in disk.log() {
        assert!(wanted.contains(read.offset) && wanted.contains(read.offset + read.len - 1));
    }
    assert_eq!(first.doc.untried_bytes, (2 << 20) - wanted.bytes());
    assert_eq!(first.doc.image_blake3, None);
    let mark = disk.log_len();
    let second = finish(&vfs, &disk, 3, &disk_options());
    assert_eq!(second.session, first.session);
    assert_eq!(disk.delivered_again_since(mark), []);
}

/// Few buffers, many threads, artifacts that keep a whole buffer for a few of its bytes:
/// nobody waits for ever.
#[test]
fn the_smallest_pools_do_not_block() {
    let mut bytes = vec![0; 2 << 20];
    let mut noise = blake3::Hasher::new().finalize_xof();
    for cluster in bytes.chunks_mut(64 << 10) {
        noise.fill(&mut cluster[8192..12_288]);
    }
    noise.fill(&mut bytes[1 << 20..(1 << 20) + (400 << 10)]);
    let bytes: Arc<[u8]> = bytes.into();
    for queue_buffers in [1, 2, 3, 5] {
        for threads in [0, 1, 2, 4] {
            for (compression, sync_bytes) in [
                (Compression::None, 1),
                (Compression::None, 200 << 10),
                (Compression::Auto, 60 << 10),
                (Compression::Auto, 1 << 20),
            ] {
                let bytes = bytes.clone();
                in_time(move || {
                    let disk = FaultDevice::holding(bytes).bad(900..902).build();
                    let mut options = DiskOptions {
                        threads,
                        compression,
                        ..disk_options()
                    };
                    options.tuning.queue_buffers = queue_buffers;
                    options.sync.bytes = sync_bytes;
                    options.sync.interval = Duration::from_secs(3600);
                    finish(&fresh(), &disk, 2, &options);
                });
            }
        }
    }
}

/// Threads that are late at random: the image is the same, and so is the end.
#[test]
fn threads_out_of_step_agree() {
    for round in 0..if all() { 200 } else { 6 } {
        in_time(move || {
            let disk = FaultDevice::builder(1 << 20)
                .seed(round)
                .zeros(100_000..300_000)
                .bad(1300..1304)
                .build();
            let vfs = fresh();
            vfs.set_hook(move |op| {
                let pause = (op.number * 7919 + round * 31) % 97;
                if pause < 8 {
                    std::thread::sleep(Duration::from_micros(pause * 100));
                }
                None
            });
            let mut options = DiskOptions {
                threads: 1 + round as usize % 4,
                compression: if round % 2 == 0 {
                    Compression::None
                } else {
                    Compression::Auto
                },
                ..disk_options()
            };
            options.tuning.queue_buffers = 1 + round as usize % 6;
            finish(&vfs, &disk, 2, &options);
            vfs.clear_faults();
        });
    }
}

/// A destination that fails or fills up while threads are at work ends the run.
#[test]
fn a_failing_destination_stops_the_threads() {
    for errno in [5, 28] {
        for at in [40, 90, 140] {
            in_time(move || {
                let disk = flaky().build();
                let vfs = fresh();
                let first = vfs.ops();
                vfs.fail_op(first + at, errno, asl_store::vfs::fault::FailMode::Sticky);
                let ended = run(&vfs, &disk, 2, &threaded());
                assert_eq!(errno == 28, ended.is_ok(), "{ended:?}");
                vfs.clear_faults();
                finish(&vfs, &disk, 3, &threaded());
            });
        }
    }
}
