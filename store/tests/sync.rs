//! One store's instances taken over by another: whole and checked or not at all, whatever the other store holds, and wherever the
//! sync is cut off.
//!
//! `ASL_TEST_ALL=1` tries every operation and more bytes.

mod common;
mod forge;
mod pair;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use asl_store::compare::{Relation, Verdict, compare, content_root, vector};
use asl_store::log::LogEnd;
use asl_store::sync::{Outcome, Side, SyncObserver, SyncOptions, SyncProgress, SyncReport, sync};
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::{Compression, Error, Hint, Key, StoreHandle, block, format, put_reader};
use common::*;
use pair::*;

/// Covers C6 in part: one sync each way, and both have everything.
#[test]
fn one_sync_each_way_makes_vectors_equal() {
    let (a, b) = (store(1), other());
    fill(&a, 2, 100..130);
    let before = (reader(&a).unwrap(), files_of(&a), files_of(&b));
    let report = synced(&a, &b);
    assert!(matches!(outcome(&report, id_of(&b)), Outcome::Taken));
    assert!(!report.equal, "they do not have ours yet");
    assert_eq!(files_of(&b), before.2, "the other store is only read");
    let report = synced(&b, &a);
    assert!(report.equal && !report.stopped);
    assert!(matches!(outcome(&report, id_of(&a)), Outcome::Taken));
    assert!(matches!(outcome(&report, id_of(&b)), Outcome::Equal));
    let (here, there) = (reader(&a).unwrap(), reader(&b).unwrap());
    assert_eq!(vector(&here), vector(&there));
    assert_eq!(compare(&here, &there).unwrap().verdict, Verdict::Equal);
    assert_eq!(checked(&a), checked(&b));
    // Nothing was appended to our own log, and no file of our own instance changed.
    let own = |store: &StoreHandle| store.instances()[0].with_state(|state| state.place());
    assert_eq!(own(&before.0), own(&here));
    let untouched = |file: &(String, u64)| !file.0.starts_with("instances/");
    let after: Vec<_> = files_of(&a).into_iter().filter(untouched).collect();
    assert_eq!(after, before.1);
    // Once more: nothing to do, nothing written.
    let (ops, files) = (a.ops(), files_of(&a));
    let report = synced(&a, &b);
    assert!(report.equal);
    assert_eq!(report.instances.iter().map(|one| one.bytes).sum::<u64>(), 0);
    let writes = a.trace()[ops as usize..]
        .iter()
        .filter(|op| op.path != "lock")
        .count();
    assert_eq!((files_of(&a), writes), (files, 0));
}

#[test]
fn what_comes_later_comes_over_later() {
    let (a, b) = (store(1), other());
    synced(&a, &b);
    for round in 0..4 {
        let numbers = 200 + 40 * round..240 + 40 * round;
        let mut w = writer(&b, 20 + round as u8).unwrap();
        for n in numbers {
            w.put(frame(&noise(n, 3000))).unwrap();
        }
        w.tombstone(&[Key::of(&noise(round, 3000))]).unwrap();
        w.flush().unwrap();
        w.snapshot("").unwrap();
        w.finish().unwrap();
        let report = synced(&a, &b);
        let of = &report.instances[0];
        assert!(matches!(of.outcome, Outcome::Taken));
        assert!(of.before.unwrap().position < of.after.unwrap().position);
        assert!(of.blocks > 0 && of.bytes > 0 && of.healed == 0);
        assert_eq!(checked(&a)[&id_of(&b)], checked(&b)[&id_of(&b)]);
    }
    // The copy can be read as of each snapshot, from its state file.
    let copy = reader(&a).unwrap().instances().remove(1);
    let there = reader(&b).unwrap();
    for ordinal in 1..=6 {
        let ordinal = format!("{ordinal}");
        assert_eq!(
            contents(&copy.at(&ordinal, None).unwrap()),
            contents(&there.at(&ordinal, None).unwrap())
        );
    }
}

#[test]
fn three_stores_in_a_ring_become_equal() {
    let stores = [store(1), store(2), other()];
    for (nth, vfs) in stores[..2].iter().enumerate() {
        let from = 300 + 50 * nth as u64;
        fill(vfs, 30 + nth as u8, from..from + 20);
    }
    // Each takes from the one before it, twice round.
    for step in 0..6 {
        synced(&stores[(step + 1) % 3], &stores[step % 3]);
    }
    let vectors: Vec<_> = stores
        .iter()
        .map(|vfs| vector(&reader(vfs).unwrap()))
        .collect();
    assert_eq!(vectors[0].len(), 3);
    assert!(vectors.iter().all(|of| *of == vectors[0]));
    let expected = checked(&stores[0]);
    assert!(stores.iter().all(|vfs| checked(vfs) == expected));
    let contents = |vfs: &FaultVfs| content_root(&reader(vfs).unwrap()).unwrap();
    assert!(
        stores
            .iter()
            .all(|vfs| contents(vfs) == contents(&stores[0]))
    );
}

#[test]
fn an_empty_place_becomes_a_mirror() {
    let (a, b) = (store(1), other());
    fill(&a, 2, 100..130);
    synced(&b, &a);
    let mirror = FaultVfs::new();
    let report = synced(&mirror, &b);
    assert!(report.equal);
    assert_eq!(id_of(&mirror), id_of(&b), "the one at the top is theirs");
    assert_eq!(checked(&mirror), checked(&b));
    fill(&b, 3, 500..510);
    assert!(synced(&mirror, &b).equal);
    assert_eq!(checked(&mirror), checked(&b));
    // What is neither empty nor a mirror is left alone.
    let taken = FaultVfs::new();
    taken.write_file("letter.txt", b"x").unwrap();
    assert!(matches!(try_sync(&taken, &b), Err(Error::NotEmpty { .. })));
    assert_eq!(taken.files().len(), 1);
    assert!(matches!(
        try_sync(&a, &FaultVfs::new()),
        Err(Error::NotAStore)
    ));
}

#[test]
fn a_dry_run_says_what_would_come_and_writes_nothing() {
    let (a, b) = (store(1), other());
    let (files, ops) = (a.files(), a.ops());
    let dry = SyncOptions {
        dry_run: true,
        ..options_of(1)
    };
    let planned = sync(&arc(&a), &arc(&b), &context(7), &dry, &()).unwrap();
    assert_eq!((a.files(), a.ops()), (files, ops));
    let done = synced(&a, &b);
    let (planned, done) = (&planned.instances[0], &done.instances[0]);
    assert_eq!((planned.after, planned.blocks), (done.after, done.blocks));
    assert!(planned.bytes > 0 && planned.bytes <= done.bytes);
}

#[test]
fn whoever_writes_keeps_a_sync_out() {
    let (a, b) = (store(1), other());
    let w = writer(&a, 2).unwrap();
    assert!(matches!(try_sync(&a, &b), Err(Error::Locked { .. })));
    drop(w);
    // Theirs may be written to meanwhile.
    let _w = writer(&b, 3).unwrap();
    synced(&a, &b);
}

/// Covers L7: `tmp/ingest` is where it may break.
#[test]
fn a_crash_or_an_error_at_any_operation_is_gone_on_from() {
    let (b, third) = (other(), store(3));
    fill(&third, 4, 600..610);
    synced(&b, &third);
    let base = store(1);
    fill(&base, 2, 100..104);
    // Some of it is there, so that both a new log and one that grows are met.
    let half = base.fork();
    synced(&half, &b);
    let mut w = writer(&b, 12).unwrap();
    for n in 700..730 {
        w.put(frame(&noise(n, 3000))).unwrap();
    }
    w.flush().unwrap();
    w.snapshot("later").unwrap();
    w.finish().unwrap();
    let before = checked(&base)[&id_of(&base)].clone();
    for (nth, start) in [base, half].into_iter().enumerate() {
        let whole = start.fork();
        synced(&whole, &b);
        let expected = checked(&whole);
        let step = if all() { 1 } else { 7 };
        for at in (0..whole.ops()).skip(nth).step_by(step) {
            let crashed = start.fork();
            crashed.set_seed(at);
            crashed.crash_at(at);
            try_sync(&crashed, &b).expect_err("it crashed");
            let policies = [
                CrashPolicy::KeepAll,
                CrashPolicy::LoseUnsynced,
                CrashPolicy::Torn { seed: at },
            ];
            for policy in policies {
                let vfs = crashed.power_cut(policy);
                // Whatever is shown can be read, and each log is a shorter one of the same history.
                let found = reader(&vfs).unwrap();
                assert_eq!(found.problems(), [], "operation {at}");
                for one in found.instances() {
                    assert_eq!(*one.log_end(), LogEnd::Clean, "operation {at}");
                    contents(&one);
                }
                let own = contents(&found.instances()[0]);
                assert_eq!(own, before, "operation {at}");
                synced(&vfs, &b);
                assert_eq!(checked(&vfs), expected, "operation {at}");
                let half: Vec<_> = vfs
                    .files()
                    .into_iter()
                    .filter(|(path, _)| path.ends_with(".new"))
                    .collect();
                assert_eq!(half, [], "operation {at}");
            }
            for errno in [5, 28] {
                let vfs = start.fork();
                vfs.set_seed(at);
                vfs.fail_op(at, errno, FailMode::Once);
                let _ = try_sync(&vfs, &b);
                vfs.clear_faults();
                vfs.release_locks();
                synced(&vfs, &b);
                assert_eq!(checked(&vfs), expected, "operation {at}, errno {errno}");
            }
        }
    }
}

/// The kinds of files of a store.
fn kind_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// Covers B10 for what is synced: a flipped byte anywhere there is never a wrong byte here.
#[test]
fn no_flipped_byte_comes_over() {
    let b = other();
    let id = id_of(&b);
    let whole = checked(&b)[&id].clone();
    let base = store(1);
    let mut refused = BTreeMap::<String, u32>::new();
    for (nth, (path, len)) in b.files().into_iter().enumerate() {
        if ["lock", "ballast"].contains(&&*path) {
            continue;
        }
        let step = if all() { 41 } else { 4093 };
        let small = len.div_ceil(24).max(1);
        for at in (nth as u64 % small..len).step_by(step.min(small as usize)) {
            let damaged = b.fork();
            damaged.flip_byte(&path, at).unwrap();
            let vfs = base.fork();
            let report = match try_sync(&vfs, &damaged) {
                Ok(report) => report,
                // The log at the top itself is not one any more.
                Err(error) => {
                    assert_eq!(kind_of(&path), "log", "{path} at {at}: {error}");
                    *refused.entry("log".into()).or_default() += 1;
                    continue;
                }
            };
            let shown = checked(&vfs);
            let of = &report.instances[0];
            match &of.outcome {
                Outcome::Taken if !path.starts_with("log/log") => {
                    assert_eq!(shown[&id], whole, "{path} at {at}");
                }
                // A torn tail, or what lies behind the valid part of a file.
                Outcome::Taken => {
                    let there = contents(&reader(&damaged).unwrap().instances()[0]);
                    assert_eq!(shown[&id], there, "{path} at {at}");
                }
                Outcome::Damaged => {
                    assert_eq!(of.damaged.len(), 1, "{path} at {at}");
                    assert_eq!(of.damaged[0].path, path);
                    assert_eq!(of.after, None);
                    assert!(!shown.contains_key(&id));
                    *refused.entry(kind_of(&path).into()).or_default() += 1;
                }
                Outcome::Refused { side, .. } => {
                    assert_eq!((*side, kind_of(&path)), (Side::There, "log"));
                    assert!(!shown.contains_key(&id));
                    *refused.entry("log".into()).or_default() += 1;
                }
                other => panic!("{path} at {at}: {other:?}"),
            }
            // Whole again there, it comes over.
            if at % 5 == 0 {
                assert!(matches!(
                    outcome(&synced(&vfs, &b), id),
                    Outcome::Taken | Outcome::Equal
                ));
                assert_eq!(checked(&vfs)[&id], whole);
            }
        }
    }
    for kind in ["blocks", "index", "log"] {
        assert!(
            refused.get(kind).is_some_and(|count| *count > 3),
            "{kind}: {refused:?}"
        );
    }
}

/// Blocks that are missing, cut, grown, or in each other's places.
#[test]
fn a_block_that_is_another_does_not_come_over() {
    let b = other();
    let id = id_of(&b);
    let digests = blocks_of(&b);
    let (first, second) = (
        block::sealed_path(&digests[0]),
        block::sealed_path(&digests[1]),
    );
    let bytes = [&first, &second].map(|path| b.read_file(path).unwrap());
    let mut long = bytes[0].clone();
    long.resize(bytes[0].len() + 4096, 0);
    let half = bytes[0][..bytes[0].len() / 2].to_vec();
    for (what, replaced) in [
        ("missing", None),
        ("swapped", Some(bytes[1].clone())),
        ("empty", Some(Vec::new())),
        ("cut", Some(half)),
        ("grown", Some(long)),
    ] {
        let there = b.fork();
        match &replaced {
            Some(bytes) => there.write_file(&first, bytes).unwrap(),
            None => there.remove_file(&first).unwrap(),
        }
        let a = store(1);
        let report = synced(&a, &there);
        let of = &report.instances[0];
        assert!(
            matches!(of.outcome, Outcome::Damaged),
            "{what}: {:?}",
            of.outcome
        );
        assert_eq!(of.damaged[0].path, first, "{what}");
        assert!(!checked(&a).contains_key(&id), "{what}");
        // The others came, and need not come again.
        assert!(of.blocks as usize >= digests.len() - 2, "{what}");
        let accepted = SyncOptions {
            accept_damaged: true,
            ..options_of(1)
        };
        let report = sync(&arc(&a), &arc(&there), &context(7), &accepted, &()).unwrap();
        let of = &report.instances[0];
        assert!(matches!(of.outcome, Outcome::Taken), "{what}");
        assert_eq!((of.blocks, of.damaged.len()), (0, 1), "{what}");
        assert_eq!(of.after, of.theirs, "{what}");
        // From where it is whole, the block that is missing comes.
        let report = synced(&a, &b);
        let of = &report.instances[0];
        assert!(matches!(of.outcome, Outcome::Equal), "{what}");
        assert_eq!((of.blocks, of.healed), (1, 1), "{what}");
        assert_eq!(checked(&a)[&id], checked(&b)[&id], "{what}");
    }
}

#[test]
fn a_torn_tail_is_left_behind_and_a_damaged_log_is_refused() {
    let b = other();
    let id = id_of(&b);
    let log = |vfs: &FaultVfs| {
        let files = vfs.files().into_iter().map(|(path, _)| path);
        let mut files: Vec<_> = files.filter(|path| path.starts_with("log/log")).collect();
        files.sort();
        files
    };
    let last = log(&b).pop().unwrap();
    // Bytes that no record is behind the last one.
    let torn = b.fork();
    let mut bytes = b.read_file(&last).unwrap();
    bytes.extend(noise(5, 333));
    torn.write_file(&last, &bytes).unwrap();
    let a = store(1);
    assert!(matches!(outcome(&synced(&a, &torn), id), Outcome::Taken));
    assert_eq!(checked(&a)[&id], checked(&b)[&id]);
    // A log that lacks records that it once had.
    let lost = b.fork();
    bytes.truncate(bytes.len() - 333 - 100);
    lost.write_file(&last, &bytes).unwrap();
    // One with a hole, and one without a file in its middle.
    let files = log(&b);
    let hole = b.fork();
    hole.flip_byte(&files[0], 300).unwrap();
    let gap = b.fork();
    gap.remove_file(&files[1]).unwrap();
    for (what, there) in [("lost", lost), ("hole", hole), ("gap", gap)] {
        let a = store(1);
        let before = files_of(&a);
        let report = synced(&a, &there);
        let refused = matches!(
            outcome(&report, id),
            Outcome::Refused {
                side: Side::There,
                error: Error::LogDamaged { .. } | Error::LogTailLost { .. }
            }
        );
        assert!(refused, "{what}: {:?}", report.instances[0].outcome);
        assert_eq!(files_of(&a), before, "{what}");
    }
}

/// Two sticks, cloned bit by bit and both written to.
#[test]
fn a_fork_stops_that_instance_and_keeps_both_heads() {
    let (a, third) = (other(), store(3));
    let id = id_of(&a);
    let at = reader(&a).unwrap().with_state(|state| state.position());
    let b = a.fork();
    fill(&third, 4, 600..610);
    fill(&a, 20, 800..804);
    fill(&b, 21, 900..902);
    synced(&b, &third);
    let (ours, theirs) = (reader(&a).unwrap(), reader(&b).unwrap());
    let comparison = compare(&ours, &theirs).unwrap();
    assert_eq!(comparison.verdict, Verdict::Forked);
    let of = comparison
        .instances
        .iter()
        .find(|of| of.store == id)
        .unwrap();
    assert_eq!(of.relation, Relation::Forked { at });
    let (before, shown) = (files_of(&a), contents(&ours));
    let report = synced(&a, &b);
    let Outcome::Forked {
        at: found,
        evidence: Some(dir),
    } = outcome(&report, id)
    else {
        panic!("{:?}", report.instances)
    };
    assert_eq!(*found, at);
    assert!(!report.equal);
    // The other instance came, ours is as it was.
    assert!(matches!(outcome(&report, id_of(&third)), Outcome::Taken));
    assert_eq!(checked(&a)[&id], shown);
    let is_new = |file: &(String, u64)| {
        !file.0.starts_with("instances/") && !file.0.starts_with("evidence/")
    };
    assert_eq!(
        files_of(&a).into_iter().filter(is_new).collect::<Vec<_>>(),
        before
    );
    // Their records from the parting on are kept, as they stand there.
    let kept: Vec<_> = a.files();
    let kept: Vec<_> = kept
        .iter()
        .filter(|(path, _)| path.starts_with(&**dir))
        .collect();
    assert!(!kept.is_empty());
    for (path, _) in kept {
        let name = path.rsplit('/').next().unwrap();
        let there = b.read_file(&format!("log/{name}")).unwrap();
        let here = a.read_file(path).unwrap();
        assert!(there.starts_with(&here) && here.len() > format::log_header::LEN);
    }
    // Found again, it is not kept twice.
    let files = files_of(&a);
    synced(&a, &b);
    assert_eq!(files_of(&a), files);
}

/// A clone that fell behind inside one append, or long ago.
#[test]
fn where_logs_part_is_found_exactly() {
    let base = store(1);
    let mut w = writer(&base, 2).unwrap();
    for n in 0..300 {
        w.begin_session(asl_store::SessionId([n as u8; 16]), b"x")
            .unwrap();
    }
    w.finish().unwrap();
    let common = reader(&base).unwrap().with_state(|state| state.position());
    for (here, there) in [(1, 1), (1, 40), (40, 1), (9000, 5000)] {
        let grow = |seed: u8, count: u64| {
            let vfs = base.fork();
            let mut w = writer(&vfs, seed).unwrap();
            for _ in 0..count {
                w.begin_session(asl_store::SessionId([1; 16]), &[seed])
                    .unwrap();
            }
            w.finish().unwrap();
            reader(&vfs).unwrap()
        };
        let comparison = compare(&grow(5, here), &grow(6, there)).unwrap();
        assert_eq!(
            comparison.instances[0].relation,
            Relation::Forked { at: common },
            "{here} and {there}"
        );
    }
}

fn at(home: Option<&str>, seed: u8) -> asl_store::Context {
    asl_store::Context {
        home: home.and_then(asl_store::Home::new),
        ..context(seed)
    }
}

fn sync_at(home: Option<&str>, into: &FaultVfs, from: &FaultVfs) -> SyncReport {
    sync(&arc(into), &arc(from), &at(home, 7), &options_of(1), &()).unwrap()
}

fn fill_at(home: Option<&str>, vfs: &FaultVfs, seed: u8, number: u64) {
    let mut w =
        asl_store::StoreWriter::open(Arc::new(vfs.clone()), at(home, seed), options()).unwrap();
    w.put(frame(&noise(number, 3000))).unwrap();
    w.finish().unwrap();
}

#[test]
fn our_own_instance_is_never_extended() {
    // An old copy of the store comes back, and a newer one is found elsewhere.
    let newer = store(1);
    fill_at(Some("home"), &newer, 2, 1);
    let old = newer.fork();
    fill_at(Some("home"), &newer, 3, 2);
    let before = files_of(&old);
    // Where nobody knows where it is, too.
    for home in [Some("home"), None] {
        let report = sync_at(home, &old, &newer);
        assert!(matches!(report.instances[0].outcome, Outcome::RolledBack));
        assert!(!report.equal);
        assert_eq!(files_of(&old), before);
    }
    // Anywhere else it is a copy like any other.
    let report = sync_at(Some("elsewhere"), &old, &newer);
    assert!(matches!(report.instances[0].outcome, Outcome::Taken) && report.equal);
}

/// A mirror is one for good: written to, it gets an instance of its own, on whatever filesystem it lies.
#[test]
fn a_mirror_that_is_written_to_never_forks() {
    for (home, there) in [
        (Some("home"), Some("home")),
        (Some("home"), Some("stick")),
        (None, None),
        (Some("home"), None),
    ] {
        let original = store(1);
        fill_at(home, &original, 2, 1);
        let mirror = FaultVfs::new();
        assert!(sync_at(there, &mirror, &original).equal);
        let log = |vfs: &FaultVfs| vfs.read_file("log/log-0000000000000000.asl").unwrap();
        let copy = log(&mirror);
        for round in 0..3 {
            fill_at(there, &mirror, 3 + round, 10 + u64::from(round));
            fill_at(home, &original, 13 + round, 20 + u64::from(round));
        }
        assert_eq!(log(&mirror), copy, "the copy is not written to");
        let store = reader(&mirror).unwrap();
        assert_eq!(store.instances().len(), 2, "one is born, and gone on with");
        assert!(matches!(
            outcome(&sync_at(there, &mirror, &original), id_of(&original)),
            Outcome::Taken
        ));
        assert!(sync_at(home, &original, &mirror).equal);
        assert_eq!(checked(&original), checked(&mirror));
        assert_eq!(contents(&reader(&mirror).unwrap()).len(), 7);
        // Each goes on with its own.
        fill_at(there, &mirror, 30, 30);
        fill_at(home, &original, 31, 31);
        assert!(!sync_at(there, &mirror, &original).equal);
        assert!(sync_at(home, &original, &mirror).equal);
        assert_eq!(checked(&original).len(), 2);
    }
}

/// The other store is written to between any two of our reads.
#[test]
fn a_source_that_advances_is_taken_as_it_was_or_later() {
    let quiet = other();
    let trace = {
        let b = quiet.fork();
        b.set_count_reads(true);
        synced(&store(1), &b);
        b.ops()
    };
    let step = if all() { 1 } else { 9 };
    for at in (0..trace).step_by(step) {
        let b = quiet.fork();
        b.set_count_reads(true);
        let (seen, inside) = (AtomicU64::new(0), b.clone());
        b.set_hook(move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) == at {
                inside.set_count_reads(false);
                let mut w = writer(&inside, 33).unwrap();
                for n in 0..12 {
                    w.put(frame(&noise(5000 + n, 40))).unwrap();
                    // Until segments are merged, and those that were named are gone.
                    w.flush().unwrap();
                }
                w.finish().unwrap();
            }
            None
        });
        let a = store(1);
        let report = synced(&a, &b);
        b.clear_faults();
        b.set_count_reads(false);
        let of = &report.instances[0];
        assert!(matches!(of.outcome, Outcome::Taken), "read {at}: {of:?}");
        let shown = checked(&a);
        let whole = checked(&b)[&id_of(&b)].clone();
        assert!(
            shown[&id_of(&b)]
                .iter()
                .all(|(key, bytes)| whole.get(key) == Some(bytes))
        );
        assert!(shown[&id_of(&b)].len() >= checked(&quiet)[&id_of(&b)].len());
        synced(&a, &b);
        assert_eq!(checked(&a)[&id_of(&b)], whole, "read {at}");
    }
}

/// Somebody changes the other store's files between our reads of them.
#[test]
fn a_source_that_changes_is_never_believed() {
    let quiet = other();
    let id = id_of(&quiet);
    let whole = checked(&quiet)[&id].clone();
    let reads = {
        let b = quiet.fork();
        b.set_count_reads(true);
        synced(&store(1), &b);
        b.ops()
    };
    let paths: Vec<_> = quiet
        .files()
        .into_iter()
        .filter(|(path, _)| path != "lock")
        .collect();
    let step = if all() { 3 } else { 29 };
    for at in (0..reads).step_by(step) {
        let (path, len) = paths[(at as usize * 7) % paths.len()].clone();
        let b = quiet.fork();
        b.set_count_reads(true);
        let (seen, inside) = (AtomicU64::new(0), b.clone());
        b.set_hook(move |_| {
            if seen.fetch_add(1, Ordering::Relaxed) == at && len > 0 {
                inside.flip_byte(&path, len * 2 / 3).unwrap();
            }
            None
        });
        let a = store(1);
        let result = try_sync(&a, &b);
        b.clear_faults();
        let shown = checked(&a);
        match result {
            Ok(report) if matches!(report.instances[0].outcome, Outcome::Taken) => {
                assert_eq!(shown[&id], whole, "read {at}");
            }
            _ => assert!(!shown.contains_key(&id), "read {at}"),
        }
        synced(&a, &quiet);
        assert_eq!(checked(&a)[&id], whole, "read {at}");
    }
}

#[test]
fn a_full_destination_is_a_clean_stop() {
    let b = other();
    let id = id_of(&b);
    let bytes = |vfs: &FaultVfs| vfs.files().iter().map(|(_, len)| len).sum::<u64>();
    let base = store(1);
    let (empty, whole) = (bytes(&base), {
        let vfs = base.fork();
        synced(&vfs, &b);
        bytes(&vfs)
    });
    let mut full = 0;
    for room in (0..whole - empty).step_by(if all() { 5_000 } else { 50_000 }) {
        let a = base.fork();
        a.set_capacity(empty + room);
        let result = try_sync(&a, &b);
        let shown = checked(&a);
        match result {
            Err(error) => {
                assert!(error.is_full(), "{error}");
                assert!(!shown.contains_key(&id));
                full += 1;
            }
            Ok(report) => assert!(report.equal || room > 0),
        }
        a.set_capacity(1 << 40);
        let report = synced(&a, &b);
        assert!(matches!(
            report.instances[0].outcome,
            Outcome::Taken | Outcome::Equal
        ));
        assert_eq!(checked(&a)[&id], checked(&b)[&id]);
    }
    assert!(full > 3);
}

/// Stops after so many blocks.
struct StopAfter(AtomicU64);

impl SyncObserver for StopAfter {
    fn progress(&self, progress: &SyncProgress) {
        self.0.store(progress.blocks_done, Ordering::Relaxed);
    }
    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 2
    }
}

#[test]
fn a_stop_keeps_what_came_and_shows_none_of_it() {
    let (a, b) = (store(1), other());
    let stop = StopAfter(AtomicU64::new(0));
    let report = sync(&arc(&a), &arc(&b), &context(7), &options_of(1), &stop).unwrap();
    assert!(report.stopped && !report.equal);
    assert!(matches!(report.instances[0].outcome, Outcome::Stopped));
    assert_eq!(report.instances[0].blocks, 2);
    assert_eq!(checked(&a).len(), 1);
    let all = blocks_of(&b).len() as u64;
    let report = synced(&a, &b);
    assert_eq!(report.instances[0].blocks, all - 2);
    assert_eq!(checked(&a)[&id_of(&b)], checked(&b)[&id_of(&b)]);
}

/// Claims about a block that its digest vouches for, or that the log makes.
#[test]
fn no_forged_claim_comes_over() {
    let honest = store(9);
    fill(&honest, 10, 0..40);
    let id = id_of(&honest);
    type Change = fn(&mut forge::Forge);
    let changes: [(&str, Change); 5] = [
        ("key", |forge| {
            forge.block(0, |block| block.frames[0].0.key = Key::of(b"what comes"))
        }),
        ("raw length", |forge| {
            forge.block(0, |block| block.frames[0].0.raw_len -= 1)
        }),
        ("reserved", |forge| {
            forge.block(0, |block| block.trailer_reserved = 1)
        }),
        ("count", |forge| {
            let at = forge.nth(format::RECORD_SEAL, 0);
            format::seal_payload::ARTIFACT_COUNT.set(&mut forge.records[at].payload, 7u32);
        }),
        ("length", |forge| {
            let at = forge.nth(format::RECORD_SEAL, 0);
            format::seal_payload::FILE_LEN.set(&mut forge.records[at].payload, u64::MAX);
        }),
    ];
    for (what, change) in changes {
        let mut forge = forge::Forge::of(&honest);
        change(&mut forge);
        let there = forge.done();
        let a = store(1);
        let report = synced(&a, &there);
        let of = &report.instances[0];
        assert!(
            matches!(of.outcome, Outcome::Damaged),
            "{what}: {:?}",
            of.outcome
        );
        assert_eq!(of.damaged.len(), 1, "{what}");
        assert!(!checked(&a).contains_key(&id), "{what}");
    }
}

/// A list whose parts are all there and whose key is not that of the whole.
#[test]
fn a_list_that_does_not_name_its_bytes_does_not_come_over() {
    let honest = store(9);
    let mut w = writer(&honest, 10).unwrap();
    let long = noise(2000, 300_000);
    put_reader(
        &mut w,
        &mut &long[..],
        Hint::Stream,
        None,
        Compression::Auto,
    )
    .unwrap();
    w.finish().unwrap();
    let of_list = |vfs: &FaultVfs| {
        let handle = reader(vfs).unwrap();
        let block = handle.locate(&Key::of(&long)).unwrap().block;
        handle.with_state(|state| {
            let mut blocks: Vec<_> = state.blocks.iter().collect();
            blocks.sort_by_key(|(_, info)| info.position);
            blocks.iter().position(|(id, _)| **id == block.0).unwrap()
        })
    };
    let nth = of_list(&honest);
    let mut forge = forge::Forge::of(&honest);
    forge.block(nth, |block| {
        let list = block.frames.iter_mut();
        let (info, _) = list
            .filter(|(info, _)| info.encoding == format::ENCODING_CHUNKED)
            .last()
            .unwrap();
        info.key = Key::of(b"what somebody will put one day");
    });
    let there = forge.done();
    // A crash right after the block got its name must not make anybody forget to look at the list.
    let whole = store(1);
    synced(&whole, &there);
    for at in 0..whole.ops() {
        let a = store(1);
        a.crash_at(at);
        let _ = try_sync(&a, &there);
        let a = a.power_cut(CrashPolicy::KeepAll);
        if reader(&a).is_err() {
            continue;
        }
        let report = synced(&a, &there);
        let of = &report.instances[0];
        assert!(
            matches!(of.outcome, Outcome::Damaged),
            "operation {at}: {of:?}"
        );
        assert!(!checked(&a).contains_key(&id_of(&there)));
    }
    assert!(matches!(
        outcome(&synced(&store(1), &honest), id_of(&honest)),
        Outcome::Taken
    ));
}

#[test]
fn instances_that_are_not_wanted_are_passed_over() {
    let (a, b, c) = (store(1), store(2), other());
    fill(&b, 20, 0..3);
    synced(&c, &b);
    let only = SyncOptions {
        only: Some([id_of(&b)].into()),
        ..options_of(1)
    };
    let report = sync(&arc(&a), &arc(&c), &context(7), &only, &()).unwrap();
    assert!(matches!(outcome(&report, id_of(&c)), Outcome::PassedOver));
    assert!(matches!(outcome(&report, id_of(&b)), Outcome::Taken));
    assert_eq!(checked(&a).len(), 2);
}

#[test]
fn several_threads_bring_the_same() {
    let (a, b) = (store(1), other());
    let report = sync(&arc(&a), &arc(&b), &context(7), &options_of(4), &()).unwrap();
    assert_eq!(report.instances[0].blocks as usize, blocks_of(&b).len());
    assert_eq!(checked(&a)[&id_of(&b)], checked(&b)[&id_of(&b)]);
}
