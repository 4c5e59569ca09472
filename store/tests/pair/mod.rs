//! Two stores, one of which takes over what the other has.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use asl_store::id::Digest;
use asl_store::log::LogEnd;
use asl_store::sync::{Outcome, SyncOptions, SyncReport, sync};
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Compression, Hint, Key, Result, StoreHandle, StoreId, VerifyOptions, WriteOptions, create,
    put_reader, verify,
};

use crate::common::*;

/// Whether the long sweeps were asked for.
pub fn all() -> bool {
    std::env::var_os("ASL_TEST_ALL").is_some()
}

pub fn arc(vfs: &FaultVfs) -> Arc<dyn Vfs> {
    Arc::new(vfs.clone())
}

pub fn options_of(threads: usize) -> SyncOptions {
    SyncOptions {
        threads,
        ..SyncOptions::default()
    }
}

pub fn try_sync(into: &FaultVfs, from: &FaultVfs) -> Result<SyncReport> {
    sync(&arc(into), &arc(from), &context(7), &options_of(1), &())
}

pub fn synced(into: &FaultVfs, from: &FaultVfs) -> SyncReport {
    try_sync(into, from).unwrap()
}

/// A store of its own id.
pub fn store(seed: u8) -> FaultVfs {
    let vfs = FaultVfs::new();
    create(&vfs, &small_params(), &context(seed), &options()).unwrap();
    vfs
}

/// Puts artifacts of these numbers.
pub fn fill(vfs: &FaultVfs, seed: u8, numbers: std::ops::Range<u64>) {
    let mut w = writer(vfs, seed).unwrap();
    for n in numbers {
        w.put(frame(&noise(n, 3000))).unwrap();
    }
    w.finish().unwrap();
}

/// A store with packed and large blocks, notes, a list of parts, a removed artifact, segments, snapshots and several log files.
pub fn other() -> FaultVfs {
    let vfs = store(9);
    let short_files = WriteOptions {
        log_file_len: 1500,
        ..options()
    };
    let mut w =
        asl_store::StoreWriter::open(Arc::new(vfs.clone()), context(10), short_files).unwrap();
    for n in 0..40 {
        w.put(frame(&noise(n, 3000))).unwrap();
    }
    w.put(frame(&vec![7; 200_000])).unwrap();
    w.put(frame(&noise(1000, 40_000))).unwrap();
    w.flush().unwrap();
    w.snapshot("the first").unwrap();
    w.note(77, b"somebody's note".to_vec()).unwrap();
    let long = noise(2000, 300_000);
    put_reader(
        &mut w,
        &mut &long[..],
        Hint::Stream,
        None,
        Compression::Auto,
    )
    .unwrap();
    w.put(frame(b"to be removed")).unwrap();
    w.tombstone(&[Key::of(b"to be removed")]).unwrap();
    w.flush().unwrap();
    w.snapshot("").unwrap();
    w.finish().unwrap();
    vfs
}

pub fn id_of(vfs: &FaultVfs) -> StoreId {
    reader(vfs).unwrap().with_state(|state| state.store_id())
}

/// Everything that is visible in one instance, by key.
pub fn contents(handle: &StoreHandle) -> BTreeMap<Key, Vec<u8>> {
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

/// What each instance shows, and that nothing of it is damaged.
pub fn checked(vfs: &FaultVfs) -> BTreeMap<StoreId, BTreeMap<Key, Vec<u8>>> {
    let store = reader(vfs).unwrap();
    assert_eq!(store.problems(), []);
    let each = |one: StoreHandle| {
        assert_eq!(*one.log_end(), LogEnd::Clean);
        assert_eq!(one.problems(), []);
        let options = VerifyOptions {
            threads: 1,
            ..VerifyOptions::default()
        };
        let report = verify(one.vfs().clone(), &options, &()).unwrap();
        assert_eq!(report.damage, []);
        (one.with_state(|state| state.store_id()), contents(&one))
    };
    store.instances().into_iter().map(each).collect()
}

pub fn outcome(report: &SyncReport, id: StoreId) -> &Outcome {
    let mut instances = report.instances.iter();
    &instances.find(|one| one.store == id).unwrap().outcome
}

/// Only what counts: no lock, no half files.
pub fn files_of(vfs: &FaultVfs) -> Vec<(String, u64)> {
    let files = vfs.files().into_iter();
    files.filter(|(path, _)| path != "lock").collect()
}

pub fn blocks_of(vfs: &FaultVfs) -> Vec<Digest> {
    reader(vfs).unwrap().with_state(|state| {
        let mut blocks: Vec<_> = state.blocks.values().collect();
        blocks.sort_by_key(|info| info.position);
        blocks.iter().map(|info| Digest(info.digest)).collect()
    })
}
