//! What no checksum finds: every rule of the format that verify checks, broken in a
//! store whose checksums, digests and chains are right.

mod common;
mod forge;

use std::sync::Arc;

use asl_store::format::{
    self, block_header as bh, created_payload as cp, current_hint as ch, index_add_payload as ap,
    index_record as ir, lease_payload as lp, log_header as lh, seal_payload as sp,
    segments_payload as gp, session_payload as np, snapshot_payload as pp, tombstone_payload as tp,
};
use asl_store::frame::FrameInfo;
use asl_store::{Encoder, Key, SessionId, VerifyOptions, verify};
use common::*;
use forge::*;

/// Forging alone changes nothing: all the rest follows from what is forged.
#[test]
fn an_honest_forgery_is_clean() {
    let vfs = small_store();
    assert_eq!(verified(&vfs).damage, []);
    let mut forge = Forge::of(&vfs);
    for nth in 0..7 {
        forge.block(nth, |_| ());
    }
    forge.segment(|_| ());
    let vfs = forge.done();
    // The filter is for the segment with the digest that was.
    let report = verified(&vfs);
    assert_eq!(report.damage, []);
    assert_eq!(report.counts.records, 14);
}

#[test]
fn log_headers() {
    let vfs = small_store();
    for field in [lh::PAD, lh::RESERVED] {
        let mut forge = Forge::of(&vfs);
        forge.header[field.offset] = 1;
        assert_found(&forge.done(), "log/log-", "a header with");
    }
    let mut forge = Forge::of(&vfs);
    forge.header[lh::PREV_CHAIN.offset] ^= 1;
    assert_found(&forge.done(), "log/log-", "does not begin as one does");
    let mut forge = Forge::of(&vfs);
    lh::FLAGS.set(&mut forge.header, 1u32);
    let error = verify(Arc::new(forge.done()), &VerifyOptions::default(), &()).unwrap_err();
    assert!(matches!(error, asl_store::Error::UnknownFlags { .. }));
}

type ChangePayload = fn(&mut Vec<u8>);

#[test]
fn records() {
    let vfs = small_store();
    let cases: &[(u16, usize, ChangePayload, &str)] = &[
        (1, 0, |p| p[cp::PAD.offset] = 1, "padding that is not zero"),
        (1, 0, |p| p[cp::RESERVED.offset] = 1, "reserved bytes"),
        (2, 0, |p| p[lp::PAD.offset] = 1, "padding that is not zero"),
        (3, 0, |p| p[sp::PAD.offset] = 1, "padding that is not zero"),
        (3, 0, |p| p[sp::RESERVED.offset] = 1, "reserved bytes"),
        (4, 0, |p| p[ap::PAD.offset] = 1, "padding that is not zero"),
        (4, 0, |p| p[ap::LEN + ir::PAD.offset] = 1, "padding that"),
        (
            4,
            0,
            |p| p[ap::LEN + ir::RESERVED.offset] = 1,
            "reserved bytes",
        ),
        (8, 0, |p| p[np::PAD.offset] = 1, "padding that is not zero"),
        (8, 0, |p| p[np::RESERVED.offset] = 1, "reserved bytes"),
        (
            3,
            5,
            |p| sp::BLOCK_ID.set(p, 1u64),
            "it seals block 0000000000000001 again",
        ),
        (
            3,
            5,
            |p| sp::BLOCK_ID.set(p, 1000u64),
            "which was never leased",
        ),
        (
            3,
            5,
            |p| sp::BLOCK_ID.set(p, 0u64),
            "which was never leased",
        ),
        (
            4,
            0,
            |p| ir::BLOCK_ID.set(&mut p[ap::LEN..], 60u64),
            "points into block",
        ),
        (5, 0, |p| tp::BLOCK_ID.set(p, 60u64), "which is not sealed"),
        (
            8,
            0,
            |p| np::KIND.set(p, 9u8),
            "an unknown kind of session record",
        ),
        (8, 0, |p| p.push(0), "does not parse"),
        (5, 0, |p| p.push(0), "does not parse"),
        (6, 0, |p| p.push(0), "does not parse"),
        (3, 0, |p| p.push(0), "does not parse"),
        (2, 0, |p| p.push(0), "does not parse"),
        (6, 0, |p| gp::COVERS.set(p, 99u64), "does not parse"),
    ];
    for (record_type, nth, change, what) in cases {
        let mut forge = Forge::of(&vfs);
        forge.payload(*record_type, *nth, change);
        assert_found(&forge.done(), "log/log-", what);
    }
    for record_type in 1..=6 {
        let mut forge = Forge::of(&vfs);
        let at = forge.nth(record_type, 0);
        forge.records[at].flags = 0;
        assert_found(&forge.done(), "log/log-", "not marked critical");
    }
    let mut forge = Forge::of(&vfs);
    let lease = forge.records[forge.nth(2, 0)].clone();
    forge.records.push(lease);
    assert_found(&forge.done(), "log/log-", "it leases block");
    let mut forge = Forge::of(&vfs);
    let created = forge.records[0].clone();
    forge.records.push(created);
    assert_found(
        &forge.done(),
        "log/log-",
        "a second record of a store's creation",
    );
    let mut forge = Forge::of(&vfs);
    forge.payload(1, 0, |p| cp::SHARDS.set(p, 3u32));
    assert_found(&forge.done(), "log/log-", "shards");
    let mut forge = Forge::of(&vfs);
    forge.records.remove(0);
    assert_found(&forge.done(), "log/log-", "does not begin");
    // What is unknown and not critical is skipped; what is critical is not.
    let unknown = |flags| Rec {
        record_type: 40,
        flags,
        time: 0,
        payload: vec![1; 9],
    };
    let mut forge = Forge::of(&vfs);
    forge.records.push(unknown(0));
    assert_eq!(verified(&forge.done()).damage, []);
    let mut forge = Forge::of(&vfs);
    forge.records.push(unknown(format::RECORD_CRITICAL));
    let error = verify(Arc::new(forge.done()), &VerifyOptions::default(), &()).unwrap_err();
    assert!(matches!(error, asl_store::Error::UnknownCritical { .. }));
}

type ChangeHint = fn(&mut [u8]);

#[test]
fn hints() {
    let vfs = small_store();
    let cases: &[(ChangeHint, &str)] = &[
        (|h| h[ch::PAD.offset] = 1, "padding that is not zero"),
        (|h| h[ch::RESERVED.offset] = 1, "reserved bytes"),
        (|h| h[ch::CHAIN.offset] ^= 1, "remembers other records"),
        (|h| ch::POSITION.set(h, 3u64), "remembers other records"),
        (
            |h| ch::VALID_LEN.set(h, 136u64),
            "does not begin where it says",
        ),
        (
            |h| ch::SNAPSHOT.set(h, 1u64),
            "another snapshot than the newest",
        ),
    ];
    for (change, what) in cases {
        assert_found(&Forge::of(&vfs).done_with(change), "log/current", what);
    }
    let more = |h: &mut [u8]| ch::POSITION.set(h, 99u64);
    let vfs = Forge::of(&vfs).done_with(more);
    assert_found(&vfs, "log/log-", "log/current remembers 99");
}

type ChangeBlock = fn(&mut Block);

#[test]
fn blocks() {
    let vfs = small_store();
    let cases: &[(usize, ChangeBlock, &str)] = &[
        (0, |b| b.header[bh::PAD.offset] = 1, "a header with padding"),
        (
            0,
            |b| b.header[bh::RESERVED.offset] = 1,
            "a header with reserved",
        ),
        (0, |b| bh::CLASS.set(&mut b.header, 3u8), "an unknown class"),
        (0, |b| b.trailer_reserved = 1, "a trailer with reserved"),
        (0, |b| b.trailer_flags = 1, "it was salvaged"),
        (
            0,
            |b| bh::BLOCK_ID.set(&mut b.header, 9u64),
            "another id than its record",
        ),
        (
            0,
            |b| b.header[bh::STORE_ID.offset] ^= 1,
            "a block of another store",
        ),
        (
            0,
            |b| b.header[bh::SESSION.offset] ^= 1,
            "another class or session",
        ),
        (
            0,
            |b| bh::CLASS.set(&mut b.header, 2u8),
            "another class or session",
        ),
        (
            0,
            |b| bh::BASE_POSITION.set(&mut b.header, 99u64),
            "begun later than",
        ),
        (
            0,
            |b| b.frames[0].0.note_type = 7,
            "an artifact with the type of a note",
        ),
        (
            4,
            |b| b.frames[0].0.flags = 1,
            "a note with the flags of an artifact",
        ),
        (5, |b| with(b, 0, vec![1; 33]), "no list of keys"),
        (
            4,
            |b| with(b, 0, vec![1; 71]),
            "a session that is too short",
        ),
        // Contents that are not those of the frames.
        (
            0,
            |b| {
                let mut toc: Vec<_> = b.frames.iter().map(|(info, _)| *info).collect();
                toc[1].flags = 0;
                b.toc = Some(toc);
            },
            "not as the table of contents says",
        ),
        // A compressed artifact under the key, or of the length, of another.
        (
            0,
            |b| b.frames[6].0.key = Key([1; 32]),
            "does not match its key",
        ),
        (0, |b| b.frames[6].0.raw_len -= 1, "do not decode"),
        (0, |b| b.frames[6].0.raw_len += 1, "do not decode"),
        (2, |b| b.frames[2].0.raw_len += 1, "does not add up"),
        (2, |b| with(b, 2, vec![0; 9]), "count disagree"),
        (2, |b| with(b, 2, vec![9; 3]), "without a head"),
        (
            3,
            |b| key_of(b, 0, b"ASLNODE2 and more"),
            "without its head",
        ),
        (3, |b| key_of(b, 0, b"short"), "without its head"),
        (
            3,
            |b| key_of(b, 0, b"ASLNODE1\x01\0\0\0\x02\0\0\0 few"),
            "shorter than its children",
        ),
    ];
    for (nth, change, what) in cases {
        let mut forge = Forge::of(&vfs);
        forge.block(*nth, change);
        assert_found(&forge.done(), "blocks/sealed", what);
    }
    let cases: &[(ChangePayload, &str)] = &[
        (|p| sp::FRAME_COUNT.set(p, 6u32), "another number of frames"),
        (
            |p| sp::ARTIFACT_COUNT.set(p, 6u32),
            "another number of frames",
        ),
        (
            |p| sp::ARTIFACT_BYTES.set(p, 6u64),
            "other lengths of artifacts",
        ),
        (|p| sp::CLASS.set(p, 2u8), "another class or session"),
        (|p| sp::SESSION.put(p, &[1; 16]), "another class or session"),
        (|p| sp::ORIGIN.set(p, 4u8), "an unknown origin"),
        (|p| sp::FILE_LEN.set(p, 600u64), "the log says 600"),
    ];
    for (change, what) in cases {
        let mut forge = Forge::of(&vfs);
        forge.payload(format::RECORD_SEAL, 0, change);
        assert_found(&forge.done(), "blocks/sealed", what);
    }
    // An imported block has kept the names that it was born with.
    let mut forge = Forge::of(&vfs);
    forge.block(0, |b| {
        b.header[bh::STORE_ID.offset] ^= 1;
        bh::BLOCK_ID.set(&mut b.header, 77u64);
    });
    forge.payload(format::RECORD_SEAL, 0, |p| {
        sp::ORIGIN.set(p, format::ORIGIN_IMPORTED);
    });
    assert_eq!(verified(&forge.done()).damage, []);
    // A file that is a whole block, but not the one of its name.
    let paths: Vec<_> = vfs.files().into_iter().map(|(path, _)| path).collect();
    let mut blocks = paths.iter().filter(|path| path.ends_with(".blk"));
    let (first, second) = (blocks.next().unwrap(), blocks.next().unwrap());
    let stray = vfs.fork();
    let name = first.replace(&first[17..19], "ff");
    stray
        .write_file(&name, &vfs.read_file(second).unwrap())
        .unwrap();
    assert_found(&stray, &name, "not the block that its name says");
}

/// What only decoding tells of a frame that is too long to be held.
#[test]
fn long_frames() {
    let vfs = asl_store::vfs::fault::FaultVfs::new();
    asl_store::create(&vfs, &asl_store::Params::default(), &context(1), &options()).unwrap();
    let mut w = writer(&vfs, 2).unwrap();
    let long = noise(2, 1000).repeat(9 << 10);
    w.put(frame(&long)).unwrap();
    let parts = vec![(Key::of(b"x"), 1); 110_000];
    w.put(frame(b"x")).unwrap();
    w.put(Encoder::chunked(Key::of(&[b'x'; 110_000]), &parts, 0))
        .unwrap();
    w.finish().unwrap();
    assert_eq!(verified(&Forge::of(&vfs).done()).damage, []);
    let cases: &[(usize, ChangeBlock, &str)] = &[
        (
            0,
            |b| b.frames[0].0.key = Key([1; 32]),
            "does not match its key",
        ),
        (0, |b| b.frames[0].0.raw_len -= 1, "do not decode"),
        (0, |b| b.frames[0].0.raw_len += 1, "do not decode"),
        (
            0,
            |b| b.frames[0].0.flags |= format::FLAG_NODE,
            "without its head",
        ),
        (1, |b| b.frames[1].0.raw_len += 1, "does not add up"),
        (1, |b| b.frames[1].1[0] ^= 1, "do not match their hash"),
    ];
    for (nth, change, what) in cases {
        let mut forge = Forge::of(&vfs);
        forge.block(*nth, change);
        assert_found(&forge.done(), "blocks/sealed", what);
    }
}

/// Other stored bytes for a frame.
fn with(block: &mut Block, frame: usize, stored: Vec<u8>) {
    let (info, held) = &mut block.frames[frame];
    info.stored_len = stored.len() as u32;
    info.check = *blake3::hash(&stored).as_bytes();
    if info.encoding == format::ENCODING_RAW {
        info.raw_len = stored.len() as u64;
    }
    *held = stored;
}

/// Another artifact in place of one.
fn key_of(block: &mut Block, frame: usize, bytes: &[u8]) {
    with(block, frame, bytes.to_vec());
    block.frames[frame].0.key = Key::of(bytes);
}

/// Covers S4: a block that mixes small and large artifacts is warned of, not damage.
#[test]
fn mixed_blocks_are_warned_of() {
    let vfs = small_store();
    let large = noise(20, 17 << 10);
    let mut forge = Forge::of(&vfs);
    forge.block(0, |b| {
        b.frames.push((
            FrameInfo {
                key: Key([0; 32]),
                ..b.frames[0].0
            },
            Vec::new(),
        ));
        let last = b.frames.len() - 1;
        key_of(b, last, &large);
    });
    forge.block(1, |b| key_of(b, 0, b"small"));
    let report = verified(&forge.done());
    // The index knows nothing of the forged ones; the blocks themselves are good.
    assert!(report.damage.iter().all(|d| d.file.starts_with("index/")));
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    let has = |what: &str| report.warnings.iter().any(|of| of.contains(what));
    assert!(has(": 1 large artifacts are packed with others"));
    assert!(has(": a block for one large artifact holds 1, 1 of them"));
    assert_eq!(verified(&vfs).warnings, [] as [&str; 0]);
}

/// A state that its record pins, but that the log does not lead to, would be believed.
#[test]
fn pinned_states_must_be_the_logs() {
    let vfs = small_store();
    let mut w = writer(&vfs, 3).unwrap();
    w.snapshot("one").unwrap();
    w.finish().unwrap();
    assert_eq!(verified(&vfs).damage, []);
    let path = asl_store::current::state_path(1);
    let mut forge = Forge::of(&vfs);
    let mut state = reader(&vfs).unwrap().with_state(|state| state.clone());
    state.snapshots.clear();
    state.next_block += 1;
    let bytes = asl_store::current::encode_state(&state);
    let digest = asl_store::current::state_digest(&bytes);
    vfs.write_file(&path, &bytes).unwrap();
    forge.vfs.write_file(&path, &bytes).unwrap();
    forge.payload(format::RECORD_SNAPSHOT, 0, |p| {
        pp::STATE_DIGEST.put(p, &digest.0)
    });
    let forged = forge.done();
    let damage = verified(&forged).damage;
    assert!(
        damage
            .iter()
            .any(|d| d.file == path && !d.cache && d.what.contains("not what the log"))
    );
    let mut forge = Forge::of(&small_store());
    let snapshot = asl_store::state::snapshot_record(7, &digest, "");
    forge.records.push(Rec {
        record_type: snapshot.record_type,
        flags: format::RECORD_CRITICAL,
        time: 0,
        payload: snapshot.payload,
    });
    assert_found(&forge.done(), "log/log-", "snapshot 7 where 1 comes next");
}

/// Trees and chunk lists whose parts are missing or add up to something else.
#[test]
fn trees() {
    let vfs = small_store();
    let nobody = Key([7; 32]);
    let mut w = writer(&vfs, 3).unwrap();
    let inner = node(2, &[nobody, Key::of(&noise(0, 100))], 0);
    let inner_key = inner.info.key;
    let orphan = node(2, &[Key([8; 32])], 0);
    put_all(
        &mut w,
        vec![inner, node(3, &[inner_key], format::FLAG_ROOT), orphan],
    );
    let report = verified(&vfs);
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert_eq!(report.damage[0].keys, [nobody]);
    assert!(
        report.damage[0]
            .what
            .contains("has a child that is not stored")
    );
    // Hidden, nobody misses its parts.
    let root = node(3, &[inner_key], format::FLAG_ROOT).info.key;
    w.tombstone(&[root]).unwrap();
    assert_eq!(verified(&vfs).damage, []);

    let parts = [noise(30, 500), noise(31, 600)];
    let list = |a: usize, b: usize| {
        let of = |at: usize| (Key::of(&parts[at]), parts[at].len() as u64);
        [of(a), of(b)]
    };
    let wrong_order = Encoder::chunked(Key([1; 32]), &list(1, 0), format::FLAG_ROOT);
    let missing = Encoder::chunked(Key([2; 32]), &[(nobody, 5)], format::FLAG_ROOT);
    let wrong_len = Encoder::chunked(Key([3; 32]), &[(Key::of(&parts[0]), 5)], format::FLAG_ROOT);
    put_all(&mut w, vec![wrong_order, missing, wrong_len]);
    let report = verified(&vfs);
    let of = |n: u8| {
        let mut of_key = report
            .damage
            .iter()
            .filter(|damage| damage.keys == [Key([n; 32])]);
        of_key.next().map(|damage| damage.what.clone()).unwrap()
    };
    assert_eq!(report.damage.len(), 3, "{:?}", report.damage);
    assert!(of(1).contains("whole does not match the key"));
    assert!(of(2).contains("a part of it is not stored"));
    assert!(of(3).contains("another length"));

    // Nodes below nodes, more than anybody follows.
    let vfs = small_store();
    let mut w = writer(&vfs, 3).unwrap();
    let mut frames = vec![node(1, &[Key::of(&noise(0, 100))], 0)];
    for level in 0..20 {
        let flags = if level == 19 { format::FLAG_ROOT } else { 0 };
        frames.push(node(2, &[frames[level].info.key], flags));
    }
    put_all(&mut w, frames);
    assert_found(&vfs, "blocks/sealed", "nested too deeply");

    // A session's root counts even if nobody made it a root.
    let vfs = small_store();
    let mut w = writer(&vfs, 3).unwrap();
    w.begin_session(SessionId([6; 16]), b"").unwrap();
    let paused = node(2, &[nobody], 0);
    let key = paused.info.key;
    put_all(&mut w, vec![paused]);
    w.end_session(format::SESSION_PAUSED, Some(key), b"")
        .unwrap();
    assert_found(&vfs, "blocks/sealed", "has a child that is not stored");
}

#[test]
fn names() {
    let vfs = small_store();
    let strays = [
        "notes.txt",
        "blocks/other",
        "blocks/open/blk_1.tmp",
        "blocks/sealed/xy/file",
        "blocks/sealed/ab/cd.blk",
        "index/shard-00/x",
        "index/shard-000/segment-1.idx",
        "index/shard-000/new",
        "log/log-1.asl",
        "log/other",
        "snapshots/other/x",
        "snapshots/snapshot-00000001/other",
    ];
    for path in strays {
        vfs.write_file(path, b"?").unwrap();
    }
    for path in ["lost+found/x", ".Trash-0/x", "tmp/scratch/x"] {
        vfs.write_file(path, b"?").unwrap();
    }
    let report = verified(&vfs);
    assert_eq!(report.damage, []);
    for path in strays {
        let stray = ["index/shard-00", "snapshots/other", "blocks/sealed/xy"]
            .into_iter()
            .find(|dir| path.starts_with(&format!("{dir}/")))
            .unwrap_or(path);
        let noted = report.notes.iter().any(|note| {
            note.starts_with(&format!("{stray} is not part"))
                || note.starts_with(&format!("{path} is not part"))
        });
        assert!(noted, "{path}: {:?}", report.notes);
    }
    assert!(
        report
            .notes
            .iter()
            .all(|note| !note.contains("lost+found") && !note.contains("tmp/"))
    );
    vfs.write_file("blocks/open/blk_00000000000000ff.tmp", b"?")
        .unwrap();
    vfs.write_file("index/shard-000/segment-0077.idx", b"?")
        .unwrap();
    let report = verified(&vfs);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("the next writer salvages it"))
    );
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("segment-0077.idx is not in use"))
    );
}

/// Blocks that a crash left without a record are noted, and looked at all the same.
#[test]
fn blocks_without_a_record_are_read() {
    let vfs = small_store();
    let mut forge = Forge::of(&vfs);
    forge.records.pop();
    let seal = forge.records.pop().unwrap();
    assert_eq!(seal.record_type, format::RECORD_SEAL);
    let vfs = forge.done();
    let report = verified(&vfs);
    assert_eq!(report.damage, []);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("the next writer logs it"))
    );
    let digest = asl_store::id::Digest(sp::DIGEST.array(&seal.payload));
    let path = asl_store::block::sealed_path(&digest);
    vfs.flip_byte(&path, 256 + 104 + 5).unwrap();
    let report = verified(&vfs);
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].keys, [Key::of(&noise(40, 100))]);
}
