//! A store that has a file of every kind, what is in it, and what is asked of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use asl_store::frame::build_node;
use asl_store::vfs::fault::{FaultVfs, OpKind};
use asl_store::vfs::{Access, Vfs};
use asl_store::{
    Compression, Damage, Encoder, Frame, Key, RepairOptions, Result, SessionId, StoreHandle,
    StoreWriter, VerifyOptions, VerifyReport, WriteOptions, block, create, format, repair, verify,
};

use crate::common::{context, frame, noise, options, reader, small_params};

/// The store and its artifacts.
pub struct Specimen {
    pub vfs: FaultVfs,
    pub visible: BTreeMap<Key, Vec<u8>>,
    /// Hidden roots that are still part of a tree.
    pub hidden: BTreeMap<Key, Vec<u8>>,
}

/// Log files so short that there are several.
pub fn short_logs() -> WriteOptions {
    WriteOptions {
        log_file_len: 1000,
        ballast_bytes: 512,
        ..options()
    }
}

fn open(vfs: &FaultVfs, seed: u8) -> Result<StoreWriter> {
    StoreWriter::open(Arc::new(vfs.clone()), context(seed), short_logs())
}

fn node(kind: u32, children: &[Key], flags: u16) -> (Frame, Vec<u8>) {
    let bytes = build_node(kind, children, b"body");
    let flags = flags | format::FLAG_NODE;
    let made = Encoder::new(Compression::None).encode(Key::of(&bytes), bytes.clone().into(), flags);
    (made, bytes)
}

/// Artifact number `n` of those that do not compress.
fn hard(n: u64) -> Vec<u8> {
    noise(n, 40 + 13 * n as usize)
}

impl Specimen {
    fn put(&mut self, w: &mut StoreWriter, frame: Frame, bytes: Vec<u8>) {
        w.put(frame).unwrap();
        self.visible.insert(Key::of(&bytes), bytes);
    }

    fn put_noise(&mut self, w: &mut StoreWriter, n: u64, len: usize) {
        let bytes = noise(n, len);
        self.put(w, frame(&bytes), bytes);
    }
}

/// Builds it: packed and large blocks, a salvaged one and one that a power cut moved back
/// to where it was open; log files, one with a torn end; segments and filters;
/// snapshots; tombstones, notes, a chunked artifact, a session with a tree.
pub fn specimen() -> Specimen {
    let vfs = FaultVfs::new();
    create(&vfs, &small_params(), &context(1), &short_logs()).unwrap();
    let mut full = Specimen {
        vfs: vfs.clone(),
        visible: BTreeMap::new(),
        hidden: BTreeMap::new(),
    };
    let mut w = open(&vfs, 2).unwrap();
    for n in 0..10 {
        full.put(&mut w, frame(&hard(n)), hard(n));
        let soft: Vec<u8> = noise(100 + n, 50).repeat(3 + 5 * n as usize);
        full.put(&mut w, frame(&soft), soft);
    }
    w.note(format::NOTE_MAP, noise(900, 77)).unwrap();
    full.put_noise(&mut w, 200, 17 << 10);
    w.commit().unwrap();

    w.begin_session(SessionId([5; 16]), b"{}").unwrap();
    let parts = [noise(300, 3000), noise(301, 1000)];
    for part in &parts {
        let made = Encoder::new(Compression::None).encode(Key::of(part), part.clone().into(), 0);
        full.put(&mut w, made, part.clone());
    }
    let list: Vec<_> = parts.iter().map(|p| (Key::of(p), p.len() as u64)).collect();
    let whole = parts.concat();
    let chunked = Encoder::chunked(Key::of(&whole), &list, format::FLAG_ROOT);
    full.put(&mut w, chunked, whole);
    let children: Vec<_> = (0..5).map(|n| Key::of(&hard(n))).collect();
    let (leaf, leaf_bytes) = node(1, &children, 0);
    let (root, root_bytes) = node(3, &[Key::of(&leaf_bytes)], format::FLAG_ROOT);
    let root_key = root.info.key;
    full.put(&mut w, leaf, leaf_bytes);
    full.put(&mut w, root, root_bytes);
    w.commit().unwrap();
    w.end_session(format::SESSION_FINISHED, Some(root_key), b"{\"done\":1}")
        .unwrap();
    w.flush().unwrap();
    w.snapshot("first").unwrap();

    for n in [2, 4] {
        let key = Key::of(&hard(n));
        w.tombstone(&[key]).unwrap();
        full.hidden.insert(key, full.visible.remove(&key).unwrap());
    }
    for n in 400..408 {
        full.put_noise(&mut w, n, 90);
    }
    w.commit().unwrap();
    w.flush().unwrap();

    // A torn append in the middle of the log: the write fails, another file goes on.
    let armed = AtomicBool::new(true);
    vfs.set_seed(3);
    vfs.set_hook(move |op| {
        let hit = op.kind == OpKind::Write && op.path.starts_with("log/log-") && op.len > 128;
        (hit && armed.swap(false, Ordering::Relaxed)).then_some(5)
    });
    full.put_noise(&mut w, 500, 300);
    w.commit().unwrap();
    vfs.clear_faults();
    w.snapshot("second").unwrap();
    let known = *full.visible.keys().next().unwrap();
    let entry = w.handle().lookup(&known).unwrap().unwrap();
    w.index_add(&[entry]).unwrap();

    // What a dead writer left.
    full.put_noise(&mut w, 600, 700);
    w.sync().unwrap();
    std::mem::forget(w);
    vfs.release_locks();
    let mut w = open(&vfs, 3).unwrap();
    assert_eq!(w.recovery().salvaged_blocks, 1);
    full.put_noise(&mut w, 601, 800);
    w.commit().unwrap();
    // Its move to `sealed` did not last.
    let block = w.locate(&Key::of(&noise(601, 800))).unwrap().block;
    let sealed = w
        .handle()
        .with_state(|state| asl_store::index::block_path(state, block));
    w.finish().unwrap();
    vfs.rename(&sealed, &block::open_path(block)).unwrap();
    full
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Log,
    Hint,
    Block,
    Segment,
    Filter,
    State,
    Rendering,
    /// Its bytes mean nothing.
    Nothing,
}

impl Kind {
    pub fn of(path: &str) -> Self {
        match path {
            "log/current" => Self::Hint,
            path if path.starts_with("log/") => Self::Log,
            path if path.starts_with("blocks/sealed/") => Self::Block,
            path if path.ends_with(".idx") => Self::Segment,
            path if path.ends_with("bloom.bin") => Self::Filter,
            path if path.ends_with("state.bin") => Self::State,
            path if path.starts_with("snapshots/") => Self::Rendering,
            // A block that the log names, but that a power cut moved back.
            path if path.starts_with("blocks/open/") => Self::Block,
            _ => Self::Nothing,
        }
    }

    pub fn is_cache(self) -> bool {
        matches!(
            self,
            Self::Hint | Self::Filter | Self::State | Self::Rendering
        )
    }
}

pub fn verified(vfs: &FaultVfs) -> VerifyReport {
    let options = VerifyOptions {
        threads: 1,
        ..VerifyOptions::default()
    };
    verify(Arc::new(vfs.clone()), &options, &()).unwrap()
}

pub fn repaired(
    vfs: &FaultVfs,
    options: RepairOptions,
) -> asl_store::Result<asl_store::RepairReport> {
    let options = RepairOptions {
        write: short_logs(),
        ..options
    };
    repair(Arc::new(vfs.clone()), context(77), &options)
}

/// Reads everything; whatever comes is right.
pub fn read_all(full: &Specimen, vfs: &FaultVfs, context: &str) {
    let Ok(handle) = reader(vfs) else {
        return;
    };
    let known = full.visible.iter().chain(&full.hidden);
    for (key, bytes) in known {
        if let Ok(read) = handle.get(key) {
            assert!(read == *bytes, "{context}: wrong bytes of {key}");
        }
        if let Ok(read) = handle.get_part(key) {
            assert!(read == *bytes, "{context}: wrong bytes of part {key}");
        }
    }
    let _ = handle.for_each(&mut |record| {
        let ever = full.visible.contains_key(&record.key) || full.hidden.contains_key(&record.key);
        assert!(ever, "{context}: nobody put {}", record.key);
        Ok(())
    });
    for snapshot in handle.with_state(|state| state.snapshots.clone()) {
        if let Ok(then) = handle.at(&snapshot.id().to_string(), None) {
            for (key, bytes) in &full.visible {
                if let Ok(read) = then.get(key) {
                    assert!(read == *bytes, "{context}: wrong bytes of {key} then");
                }
            }
        }
    }
}

/// Everything is there and right.
pub fn assert_intact(full: &Specimen, handle: &StoreHandle) {
    for (key, bytes) in &full.visible {
        assert_eq!(&handle.get(key).unwrap(), bytes);
    }
    for key in full.hidden.keys() {
        assert!(handle.lookup(key).unwrap().is_none());
    }
}

/// The report names the file, as a cache if it is one. What is wrong with the log may
/// be told of another of its files.
pub fn names<'a>(report: &'a VerifyReport, path: &str) -> Option<&'a Damage> {
    let kind = Kind::of(path);
    report.damage.iter().find(|damage| match kind {
        Kind::Log => Kind::of(&damage.file) == Kind::Log && !damage.cache,
        // Gone from there, it is missed where it belongs.
        Kind::Block if path.starts_with("blocks/open/") => {
            Kind::of(&damage.file) == Kind::Block && !damage.cache
        }
        kind => damage.file == path && damage.cache == kind.is_cache(),
    })
}

pub fn assert_names(report: &VerifyReport, path: &str, context: &str) {
    assert!(
        names(report, path).is_some(),
        "{context}: {:?}",
        report.damage
    );
}

/// The frames of a block; none of another file.
pub fn payload(vfs: &FaultVfs, path: &str) -> Vec<block::Entry> {
    if Kind::of(path) != Kind::Block {
        return Vec::new();
    }
    let file = vfs.open(path, Access::Read).unwrap();
    block::read_sealed(&*file, path).unwrap().entries
}
