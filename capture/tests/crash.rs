//! Every operation of a capture fails, or is the last before a crash or a power
//! cut: afterwards the store opens, what was reported durable is there and is not
//! read from the disk again, and the capture goes on to the exact image.
//!
//! `ASL_TEST_ALL=1` tries every operation and more seeds; without it a sample.

mod common;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

use asl_capture::Error;
use asl_capture::device::fault::{FaultDevice, FaultDeviceBuilder};
use asl_capture::disk::{DiskOptions, DiskReport, End, Tuning, close_unfinished};
use asl_capture::pass::PlanOptions;
use asl_capture::reader::EndReason;
use asl_capture::session::{self, CaptureState};
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs, OpKind};
use common::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A failed sync of one of these leaves the names of directories in doubt, for which
/// there is no other name to go to.
const PARENTS: [&str; 5] = ["", "blocks", "blocks/sealed", "index", "snapshots"];

/// The same disk after its last breath.
fn dead_disk() -> FaultDevice {
    small_content().bad(0..10_000).build()
}

/// Four leaves of 1 MiB, one of them without a bad sector, the last one short: data of
/// every kind in islands among zeros, so that a sweep has hundreds of operations and not
/// thousands.
fn small_content() -> FaultDeviceBuilder {
    static BYTES: OnceLock<Arc<[u8]>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut bytes = vec![0; (3 << 20) + 3 * 512];
        let mut noise = blake3::Hasher::new().finalize_xof();
        for (from, to) in [(0, 30), (700, 740), (1500, 1530), (3047, 3072)] {
            noise.fill(&mut bytes[from << 10..to << 10]);
        }
        // Duplicates, of chunks and of whole clusters, and text.
        bytes.copy_within(0..16 << 10, 800 << 10);
        bytes.copy_within(701 << 10..704 << 10, 1200 << 10);
        for (at, line) in bytes[900 << 10..910 << 10].chunks_mut(8).enumerate() {
            line.copy_from_slice(format!("{at:06}.\n").as_bytes());
        }
        let end = bytes.len();
        noise.fill(&mut bytes[end - 2000..]);
        bytes.into()
    });
    FaultDevice::holding(bytes.clone())
}

fn small_disk() -> FaultDevice {
    small_content()
        .bad(3..4)
        .bad_with(1404..1410, 61)
        .bad(1450..1451)
        .bad(3020..3021)
        .bad(6146..6147)
        .build()
}

fn options() -> DiskOptions {
    DiskOptions {
        chunk_bytes: 1024,
        plan: PlanOptions {
            cluster_bytes: 16 << 10,
            piece_bytes: 1024,
            ..PlanOptions::new(512)
        },
        sync: asl_capture::commit::SyncPolicy {
            bytes: 12 << 10,
            interval: std::time::Duration::from_millis(400),
        },
        tuning: Tuning {
            open_leaves: 1,
            ..Tuning::default()
        },
        ..disk_options()
    }
}

fn store() -> FaultVfs {
    fresh_with(64 << 10, 8 << 10)
}

/// What is left of a capture after a failure, and what has been promised of it.
struct Trial {
    disk: FaultDevice,
    ledger: Ledger,
    writers: u8,
}

impl Trial {
    fn new() -> Self {
        Self {
            disk: small_disk(),
            ledger: Ledger::default(),
            writers: 1,
        }
    }

    /// The same, to go on from here on another copy of the store.
    fn after(&self) -> Self {
        Self {
            disk: small_disk(),
            ledger: self.ledger.clone(),
            writers: self.writers,
        }
    }

    /// One run, from where the store says that it is.
    fn run(&mut self, vfs: &FaultVfs) -> asl_capture::Result<DiskReport> {
        self.writers += 1;
        let settled = self.ledger.settled();
        let mark = self.disk.log_len();
        let report = writer(vfs, self.writers)
            .map_err(Into::into)
            .and_then(|writer| watched_run(writer, &self.disk, &options(), &self.ledger));
        Ledger::assert_not_read_again(&settled, &self.disk, mark);
        report
    }

    /// Opens what was found for reading: every manifest that is there is right.
    fn check_reader(&self, vfs: &FaultVfs) {
        let store = reader(vfs);
        for capture in session::list(&store).unwrap() {
            let Some(root) = &capture.root else { continue };
            let doc = asl_capture::manifest::Manifest::open(&store, root)
                .unwrap()
                .doc;
            assert_partial(&store, root, &doc, &self.disk);
        }
    }

    /// What a run that ended in order says of itself is so.
    fn check_report(&self, vfs: &FaultVfs, report: &DiskReport) {
        assert_eq!(report.doc.stopped.as_deref(), report.end.stopped());
        if let Some(root) = &report.root {
            assert_partial(&reader(vfs), root, &report.doc, &self.disk);
        }
        if report.end == End::Reading(EndReason::Finished) {
            assert_captured(&reader(vfs), report, &self.disk);
        }
    }

    /// Goes on until the capture is finished, which a single run must do, and then
    /// loses what that did not make durable.
    fn finish(&mut self, vfs: &FaultVfs) {
        let acknowledged = self.go_on(vfs);
        let later = vfs.power_cut(CrashPolicy::LoseUnsynced);
        if acknowledged {
            // It does not rest on what the failure left in doubt.
            assert!(finished(&later, &self.disk));
        } else {
            self.go_on(&later);
        }
    }

    /// Goes on with a disk of which nothing can be read any more: all that was durable is
    /// in the image, and nothing is there that only seemed to be.
    fn bury(&self, vfs: &FaultVfs) {
        let mut trial = Self {
            disk: dead_disk(),
            ..self.after()
        };
        if finished(vfs, &self.disk) {
            return;
        }
        let report = trial.run(vfs).unwrap();
        assert_eq!(report.end, End::Reading(EndReason::Finished));
        assert_partial(
            &reader(vfs),
            &report.root.unwrap(),
            &report.doc,
            &trial.disk,
        );
        assert!(report.doc.rescued_bytes >= self.ledger.durable_bytes());
    }

    /// Returns whether a run was needed.
    fn go_on(&mut self, vfs: &FaultVfs) -> bool {
        self.check_reader(vfs);
        let done = finished(vfs, &self.disk);
        if !done {
            let report = self.run(vfs).unwrap();
            assert_eq!(report.end, End::Reading(EndReason::Finished));
            assert_captured(&reader(vfs), &report, &self.disk);
        }
        assert!(self.ledger.lost.lock().unwrap().is_empty());
        !done
    }
}

/// Whether the one capture is finished; if so it is right.
fn finished(vfs: &FaultVfs, disk: &FaultDevice) -> bool {
    let store = reader(vfs);
    let captures = session::list(&store).unwrap();
    assert!(captures.len() <= 1, "{captures:?}");
    let Some(capture) = captures.first() else {
        return false;
    };
    // One that was closed early goes on, should the disk come back.
    if capture.has_more() {
        return false;
    }
    let (doc, root) = (capture.doc.as_ref().unwrap(), capture.root.unwrap());
    assert_image(&store, &root, doc, disk);
    true
}

/// Asserts that a manifest, of a capture that may be unfinished, says exactly what its
/// document says, and nothing wrong.
fn assert_partial(
    store: &asl_store::StoreHandle,
    root: &asl_store::Key,
    doc: &asl_capture::manifest::CaptureDoc,
    disk: &FaultDevice,
) {
    let image = image(store, root);
    let mut expected = content(disk);
    let mut hole = |start: u64, len: u64| {
        expected[start as usize..(start + len) as usize].fill(0xEE);
        len
    };
    let unreadable: u64 = image
        .unreadable
        .iter()
        .map(|(start, len, _)| hole(*start, *len))
        .sum();
    let untried: u64 = image
        .untried
        .iter()
        .map(|(start, len)| hole(*start, *len))
        .sum();
    assert_eq!(unreadable, doc.unreadable_bytes);
    assert_eq!(untried, doc.untried_bytes);
    assert_eq!(
        image.bytes.len() as u64 - untried - unreadable,
        doc.rescued_bytes
    );
    assert!(image.bytes == expected, "wrong bytes");
    let bad = disk.bad_sectors();
    for (start, len, _) in image.unreadable {
        let sectors = start / 512..(start + len) / 512;
        assert!(
            bad.iter()
                .any(|bad| bad.start <= sectors.start && sectors.end <= bad.end),
            "{sectors:?} reads well"
        );
    }
}

/// Runs one case; a failure says which.
fn case(what: std::fmt::Arguments<'_>, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("failed: {what}");
        resume_unwind(panic);
    }
}

/// The numbers to try: all, or a sample.
fn sample(range: Range<u64>, stride: u64, offset: u64) -> impl Iterator<Item = u64> {
    let stride = if all() { 1 } else { stride };
    range
        .skip(if all() { 0 } else { offset as usize })
        .step_by(stride as usize)
}

fn policies(n: u64) -> Vec<CrashPolicy> {
    let seeds = if all() { 6 } else { 1 };
    let seeds = (0..seeds).map(|at| at * 10_000 + n);
    let torn = seeds.clone().map(|seed| CrashPolicy::Torn { seed });
    let reorder = seeds.map(|seed| CrashPolicy::Reorder { seed });
    [CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced]
        .into_iter()
        .chain(torn)
        .chain(reorder)
        .collect()
}

/// The operations of a whole capture on `base`.
fn clean_run(base: &FaultVfs) -> FaultVfs {
    let vfs = base.fork();
    let mut trial = Trial::new();
    let report = trial.run(&vfs).unwrap();
    assert_captured(&reader(&vfs), &report, &trial.disk);
    vfs
}

#[test]
fn the_swept_capture_has_everything_in_it() {
    let vfs = clean_run(&store());
    let trace = vfs.trace();
    let count = |kind: OpKind, dir: &str| {
        let of = trace.iter().filter(|op| op.kind == kind);
        of.filter(|op| op.path.starts_with(dir)).count()
    };
    assert!(count(OpKind::Rename, "blocks/open") >= 4, "seals");
    assert!(count(OpKind::Sync, "blocks/open") >= 12, "syncs");
    assert!(count(OpKind::Create, "index/") >= 4, "a flush");
    assert!(trace.len() < 1500, "{} operations", trace.len());
    let spilled = session::blocks_of(
        &reader(&vfs),
        session::list(&reader(&vfs)).unwrap()[0].session,
    )
    .unwrap()
    .into_iter()
    .any(|block| {
        let mut any = false;
        reader(&vfs)
            .notes::<asl_store::Error>(block, &mut |kind, _| {
                any |= kind == asl_store::format::NOTE_LEAF;
                Ok(())
            })
            .unwrap();
        any
    });
    assert!(spilled, "a leaf was spilled");
    eprintln!("{} operations", trace.len());
}

/// Covers B10: whatever a crash leaves, the capture goes on from what was durable.
#[test]
fn a_crash_at_any_operation_reads_nothing_durable_again() {
    let base = store();
    let clean = clean_run(&base).trace();
    for (n, op) in (0..).zip(&clean) {
        // The moments at which most is in doubt.
        let sync = op.kind == OpKind::Sync && op.path.starts_with("blocks/open/");
        if !(all() || sync || n % 4 == 1) {
            continue;
        }
        let vfs = base.fork();
        vfs.set_seed(n);
        vfs.crash_at(n);
        let mut trial = Trial::new();
        trial.run(&vfs).expect_err("the process died");
        let op = &vfs.trace()[n as usize];
        for policy in policies(n) {
            case(format_args!("crash at {op}, {policy:?}"), || {
                trial.after().finish(&vfs.power_cut(policy));
            });
        }
        for seed in 0..if sync { 6 } else { 1 } {
            case(
                format_args!("crash at {op}, seed {seed}, then the disk died"),
                || {
                    trial.bury(&vfs.power_cut(CrashPolicy::Torn { seed }));
                },
            );
        }
    }
}

fn fail_everywhere(errno: i32, mode: FailMode, stride: u64) {
    let base = store();
    let clean = clean_run(&base);
    for n in sample(0..clean.ops(), stride, errno as u64) {
        let op = &clean.trace()[n as usize];
        case(format_args!("{mode:?} error {errno} at {op}"), || {
            let vfs = base.fork();
            vfs.set_seed(n);
            vfs.fail_op(n, errno, mode);
            let mut trial = Trial::new();
            let result = trial.run(&vfs);
            vfs.clear_faults();
            vfs.release_locks();
            if let Ok(report) = &result {
                trial.check_report(&vfs, report);
            }
            // The machine went on running; the page cache may promise what the disk lacks.
            let parents = op.kind == OpKind::SyncDir && PARENTS.contains(&op.path.as_str());
            let doubtful = parents || mode == FailMode::Sticky;
            if doubtful {
                trial.after().go_on(&vfs.fork());
            } else {
                trial.after().finish(&vfs.fork());
                let cut = vfs.power_cut(CrashPolicy::LoseUnsynced);
                trial.after().finish(&cut);
            }
            let on_block = op.path.starts_with("blocks/open/")
                && (op.kind == OpKind::Sync || (op.kind == OpKind::Write && op.offset > 0));
            let full = errno == ENOSPC && op.kind == OpKind::Write;
            match result {
                // The frames go to another file, but not because a disk is full.
                Err(error) if on_block && mode == FailMode::Once && !full => panic!("{error}"),
                Ok(report) if report.end == End::DestinationFull => assert_eq!(errno, ENOSPC),
                Ok(report) => assert_eq!(report.end, End::Reading(EndReason::Finished)),
                // What is full from the start begins no capture: nothing was read.
                Err(asl_capture::Error::Store(error))
                    if errno == ENOSPC && trial.disk.log_len() == 0 =>
                {
                    assert!(error.is_full(), "{error}");
                }
                Err(error) => assert_eq!(errno, EIO, "{error}"),
            }
        });
    }
}

/// Three crashes one after the other, each anywhere in what the one before left to do.
#[test]
fn crashes_in_a_row_lose_nothing_durable() {
    let base = store();
    let ops = clean_run(&base).ops();
    for seed in 0..if all() { 5000 } else { 60 } {
        let mut random = blake3::Hasher::new().update(&[1]).finalize_xof();
        random.set_position(seed * 1024);
        let mut draw = |below: u64| {
            let mut bytes = [0; 8];
            random.fill(&mut bytes);
            u64::from_le_bytes(bytes) % below
        };
        let mut trial = Trial::new();
        let mut vfs = base.fork();
        for at in 0..3 {
            // The later runs have less to do.
            let n = draw(ops / (1 + at));
            let policy = match (draw(4), draw(1 << 20)) {
                (0, _) => CrashPolicy::KeepAll,
                (1, _) => CrashPolicy::LoseUnsynced,
                (2, seed) => CrashPolicy::Torn { seed },
                (_, seed) => CrashPolicy::Reorder { seed },
            };
            vfs.set_seed(n);
            case(format_args!("seed {seed}, crash {at} at {n}"), || {
                trial.check_reader(&vfs);
                if !finished(&vfs, &trial.disk) {
                    vfs.crash_at(n);
                    let _ = trial.run(&vfs);
                }
            });
            vfs = vfs.power_cut(policy);
            trial = trial.after();
        }
        case(format_args!("seed {seed}"), || trial.finish(&vfs));
    }
}

#[test]
fn an_error_at_any_operation_reads_nothing_durable_again() {
    fail_everywhere(EIO, FailMode::Once, 3);
}

#[test]
fn a_destination_that_fails_for_good_keeps_what_was_durable() {
    fail_everywhere(EIO, FailMode::Sticky, 5);
}

/// A full disk is never an error of the capture: it ends in order and says so.
#[test]
fn a_full_disk_at_any_operation_ends_the_run_in_order() {
    fail_everywhere(ENOSPC, FailMode::Once, 5);
    fail_everywhere(ENOSPC, FailMode::Sticky, 5);
}

/// Room for what was there and `more` bytes.
fn room(vfs: &FaultVfs, more: u64) {
    let used: u64 = vfs.files().iter().map(|(_, len)| len).sum();
    vfs.set_capacity(used + more);
}

/// Whatever the room, a run on a full disk ends in order: what was durable stays so, a
/// manifest is there if it fitted, and with more room the capture goes on.
#[test]
fn a_destination_of_any_size_keeps_what_fits() {
    let base = store();
    let clean = clean_run(&base);
    let bytes = |vfs: &FaultVfs| vfs.files().iter().map(|(_, len)| len).sum::<u64>();
    let needed = bytes(&clean) - bytes(&base);
    let step = if all() { 97 } else { 3001 };
    let mut manifests = 0;
    for more in (0..needed + 3 * step).step_by(step as usize) {
        case(format_args!("{more} of {needed} bytes"), || {
            let vfs = base.fork();
            room(&vfs, more);
            let mut trial = Trial::new();
            // The second run finds the disk as full as the first one left it.
            for _ in 0..2 {
                if finished(&vfs, &trial.disk) {
                    assert!(more > needed / 2);
                    break;
                }
                match trial.run(&vfs) {
                    Ok(report) => {
                        trial.check_report(&vfs, &report);
                        // Nothing is called rescued that is not safe.
                        assert_eq!(report.durable_bytes, report.doc.rescued_bytes);
                        assert_eq!(report.durable_bytes, trial.ledger.durable_bytes());
                        let finished = report.end == End::Reading(EndReason::Finished);
                        assert!(finished || report.end == End::DestinationFull);
                        manifests += u64::from(report.root.is_some());
                    }
                    // Not even the session's record had room.
                    Err(Error::Store(error)) if error.is_full() => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for policy in [CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced] {
                let found = vfs.power_cut(policy);
                found.set_capacity(1 << 40);
                trial.after().finish(&found);
            }
        });
    }
    assert!(manifests > 10, "{manifests}");
}

/// A capture that was killed is closed without its source: the manifest has exactly
/// what was durable, and the source, should it come back, is read for the rest only.
#[test]
fn a_capture_without_its_source_is_closed() {
    let base = store();
    let ops = clean_run(&base).ops();
    let mut closed = 0;
    for n in sample(0..ops, 9, 4) {
        let vfs = base.fork();
        vfs.set_seed(n);
        vfs.crash_at(n);
        let mut trial = Trial::new();
        trial.run(&vfs).expect_err("the process died");
        for policy in policies(n) {
            case(format_args!("crash at {n}, {policy:?}"), || {
                let vfs = vfs.power_cut(policy);
                let mut trial = trial.after();
                let Some(capture) = unfinished(&reader(&vfs), &trial.disk) else {
                    return;
                };
                let durable = trial.ledger.durable_bytes();
                let writer = writer(&vfs, 100).unwrap();
                let clock = Arc::new(TickingClock::default());
                let report =
                    close_unfinished(writer, &capture, &options(), clock, &trial.ledger).unwrap();
                if policy == CrashPolicy::LoseUnsynced {
                    assert_eq!(report.doc.rescued_bytes, durable);
                }
                assert!(report.doc.rescued_bytes >= durable);
                let all_known = report.doc.untried_bytes == 0;
                assert_eq!(report.end.stopped().is_none(), all_known);
                trial.check_report(&vfs, &report);
                let state = session::list(&reader(&vfs)).unwrap()[0].state;
                assert_eq!(state, CaptureState::Finished, "closed for good");
                closed += 1;
                trial.finish(&vfs);
            });
        }
    }
    assert!(closed > 10, "{closed}");
}
