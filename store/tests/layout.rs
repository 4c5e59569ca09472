//! What lies where in a store, who sees it when, and what is never written again.

mod common;

use std::collections::HashMap;

use asl_store::format;
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::{CrashPolicy, FaultVfs, OpKind};
use asl_store::{Key, Params, StoreWriter, create};
use common::*;

fn names(vfs: &FaultVfs, prefix: &str) -> Vec<String> {
    let files = vfs.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.starts_with(prefix)).collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == digits && text.chars().all(lower)
}

/// Covers L2, B5: an open block is named, present and invisible; a sealed one lies by
/// its digest and is never written again.
#[test]
fn open_blocks_are_invisible_and_sealed_ones_immutable() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let bytes = noise(1, 3000);
    w.put(frame(&bytes)).unwrap();
    w.sync().unwrap();
    let open = names(&vfs, "blocks/open/");
    assert_eq!(open.len(), 1);
    let id = open[0].strip_prefix("blocks/open/blk_").unwrap();
    assert!(is_hex(id.strip_suffix(".tmp").unwrap(), 16));
    assert!(
        reader(&vfs)
            .unwrap()
            .lookup(&Key::of(&bytes))
            .unwrap()
            .is_none()
    );
    w.commit().unwrap();
    assert!(names(&vfs, "blocks/open/").is_empty());
    let sealed = names(&vfs, "blocks/sealed/");
    assert_eq!(sealed.len(), 1);
    let parts: Vec<_> = sealed[0].split('/').collect();
    let digest = parts[3].strip_suffix(".blk").unwrap();
    assert!(is_hex(digest, 64) && parts[2] == &digest[..2]);
    let handle = reader(&vfs).unwrap();
    let logged = handle.with_state(|state| state.blocks.values().next().unwrap().digest);
    assert_eq!(asl_store::id::hex(&logged), digest);

    // Much more happens; no operation touches the sealed file again.
    let before = vfs.trace().len();
    for n in 10..400 {
        w.put(frame(&noise(n, 900))).unwrap();
    }
    w.tombstone(&[Key::of(&bytes)]).unwrap();
    w.snapshot("later").unwrap();
    w.finish().unwrap();
    writer(&vfs, 3).unwrap().finish().unwrap();
    let touched = |path: &str| path == sealed[0];
    let trace = vfs.trace();
    let touches: Vec<_> = trace[before..]
        .iter()
        .filter(|op| touched(&op.path) || op.to.as_deref().is_some_and(touched))
        .collect();
    assert!(touches.is_empty(), "{touches:?}");
}

/// Covers L4, B4: the log's files are named by their first position, in one order, and
/// nothing of them is ever rewritten, cut, renamed or removed.
#[test]
fn the_log_only_grows() {
    let vfs = fresh();
    for seed in 2..6 {
        let mut w = writer(&vfs, seed).unwrap();
        w.put(frame(&noise(seed.into(), 500))).unwrap();
        w.commit().unwrap();
        if seed == 3 {
            // A failed append leaves its file behind; the next record goes to another one.
            vfs.set_hook(|op| {
                (op.kind == OpKind::Sync && op.path.starts_with("log/log-")).then_some(5)
            });
            assert!(w.tombstone(&[Key::of(b"none")]).is_err());
            vfs.clear_faults();
            drop(w);
            vfs.release_locks();
        } else {
            w.finish().unwrap();
        }
    }
    let mut logs: Vec<_> = names(&vfs, "log/")
        .into_iter()
        .filter(|path| path != "log/current")
        .collect();
    logs.sort();
    for log in &logs {
        let name = log
            .strip_prefix("log/log-")
            .unwrap()
            .strip_suffix(".asl")
            .unwrap();
        assert!(is_hex(name.split('-').next().unwrap(), 16), "{log}");
    }
    // Per file: the end of what was written, and of what is durable. After a failed sync
    // nothing beyond the latter may be believed to be there.
    let mut ends: HashMap<String, (u64, u64)> = HashMap::new();
    for op in vfs
        .trace()
        .iter()
        .filter(|op| op.path.starts_with("log/log-"))
    {
        let (end, durable) = ends.entry(op.path.clone()).or_default();
        match (op.kind, op.errno) {
            (OpKind::Write, _) => {
                assert!(op.offset >= *end, "{op} rewrites");
                *end = op.offset + op.len;
            }
            (OpKind::Sync, None) => *durable = *end,
            (OpKind::Sync, Some(_)) => *end = *durable,
            (OpKind::Truncate | OpKind::Rename | OpKind::Remove, _) => panic!("{op}"),
            _ => {}
        }
    }
    assert!(!ends.is_empty());
    let mut positions = Vec::new();
    let files = asl_store::log::LogFiles::list(&vfs).unwrap();
    let each = &mut |record: asl_store::log::Record| {
        positions.push(record.position.0);
        Ok(())
    };
    files
        .read(&vfs, files.start(), asl_store::current::END, each)
        .unwrap();
    assert_eq!(positions, (0..positions.len() as u64).collect::<Vec<_>>());
}

/// Covers L3, S5: segments are named by shard and number, have a filter beside them,
/// and count only from their log record on.
#[test]
fn segments_are_visible_by_their_record_only() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    for n in 0..150 {
        w.put(frame(&noise(n, 90))).unwrap();
    }
    w.commit().unwrap();
    let state = w.handle().state();
    // The moment before the record is written, as a reader would find it.
    let (all, seen) = (
        vfs.clone(),
        std::sync::Arc::new(std::sync::Mutex::new(None)),
    );
    let moment = seen.clone();
    vfs.set_hook(move |op| {
        if op.kind == OpKind::Write && op.path.starts_with("log/log-") {
            moment
                .lock()
                .unwrap()
                .get_or_insert_with(|| all.power_cut(CrashPolicy::KeepAll));
        }
        None
    });
    w.flush().unwrap();
    vfs.clear_faults();
    let before = seen.lock().unwrap().take().unwrap();
    assert!(
        names(&before, "index/")
            .iter()
            .any(|path| path.ends_with(".idx")),
        "the files are there"
    );
    assert_eq!(
        reader(&before).unwrap().state().segments(),
        state.segments(),
        "but nobody goes by them"
    );
    w.finish().unwrap();
    let handle = reader(&vfs).unwrap();
    let segments = handle.state().segments();
    assert_eq!(
        segments.iter().map(|segment| segment.entries).sum::<u64>(),
        150
    );
    for segment in segments {
        let shard = format!("index/shard-{:03x}", segment.shard);
        vfs.metadata(&format!("{shard}/segment-{:04}.idx", segment.number))
            .unwrap();
        vfs.metadata(&format!("{shard}/bloom.bin")).unwrap();
    }
}

/// Covers L5: a snapshot's directory pins what the log's record pins.
#[test]
fn snapshots_render_what_they_pin() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    for n in 0..300 {
        w.put(frame(&noise(n, 90))).unwrap();
    }
    let id = w.snapshot("the \"first\"").unwrap();
    w.put(frame(&noise(999, 90))).unwrap();
    w.finish().unwrap();
    let text = |name: &str| {
        let path = format!("snapshots/snapshot-00000001/{name}");
        String::from_utf8(vfs.read_file(&path).unwrap()).unwrap()
    };
    assert!(text("manifest.yaml").contains(&id.to_string()));
    let state = reader(&vfs).unwrap().state();
    let info = &state.snapshots[0];
    let pinned: Vec<_> = state
        .blocks
        .iter()
        .filter(|(_, block)| block.position < info.position)
        .collect();
    assert!(pinned.len() < state.blocks.len());
    assert_eq!(text("pinned-blocks.txt").lines().count(), pinned.len());
    for (id, block) in pinned {
        assert!(
            text("pinned-blocks.txt")
                .contains(&format!("{id:016x} {}", asl_store::id::hex(&block.digest)))
        );
    }
    assert!(!info.segments.is_empty());
    for (shard, number) in &info.segments {
        assert!(
            text("pinned-segments.txt")
                .contains(&asl_store::segment::segment_path(*shard, *number))
        );
    }
}

/// Covers L7: what lies under tmp is never trusted and in nobody's way.
#[test]
fn tmp_is_untrusted() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    w.put(frame(b"something")).unwrap();
    w.finish().unwrap();
    let state = reader(&vfs).unwrap().state();
    for dir in ["tmp/ingest", "tmp/scratch", "tmp/pty"] {
        assert!(vfs.metadata(dir).unwrap().is_dir);
        vfs.write_file(&format!("{dir}/blk_0000000000000009.tmp"), &noise(4, 999))
            .unwrap();
        vfs.write_file(
            &format!("{dir}/log-0000000000000000.asl"),
            b"ASLLOGv1 or not",
        )
        .unwrap();
    }
    assert_eq!(reader(&vfs).unwrap().state(), state);
    let w = writer(&vfs, 3).unwrap();
    assert_eq!(w.recovery(), &asl_store::Recovery::default());
    assert!(names(&vfs, "tmp/scratch/").is_empty(), "scratch is emptied");
    w.finish().unwrap();
}

/// Covers B6, S1: a block is sealed, logged and visible as soon as it is full, by bytes or by
/// number, each as the store was told at its creation.
#[test]
fn full_blocks_are_sealed_without_being_asked() {
    for (params, len) in [
        (small_params(), 3000),
        (
            Params {
                packed_max: 10,
                ..small_params()
            },
            30,
        ),
        (
            Params {
                small_threshold: 8 << 10,
                ..small_params()
            },
            9000,
        ),
    ] {
        let vfs = FaultVfs::new();
        create(&vfs, &params, &context(1), &options()).unwrap();
        let mut w = writer(&vfs, 2).unwrap();
        for n in 0..80 {
            w.put(frame(&noise(n, len))).unwrap();
        }
        let handle = reader(&vfs).unwrap();
        let state = handle.state();
        assert_eq!(
            *state.params(),
            params,
            "parameters are the store's, not the opener's"
        );
        assert!(state.blocks.len() > 1, "{params:?}");
        for block in state.blocks.values() {
            let large = len as u64 >= params.small_threshold;
            let class = if large {
                format::CLASS_LARGE
            } else {
                format::CLASS_PACKED
            };
            let most = if large { 1 } else { params.packed_max };
            assert_eq!(block.class, class);
            assert!(block.artifact_count <= most && block.file_len <= params.block_size + 16_384);
        }
        assert!(handle.lookup(&Key::of(&noise(0, len))).unwrap().is_some());
    }
}

/// Covers B7, B8, S7: how artifacts are packed and where block files lie changes no key, no
/// bytes and no answer.
#[test]
fn packing_and_placement_have_no_meaning() {
    let artifacts: Vec<_> = (0..60).map(|n| noise(n, 40 + 450 * n as usize)).collect();
    let mut all = Vec::new();
    for params in [
        small_params(),
        Params {
            packed_max: 3,
            shards: 1,
            ..small_params()
        },
        Params {
            small_threshold: 4 << 10,
            large_size: 1 << 20,
            block_size: 1 << 20,
            ..small_params()
        },
    ] {
        let vfs = FaultVfs::new();
        create(&vfs, &params, &context(1), &options()).unwrap();
        let mut w = writer(&vfs, 2).unwrap();
        artifacts
            .iter()
            .for_each(|bytes| assert!(w.put(frame(bytes)).is_ok()));
        w.finish().unwrap();
        // Every block back to where it was written: it is found by what the log says.
        let handle = reader(&vfs).unwrap();
        for id in handle.state().blocks.keys() {
            let id = asl_store::BlockId(*id);
            let path = handle.with_state(|state| asl_store::index::block_path(state, id));
            vfs.rename(&path, &asl_store::block::open_path(id)).unwrap();
        }
        let moved = reader(&vfs).unwrap();
        let mut seen = Vec::new();
        moved
            .for_each(&mut |record| {
                seen.push((record.key, record.raw_len));
                Ok(())
            })
            .unwrap();
        for bytes in &artifacts {
            assert_eq!(&moved.get(&Key::of(bytes)).unwrap(), bytes);
        }
        all.push(seen);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Covers B9, B3: a location read through a snapshot gives the same bytes whatever came
/// after it.
#[test]
fn reads_are_deterministic_per_snapshot() {
    let vfs = fresh();
    let mut w = writer(&vfs, 2).unwrap();
    let artifacts: Vec<_> = (0..100).map(|n| noise(n, 200)).collect();
    artifacts
        .iter()
        .for_each(|bytes| assert!(w.put(frame(bytes)).is_ok()));
    let id = w.snapshot("").unwrap().to_string();
    let locate = |handle: &asl_store::StoreHandle| -> Vec<_> {
        artifacts
            .iter()
            .map(|bytes| handle.locate(&Key::of(bytes)).unwrap())
            .collect()
    };
    let before = locate(&reader(&vfs).unwrap().at(&id, None).unwrap());
    for n in 0..100 {
        w.tombstone(&[Key::of(&artifacts[n as usize])]).unwrap();
        w.put(frame(&noise(1000 + n, 200))).unwrap();
    }
    w.put_anew(frame(&artifacts[5])).unwrap();
    w.flush().unwrap();
    w.finish().unwrap();
    let now = reader(&vfs).unwrap();
    assert!(now.lookup(&Key::of(&artifacts[7])).unwrap().is_none());
    let at = now.at(&id, None).unwrap();
    assert_eq!(locate(&at), before);
    for (location, bytes) in before.iter().zip(&artifacts) {
        assert_eq!(&at.read(location).unwrap(), bytes);
    }
}

#[test]
fn a_writer_must_be_told_of_a_store() {
    let vfs = FaultVfs::new();
    let opened = StoreWriter::open(std::sync::Arc::new(vfs.clone()), context(1), options());
    assert!(matches!(opened, Err(asl_store::Error::NotAStore)));
    assert!(
        vfs.files().is_empty(),
        "a path without a store stays as it was"
    );
}
