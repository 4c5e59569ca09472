//! Blocks of another store, taken over: whole and checked or not at all, whatever the other store holds and wherever it is cut off.
//!
//! `ASL_TEST_ALL=1` tries more bytes and every operation.

mod common;
mod forge;

use std::collections::BTreeMap;
use std::sync::Arc;

use asl_store::id::Digest;
use asl_store::import::stage;
use asl_store::import::{read_frame, whole_frames};
use asl_store::vfs::fault::{CrashPolicy, FailMode, FaultVfs};
use asl_store::vfs::{Access, Vfs as _};
use asl_store::{
    BlockId, Encoder, Error, Hint, Imported, Key, RepairOptions, Result, StoreHandle, StoreWriter,
    block, create, format, put_reader, repair,
};
use common::*;
use forge::{Forge, verified};

fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

/// The sealed blocks of a store in the order of its log.
fn blocks(vfs: &FaultVfs) -> Vec<Digest> {
    reader(vfs).unwrap().with_state(|state| {
        let mut blocks: Vec<_> = state.blocks.values().collect();
        blocks.sort_by_key(|info| info.position);
        blocks.iter().map(|info| Digest(info.digest)).collect()
    })
}

fn import_all(
    writer: &mut StoreWriter,
    from: &FaultVfs,
    digests: &[Digest],
) -> Result<Vec<Imported>> {
    let one = |digest: &Digest| {
        let path = block::sealed_path(digest);
        writer.import(from, &path, *digest, 2)
    };
    digests.iter().map(one).collect()
}

/// Everything that is visible, by key.
fn contents(vfs: &FaultVfs) -> BTreeMap<Key, Vec<u8>> {
    let handle = reader(vfs).unwrap();
    let mut keys = Vec::new();
    handle
        .for_each(&mut |record| {
            keys.push(record.key);
            Ok(())
        })
        .unwrap();
    let whole = |key: &Key| {
        let mut bytes = Vec::new();
        handle.copy_to(key, &mut bytes).unwrap();
        bytes
    };
    keys.iter().map(|key| (*key, whole(key))).collect()
}

/// A store with packed and large blocks, notes, a list of parts and a removed artifact.
fn other() -> FaultVfs {
    let vfs = FaultVfs::new();
    create(&vfs, &small_params(), &context(9), &options()).unwrap();
    let mut w = writer(&vfs, 10).unwrap();
    for n in 0..40 {
        w.put(frame(&noise(n, 3000))).unwrap();
    }
    w.put(frame(&vec![7; 200_000])).unwrap();
    w.put(frame(&noise(1000, 40_000))).unwrap();
    w.note(77, b"somebody's note".to_vec()).unwrap();
    let long = noise(2000, 300_000);
    put_reader(
        &mut w,
        &mut &long[..],
        Hint::Stream,
        None,
        asl_store::Compression::Auto,
    )
    .unwrap();
    w.put(frame(b"to be removed")).unwrap();
    w.tombstone(&[Key::of(b"to be removed")]).unwrap();
    w.finish().unwrap();
    vfs
}

/// A store with something of its own.
fn ours() -> FaultVfs {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    for n in 30..50 {
        w.put(frame(&noise(n, 3000))).unwrap();
    }
    w.finish().unwrap();
    vfs
}

fn check_clean(vfs: &FaultVfs) {
    let report = verified(vfs);
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn everything_comes_over_and_nothing_twice() {
    let (from, vfs) = (other(), ours());
    let before = contents(&vfs);
    let digests = blocks(&from);
    assert!(digests.len() > 3, "packed and large ones");
    let mut w = writer(&vfs, 3).unwrap();
    let taken = import_all(&mut w, &from, &digests).unwrap();
    let is_taken = |imported: &Imported| matches!(imported, Imported::Taken { .. });
    assert!(taken.iter().all(is_taken));
    let position = w.handle().with_state(asl_store::state::State::position);
    let again = import_all(&mut w, &from, &digests).unwrap();
    for (first, second) in taken.iter().zip(&again) {
        let id = first.id();
        assert_eq!(*second, Imported::Known { id, healed: false });
    }
    assert_eq!(
        w.handle().with_state(asl_store::state::State::position),
        position
    );
    w.finish().unwrap();
    let mut expected = contents(&from);
    // What was removed there was not removed here.
    expected.insert(Key::of(b"to be removed"), b"to be removed".to_vec());
    expected.extend(before);
    assert_eq!(contents(&vfs), expected);
    check_clean(&vfs);
    // Ids of ours, and the two stores stay two.
    let ids: Vec<BlockId> = taken.iter().map(Imported::id).collect();
    let known = reader(&vfs).unwrap().with_state(|state| {
        ids.iter()
            .all(|id| state.block(*id).unwrap().origin == format::ORIGIN_IMPORTED)
    });
    assert!(known);
    check_clean(&from);
    // From blocks and log alone, the same.
    let rebuilt = vfs.fork();
    let options = RepairOptions {
        rebuild_index: true,
        ..RepairOptions::default()
    };
    repair(Arc::new(rebuilt.clone()), context(5), &options).unwrap();
    assert_eq!(contents(&rebuilt), expected);
}

/// Covers B10 for blocks that come from elsewhere: no byte of another store's block can be wrong in ours.
#[test]
fn no_flipped_byte_comes_over() {
    let (from, vfs) = (other(), ours());
    let before = contents(&vfs);
    for (nth, digest) in blocks(&from).into_iter().enumerate() {
        let path = block::sealed_path(&digest);
        let len = from.read_file(&path).unwrap().len() as u64;
        let step = if all() { 23 } else { 509 };
        // In the order of the log: what a list refers to is there.
        let with_earlier = vfs.fork();
        let mut w = writer(&with_earlier, 3).unwrap();
        import_all(&mut w, &from, &blocks(&from)[..nth]).unwrap();
        w.finish().unwrap();
        for at in (nth as u64..len).step_by(step) {
            let damaged = from.fork();
            damaged.flip_byte(&path, at).unwrap();
            let target = with_earlier.fork();
            let mut w = writer(&target, 4).unwrap();
            let position = w.handle().with_state(asl_store::state::State::position);
            let error = import_all(&mut w, &damaged, &[digest]).expect_err("a flipped byte");
            match error {
                Error::Damaged { path: named, .. } => assert_eq!(named, path, "byte {at}"),
                Error::NewerFormat { .. } | Error::UnknownFlags { .. } => {}
                other => panic!("byte {at}: {other}"),
            }
            assert_eq!(
                w.handle().with_state(asl_store::state::State::position),
                position
            );
            w.finish().unwrap();
            let files = target.files();
            let place = block::sealed_path(&digest);
            assert!(
                files
                    .iter()
                    .all(|(path, _)| *path != place && !path.contains("ingest"))
            );
        }
        let mut short = from.read_file(&path).unwrap();
        short.truncate(short.len() / 2);
        let cut = from.fork();
        cut.write_file(&path, &short).unwrap();
        let target = vfs.fork();
        let mut w = writer(&target, 3).unwrap();
        import_all(&mut w, &cut, &[digest]).expect_err("half a block");
        w.finish().unwrap();
        assert_eq!(contents(&target), before);
    }
}

/// A block whose digest is right and whose claims are not.
#[test]
fn no_forged_claim_comes_over() {
    type Change = fn(&mut forge::Block);
    let changes: [(usize, &str, Change); 6] = [
        (0, "lengths or hashes disagree", |block| {
            block.frames[0].0.key = Key::of(b"what somebody will put one day");
        }),
        (1, "does not match its key", |block| {
            let (info, _) = &mut block.frames[0];
            assert_eq!(info.encoding, format::ENCODING_ZSTD);
            info.key = Key::of(b"what somebody will put one day");
        }),
        (1, "do not decode", |block| {
            block.frames[0].0.raw_len -= 1;
        }),
        (0, "not as the table of contents says", |block| {
            let mut listed: Vec<_> = block.frames.iter().map(|(info, _)| *info).collect();
            listed[0].flags ^= format::FLAG_ROOT;
            block.toc = Some(listed);
        }),
        (0, "do not match their hash", |block| {
            block.frames[0].1[5] ^= 1
        }),
        (0, "not zero", |block| block.trailer_reserved = 1),
    ];
    let honest = other();
    for (nth, expected, change) in changes {
        let mut forge = Forge::of(&honest);
        forge.block(nth, change);
        let at = forge.nth(format::RECORD_SEAL, nth);
        let digest = Digest(format::seal_payload::DIGEST.array(&forge.records[at].payload));
        let from = forge.done();
        let vfs = ours();
        let before = contents(&vfs);
        let mut w = writer(&vfs, 3).unwrap();
        let error = import_all(&mut w, &from, &[digest]).expect_err(expected);
        assert!(
            error.to_string().contains(expected),
            "{error} is not {expected}"
        );
        w.finish().unwrap();
        assert_eq!(contents(&vfs), before);
        check_clean(&vfs);
    }
}

#[test]
fn a_list_whose_parts_are_nowhere_does_not_come_over() {
    let from = other();
    let handle = reader(&from).unwrap();
    let long = Key::of(&noise(2000, 300_000));
    let of_list = handle.locate(&long).unwrap().block;
    let list = handle.with_state(|state| Digest(state.block(of_list).unwrap().digest));
    let digests = blocks(&from);
    let at = digests.iter().position(|digest| *digest == list).unwrap();
    let vfs = ours();
    let mut w = writer(&vfs, 3).unwrap();
    let parts = handle.with_state(|state| state.block(of_list).unwrap().artifact_count);
    let alone = import_all(&mut w, &from, &[list]);
    // The parts may all be beside the list.
    if let Err(error) = alone {
        assert!(error.to_string().contains("nowhere"), "{error}");
        import_all(&mut w, &from, &digests[..=at]).unwrap();
    } else {
        assert!(parts > 1);
    }
    w.finish().unwrap();
    assert_eq!(contents(&vfs)[&long], noise(2000, 300_000));
}

/// Covers L7: `tmp/ingest` is where it may break.
/// What is longer than one list holds is a list of lists, and all of them may lie in one block.
#[test]
fn a_list_of_lists_comes_over() {
    let from = fresh();
    let mut w = writer(&from, 10).unwrap();
    let parts: Vec<Vec<u8>> = (0..4).map(|n| noise(n, 3000)).collect();
    for part in &parts {
        w.put(frame(part)).unwrap();
    }
    let of = |parts: &[Vec<u8>]| parts.concat();
    let mut inner = Vec::new();
    for half in parts.chunks(2) {
        let keys: Vec<_> = half.iter().map(|part| (Key::of(part), 3000)).collect();
        let whole = of(half);
        w.put(Encoder::chunked(Key::of(&whole), &keys, 0)).unwrap();
        inner.push((Key::of(&whole), 6000));
    }
    let whole = of(&parts);
    let key = Key::of(&whole);
    w.put(Encoder::chunked(key, &inner, format::FLAG_ROOT))
        .unwrap();
    w.finish().unwrap();

    let vfs = ours();
    let mut w = writer(&vfs, 3).unwrap();
    import_all(&mut w, &from, &blocks(&from)).unwrap();
    w.finish().unwrap();
    assert!(contents(&vfs)[&key] == whole);
    check_clean(&vfs);
}

#[test]
fn a_crash_or_an_error_at_any_operation_is_gone_on_from() {
    let (from, base) = (other(), ours());
    let before = contents(&base);
    let digests = blocks(&from);
    let whole = {
        let vfs = base.fork();
        let mut w = writer(&vfs, 3).unwrap();
        import_all(&mut w, &from, &digests).unwrap();
        w.finish().unwrap();
        vfs
    };
    let expected = contents(&whole);
    let run = |vfs: &FaultVfs, seed: u8| -> Result<()> {
        let mut w = writer(vfs, seed)?;
        import_all(&mut w, &from, &digests)?;
        w.finish()?;
        Ok(())
    };
    let step = if all() { 1 } else { 5 };
    for at in (base.ops()..whole.ops()).step_by(step) {
        let crashed = base.fork();
        crashed.set_seed(at);
        crashed.crash_at(at);
        run(&crashed, 4).expect_err("it crashed");
        let policies = [
            CrashPolicy::KeepAll,
            CrashPolicy::LoseUnsynced,
            CrashPolicy::Torn { seed: at },
        ];
        for policy in policies {
            let vfs = crashed.power_cut(policy);
            let found = contents(&vfs);
            assert!(
                before
                    .iter()
                    .all(|(key, bytes)| found.get(key) == Some(bytes)),
                "operation {at}"
            );
            run(&vfs, 5).unwrap();
            assert_eq!(contents(&vfs), expected, "operation {at}");
            check_clean(&vfs);
        }
        for errno in [5, 28] {
            let vfs = base.fork();
            vfs.set_seed(at);
            vfs.fail_op(at, errno, FailMode::Once);
            let _ = run(&vfs, 4);
            vfs.clear_faults();
            vfs.release_locks();
            run(&vfs, 5).unwrap();
            assert_eq!(
                contents(&vfs),
                expected,
                "operation {at} failed with {errno}"
            );
            check_clean(&vfs);
        }
    }
}

/// A lost file of an imported block comes again under the same id.
#[test]
fn a_lost_block_is_healed() {
    let (from, vfs) = (other(), ours());
    let digests = blocks(&from);
    let mut w = writer(&vfs, 3).unwrap();
    let taken = import_all(&mut w, &from, &digests).unwrap();
    w.finish().unwrap();
    let expected = contents(&vfs);
    vfs.remove_file(&block::sealed_path(&digests[1])).unwrap();
    let mut w = writer(&vfs, 4).unwrap();
    let again = import_all(&mut w, &from, &digests).unwrap();
    let id = taken[1].id();
    assert_eq!(again[1], Imported::Known { id, healed: true });
    w.finish().unwrap();
    assert_eq!(contents(&vfs), expected);
    check_clean(&vfs);
}

/// Deletions and records of authority in a block from elsewhere are of the log that it comes from.
#[test]
fn notes_of_another_log_are_not_obeyed() {
    let vfs = ours();
    // Somebody removed there what is here, too.
    let shared = noise(35, 3000);
    let from = FaultVfs::new();
    create(&from, &small_params(), &context(9), &options()).unwrap();
    let mut w = writer(&from, 10).unwrap();
    w.put(frame(&shared)).unwrap();
    w.commit().unwrap();
    w.tombstone(&[Key::of(&shared)]).unwrap();
    w.finish().unwrap();
    let digests = blocks(&from);
    let mut w = writer(&vfs, 3).unwrap();
    import_all(&mut w, &from, &digests[1..]).unwrap();
    w.finish().unwrap();
    let has = |handle: &StoreHandle| handle.lookup(&Key::of(&shared)).unwrap().is_some();
    assert!(has(&reader(&vfs).unwrap()));
    // The log loses its last record, and whoever repairs it accepts that.
    let log = "log/log-0000000000000000.asl";
    let mut raw = vfs.read_file(log).unwrap();
    let lost = raw.len() - 100;
    raw.truncate(lost);
    vfs.write_file(log, &raw).unwrap();
    let options = RepairOptions {
        accept_lost_tail: true,
        ..RepairOptions::default()
    };
    repair(Arc::new(vfs.clone()), context(5), &options).unwrap();
    assert!(has(&reader(&vfs).unwrap()));
}

/// What was removed in the other store does not come back with its block; what is visible here stays so.
#[test]
fn hidden_artifacts_come_in_without_being_shown() {
    let from = other();
    let digests = blocks(&from);
    let handle = reader(&from).unwrap();
    let mut shown = Vec::new();
    handle
        .for_each(&mut |record| {
            shown.push(record.key);
            Ok(())
        })
        .unwrap();
    let (gone, ours) = (Key::of(&noise(3, 3000)), Key::of(&noise(4, 3000)));
    assert!(shown.contains(&gone) && shown.contains(&ours));
    let into = FaultVfs::new();
    create(&into, &small_params(), &context(1), &options()).unwrap();
    let mut w = writer(&into, 2).unwrap();
    w.put(frame(&noise(4, 3000))).unwrap();
    let hidden = w.hide_imported([gone, ours].into()).unwrap();
    for digest in &digests {
        let path = block::sealed_path(digest);
        let parts = w.handle().clone();
        stage(&into, &from, &path, *digest, &parts, 2).unwrap();
        let taken = w.import_staged(*digest, false, &hidden).unwrap();
        assert!(matches!(taken, Imported::Taken { .. }));
        assert_eq!(w.handle().lookup(&gone).unwrap(), None, "at no moment");
    }
    assert!(w.handle().is_removed(&gone).unwrap());
    assert_eq!(
        w.get(&gone).unwrap(),
        noise(3, 3000),
        "a part may be hidden"
    );
    assert!(w.handle().lookup(&ours).unwrap().is_some());
    w.finish().unwrap();
    assert!(!contents(&into).contains_key(&gone));
    verified(&into);
}

/// A part of something there may be a root here, and stays one.
#[test]
fn roots_stay_roots() {
    let from = FaultVfs::new();
    create(&from, &small_params(), &context(9), &options()).unwrap();
    let mut w = writer(&from, 10).unwrap();
    let mut part = frame(b"the bytes");
    part.info.flags = 0;
    w.put(part).unwrap();
    w.finish().unwrap();
    let into = FaultVfs::new();
    create(&into, &small_params(), &context(1), &options()).unwrap();
    let mut w = writer(&into, 2).unwrap();
    let mut root = frame(b"the bytes");
    root.info.flags = format::FLAG_ROOT;
    w.put(root).unwrap();
    import_all(&mut w, &from, &blocks(&from)).unwrap();
    w.finish().unwrap();
    let found = reader(&into).unwrap().lookup(&Key::of(b"the bytes"));
    assert!(found.unwrap().unwrap().is_root());
    verified(&into);
}

/// Artifacts come one by one as well: what they say is checked, and a list only comes after its parts.
#[test]
fn single_artifacts_are_checked_as_they_come() {
    let from = other();
    let into = FaultVfs::new();
    create(&into, &small_params(), &context(1), &options()).unwrap();
    let mut w = writer(&into, 2).unwrap();
    let mut lists = 0;
    for digest in blocks(&from) {
        let path = block::sealed_path(&digest);
        let file = from.open(&path, Access::Read).unwrap();
        let entries = whole_frames(&from, &path).unwrap();
        assert_eq!(entries, block::read_sealed(&*file, &path).unwrap().entries);
        for entry in entries.iter().filter(|entry| entry.info.is_artifact()) {
            let taken = read_frame(&*file, &path, entry).unwrap();
            if entry.info.encoding == format::ENCODING_CHUNKED {
                lists += 1;
                // Of other parts, or of none that are here.
                let mut other = Encoder::chunked(entry.info.key, &[(Key::of(b"x"), 1)], 0);
                other.info.raw_len = entry.info.raw_len;
                let refused = w.take(other, &path).unwrap_err();
                assert!(matches!(refused, Error::Damaged { .. }));
            } else {
                let mut wrong = taken.clone();
                wrong.info.key = Key::of(b"another");
                wrong.info.check = taken.info.check;
                let refused = w.take(wrong, &path).unwrap_err();
                assert!(matches!(refused, Error::Damaged { .. }));
            }
            w.take(taken, &path).unwrap();
        }
    }
    assert!(lists > 0);
    w.finish().unwrap();
    let there = contents(&from);
    let here = contents(&into);
    assert!(
        there
            .iter()
            .all(|(key, bytes)| here.get(key) == Some(bytes))
    );
    verified(&into);
}
