//! A store on the fault file system with a fixed seed and a counting clock.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Compression, Context, Encoder, Frame, Key, Params, Result, StoreHandle, StoreWriter,
    WriteOptions, create,
};

/// A context whose clock ticks once a call; `seed` makes writers differ.
pub fn context(seed: u8) -> Context {
    let clock = AtomicI64::new(1_700_000_000_000_000_000);
    Context {
        owner: asl_store::Owner {
            boot_id: [3; 16],
            pid: 7,
            start_time: 9,
        },
        holder: "the test".into(),
        seed: [seed; 32],
        home: None,
        now: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
    }
}

/// Small blocks and thresholds, so that little data makes many of them.
pub fn small_params() -> Params {
    Params {
        shards: 4,
        block_size: 64 << 10,
        large_size: 64 << 10,
        small_threshold: 16 << 10,
        packed_max: 64,
    }
}

pub fn options() -> WriteOptions {
    WriteOptions {
        ballast_bytes: 16 << 10,
        flush_entries: 200,
        flush_blocks: 8,
        ..WriteOptions::default()
    }
}

/// A fresh store.
pub fn fresh() -> FaultVfs {
    let vfs = FaultVfs::new();
    create(&vfs, &small_params(), &context(1), &options()).unwrap();
    vfs
}

pub fn writer(vfs: &FaultVfs, seed: u8) -> Result<StoreWriter> {
    StoreWriter::open(Arc::new(vfs.clone()), context(seed), options())
}

pub fn reader(vfs: &FaultVfs) -> Result<StoreHandle> {
    StoreHandle::open(Arc::new(vfs.clone()))
}

/// Bytes that do not compress, from a number.
pub fn noise(n: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A root artifact's frame.
pub fn frame(bytes: &[u8]) -> Frame {
    Encoder::new(Compression::Auto).encode(
        Key::of(bytes),
        bytes.to_vec().into(),
        asl_store::format::FLAG_ROOT,
    )
}
