//! What is carried to a new instance, and what is not.

use std::sync::Arc;

use asl_store::id::Digest;
use asl_store::sync::{SyncOptions, sync};
use asl_store::vfs::Vfs;
use asl_store::vfs::fault::{CrashPolicy, FaultVfs};
use asl_store::{Home, Key, StoreId};

use super::*;
use crate::fixture::*;
use crate::lineage::{self, Checks, Level, Op};
use crate::tlog::empty_root;

/// A writer of a store at a place.
fn at(vfs: &FaultVfs, seed: u8, place: &str) -> StoreWriter {
    let context = asl_store::Context {
        home: Home::new(place),
        ..context(seed)
    };
    StoreWriter::open(Arc::new(vfs.clone()), context, options()).unwrap()
}

/// A store with a domain that was updated once, and a clone of it.
fn cloned() -> (FaultVfs, FaultVfs) {
    let first = fresh();
    let mut w = at(&first, 2, "here");
    publish(&mut w, &genesis());
    capture(&mut w, 7);
    update(&mut w, 1, |dam, _| dam.label = "once".into());
    checkpoint(&mut w, CHECKPOINT);
    w.finish().unwrap();
    let second = first.fork();
    (first, second)
}

fn meet(into: &FaultVfs, from: &FaultVfs, seed: u8) {
    let vfs = |vfs: &FaultVfs| -> Arc<dyn Vfs> { Arc::new(vfs.clone()) };
    let (into, from) = (vfs(into), vfs(from));
    sync(&into, &from, &context(seed), &SyncOptions::default(), &()).unwrap();
}

fn own(w: &StoreWriter) -> Option<Domain> {
    Domain::read(w.handle()).unwrap()
}

const NOTHING: Carried = Carried {
    manifests: 0,
    links: 0,
    disagree: false,
};

#[test]
fn a_new_instance_gets_the_domain_and_an_old_one_what_was_added_elsewhere() {
    let (first, second) = cloned();
    let mut w = at(&second, 3, "there");
    assert!(w.recovery().born.is_some());
    assert!(own(&w).is_none());
    let carried = carry(&mut w).unwrap();
    assert_eq!((carried.manifests, carried.links), (2, 0));
    let there = own(&w).unwrap();
    let here = Domain::read(&reader(&first)).unwrap().unwrap();
    assert_eq!(
        (there.id(), there.chain.head_key()),
        (here.id(), here.chain.head_key())
    );
    // Neither evidence nor anything odd came with it, and its own checkpoints count.
    assert!(there.findings.is_empty(), "{:?}", there.findings);
    assert_eq!((there.checkpoints.len(), there.receipts.len()), (0, 0));
    checkpoint(&mut w, CHECKPOINT);
    assert_eq!(own(&w).unwrap().checkpoints.len(), 1);
    // Understood without the instance that it came from.
    let alone = w.handle().instances().remove(0);
    assert!(Domain::read(&alone).unwrap().unwrap().findings.is_empty());

    let length = |w: &StoreWriter| w.handle().with_state(|state| state.position());
    let before = length(&w);
    assert_eq!(carry(&mut w).unwrap(), NOTHING);
    assert_eq!(length(&w), before);

    let head = update(&mut w, 2, |dam, _| dam.label = "twice".into());
    w.finish().unwrap();
    meet(&first, &second, 20);
    let mut w = at(&first, 4, "here");
    assert_eq!(own(&w).unwrap().chain.head().dam.label, "once");
    assert_eq!(carry(&mut w).unwrap().manifests, 1);
    assert_eq!(own(&w).unwrap().chain.head_key(), head);
    assert!(own(&w).unwrap().findings.is_empty());
    assert_eq!(carry(&mut w).unwrap(), NOTHING);
    w.finish().unwrap();
}

#[test]
fn what_forks_is_not_carried() {
    let (first, second) = cloned();
    let mut w = at(&second, 3, "there");
    carry(&mut w).unwrap();
    update(&mut w, 2, |dam, _| dam.label = "theirs".into());
    w.finish().unwrap();
    let mut w = at(&first, 4, "here");
    let head = update(&mut w, 3, |dam, _| dam.label = "ours".into());
    w.finish().unwrap();
    meet(&first, &second, 20);
    let mut w = at(&first, 5, "here");
    assert_eq!(carry(&mut w).unwrap(), NOTHING);
    let domain = own(&w).unwrap();
    assert_eq!((domain.chain.head_key(), domain.findings.len()), (head, 0));
}

/// Two updates of one manifest, and a rotation that goes on from one of them: it comes over with what it settled, whichever side is
/// asked.
#[test]
fn what_a_rotation_settled_is_carried_with_it() {
    let (first, second) = cloned();
    let mut w = at(&second, 3, "there");
    carry(&mut w).unwrap();
    update(&mut w, 2, |dam, _| dam.label = "theirs".into());
    let chain = own(&w).unwrap().chain;
    let from = chain.head_key();
    let draft = crate::Draft::rotation(&chain, from, [8; 32], 7, |dam, _| {
        dam.roots = vec![signer(NEXT).public()];
        dam.next = vec![signer(77).public().next_digest()];
    });
    publish(&mut w, &draft.unwrap().signed(&[signer(NEXT)]));
    let head = own(&w).unwrap().chain.head_key();
    w.finish().unwrap();
    let mut w = at(&first, 4, "here");
    update(&mut w, 3, |dam, _| dam.label = "ours".into());
    w.finish().unwrap();
    meet(&first, &second, 20);
    let mut w = at(&first, 5, "here");
    assert_eq!(carry(&mut w).unwrap().manifests, 2);
    let domain = own(&w).unwrap();
    assert_eq!(domain.chain.head_key(), head);
    assert!(domain.chain.forks().is_empty() && !domain.is_blind());
    let classes = domain
        .findings
        .iter()
        .map(|finding| domain.class_of(finding));
    let notes = classes.filter(|class| *class == crate::domain::Class::Note);
    assert_eq!(
        notes.count(),
        domain.findings.len(),
        "{:?}",
        domain.findings
    );
    assert_eq!(carry(&mut w).unwrap(), NOTHING);
    w.finish().unwrap();
}

/// Whoever brings an instance with a domain of their own does not get it in.
#[test]
fn another_domain_is_not_carried() {
    let (first, _) = cloned();
    let strange = FaultVfs::new();
    let params = asl_store::Params {
        shards: 1,
        ..Default::default()
    };
    asl_store::create(&strange, &params, &context(9), &options()).unwrap();
    let mut w = at(&strange, 10, "elsewhere");
    publish(&mut w, &genesis_with(|dam, _| dam.nonce = [1; 32]));
    w.finish().unwrap();
    meet(&first, &strange, 20);
    let mut w = at(&first, 11, "here");
    assert_eq!(carry(&mut w).unwrap(), NOTHING);
    w.finish().unwrap();
    // A new instance beside both does not choose.
    let mut w = at(&first, 12, "third");
    assert!(w.recovery().born.is_some());
    let carried = carry(&mut w).unwrap();
    assert!(carried.disagree && !carried.any());
    assert!(own(&w).is_none());
}

#[test]
fn links_that_count_are_carried() {
    let (first, _) = cloned();
    let mut w = at(&first, 3, "here");
    let domain = own(&w).unwrap();
    let child = genesis_with(|dam, _| dam.nonce = [2; 32]);
    let head = Key::of(&child.dam);
    let link = Lineage {
        op: Op::Adopt,
        level: Level::Semantics,
        parent: domain.id(),
        parent_head: domain.chain.head_key(),
        child: child.domain(),
        child_genesis: head,
        child_head: head,
        store: StoreId([8; 16]),
        position: LogPosition(9),
        chain: Digest([7; 32]),
        manifest_root: empty_root(),
        artifacts: 0,
        bytes: 0,
        missing: 0,
        checks: Checks::ALL,
        log: vec![Key([6; 32])],
        sessions: vec![],
        prev: None,
        tool: "a test".into(),
    };
    let body = link.encode().unwrap();
    let mut say = |key: u8| {
        let signature = lineage::sign(&signer(key), &domain.id(), &body);
        let keys = [put(&mut w, &body), put(&mut w, &signature.encode())];
        w.authority(Authority::Lineage, &keys).unwrap();
    };
    // The second by a key that is no root: it does not count, here or there.
    say(ROOT);
    say(HOST);
    w.finish().unwrap();
    let mut w = at(&first, 4, "there");
    let carried = carry(&mut w).unwrap();
    assert_eq!((carried.manifests, carried.links), (2, 1));
    let links = own(&w).unwrap().lineage;
    assert_eq!((links.len(), links[0].lineage.as_ref()), (1, Some(&link)));
    assert_eq!(carry(&mut w).unwrap(), NOTHING);
}

/// Cut off at any write: what is carried next time is the rest.
#[test]
fn carrying_can_be_cut_off_anywhere() {
    let (_, second) = cloned();
    at(&second, 3, "there").finish().unwrap();
    let whole = second.fork();
    let start = whole.ops();
    let mut w = at(&whole, 4, "there");
    assert_eq!(carry(&mut w).unwrap().manifests, 2);
    w.finish().unwrap();
    for cut in (1..whole.ops() - start).step_by(5) {
        let vfs = second.fork();
        vfs.crash_at(vfs.ops() + cut);
        let context = asl_store::Context {
            home: Home::new("there"),
            ..context(4)
        };
        if let Ok(mut w) = StoreWriter::open(Arc::new(vfs.clone()), context, options()) {
            let _ = carry(&mut w);
        }
        let vfs = vfs.power_cut(CrashPolicy::Torn { seed: cut });
        let mut w = at(&vfs, 5, "there");
        carry(&mut w).unwrap();
        let domain = own(&w).unwrap();
        assert_eq!(domain.chain.head().dam.label, "once", "cut at {cut}");
        assert!(domain.findings.is_empty(), "cut at {cut}");
        assert_eq!(carry(&mut w).unwrap(), NOTHING, "cut at {cut}");
    }
}
