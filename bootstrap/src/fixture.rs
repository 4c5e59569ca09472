//! Stores on the fault file system and domains with fixed keys, for this crate's tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use asl_store::frame::{Compression, Encoder};
use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Authority, Context, Key, LogPosition, Owner, Params, SessionId, StoreHandle, StoreWriter,
    WriteOptions, create, format,
};
use zeroize::Zeroizing;

use crate::author::Draft;
use crate::dam::{Dam, Kind, Principal, Roles, Witness};
use crate::key::{Secret, Signer};
use crate::policy::Policy;

pub(crate) const ROOT: u8 = 1;
pub(crate) const NEXT: u8 = 2;
pub(crate) const HOST: u8 = 3;
pub(crate) const CHECKPOINT: u8 = 4;

/// The key pair of a number.
pub(crate) fn signer(n: u8) -> Signer {
    Signer::new(&Secret::from_seed(Zeroizing::new([n; 32])))
}

pub(crate) fn context(seed: u8) -> Context {
    let clock = AtomicI64::new(1_700_000_000_000_000_000);
    Context {
        owner: Owner {
            boot_id: [3; 16],
            pid: 7,
            start_time: 9,
        },
        holder: "the test".into(),
        seed: [seed; 32],
        now: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
    }
}

pub(crate) fn options() -> WriteOptions {
    WriteOptions {
        ballast_bytes: 0,
        ..WriteOptions::default()
    }
}

/// A store without anything in it.
pub(crate) fn fresh() -> FaultVfs {
    let vfs = FaultVfs::new();
    let params = Params {
        shards: 1,
        ..Params::default()
    };
    create(&vfs, &params, &context(1), &options()).unwrap();
    vfs
}

pub(crate) fn writer(vfs: &FaultVfs, seed: u8) -> StoreWriter {
    StoreWriter::open(Arc::new(vfs.clone()), context(seed), options()).unwrap()
}

pub(crate) fn reader(vfs: &FaultVfs) -> StoreHandle {
    StoreHandle::open(Arc::new(vfs.clone())).unwrap()
}

pub(crate) fn put(writer: &mut StoreWriter, bytes: &[u8]) -> Key {
    let mut encoder = Encoder::new(Compression::None);
    let frame = encoder.encode(Key::of(bytes), bytes.to_vec().into(), format::FLAG_ROOT);
    writer.put(frame).unwrap();
    Key::of(bytes)
}

/// A session that ends, as a capture does, with `root` in the store.
pub(crate) fn capture(writer: &mut StoreWriter, n: u8) -> (SessionId, Key) {
    let session = SessionId([n; 16]);
    writer.begin_session(session, b"begun").unwrap();
    let root = put(writer, &[n; 100]);
    let finished = format::SESSION_FINISHED;
    writer.end_session(finished, Some(root), b"ended").unwrap();
    (session, root)
}

/// The first manifest of a personal domain with the keys above.
pub(crate) fn genesis() -> Draft {
    let principal = |n, roles| Principal {
        key: signer(n).public(),
        roles,
    };
    let dam = Dam {
        kind: Kind::Personal,
        version: 0,
        rotation: 0,
        prev: None,
        domain: None,
        nonce: [9; 32],
        roots: vec![signer(ROOT).public()],
        root_threshold: 1,
        next: vec![signer(NEXT).public().next_digest()],
        next_threshold: 1,
        principals: vec![
            principal(HOST, Roles::PRODUCE),
            principal(CHECKPOINT, Roles::CHECKPOINT),
        ],
        witness: Witness::NONE,
        policy: Key::ZERO,
        revoked: Vec::new(),
        anchor: None,
        label: "a test".into(),
        created_hint: 5,
    };
    let draft = Draft::genesis(dam, &Policy::default_of(Kind::Personal)).unwrap();
    draft.signed(&[signer(ROOT), signer(HOST), signer(CHECKPOINT)])
}

/// Puts a manifest and its record.
pub(crate) fn publish(writer: &mut StoreWriter, draft: &Draft) -> LogPosition {
    put(writer, &draft.policy);
    let mut keys = vec![put(writer, &draft.dam)];
    keys.extend(draft.signatures.iter().map(|bytes| put(writer, bytes)));
    writer.authority(Authority::Dam, &keys).unwrap()
}
