//! A damage matrix: what is done to which file, and what verify and readers make of it.

mod common;
mod specimen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use asl_store::vfs::fault::FaultVfs;
use asl_store::{Compression, Encoder, Error, Key, Params, VerifyOptions, create, format, verify};
use common::*;
use specimen::*;

/// Whether the long sweeps were asked for.
fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

/// The bytes of a file that are not looked at: what a torn append left behind.
fn ignored(vfs: &FaultVfs) -> BTreeMap<String, u64> {
    use format::log_header as lh;
    let mut valid = BTreeMap::new();
    for (path, _) in vfs.files() {
        if Kind::of(&path) == Kind::Log {
            let raw = vfs.read_file(&path).unwrap();
            let generation = lh::PREV_GENERATION.u32(&raw);
            let first = lh::PREV_FIRST_POSITION.get(&raw);
            let name = match generation {
                0 => format!("log/log-{first:016x}.asl"),
                generation => format!("log/log-{first:016x}-{generation:04x}.asl"),
            };
            valid.insert(name, lh::PREV_VALID_LEN.get(&raw));
        }
    }
    valid
}

#[test]
fn a_whole_store_is_whole() {
    let full = specimen();
    let report = verified(&full.vfs);
    assert_eq!(report.damage, []);
    let kinds: BTreeSet<_> = full
        .vfs
        .files()
        .iter()
        .map(|(path, _)| Kind::of(path))
        .collect();
    assert_eq!(kinds.len(), 8, "a file of every kind: {kinds:?}");
    let has = |what: &str| report.notes.iter().any(|note| note.contains(what));
    assert!(
        has("of a torn append were left behind"),
        "{:?}",
        report.notes
    );
    assert!(has("the next writer moves it"), "{:?}", report.notes);
    assert!(report.counts.log_files > 3 && report.counts.segments > 6);
    assert_eq!(report.counts.snapshots, 2);
    assert_eq!(report.counts.trees, 3);
    let bytes: u64 = full.vfs.files().iter().map(|(_, len)| len).sum();
    assert!(report.counts.bytes > bytes * 9 / 10);
    assert_intact(&full, &reader(&full.vfs).unwrap());
    // With hardly any memory for the index the keys are taken in many parts.
    let options = VerifyOptions {
        index_memory_bytes: 1000,
        threads: 3,
        ..VerifyOptions::default()
    };
    let thrifty = verify(Arc::new(full.vfs.clone()), &options, &()).unwrap();
    assert_eq!(thrifty.damage, []);
    assert_eq!(thrifty.counts.index_records, report.counts.index_records);
    let quick = VerifyOptions {
        quick: true,
        ..options
    };
    let quick = verify(Arc::new(full.vfs.clone()), &quick, &()).unwrap();
    assert_eq!(quick.damage, []);
    assert!(quick.counts.bytes < report.counts.bytes);
}

/// Every flipped byte is found, and none makes a reader give out wrong bytes.
#[test]
fn every_flipped_byte_is_found() {
    let full = specimen();
    let ignored = ignored(&full.vfs);
    let mut tried = 0;
    // A prime, so that every field is met sooner or later; the start differs by file.
    let stride = if all() { 1 } else { 29 };
    for (number, (path, len)) in full.vfs.files().into_iter().enumerate() {
        let kind = Kind::of(&path);
        let valid = ignored.get(&path).copied().unwrap_or(len);
        let payload = payload(&full.vfs, &path);
        let mut at = number as u64 % stride;
        while at < valid && kind != Kind::Nothing {
            let context = format!("byte {at} of {path} flipped");
            let damaged = full.vfs.fork();
            damaged.flip_byte(&path, at).unwrap();
            let report = verified(&damaged);
            assert_names(&report, &path, &context);
            if let Some(entry) = payload
                .iter()
                .rev()
                .find(|entry| u64::from(entry.offset) <= at)
                && entry.info.is_artifact()
                && at < u64::from(entry.offset) + 104 + u64::from(entry.info.stored_len)
            {
                let hit = report
                    .damage
                    .iter()
                    .any(|damage| damage.file == path && damage.keys == [entry.info.key]);
                let copied = reader(&damaged).unwrap().get(&entry.info.key).is_ok();
                assert!(hit || copied, "{context}: {:?}", report.damage);
            }
            if tried % 3 == 0 || all() {
                read_all(&full, &damaged, &context);
            }
            tried += 1;
            let in_payload = payload.iter().any(|entry| {
                let from = u64::from(entry.offset) + 104;
                (from..from + u64::from(entry.info.stored_len)).contains(&at)
            });
            at += if in_payload { 97.max(stride) } else { stride };
        }
    }
    assert!(tried > 1200);
}

/// Files cut short, missing, longer than they were, with a zeroed sector.
#[test]
fn files_that_lost_or_gained_bytes_are_found() {
    let full = specimen();
    let ignored = ignored(&full.vfs);
    let last_log = full.vfs.files().into_iter().map(|(path, _)| path);
    let last_log = last_log
        .filter(|path| Kind::of(path) == Kind::Log)
        .max()
        .unwrap();
    for (path, len) in full.vfs.files() {
        let kind = Kind::of(&path);
        if kind == Kind::Nothing {
            continue;
        }
        let raw = full.vfs.read_file(&path).unwrap();
        let valid = ignored.get(&path).copied().unwrap_or(len) as usize;
        let try_with = |bytes: Option<&[u8]>, must: bool, context: &str| {
            let context = format!("{path} {context}");
            let damaged = full.vfs.fork();
            damaged.remove_file(&path).unwrap();
            if let Some(bytes) = bytes {
                damaged.write_file(&path, bytes).unwrap();
            }
            let report = verified(&damaged);
            if must {
                assert_names(&report, &path, &context);
            } else {
                assert_eq!(report.damage, [], "{context}");
                assert!(!report.notes.is_empty());
            }
            read_all(&full, &damaged, &context);
        };
        // A missing cache is no damage.
        try_with(None, !kind.is_cache(), "deleted");
        let lens = [0, 1, 31, 95, 127, 128, 129, 255, 256, 300, 4095, 4096];
        let lens = lens.into_iter().chain([len as usize / 2, len as usize - 1]);
        for cut in lens.filter(|cut| *cut < raw.len()) {
            try_with(Some(&raw[..cut]), cut < valid, &format!("cut to {cut}"));
        }
        // The log's valid part says where it ends.
        let longer = [&raw[..], &noise(1, 70)].concat();
        try_with(Some(&longer), kind != Kind::Log, "with garbage behind it");
        let zeros = [&raw[..], &[0; 70]].concat();
        try_with(Some(&zeros), kind != Kind::Log, "with zeros behind it");
        for at in (0..raw.len()).step_by(if all() { 512 } else { 2048 }) {
            let mut zeroed = raw.clone();
            let end = raw.len().min(at + 512);
            zeroed[at..end].fill(0);
            if zeroed != raw && at < valid {
                try_with(Some(&zeroed), true, &format!("zeroed from {at} on"));
            }
        }
    }
    // Both of what the last log file and the hint say would have to go for a loss to pass.
    let damaged = full.vfs.fork();
    damaged.remove_file(&last_log).unwrap();
    damaged.remove_file("log/current").unwrap();
    read_all(&full, &damaged, "the log's end and the hint deleted");
}

/// Two files that changed places.
#[test]
fn swapped_files_are_found() {
    let full = specimen();
    let mut by_kind: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    for (path, _) in full.vfs.files() {
        by_kind.entry(Kind::of(&path)).or_default().push(path);
    }
    by_kind.remove(&Kind::Nothing);
    let mut swapped = 0;
    for (kind, paths) in by_kind {
        for (number, a) in paths.iter().enumerate() {
            for b in &paths[number + 1..] {
                let (of_a, of_b) = (
                    full.vfs.read_file(a).unwrap(),
                    full.vfs.read_file(b).unwrap(),
                );
                if of_a == of_b {
                    continue;
                }
                let damaged = full.vfs.fork();
                damaged.write_file(a, &of_b).unwrap();
                damaged.write_file(b, &of_a).unwrap();
                let context = format!("{a} and {b} swapped");
                let report = verified(&damaged);
                assert_names(&report, a, &context);
                assert_names(&report, b, &context);
                if swapped % 5 == 0 || kind != Kind::Segment {
                    read_all(&full, &damaged, &context);
                }
                swapped += 1;
            }
        }
    }
    assert!(swapped > 20);
}

/// What a damaged block held is named, from its frames or from the index.
#[test]
fn lost_artifacts_are_named() {
    let full = specimen();
    let handle = reader(&full.vfs).unwrap();
    let mut seen = 0;
    for (path, len) in full.vfs.files() {
        if Kind::of(&path) != Kind::Block {
            continue;
        }
        let keys: BTreeSet<_> = payload(&full.vfs, &path)
            .iter()
            .filter(|entry| entry.info.is_artifact())
            .map(|entry| entry.info.key)
            .collect();
        let indexed = keys.iter().all(|key| {
            let block = handle.lookup_part(key).unwrap().unwrap().block;
            !handle.with_state(|state| {
                let level0 = &state.level0;
                level0
                    .iter()
                    .any(|(_, e)| *e == asl_store::state::Level0::Block(block.0))
            })
        });
        let missing = full.vfs.fork();
        missing.remove_file(&path).unwrap();
        let trailer = full.vfs.fork();
        trailer.flip_byte(&path, len - 3).unwrap();
        let header = full.vfs.fork();
        header.flip_byte(&path, 40).unwrap();
        for (vfs, known) in [(missing, indexed), (trailer, true), (header, true)] {
            let report = verified(&vfs);
            let named: BTreeSet<_> = report
                .damage
                .iter()
                .flat_map(|damage| damage.keys.clone())
                .collect();
            if known {
                assert!(named.is_superset(&keys), "{path}: {report:?}");
                seen += keys.len();
            }
        }
    }
    assert!(seen > 50);
}

/// Covers B3, S7: how artifacts are packed has no influence on what is read, or on
/// where damage is told.
#[test]
fn no_packing_escapes_verify() {
    for (small_threshold, packed_max) in [(4 << 10, 1), (4 << 10, 64), (32 << 10, 64)] {
        let vfs = FaultVfs::new();
        let params = Params {
            small_threshold,
            packed_max,
            ..small_params()
        };
        create(&vfs, &params, &context(1), &options()).unwrap();
        let mut w = writer(&vfs, 2).unwrap();
        let artifacts = [
            noise(1, 10),
            noise(2, 4095),
            noise(3, 4096),
            noise(4, 20_000),
        ];
        for bytes in &artifacts {
            w.put(frame(bytes)).unwrap();
        }
        w.finish().unwrap();
        assert_eq!(verified(&vfs).damage, []);
        let handle = reader(&vfs).unwrap();
        for bytes in &artifacts {
            let location = handle.locate(&Key::of(bytes)).unwrap();
            assert_eq!(&handle.read(&location).unwrap(), bytes);
            let path =
                handle.with_state(|state| asl_store::index::block_path(state, location.block));
            let damaged = vfs.fork();
            damaged
                .flip_byte(&path, u64::from(location.offset) + 104 + 3)
                .unwrap();
            let report = verified(&damaged);
            assert_eq!(report.damage.len(), 1);
            assert_eq!(report.damage[0].keys, [Key::of(bytes)]);
            assert!(reader(&damaged).unwrap().read(&location).is_err());
        }
    }
}

/// Frames that are longer than what is held at once: raw, compressed, a tree node, a
/// chunk list.
#[test]
fn long_frames_are_checked_in_pieces() {
    let vfs = FaultVfs::new();
    create(&vfs, &Params::default(), &context(1), &options()).unwrap();
    let mut w = writer(&vfs, 2).unwrap();
    let part = noise(9, 1);
    let list = vec![(Key::of(&part), 1); 110_000];
    let whole = Key::of(&part.repeat(110_000));
    let node = asl_store::frame::build_node(9, &vec![Key::of(&part); 140_000], b"");
    let node_flags = format::FLAG_ROOT | format::FLAG_NODE;
    let frames = [
        frame(&part),
        frame(&noise(1, 5 << 20)),
        frame(&noise(2, 1000).repeat(9 << 10)),
        Encoder::chunked(whole, &list, format::FLAG_ROOT),
        Encoder::new(Compression::None).encode(Key::of(&node), node.into(), node_flags),
    ];
    let infos = frames.each_ref().map(|frame| frame.info);
    for frame in frames {
        w.put(frame).unwrap();
    }
    w.finish().unwrap();
    let report = verified(&vfs);
    assert_eq!(report.damage, []);
    assert_eq!(report.counts.trees, 2);
    assert!(infos[2].encoding == format::ENCODING_ZSTD && infos[2].raw_len > 8 << 20);
    let handle = reader(&vfs).unwrap();
    for info in &infos[1..] {
        let record = handle.lookup(&info.key).unwrap().unwrap();
        let path = handle.with_state(|s| asl_store::index::block_path(s, record.block));
        let stored = u64::from(record.offset) + 104;
        let len = u64::from(info.stored_len);
        for at in [stored, stored + len / 2, stored + len - 1] {
            let damaged = vfs.fork();
            damaged.flip_byte(&path, at).unwrap();
            let report = verified(&damaged);
            let damage = names(&report, &path).unwrap();
            assert_eq!(damage.keys, [info.key]);
            assert_eq!(damage.what, "a frame's bytes do not match their hash");
        }
    }
}

/// Where there is no store, verify says so; where there are only its blocks, it
/// reads those.
#[test]
fn without_a_log_the_blocks_are_read() {
    let nothing = FaultVfs::new();
    let options = VerifyOptions::default();
    let error = verify(Arc::new(nothing), &options, &()).unwrap_err();
    assert!(matches!(error, Error::NotAStore));
    let full = specimen();
    let vfs = full.vfs.fork();
    for (path, _) in vfs.files() {
        if matches!(Kind::of(&path), Kind::Log | Kind::Hint) {
            vfs.remove_file(&path).unwrap();
        }
    }
    let report = verified(&vfs);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert_eq!(report.damage[0].file, "log");
    assert!(report.counts.frames > 30);
    let (path, _) = vfs
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with(".blk"))
        .unwrap();
    vfs.flip_byte(&path, 400).unwrap();
    let report = verified(&vfs);
    assert!(
        report
            .damage
            .iter()
            .any(|damage| damage.file == path && damage.keys.len() == 1)
    );
}
