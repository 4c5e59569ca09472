//! Every operation of a script fails, or is the last before a crash or a power
//! cut: afterwards the store opens, what was acknowledged is there, and the rest of
//! the script runs.
//!
//! `ASL_TEST_ALL=1` tries every operation of the longer scripts, with more seeds.

mod common;
mod sweep;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs, Op, OpKind};
use asl_store::{Error, create};
use common::*;
use sweep::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Directories that hold directories. A failed sync of one of these leaves the
/// names of directories in doubt, for which there is no other name to go to.
const PARENTS: [&str; 6] = ["", "blocks", "blocks/sealed", "index", "snapshots", "tmp"];

fn leaves_directories_in_doubt(op: &Op) -> bool {
    op.kind == OpKind::SyncDir && PARENTS.contains(&op.path.as_str())
}

/// One of `stride`, shifted by `shift`; all of them when all were asked for.
fn every<T>(stride: usize, shift: u64, of: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let stride = if all() { 1 } else { stride };
    of.into_iter().skip(shift as usize % stride).step_by(stride)
}

fn policies(n: u64) -> Vec<CrashPolicy> {
    let seeds = if all() { 12 } else { 1 };
    let seeds = (0..seeds).map(|at| at * 1000 + n);
    let torn = seeds.clone().map(|seed| CrashPolicy::Torn { seed });
    let reorder = seeds.map(|seed| CrashPolicy::Reorder { seed });
    [CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced]
        .into_iter()
        .chain(torn)
        .chain(reorder)
        .collect()
}

/// Runs one case; a failure says which.
fn case(what: std::fmt::Arguments<'_>, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("failed: {what}");
        resume_unwind(panic);
    }
}

/// The whole script without a fault: what it does, one by one.
fn trace(base: &FaultVfs, client: &Ledger, script: &[Step]) -> Vec<Op> {
    let vfs = base.fork();
    client.clone().run(&vfs, script).unwrap();
    vfs.trace()
}

/// What is there after the cut serves, and what is acknowledged from then on does not
/// rest on anything that the trouble left in doubt.
fn survive(client: &Ledger, found: &FaultVfs, script: &[Step]) {
    let after = client.clone().survive(found, script);
    after.check_reader(&found.power_cut(CrashPolicy::LoseUnsynced));
}

fn crash_at(base: &FaultVfs, client: &Ledger, script: &[Step], op: &Op) {
    let n = op.number;
    let vfs = base.fork();
    vfs.set_seed(n);
    vfs.crash_at(n);
    let mut client = client.clone();
    client.run(&vfs, script).expect_err("the process died");
    for policy in policies(n) {
        case(format_args!("crash at {op}, {policy:?}"), || {
            survive(&client, &vfs.power_cut(policy), script);
        });
    }
}

/// Runs the script with one failure planned, or more for good.
fn fail_at(base: &FaultVfs, client: &Ledger, script: &[Step], op: &Op, errno: i32, mode: FailMode) {
    let n = op.number;
    case(format_args!("{mode:?} error {errno} at {op}"), || {
        let vfs = base.fork();
        vfs.set_seed(n);
        vfs.fail_op(n, errno, mode);
        let mut client = client.clone();
        let result = client.run(&vfs, script);
        // The machine runs on: the page cache may promise what the disk lacks.
        vfs.clear_faults();
        if leaves_directories_in_doubt(op) || mode == FailMode::Sticky {
            client.clone().survive(&vfs.fork(), script);
        } else {
            survive(&client, &vfs.fork(), script);
            let cuts = [CrashPolicy::LoseUnsynced, CrashPolicy::Reorder { seed: n }];
            for policy in every(2, n, cuts) {
                survive(&client, &vfs.power_cut(policy), script);
            }
        }
        let trace = vfs.trace();
        let (before, after) = trace.split_at(n as usize);
        let same = |other: &&Op| other.path == op.path;
        // A sync of what this writer wrote, not of what it found at opening.
        let own = op.kind == OpKind::Sync
            && (op.path.starts_with("blocks/open") || op.path.starts_with("log/log-"))
            && before.iter().rev().find(same).map(|last| last.kind) == Some(OpKind::Write);
        match result {
            // Frames and records have other files to go to.
            Err(error) if own && mode == FailMode::Once && errno == EIO => panic!("{error}"),
            Err(error) => assert!(errno != ENOSPC || error.is_full(), "{error}"),
            // What only a cache missed is no failure.
            Ok(()) => assert!(mode == FailMode::Once || errno == ENOSPC),
        }
        if own {
            // Up to where the next writer takes the lock.
            let mut later = after[1..].iter().take_while(|later| later.path != "lock");
            assert!(
                !later.any(|later| later.kind == OpKind::Sync && same(&later)),
                "synced again after a failure"
            );
        }
    });
}

/// A way to run a script: who runs it, and what.
struct Story {
    base: FaultVfs,
    client: Ledger,
    script: Vec<Step>,
    ops: Vec<Op>,
}

impl Story {
    fn new(client: Ledger, script: Vec<Step>) -> Story {
        let base = fresh();
        let ops = trace(&base, &client, &script);
        Story {
            base,
            client,
            script,
            ops,
        }
    }

    fn plain() -> Story {
        Story::new(Ledger::default(), script())
    }

    fn merging() -> Story {
        let story = Story::new(Ledger::default(), merging_script());
        let removed = story.count(OpKind::Remove, "index/");
        assert!(removed > 4, "the script is about merges");
        story
    }

    fn with_short_logs() -> Story {
        let story = Story::new(Ledger::with_log_files_of(700), script());
        let begun = story.count(OpKind::Create, "log/log-");
        assert!(begun > 4, "the script is about log files");
        story
    }

    fn count(&self, kind: OpKind, path: &str) -> usize {
        let of = self.ops.iter();
        of.filter(|op| op.kind == kind && op.path.starts_with(path))
            .count()
    }

    /// Crashes at one of `stride` operations.
    fn crash(&self, stride: usize) {
        for op in every(stride, 1, &self.ops) {
            crash_at(&self.base, &self.client, &self.script, op);
        }
    }

    /// Fails one of `stride` operations.
    fn fail(&self, stride: usize, errno: i32, mode: FailMode) {
        for op in every(stride, 2, &self.ops) {
            fail_at(&self.base, &self.client, &self.script, op, errno, mode);
        }
    }
}

/// Covers B5, B10, B11, S5.
#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    Story::plain().crash(1);
}

#[test]
fn a_crash_while_segments_are_written_and_merged_loses_nothing_acknowledged() {
    Story::merging().crash(17);
}

#[test]
fn a_crash_where_log_files_are_short_loses_nothing_acknowledged() {
    Story::with_short_logs().crash(7);
}

#[test]
fn an_error_at_any_operation_loses_nothing_acknowledged() {
    Story::plain().fail(1, EIO, FailMode::Once);
}

#[test]
fn an_error_while_segments_are_written_and_merged_loses_nothing_acknowledged() {
    Story::merging().fail(17, EIO, FailMode::Once);
}

#[test]
fn an_error_where_log_files_are_short_loses_nothing_acknowledged() {
    Story::with_short_logs().fail(7, EIO, FailMode::Once);
}

#[test]
fn a_destination_that_fails_for_good_keeps_what_was_acknowledged() {
    Story::plain().fail(5, EIO, FailMode::Sticky);
}

#[test]
fn a_destination_that_is_full_from_any_operation_on_keeps_what_was_acknowledged() {
    Story::plain().fail(5, ENOSPC, FailMode::Sticky);
}

/// Room runs out at a sync, where a filesystem that allocates late finds out.
#[test]
fn a_lack_of_room_found_late_loses_nothing_acknowledged() {
    let mut story = Story::plain();
    story.ops.retain(|op| op.kind == OpKind::Sync);
    story.fail(3, ENOSPC, FailMode::Once);
}

/// Error after error, then a crash: any two or three of the script's operations.
#[test]
fn errors_before_a_crash_lose_nothing_acknowledged() {
    for Story {
        base,
        client,
        script,
        ops,
    } in [Story::plain(), Story::with_short_logs(), Story::merging()]
    {
        let cases = if all() { 200 } else { 25 };
        for seed in 0..cases {
            let mut draws = noise(seed, 32).into_iter().map(u64::from);
            let mut draw = move |below: u64| {
                (draws.next().unwrap() * 65_536
                    + draws.next().unwrap() * 256
                    + draws.next().unwrap())
                    % below
            };
            let first = draw(ops.len() as u64);
            let failing: Vec<_> = (0..1 + draw(2)).map(|_| first + draw(12)).collect();
            let crash = first + draw(60);
            case(
                format_args!("seed {seed}: errors at {failing:?}, crash at {crash}"),
                || {
                    let vfs = base.fork();
                    vfs.set_seed(seed);
                    for n in &failing {
                        vfs.fail_op(*n, EIO, FailMode::Once);
                    }
                    vfs.crash_at(crash);
                    let mut client = client.clone();
                    // The client tries again until the process dies.
                    while !vfs.crashed() {
                        vfs.release_locks();
                        if client.run(&vfs, &script).is_ok() {
                            break;
                        }
                    }
                    // What comes after the first error is not in the plain trace.
                    let trace = vfs.trace();
                    let mut hit = trace.iter().filter(|op| op.errno.is_some());
                    if hit.any(leaves_directories_in_doubt) {
                        client.survive(&vfs.fork(), &script);
                        return;
                    }
                    survive(&client, &vfs.fork(), &script);
                    for policy in policies(seed).into_iter().skip(1) {
                        survive(&client, &vfs.power_cut(policy), &script);
                    }
                },
            );
        }
    }
}

/// A crash while the next opening mends what the first one left, and again.
#[test]
fn a_crash_during_recovery_loses_nothing_acknowledged() {
    let Story {
        base,
        client,
        script,
        ops,
    } = Story::plain();
    for op in every(17, 5, &ops) {
        let n = op.number;
        let vfs = base.fork();
        vfs.set_seed(n);
        vfs.crash_at(n);
        let mut client = client.clone();
        client.run(&vfs, &script).expect_err("the process died");
        for policy in policies(n) {
            let found = vfs.power_cut(policy);
            let whole = found.fork();
            drop(writer(&whole, 200).unwrap());
            for m in 0..whole.ops() {
                case(
                    format_args!(
                        "crash at {op}, {policy:?}, then at {}",
                        whole.trace()[m as usize]
                    ),
                    || {
                        let again = found.fork();
                        again.set_seed(m);
                        again.crash_at(m);
                        // What only a cache missed is no failure.
                        let _ = writer(&again, 200);
                        assert!(again.crashed());
                        let policy = policies(n + m)[(n + m) as usize % 4];
                        survive(&client, &again.power_cut(policy), &script);
                    },
                );
            }
        }
    }
}

/// Of log files that begin at one position the last one counts. An abandoned one that a
/// power cut took must not let its number be given again below that.
#[test]
fn an_abandoned_log_file_never_outranks_a_later_one() {
    let vfs = fresh();
    let broken = |op: &Op| {
        let record = op.kind == OpKind::Sync && op.path.ends_with("0000.asl");
        let name = op.kind == OpKind::SyncDir && op.path == "log";
        (record || name).then_some(EIO)
    };
    let mut w = writer(&vfs, 2).unwrap();
    vfs.set_hook(broken);
    w.put(frame(&noise(2, 300))).unwrap_err();
    drop(w);
    vfs.set_hook(move |op| broken(op).filter(|_| op.kind == OpKind::SyncDir));
    writer(&vfs, 3).map(drop).unwrap_err();
    vfs.clear_faults();
    let files = vfs.files().into_iter().map(|(path, _)| path);
    let mut abandoned: Vec<_> = files.filter(|path| path.contains("0001.asl")).collect();
    abandoned.extend(["log/log-0000000000000001-0002.asl".to_owned()]);
    assert_eq!(
        abandoned,
        [
            "log/log-0000000000000001-0001.asl",
            "log/log-0000000000000001.asl",
            "log/log-0000000000000001-0002.asl"
        ]
    );
    vfs.remove_file(&abandoned[0]).unwrap();
    vfs.remove_file(&abandoned[1]).unwrap();
    let mut w = writer(&vfs, 4).unwrap();
    w.put(frame(&noise(4, 300))).unwrap();
    w.finish().unwrap();
    assert!(
        reader(&vfs)
            .unwrap()
            .lookup(&asl_store::Key::of(&noise(4, 300)))
            .unwrap()
            .is_some()
    );
    assert_eq!(writer(&vfs, 5).unwrap().recovery().torn_log_bytes, 0);
}

/// A record that a failed writer left behind an abandoned log file does not count, and an
/// opening removes what only it named. A power cut that takes the abandoned file must not make
/// it count again.
#[test]
fn a_record_that_an_opening_passed_over_never_counts_again() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    w.put(frame(&noise(2, 300))).unwrap();
    w.commit().unwrap();
    vfs.set_hook(|op| {
        let record = op.kind == OpKind::Sync && op.path.ends_with("0000.asl");
        let name = op.kind == OpKind::SyncDir && op.path == "log";
        (record || name).then_some(EIO)
    });
    w.flush().unwrap_err();
    drop(w);
    vfs.clear_faults();
    let names = |vfs: &FaultVfs| {
        let files = vfs.files().into_iter().map(|(path, _)| path);
        let log = files.filter(|path| path.starts_with("log/log-"));
        log.collect::<Vec<_>>()
    };
    let before = names(&vfs);
    let [written, abandoned] = &before[..] else {
        panic!("{before:?}");
    };
    // The sync failed, but the medium has it all.
    let bytes = vfs.read_file(written).unwrap();
    vfs.write_file(written, &bytes).unwrap();
    let position = |vfs: &FaultVfs| reader(vfs).unwrap().with_state(|state| state.position());
    let known = position(&vfs);
    // Without the file, and nobody having opened the store since, the record does count.
    let other = vfs.fork();
    other.remove_file(abandoned).unwrap();
    assert_eq!(position(&other).0, known.0 + 1);

    drop(writer(&vfs, 3).unwrap());
    vfs.remove_file(abandoned).unwrap();
    let handle = reader(&vfs).unwrap();
    assert_eq!(handle.problems(), []);
    assert_eq!(handle.with_state(|state| state.segments().len()), 0);
    drop(writer(&vfs, 4).unwrap());
    check_whole(&vfs);
    // Once is enough: a log that is settled gets no further files, nor records.
    let (files, position_then) = (names(&vfs), position(&vfs));
    for seed in 5..7 {
        writer(&vfs, seed).unwrap().finish().unwrap();
    }
    assert_eq!((names(&vfs), position(&vfs)), (files, position_then));
}

/// A snapshot's state may say that the log ended in a file which then got no record: it is no
/// other state because of that.
#[test]
fn a_snapshot_behind_a_log_file_without_records_is_whole() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let syncs = AtomicU32::new(0);
    vfs.set_hook(move |op| {
        // The record in one file, then in the next, whose header comes first.
        let log = op.kind == OpKind::Sync && op.path.starts_with("log/log-");
        let nth = syncs.fetch_add(log.into(), Ordering::Relaxed);
        (log && nth != 1).then_some(EIO)
    });
    w.put(frame(&noise(1, 300))).unwrap_err();
    drop(w);
    vfs.clear_faults();
    // Part of what was not synced reached the medium.
    let torn = "log/log-0000000000000001.asl";
    let bytes = vfs.read_file(torn).unwrap();
    vfs.write_file(torn, &bytes[..bytes.len() - 8]).unwrap();
    let mut w = writer(&vfs, 3).unwrap();
    assert_ne!(w.recovery().torn_log_bytes, 0);
    w.snapshot("").unwrap();
    w.finish().unwrap();
    check_whole(&vfs);
}

/// Covers C1 in part: creating a store happens, or can be begun again.
#[test]
fn a_crash_or_an_error_while_a_store_is_created_leaves_a_store_or_none() {
    let made = |vfs: &FaultVfs| create(vfs, &small_params(), &context(1), &options());
    let whole = FaultVfs::new();
    made(&whole).unwrap();
    let check = |found: &FaultVfs| {
        match reader(found) {
            Ok(_) => {
                let error = made(found).expect_err("there is one");
                assert!(matches!(error, Error::AlreadyAStore), "{error}");
            }
            Err(Error::NotAStore) => {
                create(found, &small_params(), &context(2), &options()).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        let script = script();
        survive(&Ledger::default(), found, &script[..12]);
    };
    for op in whole.trace() {
        let n = op.number;
        let vfs = FaultVfs::new();
        vfs.set_seed(n);
        vfs.crash_at(n);
        made(&vfs).expect_err("the process died");
        for policy in policies(n) {
            case(format_args!("crash at {op}, {policy:?}"), || {
                check(&vfs.power_cut(policy))
            });
        }
        for (errno, mode) in [
            (EIO, FailMode::Once),
            (EIO, FailMode::Sticky),
            (ENOSPC, FailMode::Sticky),
        ] {
            let vfs = FaultVfs::new();
            vfs.set_seed(n);
            vfs.fail_op(n, errno, mode);
            let result = made(&vfs);
            vfs.clear_faults();
            case(format_args!("{mode:?} error {errno} at {op}"), || {
                if result.is_err() {
                    // Whatever the page cache says: nobody was told that there is a store.
                    match made(&vfs) {
                        Ok(_) | Err(Error::AlreadyAStore) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                if leaves_directories_in_doubt(&op) || mode == FailMode::Sticky {
                    Ledger::default().survive(&vfs, &script()[..12]);
                } else {
                    check(&vfs);
                }
            });
        }
    }
}
