//! What a source may hold, and what may go wrong around it: each is refused, and the target is as it was.

use std::sync::Arc;

use asl_bootstrap::dam::{Reason, Revocation};
use asl_bootstrap::domain::Class;
use asl_bootstrap::lineage::{self, Level};
use asl_bootstrap::policy::{Foreign, Refusal};
use asl_bootstrap::promote::{Means, Progress, PromoteError, Source};
use asl_bootstrap::sign::{Context, Signature};
use asl_bootstrap::trust::Trusted;
use asl_bootstrap::{Compared, Domain, Draft, Error, KeyFile, Pin, mint};
use asl_store::log::LogEnd;
use asl_store::vfs::fault::FaultVfs;
use asl_store::{Authority, Key, LogPosition, StoreHandle, StoreWriter, format};

use crate::fixture::{context, options, publish, signer};
use crate::world::*;

/// The plan is refused, and nothing was written anywhere.
fn refused(child: &FaultVfs, home: &FaultVfs, how: &How<'_>) -> Error {
    let (there, here) = (files(child), files(home));
    let error = plan(child, home, how).unwrap_err();
    assert_eq!(files(child), there);
    assert_eq!(files(home), here, "{error:?}");
    error
}

fn promote_error(error: Error) -> PromoteError {
    match error {
        Error::Promote(error) => error,
        error => panic!("{error:?}"),
    }
}

fn class(error: Error) -> Option<Class> {
    promote_error(error).class()
}

#[test]
fn stores_that_are_not_what_was_meant() {
    let (child, home) = (rescue(), founded(HOME));
    let other = How {
        expect: Some(fixed_id(40)),
        ..PLAIN
    };
    assert!(matches!(refused(&child, &home, &other), Error::Verify(_)));
    let itself = How {
        expect: Some(fixed_id(HOME)),
        ..PLAIN
    };
    assert!(matches!(
        promote_error(refused(&home, &founded(HOME), &itself)),
        PromoteError::SameDomain(_)
    ));
    let nobody = empty(9);
    let error = promote_error(refused(&nobody, &home, &PLAIN));
    assert!(matches!(error, PromoteError::NoDomain));
    assert_eq!(error.class(), Some(Class::Authority));
    let error = promote_error(refused(&child, &nobody, &PLAIN));
    assert!(matches!(error, PromoteError::TargetNoDomain));
    let nothing = FaultVfs::new();
    assert!(Source::open(Arc::new(nothing)).is_err());
}

/// The workstation saw a newer manifest than the source has, or another one of the same age.
#[test]
fn manifests_that_are_not_those_that_were_seen() {
    let (child, home) = (rescue(), founded(HOME));
    let store = StoreHandle::open(Arc::new(child.clone())).unwrap();
    let now = Pin::of(&Domain::read(&store).unwrap().unwrap().chain);
    let newer = Pin {
        version: now.version + 1,
        head: Key([1; 32]),
        ..now
    };
    let other = Pin {
        epoch: Key([2; 32]),
        head: Key([2; 32]),
        ..now
    };
    for (pin, expected) in [
        (
            newer,
            Compared::Rollback {
                version: now.version,
            },
        ),
        (other, Compared::Fork { theirs: now.epoch }),
    ] {
        let remembered = Trusted {
            domain: fixed_id(RESCUE),
            name: None,
            manifest: Some(pin),
            logs: Vec::new(),
        };
        let how = How {
            remembered: Some(&remembered),
            ..PLAIN
        };
        let error = promote_error(refused(&child, &home, &how));
        assert_eq!(error.class(), Some(Class::Fork), "{error:?}");
        let PromoteError::Manifest { pinned, found } = error else {
            panic!("{error:?}");
        };
        assert_eq!((*pinned, found), (pin, expected));
    }
    let seen = Trusted {
        domain: fixed_id(RESCUE),
        name: None,
        manifest: Some(now),
        logs: Vec::new(),
    };
    let how = How {
        remembered: Some(&seen),
        ..PLAIN
    };
    assert_eq!(
        plan(&child, &home, &how).unwrap().manifest,
        Some(Compared::Same)
    );
}

fn log_of(vfs: &FaultVfs) -> String {
    let mut names = vfs.files().into_iter().map(|(name, _)| name);
    names.find(|name| name.ends_with(".asl")).unwrap()
}

#[test]
fn logs_that_do_not_end_as_they_should() {
    let (child, home) = (rescue(), founded(HOME));
    let log = log_of(&child);
    let whole = child.read_file(&log).unwrap();

    let torn = child.fork();
    torn.write_file(&log, &[&whole[..], b"torn"].concat())
        .unwrap();
    let error = promote_error(refused(&torn, &home, &PLAIN));
    let PromoteError::SourceLog(LogEnd::Torn { ignored_bytes: 4 }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.class(), Some(Class::Integrity));

    let damaged = child.fork();
    damaged.flip_byte(&log, whole.len() as u64 / 2).unwrap();
    let error = promote_error(refused(&damaged, &home, &PLAIN));
    assert!(
        matches!(error, PromoteError::SourceLog(LogEnd::Damaged { .. })),
        "{error:?}"
    );

    // Shorter than its own hint remembers.
    let old = child.fork();
    advance(&child, 63);
    old.write_file("log/current", &child.read_file("log/current").unwrap())
        .unwrap();
    let error = promote_error(refused(&old, &home, &PLAIN));
    assert!(
        matches!(error, PromoteError::SourceLog(LogEnd::Lost { .. })),
        "{error:?}"
    );
}

#[test]
fn claims_that_nobody_with_the_authority_made() {
    let home = founded(HOME);
    // A receipt signed by somebody else.
    let child = rescue();
    let mut w = writer(&child, 150);
    let domain = Domain::read(w.handle()).unwrap().unwrap();
    let receipt = domain.receipts[0].receipt;
    let forged = receipt.sign(&signer(77), &domain.id()).encode();
    let keys = [
        put(&mut w, &receipt.encode(), 0),
        put(&mut w, &forged, format::FLAG_ROOT),
    ];
    w.authority(Authority::Receipt, &keys).unwrap();
    w.finish().unwrap();
    assert_eq!(
        class(refused(&child, &home, &PLAIN)),
        Some(Class::Authority)
    );

    // A checkpoint key that was revoked from the beginning.
    let child = rescue();
    let mut w = writer(&child, 150);
    let domain = Domain::read(w.handle()).unwrap().unwrap();
    let draft = Draft::update(&domain.chain, [1; 32], 7, |dam, _| {
        dam.principals
            .retain(|one| one.key != signer(RESCUE + 3).public());
        dam.revoke(Revocation {
            key: signer(RESCUE + 3).id(),
            store: domain.store,
            position: LogPosition(0),
            reason: Reason::Compromised,
        });
    });
    publish(&mut w, &draft.unwrap().signed(&[signer(RESCUE)]));
    w.finish().unwrap();
    assert_eq!(
        class(refused(&child, &home, &PLAIN)),
        Some(Class::Authority)
    );

    // A link that the source's roots did not sign, and one that they did and nobody can read.
    let link = |signature: u8, body: &[u8]| {
        let child = rescue();
        let mut w = writer(&child, 150);
        let signed = Signature::new(
            &signer(signature),
            Context::Lineage,
            &fixed_id(RESCUE),
            body,
        );
        let keys = [
            put(&mut w, body, format::FLAG_ROOT),
            put(&mut w, &signed.encode(), format::FLAG_ROOT),
        ];
        w.authority(Authority::Lineage, &keys).unwrap();
        w.finish().unwrap();
        child
    };
    for signature in [77, RESCUE] {
        let child = link(signature, b"from the future");
        assert_eq!(
            class(refused(&child, &home, &PLAIN)),
            Some(Class::Authority)
        );
    }
}

/// A lineage in the target that its root did not sign is not believed: neither is anything taken for promoted, nor refused.
#[test]
fn a_forged_lineage_in_the_target_counts_for_nothing() {
    let (child, home) = (rescue(), founded(HOME));
    let done = founded(HOME);
    let real = promote(&child, &done, &PLAIN).unwrap();
    let mut w = writer(&home, 150);
    let body = real.links[0].lineage.encode().unwrap();
    let forged = lineage::sign(&signer(77), &fixed_id(HOME), &body).encode();
    let keys = [
        put(&mut w, &body, format::FLAG_ROOT),
        put(&mut w, &forged, format::FLAG_ROOT),
    ];
    w.authority(Authority::Lineage, &keys).unwrap();
    w.finish().unwrap();
    assert_eq!(
        plan(&child, &home, &PLAIN).unwrap().instances[0].progress,
        Progress::Due
    );
    promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), captures(&child));
}

/// Covers C5.
#[test]
fn the_policy_of_the_target_is_asked() {
    let child = rescue();
    for (foreign, level) in [
        (Foreign::Quarantine, Level::Bytes),
        (Foreign::Quarantine, Level::Semantics),
        (Foreign::Bytes, Level::Semantics),
    ] {
        let home = founded_with(HOME, |_, policy| policy.foreign = foreign);
        let how = How { level, ..PLAIN };
        let error = refused(&child, &home, &how);
        let Error::Refused(Refusal::Foreign { allowed, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(allowed, foreign);
    }
}

/// Blocks with the most artifacts: of a capture.
fn largest(vfs: &FaultVfs) -> String {
    let blocks = vfs.files().into_iter();
    let blocks = blocks.filter(|(name, _)| name.starts_with("blocks/sealed"));
    blocks.max_by_key(|(_, len)| *len).unwrap().0
}

#[test]
fn damaged_blocks_are_named_and_left_out_only_if_that_is_accepted() {
    let (child, home) = (rescue(), founded(HOME));
    let block = {
        // The block of the first capture's chunks.
        let store = reader(&child);
        let at = store.locate(&Key::of(&chunks(1, 1)[0])).unwrap();
        let digest = store.with_state(|state| state.block(at.block).unwrap().digest);
        asl_store::block::sealed_path(&asl_store::id::Digest(digest))
    };
    let len = child
        .files()
        .iter()
        .find(|(name, _)| *name == block)
        .unwrap()
        .1;
    let whole = child.read_file(&block).unwrap();
    // In the contents: seen before anything is written.
    child.flip_byte(&block, len - 400).unwrap();
    let error = promote_error(refused(&child, &home, &PLAIN));
    assert_eq!(error.class(), Some(Class::Integrity));
    let PromoteError::Damaged { blocks } = error else {
        panic!("{error:?}");
    };
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].path, block);
    assert_eq!(blocks[0].captures, [asl_store::SessionId([61; 16])]);
    // Every frame is whole, so all of it comes.
    let accepted = How {
        accept_damaged: true,
        ..PLAIN
    };
    let copy = home.fork();
    let promoted = promote(&child, &copy, &accepted).unwrap();
    assert_eq!(
        (promoted.links[0].lineage.missing, promoted.incomplete.len()),
        (0, 0)
    );
    assert_eq!(captures(&copy), captures(&child));
    verified(&copy);

    // In a frame: seen in our own copy.
    child.write_file(&block, &whole).unwrap();
    child.flip_byte(&block, 2000).unwrap();
    let into = home.fork();
    let error = promote_error(promote(&child, &into, &PLAIN).unwrap_err());
    assert!(matches!(error, PromoteError::Damaged { .. }), "{error:?}");
    assert!(captures(&into).is_empty());
    let promoted = promote(&child, &into, &accepted).unwrap();
    assert_eq!(promoted.links[0].lineage.missing, 1);
    assert_eq!(promoted.incomplete, [(asl_store::SessionId([61; 16]), 1)]);
    assert_eq!(promoted.moved.lost, 1);
    // Nothing more is to be had.
    let again = plan(&child, &into, &accepted).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
    // Until the block is whole again.
    child.write_file(&block, &whole).unwrap();
    let promoted = promote(&child, &into, &PLAIN).unwrap();
    assert_eq!(promoted.links[0].lineage.missing, 0);
    assert_eq!(captures(&into), captures(&child));
    verified(&into);
    let again = plan(&child, &into, &PLAIN).unwrap();
    assert!(matches!(
        again.instances[0].progress,
        Progress::Promoted { .. }
    ));
    // A block that is gone altogether.
    child.remove_file(&block).unwrap();
    let error = promote_error(refused(&child, &home, &PLAIN));
    assert!(matches!(error, PromoteError::Damaged { .. }));
}

#[test]
fn a_source_that_changes_while_it_is_read() {
    let swapped = |edit: &dyn Fn(&FaultVfs)| {
        let (child, home) = (rescue(), founded(HOME));
        let error = promote_with(&child, &home, &PLAIN, &mut || edit(&child)).unwrap_err();
        assert!(captures(&home).is_empty());
        verified(&home);
        promote_error(error)
    };
    // One block in place of another.
    let error = swapped(&|child| {
        let blocks: Vec<String> = child.files().into_iter().map(|(name, _)| name).collect();
        let other = blocks.iter().find(|name| name.starts_with("blocks/sealed"));
        let bytes = child.read_file(other.unwrap()).unwrap();
        child.write_file(&largest(child), &bytes).unwrap();
    });
    assert_eq!(error.class(), Some(Class::Integrity));
    // Another byte.
    let error = swapped(&|child| child.flip_byte(&largest(child), 3000).unwrap());
    assert_eq!(error.class(), Some(Class::Integrity));
    // Another log.
    let error = swapped(&|child| {
        let log = log_of(child);
        let len = child.read_file(&log).unwrap().len() as u64;
        child.flip_byte(&log, len - 10).unwrap();
    });
    assert!(matches!(error, PromoteError::Changed(_)), "{error:?}");
    let error = swapped(&|child| {
        let log = log_of(child);
        let bytes = child.read_file(&log).unwrap();
        child.write_file(&log, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(matches!(error, PromoteError::Changed(_)), "{error:?}");
    // What is only longer is not changed: the rest comes the next time.
    let (child, home) = (rescue(), founded(HOME));
    let before = captures(&child);
    promote_with(&child, &home, &PLAIN, &mut || advance(&child, 63)).unwrap();
    assert_eq!(captures(&home), before);
    promote(&child, &home, &PLAIN).unwrap();
    assert_eq!(captures(&home), captures(&child));
    verified(&home);
}

#[test]
fn an_index_that_is_not_what_the_log_says() {
    let (child, home) = (rescue(), founded(HOME));
    let mut w = writer(&child, 150);
    w.flush().unwrap();
    w.finish().unwrap();
    promote(&child, &founded(HOME), &PLAIN).unwrap();
    let segments = child.files().into_iter();
    let segment = segments
        .filter(|(name, _)| name.contains("/seg"))
        .max_by_key(|(_, len)| *len)
        .unwrap();
    for at in [segment.1 / 2, segment.1 - 1] {
        let copy = child.fork();
        copy.flip_byte(&segment.0, at).unwrap();
        let error = promote_error(refused(&copy, &home, &PLAIN));
        assert!(matches!(error, PromoteError::Index(_)), "{error:?}");
        assert_eq!(error.class(), Some(Class::Integrity));
    }
}

#[test]
fn a_target_that_fills_up_goes_on_when_there_is_room() {
    let (child, home) = (rescue(), founded(HOME));
    let used: u64 = home.files().iter().map(|(_, len)| len).sum();
    for more in [0, 30_000, 120_000, 300_000] {
        let home = home.fork();
        home.set_capacity(used + more);
        let error = promote(&child, &home, &PLAIN).unwrap_err();
        let Error::Store(error) = &error else {
            panic!("{error:?}");
        };
        assert!(error.is_full(), "{error:?}");
        assert!(captures(&home).is_empty());
        home.set_capacity(1 << 40);
        promote(&child, &home, &PLAIN).unwrap();
        assert_eq!(captures(&home), captures(&child));
        verified(&home);
    }
}

/// Keys are looked at before anything is written.
#[test]
fn keys_that_cannot_sign() {
    let (child, home) = (rescue(), founded(HOME));
    let planned = plan(&child, &home, &PLAIN).unwrap();
    let source = source(&child).unwrap();
    let mut w = StoreWriter::open(Arc::new(home.clone()), context(200), options()).unwrap();
    let good = key_file(HOME, w.handle());
    let stranger = {
        let mut file = KeyFile::new(Some(fixed_id(RESCUE)));
        file.add(asl_bootstrap::keyfile::Role::Root, &signer(77).secret());
        file
    };
    let without = |role| {
        let mut file = KeyFile::new(good.domain());
        for key in good.keys().iter().filter(|key| key.role != role) {
            file.add(key.role, &key.signer().secret());
        }
        file
    };
    use asl_bootstrap::keyfile::Role;
    let no_root = without(Role::Root);
    let no_host = without(Role::Host);
    let no_checkpoint = without(Role::Checkpoint);
    let before = files(&home);
    for (keys, child_keys) in [
        (&no_root, None),
        (&no_host, None),
        (&no_checkpoint, None),
        (&stranger, None),
        (&good, Some(&stranger)),
        (&good, Some(&good)),
    ] {
        let means = Means {
            keys,
            child_keys,
            relabel: None,
            threads: 1,
            observer: &(),
        };
        planned.execute(&source, &mut w, &means).unwrap_err();
        assert_eq!(files(&home), before);
    }
}

#[test]
fn a_target_that_is_not_in_order_takes_nothing() {
    let (child, home) = (rescue(), founded(HOME));
    let mut w = writer(&home, 150);
    let body = b"from the future";
    let signed = Signature::new(&signer(HOME), Context::Lineage, &fixed_id(HOME), body);
    let keys = [
        put(&mut w, body, format::FLAG_ROOT),
        put(&mut w, &signed.encode(), format::FLAG_ROOT),
    ];
    w.authority(Authority::Lineage, &keys).unwrap();
    w.finish().unwrap();
    let error = refused(&child, &home, &PLAIN);
    assert!(
        matches!(error, Error::Mint(mint::MintError::Blind)),
        "{error:?}"
    );
}
