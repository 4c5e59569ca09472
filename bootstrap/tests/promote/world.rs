//! A rescue store with captures, and a workstation's store.

use std::collections::BTreeMap;
use std::sync::Arc;

use asl_bootstrap::keyfile::Role;
use asl_bootstrap::lineage::Level;
use asl_bootstrap::mint::{self, Done};
use asl_bootstrap::promote::{Means, Plan, Promoted, Request, Source, examine, examine_new};
use asl_bootstrap::receipt::ReceiptKind;
use asl_bootstrap::trust::Trusted;
use asl_bootstrap::{Domain, DomainId, Draft, KeyFile, Kind, Result};
use asl_store::frame::{Compression, Encoder, build_node};
use asl_store::vfs::fault::FaultVfs;
use asl_store::{
    Hint, Key, Params, SessionId, StoreHandle, StoreWriter, VerifyOptions, create, format,
    put_reader,
};

use crate::dam::Dam;
use crate::fixture::{self, context, genesis_with, options, publish, signer};
use crate::policy::Policy;

pub(crate) use crate::fixture::{reader, writer};

/// First of the numbers of a domain's keys: root, next, host, checkpoint.
pub const RESCUE: u8 = 1;
pub const HOME: u8 = 11;

pub fn params() -> Params {
    Params {
        shards: 1,
        small_threshold: 16 << 10,
        block_size: 64 << 10,
        ..Params::default()
    }
}

/// The first manifest of a domain whose keys begin with a number.
pub fn genesis(keys: u8, edit: impl FnOnce(&mut Dam, &mut Policy)) -> Draft {
    let mut draft = genesis_with(|dam, policy| {
        dam.nonce = [keys; 32];
        dam.roots = vec![signer(keys).public()];
        dam.next = vec![signer(keys + 1).public().next_digest()];
        dam.principals[0].key = signer(keys + 2).public();
        dam.principals[1].key = signer(keys + 3).public();
        dam.sort();
        edit(dam, policy);
    });
    draft.signatures.clear();
    draft.signed(&[signer(keys), signer(keys + 2), signer(keys + 3)])
}

/// A store without a domain.
pub fn empty(seed: u8) -> FaultVfs {
    let vfs = FaultVfs::new();
    create(&vfs, &params(), &context(seed), &options()).unwrap();
    vfs
}

/// A store with a domain and a checkpoint of it.
pub fn founded(keys: u8) -> FaultVfs {
    founded_with(keys, |_, _| ())
}

pub fn founded_with(keys: u8, edit: impl FnOnce(&mut Dam, &mut Policy)) -> FaultVfs {
    let vfs = empty(keys);
    let mut w = writer(&vfs, keys + 100);
    publish(&mut w, &genesis(keys, edit));
    let file = key_file(keys, w.handle());
    mint::checkpoint(&mut w, &file).unwrap();
    w.finish().unwrap();
    vfs
}

/// The key file of a store's domain.
pub fn key_file(keys: u8, store: &StoreHandle) -> KeyFile {
    let domain = Domain::read(store).unwrap().unwrap();
    let mut file = KeyFile::new(Some(domain.id()));
    file.add(Role::Root, &signer(keys).secret());
    file.add(Role::Host, &signer(keys + 2).secret());
    file.add(Role::Checkpoint, &signer(keys + 3).secret());
    file
}

/// Bytes that do not compress, different for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub fn put(w: &mut StoreWriter, bytes: &[u8], flags: u16) -> Key {
    let key = Key::of(bytes);
    let frame = Encoder::new(Compression::Auto).encode(key, bytes.to_vec().into(), flags);
    w.put(frame).unwrap();
    key
}

/// A session that ends with a tree of two levels over these chunks, as a capture does.
pub fn capture(w: &mut StoreWriter, session: u8, chunks: &[Vec<u8>]) -> (SessionId, Key) {
    let session = SessionId([session; 16]);
    let body = format!("{{\"label\":\"capture {session}\"}}");
    w.begin_session(session, body.as_bytes()).unwrap();
    let mut leaves = Vec::new();
    for chunks in chunks.chunks(3) {
        let keys: Vec<Key> = chunks.iter().map(|chunk| put(w, chunk, 0)).collect();
        leaves.push(put(w, &build_node(2, &keys, b""), format::FLAG_NODE));
    }
    let root = build_node(1, &leaves, body.as_bytes());
    let root = put(w, &root, format::FLAG_NODE | format::FLAG_ROOT);
    w.end_session(format::SESSION_FINISHED, Some(root), b"done")
        .unwrap();
    (session, root)
}

pub fn chunks(seed: u64, count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| noise(seed * 1000 + n, 3000)).collect()
}

/// Signs what there is to sign.
pub fn attest(w: &mut StoreWriter, keys: u8) {
    let file = key_file(keys, w.handle());
    let done = finished(w.handle());
    mint::attest(w, &file, &done).unwrap();
    mint::checkpoint(w, &file).unwrap();
}

/// A rescue store with two captures, an artifact in pieces, a large one and one that was removed; signed.
pub fn rescue() -> FaultVfs {
    let vfs = founded(RESCUE);
    let mut w = writer(&vfs, 102);
    capture(&mut w, 61, &chunks(1, 20));
    put(&mut w, b"a note to myself", format::FLAG_ROOT);
    put(&mut w, b"removed again", format::FLAG_ROOT);
    w.commit().unwrap();
    w.tombstone(&[Key::of(b"removed again")]).unwrap();
    put(&mut w, &noise(7, 40_000), format::FLAG_ROOT);
    let long = noise(8, 200_000);
    let stored = put_reader(
        &mut w,
        &mut &long[..],
        Hint::Stream,
        None,
        Compression::Auto,
    );
    stored.unwrap();
    capture(&mut w, 62, &chunks(2, 10));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
    vfs
}

/// One more capture, signed.
pub fn advance(vfs: &FaultVfs, session: u8) {
    let mut w = writer(vfs, session.wrapping_add(120));
    capture(&mut w, session, &chunks(session.into(), 6));
    attest(&mut w, RESCUE);
    w.finish().unwrap();
}

pub fn finished(store: &StoreHandle) -> Vec<Done> {
    store.with_state(|state| {
        let ended = state.sessions.iter().filter(|session| {
            session.kind == format::SESSION_FINISHED
                && !session
                    .begun
                    .starts_with(b"{\"format\":\"asl-promotion-1\"")
        });
        ended
            .map(|session| Done {
                kind: ReceiptKind::Capture,
                session: session.session(),
                root: session.root_key().unwrap(),
            })
            .collect()
    })
}

/// The finished captures of each instance.
pub fn finished_of_each(source: &Source) -> Vec<Vec<Done>> {
    let instances = source.instances().iter();
    instances.map(|one| finished(one.store())).collect()
}

/// How to promote.
#[derive(Clone, Copy)]
pub struct How<'a> {
    pub level: Level,
    pub fork: bool,
    pub accept_rebuilt: bool,
    pub accept_damaged: bool,
    pub both: bool,
    pub expect: Option<DomainId>,
    pub remembered: Option<&'a Trusted>,
    pub captures: Option<&'a [SessionId]>,
}

pub const PLAIN: How<'_> = How {
    level: Level::Semantics,
    fork: false,
    accept_rebuilt: false,
    accept_damaged: false,
    both: false,
    expect: None,
    remembered: None,
    captures: None,
};

pub fn source(child: &FaultVfs) -> Result<Source> {
    Source::open(Arc::new(child.clone()))
}

pub fn plan(child: &FaultVfs, target: &FaultVfs, how: &How<'_>) -> Result<Plan> {
    planned(child, Some(target), how)
}

/// What would be done in a domain that is not founded yet.
pub fn plan_new(child: &FaultVfs, how: &How<'_>) -> Result<Plan> {
    planned(child, None, how)
}

fn planned(child: &FaultVfs, target: Option<&FaultVfs>, how: &How<'_>) -> Result<Plan> {
    let source = source(child)?;
    let finished = finished_of_each(&source);
    let request = Request {
        expect: how.expect.unwrap_or_else(|| fixed_id(RESCUE)),
        level: how.level,
        fork: how.fork,
        accept_rebuilt: how.accept_rebuilt,
        accept_damaged: how.accept_damaged,
        finished: &finished,
        captures: how.captures,
        tool: "a test",
    };
    let Some(target) = target else {
        let policy = Policy::default_of(Kind::Personal);
        return examine_new(&source, &policy, how.remembered, &request);
    };
    let target = StoreHandle::open(Arc::new(target.clone()))?;
    examine(&source, &target, how.remembered, &request)
}

/// The id of a domain by its keys.
pub fn fixed_id(keys: u8) -> DomainId {
    genesis(keys, |_, _| ()).domain()
}

pub fn promote(child: &FaultVfs, target: &FaultVfs, how: &How<'_>) -> Result<Promoted> {
    promote_with(child, target, how, &mut || ())
}

/// Like [`promote`]; `between` is called after the plan is made.
pub fn promote_with(
    child: &FaultVfs,
    target: &FaultVfs,
    how: &How<'_>,
    between: &mut dyn FnMut(),
) -> Result<Promoted> {
    let source = source(child)?;
    let plan = plan(child, target, how)?;
    between();
    let handle = Arc::new(target.clone());
    let mut w = StoreWriter::open(handle, context(200), options())?;
    let keys = file_of(HOME, fixed_id(HOME));
    let child_keys = file_of(RESCUE, fixed_id(RESCUE));
    let relabel = |begun: &[u8]| [begun, b" (other history)"].concat();
    let means = Means {
        keys: &keys,
        child_keys: how.both.then_some(&child_keys),
        relabel: Some(&relabel),
        threads: 2,
        observer: &(),
    };
    let promoted = plan.execute(&source, &mut w, &means)?;
    w.finish()?;
    Ok(promoted)
}

fn file_of(keys: u8, domain: DomainId) -> KeyFile {
    let mut file = KeyFile::new(Some(domain));
    file.add(Role::Root, &signer(keys).secret());
    file.add(Role::Host, &signer(keys + 2).secret());
    file.add(Role::Checkpoint, &signer(keys + 3).secret());
    file
}

/// Everything that is visible, by key.
pub fn contents(vfs: &FaultVfs) -> BTreeMap<Key, Vec<u8>> {
    let handle = fixture::reader(vfs);
    let mut keys = Vec::new();
    let mut each = |record: asl_store::segment::IndexRecord| {
        keys.push(record.key);
        Ok(())
    };
    handle.for_each(&mut each).unwrap();
    let whole = |key: &Key| {
        let mut bytes = Vec::new();
        handle.copy_to(key, &mut bytes).unwrap();
        bytes
    };
    keys.iter().map(|key| (*key, whole(key))).collect()
}

/// All files with their bytes.
pub fn files(vfs: &FaultVfs) -> BTreeMap<String, Vec<u8>> {
    let files = vfs.files().into_iter();
    files
        .map(|(name, _)| (name.clone(), vfs.read_file(&name).unwrap()))
        .collect()
}

/// The store and its domain are whole in every way that can be looked for.
pub fn verified(vfs: &FaultVfs) {
    let options = VerifyOptions::default();
    let report = asl_store::verify(Arc::new(vfs.clone()), &options, &()).unwrap();
    assert!(report.ok(), "{:#?}", report.damage);
    let store = reader(vfs);
    let report = asl_bootstrap::verify::verify(&store, &finished(&store), None).unwrap();
    assert!(report.is_ok(), "{:#?}", report.found);
}

/// Everything that hangs on the roots of captures can be read.
pub fn captures(vfs: &FaultVfs) -> BTreeMap<SessionId, Key> {
    let store = reader(vfs);
    let done = finished(&store);
    for done in &done {
        let root = store.get_node(&done.root).unwrap();
        let (_, leaves, _) = asl_store::frame::parse_node(&root).unwrap();
        for leaf in leaves {
            let leaf = store.get_node(&leaf).unwrap();
            let (_, chunks, _) = asl_store::frame::parse_node(&leaf).unwrap();
            for chunk in chunks {
                store.get_part(&chunk).unwrap();
            }
        }
    }
    done.iter().map(|done| (done.session, done.root)).collect()
}
