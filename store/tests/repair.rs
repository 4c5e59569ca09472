//! Damaged stores mended: what can be made again is, the rest is told.

mod common;
mod specimen;

use asl_store::vfs::fault::FaultVfs;
use asl_store::{Error, Key, RepairOptions, format};
use common::*;
use specimen::*;

/// Covers I6: whatever is done to a cache or to the index, repair makes it again.
#[test]
fn repair_makes_caches_and_the_index_again() {
    let full = specimen();
    // What is merely untidy is tidied up by any writer, so that only damage remains.
    repaired(&full.vfs, RepairOptions::default()).unwrap();
    assert_eq!(verified(&full.vfs).damage, []);

    for (path, len) in full.vfs.files() {
        let kind = Kind::of(&path);
        if !kind.is_cache() && kind != Kind::Segment {
            continue;
        }
        let raw = full.vfs.read_file(&path).unwrap();
        let mut flipped = raw.clone();
        flipped[len as usize / 2] ^= 1;
        let mut beginning = raw.clone();
        beginning[0] ^= 1;
        let variants = [
            None,
            Some(&flipped[..]),
            Some(&beginning),
            Some(&raw[..9]),
            Some(&[]),
        ];
        for (number, bytes) in variants.into_iter().enumerate() {
            let damaged = full.vfs.fork();
            damaged.remove_file(&path).unwrap();
            if let Some(bytes) = bytes {
                damaged.write_file(&path, bytes).unwrap();
            }
            let report = repaired(&damaged, RepairOptions::default()).unwrap();
            let context = format!("{path}, variant {number}: {report:?}");
            if kind == Kind::Segment {
                let made = report.index.as_ref().expect(&context);
                assert!(made.segments > 0 && made.entries > 0 && made.retired > 0);
            } else {
                assert!(report.rebuilt.contains(&path), "{context}");
                assert_eq!(report.index, None);
            }
            let after = verified(&damaged);
            assert_eq!(after.damage, [], "{context}");
            let missing = after
                .notes
                .iter()
                .any(|note| note.contains("missing") && kind != Kind::Segment);
            assert!(!missing, "{context} {:?}", after.notes);
            assert_intact(&full, &reader(&damaged).unwrap());
            // Once more finds nothing to do.
            let again = repaired(&damaged, RepairOptions::default()).unwrap();
            assert_eq!(
                (again.rebuilt, again.index),
                (Vec::new(), None),
                "{context}"
            );
        }
    }
}

/// Covers I6: the index is rebuilt from log and blocks, in bounded memory.
#[test]
fn the_index_is_rebuilt_on_request() {
    let full = specimen();
    for index_memory_bytes in [1 << 20, 2000] {
        let vfs = full.vfs.fork();
        let options = RepairOptions {
            rebuild_index: true,
            index_memory_bytes,
            ..RepairOptions::default()
        };
        let report = repaired(&vfs, options).unwrap();
        let made = report.index.unwrap();
        assert!(made.segments >= 4 && made.unreadable.is_empty());
        assert!(made.entries as usize >= full.visible.len());
        assert_eq!(verified(&vfs).damage, []);
        let handle = reader(&vfs).unwrap();
        assert_intact(&full, &handle);
        assert!(handle.with_state(|state| state.level0.is_empty()));
        // What is hidden is still part of the tree.
        for key in full.hidden.keys() {
            assert!(handle.get_part(key).is_ok());
        }
        // Old snapshots are as they were.
        for snapshot in handle.with_state(|state| state.snapshots.clone()) {
            let id = snapshot.id().to_string();
            let (then, before) = (handle.at(&id, None).unwrap(), reader(&full.vfs).unwrap());
            let before = before.at(&id, None).unwrap();
            for key in full.visible.keys().chain(full.hidden.keys()) {
                assert_eq!(then.lookup(key).unwrap(), before.lookup(key).unwrap());
            }
        }
    }
}

/// All of `index/`, `snapshots/`, the hint and empty directories may be missing.
#[test]
fn everything_that_can_be_made_again_may_be_missing() {
    let full = specimen();
    let bare = FaultVfs::new();
    for (path, _) in full.vfs.files() {
        if matches!(Kind::of(&path), Kind::Log | Kind::Block) {
            bare.write_file(&path, &full.vfs.read_file(&path).unwrap())
                .unwrap();
        }
    }
    assert_intact(&full, &reader(&bare).unwrap());
    let report = verified(&bare);
    assert!(!report.ok() && report.damage.iter().all(|d| d.file.starts_with("index/")));
    let report = repaired(&bare, RepairOptions::default()).unwrap();
    assert!(report.index.is_some());
    let after = verified(&bare);
    assert_eq!(after.damage, []);
    assert_intact(&full, &reader(&bare).unwrap());
    // The states at snapshots that pin the old segments are the pinned ones again.
    assert!(
        report
            .rebuilt
            .iter()
            .filter(|path| path.ends_with("state.bin"))
            .count()
            == 2
    );
}

/// A copy whose bytes are damaged: told, healed by putting the artifact again, and still
/// told of then, but as a copy that nobody needs.
#[test]
fn putting_again_heals() {
    let full = specimen();
    let handle = reader(&full.vfs).unwrap();
    let mut healed = 0;
    for (key, bytes) in full.visible.iter().step_by(5) {
        let record = handle.lookup(key).unwrap().unwrap();
        if record.encoding == format::ENCODING_CHUNKED || record.flags & format::FLAG_NODE != 0 {
            continue;
        }
        let vfs = full.vfs.fork();
        let path = handle.with_state(|state| asl_store::index::block_path(state, record.block));
        let Ok(()) = vfs.flip_byte(&path, u64::from(record.offset) + 104 + 7) else {
            continue;
        };
        assert!(matches!(
            reader(&vfs).unwrap().get(key),
            Err(Error::Damaged { .. })
        ));
        assert_eq!(names(&verified(&vfs), &path).unwrap().keys, [*key]);
        let mut w = writer(&vfs, 9).unwrap();
        w.put_anew(frame(bytes)).unwrap();
        w.finish().unwrap();
        assert_eq!(&reader(&vfs).unwrap().get(key).unwrap(), bytes);
        let after = verified(&vfs);
        let damage = names(&after, &path).unwrap();
        assert!(damage.keys.is_empty() && damage.what.contains("another copy"));
        healed += 1;
    }
    assert!(healed > 5);
}

/// A log that lost its last records: readers go on, writers refuse until somebody
/// accepts the loss; then everything that blocks hold is back.
#[test]
fn a_lost_tail_is_given_up_only_when_asked() {
    let full = specimen();
    let logs: Vec<_> = full
        .vfs
        .files()
        .into_iter()
        .filter(|(path, _)| Kind::of(path) == Kind::Log)
        .collect();
    let (last, len) = logs.last().unwrap();
    let raw = full.vfs.read_file(last).unwrap();
    let records = |vfs: &FaultVfs| reader(vfs).unwrap().with_state(|state| state.position().0);
    let all_records = records(&full.vfs);
    for cut in [*len as usize - 1, 128 + 300, 128, 0] {
        let vfs = full.vfs.fork();
        vfs.write_file(last, &raw[..cut]).unwrap();
        let found = records(&vfs);
        assert!(found < all_records);
        read_all(&full, &vfs, "the log cut");
        let refused = |error: Option<Error>| {
            matches!(error, Some(Error::LogTailLost { found: f, remembered: r })
                if (f.0, r.0) == (found, all_records))
        };
        assert!(refused(writer(&vfs, 5).err()));
        assert!(refused(repaired(&vfs, RepairOptions::default()).err()));
        let options = RepairOptions {
            accept_lost_tail: true,
            ..RepairOptions::default()
        };
        let report = repaired(&vfs, options).unwrap();
        assert_eq!(report.recovery.lost_records, all_records - found);
        let after = verified(&vfs);
        assert_eq!(after.damage, [], "cut to {cut}");
        assert_intact(&full, &reader(&vfs).unwrap());
        // Ids go on after the highest there is.
        let highest = reader(&vfs)
            .unwrap()
            .with_state(|s| *s.blocks.keys().max().unwrap());
        let mut w = writer(&vfs, 6).unwrap();
        w.put(frame(b"new")).unwrap();
        w.finish().unwrap();
        let block = reader(&vfs)
            .unwrap()
            .locate(&Key::of(b"new"))
            .unwrap()
            .block
            .0;
        assert!(block > highest);
        assert_eq!(verified(&vfs).damage, []);
    }
}

/// A deletion whose record alone is lost is told from the block that repeats it.
#[test]
fn a_lost_deletion_is_made_again() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let keys: Vec<_> = (0..4).map(|n| Key::of(&noise(n, 300))).collect();
    for n in 0..4 {
        w.put(frame(&noise(n, 300))).unwrap();
    }
    w.commit().unwrap();
    w.tombstone(&keys[1..3]).unwrap();
    w.finish().unwrap();
    let path = "log/log-0000000000000000.asl";
    let len = vfs.read_file(path).unwrap().len() as u64;
    vfs.flip_byte(path, len - 60).unwrap();
    let visible = |vfs: &FaultVfs| {
        let handle = reader(vfs).unwrap();
        let found = keys.iter().map(|key| handle.lookup(key).unwrap().is_some());
        found.collect::<Vec<_>>()
    };
    assert_eq!(visible(&vfs), [true; 4]);
    let options = RepairOptions {
        accept_lost_tail: true,
        ..RepairOptions::default()
    };
    assert_eq!(repaired(&vfs, options).unwrap().recovery.lost_records, 1);
    assert_eq!(visible(&vfs), [true, false, false, true]);
    assert_eq!(verified(&vfs).damage, []);
}

/// A log that is damaged before its end is not mended unasked; the error says what is left.
#[test]
fn a_log_damaged_in_the_middle_is_explained() {
    let full = specimen();
    let first = "log/log-0000000000000000.asl";
    let vfs = full.vfs.fork();
    // Without the snapshots' states, which lead around the damage.
    for (path, _) in vfs.files() {
        if Kind::of(&path) == Kind::State {
            vfs.remove_file(&path).unwrap();
        }
    }
    vfs.flip_byte(first, 700).unwrap();
    let untouched = vfs.files();
    let error = repaired(&vfs, RepairOptions::default()).unwrap_err();
    let Error::LogBroken {
        what,
        readable,
        unnamed_blocks,
        unnamed_bytes,
    } = error
    else {
        panic!("{error}");
    };
    assert!(what.contains(first), "{what}");
    assert!(readable.0 > 0 && unnamed_blocks > 3 && unnamed_bytes > 1000);
    assert_eq!(vfs.files(), untouched);
    let report = verified(&vfs);
    assert!(names(&report, first).is_some());
    read_all(&full, &vfs, "the log damaged in the middle");
}

/// A block whose table of contents is damaged is still read, and the index rebuilt from
/// its frames; what the old index knows of a missing one is kept.
#[test]
fn blocks_with_a_damaged_table_are_indexed_from_their_frames() {
    let full = specimen();
    let rebuild = RepairOptions {
        rebuild_index: true,
        ..RepairOptions::default()
    };
    for (path, len) in full.vfs.files() {
        if Kind::of(&path) != Kind::Block || !path.contains("sealed") {
            continue;
        }
        let vfs = full.vfs.fork();
        vfs.flip_byte(&path, len - 3).unwrap();
        assert_intact(&full, &reader(&vfs).unwrap());
        let report = repaired(&vfs, rebuild).unwrap();
        assert_eq!(report.index.unwrap().unreadable.len(), 1);
        assert_intact(&full, &reader(&vfs).unwrap());
        let after = verified(&vfs);
        assert!(
            after.damage.iter().all(|damage| damage.file == path),
            "{:?}",
            after.damage
        );

        let vfs = full.vfs.fork();
        let keys: Vec<_> = payload(&vfs, &path)
            .iter()
            .map(|entry| entry.info.key)
            .collect();
        let before = reader(&vfs).unwrap();
        vfs.remove_file(&path).unwrap();
        repaired(&vfs, rebuild).unwrap();
        let handle = reader(&vfs).unwrap();
        for key in keys.iter().filter(|key| full.visible.contains_key(*key)) {
            let known = handle.lookup(key).unwrap();
            assert!(known.is_none() || known == before.lookup(key).unwrap());
            let error = handle.get(key).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::NotFound(_)));
        }
        let damage = verified(&vfs).damage;
        assert!(damage.iter().any(|damage| damage.file == path));
    }
}
