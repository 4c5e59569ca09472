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
use crate::dam::{Dam, Kind, Member, Principal, Roles, Witness, WitnessMode};
use crate::domain::Domain;
use crate::key::{Secret, Signer};
use crate::policy::Policy;
use crate::receipt::Receipt;

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
        home: None,
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
    genesis_with(|_, _| ())
}

/// The same with something changed.
pub(crate) fn genesis_with(edit: impl FnOnce(&mut Dam, &mut Policy)) -> Draft {
    let principal = |n, roles| Principal {
        key: signer(n).public(),
        roles,
    };
    let mut dam = Dam {
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
    let mut policy = Policy::default_of(Kind::Personal);
    edit(&mut dam, &mut policy);
    let draft = Draft::genesis(dam, &policy).unwrap();
    draft.signed(&[signer(ROOT), signer(HOST), signer(CHECKPOINT)])
}

/// Witnesses with the keys of these numbers, named `w<number>`.
pub(crate) fn witnesses(numbers: &[u8], threshold: u8) -> Witness {
    let member = |n: &u8| Member {
        key: signer(*n).public(),
        name: format!("w{n}"),
    };
    Witness {
        mode: match numbers.len() {
            1 => WitnessMode::Single,
            _ => WitnessMode::Quorum,
        },
        members: numbers.iter().map(member).collect(),
        threshold,
    }
}

/// Puts a manifest and its record.
pub(crate) fn publish(writer: &mut StoreWriter, draft: &Draft) -> LogPosition {
    put(writer, &draft.policy);
    let mut keys = vec![put(writer, &draft.dam)];
    keys.extend(draft.signatures.iter().map(|bytes| put(writer, bytes)));
    writer.authority(Authority::Dam, &keys).unwrap()
}

/// The domain as the writer's log has it.
pub(crate) fn domain(writer: &StoreWriter) -> Domain {
    Domain::read(writer.handle()).unwrap().unwrap()
}

/// Signs the head of the log and puts the checkpoint.
pub(crate) fn checkpoint(writer: &mut StoreWriter, key: u8) -> Key {
    let signed = domain(writer).head_checkpoint().sign(&signer(key)).unwrap();
    let key = put(writer, &signed.to_bytes());
    writer.authority(Authority::Checkpoint, &[key]).unwrap();
    key
}

/// Puts a receipt with a signature by a key.
pub(crate) fn attest(writer: &mut StoreWriter, receipt: &Receipt, key: u8) -> Vec<Key> {
    let domain = domain(writer).id();
    let body = put(writer, &receipt.encode());
    let signature = put(writer, &receipt.sign(&signer(key), &domain).encode());
    let keys = vec![body, signature];
    writer.authority(Authority::Receipt, &keys).unwrap();
    keys
}

/// Publishes an update that the root signs.
pub(crate) fn update(
    writer: &mut StoreWriter,
    nonce: u8,
    edit: impl FnOnce(&mut Dam, &mut Policy),
) -> Key {
    let chain = domain(writer).chain;
    let draft = Draft::update(&chain, [nonce; 32], 6, edit).unwrap();
    let draft = draft.signed(&[signer(ROOT)]);
    publish(writer, &draft);
    Key::of(&draft.dam)
}
