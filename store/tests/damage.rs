//! A damage matrix: what is done to which file, and what verify, readers and repair
//! make of it.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use asl_store::frame::build_node;
use asl_store::vfs::fault::{FaultVfs, OpKind};
use asl_store::{
    Compression, Encoder, Frame, Key, SessionId, StoreWriter, VerifyOptions, VerifyReport,
    WriteOptions, create, format, verify,
};
use common::*;

/// A store that has a file of every kind, and what is in it.
struct Fixture {
    vfs: FaultVfs,
    /// Visible artifacts.
    visible: BTreeMap<Key, Vec<u8>>,
    hidden: Vec<Key>,
}

/// Log files so short that there are several.
fn short_logs() -> WriteOptions {
    WriteOptions {
        log_file_len: 1500,
        ballast_bytes: 0,
        ..options()
    }
}

fn open(vfs: &FaultVfs, seed: u8) -> asl_store::Result<StoreWriter> {
    StoreWriter::open(Arc::new(vfs.clone()), context(seed), short_logs())
}

fn put(f: &mut Fixture, w: &mut StoreWriter, frame: Frame, bytes: Vec<u8>) {
    w.put(frame).unwrap();
    f.visible.insert(Key::of(&bytes), bytes);
}

fn put_noise(f: &mut Fixture, w: &mut StoreWriter, n: u64, len: usize) {
    let bytes = noise(n, len);
    put(f, w, frame(&bytes), bytes);
}

fn put_soft(f: &mut Fixture, w: &mut StoreWriter, n: u64, len: usize) {
    let bytes: Vec<u8> = noise(n, 50).iter().copied().cycle().take(len).collect();
    put(f, w, frame(&bytes), bytes);
}

fn node(kind: u32, children: &[Key], flags: u16) -> (Frame, Vec<u8>) {
    let bytes = build_node(kind, children, b"body");
    let flags = flags | format::FLAG_NODE;
    let made = Encoder::new(Compression::None).encode(Key::of(&bytes), bytes.clone().into(), flags);
    (made, bytes)
}

fn fixture() -> Fixture {
    let vfs = FaultVfs::new();
    create(&vfs, &small_params(), &context(1), &short_logs()).unwrap();
    let mut f = Fixture {
        vfs: vfs.clone(),
        visible: BTreeMap::new(),
        hidden: Vec::new(),
    };
    let mut w = open(&vfs, 2).unwrap();
    for n in 0..30 {
        put_noise(&mut f, &mut w, n, 40 + 13 * n as usize);
        put_soft(&mut f, &mut w, 100 + n, 200 + 100 * n as usize);
    }
    w.note(format::NOTE_MAP, noise(900, 77)).unwrap();
    put_noise(&mut f, &mut w, 200, 20 << 10);
    w.commit().unwrap();

    // A chunked artifact and a tree, in a session.
    let session = SessionId([5; 16]);
    w.begin_session(session, b"{}").unwrap();
    let parts = [noise(300, 9000), noise(301, 3000)];
    let list: Vec<_> = parts.iter().map(|p| (Key::of(p), p.len() as u64)).collect();
    for part in &parts {
        let made = Encoder::new(Compression::None).encode(Key::of(part), part.clone().into(), 0);
        put(&mut f, &mut w, made, part.clone());
    }
    let whole = parts.concat();
    put(
        &mut f,
        &mut w,
        Encoder::chunked(Key::of(&whole), &list, format::FLAG_ROOT),
        whole,
    );
    let leaf_keys: Vec<_> = (0..5)
        .map(|n| Key::of(&noise(n, 40 + 13 * n as usize)))
        .collect();
    let (leaf, leaf_bytes) = node(1, &leaf_keys, 0);
    let (root, root_bytes) = node(3, &[Key::of(&leaf_bytes)], format::FLAG_ROOT);
    let root_key = root.info.key;
    put(&mut f, &mut w, leaf, leaf_bytes);
    put(&mut f, &mut w, root, root_bytes);
    w.commit().unwrap();
    w.end_session(format::SESSION_FINISHED, Some(root_key), b"{\"done\":1}")
        .unwrap();
    w.flush().unwrap();
    w.snapshot("first").unwrap();

    // A root and a part of the tree, hidden; segments upon segments.
    for n in [2, 7] {
        let key = Key::of(&noise(n, 40 + 13 * n as usize));
        w.tombstone(&[key]).unwrap();
        f.visible.remove(&key);
        f.hidden.push(key);
    }
    for n in 400..430 {
        put_noise(&mut f, &mut w, n, 90);
    }
    w.flush().unwrap();
    w.commit().unwrap();
    w.flush().unwrap();
    // A torn append in the middle of the log: the write fails, the next file goes on.
    let armed = std::sync::atomic::AtomicBool::new(true);
    vfs.set_hook(move |op| {
        let hit = op.kind == OpKind::Write && op.path.starts_with("log/log-");
        (hit && armed.swap(false, std::sync::atomic::Ordering::Relaxed)).then_some(5)
    });
    put_noise(&mut f, &mut w, 500, 300);
    w.commit().unwrap();
    vfs.clear_faults();
    w.snapshot("second").unwrap();
    let known = f.visible.keys().next().copied().unwrap();
    let entry = w.handle().lookup(&known).unwrap().unwrap();
    w.index_add(&[entry]).unwrap();

    // What a dead writer left.
    put_noise(&mut f, &mut w, 600, 700);
    w.sync().unwrap();
    std::mem::forget(w);
    vfs.release_locks();
    let mut w = open(&vfs, 3).unwrap();
    assert_eq!(w.recovery().salvaged_blocks, 1);
    put_noise(&mut f, &mut w, 601, 800);
    w.finish().unwrap();
    f
}

fn verified(vfs: &FaultVfs) -> VerifyReport {
    let options = VerifyOptions {
        threads: 1,
        ..VerifyOptions::default()
    };
    verify(Arc::new(vfs.clone()), &options, &()).unwrap()
}

#[test]
fn a_whole_store_is_whole() {
    let f = fixture();
    let report = verified(&f.vfs);
    assert_eq!(report.damage, []);
}
