//! Verify on stores that somebody is writing, or was when the power went.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use asl_store::vfs::fault::{CrashPolicy, FaultVfs, OpKind};
use asl_store::{
    Compression, Encoder, Key, Params, Result, SessionId, StoreWriter, VerifyObserver,
    VerifyOptions, VerifyReport, WriteOptions, create, format, verify,
};
use common::*;

fn verified(vfs: &FaultVfs) -> VerifyReport {
    let options = VerifyOptions {
        threads: 1,
        ..VerifyOptions::default()
    };
    verify(Arc::new(vfs.clone()), &options, &()).unwrap()
}

fn open(vfs: &FaultVfs, seed: u8) -> Result<StoreWriter> {
    let options = WriteOptions {
        log_file_len: 900,
        flush_blocks: 4,
        ballast_bytes: 600,
        ..options()
    };
    StoreWriter::open(Arc::new(vfs.clone()), context(seed), options)
}

/// Everything that a writer does, twice.
fn work(vfs: &FaultVfs) -> Result<()> {
    for seed in 2..4 {
        let mut w = open(vfs, seed)?;
        let base = u64::from(seed) * 1000;
        w.begin_session(SessionId([seed; 16]), b"{}")?;
        for n in 0..3 {
            w.put(frame(&noise(base + n, 200)))?;
            w.note(format::NOTE_MAP, noise(n, 30))?;
            w.sync()?;
        }
        w.commit()?;
        w.put(frame(&noise(base + 10, 17 << 10)))?;
        let parts = [noise(base, 200), noise(base + 1, 200)];
        let list: Vec<_> = parts.iter().map(|part| (Key::of(part), 200)).collect();
        let whole = Key::of(&parts.concat());
        w.put(Encoder::chunked(whole, &list, format::FLAG_ROOT))?;
        let node = asl_store::frame::build_node(3, &[Key::of(&parts[0])], b"");
        let flags = format::FLAG_ROOT | format::FLAG_NODE;
        let key = Key::of(&node);
        w.put(Encoder::new(Compression::None).encode(key, node.into(), flags))?;
        w.end_session(format::SESSION_PAUSED, Some(key), b"{}")?;
        w.tombstone(&[Key::of(&parts[1])])?;
        w.flush()?;
        w.snapshot("")?;
        w.put(frame(&noise(base + 20, 100)))?;
        w.commit()?;
        w.put(frame(&noise(base + 21, 100)))?;
        w.sync()?;
        if seed == 2 {
            // Dies with an open block.
            std::mem::forget(w);
            vfs.release_locks();
        } else {
            w.finish()?;
        }
    }
    Ok(())
}

/// Covers B10: whenever the process dies or the power goes, nothing is damaged: neither
/// before recovery nor after it.
#[test]
fn what_a_crash_leaves_is_not_damage() {
    let all = std::env::var_os("ASL_TEST_ALL").is_some();
    let whole = fresh();
    let first = whole.ops();
    work(&whole).unwrap();
    assert_eq!(verified(&whole).damage, []);
    let stride = if all { 1 } else { 3 };
    let mut cuts = 0;
    for n in (0..whole.ops() - first).step_by(stride) {
        let vfs = fresh();
        vfs.crash_at(vfs.ops() + n);
        let _ = work(&vfs);
        assert!(vfs.crashed());
        let seed = n;
        for policy in [
            CrashPolicy::KeepAll,
            CrashPolicy::LoseUnsynced,
            CrashPolicy::Torn { seed },
            CrashPolicy::Reorder { seed },
        ] {
            let left = vfs.power_cut(policy);
            let before = verified(&left);
            assert_eq!(
                before.damage,
                [],
                "operation {n}, {policy:?}, not recovered"
            );
            open(&left, 9).unwrap().finish().unwrap();
            let after = verified(&left);
            assert_eq!(after.damage, [], "operation {n}, {policy:?}, recovered");
            cuts += 1;
        }
    }
    assert!(cuts > 200, "{cuts}");
}

/// A segment that a writer merges away under verify's hands is no damage; one that
/// is just gone is.
#[test]
fn segments_may_be_retired_meanwhile() {
    let vfs = FaultVfs::new();
    let params = Params {
        shards: 1,
        ..small_params()
    };
    create(&vfs, &params, &context(1), &options()).unwrap();
    let mut w = writer(&vfs, 2).unwrap();
    for n in 0..7 {
        w.put(frame(&noise(n, 100))).unwrap();
        w.commit().unwrap();
        w.flush().unwrap();
    }
    w.put(frame(&noise(7, 100))).unwrap();
    w.commit().unwrap();
    let gone = vfs.fork();
    let w = Mutex::new(w);
    let armed = AtomicBool::new(true);
    vfs.set_count_reads(true);
    vfs.set_hook(move |op| {
        let meets = op.kind == OpKind::Open && op.path.ends_with("segment-0003.idx");
        if meets && armed.swap(false, Ordering::Relaxed) {
            w.lock().unwrap().flush().unwrap();
        }
        None
    });
    let report = verified(&vfs);
    vfs.clear_faults();
    assert_eq!(report.damage, []);
    let segments = |vfs: &FaultVfs| {
        let files = vfs.files().into_iter();
        files.filter(|(path, _)| path.ends_with(".idx")).count()
    };
    assert_eq!((segments(&gone), segments(&vfs)), (7, 1));
    assert_eq!(verified(&vfs).damage, []);
    gone.remove_file("index/shard-000/segment-0003.idx")
        .unwrap();
    let report = verified(&gone);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].what, "the file is missing");
}

/// A medium that does not give some of its bytes: told of, and the rest is looked at.
#[test]
fn bytes_that_cannot_be_read_are_damage() {
    let vfs = fresh();
    work(&vfs).unwrap();
    let files = vfs.files();
    let is = |path: &str, what: &str| path.contains(what);
    for (path, len) in files {
        if is(&path, "lock") || is(&path, "ballast") {
            continue;
        }
        // Only the second half, so that headers can be read.
        let (bad, half) = (path.clone(), len / 2);
        vfs.set_count_reads(true);
        vfs.set_hook(move |op| {
            let hit = op.kind == OpKind::Read && op.path == bad;
            (hit && op.offset + op.len > half && op.offset < half + 40).then_some(5)
        });
        let report = verified(&vfs);
        vfs.clear_faults();
        vfs.set_count_reads(false);
        let told = report.damage.iter().find(|damage| damage.file == path);
        let told = told.unwrap_or_else(|| panic!("{path}: {:?}", report.damage));
        assert!(told.what.contains("cannot be read"), "{path}: {told:?}");
        if is(&path, ".blk") {
            assert!(report.counts.frames > 10);
        }
    }
    assert_eq!(verified(&vfs).damage, []);
}

/// Progress never exceeds the total and ends at it.
#[test]
fn progress_ends_at_the_total() {
    #[derive(Default)]
    struct Watch(Mutex<Vec<(u64, u64)>>, Mutex<usize>);
    impl VerifyObserver for Watch {
        fn progress(&self, done_bytes: u64, total_bytes: u64) {
            self.0.lock().unwrap().push((done_bytes, total_bytes));
        }
        fn damaged(&self, _: &asl_store::Damage) {
            *self.1.lock().unwrap() += 1;
        }
    }
    let vfs = fresh();
    work(&vfs).unwrap();
    let (path, _) = vfs
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with(".blk"))
        .unwrap();
    for damaged in [false, true] {
        if damaged {
            vfs.flip_byte(&path, 300).unwrap();
        }
        for quick in [false, true] {
            let watch = Watch::default();
            let options = VerifyOptions {
                quick,
                threads: 1,
                ..VerifyOptions::default()
            };
            let report = verify(Arc::new(vfs.clone()), &options, &watch).unwrap();
            let seen = watch.0.lock().unwrap();
            let (done, total) = *seen.last().unwrap();
            assert_eq!((done, total), (report.counts.bytes, report.counts.bytes));
            assert!(seen.iter().all(|(done, total)| done <= total));
            assert_eq!(*watch.1.lock().unwrap(), report.damage.len());
            assert_eq!(report.ok(), !damaged || quick);
        }
    }
}
