//! Files of ours that rotted, healed from another store: by a whole file that takes their place, or not at all.
//!
//! `ASL_TEST_ALL=1` tries every operation and more bytes.

mod common;
mod forge;
mod pair;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use asl_store::format::{block_header as bh, block_trailer as bt, frame_header as fh};
use asl_store::instances::instance_dir;
use asl_store::sync::{Outcome, Side, SyncObserver, SyncOptions, SyncProgress, SyncReport, sync};
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs, OpKind};
use asl_store::{Compression, Error, Hint, Result, block, format, put_reader};
use common::*;
use pair::*;

const EIO: i32 = 5;

fn verifying(threads: usize) -> SyncOptions {
    SyncOptions {
        verify: true,
        ..options_of(threads)
    }
}

fn try_heal(into: &FaultVfs, from: &FaultVfs) -> Result<SyncReport> {
    sync(&arc(into), &arc(from), &context(7), &verifying(1), &())
}

fn healed(into: &FaultVfs, from: &FaultVfs) -> SyncReport {
    try_heal(into, from).unwrap()
}

/// A copy of `b` at the top of a directory, and one below another store; with what leads to its files.
fn copies_of(b: &FaultVfs) -> [(FaultVfs, String); 2] {
    let (mirror, beside) = (FaultVfs::new(), store(1));
    fill(&beside, 2, 5000..5003);
    synced(&mirror, b);
    synced(&beside, b);
    let dir = instance_dir(&id_of(b));
    [(mirror, String::new()), (beside, format!("{dir}/"))]
}

/// The sealed blocks of a store, as their logs name them.
fn paths_of(vfs: &FaultVfs) -> Vec<String> {
    blocks_of(vfs).iter().map(block::sealed_path).collect()
}

fn with_ext(vfs: &FaultVfs, ext: &str) -> Vec<String> {
    let paths = vfs.files().into_iter().map(|(path, _)| path);
    paths
        .filter(|path| path.ends_with(ext) && !path.contains("instances/"))
        .collect()
}

/// What may become of a file that nobody touches.
fn rots(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let flipped = |at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    let trailer = bytes.len() - bt::LEN;
    let toc = bt::TOC_OFFSET.get(&bytes[trailer..]) as usize;
    let mut page = bytes.to_vec();
    let from = bytes.len() / 3;
    page[from..(from + 4096).min(bytes.len())].fill(0);
    vec![
        ("block header", flipped(bh::LEN / 2)),
        ("frame header", flipped(bh::LEN + 2)),
        ("first frame", flipped(bh::LEN + fh::LEN + 1)),
        ("last bytes of data", flipped(toc - 1)),
        ("contents", flipped(toc + 5)),
        ("trailer", flipped(trailer + 1)),
        ("end", flipped(bytes.len() - 1)),
        ("a zeroed page", page),
        ("all zeros", vec![0; bytes.len()]),
        ("cut", bytes[..bytes.len() / 2].to_vec()),
        ("empty", Vec::new()),
    ]
}

/// Every way for every block to rot, at the top and below `instances`.
#[test]
fn every_rotted_block_is_whole_again() {
    let b = other();
    let id = id_of(&b);
    for (copy, prefix) in copies_of(&b) {
        let expected = checked(&copy);
        for (nth, name) in paths_of(&b).into_iter().enumerate() {
            let whole = b.read_file(&name).unwrap();
            let path = format!("{prefix}{name}");
            for (kind, (what, rotted)) in rots(&whole).into_iter().enumerate() {
                if !all() && (nth + kind) % 3 != 0 {
                    continue;
                }
                let a = copy.fork();
                a.write_file(&path, &rotted).unwrap();
                let same_len = rotted.len() == whole.len();
                if same_len {
                    let of = synced(&a, &b).instances.remove(0);
                    assert_eq!((of.healed, of.verified), (0, 0), "only its length counts");
                }
                let report = healed(&a, &b);
                let of = &report.instances[0];
                assert!(
                    matches!(of.outcome, Outcome::Equal),
                    "{what} of {path}: {of:?}"
                );
                assert_eq!((of.healed, of.blocks), (1, 1), "{what} of {path}");
                assert_eq!(of.healed_files.len(), 1, "{what} of {path}");
                assert_eq!(of.healed_files[0].path, name);
                assert_eq!(of.bytes, whole.len() as u64);
                let read = paths_of(&b).len() as u64 - u64::from(!same_len);
                assert_eq!(of.verified, read, "{what} of {path}");
                assert!(of.damaged.is_empty());
                assert_eq!(a.read_file(&path).unwrap(), whole, "{what} of {path}");
                assert_eq!(checked(&a), expected, "{what} of {path}");
                assert_eq!(
                    a.files(),
                    copy.files(),
                    "{what} of {path}: nothing else changed"
                );
            }
        }
        // Nothing to heal, nothing written.
        let a = copy.fork();
        let before = a.trace().len();
        let of = healed(&a, &b).instances.remove(0);
        assert_eq!((of.healed, of.bytes), (0, 0));
        assert_eq!(of.verified as usize, paths_of(&b).len());
        let wrote = |op: &asl_store::vfs::fault::Op| op.path != "lock";
        assert_eq!(a.trace()[before..].iter().filter(|op| wrote(op)).count(), 0);
        assert_eq!(of.store, id);
    }
}

/// A medium that gives errors where the file lies, at its beginning, within, or for the name itself.
#[test]
fn a_block_that_cannot_be_read_is_brought_again() {
    let b = other();
    for (copy, prefix) in copies_of(&b) {
        let expected = checked(&copy);
        for (kind, from) in [
            (OpKind::Open, 0),
            (OpKind::Read, 0),
            (OpKind::Read, bh::LEN as u64),
        ] {
            let a = copy.fork();
            let path = format!("{prefix}{}", paths_of(&b)[2]);
            let bad = path.clone();
            a.set_count_reads(true);
            a.set_hook(move |op| {
                (op.kind == kind && op.path == bad && op.offset >= from).then_some(EIO)
            });
            let report = healed(&a, &b);
            a.clear_faults();
            a.set_count_reads(false);
            let of = &report.instances[0];
            assert!(matches!(of.outcome, Outcome::Equal), "{of:?}");
            assert_eq!((of.healed, of.damaged.len()), (1, 0));
            let renamed = |op: &asl_store::vfs::fault::Op| {
                op.kind == OpKind::Rename && op.to.as_deref() == Some(&path)
            };
            assert_eq!(a.trace().iter().filter(|op| renamed(op)).count(), 1);
            assert_eq!(checked(&a), expected);
        }
    }
}

/// Index segments and state files: what the log pins.
#[test]
fn rotted_segments_and_states_are_whole_again() {
    let b = other();
    for (copy, prefix) in copies_of(&b) {
        let expected = checked(&copy);
        for ext in [".idx", "state.bin"] {
            let named = with_ext(&b, ext);
            assert!(!named.is_empty(), "{ext}");
            for name in named {
                let whole = b.read_file(&name).unwrap();
                let path = format!("{prefix}{name}");
                for at in [0, whole.len() / 2, whole.len() - 1] {
                    let a = copy.fork();
                    a.flip_byte(&path, at as u64).unwrap();
                    let report = healed(&a, &b);
                    let of = &report.instances[0];
                    assert!(matches!(of.outcome, Outcome::Equal), "{path}: {of:?}");
                    let files: Vec<_> = of.healed_files.iter().map(|file| &*file.path).collect();
                    assert_eq!((files, of.healed), (vec![&*name], 0), "{path} at {at}");
                    assert_eq!(a.read_file(&path).unwrap(), whole, "{path} at {at}");
                    assert_eq!(checked(&a), expected, "{path} at {at}");
                }
            }
        }
    }
}

/// Ours has more records than theirs, or fewer, and is whole again all the same.
#[test]
fn stores_that_are_ahead_or_behind_are_healed() {
    let original = other();
    let mirror = FaultVfs::new();
    synced(&mirror, &original);
    for (round, numbers) in [(0, 3000..3030), (1, 3030..3060)] {
        fill(&original, 40 + round, numbers);
    }
    let common = paths_of(&mirror);
    // Segments that were not merged since.
    let segments: Vec<_> = with_ext(&mirror, ".idx");
    let ours = with_ext(&original, ".idx");
    for (into, from, ahead) in [(&original, &mirror, true), (&mirror, &original, false)] {
        let expected = checked(&original);
        for name in common.iter().step_by(if all() { 1 } else { 3 }) {
            let a = into.fork();
            a.flip_byte(name, bh::LEN as u64 + 40).unwrap();
            let of = healed(&a, from).instances.remove(0);
            match ahead {
                true => assert!(matches!(of.outcome, Outcome::Ahead), "{of:?}"),
                false => assert!(matches!(of.outcome, Outcome::Taken), "{of:?}"),
            }
            assert_eq!((of.healed, of.damaged.len()), (1, 0), "{name}");
            assert_eq!(checked(&a), expected, "{name}");
        }
        for name in segments.iter().filter(|name| ours.contains(name)) {
            let a = into.fork();
            a.flip_byte(name, 5000).unwrap();
            let of = healed(&a, from).instances.remove(0);
            assert_eq!(of.healed_files.len(), 1, "{name}");
            assert_eq!(checked(&a), expected, "{name}");
        }
    }
    // What only ours has is not theirs to heal, and is not touched.
    let a = original.fork();
    let last = paths_of(&a).pop().unwrap();
    assert!(!common.contains(&last));
    a.flip_byte(&last, bh::LEN as u64 + 40).unwrap();
    let before = a.read_file(&last).unwrap();
    let of = healed(&a, &mirror).instances.remove(0);
    assert_eq!((of.healed, of.verified as usize), (0, common.len()));
    assert_eq!(a.read_file(&last).unwrap(), before);
}

/// Frames that can still be read are worth more than nothing: where theirs is damaged as well, ours stays.
#[test]
fn what_is_damaged_on_both_sides_is_told_and_kept() {
    let b = other();
    let name = paths_of(&b)[1].clone();
    let segment = with_ext(&b, ".idx")[0].clone();
    for (copy, prefix) in copies_of(&b) {
        let (path, index) = (format!("{prefix}{name}"), format!("{prefix}{segment}"));
        let expected = checked(&copy);
        let there = b.fork();
        let len = there.read_file(&name).unwrap().len() as u64;
        for (what, ours, theirs) in [
            ("data", Some(bh::LEN as u64 + 50), Some(len / 2)),
            ("missing there", Some(3), None),
            ("missing here", None, Some(len - 3)),
        ] {
            let (a, there) = (copy.fork(), there.fork());
            for (vfs, path, at) in [(&a, &path, ours), (&there, &name, theirs)] {
                match at {
                    Some(at) => vfs.flip_byte(path, at).unwrap(),
                    None => vfs.remove_file(path).unwrap(),
                }
            }
            a.flip_byte(&index, 100).unwrap();
            there.flip_byte(&segment, 200).unwrap();
            let (before, bytes) = (files_of(&a), a.read_file(&path).ok());
            let report = healed(&a, &there);
            let of = &report.instances[0];
            assert!(matches!(of.outcome, Outcome::Equal), "{what}: {of:?}");
            assert_eq!(
                (of.healed, of.blocks, of.damaged.len()),
                (0, 0, 2),
                "{what}"
            );
            for damaged in &of.damaged {
                assert!([&name, &segment].contains(&&damaged.path), "{what}");
                assert!(damaged.here.is_some(), "{what}");
            }
            assert_eq!((files_of(&a), a.read_file(&path).ok()), (before, bytes));
            // What is new there comes: our log gets none the worse for it.
            fill(&there, 50, 4000..4004);
            let of = healed(&a, &there).instances.remove(0);
            assert!(matches!(of.outcome, Outcome::Taken), "{what}: {of:?}");
            assert_eq!((of.after, of.damaged.len()), (of.theirs, 2), "{what}");
            // A third copy has it.
            let of = healed(&a, &b).instances.remove(0);
            assert!(matches!(of.outcome, Outcome::Ahead), "{what}: {of:?}");
            let of_block = u64::from(ours.is_some());
            assert_eq!((of.healed, of.damaged.len()), (1, 0), "{what}");
            assert_eq!(
                of.verified as usize,
                paths_of(&b).len() - 1 + of_block as usize
            );
            let shown = checked(&a);
            assert!(shown.iter().all(|(id, of)| {
                expected[id]
                    .iter()
                    .all(|(key, bytes)| of.get(key) == Some(bytes))
            }));
        }
    }
}

/// A state file is told of, too, where neither store has it whole, and only where all was to be read.
#[test]
fn a_state_that_is_damaged_on_both_sides_is_told() {
    let b = other();
    let name = with_ext(&b, "state.bin")[0].clone();
    for (copy, prefix) in copies_of(&b) {
        let (a, there) = (copy.fork(), b.fork());
        a.flip_byte(&format!("{prefix}{name}"), 30).unwrap();
        there.flip_byte(&name, 40).unwrap();
        assert!(synced(&a, &there).instances[0].damaged.is_empty());
        let before = files_of(&a);
        let of = healed(&a, &there).instances.remove(0);
        assert!(matches!(of.outcome, Outcome::Equal), "{of:?}");
        assert_eq!(of.damaged.len(), 1);
        assert_eq!(
            (&of.damaged[0].path, of.damaged[0].side),
            (&name, Side::There)
        );
        assert!(of.damaged[0].here.is_some());
        assert_eq!(files_of(&a), before);
        assert_eq!(healed(&a, &b).instances[0].healed_files.len(), 1);
    }
}

/// Something that is in the way of one whole file, such as a damaged directory, does not keep the others from being healed.
#[test]
fn one_name_that_cannot_be_taken_keeps_no_other_file_rotted() {
    let b = other();
    for (copy, prefix) in copies_of(&b) {
        let expected = checked(&copy);
        let a = copy.fork();
        let mut names = paths_of(&b);
        names.extend(with_ext(&b, ".idx"));
        for name in &names {
            a.flip_byte(&format!("{prefix}{name}"), 300).unwrap();
        }
        for name in [&names[0], &names[names.len() - 1]] {
            let a = a.fork();
            let path = format!("{prefix}{name}");
            let rotted = a.read_file(&path).unwrap();
            let bad = path.clone();
            a.set_hook(move |op| {
                let named = op.kind == OpKind::Rename && op.to.as_deref() == Some(&bad);
                named.then_some(EIO)
            });
            let of = healed(&a, &b).instances.remove(0);
            a.clear_faults();
            assert!(matches!(of.outcome, Outcome::Equal), "{of:?}");
            assert_eq!(of.healed_files.len(), names.len() - 1, "{path}");
            assert_eq!(of.damaged.len(), 1, "{path}");
            assert_eq!(
                (&of.damaged[0].path, of.damaged[0].side),
                (name, Side::Here)
            );
            assert!(of.damaged[0].here.is_some());
            assert_eq!(a.read_file(&path).unwrap(), rotted, "{path}");
            assert!(with_ext(&a, ".new").is_empty());
            assert_eq!(healed(&a, &b).instances[0].healed_files.len(), 1);
            assert_eq!(checked(&a), expected, "{path}");
        }
    }
}

/// Different blocks rotted in two copies: each heals the other.
#[test]
fn two_copies_heal_each_other() {
    let (a, b) = (FaultVfs::new(), other());
    synced(&a, &b);
    let expected = checked(&b);
    let paths = paths_of(&b);
    for (nth, path) in paths.iter().enumerate() {
        let vfs = [&a, &b][nth % 2];
        vfs.flip_byte(path, bh::LEN as u64 + 70).unwrap();
    }
    let there = healed(&a, &b).instances.remove(0);
    let back = healed(&b, &a).instances.remove(0);
    assert_eq!((there.healed + back.healed) as usize, paths.len());
    assert!(there.damaged.is_empty() && back.damaged.is_empty());
    assert_eq!((checked(&a), checked(&b)), (expected.clone(), expected));
}

/// Rot in two blocks and a segment, wherever the healing is cut off or fails: of each file there is always the rotted one, or
/// the whole one. Covers L7: `tmp/ingest` is where it may break.
#[test]
fn a_crash_or_an_error_leaves_the_rotted_file_or_the_whole_one() {
    let b = other();
    for (copy, prefix) in copies_of(&b) {
        let expected = checked(&copy);
        let start = copy.fork();
        let names = [
            paths_of(&b)[0].clone(),
            paths_of(&b)[4].clone(),
            with_ext(&b, ".idx")[0].clone(),
        ];
        let mut files = Vec::new();
        for name in names {
            let path = format!("{prefix}{name}");
            let whole = start.read_file(&path).unwrap();
            start.flip_byte(&path, whole.len() as u64 / 2).unwrap();
            files.push((path.clone(), start.read_file(&path).unwrap(), whole));
        }
        let either = |vfs: &FaultVfs, at: u64| {
            for (path, rotted, whole) in &files {
                let found = vfs.read_file(path).unwrap();
                assert!(
                    found == *rotted || found == *whole,
                    "operation {at}: {path}"
                );
            }
        };
        let done = start.fork();
        let of = healed(&done, &b).instances.remove(0);
        assert_eq!(of.healed_files.len(), 3);
        let ops = done.ops();
        assert!(ops > 12, "{ops}");
        for at in 0..ops {
            let crashed = start.fork();
            crashed.set_seed(at);
            crashed.crash_at(at);
            try_heal(&crashed, &b).expect_err("it crashed");
            for policy in [
                CrashPolicy::KeepAll,
                CrashPolicy::LoseUnsynced,
                CrashPolicy::Torn { seed: at },
            ] {
                let vfs = crashed.power_cut(policy);
                either(&vfs, at);
                healed(&vfs, &b);
                assert_eq!(checked(&vfs), expected, "operation {at}");
                let half = with_ext(&vfs, ".new");
                assert!(half.is_empty(), "operation {at}: {half:?}");
            }
            for (errno, mode) in [(EIO, FailMode::Once), (28, FailMode::Sticky)] {
                let vfs = start.fork();
                vfs.set_seed(at);
                vfs.fail_op(at, errno, mode);
                let failed = try_heal(&vfs, &b);
                assert!(failed.is_err() || mode == FailMode::Once, "operation {at}");
                either(&vfs, at);
                vfs.clear_faults();
                vfs.release_locks();
                healed(&vfs, &b);
                assert_eq!(checked(&vfs), expected, "operation {at}, errno {errno}");
            }
        }
        // Any single look at our own files that fails costs at most a file that comes once more.
        let looks = {
            let vfs = start.fork();
            vfs.set_count_reads(true);
            healed(&vfs, &b);
            vfs.ops()
        };
        for at in (0..looks).step_by(if all() { 1 } else { 11 }) {
            let vfs = start.fork();
            vfs.set_count_reads(true);
            vfs.fail_op(at, EIO, FailMode::Once);
            let _ = try_heal(&vfs, &b);
            vfs.clear_faults();
            vfs.set_count_reads(false);
            vfs.release_locks();
            either(&vfs, at);
            healed(&vfs, &b);
            assert_eq!(checked(&vfs), expected, "look {at}");
        }
    }
}

/// A medium that does not keep what it is given: the rotted file stays, and the other store is not blamed.
#[test]
fn a_whole_copy_that_rots_on_the_way_replaces_nothing() {
    let b = other();
    let name = paths_of(&b)[0].clone();
    let (copy, prefix) = copies_of(&b).into_iter().next_back().unwrap();
    let path = format!("{prefix}{name}");
    let a = copy.fork();
    a.flip_byte(&path, 600).unwrap();
    let before = a.read_file(&path).unwrap();
    let (inside, flipped) = (a.clone(), AtomicBool::new(false));
    a.set_hook(move |op| {
        let written = op.kind == OpKind::Sync && op.path.contains("tmp/ingest");
        if written && !flipped.swap(true, Ordering::Relaxed) {
            inside.flip_byte(&op.path, 700).unwrap();
        }
        None
    });
    let error = try_heal(&a, &b).expect_err("it was not kept");
    a.clear_faults();
    assert!(
        matches!(&error, Error::Io { path, .. } if path.contains("tmp/ingest")),
        "{error}"
    );
    assert_eq!(a.read_file(&path).unwrap(), before);
    assert_eq!(healed(&a, &b).instances[0].healed, 1);
    checked(&a);
}

#[test]
fn a_dry_run_says_what_would_be_healed_and_writes_nothing() {
    let b = other();
    for (copy, prefix) in copies_of(&b) {
        let a = copy.fork();
        let names = paths_of(&b);
        let segment = &with_ext(&b, ".idx")[0];
        a.flip_byte(&format!("{prefix}{}", names[0]), 500).unwrap();
        a.flip_byte(&format!("{prefix}{}", names[3]), 500).unwrap();
        a.flip_byte(&format!("{prefix}{segment}"), 500).unwrap();
        let there = b.fork();
        there.flip_byte(&names[3], 700).unwrap();
        let (files, ops) = (a.files(), a.ops());
        let dry = SyncOptions {
            dry_run: true,
            ..verifying(1)
        };
        let planned = sync(&arc(&a), &arc(&there), &context(7), &dry, &()).unwrap();
        assert_eq!((a.files(), a.ops()), (files, ops));
        let done = healed(&a, &there);
        let (planned, done) = (&planned.instances[0], &done.instances[0]);
        assert_eq!(planned.healed, 1);
        for of in [planned, done] {
            let mut files: Vec<_> = of.healed_files.iter().map(|file| &file.path).collect();
            files.sort();
            assert_eq!(files, [&names[0], segment]);
            assert_eq!(of.damaged.len(), 1);
            assert_eq!(of.damaged[0].path, names[3]);
            assert!(of.damaged[0].here.is_some());
            assert_eq!(of.verified as usize, names.len());
        }
        assert_eq!(
            (planned.healed, planned.blocks, planned.bytes),
            (done.healed, done.blocks, done.bytes)
        );
    }
}

/// Stops once so many bytes were read, and remembers what it was told.
struct Watch {
    most: u64,
    last: Mutex<SyncProgress>,
    told: AtomicU64,
}

impl Watch {
    fn up_to(most: u64) -> Self {
        Self {
            most,
            last: Mutex::default(),
            told: AtomicU64::new(0),
        }
    }
}

impl SyncObserver for Watch {
    fn progress(&self, progress: &SyncProgress) {
        let mut last = self.last.lock().unwrap();
        assert!(last.verified_bytes <= progress.verified_bytes);
        assert!(last.bytes_done <= progress.bytes_done);
        assert!(progress.verified_bytes <= progress.verify_bytes);
        assert!(progress.bytes_done <= progress.bytes);
        *last = *progress;
        self.told.fetch_add(1, Ordering::Relaxed);
    }
    fn is_stopped(&self) -> bool {
        self.last.lock().unwrap().verified_bytes >= self.most
    }
}

#[test]
fn a_stop_keeps_what_was_healed_and_the_next_sync_goes_on() {
    let (a, b) = (FaultVfs::new(), other());
    synced(&a, &b);
    let names = paths_of(&b);
    let (first, last) = (&names[0], &names[names.len() - 1]);
    for name in [first, last] {
        a.flip_byte(name, 500).unwrap();
    }
    let expected = checked(&b);
    let len = |name: &String| b.read_file(name).unwrap().len() as u64;
    let stop = Watch::up_to(len(first) + 1);
    for dry_run in [true, false] {
        let options = SyncOptions {
            dry_run,
            ..verifying(1)
        };
        let stop = match dry_run {
            true => &Watch::up_to(len(first) + 1),
            false => &stop,
        };
        let report = sync(&arc(&a), &arc(&b), &context(7), &options, stop).unwrap();
        assert!(report.stopped);
        let of = &report.instances[0];
        assert_eq!((of.healed, of.verified), (1, 2));
    }
    assert_eq!(a.read_file(first).unwrap(), b.read_file(first).unwrap());
    assert_ne!(a.read_file(last).unwrap(), b.read_file(last).unwrap());
    // To the end: everything is read, and what was brought is counted.
    let watch = Watch::up_to(u64::MAX);
    let report = sync(&arc(&a), &arc(&b), &context(7), &verifying(4), &watch).unwrap();
    assert!(!report.stopped);
    let progress = *watch.last.lock().unwrap();
    let all: u64 = names.iter().map(len).sum();
    assert_eq!((progress.verify_bytes, progress.verified_bytes), (all, all));
    assert_eq!((progress.blocks, progress.blocks_done), (1, 1));
    assert_eq!(
        (progress.bytes, progress.bytes_done),
        (len(last), len(last))
    );
    assert!(watch.told.into_inner() > names.len() as u64);
    assert_eq!(report.instances[0].verified_bytes, all);
    assert_eq!(checked(&a), expected);
}

#[test]
fn several_threads_heal_the_same() {
    let b = other();
    let (copy, prefix) = copies_of(&b).into_iter().next_back().unwrap();
    let a = copy.fork();
    for name in paths_of(&b) {
        a.flip_byte(&format!("{prefix}{name}"), 500).unwrap();
    }
    let report = sync(&arc(&a), &arc(&b), &context(7), &verifying(4), &()).unwrap();
    assert_eq!(report.instances[0].healed as usize, paths_of(&b).len());
    assert_eq!(checked(&a), checked(&copy));
}

/// The seal's rename did not survive a power cut, and then the file rotted where it lies: the next writer moves it, and must
/// not put the rotted one over a whole one.
#[test]
fn a_rotted_block_that_lies_under_open_is_healed_there() {
    let b = other();
    let id = id_of(&b);
    let (block_id, digest) = reader(&b).unwrap().with_state(|state| {
        let mut blocks: Vec<_> = state.blocks.iter().collect();
        blocks.sort_by_key(|(_, info)| info.position);
        (*blocks[2].0, blocks[2].1.digest)
    });
    let sealed = block::sealed_path(&asl_store::id::Digest(digest));
    let open = block::open_path(asl_store::BlockId(block_id));
    let whole = b.read_file(&sealed).unwrap();
    let mirror = FaultVfs::new();
    synced(&mirror, &b);
    let a = b.fork();
    a.remove_file(&sealed).unwrap();
    a.write_file(&open, &whole).unwrap();
    assert_eq!(healed(&a, &mirror).instances[0].healed, 0, "it is whole");
    a.flip_byte(&open, 500).unwrap();
    let start = a.fork();
    let ops = {
        let of = healed(&a, &mirror).instances.remove(0);
        assert_eq!(of.healed, 1);
        a.ops()
    };
    for at in 0..=ops {
        let vfs = start.fork();
        vfs.crash_at(at);
        let _ = try_heal(&vfs, &mirror);
        let vfs = vfs.power_cut(CrashPolicy::LoseUnsynced);
        healed(&vfs, &mirror);
        fill(&vfs, 60, 4000..4001);
        assert_eq!(vfs.read_file(&sealed).unwrap(), whole, "operation {at}");
        assert_eq!(checked(&vfs)[&id].len(), checked(&b)[&id].len() + 1);
    }
}

/// What an interrupted sync brought is named by no log of ours yet, and may rot before it is.
#[test]
fn what_an_interrupted_sync_brought_is_read_again() {
    let b = other();
    let whole = store(1);
    synced(&whole, &b);
    let dir = instance_dir(&id_of(&b));
    let a = store(1);
    let log = format!("{dir}/log/");
    a.set_hook(move |op| {
        let to = op.to.as_deref().unwrap_or_default();
        (op.kind == OpKind::Rename && to.starts_with(&log)).then_some(EIO)
    });
    try_sync(&a, &b).expect_err("its log did not come");
    a.clear_faults();
    a.release_locks();
    let names = paths_of(&b);
    for name in &names {
        a.flip_byte(&format!("{dir}/{name}"), 500).unwrap();
    }
    let of = healed(&a, &b).instances.remove(0);
    assert!(matches!(of.outcome, Outcome::Taken), "{of:?}");
    assert_eq!((of.blocks as usize, of.healed), (names.len(), 0));
    assert_eq!(checked(&a), checked(&whole));
}

/// A log that names a block of ours once more cannot have it removed, although its list looks wrong while a part of it is rotted here.
#[test]
fn a_block_that_is_named_twice_is_not_removed() {
    let there = store(9);
    let mut w = writer(&there, 10).unwrap();
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
    let (a, id) = (store(1), id_of(&there));
    synced(&a, &there);
    let files = paths_of(&there);
    let place = |path: &str| format!("{}/{path}", instance_dir(&id));

    let mut forge = forge::Forge::of(&there);
    let newest = forge.nth(format::RECORD_SEAL, files.len() - 1);
    let mut again = forge.records[newest].clone();
    let payload = &mut again.payload;
    let number = format::seal_payload::BLOCK_ID.get(payload) + 1;
    format::seal_payload::BLOCK_ID.set(payload, number);
    again.flags = 0;
    forge.records.push(again);
    let forged = forge.done();

    for rotted in &files {
        let a = a.fork();
        let mut bytes = a.read_file(&place(rotted)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        a.write_file(&place(rotted), &bytes).unwrap();
        let _ = try_sync(&a, &forged);
        for file in &files {
            assert!(a.read_file(&place(file)).is_ok(), "{rotted}: {file}");
        }
    }
}
