//! Every operation of a script fails, or is the last before a crash or a power
//! cut: afterwards the store opens, what was acknowledged is there, and the rest of
//! the script runs.
//!
//! `ASL_TEST_ALL=1` tries more seeds.

mod common;
mod sweep;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs, OpKind};
use common::*;
use sweep::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Directories that hold directories. A failed sync of one of these leaves the
/// names of directories in doubt, for which there is no other name to go to.
const PARENTS: [&str; 5] = ["", "blocks", "blocks/sealed", "index", "snapshots"];

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

/// Operations of the whole script on a fresh store.
fn count(base: &FaultVfs, script: &[Step]) -> FaultVfs {
    let vfs = base.fork();
    Ledger::default().run(&vfs, script).unwrap();
    vfs
}

fn crash_everywhere(script: &[Step]) {
    let base = fresh();
    let ops = count(&base, script).ops();
    for n in 0..ops {
        let vfs = base.fork();
        vfs.set_seed(n);
        vfs.crash_at(n);
        let mut ledger = Ledger::default();
        ledger.run(&vfs, script).expect_err("the process died");
        for policy in policies(n) {
            let op = &vfs.trace()[n as usize];
            case(format_args!("crash at {op}, {policy:?}"), || {
                let found = vfs.power_cut(policy);
                let after = ledger.clone().survive(&found, script);
                // What was acknowledged since does not rest on what the crash left in doubt.
                after.check_reader(&found.power_cut(CrashPolicy::LoseUnsynced));
            });
        }
    }
}

fn fail_everywhere(script: &[Step], errno: i32, mode: FailMode) {
    let base = fresh();
    let clean = count(&base, script);
    for n in 0..clean.ops() {
        let op = &clean.trace()[n as usize];
        case(format_args!("{mode:?} error {errno} at {op}"), || {
            let vfs = base.fork();
            vfs.set_seed(n);
            vfs.fail_op(n, errno, mode);
            let mut ledger = Ledger::default();
            let result = ledger.run(&vfs, script);
            vfs.clear_faults();
            vfs.release_locks();
            // The machine went on running; the page cache may promise what the disk lacks.
            let parents = op.kind == OpKind::SyncDir && PARENTS.contains(&op.path.as_str());
            let last_parents = parents || mode == FailMode::Sticky;
            let doubtful = if last_parents { 1 } else { 2 };
            for policy in [CrashPolicy::KeepAll, CrashPolicy::LoseUnsynced]
                .into_iter()
                .take(doubtful)
            {
                let found = vfs.power_cut(policy);
                let after = ledger.clone().survive(&found, script);
                if !last_parents {
                    after.check_reader(&found.power_cut(CrashPolicy::LoseUnsynced));
                }
            }
            match result {
                // What only a cache missed is no failure.
                Ok(()) => assert!(mode == FailMode::Once || errno == ENOSPC),
                Err(error) => assert!(errno != ENOSPC || error.is_full(), "{error}"),
            }
        });
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    crash_everywhere(&script());
}

#[test]
fn an_error_at_any_operation_loses_nothing_acknowledged() {
    fail_everywhere(&script(), EIO, FailMode::Once);
}

#[test]
fn a_destination_that_fails_for_good_keeps_what_was_acknowledged() {
    fail_everywhere(&script(), EIO, FailMode::Sticky);
}

#[test]
fn a_destination_that_is_full_from_any_operation_on_keeps_what_was_acknowledged() {
    fail_everywhere(&script(), ENOSPC, FailMode::Sticky);
}
