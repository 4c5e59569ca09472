//! A store from its creation to its snapshots, on a file system without faults.

mod common;

use asl_store::{Encoder, Error, Key, LogPosition, Put, format};
use common::*;

/// Covers C1, C3, B1, S2.
#[test]
fn artifacts_are_visible_after_a_commit_and_equal() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let artifacts: Vec<_> = (0..50).map(|n| noise(n, 100 + 37 * n as usize)).collect();
    for bytes in &artifacts {
        assert!(matches!(w.put(frame(bytes)).unwrap(), Put::Stored(_)));
        assert_eq!(w.put(frame(bytes)).unwrap(), Put::Duplicate);
    }
    let before = reader(&vfs).unwrap();
    assert!(
        before.lookup(&Key::of(&artifacts[0])).unwrap().is_none(),
        "nothing is visible before its record"
    );
    w.commit().unwrap();
    for handle in [reader(&vfs).unwrap(), w.handle().clone()] {
        for bytes in &artifacts {
            assert_eq!(&handle.get(&Key::of(bytes)).unwrap(), bytes);
            let location = handle.locate(&Key::of(bytes)).unwrap();
            assert_eq!(&handle.read(&location).unwrap(), bytes);
        }
    }
    assert!(
        matches!(before.get(&Key::of(&artifacts[0])), Err(Error::NotFound(_))),
        "a handle is a fixed view"
    );
    w.finish().unwrap();
}

/// Covers B1, S3: a large artifact is alone in its block.
#[test]
fn large_artifacts_are_alone() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let large = noise(1, 20 << 10);
    let small = noise(2, 1 << 10);
    w.put(frame(&small)).unwrap();
    w.put(frame(&large)).unwrap();
    w.put(frame(&noise(3, 100))).unwrap();
    w.commit().unwrap();
    let handle = w.handle().clone();
    let (of_large, of_small) = (
        handle.locate(&Key::of(&large)).unwrap(),
        handle.locate(&Key::of(&small)).unwrap(),
    );
    assert_ne!(of_large.block, of_small.block);
    let count = handle.with_state(|state| state.block(of_large.block).unwrap().artifact_count);
    assert_eq!(count, 1);
    assert_eq!(handle.get(&Key::of(&large)).unwrap(), large);
}

/// Covers I1, I2, I3, I4, I5.
#[test]
fn snapshots_with_a_log_prefix_reproduce_what_was_visible() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let key = |n| Key::of(&noise(n, 500));
    let mut history: Vec<(u64, Vec<Key>)> = Vec::new();
    let mut visible = std::collections::BTreeSet::new();
    let mut ids = Vec::new();
    for n in 0..60 {
        w.put(frame(&noise(n, 500))).unwrap();
        visible.insert(key(n));
        w.commit().unwrap();
        if n % 7 == 3 {
            w.tombstone(&[key(n - 2)]).unwrap();
            visible.remove(&key(n - 2));
        }
        if n % 20 == 10 {
            ids.push(w.snapshot(&format!("at {n}")).unwrap());
        }
        history.push((
            w.handle().with_state(|state| state.position().0),
            visible.iter().copied().collect(),
        ));
    }
    w.finish().unwrap();
    let handle = reader(&vfs).unwrap();
    let all = |handle: &asl_store::StoreHandle| {
        let mut keys = Vec::new();
        handle
            .for_each(&mut |record| {
                keys.push(record.key);
                Ok(())
            })
            .unwrap();
        keys
    };
    assert_eq!(all(&handle), history.last().unwrap().1);
    assert!(ids.is_sorted_by_key(|id| id.ordinal));
    for id in &ids {
        let from = handle.with_state(|state| {
            state
                .snapshots
                .iter()
                .find(|s| s.id() == *id)
                .unwrap()
                .position
        });
        for (position, visible) in history.iter().filter(|(position, _)| *position > from) {
            let at = handle
                .at(&id.to_string(), Some(LogPosition(*position)))
                .unwrap();
            assert_eq!(&all(&at), visible, "snapshot {id} position {position}");
        }
        let error = handle
            .at(&id.to_string(), Some(LogPosition(from - 1)))
            .err();
        assert!(matches!(error, Some(Error::NoPosition { .. })));
    }
}

/// Covers I6: every cache gone, the same CURRENT.
#[test]
fn caches_may_be_dropped() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    for n in 0..900 {
        w.put(frame(&noise(n, 60))).unwrap();
        if n == 500 {
            w.snapshot("").unwrap();
        }
    }
    w.tombstone(&[Key::of(&noise(4, 60))]).unwrap();
    w.finish().unwrap();
    let before = reader(&vfs).unwrap();
    assert!(
        before.with_state(|state| !state.segments().is_empty()),
        "the test wants segments"
    );
    let bare = vfs.fork();
    let mut dropped = 0;
    for (path, _) in vfs.files() {
        if path.ends_with("bloom.bin")
            || path.starts_with("snapshots/")
            || path == "log/current"
            || path == "lock"
        {
            bare.remove_file(&path).unwrap();
            dropped += 1;
        }
    }
    assert!(dropped > 5);
    let after = reader(&bare).unwrap();
    assert_eq!(before.state(), after.state());
    for n in 0..900 {
        let key = Key::of(&noise(n, 60));
        assert_eq!(before.lookup(&key).unwrap(), after.lookup(&key).unwrap());
        assert_eq!(after.lookup(&key).unwrap().is_some(), n != 4);
    }
    let w = writer(&bare, 3).unwrap();
    assert_eq!(w.recovery(), &asl_store::Recovery::default());
    w.finish().unwrap();
}

/// Covers B2, B4: ids come from one sequence and are never used again.
#[test]
fn block_ids_ascend_over_writers() {
    let vfs = fresh();
    let mut last = 0;
    for seed in 2..6 {
        let mut w = writer(&vfs, seed).unwrap();
        w.put(frame(&noise(seed.into(), 300))).unwrap();
        w.commit().unwrap();
        let block = w
            .locate(&Key::of(&noise(seed.into(), 300)))
            .unwrap()
            .block
            .0;
        assert!(block > last);
        last = block;
        w.finish().unwrap();
    }
}

#[test]
fn a_second_writer_is_refused_and_told_by_whom() {
    let vfs = fresh();
    let first = writer(&vfs, 2).unwrap();
    let Err(error) = writer(&vfs, 3) else {
        panic!("two writers")
    };
    assert!(error.to_string().contains("the test"), "{error}");
    first.finish().unwrap();
    writer(&vfs, 3).unwrap();
}

/// Covers B5, B10, B11: what an abandoned writer left is salvaged, ids go on.
#[test]
fn open_blocks_of_a_dead_writer_are_salvaged() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    w.put(frame(&noise(1, 900))).unwrap();
    w.sync().unwrap();
    std::mem::forget(w);
    vfs.release_locks();
    assert!(
        reader(&vfs)
            .unwrap()
            .lookup(&Key::of(&noise(1, 900)))
            .unwrap()
            .is_none()
    );
    let w = writer(&vfs, 3).unwrap();
    assert_eq!(
        (
            w.recovery().salvaged_blocks,
            w.recovery().salvaged_artifacts
        ),
        (1, 1)
    );
    assert_eq!(
        w.handle().get(&Key::of(&noise(1, 900))).unwrap(),
        noise(1, 900)
    );
}

/// A block is found whose header is lost, so that nobody knows when it was begun, and the log
/// hides what is in it: it does not come back, not even when the index has forgotten that.
#[test]
fn what_a_found_block_holds_stays_hidden() {
    let vfs = fresh();
    let key = Key::of(&noise(1, 900));
    let mut w = writer(&vfs, 2).unwrap();
    w.tombstone(&[key]).unwrap();
    w.put(frame(&noise(1, 900))).unwrap();
    let (path, _) = vfs
        .files()
        .into_iter()
        .find(|(path, _)| path.starts_with("blocks/open/"))
        .unwrap();
    let mut leftover = vfs.read_file(&path).unwrap();
    leftover[..format::block_header::LEN].fill(0);
    drop(w);
    vfs.write_file(&path, &leftover).unwrap();
    let mut w = writer(&vfs, 3).unwrap();
    assert!(w.handle().lookup(&key).unwrap().is_none());
    // There was never anything to hide, so a merge of the index forgets it.
    for _ in 0..8 {
        w.tombstone(&[key]).unwrap();
        w.flush().unwrap();
    }
    w.finish().unwrap();
    // The removal did not last.
    vfs.write_file(&path, &leftover).unwrap();
    let w = writer(&vfs, 4).unwrap();
    assert!(w.handle().lookup(&key).unwrap().is_none());
}

/// What is put and synced after its key was shown again is salvaged as it was put.
#[test]
fn what_is_put_after_it_was_shown_again_is_salvaged() {
    let vfs = fresh();
    let bytes = noise(1, 900);
    let key = Key::of(&bytes);
    let of = |flags| {
        let mut encoder = Encoder::new(asl_store::Compression::Auto);
        encoder.encode(key, bytes.clone().into(), flags)
    };
    let mut w = writer(&vfs, 2).unwrap();
    w.put(of(0)).unwrap();
    w.tombstone(&[key]).unwrap();
    w.put(frame(&noise(2, 900))).unwrap();
    let hidden = w.handle().lookup_part(&key).unwrap().unwrap();
    w.index_add(&[hidden]).unwrap();
    w.put(of(format::FLAG_ROOT)).unwrap();
    w.sync().unwrap();
    drop(w);
    let w = writer(&vfs, 3).unwrap();
    assert!(
        w.handle()
            .lookup(&Key::of(&noise(2, 900)))
            .unwrap()
            .is_some()
    );
    let found = w.handle().lookup(&key).unwrap().unwrap();
    assert_eq!(found.flags, format::FLAG_ROOT);
}

/// Covers I6: the index is made again from log and blocks, tombstones included.
#[test]
fn the_index_may_be_dropped() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    for n in 0..500 {
        w.put(frame(&noise(n, 60))).unwrap();
    }
    w.flush().unwrap();
    w.tombstone(&[Key::of(&noise(4, 60))]).unwrap();
    w.flush().unwrap();
    w.finish().unwrap();
    let before = reader(&vfs).unwrap();
    for keep in 0..4 {
        let bare = vfs.fork();
        for (path, _) in vfs.files() {
            if path.starts_with("index/") && !path.contains(&format!("shard-{keep:03x}")) {
                bare.remove_file(&path).unwrap();
            }
        }
        let after = reader(&bare).unwrap();
        assert!(!after.problems().is_empty());
        for n in 0..500 {
            let key = Key::of(&noise(n, 60));
            assert_eq!(before.lookup(&key).unwrap(), after.lookup(&key).unwrap());
        }
        // A writer makes it whole again.
        let mut w = writer(&bare, 3).unwrap();
        w.flush().unwrap();
        w.finish().unwrap();
        let mended = reader(&bare).unwrap();
        assert_eq!(mended.problems(), []);
        for n in 0..500 {
            let key = Key::of(&noise(n, 60));
            assert_eq!(mended.lookup(&key).unwrap().is_some(), n != 4);
        }
    }
}

/// What is hidden as a root is still there for what it is a part of, however
/// often the index is merged.
#[test]
fn a_hidden_part_still_belongs_to_the_whole() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let parts = [noise(1, 700), noise(2, 800)];
    let whole = parts.concat();
    for part in &parts {
        w.put(frame(part)).unwrap();
    }
    let list: Vec<_> = parts
        .iter()
        .map(|part| (Key::of(part), part.len() as u64))
        .collect();
    let chunked = Encoder::chunked(Key::of(&whole), &list, asl_store::format::FLAG_ROOT);
    w.put(chunked).unwrap();
    w.commit().unwrap();
    let check = |handle: &asl_store::StoreHandle| {
        let part = Key::of(&parts[0]);
        assert_eq!(handle.lookup(&part).unwrap(), None);
        assert_eq!(handle.get_part(&part).unwrap(), parts[0]);
        assert_eq!(handle.get(&Key::of(&whole)).unwrap(), whole);
    };
    w.tombstone(&[Key::of(&parts[0])]).unwrap();
    check(w.handle());
    for n in 0..10 {
        w.flush().unwrap();
        check(&reader(&vfs).unwrap());
        for m in 0..8 {
            w.put(frame(&noise(100 + 8 * n + m, 60))).unwrap();
        }
        w.commit().unwrap();
    }
    let segments = w.handle().with_state(|state| state.segments().len());
    assert!(segments < 30, "the test wants merges");
    // Hidden in one segment, stored in an older one, and never in level 0 together.
    w.flush().unwrap();
    w.tombstone(&[Key::of(&parts[0])]).unwrap();
    w.flush().unwrap();
    check(&reader(&vfs).unwrap());
}

/// An artifact that is put again for another reason keeps the flags that it has,
/// unless it was deleted in between.
#[test]
fn flags_add_up() {
    use asl_store::format::{FLAG_NODE, FLAG_ROOT};
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let with = |n, flags| {
        let bytes = noise(n, 400);
        let mut encoder = Encoder::new(asl_store::Compression::None);
        encoder.encode(Key::of(&bytes), bytes.into(), flags)
    };
    let flags = |handle: &asl_store::StoreHandle, n| {
        let record = handle.lookup(&Key::of(&noise(n, 400))).unwrap();
        record.map(|record| record.flags)
    };
    // In the open block, and over sealed ones.
    for n in [1, 2] {
        for add in [FLAG_NODE, 0, FLAG_ROOT, FLAG_NODE] {
            w.put(with(n, add)).unwrap();
            if n == 2 {
                w.commit().unwrap();
            }
        }
    }
    w.commit().unwrap();
    w.flush().unwrap();
    for n in [1, 2] {
        assert_eq!(flags(w.handle(), n), Some(FLAG_NODE | FLAG_ROOT));
        assert_eq!(
            flags(&reader(&vfs).unwrap(), n),
            Some(FLAG_NODE | FLAG_ROOT)
        );
        assert_eq!(w.put(with(n, FLAG_ROOT)).unwrap(), Put::Duplicate);
    }
    w.tombstone(&[Key::of(&noise(1, 400))]).unwrap();
    w.put(with(1, 0)).unwrap();
    w.commit().unwrap();
    assert_eq!(flags(w.handle(), 1), Some(0));
}

/// A deletion whose record a crash prevented is told from its note, also where what it
/// deletes was logged after the note's block was begun.
#[test]
fn a_note_of_tombstones_is_newer_than_what_was_logged_before_it() {
    use asl_store::vfs::fault::CrashPolicy;
    let mut relogged = 0;
    for cut in 1..40 {
        let vfs = fresh();
        let mut w = writer(&vfs, 2).unwrap();
        let large = noise(1, 20 << 10);
        w.put(frame(&noise(2, 300))).unwrap();
        w.put(frame(&large)).unwrap();
        vfs.crash_at(vfs.ops() + cut);
        let deleted = w.tombstone(&[Key::of(&large)]);
        let after = vfs.power_cut(CrashPolicy::KeepAll);
        let w = writer(&after, 3).unwrap();
        let visible = w.handle().lookup(&Key::of(&large)).unwrap().is_some();
        if w.recovery().relogged_blocks > 0 {
            relogged += 1;
            assert!(!visible, "operation {cut}");
        }
        assert!(!visible || deleted.is_err());
    }
    assert!(relogged > 0);
}
